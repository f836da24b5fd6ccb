"""A corpus on disk: data sets in their official folders, or the embedded corpus, which is written in COCO's formats."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from vlp_lib.corpora.coco import (
    SegmentationClasses,
    Segments,
    StuffAnnotations,
    read_panoptic_map,
    read_pixel_map,
    read_segments,
)
from vlp_lib.corpora.detections import DetectionStore, InstanceLabels
from vlp_lib.corpora.images import image_size, read_image
from vlp_lib.corpora.layout import description
from vlp_lib.corpora.records import Detections, ImageRecord
from vlp_lib.corpora.split import Division
from vlp_lib.corpora.table import SPLITS, RecordTable, caption_counts
from vlp_lib.errors import UnreadableImageError, UserError


@dataclass(frozen=True)
class CorpusReport:
    """What was found, counted.

    Attributes:
        images, captions, with_label_map, with_detections: by split.
        skipped: what is not used, by reason.
        notes: what else a reader of the counts must know, a sentence each.
    """

    images: Mapping[str, int]
    captions: Mapping[str, int]
    with_label_map: Mapping[str, int]
    with_detections: Mapping[str, int]
    skipped: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        columns = {
            "images": self.images,
            "captions": self.captions,
            "label maps": self.with_label_map,
            "detections": self.with_detections,
        }
        lines = [f"{'split':<8}" + "".join(f"{name:>12}" for name in columns)]
        lines += [f"{split:<8}" + "".join(f"{counts[split]:>12,}" for counts in columns.values()) for split in SPLITS]
        lines += [f"{'total':<8}" + "".join(f"{sum(counts.values()):>12,}" for counts in columns.values())]
        lines += [f"not used: {count:,} {reason}" for reason, count in self.skipped.items()]
        return "\n".join([*lines, *self.notes])


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The captioned images of a corpus; opening it decodes none of them.

    Attributes:
        root: its folder.
        records: the images that have a file and a caption, by ascending id.
        segmentation_classes: of the label maps.
        detections: what a detector saw, or None.
        synthetic: True for the embedded corpus.
        annotation_files: the JSON files that describe it.
        division: the kit's own, where no other split leaves enough images to train on.
    """

    root: Path
    records: Sequence[ImageRecord]
    segmentation_classes: SegmentationClasses = field(default_factory=SegmentationClasses.official)
    detections: DetectionStore | None = None
    synthetic: bool = False
    annotation_files: tuple[Path, ...] = ()
    division: Division | None = None
    _pixel_maps: Mapping[str, Path] = field(default_factory=dict, repr=False)  # stem → folder
    _skipped: Mapping[str, int] = field(default_factory=dict, repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal digits; two corpora of equal contents share it, wherever they lie.

        Of the embedded corpus the one in its corpus.json; else over the bytes of the annotation files and over the
        names and sizes in bytes of the images, pixel maps and detector files (not their contents: too slow).
        """
        if self.synthetic:
            return str(description(self.root)["fingerprint"])
        digest = hashlib.sha256()
        for path in self.annotation_files:
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        maps = (found for record in self.records if (found := self._pixel_map(record)))
        detections = (source.path for source in self.detections.sources) if self.detections else ()
        for paths in ((record.path for record in self.records), maps, detections):
            for path in sorted(paths):
                digest.update(f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
        for record in self.records if self.division else ():
            digest.update(f"{record.image_id} {record.split}\n".encode())
        return digest.hexdigest()

    @cached_property
    def report(self) -> CorpusReport:
        """The counts; the first call may read through stuff_*.json or a TSV of detections."""
        annotated = {name: self._annotated(name) for name in SPLITS}
        detections = self.detections or ()
        return CorpusReport(
            images={name: len(self.split(name)) for name in SPLITS},
            captions={name: int(caption_counts(self.split(name)).sum()) for name in SPLITS},
            with_label_map={name: sum(map(self.has_label_map, records)) for name, records in annotated.items()},
            with_detections={name: sum(r.image_id in detections for r in rs) for name, rs in annotated.items()},
            skipped={reason: count for reason, count in self.skipped.items() if count},
            notes=tuple(self.notes),
        )

    def _annotated(self, split: str) -> Sequence[ImageRecord]:
        """The records of a split that may have a label map or detections."""
        return self.split(split)

    @property
    def skipped(self) -> dict[str, int]:
        """What is not used, by reason; the first call may read through a TSV of detections."""
        return {**self._skipped, **(self.detections.skipped if self.detections else {})}

    @property
    def notes(self) -> list[str]:
        """What a reader of the counts must know: who divided the images, and whose labels stand for a detector's."""
        return self.split_notes + self.label_notes

    @property
    def split_notes(self) -> list[str]:
        """Who divided the images, where it is not Karpathy or COCO's folders."""
        lists = [path for path in self.annotation_files if path.suffix == ".txt"]
        notes = [f"the split of Flickr30k is Entities' ({lists[0].parent}), not Karpathy's"] if lists else []
        if self.division:
            notes.append(
                f"neither Karpathy's split nor the folders leave enough images to train on: they are divided by image "
                f"(seed {self.division.seed}), and scores are comparable with no one else's"
            )
        return notes

    @property
    def label_notes(self) -> list[str]:
        """Whose labels stand for a detector's."""
        sources = self.detections.sources if self.detections else ()
        if not any(isinstance(source, InstanceLabels) for source in sources):
            return []
        return [
            f"detector labels are COCO's instances ({len(sources[0].classes)} classes, the largest first), which a "
            f"detector would partly miss; `vlp data labels` makes a detector's"
        ]

    @property
    def coco_records(self) -> Sequence[ImageRecord]:
        """The records whose ids are COCO's, which VQA asks about."""
        return self.records

    @cached_property
    def _by_split(self) -> dict[str, Sequence[ImageRecord]]:
        if isinstance(self.records, RecordTable):
            return {name: self.records.chosen(self.records.splits == i) for i, name in enumerate(SPLITS)}
        return {name: tuple(r for r in self.records if r.split == name) for name in SPLITS}

    def split(self, name: str) -> Sequence[ImageRecord]:
        """The records of "train", "val" or "test", by ascending id; raises UserError on another name."""
        if name not in SPLITS:
            raise UserError(f"there is no split {name!r}: choose one of {', '.join(SPLITS)}")
        return self._by_split[name]

    def read_image(self, record: ImageRecord) -> Image.Image:
        """The image, decoded, RGB; raises UserError where its file is missing, broken, or not of its declared shape."""
        image = read_image(record.path)
        if not same_shape(image.size, (record.width, record.height)):
            raise UnreadableImageError(
                f"{record.path} is {image.width} × {image.height} and its annotations say {record.width} × "
                f"{record.height}: fetch both of one release, or, where its EXIF data turn it, save it upright"
            )
        return image

    def _pixel_map(self, record: ImageRecord) -> Path | None:
        # COCO-Stuff names its maps as COCO 2017 names the images, also for those of 2014.
        for stem in (record.path.stem, f"{record.image_id:012d}"):
            if stem in self._pixel_maps:
                return self._pixel_maps[stem] / f"{stem}.png"
        return None

    def annotations(self, kind: str) -> list[Path]:
        """The annotation files of a kind, such as "stuff_"."""
        return [path for path in self.annotation_files if path.name.startswith(kind)]

    @cached_property
    def _stuff(self) -> StuffAnnotations:
        """COCO-Stuff's JSON, empty where there are pixel maps.

        The JSON knows no things: labels of both in one training would contradict each other.
        """
        return StuffAnnotations([] if self._pixel_maps else self.annotations("stuff_"))

    @cached_property
    def _segments(self) -> Segments:
        """Of panoptic maps, where the pixel maps are such."""
        return {stem: parts for path in self.annotations("panoptic_") for stem, parts in read_segments(path).items()}

    @property
    def may_have_label_maps(self) -> bool:
        """Whether there is any label map, of whichever image."""
        return bool(self._pixel_maps or self.annotations("stuff_"))

    def has_label_map(self, record: ImageRecord) -> bool:
        """Whether the image has a pixel map or, in a corpus without any pixel map, masks in stuff_*.json."""
        return self._pixel_map(record) is not None or record.image_id in self._stuff

    def read_label_map(self, record: ImageRecord) -> np.ndarray | None:
        """[h, w] uint8 class indices at the size of the stored image, 255 without class; None where there is no map.

        Raises UserError where the map is broken, or has neither the image's stored size nor its declared one.
        """
        path = self._pixel_map(record)
        if path is not None and self._segments:
            labels = read_panoptic_map(path, self._segments, self.segmentation_classes)
        elif path is not None:
            labels = read_pixel_map(path, self.segmentation_classes)
        elif record.image_id in self._stuff:
            path = self._stuff.source(record.image_id)
            labels = self._stuff.label_map(record.image_id, self.segmentation_classes)
        else:
            return None
        size, stored = (labels.shape[1], labels.shape[0]), image_size(record.path)
        if size == stored:
            return labels
        if size != (record.width, record.height) or not same_shape(size, stored):
            raise UserError(
                f"{path} has a pixel map of {size[0]} × {size[1]} for {record.path}, an image of {stored[0]} × "
                f"{stored[1]} (declared {record.width} × {record.height}): fetch both again from one release, or, "
                f"where the image's EXIF data turn it, save it upright"
            )
        return np.asarray(Image.fromarray(labels).resize(stored, Image.Resampling.NEAREST))

    def read_detections(self, record: ImageRecord, max_count: int, min_score: float) -> Detections | None:
        """The best detections of an image, as `DetectionStore.get` gives them; None where there are none.

        Raises UserError where they are broken, or of an image of another shape than the declared one.
        """
        if self.detections is None or (size := self.detections.size(record.image_id)) is None:
            return None
        if not same_shape(size, (record.width, record.height)):
            raise UserError(
                f"the detector saw image {record.image_id} as {size[0]} × {size[1]}, and its annotations say "
                f"{record.width} × {record.height}: make the detections again from the images as they are stored"
            )
        return self.detections.get(record.image_id, max_count, min_score)


def same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether an image of one size (width, height) may be a smaller copy of the other, but for rounding.

    Of a turned copy (EXIF) width and height are exchanged.
    """
    larger, smaller = sorted((one, other), key=max, reverse=True)
    if max(larger) == max(smaller):
        return larger == smaller
    return abs(larger[0] * smaller[1] - larger[1] * smaller[0]) <= sum(larger)
