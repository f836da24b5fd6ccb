"""The model that a run left, and the device that an evaluation of it is computed on."""

from __future__ import annotations

import torch

from vlp_lib.batches.tokenizer import Tokenizer, load_tokenizer
from vlp_lib.config import Profile
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.errors import UserError
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.run import Run
from vlp_lib.trainers.checkpoint import load_weights
from vlp_lib.trainers.loop import WEIGHTS
from vlp_lib.trainers.pretrain import TOKENIZER, vocabularies
from vlp_lib.variants import Variant


def device_at_hand() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def regions_of(profile: Profile, variant: Variant) -> int:
    """Detector regions that a variant's vision stream reads: none but for the region model."""
    return profile.model.region.max_regions if variant.vision == "region" else 0


def restore_pretrained(run: Run, corpus: Corpus) -> tuple[PretrainingModel, Tokenizer]:
    """The pretrained model of a run, on the CPU and in evaluation mode, and its own tokenizer.

    Raises UserError where it is not there or is of another profile, variant or corpus.
    """
    folder, config = run.folder("pretrain"), run.config.model
    if not (folder / TOKENIZER).is_file():
        raise UserError(f"no finished pretrain in {folder}: run `{run.command('pretrain')}` first")
    tokenizer = load_tokenizer(str(folder / TOKENIZER), config.max_text_length)
    model = PretrainingModel(VLPModel(config, run.chosen, vocabularies(corpus, tokenizer), pretrained=False))
    load_weights(folder / WEIGHTS, model)
    return model.eval(), tokenizer
