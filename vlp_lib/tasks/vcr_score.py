"""Visual commonsense reasoning: Q→A, QA→R and Q→AR (section IV-B3; the rules of UNITER's `train_vcr.py` and of r2c)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlp_lib.errors import UserError

CHOICES = 4


@dataclass(frozen=True)
class VcrScore:
    """Accuracies as fractions of 1.

    Attributes:
        q_to_a: share of the questions with the right answer.
        qa_to_r: share with the right rationale, the right answer given.
        q_to_ar: share with both right.
        questions: how many were scored.
    """

    q_to_a: float
    qa_to_r: float
    q_to_ar: float
    questions: int


def vcr_score(
    answers: np.ndarray, answer_labels: np.ndarray, rationales: np.ndarray, rationale_labels: np.ndarray
) -> VcrScore:
    """Q→A, QA→R and Q→AR accuracy of N questions.

    Args:
        answers: [N] whole numbers, the chosen answer, or [N, 4] floats, the answers' scores (of equal ones the first).
        answer_labels: [N] whole numbers 0 to 3.
        rationales: as `answers`, for the rationales that were scored with the right answer.
        rationale_labels: [N] whole numbers 0 to 3.

    Raises UserError for shapes that do not fit, choices outside of 0 to 3, or NaN.
    """
    right_answer = _right(answers, answer_labels, "answer")
    right_rationale = _right(rationales, rationale_labels, "rationale")
    if len(right_answer) != len(right_rationale):
        raise UserError(
            f"there are {len(right_answer)} answers and {len(right_rationale)} rationales: give both for each question"
        )
    return VcrScore(
        q_to_a=float(right_answer.mean()),
        qa_to_r=float(right_rationale.mean()),
        q_to_ar=float((right_answer & right_rationale).mean()),
        questions=len(right_answer),
    )


def _right(predictions: np.ndarray, labels: np.ndarray, what: str) -> np.ndarray:
    """[N] bool, whether the prediction is the label."""
    labels = _indices(np.asarray(labels), f"{what} labels")
    chosen = _chosen(np.asarray(predictions), what)
    if chosen.shape != labels.shape:
        raise UserError(
            f"there are {len(chosen)} {what} predictions and {len(labels)} labels: give one of each a question"
        )
    return chosen == labels


def _chosen(predictions: np.ndarray, what: str) -> np.ndarray:
    if predictions.ndim == 1:
        return _indices(predictions, f"{what} predictions")
    if predictions.ndim != 2 or predictions.shape[1] != CHOICES or predictions.dtype.kind != "f":
        raise UserError(
            f"the {what} predictions are {predictions.dtype} {list(predictions.shape)}: "
            f"give [N] chosen places or [N, {CHOICES}] scores"
        )
    if np.isnan(predictions).any():
        raise UserError(f"the {what} scores contain NaN: mend the model that made them")
    return predictions.argmax(axis=1)


def _indices(values: np.ndarray, what: str) -> np.ndarray:
    if values.ndim != 1 or not values.size or values.dtype.kind not in "iu":
        raise UserError(f"the {what} are {values.dtype} {list(values.shape)} where [N] whole numbers are needed")
    if values.min() < 0 or values.max() >= CHOICES:
        raise UserError(f"the {what} leave 0 to {CHOICES - 1}: number the choices from 0")
    return values
