"""What VQA, NLVR2 and VCR share: items of pictures and texts, their batches, splits, and reports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from itertools import islice, product
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from vlp_lib.batches.augment import View, show_detections, show_image
from vlp_lib.batches.collate import detection_fields
from vlp_lib.batches.sample import Pictures
from vlp_lib.batches.tokenizer import CLS, SEP, Tokenizer
from vlp_lib.batches.whole import pad_texts
from vlp_lib.corpora.detections import DetectionStore
from vlp_lib.corpora.images import read_image
from vlp_lib.corpora.layout import list_files
from vlp_lib.corpora.records import NO_DETECTIONS, Detections
from vlp_lib.errors import UserError

NO_TARGET = -100
"""The class of an item without label (torch's own convention)."""

_SPLIT_SEED = 20230117
"""One for all runs: which items validate never differs between variants and seeds."""

Question = TypeVar("Question", bound=Any)


@dataclass(frozen=True)
class TaskSample:
    """One item, decoded; each of its pictures is paired with each of its texts.

    Attributes:
        pictures: [3, S, S] uint8 each.
        detections: of each picture; empty where the model reads none.
        texts: [L] int64 WordPiece ids each.
        target: [A] float32 soft target (VQA), or an int64 scalar, −100 where the label is not public.
    """

    pictures: tuple[torch.Tensor, ...]
    detections: tuple[Detections, ...]
    texts: tuple[torch.Tensor, ...]
    target: torch.Tensor


@dataclass(frozen=True)
class TaskBatch:
    """B items with their I pictures and T texts, and the P image–sentence pairs that they form.

    Attributes:
        pictures: [I, 3, S, S], each once, however many texts it is paired with.
        input_ids: [T, L] int64, padded with 0.
        attention_mask: [T, L] bool, True at tokens.
        picture_of, text_of: [P] int64, the picture and the text of each pair; an item's pairs follow each other, in
            the order of its pictures, then of its texts.
        targets: [B, A] float32 or [B] int64.
    """

    pictures: Pictures
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    picture_of: torch.Tensor
    text_of: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> TaskBatch:
        """A copy on another device."""
        if device.type == "cpu":
            return self
        tensors = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if name != "pictures"
        }
        return TaskBatch(self.pictures.to(device), **tensors)


def collate(samples: Sequence[TaskSample]) -> TaskBatch:
    """Items to a batch, padded to its longest text and largest set of detections."""
    texts = [text for sample in samples for text in sample.texts]
    detections = [found for sample in samples for found in sample.detections]
    picture_of: list[int] = []
    text_of: list[int] = []
    pictures_before = texts_before = 0
    for sample in samples:
        pairs = list(product(range(len(sample.pictures)), range(len(sample.texts))))
        picture_of += [pictures_before + i for i, _ in pairs]
        text_of += [texts_before + j for _, j in pairs]
        pictures_before += len(sample.pictures)
        texts_before += len(sample.texts)
    input_ids, attention_mask = pad_texts(texts)
    return TaskBatch(
        pictures=Pictures(
            images=torch.stack([picture for sample in samples for picture in sample.pictures]).float() / 255,
            **(detection_fields(detections) if detections else {}),
        ),
        input_ids=input_ids,
        attention_mask=attention_mask,
        picture_of=torch.tensor(picture_of),
        text_of=torch.tensor(text_of),
        targets=torch.stack([sample.target for sample in samples]),
    )


@dataclass(frozen=True)
class Encoder:
    """How pictures and texts of a task become tensors.

    Attributes:
        tokenizer: the pretraining's; it must not cut (made with a length above every text), for texts are cut here.
        text_length: tokens a text may have, [CLS] and [SEP] counted.
        image_size: side of the squared image in pixels.
        detections: of the region model; None for models that read pixels.
        max_regions, detector_threshold: as the region model was pretrained.
    """

    tokenizer: Tokenizer
    text_length: int
    image_size: int
    detections: DetectionStore | None = None
    max_regions: int = 0
    detector_threshold: float = 0.0

    def picture(self, path: Path) -> torch.Tensor:
        """An image file as [3, S, S] uint8, squared, not augmented; raises UserError where it is broken."""
        return self.shown(read_image(path))

    def shown(self, image: Image.Image) -> torch.Tensor:
        """An RGB image as [3, S, S] uint8, squared, not augmented."""
        return torch.from_numpy(show_image(image, View(), self.image_size).transpose(2, 0, 1).copy())

    def regions(self, image_id: int) -> tuple[Detections, ...]:
        """The detections of an image for the region model (an empty set where there are none), nothing for others."""
        if self.detections is None:
            return ()
        found = self.detections.get(image_id, self.max_regions, self.detector_threshold)
        return (NO_DETECTIONS if found is None else show_detections(found, View()),)

    def text(self, first: str, second: str = "") -> torch.Tensor:
        """Ids [L] of [CLS] first [SEP], or of [CLS] first [SEP] second [SEP].

        Of a text that is too long the end of `first` goes, so that a candidate answer (`second`) stays whole; only a
        candidate that is too long by itself loses its own end.
        """
        a, b = self._pieces([first, second])
        separators = 3 if second else 2
        b = b[: self.text_length - separators]
        a = a[: self.text_length - separators - len(b)]
        cls, sep = (self.tokenizer.engine.token_to_id(name) for name in (CLS, SEP))
        return torch.tensor([cls, *a, sep, *b, sep] if second else [cls, *a, sep])

    def count_cut(self, texts: Iterable[tuple[str, str]]) -> int:
        """How many of these (first, second) texts `text` cuts."""
        count, rest = 0, iter(texts)
        while chunk := list(islice(rest, 4096)):
            lengths = [len(pieces) for pieces in self._pieces([part for pair in chunk for part in pair])]
            count += sum(
                first + second + (3 if text else 2) > self.text_length
                for first, second, (_, text) in zip(lengths[::2], lengths[1::2], chunk, strict=True)
            )
        return count

    def _pieces(self, texts: list[str]) -> list[list[int]]:
        return [e.ids for e in self.tokenizer.engine.encode_batch_fast(texts, add_special_tokens=False)]


@dataclass(frozen=True)
class Example:
    """One scored item, for people.

    Attributes:
        pictures: files.
        text: the question or statement.
        predicted, truth: what the model says and what is right ("" where that is not public).
        score: 0 to 1; NaN where the truth is not public.
    """

    pictures: tuple[Path, ...]
    text: str
    predicted: str
    truth: str
    score: float


class TaskSplit(Dataset[TaskSample], ABC, Generic[Question]):
    """One split of a task: a sequence of decodable items, and the official score and form of what is predicted.

    A question has a `block`, what questions on the same pictures share, which is never divided between splits, and is
    `labelled` where its truth is public. An item has `pictures`, their files, and `texts()`, each in two parts as
    `Encoder.text` takes them.

    "Decisions" are what a model says, an array with a row for each item: a class, or probabilities. Items whose image
    is missing are no members of the sequence; scores and files count them as wrong.

    Attributes:
        name: "train", "val" or "test".
        questions: all of them.
        present: whether all pictures of each question are there.
        items: of the questions that have their pictures, in their order.
        labelled: whether the truth of all is public, so that `score` can be asked.
    """

    def __init__(self, name: str, questions: Sequence[Question], present: Sequence[bool], encoder: Encoder) -> None:
        self.name, self.encoder = name, encoder
        self.labelled = all(question.labelled for question in questions)
        self._hold(questions, present)

    def _hold(self, questions: Sequence[Question], present: Sequence[bool]) -> None:
        self.questions, self.present = tuple(questions), tuple(present)
        self.items = [i for q, there in zip(questions, present, strict=True) if there for i in self.items_of(q)]

    def __len__(self) -> int:
        return len(self.items)

    def limited(self, count: int) -> Self:
        """A part of about `count` questions, those on the same picture together; itself where it has no more.

        The same in every run.
        """
        if count >= len(self.questions):
            return self
        part, rows = copy(self), choose([question.block for question in self.questions], count)
        part._hold([self.questions[i] for i in rows], [self.present[i] for i in rows])
        return part

    def items_of(self, question: Any) -> Sequence[Any]:
        """The items that a question is made into: itself, where a task says nothing else."""
        return (question,)

    def __getitem__(self, index: int) -> TaskSample:
        item = self.items[index]
        return TaskSample(
            pictures=tuple(self.encoder.picture(path) for path in item.pictures),
            detections=self.detections(item),
            texts=tuple(self.encoder.text(*text) for text in item.texts()),
            target=self.target(item),
        )

    def detections(self, item: Any) -> tuple[Detections, ...]:
        """The detections on an item's pictures; none, where a task says nothing else."""
        return ()

    @abstractmethod
    def label(self, item: Any) -> int:
        """The right class of an item; NO_TARGET where no class is right or the truth is not public."""

    def target(self, item: Any) -> torch.Tensor:
        """What an item's logits should say: the right class, where a task says nothing else."""
        return torch.tensor(self.label(item))

    def decide(self, logits: torch.Tensor) -> np.ndarray:
        """The decisions of a batch's logits [B, A]: the likeliest class [B]."""
        return logits.argmax(1).cpu().numpy()

    @abstractmethod
    def score(self, decisions: np.ndarray) -> dict[str, Any]:
        """The official scores over all questions, as `vlp evaluate` prints them (percent)."""

    @abstractmethod
    def scores_of_questions(self, decisions: np.ndarray) -> dict[str, np.ndarray]:
        """The scores of each question in percent, [questions], whose means are those of `score`, by the same names."""

    def deciding(self, classes: np.ndarray) -> np.ndarray:
        """The decisions of a model that says these classes, [items] int64."""
        return classes

    @abstractmethod
    def write(self, decisions: np.ndarray, folder: Path) -> list[Path]:
        """Write the official submission files, named after the split; returns them."""

    @abstractmethod
    def example(self, index: int, decisions: np.ndarray) -> Example:
        """An item with what was decided of it."""


Split = TypeVar("Split", bound=TaskSplit[Any])


@dataclass(frozen=True)
class TaskData(Generic[Split]):
    """A task on a corpus.

    Attributes:
        name: "vqa", "nlvr2" or "vcr".
        classes: logits an item.
        pairs: image–sentence pairs an item.
        main_score: which of the official scores stands for the task.
        answers: VQA's answer list, in the order of the classes; empty for other tasks.
        notes: what was left out, cut, or could not be learned, a sentence each.
        train, val: what is trained on, and what validates.
        test: what is scored at the end, where there is such a split.
    """

    name: str
    classes: int
    pairs: int
    main_score: str
    answers: tuple[str, ...]
    notes: tuple[str, ...]
    train: Split
    val: Split
    test: Split | None = None


class Folders:
    """Which files there are; each folder is listed once, as asking for each file is slow on network disks."""

    def __init__(self) -> None:
        self._names = cache(list_files)

    def lacks(self, item: str, paths: Iterable[Path]) -> str | None:
        """An item and the first of its image files that is not there; None where all are."""
        return next((f"{item}, {path}" for path in paths if path.name not in self._names(path.parent)), None)


def open_splits(
    kind: Callable[[str, Sequence[Question], Sequence[bool], Encoder], Split],
    encoder: Encoder,
    found: Mapping[str, Sequence[Question]],
    lacking: Callable[[Question], str | None],
    folder: Path,
    allow_missing: float,
    notes: list[str],
) -> dict[str, Split]:
    """The splits of a task, with what is missing or cut noted.

    Args:
        kind: makes a split of its name, its questions, which of them have their pictures, and the encoder.
        found: the questions of each split, train and val both there (`complete_splits`).
        lacking: says which question lacks its picture, e.g. "question 7 of image 3"; None for a question that has it.
        allow_missing: see `judge_missing`.
    """
    made = {}
    for name, questions in found.items():
        source = f"{folder}, {name}"
        missing = [lacking(question) for question in questions]
        lost = [one for one in missing if one is not None]
        judge_missing(source, lost, len(questions), name == "train", allow_missing, notes)
        made[name] = split = kind(name, questions, [one is None for one in missing], encoder)
        if count := encoder.count_cut(text for item in split.items for text in item.texts()):
            notes.append(
                f"{source}: {count:,} texts are longer than {encoder.text_length} tokens and are cut at the end "
                f"of the question (of question and answer, for rationales)"
            )
    return made


def choose(blocks: Sequence[Hashable], count: int) -> list[int]:
    """The places of `count` items, ascending, drawn in whole blocks (the last may be cut), the same in every run.

    Args:
        blocks: what each item shares with the others of its block.
    """
    members: dict[Hashable, list[int]] = {}
    for i, block in enumerate(blocks):
        members.setdefault(block, []).append(i)
    groups = list(members.values())
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(groups))
    return sorted([i for block in order for i in groups[block]][:count])


def complete_splits(
    found: Mapping[str, Sequence[Question]], source: Path, notes: list[str]
) -> dict[str, Sequence[Question]]:
    """The splits with train and val both there; where one of them is missing, a fifth of the other validates.

    The division is by blocks (of questions that share pictures), the same in every run, and noted.

    Raises UserError where neither is there, or the one that is there is a single block.
    """
    if "train" in found and "val" in found:
        return dict(found)
    given = next((name for name in ("train", "val") if name in found), None)
    if given is None:
        raise UserError(f"{source} has neither training nor validation items: fetch the official files of both")
    items = found[given]
    blocks = list(dict.fromkeys(item.block for item in items))
    if len(blocks) < 2:
        raise UserError(
            f"{source} has one split ({given}) of {len(items)} items on one image, too few to divide into training and "
            f"validation: fetch the official files of both"
        )
    count = max(1, len(blocks) // 5)
    held = {blocks[i] for i in np.random.default_rng(_SPLIT_SEED).permutation(len(blocks))[:count]}
    divided = {
        "train": [item for item in items if item.block not in held],
        "val": [item for item in items if item.block in held],
    }
    notes.append(
        f"{source} has no {'val' if given == 'train' else 'train'} split: {len(divided['val']):,} of the "
        f"{len(items):,} items of {given} validate and the others train; the scores are comparable with no one else's"
    )
    return {**found, **divided}


def judge_missing(
    source: str, missing: Sequence[str], total: int, training: bool, allowed: float, notes: list[str]
) -> None:
    """Note the items without an image; refuse them where more than allowed of val or test have none, or all of train.

    Args:
        source: file and split.
        missing: a description of each item without image, e.g. "question 7 of image 3".
        training: whether they are training items, which are simply left out.
    """
    if not missing:
        return
    said = f"{source}: {len(missing):,} of {total:,} items have no image (the first: {missing[0]})"
    if training and len(missing) < total:
        notes.append(f"{said} and are not trained on")
    elif training or len(missing) > allowed * total:
        raise UserError(
            f"{said}: fetch the images"
            + ("" if training else f", or raise allow_missing (it is {allowed:g}) to score them as wrong")
        )
    elif len(missing) == total:
        raise UserError(f"{said}, so there is nothing to score: fetch at least some of the images")
    else:
        notes.append(f"{said} and count as wrong")
