"""Opening a corpus: one data set, several below one folder, or the embedded one."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from PIL import Image

from vlp_lib.corpora.coco import (
    CaptionedImage,
    SegmentationClasses,
    SplitImage,
    read_captions,
    read_categories,
    read_karpathy,
)
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.detections import open_detections
from vlp_lib.corpora.exclusion import COCO, FLICKR30K, VISUAL_GENOME
from vlp_lib.corpora.flickr30k import find_split_lists, find_tokens, read_split_lists, read_tokens
from vlp_lib.corpora.images import image_size, read_image
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
)
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.refer import find_refs
from vlp_lib.corpora.shards import ShardedPairs, find_shards, open_shards
from vlp_lib.corpora.table import RecordTable
from vlp_lib.corpora.visual_genome import IMAGE_DATA, IMAGE_FOLDERS, REGIONS, read_image_data, read_regions
from vlp_lib.errors import UserError

_FLICKR_FOLDERS = ("flickr30k-images", "flickr30k_images", "images")
_FOLDERS = {COCO: ("coco",), FLICKR30K: ("flickr30k",), VISUAL_GENOME: ("vg", "visual_genome")}
_OTHER_FOLDERS = re.compile(
    r"(train|val|test)(20\d\d)?|VG_100K(_2)?|flickr30k[-_]images|images|annotations|stuffthingmaps|detections|splits"
    r"|refer|vqav2|nlvr2?|vcr"
)
"""Folders of known contents, of hundreds of thousands of files, in which no shards are looked for."""


@dataclass(frozen=True)
class Place:
    """Where a data set lies.

    Attributes:
        source: "coco", "flickr30k", "vg", or the name of a folder of shards.
        folder: its own folder, which may be the root.
        shards: whether it is pairs in shards.
    """

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
        candidates = [root, *(root / name for name in names)]
        found = [folder for folder in candidates if _is(source, folder)]
        if len(found) > 1:
            raise UserError(f"{source} is both in {found[0]} and in {found[1]}: keep one of them")
        places += [Place(source, folder) for folder in found]
    if find_shards(root):
        return [*places, Place(root.name, root, True)]
    taken = {place.folder for place in places}
    others = sorted(f for f in root.iterdir() if f.is_dir() and f not in taken and not _OTHER_FOLDERS.fullmatch(f.name))
    return places + [Place(folder.name, folder, True) for folder in others if find_shards(folder)]


def _is(source: str, folder: Path) -> bool:
    if source == VISUAL_GENOME:
        return (folder / REGIONS).is_file()
    return has_annotations(folder) == source


def open_corpus(root: Path, allow_missing: float = 0.0) -> Corpus:
    """Open a corpus: one data set, several below one folder as one corpus, or the embedded one.

    COCO 2017 or 2014 at root or in coco/: annotations/{captions,instances,stuff}_{train,val}2017.json; the images in
    images/{train,val}2017 or {train,val}2017; pixel maps in stuffthingmaps/{train,val}2017; Karpathy's dataset_*.json
    beside annotations/ or in it. Only captions and images must be there. Karpathy's file decides the split by COCO id
    ("restval" is train); images that it does not name are train or val as their folder is.

    Flickr30k at root or in flickr30k/: the images in flickr30k-images/, with dataset_flickr30k.json, or with
    results_20130124.token and Entities' train.txt, val.txt and test.txt. Karpathy's file decides where both are there.

    Visual Genome at root or in vg/: region_descriptions.json, image_data.json, VG_100K/ and VG_100K_2/.

    Web pairs in any subfolder with shards, as `shards.find_shards` reads it.

    detections_*.npz or *.tsv lie with their data set or in its detections/. Where there is more than one data set, or
    refer/ with RefCOCO's references, or a list of Flickr30k's images beside COCO, UNITER's exclusion rule (`exclusion`)
    decides what is trained on, and ids are made unique (`table.ID_STRIDE`); COCO's stay as they are.

    Args:
        root: the folder.
        allow_missing: share of the listed images whose file may be missing; they are counted in the report.

    Raises UserError where no corpus is there, a file is broken, or more images are missing than allowed.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root} is no folder: name the folder of a corpus")
    if not is_synthetic(root):
        places = find_places(root)
        if needs_joining(root, places):
            return join(root, [(place.source, open_place(place, allow_missing)) for place in places])
    return open_annotated(root, allow_missing)


def needs_joining(root: Path, places: Sequence[Place]) -> bool:
    """Whether a folder is more than one annotated data set by itself, or has lists of images to keep out."""
    alone = len(places) == 1 and places[0].folder == root and places[0].source in (COCO, FLICKR30K)
    return bool(places) and (not alone or bool(find_refs(root)) or bool(_lists_of_others(root, places[0].source)))


def _lists_of_others(root: Path, source: str) -> bool:
    """Whether Flickr30k's numbers lie beside COCO, without the data set itself."""
    return source == COCO and bool(find_split_lists(root / "flickr30k"))


def open_place(place: Place, allow_missing: float) -> Corpus:
    """One data set, with its own ids and splits.

    Raises UserError where a file is broken, or more images are missing than allowed.
    """
    if place.shards:
        return _open_pairs(place.folder)
    if place.source == VISUAL_GENOME:
        return _open_genome(place.folder, allow_missing)
    return open_annotated(place.folder, allow_missing)


def open_annotated(root: Path, allow_missing: float) -> Corpus:
    """Open one data set of annotated images, with its own ids and splits: COCO, Flickr30k or the embedded corpus.

    Args and errors as `open_corpus`.
    """
    annotations = annotation_files(root)
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
        synthetic=is_synthetic(root),
        annotation_files=sources,
        _pixel_maps=_pixel_maps(root),
        _skipped=listed.skipped(),
    )


def _pixel_maps(root: Path) -> dict[str, Path]:
    folders = [root / "stuffthingmaps" / f"{part}{year}" for year in YEARS for part in PARTS]
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
            told = image.captions, image.caption_ids, image.coco_id, image.flickr_id
            self.records.append(ImageRecord(image.image_id, path, split, width, height, *told))

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


def genome_folders(root: Path) -> tuple[Path, ...]:
    """The folders of Visual Genome's images that are there: VG_100K and VG_100K_2, at the root or in images/."""
    return tuple(
        folder
        for name in IMAGE_FOLDERS
        if (folder := next((f for f in (root / name, root / "images" / name) if f.is_dir()), None))
    )


def _open_genome(root: Path, allow_missing: float) -> Corpus:
    data, regions = root / IMAGE_DATA, root / REGIONS
    described = read_image_data(data)
    where = {name: folder for folder in genome_folders(root) for name in list_files(folder, (".jpg",))}
    skipped: Counter[str] = Counter()
    missing: list[Path] = []

    def records() -> Iterator[ImageRecord]:
        for said in read_regions(regions):
            name = f"{said.image_id}.jpg"
            image = described.get(said.image_id)
            skipped["regions without a sentence"] += said.empty
            if image is None:
                raise UserError(f"{data} does not list image {said.image_id} of {regions}: fetch both of one release")
            if name not in where:
                missing.append(root / IMAGE_FOLDERS[0] / name)
            elif not said.phrases:
                skipped["images without captions"] += 1
            else:
                path, told = where[name] / name, (said.phrases, said.region_ids, image.coco_id, image.flickr_id)
                yield ImageRecord(said.image_id, path, "train", image.width, image.height, *told)

    table = RecordTable.of(records())
    skipped["listed images without a file"] = len(missing)
    refuse_missing(missing, len(table) + len(missing), allow_missing)
    if not len(table):
        raise UserError(f"{root} has no image with a region: fetch Visual Genome's images.zip and images2.zip")
    files = find_detections(root)
    return Corpus(
        root=root,
        records=table,
        segmentation_classes=SegmentationClasses.official(),
        detections=open_detections(files) if files else None,
        synthetic=False,
        annotation_files=(data, regions),
        _pixel_maps={},
        _skipped=skipped,
    )


@dataclass(frozen=True)
class ShardCorpus(Corpus):
    """Pairs in shards; images are read from the tar files.

    Attributes:
        pairs: the shards and where their samples lie.
    """

    pairs: ShardedPairs = field(repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names, sizes in bytes and numbers of samples of the shards; their contents take too long."""
        digest = hashlib.sha256()
        for shard in self.pairs.shards:
            digest.update(f"{shard.path.name} {shard.path.stat().st_size} {len(shard)}\n".encode())
        return digest.hexdigest()

    def read_image(self, record: ImageRecord) -> Image.Image:
        """The image, decoded, RGB; raises UserError where its shard is gone or the image is broken."""
        return read_image(record.path, self.pairs.read(record.image_id))


def _open_pairs(folder: Path) -> ShardCorpus:
    pairs = open_shards(find_shards(folder))
    if not len(pairs.records):
        raise UserError(f"{folder} has {pairs.listed} shards and no usable sample in them: fetch them again")
    return ShardCorpus(
        root=folder,
        records=pairs.records,
        segmentation_classes=SegmentationClasses.official(),
        detections=None,
        synthetic=False,
        annotation_files=(),
        _pixel_maps={},
        _skipped=pairs.skipped,
        pairs=pairs,
    )
