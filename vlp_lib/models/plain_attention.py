"""Attention by its formula, for processors on which that is the fastest way to train."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


def plain_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> torch.Tensor:
    """What `torch.nn.functional.scaled_dot_product_attention` gives for the same arguments; not for causal masks."""
    if is_causal:
        raise NotImplementedError("causal attention")
    # Autocast would convert the scores to float32 for the softmax and back, which takes longer than the softmax. It
    # sums in float32 by itself.
    with torch.autocast(query.device.type, enabled=False):
        scores = (query * (scale or 1 / math.sqrt(query.shape[-1]))) @ key.transpose(-1, -2)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
        elif attn_mask is not None:
            scores = scores + attn_mask.to(scores.dtype)
        return F.dropout(scores.softmax(-1), dropout_p) @ value


class PlainAttention(TorchFunctionMode):
    """Within this context `scaled_dot_product_attention` is computed by its formula, whoever calls it.

    torch's kernels for a CPU are made for inference: with 64 tokens in bf16, forward and backward pass together, the
    fused one takes about six times and the one that torch calls "math" nearly three times as long as the formula.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return plain_attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
