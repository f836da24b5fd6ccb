"""Whole images and sentences for an evaluation: no crop, no flip, no masked word; and the model that a run left."""

from __future__ import annotations

from pathlib import Path

import torch

from vlp_lib.batches.tokenizer import Tokenizer, load_tokenizer
from vlp_lib.config import Profile, Variant
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.errors import UserError
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.trainers.checkpoint import load_weights
from vlp_lib.trainers.loop import WEIGHTS
from vlp_lib.trainers.pretrain import TOKENIZER, vocabularies


def device_at_hand() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def regions_of(profile: Profile, variant: Variant) -> int:
    """Detector regions that a variant's vision stream reads: none but for the region model."""
    return profile.model.region.max_regions if variant.vision == "region" else 0


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
