"""A corpus on disk: data sets in their official folders, or the embedded corpus, which is written in COCO's formats."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from vlp_lib.corpora.coco import (
    CaptionedImage,
    SegmentationClasses,
    SplitImage,
    StuffAnnotations,
    read_captions,
    read_categories,
    read_karpathy,
    read_pixel_map,
)
from vlp_lib.corpora.detections import DetectionStore, open_detections
from vlp_lib.corpora.flickr30k import find_split_lists, find_tokens, read_split_lists, read_tokens
from vlp_lib.corpora.images import image_size, read_image
from vlp_lib.corpora.records import Detections, ImageRecord
from vlp_lib.corpora.table import SPLITS
from vlp_lib.errors import UserError

_YEARS = ("2017", "2014")  # where both are there, the newer: they annotate the same images
_PARTS = ("train", "val")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_FLICKR_FOLDERS = ("flickr30k-images", "flickr30k_images", "images")


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


@dataclass(frozen=True)
class Corpus:
    """The captioned images of a corpus; opening it decodes none of them.

    Attributes:
        root: its folder.
        records: the images that have a file and a caption, by ascending id.
        segmentation_classes: of the label maps.
        detections: what a detector saw, or None.
        synthetic: True for the embedded corpus.
        annotation_files: the JSON files that describe it.
    """

    root: Path
    records: Sequence[ImageRecord]
    segmentation_classes: SegmentationClasses
    detections: DetectionStore | None
    synthetic: bool
    annotation_files: tuple[Path, ...]
    _pixel_maps: Mapping[str, Path] = field(repr=False)  # stem → folder
    _skipped: Mapping[str, int] = field(repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal digits; two corpora of equal contents share it, wherever they lie.

        Of the embedded corpus the one in its corpus.json; else over the bytes of the annotation files and over the
        names and sizes in bytes of the images, pixel maps and detector files (not their contents: too slow).
        """
        if self.synthetic:
            return str(_description(self.root)["fingerprint"])
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
        return digest.hexdigest()

    @cached_property
    def report(self) -> CorpusReport:
        """The counts; the first call may read through stuff_*.json or a TSV of detections."""
        images, captions, maps, detections = (Counter(dict.fromkeys(SPLITS, 0)) for _ in range(4))
        for record in self.records:
            images[record.split] += 1
            captions[record.split] += len(record.captions)
            maps[record.split] += self.has_label_map(record)
            detections[record.split] += self.detections is not None and record.image_id in self.detections
        return CorpusReport(
            images, captions, maps, detections, {k: v for k, v in self.skipped.items() if v}, self.notes
        )

    @property
    def skipped(self) -> dict[str, int]:
        """What is not used, by reason; the first call may read through a TSV of detections."""
        return {**self._skipped, **(self.detections.skipped if self.detections else {})}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the counts must know: whose split Flickr30k is divided by."""
        lists = [path for path in self.annotation_files if path.suffix == ".txt"]
        return (f"the split of Flickr30k is Entities' ({lists[0].parent}), not Karpathy's",) if lists else ()

    @property
    def coco_records(self) -> Sequence[ImageRecord]:
        """The records whose ids are COCO's, which VQA asks about."""
        return self.records

    @cached_property
    def _by_split(self) -> dict[str, Sequence[ImageRecord]]:
        return {name: tuple(r for r in self.records if r.split == name) for name in SPLITS}

    def split(self, name: str) -> Sequence[ImageRecord]:
        """The records of "train", "val" or "test", by ascending id; raises UserError on another name."""
        if name not in SPLITS:
            raise UserError(f"there is no split {name!r}: choose one of {', '.join(SPLITS)}")
        return self._by_split[name]

    def read_image(self, record: ImageRecord) -> Image.Image:
        """The image, decoded, RGB; raises UserError where its file is missing or broken."""
        return read_image(record.path)

    def _pixel_map(self, record: ImageRecord) -> Path | None:
        # COCO-Stuff names its maps as COCO 2017 names the images, also for those of 2014.
        for stem in (record.path.stem, f"{record.image_id:012d}"):
            if stem in self._pixel_maps:
                return self._pixel_maps[stem] / f"{stem}.png"
        return None

    @cached_property
    def _stuff(self) -> StuffAnnotations:
        """COCO-Stuff's JSON, empty where there are pixel maps.

        The JSON knows no things: labels of both in one training would contradict each other.
        """
        stuff = () if self._pixel_maps else (p for p in self.annotation_files if p.name.startswith("stuff_"))
        return StuffAnnotations(tuple(stuff))

    @property
    def may_have_label_maps(self) -> bool:
        """Whether there is any label map, of whichever image."""
        return bool(self._pixel_maps) or any(path.name.startswith("stuff_") for path in self.annotation_files)

    def has_label_map(self, record: ImageRecord) -> bool:
        """Whether the image has a pixel map or, in a corpus without any pixel map, masks in stuff_*.json."""
        return self._pixel_map(record) is not None or record.image_id in self._stuff

    def read_label_map(self, record: ImageRecord) -> np.ndarray | None:
        """[h, w] uint8 class indices at the size of the stored image, 255 without class; None where there is no map.

        Raises:
            UserError: the map is broken, or has neither the image's stored size nor its declared one.
        """
        path = self._pixel_map(record)
        if path is not None:
            labels = read_pixel_map(path, self.segmentation_classes)
        elif record.image_id in self._stuff:
            path = self._stuff.source(record.image_id)
            labels = self._stuff.label_map(record.image_id, self.segmentation_classes)
        else:
            return None
        size, stored = (labels.shape[1], labels.shape[0]), image_size(record.path)
        if size == stored:
            return labels
        if size != (record.width, record.height):
            raise UserError(
                f"{path} has a pixel map of {size[0]} × {size[1]} for {record.path}, an image of {stored[0]} × "
                f"{stored[1]} (declared {record.width} × {record.height}): fetch both again from one release"
            )
        return np.asarray(Image.fromarray(labels).resize(stored, Image.Resampling.NEAREST))

    def read_detections(self, record: ImageRecord, max_count: int, min_score: float) -> Detections | None:
        """The best detections of an image, as `DetectionStore.get` gives them; None where there are none."""
        return None if self.detections is None else self.detections.get(record.image_id, max_count, min_score)


def is_synthetic(root: Path) -> bool:
    """Whether a folder is the embedded corpus; raises UserError where that is broken or was not finished."""
    return bool(_description(root)["synthetic"])


def has_annotations(root: Path) -> str:
    """Whose captions a folder has: "coco", "flickr30k", or "" where it has none."""
    if _annotation_files(root):
        return "coco"
    names = {path.name for folder in (root, root / "annotations") for path in folder.glob("dataset_*.json")}
    if find_tokens(root) or any("flickr30k" in name for name in names):
        return "flickr30k"
    return "coco" if names else ""


def open_annotated(root: Path, allow_missing: float) -> Corpus:
    """Open one data set of annotated images, with its own ids and splits: COCO, Flickr30k or the embedded corpus.

    Args and errors as `open_corpus`.
    """
    description = _description(root)
    annotations = _annotation_files(root)
    karpathy_file = find_karpathy(root)
    captions = [path for path in annotations if path.name.startswith("captions_")]
    karpathy = read_karpathy(karpathy_file, captions=not captions) if karpathy_file else []
    sources = tuple(annotations) + ((karpathy_file,) if karpathy_file else ())
    if captions:
        listed = _list_coco(root, captions, karpathy)
    elif karpathy_file:
        listed = _list_karpathy(root, karpathy)
    elif tokens := find_tokens(root):
        listed, sources = _list_tokens(root, tokens)
    else:
        raise UserError(
            f"{root} has neither annotations/captions_train2017.json nor dataset_flickr30k.json: name the folder of a "
            f"corpus in COCO's layout, or draw the embedded one with `vlp data synthesize`"
        )
    refuse_missing(listed.missing, listed.listed, allow_missing)
    if not listed.records:
        raise UserError(f"{root} has no image with a caption: fetch captions and images of the same release")
    files = find_detections(root)
    return Corpus(
        root=root,
        records=tuple(sorted(listed.records, key=lambda record: record.image_id)),
        segmentation_classes=_segmentation_classes(annotations),
        detections=open_detections(files) if files else None,
        synthetic=bool(description["synthetic"]),
        annotation_files=sources,
        _pixel_maps=_pixel_maps(root),
        _skipped=listed.skipped(),
    )


def _description(root: Path) -> dict[str, object]:
    """What the embedded corpus says of itself; of real images that they are not synthetic."""
    if (root / "corpus.json.unfinished").exists():
        raise UserError(f"{root} is an embedded corpus that was not finished: draw it again with `vlp data synthesize`")
    path = root / "corpus.json"
    if not path.is_file():
        return {"synthetic": False}
    try:
        description = json.loads(path.read_bytes())
        return {key: description[key] for key in ("synthetic", "fingerprint")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is broken ({error!r}): delete the folder and draw the corpus anew") from error


def _annotation_files(root: Path) -> list[Path]:
    """The files of the newest year that has captions: captions, instances, stuff; train, val."""
    for year in _YEARS:
        files = [root / "annotations" / f"{kind}_{part}{year}.json" for kind in ("captions", "instances", "stuff")
                 for part in _PARTS]  # fmt: skip
        found = [path for path in files if path.is_file()]
        if any(path.name.startswith("captions_") for path in found):
            return found
    return []


def find_karpathy(root: Path) -> Path | None:
    """Karpathy's split file of a corpus, or None; raises UserError where there are several."""
    found = sorted([*root.glob("dataset_*.json"), *(root / "annotations").glob("dataset_*.json")])
    if len(found) > 1:
        raise UserError(f"{root} has several split files ({', '.join(p.name for p in found)}): keep one of them")
    return found[0] if found else None


def find_detections(root: Path) -> list[Path]:
    """The detector files of a corpus, in the order in which they count."""
    patterns = ("detections_*.npz", "detections/detections_*.npz", "*.tsv", "detections/*.tsv")
    return [path for pattern in patterns for path in sorted(root.glob(pattern))]


def find_folder(root: Path, name: str) -> Path | None:
    """The folder of COCO's images such as val2017, of a corpus of COCO or of several data sets; or None."""
    places = (place / name for base in (root, root / "coco") for place in (base / "images", base))
    return next((folder for folder in places if folder.is_dir()), None)


def list_files(folder: Path, suffixes: tuple[str, ...] = _IMAGE_SUFFIXES) -> set[str]:
    """The names in a folder with one of the suffixes; one pass, as asking for each file is slow on network disks."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.name.lower().endswith(suffixes)}


def _pixel_maps(root: Path) -> dict[str, Path]:
    folders = [root / "stuffthingmaps" / f"{part}{year}" for year in _YEARS for part in _PARTS]
    return {name[:-4]: folder for folder in folders if folder.is_dir() for name in list_files(folder, (".png",))}


def _segmentation_classes(annotations: list[Path]) -> SegmentationClasses:
    """Things and stuff of the annotation files; the official ones where either kind of file is absent."""
    categories: dict[int, str] = {}
    for kind in ("instances_", "stuff_"):
        files = [path for path in annotations if path.name.startswith(kind)]
        if not files:
            return SegmentationClasses.official()
        # All files of a kind list all categories; the smallest is read fastest (COCO's training file has 450 MB).
        categories |= read_categories(min(files, key=lambda path: path.stat().st_size))
    return SegmentationClasses.of(categories)


class _Listing:
    """The images that annotation files list, sorted into those that can be used and those that cannot."""

    def __init__(self) -> None:
        self.records: list[ImageRecord] = []
        self.listed = 0
        self.missing: list[Path] = []
        self.without_caption = 0
        self.without_split = 0

    def add(self, image: CaptionedImage, split: str, folder: Path, present: set[str]) -> None:
        """Sort an image that lies in the folder, if it is among the files that are present there."""
        self.listed += 1
        path = folder / image.file_name
        if image.file_name not in present:
            self.missing.append(path)
        elif not image.captions:
            self.without_caption += 1
        else:
            width, height = (image.width, image.height) if image.width else image_size(path)
            self.records.append(
                ImageRecord(
                    image.image_id,
                    path,
                    split,
                    width,
                    height,
                    image.captions,
                    image.caption_ids,
                    image.coco_id,
                    image.flickr_id,
                )
            )

    def skipped(self) -> dict[str, int]:
        """Counts of what is not used, by reason."""
        return {
            "images without captions": self.without_caption,
            "listed images without a file": len(self.missing),
            "images that no split list names": self.without_split,
        }


def refuse_missing(missing: Sequence[Path], listed: int, allowed: float) -> None:
    """Raise UserError where more than the allowed share of the listed images have no file."""
    if len(missing) > allowed * listed:
        raise UserError(
            f"{len(missing):,} of the {listed:,} listed images have no file, the first is {missing[0]}: fetch the "
            f"rest, or go on without them by a larger allow_missing (it is {allowed}, the missing share is "
            f"{len(missing) / listed:.4f})"
        )


def _list_coco(root: Path, files: list[Path], karpathy: list[SplitImage]) -> _Listing:
    splits = {entry.image.image_id: entry.split for entry in karpathy}
    listing = _Listing()
    for path in files:
        name = path.stem.removeprefix("captions_")
        folder = find_folder(root, name) or root / "images" / name
        present = list_files(folder) if folder.is_dir() else set()
        images = read_captions(path)
        for image in images:
            listing.add(image, splits.get(image.image_id, name[:-4]), folder, present)
        listing.without_caption += len(present - {image.file_name for image in images})
    return listing


def _list_karpathy(root: Path, karpathy: list[SplitImage]) -> _Listing:
    """A corpus whose captions are in Karpathy's file alone, as Flickr30k's."""
    flickr = next((root / name for name in _FLICKR_FOLDERS if (root / name).is_dir()), root / _FLICKR_FOLDERS[0])
    names = {entry.folder for entry in karpathy}
    folders = {name: (find_folder(root, name) or root / name) if name else flickr for name in names}
    present = {name: list_files(folder) if folder.is_dir() else set() for name, folder in folders.items()}
    listing = _Listing()
    for entry in karpathy:
        listing.add(entry.image, entry.split, folders[entry.folder], present[entry.folder])
    for name, names in present.items():
        listing.without_caption += len(names - {e.image.file_name for e in karpathy if e.folder == name})
    return listing


def _list_tokens(root: Path, tokens: Path) -> tuple[_Listing, tuple[Path, ...]]:
    """Flickr30k of the token file and Entities' split lists; and these files."""
    lists = find_split_lists(root)
    if not lists:
        raise UserError(
            f"{tokens} has no split beside it: add dataset_flickr30k.json (caption_datasets.zip of "
            f"cs.stanford.edu/people/karpathy/deepimagesent) or Flickr30k Entities' train.txt, val.txt and test.txt"
        )
    splits = read_split_lists(lists)
    images = read_tokens(tokens)
    known = [SplitImage(splits[image.image_id], "", image) for image in images if image.image_id in splits]
    listing = _list_karpathy(root, known)
    listing.without_split = len(images) - len(known)
    return listing, (tokens, *lists.values())
