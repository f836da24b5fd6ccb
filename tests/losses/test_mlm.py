import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from vlp_lib.batches.masking import mask_words
from vlp_lib.batches.sample import NO_MATCHED_TOKEN
from vlp_lib.batches.tokenizer import train_tokenizer
from vlp_lib.losses.mlm import mlm_loss

CLS, SEP, MASK, WORDS = 2, 3, 4, 100
CANDIDATES = np.arange(5, WORDS)


def sentence(rng, words, pieces=1):
    """Ids and word indices of [CLS], words of so many pieces each, [SEP]."""
    ids = np.concatenate([[CLS], rng.integers(5, WORDS, words * pieces), [SEP]])
    return ids, np.concatenate([[-1], np.repeat(np.arange(words), pieces), [-1]])


def rates(pairs):
    """Share selected; and of these the shares masked, kept, and changed, from (ids, masked, labels) of many."""
    counts = Counter()
    for ids, masked, labels in pairs:
        inner = slice(1, -1)
        chosen = labels[inner] != NO_MATCHED_TOKEN
        counts["all"] += len(chosen)
        counts["selected"] += int(chosen.sum())
        counts["masked"] += int((masked[inner][chosen] == MASK).sum())
        counts["kept"] += int((masked[inner][chosen] == ids[inner][chosen]).sum())
    selected = counts["selected"]
    return np.array(
        [
            selected / counts["all"],
            counts["masked"] / selected,
            counts["kept"] / selected,
            1 - (counts["masked"] + counts["kept"]) / selected,
        ]
    )


@pytest.mark.parametrize("replacement", ["zero", "random"])
def test_rates_are_those_of_transformers(replacement):
    rng = np.random.default_rng(0)
    sentences = [sentence(rng, 80) for _ in range(600)]
    ours = [(ids, *mask_words(ids, words, rng, MASK, CANDIDATES, 0.15, replacement)) for ids, words in sentences]

    vocabulary = "abcdefghij"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer([vocabulary], 100).engine,
        pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip
    assert tokenizer.mask_token_id == MASK
    tokenizer.add_tokens([f"w{i}" for i in range(WORDS - len(tokenizer))])
    assert len(tokenizer) == WORDS
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, seed=1)
    batch = collator([{"input_ids": ids.tolist()} for ids, _ in sentences])
    theirs = [
        (ids, masked, labels)
        for (ids, _), masked, labels in zip(sentences, batch["input_ids"].numpy(), batch["labels"].numpy(), strict=True)
    ]
    # 48,000 words, 7,200 of them selected: four standard deviations.
    assert (abs(rates(ours) - [0.15, 0.8, 0.1, 0.1]) < [0.0066, 0.019, 0.0145, 0.0145]).all()
    assert (abs(rates(ours) - rates(theirs)) < [0.01, 0.027, 0.02, 0.02]).all()


def test_zero_is_all_that_replaces_unless_random():
    rng = np.random.default_rng(1)
    changed = {"zero": Counter(), "random": Counter()}
    for replacement, found in changed.items():
        for _ in range(2000):
            ids, words = sentence(rng, 30)
            masked, _ = mask_words(ids, words, rng, MASK, CANDIDATES, 0.15, replacement)
            found.update(masked[(masked != ids) & (masked != MASK)].tolist())
    assert set(changed["zero"]) == {0}
    assert set(changed["random"]) == set(CANDIDATES.tolist())  # never a special token, and every other one


def test_whole_words_are_selected_together():
    rng = np.random.default_rng(2)
    selected = 0
    for _ in range(300):
        ids, words = sentence(rng, 40, pieces=3)
        masked, labels = mask_words(ids, words, rng, MASK, CANDIDATES)
        chosen = (labels[1:-1] != NO_MATCHED_TOKEN).reshape(40, 3)
        assert (chosen.all(1) | ~chosen.any(1)).all()
        hidden = (masked[1:-1] == MASK).reshape(40, 3)
        assert (hidden.all(1) | ~hidden.any(1)).all()
        selected += int(chosen.all(1).sum())
    assert selected / (300 * 40) == pytest.approx(0.15, abs=0.013)


def test_one_word_at_least_and_each_alike():
    rng = np.random.default_rng(3)
    found = Counter()
    for _ in range(3000):
        ids, words = sentence(rng, 3)
        _, labels = mask_words(ids, words, rng, MASK, CANDIDATES, probability=0.0)
        (place,) = np.flatnonzero(labels != NO_MATCHED_TOKEN)
        found[int(place)] += 1
    assert set(found) == {1, 2, 3}
    assert all(abs(n - 1000) < 110 for n in found.values())


@given(
    words=st.lists(st.integers(1, 4), min_size=0, max_size=12),
    padding=st.integers(0, 3),
    seed=st.integers(0, 2**32),
    probability=st.sampled_from([0.0, 0.15, 1.0]),
    replacement=st.sampled_from(["zero", "random"]),
)
def test_specials_stay_and_labels_are_the_originals(words, padding, seed, probability, replacement):
    rng = np.random.default_rng(seed)
    pieces = np.repeat(np.arange(len(words)), words)
    ids = np.concatenate([[CLS], rng.integers(5, WORDS, len(pieces)), [SEP], np.zeros(padding)]).astype(np.int64)
    index = np.concatenate([[-1], pieces, [-1], np.full(padding, -1)]).astype(np.int64)
    before = ids.copy()
    masked, labels = mask_words(ids, index, rng, MASK, CANDIDATES, probability, replacement)
    assert np.array_equal(ids, before)
    special = index < 0
    assert np.array_equal(masked[special], ids[special])
    assert (labels[special] == NO_MATCHED_TOKEN).all()
    chosen = labels != NO_MATCHED_TOKEN
    assert np.array_equal(labels[chosen], ids[chosen])
    assert np.array_equal(masked[~chosen], ids[~chosen])
    assert chosen.any() == bool(words)
    if probability == 1.0:
        assert np.array_equal(chosen, ~special)


def test_same_seed_same_mask():
    ids, words = sentence(np.random.default_rng(4), 30)
    runs = [mask_words(ids, words, np.random.default_rng(7), MASK, CANDIDATES) for _ in range(2)]
    other = mask_words(ids, words, np.random.default_rng(8), MASK, CANDIDATES)
    assert np.array_equal(runs[0][0], runs[1][0])
    assert not np.array_equal(runs[0][0], other[0])


def test_loss_by_hand():
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 6), torch.tensor([0, 5, 2, 2])
    by_hand = [
        -math.log(math.exp(row[t]) / sum(math.exp(x) for x in row))
        for row, t in zip(logits.tolist(), targets.tolist(), strict=True)
    ]
    assert float(mlm_loss(logits, targets)) == pytest.approx(sum(by_hand) / 4, rel=1e-5)
    torch.testing.assert_close(mlm_loss(logits, targets), F.cross_entropy(logits, targets))


def test_loss_of_nothing_is_zero_with_a_gradient():
    layer = torch.nn.Linear(3, 6)
    loss = mlm_loss(layer(torch.zeros(0, 3)), torch.zeros(0, dtype=torch.long))
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(layer.weight.grad, torch.zeros(6, 3))


def test_loss_is_computed_in_float32():
    logits, targets = torch.randn(5, 300, generator=torch.Generator().manual_seed(0)).bfloat16(), torch.arange(5)
    assert mlm_loss(logits, targets).dtype == torch.float32
    torch.testing.assert_close(mlm_loss(logits, targets), F.cross_entropy(logits.float(), targets))
