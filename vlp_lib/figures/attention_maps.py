"""Attention maps over images: figure 6, and all layers, heads and words of one question."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from vlp_lib.attention.maps import Direction, Query
from vlp_lib.attention.pointing import PANEL, Look, Pointing, QuestionView, Shown, read_panel
from vlp_lib.attention.words import WordLook
from vlp_lib.errors import UserError
from vlp_lib.figures.palette import RIGHT, WRONG
from vlp_lib.figures.style import picture_grid
from vlp_lib.study.runs import in_order, label, read_records

_ROWS = {"stuff": "no object (stuff)", "small": "small object", "count": "counting"}


def draw_map(
    axes: Axes, image: np.ndarray, weights: np.ndarray, mask: np.ndarray | None = None, most: float = 0.0
) -> AxesImage:
    """A map [S, S] over its image [S, S, 3], bright where most of the attention is; the mask's outline in white.

    `most` is the weight that is brightest; the map's own highest where none is given.
    """
    grey = image.mean(2)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    most = most or max(float(weights.max()), 1e-12)
    drawn = axes.imshow(weights, cmap="inferno", alpha=0.65, vmin=0, vmax=most, interpolation="nearest")
    if mask is not None and 0 < mask.mean() < 1:
        axes.contour(mask.astype(float), levels=[0.5], colors="w", linewidths=1.0)
    return drawn


def read_panels(root: Path) -> dict[str, list[Look]]:
    """The looks at figure 6's questions by run, of each run's first seed; empty where nothing was attended.

    `root` is a profile's folder of results.
    """
    first = {record["name"]: folder for folder, record in reversed(read_records(root, "attention").items())}
    return {name: read_panel(first[name] / PANEL) for name in in_order(first)}


def draw_panel(panels: Mapping[str, Sequence[Look]], note: str = "") -> tuple[Figure, pd.DataFrame]:
    """Figure 6 for several models at once: a row a question, a column a model, one scale for all.

    The maps are written as times even attention (the mean over the image), so that models with different grids share
    the scale. Args: the looks of each run (see `pointing.read_panel`); a question that a run has not is left empty.
    """
    questions = list({look.question_id: look for looks in panels.values() for look in looks}.values())
    relative = {
        (name, look.question_id): look.map / max(float(look.map.mean()), 1e-12)
        for name, looks in panels.items()
        for look in looks
    }
    # The few brightest cells would leave everything else dark.
    most = float(np.quantile(np.concatenate([one.ravel() for one in relative.values()]), 0.99)) if relative else 1.0
    figure, grid = picture_grid(max(1, len(questions)), 1 + len(panels), 1.45, 1.95)
    rows, drawn = [], None
    for question, line in zip(questions, grid, strict=False):
        line[0].imshow(question.image, interpolation="nearest")
        words = "\n".join(textwrap.wrap(question.text, 20))
        line[0].set_title(f"{words}\ntruth: {question.truth}", fontsize=7, loc="left")
        for (name, looks), axes in zip(panels.items(), line[1:], strict=True):
            for look in (one for one in looks if one.question_id == question.question_id):
                drawn = draw_map(axes, look.image, relative[name, look.question_id], look.mask, most)
                axes.set_title(f"{label(name)}\n{look.answer}", fontsize=7, color=RIGHT if look.right else WRONG)
                rows.append(
                    {"run": name, "question_id": look.question_id, "question": look.text, "answer": look.answer,
                     "truth": look.truth, "right": look.right}
                )  # fmt: skip
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=grid, shrink=0.5, pad=0.01, extend="max")
        bar.set_label("attention, times even attention", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    key = "white outline: what is asked for; green: the answer is the truth, red: it is not"
    figure.suptitle("\n".join(line for line in (note, key) if line), fontsize=8)
    return figure, pd.DataFrame(rows)


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
            answer = f"{look.answer} (truth: {look.truth})"
            axes.set_title("\n".join(textwrap.wrap(look.text, 28)) + f"\n{answer}", fontsize=8,
                           color=RIGHT if look.right else WRONG)  # fmt: skip
            rows.append(
                {
                    "row": shown.kind,
                    "question_id": look.question_id,
                    "question": look.text,
                    "answer": look.answer,
                    "truth": look.truth,
                    "right": look.right,
                    "attention on the object": look.score.mass if isinstance(look.score, Pointing) else math.nan,
                    "area of the object": look.score.chance if isinstance(look.score, Pointing) else math.nan,
                }
            )
    key = "brighter: more attention; outlined: what is asked for; green: answered right, red: answered wrong"
    figure.suptitle("\n".join(line for line in (note, key) if line), fontsize=9)
    return figure, pd.DataFrame(rows)


def draw_captions(looks: Sequence[WordLook], note: str = "") -> tuple[Figure, pd.DataFrame]:
    """A row an image: the photograph with its caption, then where each chosen word of it looks; one scale for all.

    The frame holds, for each word, how much of its attention is in the most attended cell, times even attention.
    """
    columns = 1 + max(len(look.maps) for look in looks)
    figure, grid = picture_grid(len(looks), columns, 2.0, 2.35)
    most = float(np.quantile(np.concatenate([m.ravel() for look in looks for m in look.maps.values()]), 0.99))
    rows, drawn = [], None
    for look, line in zip(looks, grid, strict=True):
        line[0].imshow(look.image, interpolation="nearest")
        line[0].set_title("\n".join(textwrap.wrap(look.caption, 30)), fontsize=7, loc="left")
        for (word, weights), axes in zip(look.maps.items(), line[1:], strict=False):
            drawn = draw_map(axes, look.image, weights, most=most)
            axes.set_title(word, fontsize=9)
            rows.append({"caption": look.caption, "word": word, "most attended": float(weights.max())})
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=grid, shrink=0.5, pad=0.01, extend="max")
        bar.set_label("attention, times even attention", fontsize=8)
    figure.suptitle(note, fontsize=9)
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
