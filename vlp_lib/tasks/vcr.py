"""VCR as a finetuning task (section IV-B3): which of four answers, and which of four rationales, is right?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vlp_lib.arrays import write_array
from vlp_lib.config import DownstreamConfig
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.errors import UserError
from vlp_lib.io import find_file, placed_lines, take, write_text
from vlp_lib.tasks import percent
from vlp_lib.tasks.common import (
    NO_TARGET,
    Encoder,
    Example,
    Folders,
    TaskData,
    TaskSplit,
    complete_splits,
    open_splits,
)

CHOICES = 4

PERSON_NAMES = (
    *("Casey", "Riley", "Jessie", "Jackie", "Avery", "Jaime", "Peyton", "Kerry"),
    *("Jody", "Kendall", "Peyton", "Skyler", "Frankie", "Pat", "Quinn"),
)
"""What persons are called, by their place among the objects spoken of (r2c's `GENDER_NEUTRAL_NAMES`)."""

Tokens = tuple[str | tuple[int, ...], ...]
"""Words, and tags: indices into the objects of the image."""


@dataclass(frozen=True)
class VcrQuestion:
    """One record of VCR's JSON lines.

    Attributes:
        identifier: `annot_id`.
        picture: the file that `img_fn` names.
        objects: class of each object of the image.
        answer_label, rationale_label: place of the right one; None in the blind test split.
    """

    identifier: str
    picture: Path
    objects: tuple[str, ...]
    question: Tokens
    answers: tuple[Tokens, ...]
    rationales: tuple[Tokens, ...]
    answer_label: int | None
    rationale_label: int | None

    @property
    def block(self) -> Path:
        """The image."""
        return self.picture

    @property
    def labelled(self) -> bool:
        """Whether both labels are public."""
        return self.answer_label is not None and self.rationale_label is not None


def tag_names(objects: Sequence[str], sentences: Sequence[Tokens]) -> dict[int, str]:
    """The word for each object that the sentences speak of, as r2c (`dataloaders/vcr.py`) chooses it.

    The objects spoken of are numbered from 1 in the order of the image's list ("everyone" speaks of all persons, and
    sentences that speak of nothing do so too); a person gets the name of that number, any other object its class.
    """
    people = {i for i, name in enumerate(objects) if name == "person"}
    used: set[int] = set()
    for token in (token for sentence in sentences for token in sentence):
        if isinstance(token, tuple):
            used.update(token)
        elif token.lower() in ("everyone", "everyones"):
            used |= people
    numbers = enumerate(sorted(used or people), 1)  # r2c's number 0 is the whole image
    return {i: PERSON_NAMES[n % len(PERSON_NAMES)] if objects[i] == "person" else objects[i] for n, i in numbers}


def words(tokens: Tokens, names: dict[int, str]) -> str:
    """A sentence with its tags as words; several objects of one tag follow each other, as in r2c."""
    return " ".join(
        word for token in tokens for word in ([token] if isinstance(token, str) else [names[i] for i in token])
    )


class VcrItem(NamedTuple):
    """A choice among four: of the answers (`given` None), or of the rationales for the answer at place `given`."""

    question: VcrQuestion
    given: int | None

    @property
    def pictures(self) -> tuple[Path]:
        """The image."""
        return (self.question.picture,)

    def texts(self) -> list[tuple[str, str]]:
        """(question, answer) or (question and answer, rationale) for each candidate."""
        asked = self.question
        context, candidates = asked.question, asked.answers
        if self.given is not None:
            context, candidates = asked.question + asked.answers[self.given], asked.rationales
        names = tag_names(asked.objects, [*candidates, context])
        return [(words(context, names), words(candidate, names)) for candidate in candidates]

    @property
    def label(self) -> int | None:
        """The place of the right candidate, where it is public."""
        return self.question.answer_label if self.given is None else self.question.rationale_label


def vcr_score(choices: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Q→A (right answer), QA→R (right rationale, the right answer given) and Q→AR (both) of N questions, in percent.

    The rules are those of UNITER's `train_vcr.py` and of r2c.

    Args:
        choices: [N, 2, 4] floats, the scores of the answers, and of the rationales given the right answer (of equal
            ones the first wins).
        labels: [N, 2] whole numbers 0 to 3, the right answer and the right rationale.
    """
    shares = {name: percent(right.mean()) for name, right in _right(choices, labels).items()}
    return {"task": "vcr", "unit": "percent", **shares, "questions": len(labels)}


def _right(choices: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Whether each question's answer, its rationale and both were chosen rightly; arguments as for `vcr_score`."""
    right = choices.argmax(2) == labels
    return {"q_to_a": right[:, 0], "qa_to_r": right[:, 1], "q_to_ar": right.all(1)}


class VcrSplit(TaskSplit[VcrQuestion]):
    """The choices of one split; a decision is the four candidates' probabilities [N, 4] float32.

    Each question is two items: its answers, and its rationales given the right answer. Where the labels are not
    public it is five, for the test server wants the rationales given each of the answers.
    """

    def items_of(self, question: VcrQuestion) -> Sequence[VcrItem]:
        """The choice of an answer, and those of a rationale."""
        given = [question.answer_label] if self.labelled else list(range(CHOICES))
        return [VcrItem(question, None), *(VcrItem(question, place) for place in given)]

    def label(self, item: VcrItem) -> int:
        """The place of the right candidate."""
        return NO_TARGET if item.label is None else item.label

    def decide(self, logits: torch.Tensor) -> np.ndarray:
        """Probabilities [B, 4]."""
        return logits.float().softmax(1).cpu().numpy()

    def probabilities(self, decisions: np.ndarray) -> np.ndarray:
        """[questions, items a question, 4] float32: answers first, then rationales.

        Of a question without image: all on a wrong candidate, or, where the labels are not public, the same for each.
        """
        items = 2 if self.labelled else 1 + CHOICES
        chances = np.full((len(self.questions), items, CHOICES), 1 / CHOICES, np.float32)
        chances[np.array(self.present, bool)] = decisions.reshape(-1, items, CHOICES)
        if self.labelled:
            wrong = 1 - np.eye(CHOICES, dtype=np.float32)[self._labels()]
            absent = ~np.array(self.present, bool)
            chances[absent] = wrong[absent] / (CHOICES - 1)
        return chances

    def _labels(self) -> np.ndarray:
        """[questions, 2] int64, the right answer and the right rationale."""
        return np.array([[q.answer_label, q.rationale_label] for q in self.questions], np.int64).reshape(-1, 2)

    def score(self, decisions: np.ndarray) -> dict[str, Any]:
        """Q→A, QA→R and Q→AR."""
        return vcr_score(self.probabilities(decisions), self._labels())

    def scores_of_questions(self, decisions: np.ndarray) -> dict[str, np.ndarray]:
        """Whether answer, rationale and both were chosen rightly."""
        right = _right(self.probabilities(decisions), self._labels())
        return {name: 100 * values.astype(float) for name, values in right.items()}

    def deciding(self, classes: np.ndarray) -> np.ndarray:
        """All probability on them, [items, 4]."""
        return np.eye(CHOICES, dtype=np.float32)[classes]

    def write(self, decisions: np.ndarray, folder: Path) -> list[Path]:
        """With public labels the two arrays [N, 4] of r2c's `eval_q2ar.py`, else the leaderboard's CSV."""
        chances = self.probabilities(decisions)
        if self.labelled:
            paths = [folder / f"{self.name}_{what}_preds.npy" for what in ("answer", "rationale")]
            for path, array in zip(paths, chances.swapaxes(0, 1), strict=True):
                write_array(path, array)
            return paths
        groups = ["answer", *(f"rationale_conditioned_on_a{i}" for i in range(CHOICES))]
        lines = [",".join(["annot_id", *(f"{group}_{i}" for group in groups for i in range(CHOICES))])]
        for question, row in zip(self.questions, chances.reshape(len(chances), -1), strict=True):
            lines.append(",".join([question.identifier, *(f"{value:.6g}" for value in row)]))
        path = folder / f"{self.name}_submission.csv"
        write_text(path, "\n".join(lines) + "\n")
        return [path]

    def example(self, index: int, decisions: np.ndarray) -> Example:
        """A choice: what is asked, the candidate chosen and the right one."""
        item = self.items[index]
        texts, chosen = item.texts(), int(decisions[index].argmax())
        return Example(
            pictures=item.pictures,
            text=texts[0][0],
            predicted=texts[chosen][1],
            truth="" if item.label is None else texts[item.label][1],
            score=float("nan") if item.label is None else float(chosen == item.label),
        )


def open_vcr(corpus: Corpus, encoder: Encoder, config: DownstreamConfig) -> TaskData[VcrSplit]:
    """VCR in `vcr/` below the corpus's root: {train,val,test}.jsonl, plain or gzipped, and vcr1images/.

    Raises UserError where files are missing or broken, or too many images are missing.
    """
    if encoder.detections is not None:
        raise UserError("variant 'region' reads detections and VCR's images have none: choose another variant")
    folder, files, notes = corpus.root / "vcr", Folders(), list[str]()
    paths = {split: path for split in ("train", "val", "test") if (path := find_file(folder, f"{split}.jsonl"))}
    if not paths:
        raise UserError(f"{corpus.root} has no vcr/train.jsonl: put VCR's JSON lines and vcr1images/ into vcr/ there")
    found = complete_splits({split: read_questions(path) for split, path in paths.items()}, folder, notes)
    for name in ("train", "val"):
        if not all(question.labelled for question in found[name]):
            raise UserError(
                f"{folder}, {name}: questions have no answer_label or rationale_label: fetch the official files"
            )
    splits = open_splits(
        VcrSplit,
        encoder,
        found,
        lambda question: files.lacks(question.identifier, [question.picture]),
        folder,
        config.allow_missing,
        notes,
    )
    return TaskData(
        "vcr", classes=CHOICES, pairs=CHOICES, main_score="q_to_ar", answers=(), notes=tuple(notes), **splits
    )


def read_questions(path: Path) -> tuple[VcrQuestion, ...]:
    """VCR's official JSON lines, plain or gzipped, with vcr1images/ beside them.

    Raises UserError for a file of another form, a tag without object, or not four candidates.
    """
    placed = placed_lines(path, "the official JSON lines, e.g. val.jsonl")
    return tuple(_question(entry, where, path.parent / "vcr1images") for where, entry in placed)


def _question(entry: dict[str, Any], where: str, images: Path) -> VcrQuestion:
    objects = tuple(str(name) for name in take(entry, "objects", (list,), where))
    choices = {}
    for name in ("answer_choices", "rationale_choices"):
        given = take(entry, name, (list,), where)
        if len(given) != CHOICES:
            raise UserError(f"{where}: {name} has {len(given)} candidates, not {CHOICES}: mend that line")
        choices[name] = tuple(_tokens(tokens, objects, where) for tokens in given)
    return VcrQuestion(
        identifier=take(entry, "annot_id", (str,), where),
        picture=images / take(entry, "img_fn", (str,), where),
        objects=objects,
        question=_tokens(take(entry, "question", (list,), where), objects, where),
        answers=choices["answer_choices"],
        rationales=choices["rationale_choices"],
        answer_label=_label(entry, "answer_label", where),
        rationale_label=_label(entry, "rationale_label", where),
    )


def _tokens(tokens: object, objects: Sequence[str], where: str) -> Tokens:
    if not isinstance(tokens, list):
        raise UserError(f"{where}: a sentence is {tokens!r:.60} where a list of tokens is needed: mend that line")
    made: list[str | tuple[int, ...]] = []
    for token in tokens:
        if isinstance(token, str):
            made.append(token)
        elif isinstance(token, list) and all(isinstance(i, int) and 0 <= i < len(objects) for i in token):
            made.append(tuple(token))
        else:
            raise UserError(
                f"{where}: {token!r:.60} is neither a word nor places among the {len(objects)} objects: mend that line"
            )
    return tuple(made)


def _label(entry: dict[str, Any], name: str, where: str) -> int | None:
    if entry.get(name) is None:
        return None
    label: int = take(entry, name, (int,), where)
    if not 0 <= label < CHOICES:
        raise UserError(f"{where}: {name} is {label} where 0 to {CHOICES - 1} is needed: mend that line")
    return label
