"""SSUL with a head of two layers instead of one.

A plug-in for the study `beyond.toml`: a deeper head may guess colours from features that say them less plainly.
"""

from torch import nn

from vlp_lib.losses.base import Context, visual_loss
from vlp_lib.losses.ssul import SSUL


@visual_loss("ssul_deep")
class SSULDeep(SSUL):
    """SSUL whose colours are read off a hidden layer as wide as the features."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.predict = nn.Sequential(nn.Conv2d(context.hidden, context.hidden, 1), nn.GELU(), self.predict)
