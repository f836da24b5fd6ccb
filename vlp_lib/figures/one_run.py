"""What one run says: the course of a pretraining or finetuning, its scores, recalls and pointing accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from vlp_lib.figures.palette import LINE
from vlp_lib.figures.style import draw_chance, new_figure
from vlp_lib.study.scores import guessing
from vlp_lib.tasks.recalls import CUTOFFS, Recalls

_LOSSES = {"val_itm": "matching (ITM)", "val_mlm": "words (MLM)", "val_visual": "visual loss"}
_FINETUNED = {"val_loss": "validation loss", "val_accuracy": "validation accuracy"}


def draw_run(rows: list[dict[str, Any]]) -> Figure:
    """Each validation loss of a pretraining against the images it has seen, a panel a loss."""
    return _draw_course(rows, _LOSSES, "images seen")


def draw_finetuning(rows: list[dict[str, Any]]) -> Figure:
    """Validation loss and accuracy against the items seen."""
    return _draw_course(rows, _FINETUNED, "items seen")


def _draw_course(rows: list[dict[str, Any]], titles: Mapping[str, str], seen: str) -> Figure:
    table = pd.DataFrame(rows)
    names = [name for name in titles if name in table]
    figure = new_figure(3.2 * len(names), 2.8, columns=len(names))
    for axes, name in zip(figure.axes, names, strict=True):
        axes.plot(table["samples"], table[name], color=LINE, lw=1.8, marker=".")
        axes.set_title(titles[name], fontsize=10)
        axes.set_xlabel(seen)
        if name == "val_itm":
            draw_chance(axes, table[name].max())
        else:
            axes.set_ylim(bottom=0)
    return figure


def first_and_last(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The validation metrics before training and at the end, and the best of each loss."""
    table = pd.DataFrame(rows)
    names = [c for c in table.columns if c.startswith("val_")]
    return pd.DataFrame(
        {"before": table[names].iloc[0], "end": table[names].iloc[-1], "lowest": table[names].min()}, index=names
    ).round(4)


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


def recall_table(found: Mapping[str, Recalls]) -> pd.DataFrame:
    """R@1, R@5 and R@10 both ways in percent, a row a gallery, with what guessing would score."""
    rows = []
    for name, one in found.items():
        row: dict[str, object] = {"gallery": name, "images": one.images, "captions": one.captions}
        for way, shares in (("text", one.text_retrieval), ("image", one.image_retrieval)):
            row |= {f"{way} R@{k}": round(100 * shares[k], 1) for k in CUTOFFS}
        chance = {
            "chance, text R@1": guessing(one.images, one.captions, "text", 1),
            "chance, image R@1": guessing(one.images, one.captions, "image", 1),
        }
        rows.append(row | {heading: round(100 * share, 1) for heading, share in chance.items()})
    return pd.DataFrame(rows)


def pointing_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of `pointing.summarise` for people."""
    return pd.DataFrame(
        {
            "questions about": [row["kind"] for row in rows],
            "questions": [row["questions"] for row in rows],
            "pointing accuracy": [round(row["pointing"], 3) for row in rows],
            "attention on the object": [round(row["mass"], 3) for row in rows],
            "the object's area (chance)": [round(row["chance"], 3) for row in rows],
            "evenly spread attention": [round(row["even"], 3) for row in rows],
            "by label map": [row["from_label_maps"] for row in rows],
        }
    )
