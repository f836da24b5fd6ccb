"""The size of a profile's architecture: parameters part by part and visual tokens by image size (section IV-A1).

Nothing is computed and nothing fetched: the models have shapes but no values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from vlp_lib.bench.latency import SIZES, parameters_at_inference, visual_tokens
from vlp_lib.config import ModelConfig, Variant
from vlp_lib.errors import UserError
from vlp_lib.models.model import PretrainingModel, VLPModel

IMAGE_SIZES = (384, 600, 800)
"""Of pretraining, of finetuning, and of the paper's best VQA result (sections IV-A3, IV-B, IV-D)."""


@dataclass(frozen=True)
class Architecture:
    """A variant's size.

    Attributes:
        variant: its name.
        parameters: by part; every parameter of the pretraining model is in exactly one. Constants such as a frozen
            norm's statistics are none. The heads are the pooler, MLM (which borrows the word embedding) and ITM.
        at_inference: parameters that an answer is computed with, without a task's head.
        tokens: visual tokens that the cross-modality encoder reads, by image size in pixels.
    """

    variant: str
    parameters: dict[str, int]
    at_inference: int
    tokens: dict[int, int]

    @property
    def total(self) -> int:
        """Parameters in pretraining."""
        return sum(self.parameters.values())


def _count(*parts: nn.Module) -> int:
    return sum(p.numel() for part in parts for p in part.parameters())


def parts_of(model: PretrainingModel) -> dict[str, int]:
    """Parameters of a pretraining model, part by part."""
    vlp = model.vlp
    return {
        "language": _count(vlp.language),
        "vision": _count(vlp.vision),
        "cross_modality": _count(vlp.cross_modality),
        "visual_loss": _count(vlp.visual_loss),
        "heads": _count(vlp.pooler, model.mlm_head, model.itm_head),
    }


def describe(config: ModelConfig, variant: Variant, image_sizes: Sequence[int] = IMAGE_SIZES) -> Architecture:
    """The size of a variant with BERT's words, COCO-Stuff's classes and Bottom-Up's detector classes.

    Raises UserError for an image that is smaller than a patch.
    """
    if min(image_sizes, default=1) < 1:
        raise UserError(f"image size {min(image_sizes)} is no number of pixels: give at least a patch, e.g. 384")
    with torch.device("meta"):
        model = PretrainingModel(VLPModel(config, variant, SIZES, pretrained=False))
    if variant.vision == "region":
        tokens = dict.fromkeys(image_sizes, config.region.max_regions)
    else:
        tokens = {size: visual_tokens(config, variant, size) for size in image_sizes}
    return Architecture(variant.name, parts_of(model), parameters_at_inference(model.vlp), tokens)
