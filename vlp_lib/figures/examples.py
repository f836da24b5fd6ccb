"""What a model answers and finds, with the pictures it saw."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.images import read_image
from vlp_lib.figures.palette import RIGHT, UNKNOWN, WRONG
from vlp_lib.figures.style import picture_grid
from vlp_lib.tasks.common import Example
from vlp_lib.tasks.retrieval import Gallery


def draw_examples(examples: Sequence[Example], columns: int = 4) -> tuple[Figure, pd.DataFrame]:
    """Each item's pictures (side by side), what was asked, said and true; green where right, red where wrong.

    The frame holds the same in words, with the score of each answer (0 to 1).
    """
    rows = -(-len(examples) // columns)
    figure, panels = picture_grid(rows, columns, 2.9, 3.2)
    table = []
    for axes, example in zip(panels.flat, examples, strict=False):
        _draw_pictures(axes, example)
        said = f"says: {example.predicted}" + (f"\ntrue: {example.truth}" if example.truth else "")
        axes.set_title(
            "\n".join(line for text in (example.text, *said.splitlines()) for line in textwrap.wrap(text, 36)),
            fontsize=8,
            color=UNKNOWN if math.isnan(example.score) else RIGHT if example.score >= 0.5 else WRONG,
        )
        table.append(
            {"asked": example.text, "predicted": example.predicted, "truth": example.truth, "score": example.score}
        )
    return figure, pd.DataFrame(table, columns=["asked", "predicted", "truth", "score"])


def _draw_pictures(axes: Axes, example: Example) -> None:
    """The pictures in a row, all of the first one's height."""
    images = [read_image(path) for path in example.pictures]
    height = images[0].height
    shown = [np.asarray(image.resize((max(1, image.width * height // image.height), height))) for image in images]
    gap = np.full((height, max(1, height // 16), 3), 255, np.uint8)
    parts = [part for array in shown for part in (gap, array)][1:]
    axes.imshow(np.concatenate(parts, axis=1), interpolation="nearest")


def draw_found(corpus: Corpus, gallery: Gallery, scores: np.ndarray, queries: int = 4, best: int = 4) -> Figure:
    """The first images with the sentences that score best for each; green where the sentence is the image's own."""
    queries = min(queries, len(gallery.records))
    figure = Figure(figsize=(8.5, 1.7 * queries), layout="constrained")
    grid = figure.subplots(queries, 2, squeeze=False, width_ratios=[1, 4])
    for row, (left, right) in enumerate(grid):
        left.imshow(np.asarray(corpus.read_image(gallery.records[row])), interpolation="nearest")
        for place, column in enumerate(np.argsort(-scores[row], kind="stable")[:best]):
            own = gallery.image_index[column] == row
            sentence = textwrap.shorten(gallery.captions[column], 90, placeholder=" …")
            right.text(0, 0.88 - place * 0.9 / best, f"{scores[row, column]:+.2f}  {sentence}", fontsize=9, va="center",
                       color=RIGHT if own else WRONG, transform=right.transAxes)  # fmt: skip
        for axes in (left, right):
            axes.set_axis_off()
    return figure
