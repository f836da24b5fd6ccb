"""Trained models to keep, to share and to use."""

from vlp_lib.hub.model import export, from_pretrained

__all__ = ["export", "from_pretrained"]
