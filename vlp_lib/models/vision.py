"""The vision streams: pixels through a ViT or a ResNet (both timm's), or a detector's regions (section IV-A1)."""

from __future__ import annotations

import math
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple, Self, cast

import timm
import torch
import torch.nn.functional as F
from timm.layers import GroupNorm, resample_abs_pos_embed
from timm.models import group_parameters
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from vlp_lib.batches.sample import Batch, Pictures
from vlp_lib.config import ModelConfig
from vlp_lib.errors import UserError, unknown
from vlp_lib.models.checkpointing import checkpointed
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.models.weights import LoadReport, input_scale, load_matching, named_as, timm_state_dict, weights_of


class VisionFeatures(NamedTuple):
    """What a vision stream hands on.

    Attributes:
        tokens: [B, N, C].
        grid: (h, w) where the tokens are the cells of a feature map, row by row (N = h·w); None for a set.
        mask: [B, N] bool, True at real tokens; None where all are.
    """

    tokens: torch.Tensor
    grid: tuple[int, int] | None
    mask: torch.Tensor | None = None

    def of_texts(self, image_of_text: torch.Tensor | None) -> VisionFeatures:
        """The features that each text is joined with (see `Batch.image_of_text`)."""
        if image_of_text is None:
            return self
        mask = None if self.mask is None else self.mask[image_of_text]
        return VisionFeatures(self.tokens[image_of_text], self.grid, mask)

    def map(self) -> torch.Tensor:
        """The tokens as a feature map [B, C, h, w]; raises UserError for a set of regions."""
        if self.grid is None:
            raise UserError(
                "regions form no feature map: a visual loss on the grid needs the vision stream vit or resnet"
            )
        return self.tokens.transpose(1, 2).unflatten(2, self.grid)


class _Normalise(nn.Module):
    """RGB in [0, 1] to the backbone's own scale."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


class VisionStream(nn.Module):
    """What the streams share: which pixels of an image they read, and into which map of cells they make them.

    Attributes:
        cell: pixels a side of a cell of the feature map; 0 where there is none.
        convolutional: whether its features are a map of falling resolution.
        load_report: of the backbone's pretrained weights, where they were loaded.
    """

    cell = 0
    convolutional = False
    load_report: LoadReport | None = None

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens of an image of so many pixels; (0, 0) where they form no map."""
        return 0, 0

    def window(self, height: int, width: int) -> tuple[slice, slice]:
        """The rows and the columns of pixels that are read of an image of so many; all of them, if nothing is said."""
        return slice(0, height), slice(0, width)

    def cut(self, batch: Batch) -> Batch:
        """The batch with nothing but the pixels that are read, so that targets lie under the cells that predict them.

        Images [B, 3, H, W] and label maps [B, H, W] are cut to the window, and boxes are said as fractions of it. A
        batch that is read whole comes back as it is.
        """
        height, width = batch.images.shape[-2:]
        rows, columns = self.window(height, width)
        shown = (rows.stop - rows.start, columns.stop - columns.start)
        if shown == (height, width):
            return batch
        boxes = batch.boxes
        if boxes is not None:
            start = boxes.new_tensor([columns.start, rows.start] * 2)
            boxes = ((boxes * boxes.new_tensor([width, height] * 2) - start) / boxes.new_tensor(shown[::-1] * 2)).clamp(
                0, 1
            )
        maps = None if batch.label_maps is None else batch.label_maps[:, rows, columns]
        return replace(batch, images=batch.images[..., rows, columns], label_maps=maps, boxes=boxes)


class _WholeCells(VisionStream):
    """A stream that reads whole cells of `cell` pixels: what is left over is cropped around the centre."""

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of whole cells."""
        return height // self.cell, width // self.cell

    def window(self, height: int, width: int) -> tuple[slice, slice]:
        """The whole patches around the centre; raises UserError where there is none."""
        if min(height, width) < self.cell:
            raise UserError(f"an image of {(height, width)} px has no patch of {self.cell} px: use larger images")
        top, left = height % self.cell // 2, width % self.cell // 2
        return slice(top, height - height % self.cell + top), slice(left, width - width % self.cell + left)


def _placed(state: dict[str, torch.Tensor], backbone: nn.Module) -> dict[str, torch.Tensor]:
    """The weights with the position embedding, where there is one, at the model's size and with its prefix tokens."""
    own, theirs = getattr(backbone, "pos_embed", None), state.get("pos_embed")
    if own is None or theirs is None or theirs.ndim != 3 or own.shape[2] != theirs.shape[2]:
        return state
    tokens, kept = theirs.shape[1], own.shape[1] - math.isqrt(own.shape[1]) ** 2
    extra = tokens - math.isqrt(tokens) ** 2
    side = math.isqrt(own.shape[1])
    cells = resample_abs_pos_embed(theirs[:, extra:], [side, side], num_prefix_tokens=0)
    return state | {"pos_embed": torch.cat([theirs[:, :extra][:, :kept], cells], 1)}


class ViTStream(_WholeCells):
    """A vision transformer without class token: one token a patch, with a learnable position embedding.

    An image whose side is no multiple of the patch is cropped around its centre to the largest multiple (600 px and
    32 px: 576, 18×18 tokens). At other sizes than `image_size` the position embedding is resampled.
    """

    def __init__(self, config: ModelConfig, pretrained: bool = True) -> None:
        super().__init__()
        vit = config.vit
        self.cell = vit.patch
        self.normalise = _Normalise(*input_scale(vit, "vit"))
        self.backbone = VisionTransformer(
            img_size=config.image_size,
            patch_size=vit.patch,
            depth=vit.layers,
            embed_dim=vit.width,
            num_heads=vit.heads,
            num_classes=0,
            class_token=False,
            global_pool="",
            dynamic_img_size=True,
        )
        self.project = nn.Identity() if vit.width == config.hidden else nn.Linear(vit.width, config.hidden)
        if pretrained and vit.pretrained:
            state = timm_state_dict(vit.pretrained)
            self.load_report = load_matching(self.backbone, _placed(state, self.backbone), vit.pretrained)

    def forward(self, batch: Pictures) -> VisionFeatures:
        """Images [B, 3, H, W] to ⌊H/patch⌋·⌊W/patch⌋ tokens."""
        height, width = batch.images.shape[-2:]
        rows, columns = self.window(height, width)
        tokens = self.backbone.forward_features(self.normalise(batch.images[..., rows, columns]))
        return VisionFeatures(self.project(tokens), self.grid(height, width))


def _frozen_norm(
    channels: int, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> FrozenBatchNorm2d:
    """torchvision's frozen norm, which does not take the device and type that timm hands to its norms."""
    return FrozenBatchNorm2d(channels).to(device=device, dtype=dtype)


class _MapStream(VisionStream):
    """A stream whose backbone gives a feature map: projected, normalised, with a learnable position a cell."""

    def _read_map(self, channels: int, cells: int, hidden: int) -> None:
        """Make the layers that `tokens` uses."""
        self.project = nn.Linear(channels, hidden)
        self.norm = nn.LayerNorm(hidden, eps=1e-12)
        self.position = nn.Parameter(torch.randn(1, cells, hidden) * 0.02)

    def tokens(self, x: torch.Tensor) -> VisionFeatures:
        """A feature map [B, channels, h, w] to h·w tokens."""
        grid = (x.shape[-2], x.shape[-1])
        position = resample_abs_pos_embed(self.position, list(grid), num_prefix_tokens=0)
        return VisionFeatures(self.norm(self.project(x.flatten(2).transpose(1, 2))) + position, grid)


class ResNetStream(_MapStream):
    """A ResNet's last feature map, projected and combined with a learnable position embedding."""

    convolutional = True

    def __init__(self, config: ModelConfig, pretrained: bool = True) -> None:
        super().__init__()
        resnet = config.resnet
        self.normalise = _Normalise(*input_scale(resnet, "resnet"))
        self.backbone = ResNet(
            # timm annotates an instance where it takes the class
            block=cast(Any, Bottleneck if resnet.block == "bottleneck" else BasicBlock),
            layers=resnet.layers,
            channels=resnet.channels,
            output_stride=resnet.output_stride,
            num_classes=0,
            global_pool="",
            norm_layer=_frozen_norm if resnet.norm == "frozen" else partial(GroupNorm, num_groups=8),
            zero_init_last=False,
        )
        self.stages = len(resnet.layers)
        self.checkpointing = False
        self.cell = min(resnet.output_stride, 2 ** (self.stages + 1))
        cells = math.prod(self.grid(config.image_size, config.image_size))
        self._read_map(self.backbone.num_features, cells, config.hidden)
        if pretrained and resnet.pretrained:
            self.load_report = load_matching(self.backbone, timm_state_dict(resnet.pretrained), resnet.pretrained)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of cells, one for what is left over at the edges, too."""
        return math.ceil(height / self.cell), math.ceil(width / self.cell)

    def forward(self, batch: Pictures) -> VisionFeatures:
        """Images [B, 3, H, W] to one token a cell of the feature map (600 px at stride 32: 19×19)."""
        net = self.backbone
        x = net.maxpool(net.act1(net.bn1(net.conv1(self.normalise(batch.images)))))
        for stage in range(1, self.stages + 1):
            x = checkpointed(getattr(net, f"layer{stage}"), self.checkpointing and self.training, x)
        return self.tokens(x)


class TimmStream(_WholeCells, _MapStream):
    """Any backbone of timm, read where its last stage ends; of a transformer the patches' tokens, as a map.

    Layers after that, such as a widening convolution or a classifier, are left out.
    """

    def __init__(self, config: ModelConfig, name: str, pretrained: bool = True) -> None:
        super().__init__()
        chosen, vision = config.timm, f"timm:{name}"
        self.normalise = _Normalise(*input_scale(chosen, vision))
        self.backbone = _timm_backbone(name, config.image_size)
        names = self.backbone.state_dict()  # before the layers are left out: weights are named as the whole is
        self.backbone.prune_intermediate_layers(1, prune_head=True)
        self.cell, channels = (int(self.backbone.feature_info[-1][key]) for key in ("reduction", "num_chs"))
        self.convolutional = not hasattr(self.backbone, "pos_embed")
        self._read_map(channels, math.prod(self.grid(config.image_size, config.image_size)), config.hidden)
        if source := weights_of(chosen, vision):
            if pretrained:
                state = _placed(named_as(names, timm_state_dict(source)), self.backbone)
                self.load_report = load_matching(self.backbone, state, source)
            _freeze(self.backbone, chosen.frozen_stages, name)

    def forward(self, batch: Pictures) -> VisionFeatures:
        """Images [B, 3, H, W] to one token a whole cell."""
        rows, columns = self.window(*batch.images.shape[-2:])
        images = self.normalise(batch.images[..., rows, columns])
        maps = self.backbone.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
        return self.tokens(maps[-1])

    def train(self, mode: bool = True) -> Self:
        """As of any module; frozen batch norms go on using the statistics of their weights."""
        super().train(mode)
        for part in self.backbone.modules():
            if isinstance(part, nn.BatchNorm2d) and not part.weight.requires_grad:
                part.eval()
        return self


def _timm_backbone(name: str, image_size: int) -> Any:
    """A whole model of timm with random weights, for images of a size where it must know that.

    Raises UserError for an unknown name, and a model that gives no feature maps.
    """
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3, cutoff=0)
        raise unknown("backbone of timm", name, [*near, "what timm.list_models() says"])
    try:
        backbone = timm.create_model(name, img_size=image_size, dynamic_img_size=True)
    except TypeError:  # a convolutional one is of no size
        backbone = timm.create_model(name)
    if not hasattr(backbone, "forward_intermediates"):
        raise UserError(f"timm's {name} gives no feature maps: choose another backbone, such as timm:resnet18")
    return backbone


def _freeze(backbone: Any, stages: int, name: str) -> None:
    """Keep the values of the first layer groups (`TimmConfig.frozen_stages`) and of all batch norms."""
    groups = group_parameters(backbone, backbone.group_matcher(coarse=True))
    if not 0 <= stages < len(groups):
        raise UserError(f"model.timm.frozen_stages is {stages}: {name} has {len(groups)} stages, and one must learn")
    parameters = dict(backbone.named_parameters())
    for group in sorted(groups)[:stages]:
        for parameter in groups[group]:
            parameters[parameter].requires_grad_(False)
    # Not timm's `freeze_batch_norm_2d`: its norms multiply and add in float32, three times the time of bf16's.
    for part in backbone.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.requires_grad_(False)


class RegionStream(VisionStream):
    """A detector's regions as tokens: embedded class and attribute, box, and continuous features where there are any.

    The class embedding is scaled by the detector's confidence, as a soft label would be. An image without detections
    keeps one empty token, so that attention has something to read.
    """

    def __init__(self, config: ModelConfig, classes: int, attributes: int) -> None:
        super().__init__()
        self.config = config.region
        self.class_embedding = nn.Embedding(classes, config.hidden)
        self.attribute_embedding = nn.Embedding(attributes + 1, config.hidden)
        self.box = nn.Linear(5, config.hidden)
        self.feature = nn.Linear(config.region.feature_size, config.hidden) if config.region.feature_size else None
        self.norm = nn.LayerNorm(config.hidden, eps=1e-12)

    def forward(self, batch: Pictures) -> VisionFeatures:
        """Detections of [B, T] regions to [B, R, C], R = min(T, max_regions), best score first."""
        if batch.labels is None or batch.scores is None or batch.boxes is None or batch.attributes is None:
            raise UserError(
                "the region model reads detector labels and this corpus has none: run `vlp data labels` or add a .tsv"
            )
        r = self.config.max_regions
        labels, scores, boxes = batch.labels[:, :r], batch.scores[:, :r], batch.boxes[:, :r]
        mask = labels >= 0
        area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
        x = self.class_embedding(labels.clamp(min=0)) * (scores * mask)[..., None]
        # The empty token is a thing without an attribute: were it all zeros, the normalisation would multiply its
        # gradient by a million.
        first = torch.zeros_like(mask)
        first[:, 0] = ~mask.any(1)
        x = x + self.attribute_embedding(batch.attributes[:, :r] + 1) * (mask | first)[..., None]
        x = x + self.box(torch.cat([boxes, area[..., None]], -1))
        if self.feature is not None:
            features = batch.features
            if features is None:
                if mask.any():
                    raise UserError("this region model reads region features and the detections hold labels only")
                features = x.new_zeros(*mask.shape, self.feature.in_features)
            x = x + self.feature(F.normalize(features[:, :r], dim=-1))
        return VisionFeatures(self.norm(x), None, mask | first)


PixelStream = ViTStream | ResNetStream | TimmStream
"""The streams that read pixels."""


def make_vision(config: ModelConfig, name: str, sizes: Vocabularies, pretrained: bool) -> PixelStream | RegionStream:
    """The vision stream of a variant: "vit", "resnet", "region" or "timm:NAME"."""
    if name == "region":
        return RegionStream(config, sizes.detector, sizes.attributes)
    if name.startswith("timm:"):
        return TimmStream(config, name.removeprefix("timm:"), pretrained)
    return (ViTStream if name == "vit" else ResNetStream)(config, pretrained)
