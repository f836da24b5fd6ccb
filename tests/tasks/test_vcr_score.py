"""VCR accuracies: both have to be right for Q→AR."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlp_lib.tasks.vcr_score import VcrScore, vcr_score

CHOICE = st.integers(0, 3)


def test_both_have_to_be_right():
    answers, rationales = np.eye(4)[[0, 1, 2, 3]], np.eye(4)[[3, 0, 0, 0]]
    score = vcr_score(answers, np.array([0, 1, 2, 0]), rationales, np.array([3, 0, 1, 0]))
    assert score == VcrScore(q_to_a=0.75, qa_to_r=0.75, q_to_ar=0.5, questions=4)


@given(st.lists(st.tuples(CHOICE, CHOICE, CHOICE, CHOICE), min_size=1, max_size=20))
def test_equals_counting(rows):
    answers, answer_labels, rationales, rationale_labels = np.array(rows).T
    scores = np.eye(4, dtype=np.float32)
    score = vcr_score(scores[answers], answer_labels, scores[rationales], rationale_labels)
    assert score.q_to_a == pytest.approx(sum(a == b for a, b, _, _ in rows) / len(rows))
    assert score.qa_to_r == pytest.approx(sum(c == d for _, _, c, d in rows) / len(rows))
    assert score.q_to_ar == pytest.approx(sum(a == b and c == d for a, b, c, d in rows) / len(rows))
    assert score.q_to_ar <= min(score.q_to_a, score.qa_to_r)
