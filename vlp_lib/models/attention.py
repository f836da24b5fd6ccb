"""Multi-head attention and the residual blocks built from it, in BERT's and LXMERT's form (normalise after adding)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Queries from one sequence, keys and values from another (the same one for self-attention).

    The fused kernel is used unless the weights are asked for; both give the same result.
    """

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)

    def _project(self, x: torch.Tensor, *layers: nn.Linear) -> tuple[torch.Tensor, ...]:
        """A sequence [B, length, C] through each of the layers: [B, heads, length, C / heads].

        It is one multiplication: the sequence is read, and under autocast converted, once.
        """
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        heads = F.linear(x, weight, bias).unflatten(-1, (len(layers), self.heads, -1))
        return heads.permute(2, 0, 3, 1, 4).contiguous().unbind(0)

    def forward(
        self, x: torch.Tensor, context: torch.Tensor, mask: torch.Tensor | None = None, need_weights: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend from `x` [B, Q, C] to `context` [B, K, C].

        Args:
            mask: [B, K] bool, True where the context may be read; None reads all.
            need_weights: also return the attention, [B, heads, Q, K], each row summing to 1.
        """
        if x is context:
            q, k, v = self._project(x, self.query, self.key, self.value)
        else:
            (q,), (k, v) = self._project(x, self.query), self._project(context, self.key, self.value)
        readable = None if mask is None else mask[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            if readable is not None:
                scores = scores.masked_fill(~readable, float("-inf"))
            weights = scores.softmax(-1)
            attended = F.dropout(weights, dropout) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=readable, dropout_p=dropout)
        return attended.transpose(1, 2).flatten(2), weights


class AttentionBlock(nn.Module):
    """Attention, a dense layer, the short-cut and the normalisation."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(hidden, heads, dropout)
        self.dense = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(
        self, x: torch.Tensor, context: torch.Tensor, mask: torch.Tensor | None = None, need_weights: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As `Attention.forward`; the output has the shape of `x`."""
        attended, weights = self.attention(x, context, mask, need_weights)
        return self.norm(x + self.dropout(self.dense(attended))), weights


class FeedForwardBlock(nn.Module):
    """The fully connected sub-layer with its short-cut: C → 4C → C, GELU between."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.widen = nn.Linear(hidden, 4 * hidden)
        self.narrow = nn.Linear(4 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., C] to [..., C]."""
        return self.norm(x + self.dropout(self.narrow(F.gelu(self.widen(x)))))
