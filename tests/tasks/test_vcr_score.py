"""VCR accuracies: both have to be right for Q→AR."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlp_lib.tasks.vcr import vcr_score

CHOICE = st.integers(0, 3)


def test_both_have_to_be_right():
    answers, rationales = np.eye(4)[[0, 1, 2, 3]], np.eye(4)[[3, 0, 0, 0]]
    labels = np.array([[0, 3], [1, 0], [2, 1], [0, 0]])
    score = vcr_score(np.stack([answers, rationales], 1), labels)
    assert [score[name] for name in ("q_to_a", "qa_to_r", "q_to_ar", "questions")] == [75.0, 75.0, 50.0, 4]


@given(st.lists(st.tuples(CHOICE, CHOICE, CHOICE, CHOICE), min_size=1, max_size=20))
def test_equals_counting(rows):
    chosen = np.array(rows)
    score = vcr_score(np.eye(4, dtype=np.float32)[chosen[:, [0, 2]]], chosen[:, [1, 3]])
    assert score["q_to_a"] == pytest.approx(100 * sum(a == b for a, b, _, _ in rows) / len(rows), abs=1e-6)
    assert score["qa_to_r"] == pytest.approx(100 * sum(c == d for _, _, c, d in rows) / len(rows), abs=1e-6)
    assert score["q_to_ar"] == pytest.approx(100 * sum(a == b and c == d for a, b, c, d in rows) / len(rows), abs=1e-6)
