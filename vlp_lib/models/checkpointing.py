"""Activation checkpointing: what a block computed is forgotten and computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.checkpoint import checkpoint


def checkpointed(block: Callable[..., Any], active: bool, *inputs: Any) -> Any:
    """The block's output; with `active` only its inputs are kept for the backward pass, which runs the block again.

    Random numbers (dropout) are the same the second time, so the gradients are those of the plain block.
    """
    return checkpoint(block, *inputs, use_reentrant=False) if active else block(*inputs)
