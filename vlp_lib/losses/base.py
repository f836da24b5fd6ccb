"""The interface of a visual loss, and weighted mixes of them. The model knows no loss by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from vlp_lib.batches.sample import Batch
from vlp_lib.models.vision import VisionFeatures


class VisualOutput(NamedTuple):
    """A visual loss and what there is to see of it.

    Attributes:
        loss: scalar.
        drawings: named tensors a lesson may want to draw (predicted colours, predicted label map, matching), detached.
    """

    loss: torch.Tensor
    drawings: dict[str, torch.Tensor]


class VisualLoss(nn.Module):
    """What a visual loss does: small duties, each with a neutral default."""

    def corrupt(self, batch: Batch) -> Batch:
        """What it does to the input before the model sees it."""
        return batch

    def tokens(self, features: VisionFeatures) -> VisionFeatures:
        """What the cross-modality encoder reads instead of the vision stream's own output."""
        return features

    def terms(self, batch: Batch, grid: tuple[int, int]) -> torch.Tensor | float:
        """How many terms (or what sum of weights) the loss of this batch is a mean over.

        It is known before the model has run, so that the parts of a batch can be weighted by it. `grid` is the vision
        stream's feature map, rows and columns.
        """
        return len(batch)

    def forward(self, features: VisionFeatures, tokens: VisionFeatures, batch: Batch) -> VisualOutput:
        """The loss of the stream's `features` (and of what `tokens` made of them) against the batch's targets."""
        raise TypeError(f"{type(self).__name__} does not say what its loss is")


class MixedVisualLoss(VisualLoss):
    """A weighted sum of visual losses (section V); the empty mix is the naive model's "no visual loss"."""

    def __init__(self, losses: Mapping[str, VisualLoss], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.losses = nn.ModuleDict(losses)
        self.weights = dict(weights)

    def _each(self) -> dict[str, VisualLoss]:
        return {name: loss for name, loss in self.losses.items() if isinstance(loss, VisualLoss)}

    def corrupt(self, batch: Batch) -> Batch:
        """Each loss's corruption, one after the other."""
        for loss in self._each().values():
            batch = loss.corrupt(batch)
        return batch

    def tokens(self, features: VisionFeatures) -> VisionFeatures:
        """The tokens of the one loss that makes its own, or the features."""
        for loss in self._each().values():
            features = loss.tokens(features)
        return features

    def terms_by_loss(self, batch: Batch, grid: tuple[int, int]) -> dict[str, torch.Tensor | float]:
        """The terms of each loss."""
        return {name: loss.terms(batch, grid) for name, loss in self._each().items()}

    def forward(self, features: VisionFeatures, tokens: VisionFeatures, batch: Batch) -> VisualOutput:
        """The weighted sum; the drawings of all, and each loss's own value under its name."""
        total = features.tokens.new_zeros(())
        drawings: dict[str, torch.Tensor] = {}
        for name, loss in self._each().items():
            output = loss(features, tokens, batch)
            value = batch.weighted(name, output.loss)
            total = total + self.weights[name] * value
            drawings |= output.drawings | {name: value.detach()}
        return VisualOutput(total, drawings)
