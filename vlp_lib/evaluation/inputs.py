"""Whole images and sentences for an evaluation: no crop, no flip, no masked word; and the model that a run left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vlp_lib.config import Profile, Variant
from vlp_lib.data.augment import View, show_detections, show_image
from vlp_lib.data.collate import detection_fields, pad
from vlp_lib.data.corpus import Corpus
from vlp_lib.data.sample import NO_DETECTIONS, ImageRecord, Pictures
from vlp_lib.data.tokenizer import Tokenizer, load_tokenizer
from vlp_lib.errors import UserError
from vlp_lib.models.vlp import PretrainingModel, VLPModel
from vlp_lib.trainers.checkpoint import load_weights
from vlp_lib.trainers.loop import WEIGHTS
from vlp_lib.trainers.pretrain import TOKENIZER, vocabularies


def device_at_hand() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def regions_of(profile: Profile, variant: Variant) -> int:
    """Detector regions that a variant's vision stream reads: none but for the region model."""
    return profile.model.region.max_regions if variant.vision == "region" else 0


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
    nowhere = View()
    found = [corpus.read_detections(record, regions, threshold) for record in records] if regions else []
    shown = [NO_DETECTIONS if one is None else show_detections(one, nowhere) for one in found]
    return Pictures(
        images=square_images((corpus.read_image(record) for record in records), image_size),
        **(detection_fields(shown) if shown else {}),
    )


def pad_texts(ids: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of some sentences, [B, L] int64 padded with 0, and their mask, [B, L] bool."""
    length = max(len(row) for row in ids)
    rows = [torch.from_numpy(row) for row in ids]
    return pad(rows, 0, length), pad([torch.ones_like(row) for row in rows], 0, length).bool()


def restore_pretrained(
    profile: Profile, variant: Variant, corpus: Corpus, folder: Path
) -> tuple[PretrainingModel, Tokenizer]:
    """The pretrained model of a run folder, on the CPU and in evaluation mode, and its own tokenizer.

    Raises UserError where the run is not there or is of another profile, variant or corpus.
    """
    if not (folder / TOKENIZER).is_file():
        raise UserError(f"no pretrained model in {folder}: run `vlp pretrain --variant {variant.name}` first")
    tokenizer = load_tokenizer(str(folder / TOKENIZER), profile.model.max_text_length)
    model = PretrainingModel(VLPModel(profile.model, variant, vocabularies(corpus, tokenizer), pretrained=False))
    load_weights(folder / WEIGHTS, model)
    return model.eval(), tokenizer
