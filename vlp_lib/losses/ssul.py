"""SSUL, the self-supervised loss (section III-B, equation 1): the mean colour of masked patches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vlp_lib.batches.sample import Batch
from vlp_lib.errors import UserError
from vlp_lib.losses.base import VisualLoss, VisualOutput
from vlp_lib.models.vision import IMAGENET_MEAN, VisionFeatures

_STREAM = 1
"""Keeps SSUL's draws apart from the other draws made from a sample's seed."""


def mean_colours(images: torch.Tensor, patch: int) -> torch.Tensor:
    """Mean RGB of each patch: [B, 3, H, W] to [B, 3, H/patch, W/patch]."""
    return F.avg_pool2d(images, patch)


def hide_patches(images: torch.Tensor, hidden: torch.Tensor, patch: int) -> torch.Tensor:
    """Images whose hidden patches [B, h, w] are painted in the mean colour of natural images (ImageNet's)."""
    mask = hidden.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None]
    fill = images.new_tensor(IMAGENET_MEAN)[:, None, None]
    return torch.where(mask, fill, images)


def colour_loss(predicted: torch.Tensor, images: torch.Tensor, hidden: torch.Tensor, patch: int) -> torch.Tensor:
    """Equation 1: squared L2 distance to the mean RGB in [0, 1], averaged over the hidden patches; 0 without any.

    Args:
        predicted: [B, 3, h, w].
        images: [B, 3, H, W] before anything was hidden.
        hidden: [B, h, w] bool.
    """
    distance = (predicted.float() - mean_colours(images, patch)).square().sum(1)
    return (distance * hidden).sum() / hidden.sum().clamp(min=1)


class SSUL(VisualLoss):
    """Hides patches of the image and predicts their mean colour from the vision stream's output."""

    def __init__(self, hidden: int, patch: int, probability: float) -> None:
        super().__init__()
        self.patch = patch
        self.probability = probability
        self.predict = nn.Conv2d(hidden, 3, kernel_size=1)

    def corrupt(self, batch: Batch) -> Batch:
        """Hide each patch with `probability`, at least one an image; the original pixels stay the loss's target."""
        height, width = batch.images.shape[-2:]
        if height % self.patch or width % self.patch:
            raise UserError(
                f"SSUL's patches of {self.patch} px do not tile images of {height}×{width} px: choose a multiple"
            )
        grid = (height // self.patch, width // self.patch)
        hidden = np.stack([self._draw(int(seed), grid) for seed in batch.seeds])
        mask = torch.from_numpy(hidden).to(batch.images.device)
        return replace(
            batch, images=hide_patches(batch.images, mask, self.patch), hidden_patches=mask, clean_images=batch.images
        )

    def _draw(self, seed: int, grid: tuple[int, int]) -> np.ndarray:
        rng = np.random.default_rng((seed, _STREAM))
        hidden = rng.random(grid) < self.probability
        if not hidden.any():
            hidden.flat[rng.integers(hidden.size)] = True
        return hidden

    def terms(self, batch: Batch, grid: tuple[int, int]) -> torch.Tensor | float:
        """The patches that `corrupt` hides."""
        patches = (batch.images.shape[-2] // self.patch, batch.images.shape[-1] // self.patch)
        return sum(int(self._draw(int(seed), patches).sum()) for seed in batch.seeds)

    def forward(self, features: VisionFeatures, tokens: VisionFeatures, batch: Batch) -> VisualOutput:
        """Equation 1 on the features of the hidden patches."""
        if batch.hidden_patches is None or batch.clean_images is None:
            raise ValueError("SSUL.forward needs a batch that went through SSUL.corrupt")
        colours = self.predict(features.map())
        if colours.shape[-2:] != batch.hidden_patches.shape[-2:]:
            colours = F.interpolate(colours, batch.hidden_patches.shape[-2:], mode="bilinear", align_corners=False)
        loss = colour_loss(colours, batch.clean_images, batch.hidden_patches, self.patch)
        return VisualOutput(loss, {"ssul_colours": colours.detach(), "ssul_hidden": batch.hidden_patches})
