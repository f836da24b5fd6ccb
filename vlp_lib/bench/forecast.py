"""From samples a second to the hours of a pretraining, beside the paper's."""

from __future__ import annotations

from vlp_lib import paper
from vlp_lib.config import Profile

PAPER_PAIRS = 5_000_000
"""Image–sentence pairs of the paper's pretraining (section IV-A2)."""

TARGET_HOURS = 12.0
"""What a whole pretraining may take on one H200."""

TARGET_RATE = 1_750.0
"""Samples a second on one H200; 15 epochs of 5 million pairs then take 11.9 hours."""


def samples(profile: Profile, pairs: int) -> int:
    """Images with their own sentences (and, as `data.pairing` says, another's) that a whole pretraining computes."""
    training = profile.training
    return training.steps * training.batch_size if training.steps else round(training.epochs * pairs)


def hours(count: int, per_second: float) -> float:
    """Hours of one GPU for so many samples."""
    return count / per_second / 3600


def paper_hours() -> float:
    """V100-hours of the paper's pretraining with SEGL (Table IV)."""
    found = paper.value("IV", "segl", "pretrain_gpu_hours")
    if not isinstance(found, float):
        raise TypeError("the paper's hours are no number")
    return found
