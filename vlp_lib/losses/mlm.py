"""Masked language modelling (section III-A): predict the words that were hidden."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlp_lib.losses.precision import at_least_float32


def mlm_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the hidden tokens: logits [M, V] and ids [M] of the masked positions; 0 where M is 0."""
    # The sum over nothing is 0 and keeps the graph; the mean over nothing would be NaN.
    return F.cross_entropy(at_least_float32(logits), targets, reduction="sum") / max(len(targets), 1)
