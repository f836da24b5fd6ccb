"""How figures look and where they go. Nothing else gives a run, a verdict or a stage its colour."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from vlp_lib.io import markdown_table, write_atomically, write_text
from vlp_lib.study.convergence import LN2

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


def new_figure(width: float = 7.0, height: float = 4.4, columns: int = 1) -> Figure:
    """An empty figure (inches) that belongs to no global state."""
    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.subplots(1, columns)
    return figure


def picture_grid(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A figure for pictures, of axes [rows, columns] that are not seen; width and height of each in inches."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    return figure, grid


def draw_chance(axes: Axes, highest: float) -> None:
    """A line at ln 2, and the range of an axis for matching losses: the same everywhere unless one rises far above."""
    axes.axhline(LN2, color="0.5", lw=0.8, ls=":")
    axes.set_ylim(0.0, max(0.8, 1.05 * highest))


def plain_log_ticks(axis: Axis) -> None:
    """Mark a log axis whose data are drawn in plain numbers: at 1, 2, 5, 10, …; fewer the longer it is."""
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.5 else (1, 3) if decades < 3 else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_locator(NullLocator())


def save_figure(figure: Figure, data: pd.DataFrame, folder: Path, name: str) -> Path:
    """Write PNG, PDF and the CSV behind the figure; returns the PNG's path."""
    png, pdf = (folder / f"{name}.{ending}" for ending in ("png", "pdf"))
    write_atomically(png, lambda file: figure.savefig(file, format="png", dpi=150))
    write_atomically(pdf, lambda file: figure.savefig(file, format="pdf", metadata={"CreationDate": None}))
    write_text(folder / f"{name}.csv", data.to_csv(index=False, float_format="%.6g"))
    return png


def save_table(table: pd.DataFrame, folder: Path, name: str, note: str = "") -> Path:
    """Write CSV and Markdown; returns the Markdown's path."""
    write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    write_text(folder / f"{name}.md", markdown(table) + (f"\n{note}\n" if note else ""))
    return folder / f"{name}.md"


def markdown(table: pd.DataFrame) -> str:
    """A data frame as a Markdown table: numbers with four figures, nothing for NaN."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return "" if pd.isna(value) else f"{value:z.4g}"
        return str(value)

    return markdown_table(table.columns, (map(cell, row) for row in table.itertuples(index=False)))


def colours(names: Iterable[str] = ()) -> dict[str, str]:
    """A colour for each of the paper's variants, always the same, and for other names the next one of a fixed list."""
    others = [name for name in dict.fromkeys(names) if name not in _PAPER]
    return _PAPER | dict(zip(others, cycle(_NEXT), strict=False))


def line_look(name: str) -> dict[str, Any]:
    """What tells a curve from others beside its colour: dashed for ResNet, and a mark for the paper's variants."""
    bare = name.removesuffix("_resnet").removesuffix("_vit")
    return {"ls": "--" if "resnet" in name else "-", "marker": _MARKS.get(bare, "")}
