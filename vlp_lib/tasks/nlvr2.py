"""NLVR2 as a finetuning task (section IV-B2): is a statement true of two pictures?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlp_lib.config import DownstreamConfig
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.errors import UserError
from vlp_lib.io import read_text
from vlp_lib.tasks import nlvr2_score as nlvr2
from vlp_lib.tasks.by_file import report_nlvr2
from vlp_lib.tasks.common import (
    Encoder,
    Example,
    Folders,
    TaskData,
    TaskSample,
    TaskSplit,
    choose,
    complete_splits,
    find_file,
    judge_missing,
    note_cut,
)

_FILES = {"train": "train", "val": "dev", "test": "test1"}


@dataclass(frozen=True)
class Statement:
    """A statement about a left and a right picture, which may be missing from the disk."""

    example: nlvr2.NlvrExample
    pictures: tuple[Path, Path]

    @property
    def block(self) -> str:
        """What statements on the same pictures share: "dev-850" of NLVR2's dev-850-2-0, "1572" of NLVR's 1572-0."""
        fields = self.example.identifier.split("-")
        return "-".join(fields[: max(1, len(fields) - 2)])


class Nlvr2Split(TaskSplit):
    """The statements of one split; a decision is the class [N] int64, 1 for true."""

    labelled = True

    def __init__(self, name: str, statements: Sequence[Statement], present: Sequence[bool], encoder: Encoder) -> None:
        self.name, self.statements, self.present, self.encoder = name, tuple(statements), tuple(present), encoder
        self.items = [s for s, there in zip(statements, present, strict=True) if there]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> TaskSample:
        item = self.items[index]
        return TaskSample(
            pictures=tuple(self.encoder.picture(path) for path in item.pictures),
            detections=(),
            texts=(self.encoder.text(item.example.sentence),),
            target=torch.tensor(int(item.example.label)),
        )

    def decide(self, logits: torch.Tensor) -> np.ndarray:
        """The likelier class [B]."""
        return logits.argmax(1).cpu().numpy()

    def predictions(self, decisions: np.ndarray) -> dict[str, bool]:
        """What is said of every statement.

        Of one without pictures the opposite of its label: the official script counts it as wrong, as it must be, and
        half of the guesses would be right.
        """
        said = {s.example.identifier: bool(d) for s, d in zip(self.items, decisions, strict=True)}
        return {s.example.identifier: said.get(s.example.identifier, not s.example.label) for s in self.statements}

    def score(self, decisions: np.ndarray) -> dict[str, Any]:
        """The official accuracy and consistency over all statements."""
        return report_nlvr2(nlvr2.nlvr2_score(self.predictions(decisions), [s.example for s in self.statements]))

    def write(self, decisions: np.ndarray, folder: Path) -> list[Path]:
        """The official script's CSV."""
        path = folder / f"{self.name}_predictions.csv"
        nlvr2.write_predictions(path, self.predictions(decisions))
        return [path]

    def limited(self, count: int) -> Nlvr2Split:
        """About `count` statements, those on the same pictures together."""
        if count >= len(self.statements):
            return self
        pairs = list(zip(self.statements, self.present, strict=True))
        chosen = choose(pairs, lambda pair: pair[0].block, count)
        return Nlvr2Split(self.name, [s for s, _ in chosen], [there for _, there in chosen], self.encoder)

    def example(self, index: int, decisions: np.ndarray) -> Example:
        """A statement and what was said of it."""
        item = self.items[index]
        said = bool(decisions[index])
        return Example(
            item.pictures, item.example.sentence, str(said), str(item.example.label), float(said == item.example.label)
        )


def open_nlvr2(corpus: Corpus, encoder: Encoder, config: DownstreamConfig) -> TaskData[Nlvr2Split]:
    """NLVR2 in `nlvr2/` below the corpus's root: data/{train,dev,test1}.json, plain or gzipped, and the pictures.

    The pictures lie in images/<split>/ or <split>/, those of train in numbered directories within. Without `nlvr2/`
    NLVR's own folders in `nlvr/` are read (<split>/<split>.json), for trials: its picture of three boxes comes in six
    orders of the boxes, of which the first two stand for the left and the right picture.

    Raises UserError where files are missing or broken, or too many pictures are missing.
    """
    if encoder.detections is not None:
        raise UserError("variant 'region' reads detections and NLVR2's pictures have none: choose another variant")
    folder, notes = corpus.root / "nlvr2", list[str]()
    if folder.is_dir():
        found = {split: read for split, name in _FILES.items() if (read := read_statements(folder, name)) is not None}
    else:
        folder = corpus.root / "nlvr"
        found = {split: read for split in _FILES if (read := _read_nlvr(folder, _FILES[split])) is not None}
        if found:
            notes.append(f"{folder} is NLVR, not NLVR2: two orders of one picture's boxes stand for left and right")
    if not found:
        raise UserError(f"{corpus.root} has no nlvr2/data/train.json: put NLVR2's data/ and images/ into nlvr2/ there")
    splits = complete_splits(found, lambda s: s.block, folder, notes)
    files, made = Folders(), {}
    for name, statements in splits.items():
        present = [all(files.has(path) for path in s.pictures) for s in statements]
        missing = [
            f"{s.example.identifier}, {next(p for p in s.pictures if not files.has(p))}"
            for s, there in zip(statements, present, strict=True)
            if not there
        ]
        source = f"{folder}, {name}"
        judge_missing(source, missing, len(statements), name == "train", config.allow_missing, notes)
        note_cut(encoder, source, ((s.example.sentence, "") for s in statements), notes)
        made[name] = Nlvr2Split(name, statements, present, encoder)
    return TaskData(
        name="nlvr2",
        classes=2,
        pairs=2,
        main_score="accuracy",
        train=made["train"],
        val=made["val"],
        test=made.get("test"),
        notes=tuple(notes),
    )


def _directories(path: Path) -> dict[str, str]:
    """The numbered directory of each example, "" where its pictures lie in the split's own folder."""
    lines = (json.loads(line) for line in read_text(path).splitlines() if line.strip())
    return {line["identifier"]: str(line.get("directory", "")) for line in lines}


def read_statements(folder: Path, name: str) -> list[Statement] | None:
    """NLVR2's statements in data/<name>.json, plain or gzipped; None where there is no such file."""
    path = find_file(folder / "data", f"{name}.json")
    if path is None:
        return None
    examples, directories = nlvr2.read_examples(path), _directories(path)
    images = next((f for f in (folder / "images" / name, folder / name) if f.is_dir()), folder / "images" / name)
    statements = []
    for example in examples:
        stem = example.identifier.rpartition("-")[0]
        place = images / directories[example.identifier]
        statements.append(Statement(example, (place / f"{stem}-img0.png", place / f"{stem}-img1.png")))
    return statements


def _read_nlvr(folder: Path, name: str) -> list[Statement] | None:
    name = name.removesuffix("1")  # NLVR's public test split is "test"
    path = find_file(folder / name, f"{name}.json")
    if path is None:
        return None
    directories = _directories(path)
    statements = []
    for example in nlvr2.read_examples(path):
        place = folder / name / "images" / directories[example.identifier]
        left, right = (place / f"{name}-{example.identifier}-{order}.png" for order in (0, 1))
        statements.append(Statement(example, (left, right)))
    return statements
