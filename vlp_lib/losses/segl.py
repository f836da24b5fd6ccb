"""SEGL, the semantic segmentation loss at feature resolution (section III-C, equation 2)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import nn

from vlp_lib.batches.sample import Batch
from vlp_lib.corpora.records import IGNORED
from vlp_lib.errors import UserError
from vlp_lib.losses.base import Context, Needs, VisualLoss, VisualOutput, visual_loss
from vlp_lib.losses.precision import at_least_float32
from vlp_lib.models.vision import VisionFeatures
from vlp_lib.ranges import Range


def downsample_labels(
    labels: torch.Tensor, grid: tuple[int, int], classes: int, how: Literal["nearest", "majority"] = "nearest"
) -> torch.Tensor:
    """Label maps [B, H, W] at the resolution of the feature map, [B, h, w]; the `downsample` of equation 2.

    "nearest" takes the pixel at the cell's centre; "majority" the cell's most frequent class among its pixels that
    have one (the lower class on a tie), 255 where none has. Labels are never averaged.
    """
    if how == "nearest":
        return F.interpolate(labels[:, None].float(), grid, mode="nearest-exact")[:, 0].long()
    valid = labels != IGNORED
    one_hot = F.one_hot(torch.where(valid, labels, classes).long(), classes + 1)[..., :classes]
    share = F.adaptive_avg_pool2d(one_hot.permute(0, 3, 1, 2).float(), grid)
    most, label = share.max(1)
    return torch.where(most > 0, label, IGNORED)


@visual_loss("segl")
class SEGL(VisualLoss):
    """One 1×1 convolution to the classes and a cross-entropy against the down-sampled label map.

    The convolution has one output more than the corpus has classes, "unlabeled", which is never a target because pixels
    without a class are ignored (COCO-Stuff: 171 + 1 = 172).

    Args:
        resnet_scale: a ResNet's feature map is enlarged by this factor first (section IV-A4: 12×12 to 24×24).
        downsampling: "nearest" (ours) or "majority" of the cell.
    """

    needs = Needs(label_maps=True)

    def __init__(
        self,
        context: Context,
        *,
        resnet_scale: Annotated[int, Range(1, 16)] = 2,
        downsampling: Literal["nearest", "majority"] = "nearest",
    ) -> None:
        super().__init__(context)
        self.classes = context.vocabularies.segmentation
        self.scale = resnet_scale if context.convolutional else 1
        self.downsampling = downsampling
        self.classify = nn.Conv2d(context.hidden, self.classes + 1, kernel_size=1)

    def terms(self, batch: Batch, grid: tuple[int, int]) -> torch.Tensor | float:
        """The cells that have a class."""
        if batch.label_maps is None:
            return 0
        cells = (grid[0] * self.scale, grid[1] * self.scale)
        if self.downsampling == "nearest":
            return (downsample_labels(batch.label_maps, cells, self.classes) != IGNORED).sum()
        # A cell has a class where any of its pixels has; the classes themselves need not be counted for that.
        return F.adaptive_max_pool2d((batch.label_maps != IGNORED).float(), cells).sum()

    def forward(self, features: VisionFeatures, tokens: VisionFeatures, batch: Batch) -> VisualOutput:
        """Equation 2, averaged over the cells that have a class; 0 where no image of the batch has a map."""
        if batch.label_maps is None:
            raise UserError("SEGL needs label maps and this corpus has none: add stuffthingmaps/ or choose SSUL or SPL")
        grid = features.map()
        if self.scale != 1:
            grid = F.interpolate(grid, scale_factor=self.scale, mode="bilinear", align_corners=False)
        logits = at_least_float32(self.classify(grid))
        target = downsample_labels(
            batch.label_maps, (logits.shape[-2], logits.shape[-1]), self.classes, self.downsampling
        )
        counted = (target != IGNORED).sum().clamp(min=1)
        loss = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum") / counted
        return VisualOutput(loss, drawings={"predicted": logits.argmax(1).detach(), "target": target})
