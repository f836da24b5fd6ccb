"""The colours of every figure. Nothing else gives a run, a verdict or a stage its colour."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle

# Okabe and Ito's palette, which the colour-blind can tell apart; a dashed line says ResNet.
_PAPER = {
    "region": "#000000",
    "naive": "#D55E00",
    "naive_vit": "#D55E00",
    "naive_resnet": "#D55E00",
    "ssul": "#E69F00",
    "segl": "#0072B2",
    "segl_resnet": "#0072B2",
    "spl_small": "#56B4E9",
    "spl_large": "#009E73",
}

_MARKS = {"region": "s", "naive": "o", "ssul": "D", "segl": "^", "spl_small": "v", "spl_large": "P"}

_NEXT = ("#CC79A7", "#882255", "#999933", "#332288", "#AA4499", "#661100", "#DDCC77", "#117733")
"""For runs without a colour of their own, one after the other: the rest of that palette, then Paul Tol's."""

LINE, OTHER = "#0072B2", "#999999"
"""A figure's only line; and what is no run, such as another paper's model."""

RIGHT, WRONG, UNKNOWN = "#00664b", "#a33c00", "#444444"
"""Answers, pairs and verdicts: right, wrong, and not known."""

STAGES = {
    "detector": "#D55E00",
    "selection": "#E69F00",
    "vision": "#0072B2",
    "language": "#56B4E9",
    "cross": "#009E73",
    "whole": OTHER,
}
"""The stages of an answer."""


def colours(names: Iterable[str] = ()) -> dict[str, str]:
    """A colour for each of the paper's variants, always the same, and for other names the next one of a fixed list."""
    others = [name for name in dict.fromkeys(names) if name not in _PAPER]
    return _PAPER | dict(zip(others, cycle(_NEXT), strict=False))


def line_style(name: str) -> str:
    """Dashed for ResNet."""
    return "--" if "resnet" in name else "-"


def marker(name: str) -> str:
    """A curve's mark, the second way beside its colour to tell it from others; none for runs without one."""
    return _MARKS.get(name.removesuffix("_resnet").removesuffix("_vit"), "")
