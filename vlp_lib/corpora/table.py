"""Image records as compact arrays: millions of captions cost their bytes, and a record is made when it is asked for."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from vlp_lib.corpora.records import ImageRecord

SPLITS = ("train", "val", "test")

ID_STRIDE = 10**12
"""In a corpus of several data sets, image i of data set k has the id k · ID_STRIDE + i: above all ids of Flickr's."""

NO_ID = -1
"""In an array of ids: the image is in no such data set."""

_COLUMNS = ("image_ids", "splits", "sizes", "folder_of", "part", "texts", "coco_ids", "flickr_ids")


class Strings(NamedTuple):
    """Many strings as one block of UTF-8: [bytes] uint8, and [N + 1] int64, where each begins and ends."""

    block: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, strings: Iterable[str]) -> Strings:
        """Pack strings; none is kept."""
        block, lengths = bytearray(), [0]
        for string in strings:
            encoded = string.encode()
            block += encoded
            lengths.append(len(encoded))
        return cls(np.frombuffer(block, dtype=np.uint8), np.cumsum(lengths, dtype=np.int64))

    @classmethod
    def join(cls, parts: Sequence[Strings]) -> Strings:
        """All strings of several blocks, one after the other."""
        lengths = np.concatenate([[0], *(np.diff(part.offsets) for part in parts)])
        return cls(np.concatenate([np.zeros(0, np.uint8), *(part.block for part in parts)]), np.cumsum(lengths))

    def slice(self, first: int, last: int) -> tuple[str, ...]:
        """The strings from one place to before another."""
        bounds = self.offsets[first : last + 1].tolist()
        return tuple(self.block[a:b].tobytes().decode() for a, b in pairwise(bounds))


class Texts(NamedTuple):
    """The names of a data set's image files; the captions of all images, image after image, and their ids [M] int64."""

    names: Strings
    captions: Strings
    caption_ids: np.ndarray


@dataclass(frozen=True, eq=False)
class RecordTable(Sequence[ImageRecord]):
    """The records of one or several data sets, N images.

    Attributes:
        image_ids: [N] int64.
        splits: [N] int8, place in `SPLITS`.
        sizes: [N, 2] int32, width and height.
        folders: the folders that images lie in.
        folder_of: [N] int32, place in `folders`.
        data_sets: the texts of each data set; tables that are joined or chosen from share them.
        part: [N] int16, place in `data_sets`.
        texts: [N, 3] int64, the place of the image's name there, of its first caption, and of the one after its last.
        coco_ids, flickr_ids: [N] int64, `NO_ID` where the photograph is not known to be theirs.
    """

    image_ids: np.ndarray
    splits: np.ndarray
    sizes: np.ndarray
    folders: tuple[Path, ...]
    folder_of: np.ndarray
    data_sets: tuple[Texts, ...]
    part: np.ndarray
    texts: np.ndarray
    coco_ids: np.ndarray
    flickr_ids: np.ndarray

    @classmethod
    def of(cls, records: Iterable[ImageRecord]) -> RecordTable:
        """Pack records, sorted by id; they may come from a generator, none is kept."""
        if isinstance(records, RecordTable):
            return records
        rows: list[tuple[int, ...]] = []
        folders: dict[Path, int] = {}
        caption_ids = array("q")
        names: list[str] = []

        def captions() -> Iterable[str]:
            for r in records:
                folder = folders.setdefault(r.path.parent, len(folders))
                place = len(caption_ids)
                caption_ids.extend(r.caption_ids)
                coco, flickr = (NO_ID if one is None else one for one in (r.coco_id, r.flickr_id))
                split = SPLITS.index(r.split)
                rows.append((r.image_id, split, r.width, r.height, folder, place, len(caption_ids), coco, flickr))
                names.append(r.path.name)
                yield from r.captions

        texts = Strings.of(captions())
        table = np.array(rows, dtype=np.int64).reshape(-1, 9)
        order = np.argsort(table[:, 0], kind="stable")
        table = table[order]
        return cls(
            image_ids=table[:, 0],
            splits=table[:, 1].astype(np.int8),
            sizes=table[:, 2:4].astype(np.int32),
            folders=tuple(folders),
            folder_of=table[:, 4].astype(np.int32),
            data_sets=(Texts(Strings.of(names[i] for i in order), texts, np.array(caption_ids)),),
            part=np.zeros(len(table), np.int16),
            texts=np.column_stack([np.arange(len(table)), table[:, 5:7]]),
            coco_ids=table[:, 7],
            flickr_ids=table[:, 8],
        )

    @classmethod
    def join(cls, tables: Sequence[RecordTable]) -> RecordTable:
        """The records of several data sets, one after the other."""
        starts = np.cumsum([0, *(len(table.folders) for table in tables)])
        moved = [
            replace(table, part=table.part + np.int16(i), folder_of=table.folder_of + starts[i])
            for i, table in enumerate(tables)
        ]
        return cls(
            folders=tuple(folder for table in tables for folder in table.folders),
            data_sets=tuple(texts for table in tables for texts in table.data_sets),
            **{name: np.concatenate([getattr(table, name) for table in moved]) for name in _COLUMNS},
        )

    def chosen(self, rows: np.ndarray) -> RecordTable:
        """Some of them: [N] bool, or the places in their order."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _COLUMNS})

    def __len__(self) -> int:
        return len(self.image_ids)

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[ImageRecord, ...]: ...

    def __getitem__(self, index: int | slice) -> ImageRecord | tuple[ImageRecord, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        texts = self.data_sets[self.part[index]]
        name, first, last = self.texts[index].tolist()
        width, height = self.sizes[index].tolist()
        coco, flickr = int(self.coco_ids[index]), int(self.flickr_ids[index])
        return ImageRecord(
            image_id=int(self.image_ids[index]),
            path=self.folders[self.folder_of[index]] / texts.names.slice(name, name + 1)[0],
            split=SPLITS[self.splits[index]],
            width=width,
            height=height,
            captions=texts.captions.slice(first, last),
            caption_ids=tuple(texts.caption_ids[first:last].tolist()),
            coco_id=None if coco == NO_ID else coco,
            flickr_id=None if flickr == NO_ID else flickr,
        )


def caption_counts(records: Sequence[ImageRecord]) -> np.ndarray:
    """[N] int64, the number of captions of each record."""
    if isinstance(records, RecordTable):
        return records.texts[:, 2] - records.texts[:, 1]
    return np.fromiter((len(r.captions) for r in records), dtype=np.int64, count=len(records))
