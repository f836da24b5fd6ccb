"""Scores of single items, kept beside a run's means: what an interval over items is computed from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vlp_lib.arrays import read_npz, write_arrays

ITEMS = "items.npz"
"""In a run folder: an array for each "<split>.<metric>", in percent, a value an item, the same items in every run."""


def by_block(scores: Sequence[float] | np.ndarray, blocks: Sequence[Hashable]) -> np.ndarray:
    """One value a block of items that belong together (the questions on one image), float32.

    Blocks come in the order of their first items. Each value is the block's sum, scaled so that their mean is the mean
    over all items, whatever the blocks' sizes.
    """
    places = {block: place for place, block in enumerate(dict.fromkeys(blocks))}
    sums = np.bincount([places[block] for block in blocks], np.asarray(scores, float), len(places))
    return (sums * len(places) / len(blocks)).astype(np.float32)


def write_items(folder: Path, scores: Mapping[str, np.ndarray]) -> None:
    """Write the scores of a run, by "<split>.<metric>"."""
    write_arrays(folder / ITEMS, scores)


def read_items(folder: Path) -> dict[str, np.ndarray]:
    """The scores of a run; none where it kept none."""
    if not (folder / ITEMS).is_file():
        return {}
    return read_npz(folder / ITEMS)
