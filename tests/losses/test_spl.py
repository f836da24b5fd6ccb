import itertools
import math

import pytest
import torch
from contexts import context
from hypothesis import given, settings
from hypothesis import strategies as st

from vlp_lib.errors import UserError
from vlp_lib.losses.spl import SPL, match_labels, set_loss
from vlp_lib.models.vision import VisionFeatures

CLASSES = 5  # and "no object"


def logits_of(seed, batch, queries):
    return 2 * torch.randn(batch, queries, CLASSES + 1, generator=torch.Generator().manual_seed(seed))


def padded(rows, width=None):
    width = max([width or 1, *map(len, rows)])
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows])


def cost_of(logits, targets):
    """Summed −p of the labels that queries were given."""
    probability = logits.softmax(-1)
    return -sum(float(probability[q, t]) for q, t in enumerate(targets.tolist()) if t != CLASSES)


def least_cost(logits, labels):
    """Over every way to give the labels different queries."""
    probability = logits.softmax(-1)
    ways = itertools.permutations(range(len(logits)), len(labels))
    return min(-sum(float(probability[q, t]) for q, t in zip(way, labels, strict=True)) for way in ways)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    queries=st.integers(1, 5),
    rows=st.lists(st.lists(st.integers(0, CLASSES - 1), max_size=5), min_size=1, max_size=3),
)
def test_matching_has_the_least_cost(seed, queries, rows):
    rows = [row[:queries] for row in rows]  # duplicates occur
    logits = logits_of(seed, len(rows), queries)
    targets = match_labels(logits, padded(rows))
    assert targets.shape == (len(rows), queries)
    assert targets.dtype == torch.int64
    for i, row in enumerate(rows):
        matched = [t for t in targets[i].tolist() if t != CLASSES]
        assert sorted(matched) == sorted(row)
        assert cost_of(logits[i], targets[i]) == pytest.approx(least_cost(logits[i], row), abs=1e-6)


def test_cost_is_the_probability_not_its_logarithm():
    """−p gives label 0 to query 0 (0.9 + 0.001 > 0.5 + 0.2), −log p would not."""
    probability = torch.tensor([[[0.9, 0.2], [0.5, 0.001]]])
    logits = torch.cat([probability, torch.ones(1, 2, 1)], -1).log()
    probability = logits.softmax(-1)[0]
    straight = [probability[0, 0], probability[1, 1]]
    crossed = [probability[0, 1], probability[1, 0]]
    assert sum(straight) > sum(crossed)
    assert sum(p.log() for p in straight) < sum(p.log() for p in crossed)
    assert match_labels(logits, torch.tensor([[0, 1]])).tolist() == [[0, 1]]


def test_without_labels_all_is_no_object():
    assert match_labels(logits_of(2, 2, 3), torch.full((2, 4), -1)).tolist() == [[CLASSES] * 3] * 2
    assert match_labels(logits_of(2, 2, 3), torch.zeros(2, 0, dtype=torch.long)).tolist() == [[CLASSES] * 3] * 2


def test_more_labels_than_queries_are_refused():
    with pytest.raises(UserError, match="4 labels cannot be matched to 3 queries: keep at most 3 detections"):
        match_labels(logits_of(3, 2, 3), padded([[1], [0, 1, 2, 3]]))
    # Padding is no label.
    assert match_labels(logits_of(3, 1, 3), padded([[0, 1, 2]], width=9)).shape == (1, 3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_named(value):
    logits = logits_of(5, 2, 3)
    logits[1, 0, 2] = value
    with pytest.raises(UserError, match="not finite"):
        match_labels(logits, padded([[1], [2, 3]]))


def test_matching_needs_no_gradient_and_takes_bf16():
    logits = logits_of(6, 1, 4).requires_grad_()
    targets = match_labels(logits, torch.tensor([[1, 2]]))
    assert not targets.requires_grad
    exact = logits.detach().bfloat16().float()
    assert torch.equal(
        match_labels(logits.bfloat16(), torch.tensor([[1, 2]])), match_labels(exact, torch.tensor([[1, 2]]))
    )


@pytest.mark.parametrize("weight", [0.1, 1.0, 0.5])
def test_set_loss_by_hand(weight):
    logits = logits_of(7, 2, 3)
    targets = torch.tensor([[1, CLASSES, 4], [CLASSES, CLASSES, 0]])
    total = weights = 0.0
    for b in range(2):
        for q in range(3):
            scores, target = logits[b, q].tolist(), int(targets[b, q])
            own = weight if target == CLASSES else 1.0
            total += own * -math.log(math.exp(scores[target]) / sum(math.exp(s) for s in scores))
            weights += own
    assert set_loss(logits, targets, weight).item() == pytest.approx(total / weights, rel=1e-5)


def test_set_loss_of_empty_images_is_finite():
    logits = logits_of(8, 2, 3).requires_grad_()
    loss = set_loss(logits, torch.full((2, 3), CLASSES), 0.1)
    loss.backward()
    # All have the same weight, which cancels.
    assert loss.item() == pytest.approx(-logits.log_softmax(-1)[..., CLASSES].mean().item(), rel=1e-5)
    assert torch.isfinite(logits.grad).all()


@pytest.fixture
def spl():
    torch.manual_seed(0)
    return SPL(context(hidden=16), queries_per_cell=4 / 16, no_object_weight=0.1)


def grid_features(seed=0):
    return VisionFeatures(torch.randn(3, 9, 16, generator=torch.Generator().manual_seed(seed)), (3, 3))


def test_queries_replace_the_grid(spl):
    tokens = spl.tokens(grid_features())
    assert tokens.tokens.shape == (3, 4, 16)
    assert tokens.grid is None
    assert tokens.mask is None


def test_decoder_reads_a_set(spl):
    """A grid's order tells the decoder nothing: the vision stream has put the positions into the features."""
    features = grid_features()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    shuffled = features._replace(tokens=features.tokens[:, order])
    torch.testing.assert_close(spl.tokens(shuffled).tokens, spl.tokens(features).tokens, atol=1e-5, rtol=0)


def test_decoder_does_not_read_masked_tokens(spl):
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[:, 6:] = False
    features = grid_features()
    cut = spl.tokens(VisionFeatures(features.tokens[:, :6], None)).tokens
    torch.testing.assert_close(spl.tokens(features._replace(mask=mask)).tokens, cut, atol=1e-5, rtol=0)


def test_forward_is_matching_and_set_loss(spl, make_batch):
    batch = make_batch(detections=(3, 0, 4))
    features = grid_features()
    tokens = spl.tokens(features)
    output = spl(features, tokens, batch)
    logits = spl.classify(tokens.tokens)
    targets = match_labels(logits, batch.labels)
    assert logits.shape == (3, 4, 11)
    assert torch.equal(output.drawings["target"], targets)
    assert torch.equal(output.drawings["predicted"], logits.argmax(-1))
    torch.testing.assert_close(output.loss, set_loss(logits, targets, 0.1))


def test_forward_uses_the_best_scored_labels(spl, make_batch):
    batch = make_batch(detections=(7, 2, 4))  # four queries; the store gives the best score first
    features = grid_features()
    target = spl(features, spl.tokens(features), batch).drawings["target"]
    assert sorted(target[0].tolist()) == sorted(batch.labels[0, :4].tolist())


def test_corpus_without_labels_is_refused(spl, make_batch):
    batch = make_batch()
    features = grid_features()
    with pytest.raises(UserError, match="SPL needs detector labels"):
        spl(features, spl.tokens(features), type(batch)(**{**vars(batch), "labels": None}))
