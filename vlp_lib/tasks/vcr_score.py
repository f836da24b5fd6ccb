"""Visual commonsense reasoning: Q→A, QA→R and Q→AR (section IV-B3; the rules of UNITER's `train_vcr.py` and of r2c)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
        answers: [N, 4] floats, the answers' scores (of equal ones the first wins).
        answer_labels: [N] whole numbers 0 to 3.
        rationales: as `answers`, for the rationales that were scored with the right answer.
        rationale_labels: [N] whole numbers 0 to 3.
    """
    right_answer = answers.argmax(1) == answer_labels
    right_rationale = rationales.argmax(1) == rationale_labels
    return VcrScore(
        q_to_a=float(right_answer.mean()),
        qa_to_r=float(right_rationale.mean()),
        q_to_ar=float((right_answer & right_rationale).mean()),
        questions=len(right_answer),
    )
