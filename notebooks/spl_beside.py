"""SPL as a teacher only: its queries predict the detector's labels, and the words read the grid itself.

A plug-in for the study `beyond.toml`: is SPL slow because the words read its queries instead of the grid?
"""

from vlp_lib.batches.sample import Batch
from vlp_lib.losses.base import VisualLoss, VisualOutput, visual_loss
from vlp_lib.losses.spl import SPL
from vlp_lib.models.vision import VisionFeatures


@visual_loss("spl_beside", queries_per_cell=100 / 144)
class SPLBeside(SPL):
    """SPL whose decoder leaves the cross-modality encoder's input alone."""

    tokens = VisualLoss.tokens
    token_attention = VisualLoss.token_attention

    def forward(self, features: VisionFeatures, tokens: VisionFeatures, batch: Batch) -> VisualOutput:
        """Equations 3 and 4 of what the decoder makes of the grid."""
        return super().forward(features, super().tokens(features), batch)
