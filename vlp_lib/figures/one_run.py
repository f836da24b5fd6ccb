"""What one run says: its course, scores, recalls and pointing accuracy, and what it answers and finds."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.images import read_image
from vlp_lib.figures.lessons import draw_training
from vlp_lib.figures.style import RIGHT, UNKNOWN, WRONG, draw_chance, picture_grid
from vlp_lib.study.scores import guessing
from vlp_lib.tasks.common import Example
from vlp_lib.tasks.recalls import CUTOFFS
from vlp_lib.tasks.retrieval import Gallery


def draw_run(rows: list[dict[str, Any]]) -> Figure:
    """Each validation loss of a pretraining against the images it has seen, a panel a loss."""
    titles = {"val_itm": "matching (ITM)", "val_mlm": "words (MLM)", "val_visual": "visual loss"}
    course = _course(rows, titles)
    figure = draw_training(course, along="images seen")
    if titles["val_itm"] in course:
        draw_chance(figure.axes[0], course[titles["val_itm"]].max())
    return figure


def draw_finetuning(rows: list[dict[str, Any]]) -> Figure:
    """Validation loss and accuracy against the items seen."""
    titles = {"val_loss": "validation loss", "val_accuracy": "validation accuracy"}
    return draw_training(_course(rows, titles), along="items seen")


def _course(rows: list[dict[str, Any]], titles: Mapping[str, str]) -> pd.DataFrame:
    table = pd.DataFrame(rows).set_index("samples")
    return table[[name for name in titles if name in table]].rename(columns=titles)


def first_and_last(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The validation metrics before training and at the end, and the best of each loss."""
    table = pd.DataFrame(rows).filter(regex="^val_")
    return pd.DataFrame({"before": table.iloc[0], "end": table.iloc[-1], "lowest": table.min()}).round(4)


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


def recall_table(found: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """R@1, R@5 and R@10 both ways in percent, a row a gallery, with what guessing would score."""
    rows, ways = [], ("text", "image")
    for name, one in found.items():
        shares = {f"{way} R@{k}": one[f"{way}_r{k}"] for way in ways for k in CUTOFFS}
        shares |= {f"chance, {way} R@1": guessing(one["images"], one["captions"], way, 1) for way in ways}
        percent = {heading: round(100 * share, 1) for heading, share in shares.items()}
        rows.append({"gallery": name, "images": one["images"], "captions": one["captions"], **percent})
    return pd.DataFrame(rows)


def pointing_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of `pointing.summarise` for people."""
    heads = {
        "kind": "questions about",
        "questions": "questions",
        "pointing": "pointing accuracy",
        "mass": "attention on the object",
        "chance": "the object's area (chance)",
        "even": "evenly spread attention",
        "from_label_maps": "by label map",
    }
    return pd.DataFrame(rows, columns=list(heads)).rename(columns=heads).round(3)


def draw_examples(examples: Sequence[Example], columns: int = 4) -> tuple[Figure, pd.DataFrame]:
    """Each item's pictures (side by side), what was asked, said and true; green where right, red where wrong.

    The frame holds the same in words, with the score of each answer (0 to 1).
    """
    figure, panels = picture_grid(-(-len(examples) // columns), columns, 2.9, 3.2)
    rows = []
    for axes, example in zip(panels.flat, examples, strict=False):
        images = [read_image(path) for path in example.pictures]
        height = images[0].height  # which all of them get
        shown = [np.asarray(image.resize((max(1, image.width * height // image.height), height))) for image in images]
        gap = np.full((height, max(1, height // 16), 3), 255, np.uint8)
        parts = [part for array in shown for part in (gap, array)][1:]
        axes.imshow(np.concatenate(parts, axis=1), interpolation="nearest")
        said = f"says: {example.predicted}" + (f"\ntrue: {example.truth}" if example.truth else "")
        lines = [line for text in (example.text, *said.splitlines()) for line in textwrap.wrap(text, 36)]
        tint = UNKNOWN if math.isnan(example.score) else RIGHT if example.score >= 0.5 else WRONG
        axes.set_title("\n".join(lines), fontsize=8, color=tint)
        rows.append((example.text, example.predicted, example.truth, example.score))
    return figure, pd.DataFrame(rows, columns=["asked", "predicted", "truth", "score"])


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
