"""Readers of Flickr30k's original token file and of the split lists of Flickr30k Entities.

Formats: shannon.cs.illinois.edu/DenotationGraph (a line "1000092795.jpg#0<tab>a sentence"), github.com/BryanPlummer/
flickr30k_entities (train.txt, val.txt, test.txt: an image number a line).
"""

from __future__ import annotations

import re
from pathlib import Path

from vlp_lib.corpora.coco import tidy
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.errors import UserError
from vlp_lib.io import read_text

_TOKEN_FILES = ("results_20130124.token", "results.token")
_LIST_FOLDERS = (".", "entities_splits", "flickr30k_entities", "annotations")
_PARTS = ("train", "val", "test")
_TOKEN = re.compile(r"(([0-9]{1,11})\.jpg)#([0-9]{1,2})\t(.*)")


def find_tokens(root: Path) -> Path | None:
    """The token file of a Flickr30k folder, or None."""
    return next((path for name in _TOKEN_FILES if (path := root / name).is_file()), None)


def find_split_lists(root: Path) -> dict[str, Path]:
    """Entities' split lists of a Flickr30k folder by split; empty where not all three are there."""
    for folder in _LIST_FOLDERS:
        lists = {part: root / folder / f"{part}.txt" for part in _PARTS}
        if all(path.is_file() for path in lists.values()):
            return lists
    return {}


def read_tokens(path: Path) -> list[ImageRecord]:
    """The images of a token file, in its order; caption k of image i has the id 10 i + k.

    Raises UserError where the file is missing, no UTF-8, or a line has another form.
    """
    said: dict[str, dict[int, str]] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        match = _TOKEN.fullmatch(line)
        if match is None:
            raise UserError(f"{path}, line {number}, is {line[:60]!r} not 'number.jpg#k<tab>sentence': fetch it again")
        own = said.setdefault(match[2], {})
        if sentence := tidy(match[4]):
            own[10 * int(match[2]) + int(match[3])] = sentence
    return [
        ImageRecord(int(i), Path(f"{i}.jpg"), "", 0, 0, tuple(own.values()), tuple(own), flickr_id=int(i))
        for i, own in said.items()
    ]


def read_split_lists(lists: dict[str, Path]) -> dict[int, str]:
    """Image number → split; raises UserError where a line is no number, or an image stands in two lists."""
    splits: dict[int, str] = {}
    for part, path in lists.items():
        for number, line in enumerate(read_text(path).splitlines(), 1):
            if not (word := line.strip().removesuffix(".jpg")):
                continue
            if not (word.isdecimal() and len(word) < 12):
                raise UserError(f"{path}, line {number}, is {line[:40]!r} and no image number: fetch it again")
            if splits.setdefault(int(word), part) != part:
                raise UserError(f"{path}: image {word} is also in {splits[int(word)]}.txt: fetch both lists again")
    return splits
