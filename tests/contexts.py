"""What visual losses are made for, small; and parts of a batch."""

from dataclasses import fields, replace
from typing import Any

import torch

from vlp_lib.batches.sample import Batch
from vlp_lib.losses import Context
from vlp_lib.models.vocabularies import Vocabularies

SIZES = Vocabularies(words=40, segmentation=6, detector=10, attributes=4)


def context(**changes: Any) -> Context:
    """Features of 8 channels on a grid of 4 × 4 cells of 8 px."""
    return Context(**{
        "hidden": 8, "heads": 2, "dropout": 0.0, "grid": (4, 4), "patch": 8, "convolutional": False,
        "vocabularies": SIZES, **changes,
    })  # fmt: skip


def part_of(batch: Batch, rows: slice) -> Batch:
    """The batch of some images and their texts, each text read by itself."""
    batch = replace(batch, sentences=None, sentence_of_text=None)
    image = torch.arange(len(batch)) if batch.image_of_text is None else batch.image_of_text
    kept = torch.arange(len(batch))[rows]
    texts = torch.isin(image, kept)
    by_text = ("input_ids", "clean_ids", "attention_mask", "mlm_labels", "matched")
    cut = {
        field.name: value[texts] if field.name in by_text else value[rows]
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), torch.Tensor)
    }
    if batch.image_of_text is not None:
        cut["image_of_text"] = torch.searchsorted(kept, image[texts])
    return replace(batch, **cut)
