"""Hiding the words of a sentence for masked language modelling (section III-A)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from vlp_lib.batches.sample import NO_MATCHED_TOKEN


def mask_words(
    ids: np.ndarray,
    words: np.ndarray,
    rng: np.random.Generator,
    mask_id: int,
    candidates: np.ndarray,
    probability: float = 0.15,
    replacement: Literal["zero", "random"] = "zero",
) -> tuple[np.ndarray, np.ndarray]:
    """Hide words of one sentence.

    Whole words are selected with `probability`, at least one a sentence. Of the selected ones 80 % become [MASK];
    10 % are "changed to zero" (token id 0; or to a random token, as BERT, with replacement "random") and 10 % kept.

    Args:
        ids: [L] token ids.
        words: [L] index of the word that each token is a piece of, −1 for [CLS], [SEP] and padding (never selected).
        candidates: ids that a random replacement is drawn from (no special tokens).

    Returns:
        The ids with the replacements made, and the labels: the original id where selected, −100 elsewhere; both [L].
    """
    count = int(words.max(initial=-1)) + 1
    labels = np.full_like(ids, NO_MATCHED_TOKEN)
    if count == 0:
        return ids, labels
    selected_words = rng.random(count) < probability
    if not selected_words.any():
        selected_words[rng.integers(count)] = True
    action_of_word = rng.random(count)
    selected = (words >= 0) & selected_words[words]
    action = action_of_word[words]
    masked = ids.copy()
    masked[selected & (action < 0.8)] = mask_id
    changed = selected & (action >= 0.8) & (action < 0.9)
    masked[changed] = 0 if replacement == "zero" else rng.choice(candidates, int(changed.sum()))
    labels[selected] = ids[selected]
    return masked, labels
