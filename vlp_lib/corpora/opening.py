"""Opening a corpus: one data set, several below one folder, or the embedded one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from vlp_lib.corpora.coco import SegmentationClasses, StuffAnnotations, read_captions, read_categories, read_karpathy
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.detections import DetectionStore, InstanceLabels, open_detections
from vlp_lib.corpora.exclusion import COCO, FLICKR30K, VISUAL_GENOME
from vlp_lib.corpora.flickr30k import find_split_lists, find_tokens, read_split_lists, read_tokens
from vlp_lib.corpora.images import image_size
from vlp_lib.corpora.joined import join
from vlp_lib.corpora.layout import (
    PARTS,
    YEARS,
    annotation_files,
    find_detections,
    find_folder,
    find_karpathy,
    has_annotations,
    is_synthetic,
    list_files,
    panoptic_files,
)
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.refer import find_refs
from vlp_lib.corpora.shards import find_shards, open_pairs
from vlp_lib.corpora.split import leaves_enough, read_division
from vlp_lib.corpora.table import RecordTable
from vlp_lib.corpora.visual_genome import IMAGE_DATA, REGIONS, find_image_folders, read_image_data, read_regions
from vlp_lib.errors import UserError
from vlp_lib.io import readable, refuse

_FLICKR_FOLDERS = ("flickr30k-images", "flickr30k_images", "images")
_FOLDERS = {COCO: ("coco",), FLICKR30K: ("flickr30k",), VISUAL_GENOME: ("vg", "visual_genome")}
_OTHER_FOLDERS = re.compile(
    r"(train|val|test)(20\d\d)?|VG_100K(_2)?|flickr30k[-_]images|images|annotations|stuffthingmaps|detections|splits"
    r"|refer|vqav2|nlvr2?|vcr"
)
"""Folders of known contents, of hundreds of thousands of files, in which no shards are looked for."""


class Place(NamedTuple):
    """A data set ("coco", "flickr30k", "vg", or the name of a folder of shards) and its own folder."""

    source: str
    folder: Path
    shards: bool = False


def find_places(root: Path) -> list[Place]:
    """The data sets of a root: the root itself where it is one, its subfolders coco/, flickr30k/ and vg/, and every
    subfolder of shards unless the root has shards itself; in the order of their ids.

    Raises UserError where a data set is there twice.
    """
    places = []
    for source, names in _FOLDERS.items():
        folders = [folder for folder in (root, *(root / name for name in names)) if _holds(folder, source)]
        if len(folders) > 1:
            raise UserError(f"{source} is both in {folders[0]} and in {folders[1]}: keep one of them")
        places += [Place(source, folder) for folder in folders]
    if find_shards(root):
        return [*places, Place(root.name, root, True)]
    taken = {place.folder for place in places}
    with readable(root):
        others = sorted(f for f in root.iterdir() if f.is_dir() and not _OTHER_FOLDERS.fullmatch(f.name))
    return places + [Place(f.name, f, True) for f in others if f not in taken and find_shards(f)]


def _holds(folder: Path, source: str) -> bool:
    """Whether a folder has the annotations of a data set."""
    return (folder / REGIONS).is_file() if source == VISUAL_GENOME else has_annotations(folder) == source


def open_corpus(root: Path) -> Corpus:
    """Open a corpus: one data set, several below one folder as one corpus, or the embedded one.

    docs/data.md says which files are looked for, and where. Of COCO only captions and images must be there; listed
    images without a file are counted in the report, so that a part of a data set may do.

    Karpathy's file decides the split ("restval" is train), of images that it does not name their folder. Where that
    leaves too few to train or to validate on, as with val2017 alone, `split.Division` divides them. Where there is more
    than one data set, or refer/ with RefCOCO's references, or a list of Flickr30k's images beside COCO, UNITER's
    exclusion rule (`exclusion`) decides what is trained on, and ids are made unique (`table.ID_STRIDE`); COCO's stay.
    Where there are no detections at all, COCO's instances stand for them.

    Raises UserError where no corpus is there or a file is broken.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root} is no folder: name the folder of a corpus")
    places = [] if is_synthetic(root) else find_places(root)
    if places and needs_joining(root, places):
        corpus: Corpus = join(root, [(place.source, open_place(place)) for place in places])
    else:
        corpus = _open_annotated(root)
        if places and annotation_files(root) and not leaves_enough(corpus.records):
            division = read_division(root)
            corpus = replace(corpus, records=division.of(corpus.records), division=division)
    instances = [InstanceLabels(path) for path in corpus.annotations("instances_")] if corpus.detections is None else []
    return replace(corpus, detections=DetectionStore(instances)) if instances else corpus


def needs_joining(root: Path, places: Sequence[Place]) -> bool:
    """Whether a folder is more than one annotated data set by itself, or has lists of images to keep out."""
    if len(places) != 1 or places[0].folder != root or places[0].source not in (COCO, FLICKR30K):
        return bool(places)
    lists_of_others = places[0].source == COCO and find_split_lists(root / "flickr30k")
    return bool(find_refs(root) or lists_of_others)


def open_place(place: Place) -> Corpus:
    """One data set, with its own ids and splits; raises UserError where a file is broken."""
    if place.shards:
        return open_pairs(place.folder)
    return _open_genome(place.folder) if place.source == VISUAL_GENOME else _open_annotated(place.folder)


def _open_annotated(root: Path) -> Corpus:
    """COCO, Flickr30k or the embedded corpus."""
    annotations, karpathy_file, listing = annotation_files(root), find_karpathy(root), _Listing()
    sources = [*annotations, *([karpathy_file] if karpathy_file else [])]
    karpathy = read_karpathy(karpathy_file, captions=not annotations) if karpathy_file else []
    if annotations:
        images = _of_coco(root, annotations, karpathy, listing)
    elif karpathy_file:
        images = _of_karpathy(root, karpathy, listing)
    elif tokens := find_tokens(root):
        lists = find_split_lists(root)
        sources = [tokens, *lists.values()]
        images = _of_karpathy(root, _read_tokens(tokens, lists, listing), listing)
    else:
        raise UserError(
            f"{root} has neither annotations/captions_train2017.json nor dataset_flickr30k.json: name the folder of a "
            f"corpus in COCO's layout, or draw the embedded one with `vlp data synthesize`"
        )
    records = tuple(sorted(images, key=lambda record: record.image_id))
    listing.require(len(records), "no image with a caption: fetch captions and images of the same release", root)
    # Of one kind only, for their classes differ: that which more images have.
    maps = _map_files([root / "stuffthingmaps" / f"{part}{year}" for year in YEARS for part in PARTS])
    panoptic = panoptic_files(root)
    parts = _map_files([path.with_suffix("") for path in panoptic])
    if _covered(records, parts) <= _covered(records, maps):
        parts, panoptic = maps, []
    if not _covered(records, parts) or _rather_stuff(records, _covered(records, parts), annotations):
        parts, panoptic = {}, []
    return Corpus(
        root=root,
        records=records,
        segmentation_classes=_segmentation_classes(panoptic or annotations, bool(panoptic)),
        detections=open_detections(find_detections(root)),
        synthetic=is_synthetic(root),
        annotation_files=(*sources, *panoptic),
        _pixel_maps=parts,
        _skipped=listing.skipped,
    )


def _map_files(folders: list[Path]) -> dict[str, Path]:
    """The folder of each pixel map, by its stem."""
    return {name[:-4]: folder for folder in folders for name in list_files(folder, (".png",))}


def _covered(records: Sequence[ImageRecord], maps: Container[str]) -> int:
    """How many images have a map."""
    return sum(f"{record.image_id:012d}" in maps or record.path.stem in maps for record in records)


def _rather_stuff(records: Sequence[ImageRecord], covered: int, annotations: Sequence[Path]) -> bool:
    """Whether stuff_*.json knows more images than the maps do; it is read only where these have less than half."""
    files = [path for path in annotations if path.name.startswith("stuff_")]
    if not files or 2 * covered >= len(records):
        return False
    stuff = StuffAnnotations(files)
    return sum(record.image_id in stuff for record in records) > covered


def _segmentation_classes(annotations: list[Path], panoptic: bool) -> SegmentationClasses:
    """Those of panoptic files; else things and stuff, the official ones where either kind of file is absent."""
    categories: dict[int, str] = {}
    for kind in ("panoptic_",) if panoptic else ("instances_", "stuff_"):
        files = [path for path in annotations if path.name.startswith(kind)]
        if not files:
            return SegmentationClasses.official()
        # All files of a kind list all categories; the smallest is read fastest (COCO's training file has 450 MB).
        categories |= read_categories(min(files, key=lambda path: path.stat().st_size))
    return SegmentationClasses.of(categories)


class _Listing:
    """What annotation files list, counted: images without a file, and those that are not used, by reason."""

    def __init__(self) -> None:
        self._missing: list[Path] = []
        self._reasons: Counter[str] = Counter()
        self._places: dict[int, tuple[str, Path]] = {}  # split and file of each id
        self._clashing: list[int] = []

    def skip(self, reason: str, count: int = 1) -> None:
        """Count what is not used."""
        self._reasons[reason] += count

    def record(self, image: ImageRecord, folder: Path, present: Container[str]) -> Iterator[ImageRecord]:
        """The image in its folder, or nothing where it was listed before, or has no file or no caption."""
        path = folder / image.path.name
        place = image.split, path
        before = self._places.setdefault(image.image_id, place)
        if before is not place:
            if before == place:
                self.skip("images that are listed again (the first entry counts)")
            else:
                self._clashing.append(image.image_id)
        elif path.name not in present:
            self._missing.append(path)
        elif not image.captions:
            self.skip("images without captions")
        else:
            width, height = (image.width, image.height) if image.width else image_size(path)
            yield replace(image, path=path, width=width, height=height)

    def records(self, images: Sequence[ImageRecord], folder: Path) -> Iterator[ImageRecord]:
        """The images of a folder as `record` gives them; the files there that are none of them are counted."""
        present = list_files(folder)
        for image in images:
            yield from self.record(image, folder, present)
        self.skip("images without captions", len(present - {image.path.name for image in images}))

    @property
    def skipped(self) -> dict[str, int]:
        """What is not used, by reason."""
        return {"listed images without a file": len(self._missing), **self._reasons}

    def require(self, found: int, lacks: str, root: Path) -> None:
        """Raise UserError where nothing was found, or an id is two images'."""
        refuse(self._clashing, "ids of images are of two images, or of one in two splits", "number each image once")
        if not found:
            count = f"{len(self._missing):,} absent files"
            first = f" (the first of {count}: {self._missing[0]})" if self._missing else ""
            raise UserError(f"{root} has {lacks}{first}")


def _of_coco(root: Path, files: list[Path], karpathy: list[ImageRecord], listing: _Listing) -> Iterator[ImageRecord]:
    splits = {image.image_id: image.split for image in karpathy}
    for path in files:
        if not path.name.startswith("captions_"):
            continue
        name = path.stem.removeprefix("captions_")
        images = [replace(i, split=splits.get(i.image_id, name[:-4])) for i in read_captions(path)]
        yield from listing.records(images, find_folder(root, name) or root / "images" / name)


def _of_karpathy(root: Path, karpathy: Sequence[ImageRecord], listing: _Listing) -> Iterator[ImageRecord]:
    """A corpus whose captions are in Karpathy's file alone, as Flickr30k's."""
    flickr = next((root / name for name in _FLICKR_FOLDERS if (root / name).is_dir()), root / _FLICKR_FOLDERS[0])
    for name in dict.fromkeys(image.path.parent.name for image in karpathy):
        folder = (find_folder(root, name) or root / name) if name else flickr
        yield from listing.records([image for image in karpathy if image.path.parent.name == name], folder)


def _read_tokens(tokens: Path, lists: dict[str, Path], listing: _Listing) -> list[ImageRecord]:
    """The images of Flickr30k's token file that Entities' split lists name."""
    if not lists:
        raise UserError(
            f"{tokens} has no split beside it: add dataset_flickr30k.json (caption_datasets.zip of "
            f"cs.stanford.edu/people/karpathy/deepimagesent) or Flickr30k Entities' train.txt, val.txt and test.txt"
        )
    splits, images = read_split_lists(lists), read_tokens(tokens)
    known = [replace(image, split=splits[image.image_id]) for image in images if image.image_id in splits]
    listing.skip("images that no split list names", len(images) - len(known))
    return known


def _open_genome(root: Path) -> Corpus:
    listing = _Listing()
    where = {name: folder for folder in find_image_folders(root).values() for name in list_files(folder, (".jpg",))}

    def records() -> Iterable[ImageRecord]:
        for image, empty in read_regions(root / REGIONS, read_image_data(root / IMAGE_DATA)):
            listing.skip("regions without a sentence", empty)
            yield from listing.record(image, where.get(image.path.name, root / "VG_100K"), where)

    table = RecordTable.of(records())
    listing.require(len(table), "no image with a region: fetch Visual Genome's images.zip and images2.zip", root)
    return Corpus(
        root=root,
        records=table,
        detections=open_detections(find_detections(root)),
        annotation_files=(root / IMAGE_DATA, root / REGIONS),
        _skipped=listing.skipped,
    )
