"""Models and batches of any size with made-up contents.

Neither memory nor the number of operations depends on the values of weights and pixels, and time only where they are
subnormal (`fill`), so nothing is downloaded or decoded.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from vlp_lib.batches.sample import NO_MATCHED_TOKEN, Batch
from vlp_lib.config import ModelConfig, Profile
from vlp_lib.models.model import VLPModel
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.variants import Variant

SIZES = Vocabularies(words=30_522, segmentation=171, detector=1_600, attributes=400)
"""BERT's words, COCO-Stuff's classes, Bottom-Up's classes and attributes."""

WORDS = 14
"""Words of a question; with [CLS] and [SEP] it has 16 tokens."""

_DETECTIONS = 100
"""Labels of an image, as many as the paper's Bottom-Up features have; a loss reads as many as it wants."""

_Part = TypeVar("_Part", bound=nn.Module)


def shape_of(config: ModelConfig, variant: Variant, sizes: Vocabularies = SIZES) -> VLPModel:
    """A model that has shapes but no values, in evaluation mode; nothing is computed for it and nothing fetched."""
    with torch.device("meta"):
        return VLPModel(config, variant, sizes, pretrained=False).eval()


def fill(part: _Part, device: torch.device) -> _Part:
    """Give a module of shapes random weights that keep the size of what flows through; all statistics are 1.

    Where it shrinks layer by layer it ends in subnormal numbers, with which a CPU computes twenty times as long.
    """
    part = part.to_empty(device=device)
    with torch.no_grad():
        for weight in part.parameters():
            weight.normal_(std=(weight[:1].numel() if weight.ndim else 1) ** -0.5)
        for buffer in part.buffers():
            buffer.fill_(1)
    return part


def question(config: ModelConfig, sizes: Vocabularies, device: torch.device) -> Batch:
    """A random image of the configuration's size, with its regions, and a question of 14 words of one piece each."""
    ids = torch.randint(1, sizes.words, (1, WORDS + 2))
    one = torch.zeros(1, dtype=torch.long)
    images = torch.rand(1, 3, config.image_size, config.image_size)
    detections = _detections(config, sizes, 1, config.region.max_regions)
    return Batch(images, ids, ids, torch.ones_like(ids).bool(), ids, one, one, one, **detections).to(device)


def training_batch(profile: Profile, variant: Variant, sizes: Vocabularies, images: int, device: torch.device) -> Batch:
    """A batch of so many images with their sentences, each as long as the profile allows, and targets of every kind.

    Where pairs are mismatched, too, a sentence stands in two pairs, as in a whole training batch.
    """
    model, data = profile.model, profile.data
    texts = images * (2 if data.pairing == "both" else 1)
    shape = (texts, model.max_text_length)
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(texts) % images
    ids = torch.randint(1, sizes.words, shape, generator=generator)[rows]
    hidden = torch.rand(shape, generator=generator) < data.mlm_probability
    hidden[:, 1] = True
    matched = (torch.arange(texts) < images).long()
    if not data.mlm_on_mismatched:
        hidden &= matched.bool()[:, None]
    pixels = (images, model.image_size, model.image_size)
    detections = _detections(model, sizes, images, max(_DETECTIONS, model.region.max_regions))
    if variant.vision != "region":
        detections.pop("features", None)
    return Batch(
        images=torch.rand((images, 3, model.image_size, model.image_size), generator=generator),
        input_ids=ids,
        clean_ids=ids,
        attention_mask=torch.ones(shape, dtype=torch.bool),
        mlm_labels=torch.where(hidden, ids, NO_MATCHED_TOKEN),
        matched=matched,
        image_of_text=rows if texts > images else None,
        sentences=rows[:images] if texts > images else None,
        sentence_of_text=rows if texts > images else None,
        seeds=torch.randint(2**62, (images,), generator=generator),
        image_ids=torch.arange(images),
        label_maps=torch.randint(sizes.segmentation, pixels, generator=generator),
        **detections,
    ).to(device)


def _detections(config: ModelConfig, sizes: Vocabularies, images: int, count: int) -> dict[str, Any]:
    shape = (images, count)
    detections = {
        "labels": torch.randint(sizes.detector, shape),
        "attributes": torch.randint(sizes.attributes, shape),
        "scores": torch.rand(shape),
        "boxes": torch.rand(*shape, 2, 2).sort(dim=2).values.flatten(2),
    }
    if config.region.feature_size:
        detections["features"] = torch.rand(*shape, config.region.feature_size)
    return detections
