"""What a finetuned model says: examples with prediction and truth, the course of a finetuning, its scores."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vlp_lib.corpora.images import read_image
from vlp_lib.figures.style import new_figure
from vlp_lib.tasks.common import Example

_RIGHT, _WRONG, _UNKNOWN = "#00664b", "#a33c00", "#444444"


def draw_examples(examples: Sequence[Example], columns: int = 4) -> tuple[Figure, pd.DataFrame]:
    """Each item's pictures (side by side), what was asked, said and true; green where right, red where wrong.

    The frame holds the same in words, with the score of each answer (0 to 1).
    """
    rows = -(-len(examples) // columns)
    figure = Figure(figsize=(2.9 * columns, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    table = []
    for axes, example in zip(panels, examples, strict=False):
        _draw_pictures(axes, example)
        said = f"says: {example.predicted}" + (f"\ntrue: {example.truth}" if example.truth else "")
        axes.set_title(
            "\n".join(line for text in (example.text, *said.splitlines()) for line in textwrap.wrap(text, 36)),
            fontsize=8,
            color=_UNKNOWN if math.isnan(example.score) else _RIGHT if example.score >= 0.5 else _WRONG,
        )
        table.append(
            {"asked": example.text, "predicted": example.predicted, "truth": example.truth, "score": example.score}
        )
    for axes in figure.axes:
        axes.set_axis_off()
    return figure, pd.DataFrame(table, columns=["asked", "predicted", "truth", "score"])


def _draw_pictures(axes: Axes, example: Example) -> None:
    """The pictures in a row, all of the first one's height."""
    images = [read_image(path) for path in example.pictures]
    height = images[0].height
    shown = [np.asarray(image.resize((max(1, image.width * height // image.height), height))) for image in images]
    gap = np.full((height, max(1, height // 16), 3), 255, np.uint8)
    parts = [part for array in shown for part in (gap, array)][1:]
    axes.imshow(np.concatenate(parts, axis=1), interpolation="nearest")


def draw_finetuning(rows: list[dict[str, Any]]) -> Figure:
    """Validation loss and accuracy against the items seen."""
    table = pd.DataFrame(rows)
    figure = new_figure(6.4, 2.8, columns=2)
    for axes, (name, title) in zip(
        figure.axes, (("val_loss", "validation loss"), ("val_accuracy", "validation accuracy")), strict=True
    ):
        axes.plot(table["samples"], table[name], color="#0072B2", lw=1.8, marker=".")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("items seen")
        axes.set_ylim(bottom=0)
    return figure


def score_table(scores: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The official scores, a row each (scores in percent, the rest counts), a column a split."""
    flat = {
        split: {
            f"{name}: {kind}" if kind else name: value
            for name, given in score.items()
            if name not in ("task", "unit")
            for kind, value in (given.items() if isinstance(given, Mapping) else [("", given)])
        }
        for split, score in scores.items()
    }
    return pd.DataFrame(flat).round(2)
