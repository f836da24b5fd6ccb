"""The paper's losses, a file each, and what a visual loss of one's own is made of (CONTRIBUTING.md: "Add a loss")."""

from vlp_lib.losses.base import Context, Needs, VisualLoss, VisualOutput, visual_loss

__all__ = ["Context", "Needs", "VisualLoss", "VisualOutput", "visual_loss"]
