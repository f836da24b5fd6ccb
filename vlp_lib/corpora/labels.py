"""Detector labels, made once before pretraining (section III-D): a torchvision detector over a corpus's images.

The images are cut into chunks of a fixed number. A process labels whole chunks and writes each as a file; killed, it
goes on at the first chunk without one. Several processes (`--shard`, or torchrun's and accelerate's RANK and
WORLD_SIZE) take every n-th chunk. Whoever finds all chunks there merges them. Batches never reach over a chunk, so that
neither kills nor the number of processes change a bit of the result on the same device.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.detections import DetectionStore, InstanceLabels, NpzDetections, TsvDetections, write_detections
from vlp_lib.corpora.records import NO_DETECTIONS, Detections, ImageRecord
from vlp_lib.corpora.workers import load
from vlp_lib.errors import UserError, reason, unknown
from vlp_lib.io import read_json, write_json
from vlp_lib.progress import Progress

CHUNK = 256
"""Images a chunk: what an interruption costs at most."""

_ABOUT = "about.json"

Detect = Callable[[list[torch.Tensor]], list[Detections]]
"""Images [3, H, W] uint8 RGB to their detections, best score first."""


@dataclass(frozen=True)
class LabelConfig:
    """Which labels a detector is asked for.

    Attributes:
        detector: a torchvision detection model.
        weights: a checkpoint of it (a state dict, or a dictionary with one as "model"); "" takes torchvision's COCO
            weights, which are downloaded.
        most: labels an image, the best (SPL's queries: 36 and 100; the paper's Bottom-Up labels: up to 100).
        threshold: lowest score. Training applies `DataConfig.detector_threshold` on top.
        short_side: the image's short side is resized to so many pixels for the detector (Bottom-Up: 600).
    """

    detector: str = "fasterrcnn_resnet50_fpn_v2"
    weights: str = ""
    most: int = 100
    threshold: float = 0.05
    short_side: int = 800


@dataclass(frozen=True)
class Detector:
    """A detector that is ready to label.

    Attributes:
        detect: the images of a batch to their detections.
        classes: what its labels mean.
        about: what its labels depend on, for the record.
    """

    detect: Detect
    classes: tuple[str, ...]
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Labelled:
    """What `label_images` did.

    Attributes:
        path: of the npz; there once all chunks of all processes are.
        complete: whether it is there.
        images, labels, skipped: labelled images, their labels, images that cannot be read; of this process's chunks,
            or of all where it is complete.
        reasons: the skipped images' errors, of which ten are shown.
    """

    path: Path
    complete: bool
    images: int
    labels: int
    skipped: int
    reasons: Sequence[str] = ()

    def __str__(self) -> str:
        state = str(self.path) if self.complete else "this process's part (others are at work, or to be started)"
        mean = self.labels / max(self.images, 1)
        lines = [f"{state}: {self.images:,} images, {self.labels:,} labels ({mean:.1f} an image)"]
        if self.skipped:
            lines.append(f"skipped: {self.skipped:,} images that cannot be read")
        return "\n".join([*lines, *(f"  {reason}" for reason in self.reasons[:10])])


def parse_shard(text: str, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Which of how many processes this is: "2/8" is the third of eight; "" asks torchrun's and accelerate's variables.

    Raises UserError where the text is no such fraction.
    """
    if not text:
        return int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise UserError(f"--shard {text!r} is no share: write 0/4, 1/4, 2/4 and 3/4 for four processes")
    return int(index), int(count)


def device_of_process() -> torch.device:
    """The GPU of this process, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())


def load_detector(config: LabelConfig, device: torch.device) -> Detector:
    """A torchvision detector with its weights.

    Raises UserError where there is no such detector, or its weights cannot be loaded or do not fit.
    """
    from torchvision.models import detection as models
    from torchvision.models import get_model, get_model_weights, list_models

    known = list_models(module=models)
    if config.detector not in known:
        raise unknown("detector", config.detector, known)
    if config.most < 1 or not 0 <= config.threshold < 1 or config.short_side < 1:
        raise UserError("--most and --short-side must be at least 1 and --threshold from 0 to below 1")
    official = get_model_weights(config.detector)["DEFAULT"]
    state, source, classes = _weights(config.weights, official)
    network = get_model(
        config.detector,
        weights=None,
        weights_backbone=None,
        num_classes=len(classes) + 1,
        box_detections_per_img=config.most,
        box_score_thresh=config.threshold,
        min_size=config.short_side,
        max_size=round(config.short_side * 1333 / 800),  # torchvision's own proportion
    )
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"{source} does not fit {config.detector} ({reason(error)}): name its detector with --detector"
        ) from error
    network.to(device).eval()

    @torch.inference_mode()
    def detect(images: list[torch.Tensor]) -> list[Detections]:
        found = network([image.to(device, non_blocking=True).float() / 255 for image in images])
        return [_detections(one, image) for one, image in zip(found, images, strict=True)]

    about = {
        "detector": config.detector,
        "weights": source,
        "labels an image": config.most,
        "threshold": config.threshold,
        "short side": config.short_side,
    }
    return Detector(detect, classes, about)


def _weights(file: str, official: Any) -> tuple[dict[str, torch.Tensor], str, tuple[str, ...]]:
    """State dict, what to call it, and its classes (without the background)."""
    names = tuple(official.meta["categories"][1:])
    if not file:
        try:
            return official.get_state_dict(progress=False, check_hash=True), str(official), names
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"torchvision's weights {official} cannot be fetched ({error}): fetch {official.url} where there is a "
                f"network and give the file with --weights"
            ) from error
    path = Path(file)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content.get("model", content)
        count = len(state["roi_heads.box_predictor.cls_score.bias"]) - 1
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: give a checkpoint with --weights") from None
    except Exception as error:  # unpickling fails in many ways
        raise UserError(
            f"{path} holds no weights of a torchvision Faster R-CNN ({reason(error)}): give its state dict"
        ) from error
    classes = names if count == len(names) else tuple(f"class {i}" for i in range(count))
    return state, f"{path.name} {digest[:16]}", classes


def _detections(found: dict[str, torch.Tensor], image: torch.Tensor) -> Detections:
    """torchvision's boxes in pixels and labels from 1 on as ours."""
    height, width = image.shape[1:]
    scores, boxes = (found[name].float().cpu().numpy() for name in ("scores", "boxes"))
    fractions = (boxes / np.array([width, height, width, height], dtype=np.float32)).clip(0, 1)
    nothing = np.full(len(scores), -1, np.int64)
    order = np.argsort(-scores, kind="stable")
    return Detections(found["labels"].cpu().numpy() - 1, scores, fractions, nothing).chosen(order)


class _Chunk(Dataset[tuple[ImageRecord, torch.Tensor | str]]):
    """Item k is record k with its pixels, or with the sentence that says why it cannot be read."""

    def __init__(self, corpus: Corpus, records: Sequence[ImageRecord]) -> None:
        self.corpus, self.records = corpus, records

    def __getitem__(self, index: int) -> tuple[ImageRecord, torch.Tensor | str]:
        record = self.records[index]
        try:
            pixels = np.asarray(self.corpus.read_image(record))
        except UserError as error:
            return record, str(error)
        return record, torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def label(
        self, detector: Detector, batch_size: int, workers: int, reasons: list[str]
    ) -> Iterator[tuple[int, tuple[int, int], Detections]]:
        """Id, size and detections of each image that can be read; of the others the reason is added."""
        rows = range(len(self.records))
        batches = [rows[i : i + batch_size] for i in rows[::batch_size]]
        for items in load(self, batches, list, workers):
            sound = [(record, image) for record, image in items if isinstance(image, torch.Tensor)]
            reasons += [reason for _, reason in items if isinstance(reason, str)]
            found = detector.detect([image for _, image in sound]) if sound else []
            for (record, image), detections in zip(sound, found, strict=True):
                yield record.image_id, (image.shape[2], image.shape[1]), detections


def label_images(
    corpus: Corpus,
    detector: Detector,
    path: Path,
    shard: tuple[int, int] = (0, 1),
    batch_size: int = 8,
    workers: int = 0,
) -> Labelled:
    """Label every image of a corpus into the npz `path`, going on where an earlier attempt stopped.

    Args:
        shard: which of how many processes this is.
        batch_size: images that the detector sees at once.
        workers: processes that decode.

    Raises:
        UserError: the folder's parts were begun with another detector, other settings or other images, or the corpus
            has labels of another detector.
    """
    # Labels of two detectors beside each other could not be read: say so before hours of labelling.
    beside = corpus.detections if corpus.root in path.parents else None
    others = [s.path for s in beside.sources if s.path != path and not isinstance(s, InstanceLabels)] if beside else []
    if beside and others and beside.classes != detector.classes:
        raise UserError(
            f"{others[0]} has the labels of another detector, and a corpus can have those of one: move it out of "
            f"{corpus.root}, or write elsewhere with --out"
        )
    records, parts = corpus.records, path.with_name(f"{path.stem}.parts")
    about = {
        **detector.about,
        "images": len(records),
        "image list": hashlib.sha256(" ".join(str(r.image_id) for r in records).encode()).hexdigest()[:16],
        "batch size": batch_size,
        "chunk": CHUNK,
    }
    finished = path.exists() and not parts.exists()
    if finished or (parts / _ABOUT).exists():
        before = NpzDetections(path).about if finished else read_json(parts / _ABOUT)
        for name, value in about.items():
            if before.get(name) != value:
                raise UserError(
                    f"{path if finished else parts} was begun with {name} {before.get(name)!r} and now it is {value!r}:"
                    f" take the old value, or remove it to label anew"
                )
    starts = range(0, len(records), CHUNK)
    chunks = {parts / f"part-{n:05d}.npz": records[i : i + CHUNK] for n, i in enumerate(starts)}
    own = list(chunks)[shard[0] :: shard[1]]
    reasons: list[str] = []
    if not finished:
        write_json(parts / _ABOUT, about)
        waiting = [file for file in own if not file.exists()]
        with Progress("labels", len(own), len(own) - len(waiting)) as progress:
            for file in waiting:
                found = list(_Chunk(corpus, chunks[file]).label(detector, batch_size, workers, reasons))
                write_detections(file, found, detector.classes, about=about)
                progress.step()
                progress.note(f"{sum(len(d.labels) for _, _, d in found):,} labels on {len(found)} images")
        finished = all(file.exists() for file in chunks)
        if finished:
            _merge(path, list(chunks), detector.classes, about)
    sources = [NpzDetections(file) for file in ([path] if finished else own)]
    images = sum(len(source.image_ids) for source in sources)
    asked = len(records) if finished else sum(len(chunks[file]) for file in own)
    return Labelled(path, finished, images, sum(map(len, sources)), asked - images, reasons)


def _merge(path: Path, files: Sequence[Path], classes: tuple[str, ...], about: Mapping[str, Any]) -> None:
    """All parts in one file. Of several processes that find them complete at once each writes the same bytes."""
    parts = files[0].parent
    try:
        sources = [NpzDetections(file) for file in files]
        images = ((i, source.size(i), source.read(i)) for source in sources for i in source.image_ids)
        write_detections(path, images, classes, about=about)
        merged = parts.with_suffix(".merged")
        parts.rename(merged)  # at once, so that no other process takes half of the parts for an interrupted run
        shutil.rmtree(merged)
    except (UserError, OSError):
        # Another process may have merged and removed the parts meanwhile.
        if not path.exists() or parts.exists():
            raise


def import_tsv(tsv: Path, path: Path, most: int = 100, threshold: float = 0.0) -> Labelled:
    """Bottom-Up's or LXMERT's TSV into the npz `path`: labels, scores, boxes and attributes of its best boxes.

    Its region features stay in the TSV, which a corpus reads as it is.

    Args:
        most, threshold: labels an image and their lowest score.

    Raises UserError where the TSV is missing or a row of it is broken.
    """
    source = TsvDetections(tsv)
    store = DetectionStore([source])
    best = ((i, store.get(i, most, threshold) or NO_DETECTIONS) for i in source.image_ids)
    images = [(i, source.size(i), replace(detections, features=None)) for i, detections in best]
    about = {"detector": "Bottom-Up", "source": tsv.name, "labels an image": most, "threshold": threshold}
    write_detections(path, images, source.classes, source.attribute_names, about)
    reasons = tuple(f"{count:,} {reason}" for reason, count in source.skipped.items())
    labels = sum(len(detections.labels) for *_, detections in images)
    return Labelled(path, True, len(images), labels, sum(source.skipped.values()), reasons)
