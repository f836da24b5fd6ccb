"""SPL, the set prediction loss distilled from a detector (section III-D, equations 3 and 4)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import nn

from vlp_lib.batches.sample import Batch
from vlp_lib.errors import UserError
from vlp_lib.losses.base import Context, Needs, VisualLoss, VisualOutput, visual_loss
from vlp_lib.losses.precision import at_least_float32
from vlp_lib.models.attention import AttentionBlock, FeedForwardBlock
from vlp_lib.models.vision import VisionFeatures
from vlp_lib.ranges import Positive


def match_labels(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Equation 3: give each label its own query so that the summed −p(label) is least (Hungarian algorithm).

    Args:
        logits: [B, Q, classes + 1].
        labels: [B, T] class of each detection, −1 padding (after the detections); at most Q an image.

    Returns:
        [B, Q] int64, the class each query is to predict; "no object" (the last class) for the unmatched ones.
    """
    no_object = logits.shape[-1] - 1
    queries = logits.shape[1]
    counts = (labels >= 0).sum(1).tolist()
    if max(counts, default=0) > queries:
        raise UserError(
            f"{max(counts)} labels cannot be matched to {queries} queries: keep at most {queries} detections"
        )
    probability = at_least_float32(logits.detach()).softmax(-1)
    # Only the labels' own columns travel to the CPU, once for the whole batch.
    cost = -probability.gather(2, labels.clamp(min=0)[:, None, :].expand(-1, queries, -1)).cpu().numpy()
    if not np.isfinite(cost).all():
        raise UserError("the set prediction (SPL) gives values that are not finite: lower training.learning_rate")
    targets = torch.full(logits.shape[:2], no_object, dtype=torch.long)
    host_labels = labels.cpu()
    for i, count in enumerate(counts):
        rows, columns = linear_sum_assignment(cost[i, :, :count])
        targets[i, rows] = host_labels[i, columns]
    return targets.to(logits.device)


def set_loss(logits: torch.Tensor, targets: torch.Tensor, no_object_weight: float) -> torch.Tensor:
    """Equation 4: cross-entropy of the matched labels; "no object" counts with its weight in sum and mean alike."""
    logits = at_least_float32(logits)
    weight = logits.new_ones(logits.shape[-1])
    weight[-1] = no_object_weight
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), weight)


@visual_loss("spl_small", queries_per_cell=36 / 144)
@visual_loss("spl_large", queries_per_cell=100 / 144)
class SPL(VisualLoss):
    """One transformer decoder layer over the grid: N learned queries become N predicted objects (figure 4 D).

    The decoder's outputs replace the grid as the visual tokens of the cross-modality encoder, at inference too; the
    classifier serves the loss only.

    Args:
        queries_per_cell: number of queries as a share of the grid's cells (section IV-A4: 36 and 100 at 144 cells).
        no_object_weight: weight of the "no object" class in the cross-entropy.
    """

    def __init__(
        self, context: Context, *, queries_per_cell: Positive = 36 / 144, no_object_weight: Positive = 0.1
    ) -> None:
        super().__init__(context)
        hidden, heads, dropout = context.hidden, context.heads, context.dropout
        queries = max(1, round(queries_per_cell * context.grid[0] * context.grid[1]))
        self.needs = Needs(detections=queries)
        self.queries = nn.Parameter(torch.randn(queries, hidden) * 0.02)
        self.self_attention = AttentionBlock(hidden, heads, dropout)
        self.cross_attention = AttentionBlock(hidden, heads, dropout)
        self.feed_forward = FeedForwardBlock(hidden, dropout)
        self.classify = nn.Linear(hidden, context.vocabularies.detector + 1)
        self.no_object_weight = no_object_weight

    def tokens(self, features: VisionFeatures) -> VisionFeatures:
        """N decoded queries [B, N, C] instead of the grid."""
        x = self.queries.expand(len(features.tokens), -1, -1)
        x, _ = self.self_attention(x, x)
        x, _ = self.cross_attention(x, features.tokens, features.mask)
        return VisionFeatures(self.feed_forward(x), None)

    def token_attention(self, features: VisionFeatures) -> torch.Tensor:
        """The attention of each query to the grid, [B, N, cells], the mean over heads."""
        x = self.queries.expand(len(features.tokens), -1, -1)
        x, _ = self.self_attention(x, x)
        _, weights = self.cross_attention(x, features.tokens, features.mask, need_weights=True)
        return weights.mean(1)

    def terms(self, batch: Batch, grid: tuple[int, int]) -> torch.Tensor | float:
        """The weights of all queries: 1 for each matched label and `no_object_weight` for the rest."""
        if batch.labels is None:
            return 0
        queries = len(self.queries)
        matched = (batch.labels[:, :queries] >= 0).sum()
        return matched + self.no_object_weight * (len(batch) * queries - matched)

    def forward(self, features: VisionFeatures, tokens: VisionFeatures, batch: Batch) -> VisualOutput:
        """Equations 3 and 4; of an image with more labels than queries the best-scored ones are used."""
        if batch.labels is None:
            raise UserError(
                "SPL needs detector labels and this corpus has none: run `vlp data labels` or add a Bottom-Up .tsv"
            )
        logits = self.classify(tokens.tokens)
        targets = match_labels(logits, batch.labels[:, : logits.shape[1]])
        loss = set_loss(logits, targets, self.no_object_weight)
        return VisualOutput(loss, drawings={"predicted": logits.argmax(-1).detach(), "target": targets})
