"""The precision that losses are computed in."""

from __future__ import annotations

import torch


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Half precisions as float32, wider ones as they are: float64 stays float64, so that gradients can be checked."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
