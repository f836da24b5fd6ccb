"""NLVR2 as a finetuning task (section IV-B2): is a statement true of two pictures?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlp_lib.config import DownstreamConfig
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.errors import UserError
from vlp_lib.io import find_file
from vlp_lib.tasks import nlvr2_score as nlvr2
from vlp_lib.tasks.common import (
    Encoder,
    Example,
    Folders,
    TaskData,
    TaskSplit,
    complete_splits,
    open_splits,
)

_FILES = {"train": "train", "val": "dev", "test": "test1"}


@dataclass(frozen=True)
class Statement:
    """A statement about a left and a right picture, which may be missing from the disk."""

    example: nlvr2.NlvrExample
    pictures: tuple[Path, Path]
    labelled = True

    @property
    def block(self) -> str:
        """What statements on the same pictures share: "dev-850" of NLVR2's dev-850-2-0, "1572" of NLVR's 1572-0."""
        fields = self.example.identifier.split("-")
        return "-".join(fields[: max(1, len(fields) - 2)])

    def texts(self) -> list[tuple[str, str]]:
        """The sentence."""
        return [(self.example.sentence, "")]


class Nlvr2Split(TaskSplit[Statement]):
    """The statements of one split; a decision is the class [N] int64, 1 for true."""

    def label(self, item: Statement) -> int:
        """1 for true."""
        return int(item.example.label)

    def predictions(self, decisions: np.ndarray) -> dict[str, bool]:
        """What is said of every statement.

        Of one without pictures the opposite of its label: the official script counts it as wrong, as it must be, and
        half of the guesses would be right.
        """
        said = {s.example.identifier: bool(d) for s, d in zip(self.items, decisions, strict=True)}
        examples = [statement.example for statement in self.questions]
        return {example.identifier: said.get(example.identifier, not example.label) for example in examples}

    def score(self, decisions: np.ndarray) -> dict[str, Any]:
        """The official accuracy and consistency."""
        return nlvr2.nlvr2_score(self.predictions(decisions), [s.example for s in self.questions])

    def scores_of_questions(self, decisions: np.ndarray) -> dict[str, np.ndarray]:
        """Whether each statement was judged rightly."""
        said = self.predictions(decisions)
        right = [said[s.example.identifier] == s.example.label for s in self.questions]
        return {"accuracy": 100 * np.array(right, float)}

    def write(self, decisions: np.ndarray, folder: Path) -> list[Path]:
        """The official script's CSV."""
        path = folder / f"{self.name}_predictions.csv"
        nlvr2.write_predictions(path, self.predictions(decisions))
        return [path]

    def example(self, index: int, decisions: np.ndarray) -> Example:
        """A statement and what was said of it."""
        pictures, example, said = self.items[index].pictures, self.items[index].example, bool(decisions[index])
        return Example(pictures, example.sentence, str(said), str(example.label), float(said == example.label))


def open_nlvr2(corpus: Corpus, encoder: Encoder, config: DownstreamConfig) -> TaskData[Nlvr2Split]:
    """NLVR2 in `nlvr2/` below the corpus's root: data/{train,dev,test1}.json, plain or gzipped, and the pictures.

    The pictures lie in images/<split>/ or <split>/, those of train in numbered directories within. Without `nlvr2/`
    NLVR's own folders in `nlvr/` are read (<split>/<split>.json), for trials: its picture of three boxes comes in six
    orders of the boxes, of which the first two stand for the left and the right picture.

    Raises UserError where files are missing or broken, or too many pictures are missing.
    """
    if encoder.detections is not None:
        raise UserError("variant 'region' reads detections and NLVR2's pictures have none: choose another variant")
    folder, read, notes = corpus.root / "nlvr2", read_statements, list[str]()
    if not folder.is_dir():
        folder, read = corpus.root / "nlvr", _read_nlvr
    found = {split: part for split, name in _FILES.items() if (part := read(folder, name)) is not None}
    if not found:
        raise UserError(f"{corpus.root} has no nlvr2/data/train.json: put NLVR2's data/ and images/ into nlvr2/ there")
    if read is _read_nlvr:
        notes.append(f"{folder} is NLVR, not NLVR2: two orders of one picture's boxes stand for left and right")
    files = Folders()
    splits = open_splits(
        Nlvr2Split,
        encoder,
        complete_splits(found, folder, notes),
        lambda statement: files.lacks(statement.example.identifier, statement.pictures),
        folder,
        config.allow_missing,
        notes,
    )
    return TaskData("nlvr2", classes=2, pairs=2, main_score="accuracy", answers=(), notes=tuple(notes), **splits)


def read_statements(folder: Path, name: str) -> Sequence[Statement] | None:
    """NLVR2's statements in data/<name>.json, plain or gzipped; None where there is no such file."""
    images = next((f for f in (folder / "images" / name, folder / name) if f.is_dir()), folder / "images" / name)
    return _read(folder / "data", f"{name}.json", images, lambda e: f"{e.identifier.rpartition('-')[0]}-img{{}}.png")


def _read_nlvr(folder: Path, name: str) -> Sequence[Statement] | None:
    name = name.removesuffix("1")  # NLVR's public test split is "test"
    place = folder / name
    return _read(place, f"{name}.json", place / "images", lambda e: f"{name}-{e.identifier}-{{}}.png")


def _read(
    folder: Path, name: str, images: Path, picture_of: Callable[[nlvr2.NlvrExample], str]
) -> Sequence[Statement] | None:
    """The statements of a file, the pictures of each called 0 and 1 in the example's numbered directory, if any."""
    path = find_file(folder, name)
    if path is None:
        return None
    statements = []
    for example in nlvr2.read_examples(path):
        left, right = (images / example.directory / picture_of(example).format(number) for number in (0, 1))
        statements.append(Statement(example, (left, right)))
    return statements
