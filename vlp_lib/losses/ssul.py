"""SSUL, the self-supervised loss (section III-B, equation 1): the mean colour of masked patches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vlp_lib.batches.sample import Batch
from vlp_lib.errors import UserError
from vlp_lib.losses.base import Context, VisualLoss, VisualOutput, visual_loss
from vlp_lib.losses.precision import at_least_float32
from vlp_lib.models.vision import VisionFeatures
from vlp_lib.models.weights import IMAGENET_MEAN
from vlp_lib.ranges import Share, Whole

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
    distance = (at_least_float32(predicted) - mean_colours(images, patch)).square().sum(1)
    return (distance * hidden).sum() / hidden.sum().clamp(min=1)


@visual_loss("ssul")
class SSUL(VisualLoss):
    """Hides patches of the image and predicts their mean colour from the vision stream's output.

    Args:
        patch: side of the patches in pixels; 0 takes the side of a cell of the feature map (section IV-A4: 32).
        probability: share of the patches that is hidden.
    """

    def __init__(self, context: Context, *, patch: Whole = 0, probability: Share = 0.15) -> None:
        super().__init__(context)
        self.patch = patch or context.patch
        self.probability = probability
        self.predict = nn.Conv2d(context.hidden, 3, kernel_size=1)

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
        kept = {"ssul_hidden": mask, "ssul_images": batch.images}
        return replace(batch, images=hide_patches(batch.images, mask, self.patch), extras={**batch.extras, **kept})

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
        hidden, images = batch.extras["ssul_hidden"], batch.extras["ssul_images"]  # what `corrupt` kept
        colours = self.predict(features.map())
        if colours.shape[-2:] != hidden.shape[-2:]:
            colours = F.interpolate(colours, hidden.shape[-2:], mode="bilinear", align_corners=False)
        loss = colour_loss(colours, images, hidden, self.patch)
        return VisualOutput(loss, drawings={"colours": colours.detach(), "hidden": hidden})
