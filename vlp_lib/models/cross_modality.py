"""The cross-modality encoder (section III-A, figure 3), of LXMERT's structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from vlp_lib.models.attention import AttentionBlock, FeedForwardBlock
from vlp_lib.models.checkpointing import checkpointed


class CrossAttentionMaps(NamedTuple):
    """The cross-attention of one layer, a distribution over the last axis.

    Attributes:
        to_vision: [B, heads, L, N], from each word to the visual tokens.
        to_language: [B, heads, N, L], from each visual token to the words; None in a layer that updates no vision.
    """

    to_vision: torch.Tensor
    to_language: torch.Tensor | None


def relative_entropy(
    maps: Sequence[CrossAttentionMaps], words: torch.Tensor, tokens: torch.Tensor | None = None
) -> torch.Tensor:
    """How evenly the words look at the visual tokens: 1 where they look at all alike, 0 at one each; a scalar.

    The entropy of each word's attention over that of even attention, the mean over layers, heads and words.

    Args:
        maps: of each layer.
        words, tokens: [B, L] and [B, N] bool, which of them are read.
    """
    attention = torch.stack([one.to_vision.float() for one in maps])  # [layers, B, heads, L, N]
    entropy = torch.special.entr(attention).sum(-1).mean((0, 2))
    readable = attention.shape[-1] if tokens is None else tokens.sum(-1, keepdim=True).clamp(min=2)
    return (entropy / torch.as_tensor(readable, device=entropy.device).log())[words].mean()


class CrossModalityLayer(nn.Module):
    """Cross-attention, self-attention and a fully connected layer for each stream, each with a short-cut.

    Both directions of the cross-attention read the streams as they enter the layer. With `shared` they have one set
    of weights (LXMERT). A layer whose vision output nobody reads (`updates_vision` False) has no vision branch.
    """

    def __init__(
        self, hidden: int, heads: int, dropout: float, shared: bool = True, updates_vision: bool = True
    ) -> None:
        super().__init__()
        self.updates_vision = updates_vision
        self.cross_attention = AttentionBlock(hidden, heads, dropout)
        self.language_attention = AttentionBlock(hidden, heads, dropout)
        self.language_feed_forward = FeedForwardBlock(hidden, dropout)
        if updates_vision:
            self.vision_cross_attention = None if shared else AttentionBlock(hidden, heads, dropout)
            self.vision_attention = AttentionBlock(hidden, heads, dropout)
            self.vision_feed_forward = FeedForwardBlock(hidden, dropout)

    def forward(
        self,
        language: torch.Tensor,
        vision: torch.Tensor,
        language_mask: torch.Tensor,
        vision_mask: torch.Tensor | None,
        need_weights: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, CrossAttentionMaps | None]:
        """Language [B, L, C] and vision [B, N, C] with their masks [B, L] and [B, N] (True: readable)."""
        words, to_vision = self.cross_attention(language, vision, vision_mask, need_weights)
        to_language = None
        if self.updates_vision:
            cross_attention = self.vision_cross_attention or self.cross_attention
            regions, to_language = cross_attention(vision, language, language_mask, need_weights)
            regions, _ = self.vision_attention(regions, regions, vision_mask)
            vision = self.vision_feed_forward(regions)
        words, _ = self.language_attention(words, words, language_mask)
        maps = CrossAttentionMaps(to_vision, to_language) if to_vision is not None else None
        return self.language_feed_forward(words), vision, maps


class CrossModalityEncoder(nn.Module):
    """A stack of cross-modality layers (the paper: 5).

    The last layer's vision branch is built only where something reads it (`vision_output`).
    """

    def __init__(
        self, layers: int, hidden: int, heads: int, dropout: float, shared: bool = True, vision_output: bool = False
    ) -> None:
        super().__init__()
        self.checkpointing = False
        self.layers = nn.ModuleList(
            CrossModalityLayer(hidden, heads, dropout, shared, updates_vision=vision_output or i < layers - 1)
            for i in range(layers)
        )

    def forward(
        self,
        language: torch.Tensor,
        vision: torch.Tensor,
        language_mask: torch.Tensor,
        vision_mask: torch.Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, list[CrossAttentionMaps]]:
        """The two streams after the last layer, and each layer's attention where asked for."""
        all_maps = []
        for layer in self.layers:
            language, vision, maps = checkpointed(
                layer,
                self.checkpointing and self.training,
                language,
                vision,
                language_mask,
                vision_mask,
                need_weights,
            )
            if maps is not None:
                all_maps.append(maps)
        return language, vision, all_maps
