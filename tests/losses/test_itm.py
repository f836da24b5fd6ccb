import math

import pytest
import torch

from vlp_lib.losses.itm import itm_loss, itm_score


def test_loss_in_closed_form():
    logits = torch.tensor([[2.0, -1.0], [0.5, 0.5], [-3.0, 1.0], [1.0, 4.0]])
    matched = torch.tensor([0, 1, 1, 0])
    # −log softmax of two classes is softplus of the wrong one's advantage.
    expected = sum(math.log1p(math.exp(advantage)) for advantage in (-3.0, 0.0, -4.0, 3.0)) / 4
    assert float(itm_loss(logits, matched)) == pytest.approx(expected, rel=1e-6)


def test_loss_is_computed_in_float32():
    logits = torch.tensor([[2.0, -1.0]]).bfloat16()
    assert itm_loss(logits, torch.tensor([1])).dtype == torch.float32
    assert float(itm_loss(logits, torch.tensor([1]))) == pytest.approx(math.log1p(math.exp(3)), rel=1e-6)


def test_score_is_the_log_odds_of_a_match():
    logits = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
    odds = logits.softmax(1)
    torch.testing.assert_close(itm_score(logits), (odds[:, 1] / odds[:, 0]).log())
    assert itm_score(logits).tolist() == [-3.0, 3.0]
