"""Attention maps over images: figure 6, and all layers, heads and words of one question."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from vlp_lib.attention.maps import Query
from vlp_lib.attention.pointing import PANEL, Look, QuestionView, read_panel
from vlp_lib.attention.words import WordLook
from vlp_lib.figures.style import RIGHT, WRONG, picture_grid
from vlp_lib.study.runs import in_order, label, read_records


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


class _Map(NamedTuple):
    """A map [S, S], 1 is even attention, and what stands above it."""

    weights: np.ndarray
    title: str
    mask: np.ndarray | None = None
    tint: str = "k"


def _draw_lines(lines: Sequence[tuple[np.ndarray, str, Sequence[_Map | None]]], note: str) -> Figure:
    """A row an image: the image below its title, then its maps; one scale for all."""
    columns = 1 + max((len(maps) for _, _, maps in lines), default=0)
    figure, grid = picture_grid(max(1, len(lines)), columns, 1.6, 2.05)
    found = [one.weights.ravel() for _, _, maps in lines for one in maps if one is not None]
    # The few brightest cells would leave everything else dark.
    most = float(np.quantile(np.concatenate(found), 0.99)) if found else 1.0
    drawn = None
    for (image, title, maps), (first, *others) in zip(lines, grid, strict=False):
        first.imshow(image, interpolation="nearest")
        first.set_title(title, fontsize=7, loc="left")
        for one, axes in zip(maps, others, strict=False):
            if one is not None:
                drawn = draw_map(axes, image, one.weights, one.mask, most)
                axes.set_title(one.title, fontsize=7, color=one.tint)
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=grid, shrink=0.5, pad=0.01, extend="max")
        bar.set_label("attention, times even attention", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    figure.suptitle(note, fontsize=8)
    return figure


def read_panels(root: Path) -> dict[str, list[Look]]:
    """The looks at figure 6's questions by run of a profile, of its first seed; published runs come without them."""
    first = {record["name"]: folder for folder, record in reversed(read_records(root, "attention").items())}
    return {name: read_panel(first[name] / PANEL) for name in in_order(first) if (first[name] / PANEL).is_file()}


def draw_panel(panels: Mapping[str, Sequence[Look]], note: str = "") -> tuple[Figure, pd.DataFrame]:
    """Figure 6, of one model or several: a row a question, a column a model, empty where it has not that question.

    The maps are times even attention (the mean over the image), so that models with different grids share a scale.
    """
    by_question = {name: {look.question_id: look for look in looks} for name, looks in panels.items()}
    lines, rows = [], []
    for number, question in {number: look for looks in by_question.values() for number, look in looks.items()}.items():
        maps: list[_Map | None] = []
        for name, looks in by_question.items():
            look = looks.get(number)
            if look is None:
                maps.append(None)
                continue
            even, tint = max(float(look.map.mean()), 1e-12), RIGHT if look.right else WRONG
            maps.append(_Map(look.map / even, f"{label(name)}\n{look.answer}", look.mask, tint))
            said = {"question": look.text, "answer": look.answer, "truth": look.truth, "right": look.right}
            rows.append({"run": name, "question_id": number} | said)
        lines.append((question.image, f"{textwrap.fill(question.text, 20)}\ntruth: {question.truth}", maps))
    key = "white outline: what is asked for; green: the answer is the truth, red: it is not"
    return _draw_lines(lines, f"{note}\n{key}".strip()), pd.DataFrame(rows)


def draw_captions(looks: Sequence[WordLook], note: str = "") -> tuple[Figure, pd.DataFrame]:
    """A row an image: the photograph with its caption, then where each chosen word of it looks; one scale for all.

    The frame holds, for each word, how much of its attention is in the most attended cell, times even attention.
    """
    lines, rows = [], []
    for look in looks:
        maps = [_Map(weights, word) for word, weights in look.maps.items()]
        lines.append((look.image, textwrap.fill(look.caption, 30), maps))
        rows += [
            {"caption": look.caption, "word": one.title, "most attended": float(one.weights.max())} for one in maps
        ]
    return _draw_lines(lines, note), pd.DataFrame(rows)


def draw_heads(view: QuestionView, query: Query) -> Figure:
    """A map for each layer (a row) and head (a column), the mean over heads last."""
    layers = view.attention.layers
    heads = layers[0].to_vision.shape[1]
    figure, grid = picture_grid(len(layers), heads + 1, 1.7, 1.9)
    for layer, line in enumerate(grid):
        for head, axes in enumerate(line):
            name = f"head {head}" if head < heads else "mean"
            axes.set_title(f"layer {layer}, {name}", fontsize=8)
            weights = view.attention.on_image(0, query, layer, head if head < heads else None)
            draw_map(axes, view.image, view.places.paint(weights))
    named = {"cls": "[CLS]", "mean": "mean over the words"}
    looks = view.pieces[query] if isinstance(query, int) else named[query]
    figure.suptitle(f"{view.text}  –  {looks}", fontsize=9)
    return figure


def draw_words(view: QuestionView, layer: int, head: int | None) -> Figure:
    """A map for each word piece of the question, in one layer and head (None: the mean over heads)."""
    columns = min(6, len(view.pieces) + 1)
    figure, grid = picture_grid(-(-(len(view.pieces) + 1) // columns), columns, 1.9, 2.1)
    first, *rest = grid.flat
    first.imshow(view.image, interpolation="nearest")
    for position, (piece, axes) in enumerate(zip(view.pieces, rest, strict=False)):
        draw_map(axes, view.image, view.places.paint(view.attention.on_image(0, position, layer, head)))
        axes.set_title(f"{position}  {piece}", fontsize=9)
    figure.suptitle(view.text, fontsize=9)
    return figure
