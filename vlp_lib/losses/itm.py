"""Image–text matching (section III-A): does the sentence describe the image?"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlp_lib.losses.precision import at_least_float32


def itm_loss(logits: torch.Tensor, matched: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of "matched" (1) against "mismatched" (0): logits [B, 2], matched [B]. Chance is ln 2."""
    return F.cross_entropy(at_least_float32(logits), matched)


def itm_score(logits: torch.Tensor) -> torch.Tensor:
    """The log-odds of a match [B], what retrieval ranks by."""
    return logits[:, 1] - logits[:, 0]
