"""The size of a profile's architecture: parameters part by part and visual tokens by image size (section IV-A1).

Nothing is computed and nothing fetched: the models have shapes but no values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from vlp_lib.batches.sample import Batch
from vlp_lib.bench.made_up import SIZES, question, shape_of
from vlp_lib.config import ModelConfig
from vlp_lib.errors import UserError
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.variants import Variant

IMAGE_SIZES = (384, 600, 800)
"""Of pretraining, of finetuning, and of the paper's best VQA result (sections IV-A3, IV-B, IV-D)."""


@dataclass(frozen=True)
class Architecture:
    """A variant's size.

    Every parameter of the pretraining model is in exactly one part; constants such as a frozen norm's statistics are
    none. The heads are the pooler, MLM (which borrows the word embedding) and ITM.
    """

    variant: str
    parameters: dict[str, int]  # by part
    at_inference: int  # parameters that an answer is computed with, without a task's head
    tokens: dict[int, int]  # visual tokens that the cross-modality encoder reads, by image size in pixels

    @property
    def total(self) -> int:
        """Parameters in pretraining."""
        return sum(self.parameters.values())


def count(*parts: nn.Module) -> int:
    """Parameters of all parts together."""
    return sum(p.numel() for part in parts for p in part.parameters())


def at_inference(model: VLPModel, batch: Batch) -> tuple[int, int]:
    """Visual tokens that the cross-modality encoder reads, and the parameters that an answer is computed with.

    Of a visual loss only what makes the tokens is used (the decoder of a set prediction), not its heads.
    """
    with torch.no_grad():
        features = model.vision(batch)
    tokens = model.visual_loss.tokens(features).tokens
    own = list(model.visual_loss.parameters())
    reached = torch.autograd.grad(tokens.sum(), own, allow_unused=True) if tokens.requires_grad else ()
    used = sum(p.numel() for p, gradient in zip(own, reached, strict=False) if gradient is not None)
    return tokens.shape[1], used + count(model.vision, model.language, model.cross_modality, model.pooler)


def describe(config: ModelConfig, variant: Variant, image_sizes: Sequence[int] = IMAGE_SIZES) -> Architecture:
    """The size of a variant with BERT's words, COCO-Stuff's classes and Bottom-Up's detector classes.

    Raises UserError for an image that is smaller than a patch.
    """
    if min(image_sizes, default=1) < 1:
        raise UserError(f"image size {min(image_sizes)} is no number of pixels: give at least a patch, e.g. 384")
    model = shape_of(config, variant)
    with torch.device("meta"):
        heads = PretrainingModel(model)
    sizes = {
        size: at_inference(model, question(replace(config, image_size=size), SIZES, torch.device("meta")))
        for size in image_sizes
    }
    parts = {
        "language": count(model.language),
        "vision": count(model.vision),
        "cross_modality": count(model.cross_modality),
        "visual_loss": count(model.visual_loss),
        "heads": count(model.pooler, heads.mlm_head, heads.itm_head),
    }
    used = next(iter(sizes.values()))[1]
    return Architecture(variant.name, parts, used, {size: tokens for size, (tokens, _) in sizes.items()})
