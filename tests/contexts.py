"""What visual losses are made for, small."""

from typing import Any

from vlp_lib.losses import Context
from vlp_lib.models.vocabularies import Vocabularies

SIZES = Vocabularies(words=40, segmentation=6, detector=10, attributes=4)


def context(**changes: Any) -> Context:
    """Features of 8 channels on a grid of 4 × 4 cells of 8 px."""
    return Context(**{
        "hidden": 8, "heads": 2, "dropout": 0.0, "grid": (4, 4), "patch": 8, "convolutional": False,
        "vocabularies": SIZES, **changes,
    })  # fmt: skip
