"""Several data sets as one pretraining corpus, with UNITER's exclusion rule applied (section IV-A2)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from vlp_lib.corpora.coco import SegmentationClasses, read_captions, read_karpathy
from vlp_lib.corpora.corpus import Corpus, CorpusReport
from vlp_lib.corpora.detections import DetectionSource, DetectionStore, open_detections
from vlp_lib.corpora.exclusion import COCO, DROPPED, FLICKR30K, VISUAL_GENOME, HeldOut, assign
from vlp_lib.corpora.flickr30k import find_split_lists, find_tokens, read_split_lists, read_tokens
from vlp_lib.corpora.layout import find_detections, find_karpathy, has_annotations
from vlp_lib.corpora.records import Detections, ImageRecord
from vlp_lib.corpora.refer import find_refs, read_held_out
from vlp_lib.corpora.table import ID_STRIDE, SPLITS, JoinedRecords, Photographs, caption_counts
from vlp_lib.errors import UserError

_NUMBERS = {COCO: 0, FLICKR30K: 1, VISUAL_GENOME: 2}
"""Place of a data set's ids; folders of shards follow."""

KARPATHY_TEST = "Karpathy test"
"""Name of COCO's test images among those held out."""


@dataclass(frozen=True)
class Member:
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


@dataclass(frozen=True)
class JoinedCorpus(Corpus):
    """Data sets joined; ids are unique, splits are those of pretraining.

    An image of Visual Genome or Flickr30k that is also COCO's is a record of each: the sentences differ, and the
    paper's and UNITER's numbers of images count it in each.

    Attributes:
        members: in the order of their ids.
        held_out: what was kept out.
    """

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
        for column in (self.joined.part, self.joined.row, self.joined.splits):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    @property
    def joined(self) -> JoinedRecords:
        """The records, as what they are."""
        assert isinstance(self.records, JoinedRecords)
        return self.records

    @property
    def coco_records(self) -> Sequence[ImageRecord]:
        """The records of COCO's images."""
        return self.part(COCO)

    def part(self, source: str) -> JoinedRecords:
        """The records of one data set."""
        places = [i for i, member in enumerate(self.members) if member.source == source]
        return self.joined.of_part(places[0] if places else -1)

    @cached_property
    def report(self) -> CorpusReport:
        """The counts over all data sets, what of each is trained on, and what the exclusion kept out."""
        counts = caption_counts(self.records)
        chosen = {name: self.joined.splits == place for place, name in enumerate(SPLITS)}
        maps, detections = Counter(dict.fromkeys(SPLITS, 0)), Counter(dict.fromkeys(SPLITS, 0))
        for member in self.members:
            if member.corpus.may_have_label_maps or member.corpus.detections or self.detections:
                for record in self.part(member.source):
                    maps[record.split] += self.has_label_map(record)
                    detections[record.split] += self.detections is not None and record.image_id in self.detections
        return CorpusReport(
            images={name: int(rows.sum()) for name, rows in chosen.items()},
            captions={name: int(counts[rows].sum()) for name, rows in chosen.items()},
            with_label_map=maps,
            with_detections=detections,
            skipped=self._all_skipped(),
            notes=tuple(self._notes(counts)),
        )

    def _all_skipped(self) -> dict[str, int]:
        skipped: dict[str, int] = {}
        for member in self.members:
            skipped |= {f"{reason} ({member.source})": n for reason, n in member.corpus.skipped.items() if n}
            skipped |= {f"images of {member.source} kept out of pretraining: {why}": n
                        for why, n in member.dropped.items()}  # fmt: skip
        return skipped

    def _notes(self, counts: np.ndarray) -> list[str]:
        lines = []
        for place, member in enumerate(self.members):
            rows = (self.joined.part == place) & (self.joined.splits == SPLITS.index("train"))
            lines.append(f"to train on: {rows.sum():,} images, {counts[rows].sum():,} sentences of {member.source}")
            lines += member.corpus.notes
        if not self.held_out.coco.get(KARPATHY_TEST):
            lines.append("no Karpathy split of COCO: which images retrieval and VQA test on is not known here")
        if not any(name.startswith("RefCOCO") for name in self.held_out.coco):
            lines.append("no refer/: RefCOCO's val and test images are not known and not kept out")
        return lines

    @cached_property
    def _by_split(self) -> dict[str, Sequence[ImageRecord]]:
        return {name: self.joined.of_split(name) for name in SPLITS}

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


class _NumberedDetections:
    """A data set's detections under the ids of the joined corpus."""

    def __init__(self, source: DetectionSource, number: int) -> None:
        self._source, self._number = source, number
        self.path, self.classes, self.attribute_names = source.path, source.classes, source.attribute_names

    @property
    def skipped(self) -> dict[str, int]:
        """Rows that are not used, by reason."""
        return self._source.skipped

    def __contains__(self, image_id: int) -> bool:
        number, own_id = divmod(image_id, ID_STRIDE)
        return number == self._number and own_id in self._source

    def read(self, image_id: int) -> Detections:
        """All detections of an image, best score first."""
        return self._source.read(image_id % ID_STRIDE)


def read_held_out_images(root: Path) -> HeldOut:
    """What no pretraining may see, as far as the lists below a folder tell.

    COCO's Karpathy file and captions are looked for at root and in coco/, RefCOCO's references in refer/, Flickr30k's
    numbers (Karpathy's file, the token file or Entities' lists, all of them) at root and in flickr30k/.

    Raises UserError where a list is broken.
    """
    coco: dict[str, frozenset[int]] = {}
    validation: frozenset[int] = frozenset()
    flickr: set[int] = set()
    for folder in (root, root / "coco", root / "flickr30k"):
        path = find_karpathy(folder)
        entries = read_karpathy(path, captions=False) if path else []
        by_split = {
            split: frozenset(e.image.coco_id for e in entries if e.split == split and e.image.coco_id is not None)
            for split in ("val", "test")
        }
        coco |= {KARPATHY_TEST: by_split["test"]} if by_split["test"] else {}
        validation |= by_split["val"]
        flickr |= {e.image.flickr_id for e in entries if e.image.flickr_id is not None}
    for folder in flickr30k_folders(root):
        if tokens := find_tokens(folder):
            flickr |= {image.image_id for image in read_tokens(tokens)}
        flickr |= set(read_split_lists(find_split_lists(folder)))
    coco |= read_held_out(find_refs(root))
    numbers = {
        image.image_id: image.flickr_id
        for folder in (root, root / "coco")
        for path in _captions_files(folder)
        for image in read_captions(path)
        if image.flickr_id is not None
    }
    return HeldOut(coco, validation, frozenset(flickr), numbers)


def flickr30k_folders(root: Path) -> list[Path]:
    """Where Flickr30k or its lists may lie: its subfolder, and the root where that is Flickr30k itself."""
    return [root / "flickr30k", *([root] if has_annotations(root) == FLICKR30K else [])]


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
    parts, rows, splits = [], [], []
    for source, corpus in opened:
        number = _NUMBERS.get(source, len(_NUMBERS) + sum(m.number >= len(_NUMBERS) for m in members))
        roles, dropped = assign(source, Photographs.of(corpus.records), held_out)
        kept = np.flatnonzero(roles != DROPPED)
        parts.append(np.full(len(kept), len(members), dtype=np.int16))
        rows.append(kept)
        splits.append(roles[kept])
        members.append(Member(source, number, corpus, dropped))
    records = JoinedRecords(
        [member.corpus.records for member in members],
        [member.number * ID_STRIDE for member in members],
        np.concatenate(parts),
        np.concatenate(rows),
        np.concatenate(splits),
    )
    if not len(records):
        raise UserError(f"the exclusion rule leaves no image of {root} to train on: fetch more of the data sets")
    coco = next((m.corpus for m in members if m.source == COCO), None)
    return JoinedCorpus(
        root=root,
        records=records,
        segmentation_classes=coco.segmentation_classes if coco else SegmentationClasses.official(),
        detections=_detections(root, members),
        synthetic=False,
        annotation_files=tuple(path for member in members for path in member.corpus.annotation_files),
        _pixel_maps={},
        _skipped={},
        members=tuple(members),
        held_out=held_out,
    )


def _detections(root: Path, members: Sequence[Member]) -> DetectionStore | None:
    """The detections of all data sets, and those at the root, whose ids are the joined corpus's."""
    sources: list[DetectionSource] = []
    if all(member.corpus.root != root for member in members) and (files := find_detections(root)):
        sources += open_detections(files).sources
    for member in members:
        if member.corpus.detections:
            sources += [_NumberedDetections(source, member.number) for source in member.corpus.detections.sources]
    return DetectionStore(sources) if sources else None
