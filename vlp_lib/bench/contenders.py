"""The models whose inference time is compared (Tables II and IV), with random weights.

Ours in every variant, the region model behind two detectors, and three peers from transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch

from vlp_lib.batches.sample import Batch
from vlp_lib.bench.architecture import at_inference, count
from vlp_lib.bench.made_up import SIZES, fill, question, shape_of
from vlp_lib.bench.region_detector import DetectorConfig, RegionDetector, bottom_up_like, stock_detector
from vlp_lib.config import ModelConfig, RegionConfig, ResNetConfig, ViTConfig
from vlp_lib.models.model import VLPModel
from vlp_lib.models.vision import VisionFeatures
from vlp_lib.variants import VARIANTS, Variant

_VILT_PATCH = 32

Stage = Callable[[Any], Any]


@dataclass(frozen=True)
class Scale:
    """How large the timed models are: ours, the region pipeline's detector, and the peers.

    `peers` are sizes by their names in transformers; what is left out is as published.
    """

    model: ModelConfig
    detector: DetectorConfig
    peers: Mapping[str, Any] = field(default_factory=dict)


FULL_SIZE = Scale(ModelConfig(), DetectorConfig())
"""The paper's architecture and Bottom-Up's detector."""

MINIATURE = Scale(
    ModelConfig(
        hidden=32,
        heads=2,
        language_layers=1,
        cross_layers=2,
        vit=ViTConfig(width=32, layers=1, heads=2),
        resnet=ResNetConfig(layers=(1, 1, 1, 1), channels=(8, 16, 32, 64)),
        region=RegionConfig(max_regions=8),
    ),
    DetectorConfig(layers=(1, 1, 1, 1), classes=20, proposals=10, regions=8),
    {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 96}
    | dict.fromkeys(("num_hidden_layers", "l_layers", "x_layers", "r_layers"), 1),
)
"""Everything small, to try the measurement itself."""


@dataclass(frozen=True)
class Contender:
    """A model to time."""

    name: str  # a variant, or a name of its own
    kind: Literal["ours", "pipeline", "peer"]  # a pipeline is a detector and the region model
    stages: dict[str, Stage]  # what it computes, in order, by name: functions of the result before (the first of None)
    visual_tokens: int  # what its (cross-modality) encoder reads of the image
    parameters: int  # that are used at inference
    note: str = ""  # what a reader has to know


def contenders(scale: Scale, image_size: int, device: torch.device) -> Iterator[Contender]:
    """Every model, on a device; what models have in common they share, to save memory."""
    torch.manual_seed(0)
    # Built for the size at hand, so that no position embedding is resampled at each pass. A visual loss is made for the
    # size of the pretraining: SPL has as many queries for an image of any size (section IV-A4).
    config = replace(scale.model, image_size=image_size)
    batch = question(config, SIZES, device)
    first = fill(shape_of(config, VARIANTS["naive_vit"]), device)
    for variant in VARIANTS.values():
        if variant.vision != "region":
            model = _assemble(config, variant, first, device, scale.model)
            tokens, parameters = at_inference(model, batch)
            yield Contender(variant.name, "ours", _stages(model, batch), tokens, parameters)
    layers = "ResNet-101 C4 Faster R-CNN, 1600 classes, from torchvision's parts" if scale is FULL_SIZE else ""
    mild = "torchvision's fasterrcnn_resnet50_fpn, 91 classes: the mild case"
    for name, detector, size, note in (
        ("region_bottom_up", bottom_up_like(scale.detector, image_size), 2048, layers),
        ("region_stock", stock_detector(scale.detector.regions, image_size), 1024, mild),
    ):
        region = replace(config, region=replace(config.region, feature_size=size))
        model = _assemble(region, VARIANTS["region"], first, device, region)
        yield _pipeline(name, model, detector.to(device), batch, note)
    yield from _peers(scale, batch, device)


def _assemble(
    config: ModelConfig, variant: Variant, first: VLPModel, device: torch.device, pretrained: ModelConfig
) -> VLPModel:
    """A variant's model with the first one's parts where it has the same, and random weights elsewhere."""
    model = shape_of(config, variant)
    model.visual_loss = fill(shape_of(pretrained, variant).visual_loss, device)
    model.vision = first.vision if variant.vision == "vit" else fill(model.vision, device)
    model.language, model.cross_modality, model.pooler = first.language, first.cross_modality, first.pooler
    return model


def _stages(model: VLPModel, batch: Batch) -> dict[str, Stage]:
    return {
        "vision": lambda _: model.encode_vision(batch)[1],
        "language": lambda tokens: (tokens, model.encode_language(batch)),
        "cross": lambda both: model.join(both[1], batch.attention_mask, both[0])[0],
    }


def _pipeline(name: str, model: VLPModel, detector: RegionDetector, batch: Batch, note: str) -> Contender:
    def vision(found: Any) -> VisionFeatures:
        nothing = torch.full_like(found.labels, -1)
        return model.encode_vision(replace(batch, attributes=nothing, **found._asdict()))[1]

    detection = {"detector": lambda _: detector.propose(batch.images), "selection": detector.select}
    tokens = min(detector.regions, model.config.region.max_regions)
    parameters = count(model.vision, model.language, model.cross_modality, model.pooler, detector)
    stages = detection | _stages(model, batch) | {"vision": vision}
    return Contender(name, "pipeline", stages, tokens, parameters, note)


def _peers(scale: Scale, batch: Batch, device: torch.device) -> Iterator[Contender]:
    """ViLT on the same pixels, LXMERT and VisualBERT on 36 given regions; each stage is the whole model."""
    import transformers

    regions, sizes = scale.detector.regions, dict(scale.peers)
    with device:
        vilt = transformers.ViltModel(transformers.ViltConfig(patch_size=_VILT_PATCH, **sizes))
        visual_bert = transformers.VisualBertModel(transformers.VisualBertConfig(visual_embedding_dim=2048, **sizes))
        sizes.pop("num_hidden_layers", None)  # LXMERT has a number for each of its streams
        lxmert = transformers.LxmertModel(transformers.LxmertConfig(**sizes))
        features, boxes, ones = torch.rand(1, regions, 2048), torch.rand(1, regions, 4), torch.ones(1, regions)
    words = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask.long()}
    pixels = {"pixel_values": batch.images, "pixel_mask": torch.ones_like(batch.images[:, 0]).long()}
    places = {"visual_feats": features, "visual_pos": boxes}
    embedded = {"visual_embeds": features, "visual_attention_mask": ones, "visual_token_type_ids": ones.long()}
    patches = (batch.images.shape[-1] // _VILT_PATCH) ** 2
    given = f"{regions} region features given: add a detector's time"
    for name, model, inputs, tokens, note in (
        ("vilt", vilt, pixels, patches, "one stream, pixels"),
        ("lxmert", lxmert, places, regions, given),
        ("visual_bert", visual_bert, embedded, regions, given),
    ):
        whole = partial(_answer, model.eval(), words | inputs)
        yield Contender(name, "peer", {"whole": whole}, tokens, count(model), note)


def _answer(model: torch.nn.Module, inputs: dict[str, torch.Tensor], _: None) -> Any:
    return model(**inputs)
