"""VQAv2 as a finetuning task (section IV-B1): questions on COCO images, soft targets over an answer list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlp_lib.config import DownstreamConfig
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.layout import find_folder, list_files
from vlp_lib.corpora.records import Detections
from vlp_lib.corpora.split import Division
from vlp_lib.corpora.table import SPLITS
from vlp_lib.errors import UserError
from vlp_lib.io import find_file
from vlp_lib.tasks import vqa_accuracy as vqa
from vlp_lib.tasks.common import (
    NO_TARGET,
    Encoder,
    Example,
    TaskData,
    TaskSplit,
    complete_splits,
    open_splits,
)

SUBTYPES = {"train": "train2014", "val": "val2014", "test": "test2015"}
_IMAGE_FOLDERS = ("train2017", "val2017", "train2014", "val2014", "test2015", "test2017")


@dataclass(frozen=True)
class AskedQuestion:
    """A question, where they are public its answers, and its image's file where there is one."""

    question: vqa.VqaQuestion
    annotation: vqa.VqaAnnotation | None
    picture: Path | None

    @property
    def block(self) -> int | str:
        """The image."""
        return self.question.image_id

    @property
    def labelled(self) -> bool:
        """Whether its answers are public."""
        return self.annotation is not None

    @property
    def pictures(self) -> tuple[Path, ...]:
        """The image."""
        return () if self.picture is None else (self.picture,)

    def texts(self) -> list[tuple[str, str]]:
        """The question."""
        return [(self.question.question, "")]


class VqaSplit(TaskSplit[AskedQuestion]):
    """The questions of one split; a decision is the class of an answer [N] int64.

    Attributes:
        answers: in the order of the classes.
        class_of: the class of each answer.
    """

    def __init__(
        self,
        name: str,
        questions: Sequence[AskedQuestion],
        present: Sequence[bool],
        encoder: Encoder,
        answers: tuple[str, ...],
    ) -> None:
        self.answers, self.class_of = answers, {answer: place for place, answer in enumerate(answers)}
        super().__init__(name, questions, present, encoder)

    def detections(self, item: AskedQuestion) -> tuple[Detections, ...]:
        """What the region model reads of the image."""
        return self.encoder.regions(int(item.question.image_id))

    def label(self, item: AskedQuestion) -> int:
        """The annotators' most common answer."""
        if item.annotation is None:
            return NO_TARGET
        return self.class_of.get(item.annotation.multiple_choice_answer, NO_TARGET)

    def target(self, item: AskedQuestion) -> torch.Tensor:
        """The soft target [classes], all zero where the answers are not public."""
        target = torch.zeros(len(self.answers))
        if item.annotation is not None:
            for place, score in vqa.soft_target(item.annotation.answers, self.class_of).items():
                target[place] = score
        return target

    def predictions(self, decisions: np.ndarray) -> dict[vqa.QuestionId, str]:
        """The answer to every question; "" where the image is missing, which no annotator said."""
        said = {a.question.question_id: self.answers[i] for a, i in zip(self.items, decisions, strict=True)}
        return {a.question.question_id: said.get(a.question.question_id, "") for a in self.questions}

    def score(self, decisions: np.ndarray) -> dict[str, Any]:
        """The official accuracy."""
        annotations = [a.annotation for a in self.questions if a.annotation is not None]
        return vqa.vqa_accuracy(self.predictions(decisions), annotations)

    def scores_of_questions(self, decisions: np.ndarray) -> dict[str, np.ndarray]:
        """The official accuracy."""
        said = self.predictions(decisions)
        known = [a.annotation for a in self.questions if a.annotation is not None]
        return {"overall": np.array([100 * vqa.question_score(said[a.question_id], a) for a in known])}

    def write(self, decisions: np.ndarray, folder: Path) -> list[Path]:
        """The test server's JSON."""
        path = folder / f"{self.name}_results.json"
        vqa.write_results(path, self.predictions(decisions))
        return [path]

    def example(self, index: int, decisions: np.ndarray) -> Example:
        """A question, the answer given, and the annotators' most common one."""
        question, annotation = self.items[index].question, self.items[index].annotation
        predicted = self.answers[decisions[index]]
        truth = "" if annotation is None else annotation.multiple_choice_answer
        score = float("nan") if annotation is None else vqa.question_score(predicted, annotation)
        return Example(self.items[index].pictures, question.question, predicted, truth, score)


def open_vqa(corpus: Corpus, encoder: Encoder, config: DownstreamConfig) -> TaskData[VqaSplit]:
    """VQAv2 in `vqav2/` below the corpus's root, under the official names, plain or gzipped.

    Images are those of the corpus and whatever else lies in COCO's image folders, with or without captions. The answer
    list is built from the train and val annotations (as the official 3,129 are) unless the configuration names one.
    Training questions none of whose answers is in the list are kept, with an all-zero target.

    Raises UserError where files are missing or do not belong together, or too many images are missing.
    """
    folder, notes = corpus.root / "vqav2", list[str]()
    images = image_files(corpus)
    found = {name: asked for name in SUBTYPES if (asked := _read(folder, name, images)) is not None}
    found = complete_splits(_with_their_images(found, corpus, notes), folder, notes)
    for name in ("train", "val"):
        if not all(asked.labelled for asked in found[name]):
            raise UserError(f"{folder} has no {annotations_name(name)} and cannot train without: fetch it")
    answers = _answer_list(found, config)

    def lacking(asked: AskedQuestion) -> str | None:
        question = asked.question
        return None if asked.picture else f"question {question.question_id} of image {question.image_id}"

    kind = partial(VqaSplit, answers=answers)
    splits = open_splits(kind, encoder, found, lacking, folder, config.allow_missing, notes)
    for name, asked in found.items():
        _note_answers(f"{folder}, {name}", name == "train", asked, answers, notes)
    return TaskData(
        "vqa", classes=len(answers), pairs=1, main_score="overall", answers=answers, notes=tuple(notes), **splits
    )


def _with_their_images(
    found: Mapping[str, Sequence[AskedQuestion]], corpus: Corpus, notes: list[str]
) -> Mapping[str, Sequence[AskedQuestion]]:
    """The answered questions in the parts of their images; as they are where the official files divide them.

    They do not where the kit divides the images itself, or the images of train or of val are not there at all, as
    beside COCO's val2017 alone.
    """
    asked = [a for name in ("train", "val") for a in found.get(name, ()) if a.labelled]
    there = [any(a.picture for a in found[name]) for name in found.keys() - {"test"}]
    if corpus.division is None and all(there):
        return found
    parts = {record.image_id: record.split for record in corpus.coco_records}
    division = corpus.division or Division()
    divided: dict[str, list[AskedQuestion]] = {}
    for one in asked:
        if one.picture:
            image_id = int(one.question.image_id)
            divided.setdefault(parts.get(image_id) or division[image_id], []).append(one)
    counts = ", ".join(f"{len(divided.get(name, ())):,} {name}" for name in SPLITS)
    notes.append(
        f"{corpus.root / 'vqav2'}: the questions go with their images ({counts}; of {len(asked):,} answered ones the "
        f"others are about images that are not here); the scores are comparable with no one else's"
    )
    return {name: divided[name] for name in SPLITS if name in divided} or found


def questions_name(split: str) -> str:
    """The official name of a split's questions."""
    return f"v2_OpenEnded_mscoco_{SUBTYPES[split]}_questions.json"


def annotations_name(split: str) -> str:
    """The official name of a split's answers."""
    return f"v2_mscoco_{SUBTYPES[split]}_annotations.json"


def image_files(corpus: Corpus) -> dict[int, Path]:
    """The image file of each COCO id: the corpus's own, and those that have no caption."""
    return folder_images(corpus.root) | {record.image_id: record.path for record in corpus.coco_records}


def folder_images(root: Path) -> dict[int, Path]:
    """The image file of each COCO id in COCO's image folders below a root, with or without captions."""
    files: dict[int, Path] = {}
    for folder in (find_folder(root, name) for name in _IMAGE_FOLDERS):
        for name in sorted(list_files(folder)) if folder else ():
            number = Path(name).stem.rpartition("_")[2]  # COCO_train2014_000000000009.jpg, 000000000009.jpg
            if number.isdecimal():
                files.setdefault(int(number), folder / name)  # type: ignore[operator]
    return files


def _read(folder: Path, split: str, images: Mapping[Any, Path]) -> Sequence[AskedQuestion] | None:
    """The questions of a split with their annotations and images, where there are any; None without questions."""
    questions_file, annotations_file = (find_file(folder, name(split)) for name in (questions_name, annotations_name))
    if questions_file is None:
        return None
    if annotations_file is None:
        questions, by_id = vqa.read_questions(questions_file), {}
    else:
        questions, annotations = vqa.read_annotated(questions_file, annotations_file)
        by_id = {annotation.question_id: annotation for annotation in annotations}
    return [AskedQuestion(one, by_id.get(one.question_id), images.get(one.image_id)) for one in questions]


def _answer_list(splits: Mapping[str, Sequence[AskedQuestion]], config: DownstreamConfig) -> tuple[str, ...]:
    if config.answer_list:
        return vqa.read_answer_list(Path(config.answer_list))
    known = (a.annotation for name in ("train", "val") for a in splits[name] if a.annotation is not None)
    try:
        return vqa.build_answer_list(known, config.minimum_answers)
    except UserError as error:
        raise UserError(
            f"{error} (`vlp finetune --task vqa --set downstream.minimum_answers=…`); or give another project's "
            f"list (--set downstream.answer_list=…), or leave VQA out (`vlp reproduce --tasks …`)"
        ) from None


def _note_answers(
    source: str, training: bool, asked: Sequence[AskedQuestion], answers: tuple[str, ...], notes: list[str]
) -> None:
    """Note the questions that have few answers, or none that the model can give."""
    annotations = [a.annotation for a in asked if a.annotation is not None]
    short = [a for a in annotations if len(a.answers) < vqa.ANNOTATORS]
    if short:
        notes.append(
            f"{source}: {len(short):,} questions have fewer than {vqa.ANNOTATORS} answers (the first: question "
            f"{short[0].question_id} with {len(short[0].answers)}) and are scored over those they have"
        )
    known = set(answers)
    outside = [a for a in annotations if known.isdisjoint(a.answers)]
    if outside:
        fate = "train with an all-zero target" if training else "count, though they cannot be answered"
        notes.append(
            f"{source}: {len(outside):,} of {len(asked):,} questions have no answer in the list of {len(answers):,} "
            f"(the first: question {outside[0].question_id}, {outside[0].multiple_choice_answer!r}) and {fate}"
        )
