"""VCR accuracies: both have to be right for Q→AR."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlp_lib.errors import UserError
from vlp_lib.tasks.vcr_score import VcrScore, vcr_score

CHOICE = st.integers(0, 3)


def test_both_have_to_be_right():
    score = vcr_score(np.array([0, 1, 2, 3]), np.array([0, 1, 2, 0]), np.array([3, 0, 0, 0]), np.array([3, 0, 1, 0]))
    assert score == VcrScore(q_to_a=0.75, qa_to_r=0.75, q_to_ar=0.5, questions=4)


@given(st.lists(st.tuples(CHOICE, CHOICE, CHOICE, CHOICE), min_size=1, max_size=20), st.booleans())
def test_equals_counting(rows, as_scores):
    answers, answer_labels, rationales, rationale_labels = np.array(rows).T
    given_answers = np.eye(4, dtype=np.float32)[answers] if as_scores else answers
    score = vcr_score(given_answers, answer_labels, rationales, rationale_labels)
    assert score.q_to_a == pytest.approx(sum(a == b for a, b, _, _ in rows) / len(rows))
    assert score.qa_to_r == pytest.approx(sum(c == d for _, _, c, d in rows) / len(rows))
    assert score.q_to_ar == pytest.approx(sum(a == b and c == d for a, b, c, d in rows) / len(rows))
    assert score.q_to_ar <= min(score.q_to_a, score.qa_to_r)


LABELS = np.array([0, 1])


@pytest.mark.parametrize(
    ("answers", "labels", "complaint"),
    [
        (np.zeros((2, 3), np.float32), LABELS, r"float32 \[2, 3\]: give \[N\] chosen places or \[N, 4\] scores"),
        (np.zeros((2, 4), np.int64), LABELS, "give"),
        (np.zeros((3, 4), np.float32), LABELS, "3 answer predictions and 2 labels"),
        (np.full((2, 4), np.nan, np.float32), LABELS, "answer scores contain NaN"),
        (np.array([0.0, 1.0]), LABELS, r"answer predictions are float64 \[2\]"),
        (np.array([0, 4]), LABELS, "answer predictions leave 0 to 3"),
        (LABELS, np.array([0, -1]), "answer labels leave 0 to 3"),
        (LABELS, LABELS[:, None], r"answer labels are int64 \[2, 1\]"),
        (LABELS[:0], LABELS[:0], "answer labels are"),
        (LABELS[:1], LABELS[:1], "1 answers and 2 rationales"),
    ],
)
def test_refuses(answers, labels, complaint):
    with pytest.raises(UserError, match=complaint):
        vcr_score(answers, labels, LABELS, LABELS)
