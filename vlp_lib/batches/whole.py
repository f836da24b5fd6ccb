"""Whole images and sentences for an evaluation: no crop, no flip, no masked word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image

from vlp_lib.batches.augment import View, show_detections, show_image
from vlp_lib.batches.collate import detection_fields, pad
from vlp_lib.batches.sample import Pictures
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.records import NO_DETECTIONS, ImageRecord


def square_images(images: Iterable[Image.Image], image_size: int) -> torch.Tensor:
    """RGB images as they are, resized to squares: [B, 3, S, S] float32 in [0, 1]."""
    shown = np.stack([show_image(image, View(), image_size) for image in images])
    return torch.from_numpy(shown.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def whole_pictures(
    corpus: Corpus, records: Sequence[ImageRecord], image_size: int, regions: int = 0, threshold: float = 0.0
) -> Pictures:
    """Images as they are, neither cropped nor flipped.

    Args:
        records: the images; decoded and resized to a square of `image_size` pixels.
        regions: detector regions to read of each image (0: none), those scored below `threshold` left out.
    """
    found = [corpus.read_detections(record, regions, threshold) for record in records] if regions else []
    shown = [NO_DETECTIONS if one is None else show_detections(one, View()) for one in found]
    return Pictures(
        images=square_images((corpus.read_image(record) for record in records), image_size),
        **(detection_fields(shown) if shown else {}),
    )


def pad_texts(ids: Sequence[np.ndarray | torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of some sentences, [B, L] int64 padded with 0, and their mask, [B, L] bool."""
    length = max(len(row) for row in ids)
    rows = [torch.as_tensor(row) for row in ids]
    return pad(rows, 0, length), pad([torch.ones_like(row) for row in rows], 0, length).bool()
