"""Inference time of one question about one image (Tables II and IV, figure 5 right), on the device at hand.

All models get the same image and question, a batch of one, in float32. The weights are random: time does not depend on
them. The models take turns, run by run, so that a machine that slows down slows all of them. Visual losses are not
computed at inference; SPL's decoder is, because the cross-modality encoder reads its tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from vlp_lib import io, provenance
from vlp_lib.batches.sample import Batch
from vlp_lib.bench.region_detector import Detector, DetectorConfig, bottom_up_like, stock_detector
from vlp_lib.config import VARIANTS, ModelConfig, Profile, RegionConfig, ResNetConfig, Variant, ViTConfig
from vlp_lib.errors import UserError
from vlp_lib.models.model import VLPModel, visual_loss_of
from vlp_lib.models.vision import RegionStream, ResNetStream, VisionFeatures
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.trainers.trained import device_at_hand

WORDS = 14
"""Words of the question; with [CLS] and [SEP] it has 16 tokens."""

LATENCY = "latency.json"

SIZES = Vocabularies(words=30_522, segmentation=171, detector=1_600, attributes=400)
"""BERT's words, COCO-Stuff's classes, Bottom-Up's classes and attributes."""

_FEWEST_RUNS = 3
_VILT_PATCH = 32

Stage = Callable[[Any], Any]


@dataclass(frozen=True)
class Architecture:
    """How large the timed models are.

    Attributes:
        model: ours.
        detector: of the region pipeline.
        peer_layers, peer_hidden: of the peers; 0 takes each peer's published size.
    """

    model: ModelConfig
    detector: DetectorConfig
    peer_layers: int = 0
    peer_hidden: int = 0


FULL_SIZE = Architecture(ModelConfig(), DetectorConfig())
"""The paper's architecture and Bottom-Up's detector."""

MINIATURE = Architecture(
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
    peer_layers=1,
    peer_hidden=24,
)
"""Everything small, to try the measurement itself."""


@dataclass(frozen=True)
class Contender:
    """A model to time.

    Attributes:
        name: a variant, or a name of its own.
        kind: "ours", "pipeline" (a detector and the region model) or "peer".
        stages: what it computes, in order, each a name and a function of the result before it (the first of None).
        visual_tokens: what its (cross-modality) encoder reads of the image.
        parameters: that are used at inference.
        note: what a reader has to know.
    """

    name: str
    kind: Literal["ours", "pipeline", "peer"]
    stages: tuple[tuple[str, Stage], ...]
    visual_tokens: int
    parameters: int
    note: str = ""


@dataclass(frozen=True)
class Latency:
    """What was measured of a contender, in milliseconds.

    Attributes:
        runs: [runs, stages], the time of each stage of each run.
        stages: the names.
    """

    runs: np.ndarray
    stages: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Median, 5th and 95th percentile of the whole, and each stage's median."""
        low, median, high = np.percentile(self.runs.sum(1), (5, 50, 95))
        return {
            "runs": len(self.runs),
            "median_ms": round(float(median), 3),
            "p5_ms": round(float(low), 3),
            "p95_ms": round(float(high), 3),
            "stages_ms": dict(zip(self.stages, np.median(self.runs, axis=0).round(3).tolist(), strict=True)),
        }


class _Stopwatch:
    """Marks moments; on a GPU by events in its own queue, so that looking at the time does not slow it down."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.events: list[torch.cuda.Event] = []
        self.moments: list[float] = []
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def mark(self) -> None:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.events.append(event)
        else:
            self.moments.append(time.perf_counter())

    def intervals(self) -> list[float]:
        """Milliseconds between the marks."""
        if self.events:
            torch.cuda.synchronize(self.device)
            return [a.elapsed_time(b) for a, b in zip(self.events, self.events[1:], strict=False)]
        return [1000 * (b - a) for a, b in zip(self.moments, self.moments[1:], strict=False)]


@torch.inference_mode()
def time_once(contender: Contender, device: torch.device) -> list[float]:
    """One pass; milliseconds of each stage."""
    watch = _Stopwatch(device)
    state = None
    watch.mark()
    for _, stage in contender.stages:
        state = stage(state)
        watch.mark()
    return watch.intervals()


def measure(
    contenders: Sequence[Contender], runs: int, warmup: int, seconds: float, device: torch.device
) -> dict[str, Latency]:
    """Time the contenders in turns.

    Args:
        runs: passes of each.
        warmup: passes before that are not counted; a model of which one pass takes more than a sixth of `seconds` gets
            one only.
        seconds: time for one model; one that is too slow for `runs` passes in it makes fewer, at least three, spread
            evenly over the rounds.
    """
    counts = {}
    for contender in contenders:
        took = sum(time_once(contender, device)) / 1000
        for _ in range(warmup - 1 if took < seconds / 6 else 0):
            took = sum(time_once(contender, device)) / 1000
        counts[contender.name] = min(runs, max(_FEWEST_RUNS, int(seconds / took)))
    times: dict[str, list[list[float]]] = {contender.name: [] for contender in contenders}
    for turn in range(runs):
        for contender in contenders:
            count = counts[contender.name]
            if (turn + 1) * count // runs > turn * count // runs:
                times[contender.name].append(time_once(contender, device))
    return {c.name: Latency(np.array(times[c.name]), tuple(name for name, _ in c.stages)) for c in contenders}


def contenders(architecture: Architecture, image_size: int, device: torch.device) -> Iterator[Contender]:
    """Everything that the issue of speed is about, with random weights, on a device.

    Ours (every variant but the region model), the region model behind two detectors, and three peers.
    """
    torch.manual_seed(0)
    # Built for the size at hand, so that no position embedding is resampled at each pass.
    config = replace(architecture.model, image_size=image_size)
    batch = _question(image_size, device)
    first: VLPModel | None = None
    for variant in VARIANTS.values():
        if variant.vision == "region":
            continue
        model = _assemble(config, variant, first, device)
        first = first or model
        yield _own(variant.name, model, batch, visual_tokens(config, variant, image_size))
    assert first is not None
    detectors: tuple[tuple[str, Detector, int, str], ...] = (
        (
            "region_bottom_up",
            bottom_up_like(architecture.detector, image_size),
            2048,
            "ResNet-101 C4 Faster R-CNN, 1600 classes, from torchvision's parts" if architecture is FULL_SIZE else "",
        ),
        (
            "region_stock",
            stock_detector(architecture.detector.regions, image_size),
            1024,
            "torchvision's fasterrcnn_resnet50_fpn, 91 classes: the mild case",
        ),
    )
    for name, detector, size, note in detectors:
        region = replace(config, region=replace(config.region, feature_size=size))
        model = _assemble(region, VARIANTS["region"], first, device)
        yield _pipeline(name, model, detector.to(device), batch, note)
    yield from _peers(architecture, batch, device)


def _question(image_size: int, device: torch.device) -> Batch:
    """A random image and a question of 14 words of one piece each."""
    with device:
        ids = torch.randint(1_000, SIZES.words, (1, WORDS + 2))
        one = torch.zeros(1, dtype=torch.long)
        images = torch.rand(1, 3, image_size, image_size)
    return Batch(images, ids, ids, torch.ones_like(ids).bool(), ids, one, one, one)


def _assemble(config: ModelConfig, variant: Variant, first: VLPModel | None, device: torch.device) -> VLPModel:
    """A model of random weights; what it has in common with the first one, it shares with it, to save memory."""
    if first is None:
        with device:
            return VLPModel(config, variant, SIZES).eval()
    with torch.device("meta"):
        model = VLPModel(config, variant, SIZES)
    with device:
        model.visual_loss = visual_loss_of(config, variant, SIZES, model.vision)
        if variant.vision == "region":
            model.vision = RegionStream(config, SIZES.detector, SIZES.attributes)
        elif variant.vision == "resnet":
            model.vision = ResNetStream(config)
        else:
            model.vision = first.vision
    model.language, model.cross_modality, model.pooler = first.language, first.cross_modality, first.pooler
    return model.eval()


def visual_tokens(config: ModelConfig, variant: Variant, image_size: int) -> int:
    """Visual tokens that the cross-modality encoder of a pixel variant reads; no number is computed for it."""
    with torch.device("meta"):
        model = VLPModel(config, variant, SIZES, pretrained=False)
        _, tokens = model.encode_vision(_question(image_size, torch.device("meta")))
    return tokens.tokens.shape[1]


def parameters_at_inference(model: VLPModel) -> int:
    """Parameters that an answer is computed with; of a visual loss only those that make tokens (SPL's decoder)."""
    parts: list[nn.Module] = [model.vision, model.language, model.cross_modality, model.pooler]
    count = sum(p.numel() for part in parts for p in part.parameters())
    weights = list(model.visual_loss.parameters())
    if model.visual_loss.replaces_tokens:
        grid = torch.zeros(1, 1, model.config.hidden, device=weights[0].device)
        tokens = model.visual_loss.tokens(VisionFeatures(grid, (1, 1))).tokens
        used = torch.autograd.grad(tokens.sum(), weights, allow_unused=True)
        count += sum(p.numel() for p, gradient in zip(weights, used, strict=True) if gradient is not None)
    return count


def _language_and_cross(model: VLPModel, batch: Batch) -> tuple[tuple[str, Stage], ...]:
    def language(tokens: VisionFeatures) -> tuple[VisionFeatures, torch.Tensor]:
        return tokens, model.encode_language(batch)

    def cross(both: tuple[VisionFeatures, torch.Tensor]) -> torch.Tensor:
        tokens, words = both
        return model.join(words, batch.attention_mask, tokens)[0]

    return ("language", language), ("cross", cross)


def _own(name: str, model: VLPModel, batch: Batch, tokens: int) -> Contender:
    def vision(_: None) -> VisionFeatures:
        return model.encode_vision(batch)[1]

    stages: tuple[tuple[str, Stage], ...] = (("vision", vision), *_language_and_cross(model, batch))
    return Contender(name, "ours", stages, tokens, parameters_at_inference(model))


def _pipeline(name: str, model: VLPModel, detector: Detector, batch: Batch, note: str) -> Contender:
    def vision(found: Any) -> VisionFeatures:
        regions = replace(
            batch,
            labels=found.labels,
            scores=found.scores,
            boxes=found.boxes,
            attributes=torch.full_like(found.labels, -1),
            features=found.features,
        )
        return model.encode_vision(regions)[1]

    def propose(_: None) -> Any:
        return detector.propose(batch.images)

    detection: tuple[tuple[str, Stage], ...] = (("detector", propose), ("selection", detector.select))
    stages = (*detection, ("vision", vision), *_language_and_cross(model, batch))
    tokens = min(detector.regions, model.config.region.max_regions)
    parameters = parameters_at_inference(model) + sum(p.numel() for p in detector.parameters())
    return Contender(name, "pipeline", stages, tokens, parameters, note)


def _peers(architecture: Architecture, batch: Batch, device: torch.device) -> Iterator[Contender]:
    """ViLT on the same pixels, LXMERT and VisualBERT on 36 given regions; each stage is the whole model."""
    import transformers

    layers, hidden = architecture.peer_layers, architecture.peer_hidden
    narrow: dict[str, Any] = (
        {"hidden_size": hidden, "num_attention_heads": 2, "intermediate_size": 4 * hidden} if hidden else {}
    )
    deep: dict[str, Any] = {"num_hidden_layers": layers} if layers else {}
    streams: dict[str, Any] = {"l_layers": layers, "x_layers": layers, "r_layers": layers} if layers else {}
    regions = architecture.detector.regions
    features, boxes = torch.rand(1, regions, 2048, device=device), torch.rand(1, regions, 4, device=device)
    words = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask.long()}
    with device:
        vilt = transformers.ViltModel(transformers.ViltConfig(patch_size=_VILT_PATCH, **narrow, **deep))
        lxmert = transformers.LxmertModel(transformers.LxmertConfig(**narrow, **streams))
        visual_bert = transformers.VisualBertModel(
            transformers.VisualBertConfig(visual_embedding_dim=2048, **narrow, **deep)
        )
    given = f"{regions} region features given: add a detector's time"
    pixels = {"pixel_values": batch.images, "pixel_mask": torch.ones_like(batch.images[:, 0]).long()}
    lxmert_inputs = words | {"visual_feats": features, "visual_pos": boxes}
    visual_bert_inputs = words | {
        "visual_embeds": features,
        "visual_attention_mask": torch.ones(1, regions, device=device),
        "visual_token_type_ids": torch.ones(1, regions, dtype=torch.long, device=device),
    }
    patches = (batch.images.shape[-1] // _VILT_PATCH) ** 2
    for name, model, inputs, tokens, note in (
        ("vilt", vilt, words | pixels, patches, "one stream, pixels"),
        ("lxmert", lxmert, lxmert_inputs, regions, given),
        ("visual_bert", visual_bert, visual_bert_inputs, regions, given),
    ):
        model.eval()
        parameters = sum(p.numel() for p in model.parameters())
        yield Contender(name, "peer", (("whole", _call(model, inputs)),), tokens, parameters, note)


def _call(model: nn.Module, inputs: dict[str, torch.Tensor]) -> Stage:
    return lambda _: model(**inputs)


def bench_speed(profile: Profile, image_size: int, runs: int, warmup: int, folder: Path) -> list[dict[str, Any]]:
    """Time all contenders, write them to `folder`/latency.json and return its rows.

    A row: name, kind, random_weights, note, image_size, visual_tokens, parameters, runs, median_ms, p5_ms, p95_ms,
    stages_ms, device and threads.
    """
    if image_size < 32:
        raise UserError(f"image_size is {image_size}: a patch alone has 32 pixels, so give at least that")
    if runs < 1 or warmup < 1:
        raise UserError(f"runs is {runs} and warmup {warmup}: both must be at least 1")
    begun, start = provenance.now(), time.monotonic()
    device = device_at_hand()
    full_size = profile.speed.full_size
    models = list(contenders(FULL_SIZE if full_size else MINIATURE, image_size, device))
    built = time.monotonic()
    measured = measure(models, runs, warmup, profile.speed.seconds, device)
    environment = provenance.environment(device)
    rows = [
        {
            "name": one.name,
            "kind": one.kind,
            "random_weights": True,
            "note": one.note,
            "image_size": image_size,
            "visual_tokens": one.visual_tokens,
            "parameters": one.parameters,
            **measured[one.name].summary(),
            "device": environment["device"],
            "threads": environment["threads"],
        }
        for one in models
    ]
    io.write_json(
        folder / LATENCY,
        {
            "stage": "speed",
            "profile": profile.name,
            "architecture": "the paper's" if full_size else "miniature",
            "random_weights": True,
            "batch": 1,
            "words": WORDS,
            "image_size": image_size,
            "runs": runs,
            "warmup": warmup,
            "precision": "float32",
            "tf32": torch.backends.cuda.matmul.allow_tf32,
            "rows": rows,
            "started": begun,
            "building_seconds": round(built - start, 1),
            "seconds": round(time.monotonic() - start, 1),
            **provenance.git_state(Path(__file__).parent),
            **environment,
        },
    )
    return rows
