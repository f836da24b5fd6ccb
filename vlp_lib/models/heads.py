"""What is read off the encoders' outputs: masked words (MLM) and the match of image and sentence (ITM)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

_BLOCK = 64
"""Rows that the masked positions are filled up to a multiple of."""


class MLMHead(nn.Module):
    """BERT's prediction head: dense, GELU, normalisation, then the word embedding's own weights and a bias."""

    def __init__(self, hidden: int, vocabulary: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, features: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Features [..., C] and the embedding [V, C] to logits [..., V]."""
        return F.linear(self.norm(F.gelu(self.dense(features))), embedding, self.bias)

    def of_masked(self, features: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """As `forward`, of features [M, C] whose number differs from batch to batch.

        They are filled up to whole blocks: a CPU's library builds kernels for each new size, and keeps them.
        """
        filled = F.pad(features, (0, 0, 0, -len(features) % _BLOCK))
        return self(filled, embedding)[: len(features)]


class Pooler(nn.Module):
    """The [CLS] feature that ITM and the downstream heads read: dense and tanh, as BERT's and LXMERT's."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)

    def forward(self, language: torch.Tensor) -> torch.Tensor:
        """Language features [B, L, C] to [B, C]."""
        return torch.tanh(self.dense(language[:, 0]))


class ITMHead(nn.Module):
    """Two classes on the [CLS] feature: 0 mismatched, 1 matched (section III-A)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.classify = nn.Linear(hidden, 2)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """[B, C] to logits [B, 2]."""
        return self.classify(pooled)
