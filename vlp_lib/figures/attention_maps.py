"""Attention maps over images: figure 6, and all layers, heads and words of one question."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vlp_lib.attention.maps import Direction, Query
from vlp_lib.attention.pointing import Look, Pointing, QuestionView, Shown
from vlp_lib.errors import UserError
from vlp_lib.figures.palette import RIGHT, WRONG
from vlp_lib.figures.style import picture_grid

_ROWS = {"stuff": "no object (stuff)", "small": "small object", "count": "counting"}


def draw_map(axes: Axes, image: np.ndarray, weights: np.ndarray, mask: np.ndarray | None = None) -> None:
    """A map [S, S] over its image [S, S, 3], bright where most of the attention is; the mask's outline in white."""
    grey = image.mean(2)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    most = max(float(weights.max()), 1e-12)
    axes.imshow(weights, cmap="inferno", alpha=0.65, vmin=0, vmax=most, interpolation="nearest")
    if mask is not None and 0 < mask.mean() < 1:
        axes.contour(mask.astype(float), levels=[0.5], colors="w", linewidths=1.0)


def draw_figure_6(examples: Sequence[tuple[Shown, list[Look]]], note: str = "") -> tuple[Figure, pd.DataFrame]:
    """Figure 6: a row a chosen question: the image, its map, and the maps of other questions about the same image.

    Raises UserError where there is no question to draw.
    """
    if not examples:
        raise UserError("none of the questions asks for stuff, a small object or a number: look at more questions")
    columns = 1 + max(len(looks) for _, looks in examples)
    figure, grid = picture_grid(len(examples), columns, 2.3, 2.75)
    rows = []
    for (shown, looks), line in zip(examples, grid, strict=True):
        line[0].imshow(looks[0].image, interpolation="nearest")
        line[0].set_title(f"{_ROWS[shown.kind]}\n{'right' if shown.right else 'wrong'} answer", fontsize=9)
        for look, axes in zip(looks, line[1:], strict=False):
            draw_map(axes, look.image, look.map, look.mask)
            said = look.answer if look.right else f"{look.answer} (people: {look.truth})"
            axes.set_title("\n".join(textwrap.wrap(look.text, 28)) + f"\n{said}", fontsize=8,
                           color=RIGHT if look.right else WRONG)  # fmt: skip
            rows.append(
                {
                    "row": shown.kind,
                    "question_id": look.question_id,
                    "question": look.text,
                    "answer": look.answer,
                    "people": look.truth,
                    "right": look.right,
                    "attention on the object": look.score.mass if isinstance(look.score, Pointing) else math.nan,
                    "area of the object": look.score.chance if isinstance(look.score, Pointing) else math.nan,
                }
            )
    key = "brighter: more attention; outlined: what is asked for; green: answered right, red: answered wrong"
    figure.suptitle("\n".join(line for line in (note, key) if line), fontsize=9)
    return figure, pd.DataFrame(rows)


def draw_heads(view: QuestionView, direction: Direction, query: Query) -> Figure:
    """A map for each layer (a row) and head (a column), the mean over heads last; empty where a layer has none."""
    layers = view.attention.layers
    heads = layers[0].to_vision.shape[1]
    figure, grid = picture_grid(len(layers), heads + 1, 1.7, 1.9)
    for layer, line in enumerate(grid):
        for head, axes in enumerate(line):
            name = f"head {head}" if head < heads else "mean"
            axes.set_title(f"layer {layer}, {name}", fontsize=8)
            if direction == "to_language" and layers[layer].to_language is None:
                axes.text(0.5, 0.5, "no vision\nbranch", ha="center", va="center", transform=axes.transAxes, fontsize=8)
                continue
            weights = view.attention.on_image(0, direction, query, layer, head if head < heads else None)
            draw_map(axes, view.image, view.places.paint(weights))
    figure.suptitle(f"{view.text}  –  {_named(view, query)}", fontsize=9)
    return figure


def draw_words(view: QuestionView, direction: Direction, layer: int, head: int | None) -> Figure:
    """A map for each word piece of the question, in one layer and head (None: the mean over heads)."""
    columns = min(6, len(view.pieces) + 1)
    figure, grid = picture_grid(-(-(len(view.pieces) + 1) // columns), columns, 1.9, 2.1)
    first, *rest = grid.flat
    first.imshow(view.image, interpolation="nearest")
    for position, (piece, axes) in enumerate(zip(view.pieces, rest, strict=False)):
        weights = view.attention.on_image(0, direction, position, layer, head)
        draw_map(axes, view.image, view.places.paint(weights))
        axes.set_title(f"{position}  {piece}", fontsize=9)
    figure.suptitle(view.text, fontsize=9)
    return figure


def _named(view: QuestionView, query: Query) -> str:
    if isinstance(query, int):
        return view.pieces[query]
    return {"cls": "[CLS]", "mean": "mean over the words"}[query]
