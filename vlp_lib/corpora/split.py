"""A division by image for folders that neither Karpathy's split nor the official parts divide well.

An image's part depends on its id and the seed alone: it stays where it is when others are added, and what is asked
about it (VQA's questions) goes with it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vlp_lib import io
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.table import SPLITS
from vlp_lib.errors import UserError

_VALIDATION, _TEST = 0.1, 0.1
"""Shares of the images."""

_ENOUGH = 0.1
"""Share of the images that a split must leave to train on."""


def split_file(root: Path) -> Path:
    """Where a division of a folder's images is written down."""
    return root / "splits" / "by_image.json"


@dataclass(frozen=True)
class Division:
    """Which image is in which part.

    Attributes:
        seed: of the draw.
        written: the images whose part is written down, by id.
    """

    seed: int = 0
    written: Mapping[int, str] = field(default_factory=dict, repr=False)

    def __getitem__(self, image_id: int) -> str:
        """The part of an image: as written down, else drawn from its id and the seed."""
        if image_id in self.written:
            return self.written[image_id]
        drawn = int.from_bytes(hashlib.sha256(f"{self.seed} {image_id}".encode()).digest()[:8]) / 2**64
        return "test" if drawn < _TEST else "val" if drawn < _TEST + _VALIDATION else "train"

    def of(self, records: Sequence[ImageRecord]) -> tuple[ImageRecord, ...]:
        """The records in their parts."""
        return tuple(replace(record, split=self[record.image_id]) for record in records)


def leaves_enough(records: Sequence[ImageRecord]) -> bool:
    """Whether the records' own split leaves a tenth of them to train on, and any to validate on."""
    count = Counter(record.split for record in records)
    return count["train"] >= _ENOUGH * len(records) and count["val"] > 0


def read_division(root: Path) -> Division:
    """The division that a folder has written down, or the one of seed 0; raises UserError for a broken file."""
    path = split_file(root)
    if not path.is_file():
        return Division()
    said = io.read_json(path)
    try:
        return Division(int(said["seed"]), {int(i): name for name in SPLITS for i in said[name]})
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is no division ({error!r}): write it again with `vlp data split`") from None


def write_division(root: Path, records: Sequence[ImageRecord], seed: int) -> str:
    """Draw the parts of the images anew and write them down; says what was written.

    Raises UserError where the folder cannot be written.
    """
    division, parts = Division(seed), dict[str, list[int]]()
    for record in records:
        parts.setdefault(division[record.image_id], []).append(record.image_id)
    said = {name: sorted(parts.get(name, [])) for name in SPLITS}
    io.write_json(split_file(root), {"seed": seed, **said})
    return f"{split_file(root)}: " + ", ".join(f"{len(ids):,} {name}" for name, ids in said.items())
