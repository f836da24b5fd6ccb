"""Scores of a user's own files, each as one dictionary ready for JSON: what `vlp evaluate` prints.

Scores are in percent, rounded to six decimals. Every file at fault is a UserError that names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vlp_lib.errors import UserError
from vlp_lib.tasks import nlvr2_score as nlvr2
from vlp_lib.tasks import recalls as retrieval
from vlp_lib.tasks import vcr_score as vcr
from vlp_lib.tasks import vqa_accuracy as vqa

FOLD = 1000
"""Images of a COCO 1k fold."""


def score_vqa(questions: Path, annotations: Path, results: Path) -> dict[str, Any]:
    """The official VQA accuracy: overall, per answer type and per question type.

    Args:
        questions, annotations: the official files of one split.
        results: a list of {"question_id", "answer"}, as the test server takes it.
    """
    asked, answered = vqa.read_questions(questions), vqa.read_annotations(annotations)
    with _naming(questions, annotations):
        vqa.check_same_questions(asked, answered)
    predictions = vqa.read_results(results)
    with _naming(results, annotations):
        accuracy = vqa.vqa_accuracy(predictions, answered)
    return report_vqa(accuracy)


def report_vqa(accuracy: vqa.VqaAccuracy) -> dict[str, Any]:
    """What `vlp evaluate vqa` prints of an accuracy."""
    report = {
        "task": "vqa",
        "unit": "percent",
        "overall": _percent(accuracy.overall),
        "per_answer_type": _percents(accuracy.per_answer_type),
        "per_question_type": _percents(accuracy.per_question_type),
        "questions": accuracy.questions,
        "questions_with_fewer_than_ten_answers": accuracy.short_questions,
    }
    if accuracy.other_rules:
        report["note"] = (
            "the annotations have no answer_id to tell annotators apart, as VizWiz's: overall counts each by its "
            "place; overall_by has what the official codes of VQA (vqaEval.py) and of VizWiz give for such a file"
        )
        report["overall_by"] = _percents(accuracy.other_rules)
    return report


def score_nlvr2(data: Path, predictions: Path) -> dict[str, Any]:
    """The official NLVR2 accuracy and consistency.

    Args:
        data: the official JSON lines of a split with labels.
        predictions: identifier,label on each line.
    """
    examples, predicted = nlvr2.read_examples(data), nlvr2.read_predictions(predictions)
    with _naming(predictions, data):
        score = nlvr2.nlvr2_score(predicted, examples)
    return report_nlvr2(score)


def report_nlvr2(score: nlvr2.NlvrScore) -> dict[str, Any]:
    """What `vlp evaluate nlvr2` prints of a score."""
    return {
        "task": "nlvr2",
        "unit": "percent",
        "accuracy": _percent(score.accuracy),
        "consistency": _percent(score.consistency),
        "examples": score.examples,
        "sentences": score.sentences,
    }


def report_vcr(score: vcr.VcrScore) -> dict[str, Any]:
    """A VCR score in the same form; its test labels are not public, so there is no file to score."""
    return {
        "task": "vcr",
        "unit": "percent",
        "q_to_a": _percent(score.q_to_a),
        "qa_to_r": _percent(score.qa_to_r),
        "q_to_ar": _percent(score.q_to_ar),
        "questions": score.questions,
    }


def score_retrieval(scores: Path, captions: Path) -> dict[str, Any]:
    """R@1, R@5 and R@10 of text and image retrieval; for several thousand images also the mean of folds of 1,000.

    Args:
        scores: .npy, float32 or float64 [images, captions]: rows in the order of the file's images, columns in the
            order of its annotations, either all of them or the first five of each image.
        captions: a COCO captions JSON.
    """
    matrix, file = _read_scores(scores), retrieval.read_captions(captions)
    with _naming(scores, captions):
        owners = file.image_index[retrieval.columns_of(file, matrix.shape)]
        report = {"task": "retrieval", "unit": "percent", **_recalls(retrieval.recalls(matrix, owners))}
        if _has_folds(owners, len(matrix)):
            folds = retrieval.fold_recalls(matrix, owners, FOLD)
            report["mean_of_folds"] = {"folds": len(folds), **_recalls(retrieval.mean_recalls(folds))}
    return report


def _read_scores(path: Path) -> np.ndarray:
    try:
        # Mapped, for COCO 5k's matrix takes half a gigabyte; pickles could run code.
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"no such file: {path}; check the path") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is no .npy array ({error}): save the scores with numpy.save") from error
    if not isinstance(matrix, np.ndarray):
        raise UserError(f"{path} is an archive of arrays: save the scores alone, with numpy.save")
    return matrix


def _has_folds(owners: np.ndarray, images: int) -> bool:
    enough = np.bincount(owners, minlength=images).min() >= retrieval.CAPTIONS_PER_IMAGE
    return images > FOLD and images % FOLD == 0 and bool(enough)


def _recalls(recalls: retrieval.Recalls) -> dict[str, Any]:
    return {
        "text_retrieval": {f"R@{k}": _percent(share) for k, share in recalls.text_retrieval.items()},
        "image_retrieval": {f"R@{k}": _percent(share) for k, share in recalls.image_retrieval.items()},
        "images": recalls.images,
        "captions": recalls.captions,
    }


def _percent(share: float) -> float:
    return round(100 * share, 6)


def _percents(shares: Mapping[str, float]) -> dict[str, float]:
    return {kind: _percent(share) for kind, share in shares.items()}


@contextmanager
def _naming(first: Path, second: Path) -> Iterator[None]:
    """Put the two files that do not fit each other before a complaint that cannot know them."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{first} against {second}: {error}") from None
