"""The data sets below one folder, each in its official layout, found and opened."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from PIL import Image

from vlp_lib.corpora.coco import SegmentationClasses
from vlp_lib.corpora.corpus import Corpus, find_detections, has_annotations, list_files, open_annotated, refuse_missing
from vlp_lib.corpora.detections import open_detections
from vlp_lib.corpora.exclusion import COCO, FLICKR30K
from vlp_lib.corpora.images import read_image
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.shards import ShardedPairs, find_shards, open_shards
from vlp_lib.corpora.table import RecordTable
from vlp_lib.corpora.visual_genome import IMAGE_DATA, IMAGE_FOLDERS, REGIONS, read_image_data, read_regions
from vlp_lib.errors import UserError

VISUAL_GENOME = "vg"
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

    Raises:
        UserError: a data set is there twice.
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


def open_place(place: Place, allow_missing: float) -> Corpus:
    """One data set, with its own ids and splits.

    Raises:
        UserError: a file is broken, or more images are missing than allowed.
    """
    if place.shards:
        return _open_pairs(place.folder)
    if place.source == VISUAL_GENOME:
        return _open_genome(place.folder, allow_missing)
    return open_annotated(place.folder, allow_missing)


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
                yield ImageRecord(
                    image_id=said.image_id,
                    path=where[name] / name,
                    split="train",
                    width=image.width,
                    height=image.height,
                    captions=said.phrases,
                    caption_ids=said.region_ids,
                    coco_id=image.coco_id,
                    flickr_id=image.flickr_id,
                )

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
    skipped: Mapping[str, int] = pairs.skipped
    return ShardCorpus(
        root=folder,
        records=pairs.records,
        segmentation_classes=SegmentationClasses.official(),
        detections=None,
        synthetic=False,
        annotation_files=(),
        _pixel_maps={},
        _skipped=skipped,
        pairs=pairs,
    )
