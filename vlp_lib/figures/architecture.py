"""The table of an architecture's size: a row a variant."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from vlp_lib.bench.architecture import Architecture
from vlp_lib.bench.latency import SIZES


def architecture_table(sizes: Sequence[Architecture]) -> pd.DataFrame:
    """Parameters by part, their total, those used at inference, and visual tokens by image size."""
    return pd.DataFrame(
        [
            {
                "variant": one.variant,
                **one.parameters,
                "total": one.total,
                "at_inference": one.at_inference,
                **{f"tokens_{size}": count for size, count in one.tokens.items()},
            }
            for one in sizes
        ]
    )


def architecture_note(profile: str) -> str:
    """What the numbers are of."""
    return (
        f"Parameters of profile {profile} in pretraining, with {SIZES.words:,} words, {SIZES.segmentation} + 1 "
        f"segmentation classes and {SIZES.detector:,} detector classes; at_inference without a task's head; tokens_S: "
        f"visual tokens of an image of S px."
    )
