"""Several data sets as one pretraining corpus, with UNITER's exclusion rule applied (section IV-A2)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from vlp_lib.corpora.coco import SegmentationClasses, read_captions, read_karpathy
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.detections import DetectionStore, open_detections
from vlp_lib.corpora.exclusion import COCO, DROPPED, FLICKR30K, VISUAL_GENOME, HeldOut, assign
from vlp_lib.corpora.flickr30k import find_split_lists, find_tokens, read_split_lists, read_tokens
from vlp_lib.corpora.layout import find_detections, find_karpathy, has_annotations
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.refer import find_refs, read_held_out
from vlp_lib.corpora.table import ID_STRIDE, SPLITS, RecordTable, caption_counts
from vlp_lib.errors import UserError

_NUMBERS = {COCO: 0, FLICKR30K: 1, VISUAL_GENOME: 2}
"""Place of a data set's ids; folders of shards follow."""

KARPATHY_TEST = "Karpathy test"
"""Name of COCO's test images among those held out."""


class Member(NamedTuple):
    """A data set of a joined corpus.

    Attributes:
        source: "coco", "flickr30k", "vg", or the name of a folder of shards.
        number: its ids are its own plus `number` × `ID_STRIDE`; COCO's stay as they are.
        corpus: with its own ids and splits.
        dropped: images kept out of pretraining, by reason.
    """

    source: str
    number: int
    corpus: Corpus
    dropped: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class JoinedCorpus(Corpus):
    """Data sets joined; ids are unique, splits are those of pretraining.

    An image of Visual Genome or Flickr30k that is also COCO's is a record of each: the sentences differ, and the
    paper's and UNITER's numbers of images count it in each.

    Attributes:
        records: data set after data set; `RecordTable.part` is the place of each among the members.
        members: in the order of their ids.
        held_out: what was kept out.
    """

    records: RecordTable
    members: tuple[Member, ...]
    held_out: HeldOut

    def _own(self, record: ImageRecord) -> tuple[Corpus, ImageRecord]:
        """The data set of a record, and the record as it has it."""
        number, own_id = divmod(record.image_id, ID_STRIDE)
        member = next((m for m in self.members if m.number == number), None)
        if member is None:
            raise UserError(f"image {record.image_id} is of no data set in {self.root}: open its own corpus")
        return member.corpus, replace(record, image_id=own_id)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the fingerprints of the data sets and over which images take which part."""
        digest = hashlib.sha256()
        for member in self.members:
            digest.update(f"{member.source} {member.number} {member.corpus.fingerprint}\n".encode())
        for column in (self.records.part, self.records.texts[:, 0], self.records.splits):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    @property
    def coco_records(self) -> RecordTable:
        """The records of COCO's images."""
        return self.part(COCO)

    def part(self, source: str) -> RecordTable:
        """The records of one data set."""
        places = [i for i, member in enumerate(self.members) if member.source == source]
        return self.records.chosen(np.isin(self.records.part, places))

    def _annotated(self, split: str) -> RecordTable:
        """The records of a split that may have a label map or detections; not those of millions of web pairs."""
        may = [m.corpus.may_have_label_maps or bool(m.corpus.detections or self.detections) for m in self.members]
        rows = self.records.splits == SPLITS.index(split)
        return self.records.chosen(rows & np.isin(self.records.part, np.flatnonzero(may)))

    @property
    def skipped(self) -> dict[str, int]:
        """What is not used of each data set, and what the exclusion rule kept out, by reason."""
        skipped: dict[str, int] = {}
        for member in self.members:
            skipped |= {f"{reason} ({member.source})": count for reason, count in member.corpus.skipped.items()}
            kept_out = f"images of {member.source} kept out of pretraining"
            skipped |= {f"{kept_out}: {reason}": count for reason, count in member.dropped.items()}
        return skipped

    @property
    def notes(self) -> list[str]:
        """How much of each data set is trained on, and what is not known here and so not kept out."""
        counts, lines = caption_counts(self.records), []
        for place, member in enumerate(self.members):
            rows = (self.records.part == place) & (self.records.splits == SPLITS.index("train"))
            lines.append(f"to train on: {rows.sum():,} images, {counts[rows].sum():,} sentences of {member.source}")
            lines += member.corpus.split_notes
        if not self.held_out.coco.get(KARPATHY_TEST):
            lines.append("no Karpathy split of COCO: which images retrieval and VQA test on is not known here")
        if not any(name.startswith("RefCOCO") for name in self.held_out.coco):
            lines.append("no refer/: RefCOCO's val and test images are not known and not kept out")
        return lines + self.label_notes

    def read_image(self, record: ImageRecord) -> Image.Image:
        """The image, decoded, RGB; raises UserError where its file is missing or broken."""
        corpus, own = self._own(record)
        return corpus.read_image(own)

    def has_label_map(self, record: ImageRecord) -> bool:
        """Whether the image has a label map; only COCO's have."""
        corpus, own = self._own(record)
        return corpus.has_label_map(own)

    def read_label_map(self, record: ImageRecord) -> np.ndarray | None:
        """As `Corpus.read_label_map`, of the record's own data set."""
        corpus, own = self._own(record)
        return corpus.read_label_map(own)


def read_held_out_images(root: Path) -> HeldOut:
    """What no pretraining may see, as far as the lists below a folder tell.

    COCO's Karpathy file and captions are looked for at root and in coco/, RefCOCO's references in refer/, Flickr30k's
    numbers (Karpathy's file, the token file or Entities' lists, all of them) at root and in flickr30k/.

    Raises UserError where a list is broken.
    """
    paths = [find_karpathy(folder) for folder in (root, root / "coco", root / "flickr30k")]
    entries = [entry for path in paths if path for entry in read_karpathy(path, captions=False)]
    ids = {part: frozenset(e.coco_id for e in entries if e.split == part and e.coco_id is not None) for part in SPLITS}
    listed, lists = set[int](), dict[int, str]()
    for folder in (root / "flickr30k", *([root] if has_annotations(root) == FLICKR30K else [])):
        if tokens := find_tokens(folder):
            listed |= {image.image_id for image in read_tokens(tokens)}
        lists |= read_split_lists(find_split_lists(folder))
    karpathy = {e.flickr_id: e.split for e in entries if e.flickr_id is not None}
    flickr30k = dict.fromkeys(listed | lists.keys(), "") | (karpathy or lists)
    captions = [path for folder in (root, root / "coco") for path in _captions_files(folder)]
    images = (image for path in captions for image in read_captions(path))
    numbers = {image.image_id: image.flickr_id for image in images if image.flickr_id is not None}
    coco = ({KARPATHY_TEST: ids["test"]} if ids["test"] else {}) | read_held_out(find_refs(root))
    return HeldOut(coco, ids["val"], flickr30k, numbers)


def _captions_files(folder: Path) -> list[Path]:
    """The captions of one year, which list all images of COCO."""
    years = (sorted(folder.glob(f"annotations/captions_*{year}.json")) for year in ("2017", "2014"))
    return next((files for files in years if files), [])


def join(root: Path, opened: Sequence[tuple[str, Corpus]]) -> JoinedCorpus:
    """One corpus of opened data sets, without the images that the exclusion rule keeps out.

    Raises UserError where a list of images is broken, nothing is left, or two detectors' vocabularies differ.
    """
    held_out = read_held_out_images(root)
    members: list[Member] = []
    tables: list[RecordTable] = []
    for source, corpus in opened:
        number = _NUMBERS.get(source, len(_NUMBERS) + sum(m.number >= len(_NUMBERS) for m in members))
        own = RecordTable.of(corpus.records)
        splits, dropped = assign(source, own, held_out)
        numbered = replace(own, image_ids=own.image_ids + number * ID_STRIDE, splits=splits)
        tables.append(numbered.chosen(splits != DROPPED))
        members.append(Member(source, number, corpus, dropped))
    records = RecordTable.join(tables)
    if not len(records):
        raise UserError(f"the exclusion rule leaves no image of {root} to train on: fetch more of the data sets")
    coco = next((m.corpus for m in members if m.source == COCO), None)
    stores = [(member.corpus.detections, member.number * ID_STRIDE) for member in members]
    if all(member.corpus.root != root for member in members):
        stores.insert(0, (open_detections(find_detections(root)), 0))  # of the joined corpus's own ids
    sources = [source for store, _ in stores if store for source in store.sources]
    bases = [base for store, base in stores if store for _ in store.sources]
    return JoinedCorpus(
        root=root,
        records=records,
        segmentation_classes=coco.segmentation_classes if coco else SegmentationClasses.official(),
        detections=DetectionStore(sources, bases) if sources else None,
        annotation_files=tuple(path for member in members for path in member.corpus.annotation_files),
        members=tuple(members),
        held_out=held_out,
    )
