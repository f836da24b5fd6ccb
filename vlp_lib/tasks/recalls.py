"""Image and text retrieval: R@1, R@5 and R@10 of a score matrix (section IV-B4; Tables III, V and VI).

The rules are those of VSE++ (`evaluation.py`) and UNITER (`utils/itm_eval.py`) but for two accidents. Both leave the
order of equal scores to the sort they call: here equal scores rank in the order of the file, so that a model that says
the same of every pair is at chance. And UNITER's image retrieval counts the query's number along with its rank, a hit
or a few too many: here only ranks count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from vlp_lib.errors import UserError
from vlp_lib.io import placed_entries, refuse, refuse_repeated, take, take_all

CUTOFFS = (1, 5, 10)
CAPTIONS_PER_IMAGE = 5
"""What the benchmarks use of each image, where COCO has up to seven."""

_CAPTIONS_FILE = "a COCO captions file, e.g. captions_val2017.json"
_ROWS = 256  # compared at a time: keeps temporaries at some hundred megabytes for COCO 5k


def text_ranks(scores: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Rank (from 0) of each image's best own caption among all captions; [images] int64.

    Args:
        scores: [images, captions] float32 or float64, higher is more alike.
        owners: [captions] int64, the row of each caption's image; every image has one.
    """
    # A stable sort keeps the columns of one image in the order of the file, so argmax finds the first of the best.
    order = np.argsort(owners, kind="stable")
    starts = np.searchsorted(owners[order], np.arange(len(scores) + 1))
    ranks = np.empty(len(scores), dtype=np.int64)
    for image, row in enumerate(scores):
        own = order[starts[image] : starts[image + 1]]
        best = own[np.argmax(row[own])]
        ranks[image] = np.count_nonzero(row > row[best]) + np.count_nonzero(row[:best] == row[best])
    return ranks


def image_ranks(scores: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Rank (from 0) of each caption's image among all images; [captions] int64. Arguments as for `text_ranks`."""
    own = scores[owners, np.arange(len(owners))]
    ranks = np.zeros(len(owners), dtype=np.int64)
    for start in range(0, len(scores), _ROWS):
        block = scores[start : start + _ROWS]
        earlier = np.arange(start, start + len(block))[:, None] < owners
        ranks += np.count_nonzero((block > own) | ((block == own) & earlier), axis=0)
    return ranks


def recalls(scores: np.ndarray, owners: np.ndarray) -> dict[str, float]:
    """The sizes of the two galleries ("images", "captions"), and R@1, R@5 and R@10 both ways as fractions of 1.

    "text_r1" … "text_r10": an image is the query; hit where any of its captions is among the first k. "image_r1" …
    "image_r10": a caption is the query; hit where its image is among the first k. Arguments as for `text_ranks`.

    Raises UserError for scores of another shape or precision, or with NaN.
    """
    if scores.ndim != 2 or not scores.size:
        raise UserError(f"the scores have shape {list(scores.shape)} where [images, captions] is needed")
    if scores.dtype.kind != "f" or scores.dtype.itemsize < 4:
        raise UserError(f"the scores are {scores.dtype}, which makes ties: save float32 or float64")
    if np.isnan(scores.min()):
        raise UserError("the scores contain NaN: mend the model that made them")
    ranks = {"text": text_ranks(scores, owners), "image": image_ranks(scores, owners)}
    shares = {f"{way}_r{k}": float(np.mean(found < k)) for way, found in ranks.items() for k in CUTOFFS}
    return {"images": len(scores), "captions": len(owners), **shares}


def all_recalls(scores: np.ndarray, owners: np.ndarray, fold: int) -> dict[str, dict[str, float]]:
    """Recalls of the whole gallery ("all"), their mean over folds ("folds"), and those of each fold ("fold 0" …).

    COCO 5k is "all" of 5,000 images, COCO 1k is "folds" of 1,000: consecutive images with their first five captions.
    Images beyond the last whole fold are in "all" only. A gallery smaller than two folds, or with an image of fewer
    than five captions, has no folds.

    Arguments and errors as for `recalls`.
    """
    found = {"all": recalls(scores, owners)}
    folds = [recalls(scores[rows, columns], mine) for rows, columns, mine in _folds(owners, len(scores), fold)]
    if folds:
        found |= {"folds": mean_recalls(folds)} | {f"fold {i}": one for i, one in enumerate(folds)}
    return found


def _folds(owners: np.ndarray, images: int, fold: int) -> list[tuple[slice, np.ndarray, np.ndarray]]:
    """Rows and columns of each fold, and the row of each column's image within it; none where there are no folds."""
    if images < 2 * fold or np.bincount(owners, minlength=images).min() < CAPTIONS_PER_IMAGE:
        return []
    columns, folds = first_captions(owners), []
    for start in range(0, images // fold * fold, fold):
        inside = columns[(owners[columns] >= start) & (owners[columns] < start + fold)]
        folds.append((slice(start, start + fold), inside, owners[inside] - start))
    return folds


def recalls_of_images(scores: np.ndarray, owners: np.ndarray, fold: int) -> dict[str, np.ndarray]:
    """R@1 of each image in percent, [images] float32, by "<gallery>.<text_r1 or image_r1>"; galleries of `all_recalls`.

    Of image retrieval an image's value is the mean over its captions.
    """
    parts = [(scores[rows, columns], mine) for rows, columns, mine in _folds(owners, len(scores), fold)]
    found: dict[str, np.ndarray] = {}
    for name, several in {"all": [(scores, owners)], "folds": parts}.items():
        if several:
            image = [np.bincount(mine, image_ranks(part, mine) < 1) / np.bincount(mine) for part, mine in several]
            found[f"{name}.text_r1"] = np.concatenate([text_ranks(part, mine) < 1 for part, mine in several])
            found[f"{name}.image_r1"] = np.concatenate(image)
    return {name: (100 * values).astype(np.float32) for name, values in found.items()}


def mean_recalls(folds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of the folds' recalls; sizes are those of one fold."""
    means = {name: float(np.mean([fold[name] for fold in folds])) for name in folds[0] if "_r" in name}
    return {**folds[0], **means}


def first_captions(owners: np.ndarray, captions: int = CAPTIONS_PER_IMAGE) -> np.ndarray:
    """The columns of each image's first `captions` captions, in the order of the file; int64."""
    return np.flatnonzero(pd.Series(owners).groupby(owners).cumcount() < captions)


def read_captions(path: Path) -> tuple[int, np.ndarray]:
    """How many images a COCO captions JSON (.gz accepted) has, and [captions] int64, which of them each caption is of.

    Images and captions are numbered in the order of the file.

    Raises UserError for a file of another form, an id that stands twice, a caption of an unknown image, or an image
    without a caption.
    """
    image_ids = [
        take(image, "id", (int, str), where) for where, image in placed_entries(path, "images", _CAPTIONS_FILE)
    ]
    refuse_repeated(image_ids, "image ids", path)
    kinds: dict[str, tuple[type, ...]] = {"id": (int, str), "image_id": (int, str)}
    said = [take_all(entry, kinds, where) for where, entry in placed_entries(path, "annotations", _CAPTIONS_FILE)]
    refuse_repeated((one["id"] for one in said), "caption ids", path)
    rows = {image_id: row for row, image_id in enumerate(image_ids)}
    owners = [one["image_id"] for one in said]
    unknown = [owner for owner in owners if owner not in rows]
    refuse(unknown, f"captions in {path} are of unknown images", "add the images or drop the captions")
    captioned = set(owners)
    bare = [image_id for image_id in image_ids if image_id not in captioned]
    refuse(bare, f"images in {path} have no caption", "drop them, for they cannot be found by text")
    return len(image_ids), np.array([rows[owner] for owner in owners], dtype=np.int64)


def columns_of(images: int, image_index: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which of a file's captions the columns of a score matrix of `shape` are; [columns] int64.

    All of them, or the first five of each image: the width decides. The captions are as `read_captions` gives them.

    Raises UserError where neither fits.
    """
    first = first_captions(image_index)
    for columns in (np.arange(len(image_index)), first):
        if shape == (images, len(columns)):
            return columns
    widths = f"{len(image_index)} columns (all captions)"
    if len(first) < len(image_index):
        widths += f" or {len(first)} columns (the first {CAPTIONS_PER_IMAGE} of each image)"
    raise UserError(
        f"the scores are {list(shape)} where the captions ask for {images} rows and {widths}: score those pairs"
    )
