"""Image records as compact arrays: millions of captions cost their bytes, and a record is made when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from vlp_lib.corpora.records import ImageRecord

SPLITS = ("train", "val", "test")

ID_STRIDE = 10**12
"""In a corpus of several data sets, image i of data set k has the id k · ID_STRIDE + i: above all ids of Flickr's."""

NO_ID = -1
"""In an array of ids: the image is in no such data set."""


class Strings(Sequence[str]):
    """Many strings as one block of UTF-8.

    Args:
        block: [bytes] uint8.
        offsets: [N + 1] int64; string i is the bytes offsets[i] to offsets[i + 1].
    """

    def __init__(self, block: np.ndarray, offsets: np.ndarray) -> None:
        self.block, self.offsets = block, offsets

    @classmethod
    def of(cls, strings: Iterable[str]) -> Strings:
        """Pack strings."""
        encoded = [string.encode() for string in strings]
        lengths = np.fromiter((len(one) for one in encoded), dtype=np.int64, count=len(encoded))
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), np.concatenate([[0], np.cumsum(lengths)]))

    @classmethod
    def join(cls, parts: Sequence[Strings]) -> Strings:
        """All strings of several blocks, one after the other."""
        starts = np.cumsum([0, *(part.offsets[-1] for part in parts)])
        offsets = [np.zeros(1, np.int64), *(p.offsets[1:] + start for p, start in zip(parts, starts, strict=False))]
        blocks = [part.block for part in parts] or [np.zeros(0, np.uint8)]
        return cls(np.concatenate(blocks), np.concatenate(offsets))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        place = range(len(self))[index]
        return self.block[self.offsets[place] : self.offsets[place + 1]].tobytes().decode()


class _Records(Sequence[ImageRecord]):
    """What tables share: slices are tuples of records."""

    def _record(self, place: int) -> ImageRecord:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[ImageRecord, ...]: ...

    def __getitem__(self, index: int | slice) -> ImageRecord | tuple[ImageRecord, ...]:
        if isinstance(index, slice):
            return tuple(self._record(i) for i in range(*index.indices(len(self))))
        return self._record(range(len(self))[index])

    def __iter__(self) -> Iterator[ImageRecord]:
        return (self._record(i) for i in range(len(self)))


@dataclass(frozen=True, eq=False)
class RecordTable(_Records):
    """The records of a data set, N images and M captions, by ascending id.

    Attributes:
        image_ids: [N] int64.
        splits: [N] int8, place in `SPLITS`.
        sizes: [N, 2] int32, width and height.
        folders: the folders that images lie in.
        folder_of: [N] int32, place in `folders`.
        names: file names.
        captions: of all images, image after image.
        caption_ids: [M] int64.
        first_caption: [N + 1] int64; the captions of image i are first_caption[i] to first_caption[i + 1].
        coco_ids, flickr_ids: [N] int64, `NO_ID` where the photograph is not known to be theirs.
    """

    image_ids: np.ndarray
    splits: np.ndarray
    sizes: np.ndarray
    folders: tuple[Path, ...]
    folder_of: np.ndarray
    names: Strings
    captions: Strings
    caption_ids: np.ndarray
    first_caption: np.ndarray
    coco_ids: np.ndarray
    flickr_ids: np.ndarray

    @classmethod
    def of(cls, records: Iterable[ImageRecord]) -> RecordTable:
        """Pack records, which may come from a generator: none is kept."""
        numbers: list[tuple[int, int, int, int, int, int, int]] = []
        names: list[str] = []
        captions: list[bytes] = []
        caption_ids: list[np.ndarray] = []
        folders: dict[Path, int] = {}
        lengths: list[np.ndarray] = []
        for r in records:
            encoded = [caption.encode() for caption in r.captions]
            captions.append(b"".join(encoded))
            lengths.append(np.array([len(one) for one in encoded], dtype=np.int64))
            caption_ids.append(np.array(r.caption_ids, dtype=np.int64))
            names.append(r.path.name)
            folder = folders.setdefault(r.path.parent, len(folders))
            coco, flickr = (NO_ID if one is None else one for one in (r.coco_id, r.flickr_id))
            numbers.append((r.image_id, SPLITS.index(r.split), r.width, r.height, folder, coco, flickr))
        table = np.array(numbers, dtype=np.int64).reshape(-1, 7)
        order = np.argsort(table[:, 0], kind="stable")
        table = table[order]
        counts = np.array([len(lengths[i]) for i in order], dtype=np.int64)
        nothing = np.zeros(0, np.int64)
        offsets = np.concatenate([[0], np.cumsum(np.concatenate([nothing, *(lengths[i] for i in order)]))])
        block = np.frombuffer(b"".join(captions[i] for i in order), dtype=np.uint8)
        return cls(
            image_ids=table[:, 0].copy(),
            splits=table[:, 1].astype(np.int8),
            sizes=table[:, 2:4].astype(np.int32),
            folders=tuple(folders),
            folder_of=table[:, 4].astype(np.int32),
            names=Strings.of(names[i] for i in order),
            captions=Strings(block, offsets.astype(np.int64)),
            caption_ids=np.concatenate([nothing, *(caption_ids[i] for i in order)]),
            first_caption=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            coco_ids=table[:, 5].copy(),
            flickr_ids=table[:, 6].copy(),
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    def _record(self, place: int) -> ImageRecord:
        first, last = self.first_caption[place : place + 2].tolist()
        width, height = self.sizes[place].tolist()
        coco, flickr = int(self.coco_ids[place]), int(self.flickr_ids[place])
        return ImageRecord(
            image_id=int(self.image_ids[place]),
            path=self.folders[self.folder_of[place]] / self.names[place],
            split=SPLITS[self.splits[place]],
            width=width,
            height=height,
            captions=self.captions[first:last],
            caption_ids=tuple(self.caption_ids[first:last].tolist()),
            coco_id=None if coco == NO_ID else coco,
            flickr_id=None if flickr == NO_ID else flickr,
        )


class JoinedRecords(_Records):
    """A choice of the records of several data sets as one sequence, with ids and splits of its own.

    Args:
        parts: the records of each data set.
        bases: what is added to the ids of each.
        part: [N] int16, data set of each chosen record.
        row: [N] int64, its place there.
        splits: [N] int8, place in `SPLITS`.
    """

    def __init__(
        self,
        parts: Sequence[Sequence[ImageRecord]],
        bases: Sequence[int],
        part: np.ndarray,
        row: np.ndarray,
        splits: np.ndarray,
    ) -> None:
        self._parts, self._bases = tuple(parts), tuple(bases)
        self.part, self.row, self.splits = part, row, splits

    def __len__(self) -> int:
        return len(self.row)

    def _record(self, place: int) -> ImageRecord:
        part = int(self.part[place])
        own = self._parts[part][int(self.row[place])]
        return replace(own, image_id=own.image_id + self._bases[part], split=SPLITS[self.splits[place]])

    def of_split(self, name: str) -> JoinedRecords:
        """Those of one split."""
        return self._chosen(self.splits == SPLITS.index(name))

    def of_part(self, number: int) -> JoinedRecords:
        """Those of one data set, by its place in `parts`."""
        return self._chosen(self.part == number)

    def _chosen(self, rows: np.ndarray) -> JoinedRecords:
        return JoinedRecords(self._parts, self._bases, self.part[rows], self.row[rows], self.splits[rows])

    @property
    def photographs(self) -> Photographs:
        """Which photograph each record shows; no record is made for it."""
        coco, flickr = np.full(len(self), NO_ID), np.full(len(self), NO_ID)
        for number, records in enumerate(self._parts):
            own, shown = self.part == number, Photographs.of(records)
            coco[own], flickr[own] = shown.coco_ids[self.row[own]], shown.flickr_ids[self.row[own]]
        return Photographs(self.splits, coco, flickr)

    @property
    def caption_counts(self) -> np.ndarray:
        """[N] int64, captions of each record; no record is made for it."""
        counts = np.zeros(len(self), np.int64)
        for number, records in enumerate(self._parts):
            own = self.part == number
            counts[own] = caption_counts(records)[self.row[own]]
        return counts


def caption_counts(records: Sequence[ImageRecord]) -> np.ndarray:
    """[N] int64, the number of captions of each record."""
    if isinstance(records, JoinedRecords):
        return records.caption_counts
    if isinstance(records, RecordTable):
        return np.diff(records.first_caption)
    return np.fromiter((len(r.captions) for r in records), dtype=np.int64, count=len(records))


@dataclass(frozen=True)
class Photographs:
    """Which photograph each record of a data set shows; the columns that the exclusion rule reads.

    Attributes:
        splits: [N] int8, place in `SPLITS`.
        coco_ids, flickr_ids: [N] int64, `NO_ID` where not known.
    """

    splits: np.ndarray
    coco_ids: np.ndarray
    flickr_ids: np.ndarray

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> Photographs:
        """The columns of some records."""
        if isinstance(records, RecordTable):
            return cls(records.splits, records.coco_ids, records.flickr_ids)
        if isinstance(records, JoinedRecords):
            return records.photographs

        def ids(values: Iterable[int | None]) -> np.ndarray:
            return np.fromiter((NO_ID if v is None else v for v in values), dtype=np.int64, count=len(records))

        splits = np.fromiter((SPLITS.index(r.split) for r in records), dtype=np.int8, count=len(records))
        return cls(splits, ids(r.coco_id for r in records), ids(r.flickr_id for r in records))
