"""How figures look and where they go."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from matplotlib.transforms import Bbox

from vlp_lib.io import markdown_table, write_atomically, write_text
from vlp_lib.study.convergence import LN2


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
    for ending, options in (("png", {"dpi": 150}), ("pdf", {"metadata": {"CreationDate": None}})):
        write_atomically(
            folder / f"{name}.{ending}",
            lambda p, e=ending, o=options: figure.savefig(p, format=e, **o),  # type: ignore[misc]
        )
    write_text(folder / f"{name}.csv", data.to_csv(index=False, float_format="%.6g"))
    return folder / f"{name}.png"


def save_table(table: pd.DataFrame, folder: Path, name: str, note: str = "") -> Path:
    """Write CSV and Markdown; returns the Markdown's path."""
    write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    write_text(folder / f"{name}.md", markdown(table) + (f"\n{note}\n" if note else ""))
    return folder / f"{name}.md"


def save_all(table: pd.DataFrame, folder: Path, name: str, title: str, note: str = "") -> Path:
    """Write a table as CSV, Markdown and picture (PNG and PDF); returns the Markdown's path."""
    save_figure(draw_table(table, title, note), table, folder, name)
    return save_table(table, folder, name, note)


def draw_table(table: pd.DataFrame, title: str = "", note: str = "", widest: int = 24) -> Figure:
    """A data frame as a picture, for slides; cells of more than `widest` letters take several lines."""
    heads = [[textwrap.fill(str(column), widest) for column in table.columns]]
    rows = heads + [[textwrap.fill(_cell(v), widest) for v in row] for row in table.itertuples(index=False)]
    lines = [max(cell.count("\n") + 1 for cell in row) for row in rows]
    cells = [[line for row in rows for line in row[i].splitlines()] for i in range(len(rows[0]))]
    # matplotlib leaves a tenth of a cell free before its text.
    widths = [max(map(_inches, column), default=0.0) / 0.9 + 0.12 for column in cells]
    # A line of 8 points with its share of the rule is 0.17 inch high.
    width = max(sum(widths) + 0.2, _inches(title, 10) + 0.3)
    figure = Figure(figsize=(width, 0.17 * (sum(lines) + 4)), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    drawn = axes.table(rows, colWidths=[one / sum(widths) for one in widths], cellLoc="left", bbox=Bbox.unit())
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(8)
    for (row, _), cell in drawn.get_celld().items():
        cell.set_height(lines[row] / sum(lines))
        cell.set_edgecolor("0.8")
        cell.set_facecolor("0.93" if row == 0 else "w")
    axes.set_title(title, fontsize=10)
    figure.supxlabel(textwrap.fill(note, max(40, round(width / 0.068))), fontsize=8)
    return figure


def _inches(line: str, points: float = 8) -> float:
    """How wide a line of text is drawn."""
    return float(TextPath((0, 0), line, size=points).get_extents().width) / 72 if line.strip() else 0.0


def _cell(value: object) -> str:
    """A value as a table shows it: four figures, nothing for NaN."""
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:z.4g}"
    return str(value)


def markdown(table: pd.DataFrame) -> str:
    """A data frame as a Markdown table."""
    return markdown_table(table.columns, (map(_cell, row) for row in table.itertuples(index=False)))
