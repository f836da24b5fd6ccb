"""VQAv2 as a finetuning task (section IV-B1): questions on COCO images, soft targets over an answer list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlp_lib.config import DownstreamConfig
from vlp_lib.corpora.corpus import Corpus, find_folder, list_files
from vlp_lib.errors import UserError
from vlp_lib.tasks import vqa_accuracy as vqa
from vlp_lib.tasks.by_file import report_vqa
from vlp_lib.tasks.common import (
    Encoder,
    Example,
    TaskData,
    TaskSample,
    TaskSplit,
    choose,
    complete_splits,
    find_file,
    judge_missing,
    note_cut,
)

_SUBTYPES = {"train": "train2014", "val": "val2014", "test": "test2015"}
_IMAGE_FOLDERS = ("train2017", "val2017", "train2014", "val2014", "test2015", "test2017")


@dataclass(frozen=True)
class AskedQuestion:
    """A question and, where they are public, its answers."""

    question: vqa.VqaQuestion
    annotation: vqa.VqaAnnotation | None


class VqaSplit(TaskSplit):
    """The questions of one split; a decision is the class of an answer [N] int64.

    Args:
        asked: all questions, also those without an image.
        images: files by image id.
        answers: the classes.
    """

    def __init__(
        self,
        name: str,
        asked: Sequence[AskedQuestion],
        images: Mapping[int, Path],
        answers: vqa.AnswerList,
        encoder: Encoder,
    ) -> None:
        self.name, self.asked, self.images, self.answers, self.encoder = name, tuple(asked), images, answers, encoder
        self.items = [a for a in self.asked if a.question.image_id in images]
        self.labelled = all(a.annotation is not None for a in self.asked)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> TaskSample:
        question, annotation = self.items[index].question, self.items[index].annotation
        target = torch.zeros(len(self.answers))
        if annotation is not None:
            for place, score in vqa.soft_target(annotation.answers, self.answers).items():
                target[place] = score
        image_id = int(question.image_id)
        return TaskSample(
            pictures=(self.encoder.picture(self.images[image_id]),),
            detections=self.encoder.regions(image_id),
            texts=(self.encoder.text(question.question),),
            target=target,
        )

    def decide(self, logits: torch.Tensor) -> np.ndarray:
        """The most likely answer's class [B]."""
        return logits.argmax(1).cpu().numpy()

    def predictions(self, decisions: np.ndarray) -> dict[vqa.QuestionId, str]:
        """The answer to every question; "" where the image is missing, which no annotator said."""
        said = {a.question.question_id: self.answers.answers[i] for a, i in zip(self.items, decisions, strict=True)}
        return {a.question.question_id: said.get(a.question.question_id, "") for a in self.asked}

    def score(self, decisions: np.ndarray) -> dict[str, Any]:
        """The official accuracy over all questions, those without an image included."""
        annotations = [a.annotation for a in self.asked if a.annotation is not None]
        return report_vqa(vqa.vqa_accuracy(self.predictions(decisions), annotations))

    def write(self, decisions: np.ndarray, folder: Path) -> list[Path]:
        """The test server's JSON."""
        path = folder / f"{self.name}_results.json"
        vqa.write_results(path, self.predictions(decisions))
        return [path]

    def limited(self, count: int) -> VqaSplit:
        """About `count` questions, all those of an image together."""
        if count >= len(self.asked):
            return self
        chosen = choose(self.asked, _image_of, count)
        return VqaSplit(self.name, chosen, self.images, self.answers, self.encoder)

    def example(self, index: int, decisions: np.ndarray) -> Example:
        """A question, the answer given, and the annotators' most common one."""
        question, annotation = self.items[index].question, self.items[index].annotation
        predicted = self.answers.answers[decisions[index]]
        score = float("nan")
        if annotation is not None:
            score = vqa.vqa_accuracy({question.question_id: predicted}, [annotation]).overall
        return Example(
            pictures=(self.images[int(question.image_id)],),
            text=question.question,
            predicted=predicted,
            truth="" if annotation is None else annotation.multiple_choice_answer,
            score=score,
        )


def _image_of(asked: AskedQuestion) -> int | str:
    return asked.question.image_id


def open_vqa(corpus: Corpus, encoder: Encoder, config: DownstreamConfig) -> TaskData[VqaSplit]:
    """VQAv2 in `vqav2/` below the corpus's root, under the official names, plain or gzipped.

    Images are those of the corpus and whatever else lies in COCO's image folders, with or without captions. The answer
    list is built from the train and val annotations (as the official 3,129 are) unless the configuration names one.
    Training questions none of whose answers is in the list are kept, with an all-zero target.

    Raises UserError where files are missing or do not belong together, or too many images are missing.
    """
    folder, notes = corpus.root / "vqav2", list[str]()
    found = {name: read for name in _SUBTYPES if (read := _read(folder, name)) is not None}
    splits = complete_splits(found, _image_of, folder, notes)
    for name in ("train", "val"):
        unanswered = [a.question.question_id for a in splits[name] if a.annotation is None]
        if unanswered:
            raise UserError(
                f"{folder} has no v2_mscoco_{_SUBTYPES[name]}_annotations.json and cannot train without: fetch it"
            )
    images = image_files(corpus)
    answers = _answer_list(splits, config)
    for name, asked in splits.items():
        _judge(f"{folder}, {name}", name, asked, images, answers, config.allow_missing, notes)
        note_cut(encoder, f"{folder}, {name}", ((a.question.question, "") for a in asked), notes)
    made = {name: VqaSplit(name, asked, images, answers, encoder) for name, asked in splits.items()}
    return TaskData(
        name="vqa",
        classes=len(answers),
        pairs=1,
        main_score="overall",
        train=made["train"],
        val=made["val"],
        test=made.get("test"),
        notes=tuple(notes),
        answers=answers.answers,
    )


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


def _read(folder: Path, split: str) -> list[AskedQuestion] | None:
    """The questions of a split with their annotations, where there are any; None without questions."""
    questions_file = find_file(folder, f"v2_OpenEnded_mscoco_{_SUBTYPES[split]}_questions.json")
    annotations_file = find_file(folder, f"v2_mscoco_{_SUBTYPES[split]}_annotations.json")
    if questions_file is None:
        return None
    questions = vqa.read_questions(questions_file)
    if annotations_file is None:
        return [AskedQuestion(question, None) for question in questions]
    annotations = vqa.read_annotations(annotations_file)
    try:
        vqa.check_same_questions(questions, annotations)
    except UserError as error:
        raise UserError(f"{questions_file} against {annotations_file}: {error}") from None
    by_id = {annotation.question_id: annotation for annotation in annotations}
    return [AskedQuestion(question, by_id[question.question_id]) for question in questions]


def _answer_list(splits: Mapping[str, Sequence[AskedQuestion]], config: DownstreamConfig) -> vqa.AnswerList:
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


def _judge(
    source: str,
    split: str,
    asked: Sequence[AskedQuestion],
    images: Mapping[int, Path],
    answers: vqa.AnswerList,
    allow_missing: float,
    notes: list[str],
) -> None:
    """Note what is missing from a split; raise UserError where it is too much."""
    missing = [
        f"question {a.question.question_id} of image {a.question.image_id}"
        for a in asked
        if a.question.image_id not in images
    ]
    judge_missing(source, missing, len(asked), split == "train", allow_missing, notes)
    annotations = [a.annotation for a in asked if a.annotation is not None]
    short = [a for a in annotations if len(a.answers) < vqa.ANNOTATORS]
    if short:
        notes.append(
            f"{source}: {len(short):,} questions have fewer than {vqa.ANNOTATORS} answers (the first: question "
            f"{short[0].question_id} with {len(short[0].answers)}) and are scored over those they have"
        )
    outside = [a for a in annotations if answers.index.keys().isdisjoint(a.answers)]
    if outside:
        fate = "train with an all-zero target" if split == "train" else "count, though they cannot be answered"
        notes.append(
            f"{source}: {len(outside):,} of {len(asked):,} questions have no answer in the list of {len(answers):,} "
            f"(the first: question {outside[0].question_id}, {outside[0].multiple_choice_answer!r}) and {fate}"
        )
