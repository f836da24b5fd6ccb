"""Everything that can be chosen: frozen dataclasses.

A run is a profile × a variant × a seed. The variant changes the vision branch and its loss and nothing else: batch,
schedule, learning rate, data and validation pairs are the profile's and the same for every variant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from vlp_lib.errors import unknown
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
)


@dataclass(frozen=True)
class ViTConfig(Checked):
    """The vision transformer (section IV-A1: 9 layers, patch 32, learnable position embedding)."""

    width: Size = 768
    layers: Annotated[int, Range(0, 1_000)] = 9
    heads: Size = 12
    patch: Size = 32  # in pixels
    pretrained: str = ""  # a timm model name, a `hf-hub:` name or a local folder or file; "": random weights
    # Of red, green and blue, from 0 to 1: the scale of the images that the weights were trained on. Empty ones are
    # those of the configuration that stands with the weights; ImageNet's for random weights.
    mean: Colour = ()
    std: Deviation = ()


@dataclass(frozen=True)
class ResNetConfig(Checked):
    """The convolutional backbone (section IV-A1: ResNet-50)."""

    block: Literal["basic", "bottleneck"] = "bottleneck"  # timm's residual block
    # Blocks of each stage; the number of stages sets the stride (4 stages: 32, 2 stages: 8).
    layers: Annotated[tuple[int, ...], Range(1, 1_000, lengths=(1, 2, 3, 4))] = (3, 4, 6, 3)
    channels: Annotated[tuple[int, ...], Range(1, 65_536)] = (64, 128, 256, 512)  # width of each stage
    output_stride: Literal[4, 8, 16, 32] = 32  # of the feature map; dilation replaces the strides beyond it
    # "frozen" batch norm for pretrained weights (running statistics, as DETR), or "group" norm, which needs no
    # statistics of the batch, where training starts from random weights.
    norm: Literal["frozen", "group"] = "frozen"
    pretrained: str = ""  # this and the next two as for the vision transformer
    mean: Colour = ()
    std: Deviation = ()


@dataclass(frozen=True)
class TimmConfig(Checked):
    """A backbone of timm's, whichever `vision` names (`timm:NAME`), read at the end of its last stage."""

    # "hub" (timm's own weights of that name), a local folder or file, or `package:NAME`, an installed package; "":
    # random weights.
    pretrained: str = "hub"
    mean: Colour = ()  # this and the next as for the vision transformer
    std: Deviation = ()
    # Of pretrained weights, how many of the layer groups that timm divides the backbone into keep their values; the
    # stem is the first, a stage (of a transformer a block) each of the others. Batch norms keep the statistics and
    # factors of the weights, wherever they stand.
    frozen_stages: Annotated[int, Range(0, 1_000)] = 0


@dataclass(frozen=True)
class RegionConfig(Checked):
    """The region-feature stream of the comparison model (figures 1 and 5): what a detector says of the image."""

    max_regions: Annotated[int, Range(1, 10_000)] = 36  # boxes an image
    # Size of continuous region features (Bottom-Up: 2048); 0 where the detector gives labels only.
    feature_size: Annotated[int, Range(0, 65_536)] = 0


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The two-stream model at one scale (sections III-A and IV-A1)."""

    image_size: Size = 384
    # The vision stream of the variants that name none: "vit", "resnet", or "timm:NAME", any backbone of timm.
    vision: str = "vit"
    hidden: Size = 768  # width of the language encoder and the cross-modality encoder
    heads: Size = 12  # attention heads of both
    language_layers: Layers = 9  # as LXMERT (the paper does not say; alternative: 12)
    cross_layers: Layers = 5  # cross-modality layers (the paper: 5)
    shared_cross_attention: bool = True  # one cross-attention for both directions, as LXMERT; False: each its own
    # Factor on the initial queries and keys of the cross-attention, an SPL decoder's included; 1 is BERT's
    # initialisation, with which the words at first look at all of the image alike.
    sharpness: Positive = 1.0
    dropout: Annotated[float, Range(0, 0.99)] = 0.1  # in the language and cross-modality encoders
    max_text_length: TextLength = 40  # tokens, [CLS] and [SEP] counted
    vit: ViTConfig = field(default_factory=ViTConfig)
    resnet: ResNetConfig = field(default_factory=ResNetConfig)
    timm: TimmConfig = field(default_factory=TimmConfig)
    region: RegionConfig = field(default_factory=RegionConfig)
    # A hub name, a local folder or `package:NAME`, an installed package, with weights of a BERT; "": random weights.
    language_pretrained: str = ""
    # Named likewise; "" uses the corpus's own vocabulary (vocab.txt) or trains WordPiece on its training captions.
    tokenizer: str = ""
    # "vision" applies the visual loss to the vision encoder's output (figures 2 and 4), "cross" to the vision branch of
    # the cross-modality encoder.
    visual_loss_at: Literal["vision", "cross"] = "vision"
    # Settings of visual losses that differ from their defaults, by "<loss>.<setting>".
    losses: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataConfig(Checked):
    """How samples are made (sections III-A and IV-A3)."""

    # The image is resized by a factor drawn from this range before the crop.
    resize: Annotated[tuple[float, float], Range(ABOVE_0, 16, ascending=True)] = (0.8, 1.2)
    # Share of flipped images among those that no keyword forbids to flip, in any sentence that the image is joined with
    # (description-aware).
    flip: Share = 0.5
    # "both" joins each image with its own sentence and with that of another image of the batch, so that both encoders
    # run once for two pairs and each image and sentence is seen on both sides of the question; "one" joins it with
    # either, by a coin. Half of the pairs are mismatched both ways.
    pairing: Literal["both", "one"] = "both"
    mlm_probability: Share = 0.15  # share of the words that MLM selects
    # What replaces a selected word that is not [MASK]ed: "zero" (the paper: 10 % token id 0, 10 % kept) or "random"
    # (BERT: 10 % random word, 10 % kept).
    mlm_replacement: Literal["zero", "random"] = "zero"
    mlm_on_mismatched: bool = False  # whether MLM counts on mismatched pairs (LXMERT does)
    detector_threshold: Share = 0.2  # detector labels below this score are not used
    # Share of the training images whose files may be broken; another pair, drawn from the sample's seed, stands in for
    # each, and all are counted and named. One in a thousand is what a disk or a download loses of a set that is
    # otherwise whole; more says that the set has to be fetched again. Corpora of less than a thousand images may have
    # none, and validation never.
    allow_corrupt: Share = 0.001
    workers: Annotated[int, Range(0, 1_024)] = 0  # processes that decode images; 0: the training process does
    # Tokens that the sentences of a batch are padded to, ascending, the last at least `ModelConfig.max_text_length`;
    # batches are then of sentences of like length, and have few different shapes (for torch.compile). Empty: batches of
    # any sentences, padded to a multiple of 8.
    text_lengths: Annotated[tuple[int, ...], Range(3, 65_536, ascending=True)] = ()


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """The optimisation; the paper gives the epochs, the rest follows LXMERT and UNITER."""

    steps: Whole = 0  # optimiser steps (0: as many as `epochs` takes)
    epochs: Annotated[float, Range(ABOVE_0, 1_000_000)] = 15  # passes over all image–sentence pairs
    batch_size: Count = 256  # images an optimiser step, over all processes and accumulated parts together
    accumulation: Count = 1  # parts that a batch is computed in, one after the other
    learning_rate: Positive = 1e-4
    # Factor on the rate of the parts that begin with pretrained weights (the backbone, the language stream).
    pretrained_rate: Positive = 1.0
    weight_decay: Annotated[float, Range(0, 100)] = 0.01
    warmup: Share = 0.1  # share of the steps in which the learning rate rises linearly from 0
    decay: Share = 1.0  # share of the steps after the warm-up in which it falls linearly to 0; before: constant
    clip: Positive = 1.0  # largest gradient norm
    # How many times the validation pairs are scored (evenly spread, the last step included).
    evaluations: Annotated[int, Range(1, 1_000_000)] = 100
    # Images that validation reads, each with its own and another's sentence, the same for every variant and seed.
    validation_images: Count = 2048
    # How many times the state to resume from is written (evenly spread), and how many of these are kept.
    checkpoints: Annotated[int, Range(0, 1_000_000)] = 50
    keep: Annotated[int, Range(1, 1_000_000)] = 2
    # "float32" (on a GPU its matrices are multiplied in TF32), "bf16" (autocast), or "auto": bf16 where the device
    # multiplies it in hardware.
    precision: Literal["auto", "bf16", "float32"] = "auto"
    compile: bool = False  # compiles the model's repeated blocks (torch.compile), for GPUs
    # Computes activations again in the backward pass instead of keeping them: less memory, about a third more time.
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
    """

    image_size: Size = 600  # side of the squared image in pixels (the paper: 600, and 800 for its best VQA result)
    vqa: TrainingConfig = field(default_factory=_finetuning)
    nlvr2: TrainingConfig = field(default_factory=_finetuning)
    vcr: TrainingConfig = field(default_factory=lambda: _finetuning(6e-5))
    minimum_answers: Count = 9  # an answer enters VQA's list with so many questions whose most common answer it is
    answer_list: str = ""  # a file with the answer list of another project; "" builds it from the annotations
    # Tokens of a VQA question or an NLVR2 statement, [CLS] and [SEP] counted; longer ones are cut.
    text_length: TextLength = 60
    vcr_text_length: TextLength = 220  # tokens of a VCR question with a candidate (UNITER: 220)
    allow_missing: Share = 0.0  # share of the val or test items whose image may be missing; they are scored as wrong
    scored: Whole = 0  # items of val and of test that the final scores are computed on; 0 scores all


@dataclass(frozen=True)
class RetrievalConfig(Checked):
    """Zero-shot retrieval (section IV-B4); every one of the images meets every sentence."""

    # Where the corpus is several data sets, the one to search in, e.g. "flickr30k"; "" is the first.
    data_set: str = ""
    images: Count = 5_000  # test images, the first by id; five sentences each
    fold: Count = 1_000  # images of a fold (COCO 1k is the mean of five folds of 1,000)
    image_size: Annotated[int, Range(0, 65_536)] = 0  # side of the squared image in pixels; 0: the pretraining's
    block: Count = 512  # pairs that the cross-modality layers see at once
    # Of the cross-modality layers; "auto" as in training. The matching head is always float32.
    precision: Literal["auto", "bf16", "float32"] = "auto"


@dataclass(frozen=True)
class SpeedConfig(Checked):
    """Inference time: what is measured (section IV-C; Tables II and IV, figure 5 right)."""

    full_size: bool = True  # the paper's architecture, whatever the profile's is; False: miniatures, as a trial
    # Time for the runs of one model; where its runs would take longer it makes fewer, but at least five.
    seconds: Positive = 12.0


@dataclass(frozen=True)
class CorpusConfig(Checked):
    """The embedded corpus that is drawn where no `data_root` is given: its size, and what its world is like."""

    seed: Annotated[int, Range(0, 2**32 - 1)] = 0  # of all random choices
    # Scenes with captions, boxes, detections and questions.
    train_images: Annotated[int, Range(1, 1_000_000)] = 12_000
    val_images: Annotated[int, Range(1, 1_000_000)] = 1_000
    test_images: Annotated[int, Range(1, 1_000_000)] = 1_000
    nlvr_pairs: SplitSizes = (1_500, 300, 300)  # image pairs of NLVR2's train, dev and test1, two statements each
    vcr_images: SplitSizes = (1_200, 300, 300)  # images of VCR's train, val and test, one question each
    # Fewest and most things of an image (VCR's images have three at least). Beyond the limits of this and of the next
    # two they do not find room beside each other.
    things: Annotated[tuple[int, int], Range(1, 4, (2,), ascending=True)] = (2, 3)
    # Fewest and most pixels of the two sizes of things, in an image of 64 pixels.
    large: Annotated[tuple[int, int], Range(8, 32, ascending=True)] = (24, 27)
    small: Annotated[tuple[int, int], Range(8, 20, ascending=True)] = (14, 16)
    named: Share = 0.5  # share of the sentences about things that name the ground, the background or both as well
    # Share of the grounds and backgrounds that have the typical colour of their class; the others have any of its
    # colours. 0: colour tells little of a class; 1: grass is always green.
    typical: Share = 0.7
    # How uneven the classes and colours are: the n-th is drawn n^skew times as rarely as the first. COCO is skewed
    # (half of its images show a person); 0 draws all alike.
    skew: Annotated[float, Range(0, 4)] = 0.0
    maps: Share = 0.5  # share of the training images that have a label map (the paper: half)
    # Captions of a training image that has a label map, and of one that has none. (5, 45) gives a tenth of the pairs a
    # map, as in the paper, whose images without one are Visual Genome's.
    sentences: Annotated[tuple[int, int], Range(1, 100)] = (5, 5)
    # Factor on the errors of the simulated detector: missed, doubled, misnamed and invented boxes.
    detector_noise: Annotated[float, Range(0, 6)] = 1.0


@dataclass(frozen=True)
class Profile:
    """A scale: model, data, pretraining and finetuning together."""

    name: str
    model: ModelConfig
    training: TrainingConfig
    data: DataConfig = field(default_factory=DataConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    downstream: DownstreamConfig = field(default_factory=DownstreamConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    check_only: bool = False  # it only shows that everything runs: no verdict is given of its numbers


TASKS = ("vqa", "nlvr2", "vcr")
"""The tasks that are finetuned."""


def check_task(name: str, known: Sequence[str] = TASKS) -> str:
    """The name of a task; raises UserError for an unknown one."""
    if name not in known:
        raise unknown("task", name, known)
    return name


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
