"""Object detectors to time region-feature models with, from torchvision's parts; random weights, for time only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import MultiScaleRoIAlign, nms
from torchvision.ops.misc import FrozenBatchNorm2d

ASPECT = 1000 / 600
"""Bottom-Up resizes to a short side of 600 px and a long side of at most 1000 px."""


@dataclass(frozen=True)
class DetectorConfig:
    """Bottom-Up's detector (Anderson et al., arXiv 1707.07998, and the settings of its code)."""

    layers: tuple[int, int, int, int] = (3, 4, 23, 3)  # blocks of the ResNet's stages ((3, 4, 23, 3) is ResNet-101)
    classes: int = 1600  # object classes, background not counted
    proposals: int = 300  # regions that reach the box head at inference
    regions: int = 36  # boxes whose features are handed on


class DetectedRegions(NamedTuple):
    """What a detector hands on: features [1, R, D], boxes [1, R, 4] as fractions, labels and scores [1, R]."""

    features: torch.Tensor
    boxes: torch.Tensor
    labels: torch.Tensor
    scores: torch.Tensor


class Proposals(NamedTuple):
    """All proposals of one image: features [P, D], boxes [P, 4] in pixels, class scores [P, C], (height, width)."""

    features: torch.Tensor
    boxes: torch.Tensor
    scores: torch.Tensor
    size: tuple[int, int]


class RegionDetector(nn.Module):
    """A torchvision Faster R-CNN read for its region features, in two stages that are timed.

    With `per_class` it suppresses within each class and keeps each box's best surviving class, as Bottom-Up's extractor
    does; without, once, whatever the class.
    """

    def __init__(self, network: FasterRCNN, regions: int, per_class: bool) -> None:
        super().__init__()
        self.network, self.regions, self.per_class = network, regions, per_class
        # Let each residual block add little, as trained ones do. Otherwise a deep network of random weights grows its
        # activations until the proposed boxes leave the image, and fewer boxes than a trained detector's were timed.
        for block in network.modules():
            if isinstance(block, Bottleneck):
                block.bn3.weight.data.fill_(0.2)

    def propose(self, images: torch.Tensor) -> Proposals:
        """One image [1, 3, H, W] in [0, 1] to all proposals, background left out of the scores."""
        net = self.network
        shown: ImageList
        shown, _ = net.transform([images[0]], None)
        maps = net.backbone(shown.tensors)
        named = {"0": maps} if isinstance(maps, torch.Tensor) else maps
        boxes, _ = net.rpn(shown, named, None)
        heads = net.roi_heads
        features = heads.box_head(heads.box_roi_pool(named, boxes, shown.image_sizes))
        logits, _ = heads.box_predictor(features)
        return Proposals(features, boxes[0], logits.softmax(-1)[:, 1:], shown.image_sizes[0])

    def select(self, found: Proposals) -> DetectedRegions:
        """The best `regions` boxes."""
        if self.per_class:
            best = torch.zeros_like(found.scores)
            for index in range(found.scores.shape[1]):
                kept = nms(found.boxes, found.scores[:, index], 0.3)
                best[kept, index] = found.scores[kept, index]
            scores, labels = best.max(1)
        else:
            scores, labels = found.scores.max(1)
            kept = nms(found.boxes, scores, 0.5)
            scores = torch.zeros_like(scores).index_put((kept,), scores[kept])
        top = scores.topk(min(self.regions, len(scores))).indices
        height, width = found.size
        sides = found.boxes.new_tensor([width, height, width, height])
        return DetectedRegions(
            found.features[None, top], (found.boxes[top] / sides)[None], labels[None, top], scores[None, top]
        )


def bottom_up_like(config: DetectorConfig, image_size: int) -> RegionDetector:
    """Faster R-CNN on a ResNet C4 with 12 anchors a cell, RoIAlign to 14×14 and stage 4 as box head; no attributes.

    The image's short side becomes `image_size`. The weights are random.
    """
    resnet = ResNet(Bottleneck, list(config.layers), norm_layer=FrozenBatchNorm2d)
    *trunk, _, _ = resnet.children()  # without pooling and classifier
    backbone = nn.Sequential(*trunk[:-1])
    backbone.out_channels = 1024  # type: ignore[assignment]  # which FasterRCNN asks for
    network = FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(((64, 128, 256, 512),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=14, sampling_ratio=2),
        box_head=nn.Sequential(trunk[-1], nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        box_predictor=FastRCNNPredictor(2048, config.classes + 1),
        rpn_pre_nms_top_n_test=6000,
        rpn_post_nms_top_n_test=config.proposals,
        min_size=image_size,
        max_size=round(image_size * ASPECT),
    )
    return RegionDetector(network, config.regions, per_class=True).eval()


def stock_detector(regions: int, image_size: int) -> RegionDetector:
    """torchvision's own Faster R-CNN (ResNet-50 with a feature pyramid, 91 classes, 1,000 proposals): the mild case."""
    network = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=image_size, max_size=round(image_size * ASPECT)
    )
    return RegionDetector(network, regions, per_class=False).eval()
