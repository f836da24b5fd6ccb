"""Figure 5 (right): inference time against VQA accuracy, the run's points and the paper's in a panel each."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vlp_lib import paper
from vlp_lib.config import VARIANTS
from vlp_lib.figures.style import colour, label, new_figure, plain_log_ticks
from vlp_lib.study.runs import interval
from vlp_lib.study.scores import Results

RUN = "this run"

_PUBLISHED = {"II": "vqa", "IV": "vqav2_test_dev"}
"""The paper's tables that have a time and a VQA accuracy, and the column of the latter."""

_MARKERS = {RUN: "o", "paper, table II": "o", "paper, table IV": "D"}


def trade_off(results: Results) -> pd.DataFrame:
    """A row a point: source, row, model, ms with ms_low and ms_high (5th and 95th percentile), vqa, half, seeds.

    VQA accuracy is in percent, with the half-width of its 95 % interval over seeds. A variant that was not timed or not
    finetuned has NaN there, and so have the paper's points, which come without spread.
    """
    rows: list[dict[str, Any]] = []
    for variant in results.variants:
        scores = results.values("vqa", variant, results.split("vqa"), "overall")
        time = results.time(variant) or {}
        mean, half = interval(scores)
        rows.append(
            {
                "source": RUN,
                "row": variant,
                "model": label(variant),
                "ms": time.get("median_ms", math.nan),
                "ms_low": time.get("p5_ms", math.nan),
                "ms_high": time.get("p95_ms", math.nan),
                "vqa": mean,
                "half": half,
                "seeds": len(scores),
            }
        )
    for number, column in _PUBLISHED.items():
        for row in paper.table(number).rows:
            ms, vqa = (paper.value(number, row.name, name) for name in ("inference_ms", column))
            rows.append({"source": f"paper, table {number}", "row": row.name, "model": row.label, "ms": ms, "vqa": vqa})
    return pd.DataFrame(rows).astype({"ms": float, "vqa": float})


def not_shown(points: pd.DataFrame) -> list[str]:
    """The run's models that are no point because their time or their accuracy is missing, and which."""
    own = points[points["source"] == RUN]
    missing = {"ms": "not timed", "vqa": "no VQA run"}
    return [
        f"{row.model} ({', '.join(why for name, why in missing.items() if math.isnan(getattr(row, name)))})"
        for row in own[own[list(missing)].isna().any(axis=1)].itertuples()
    ]


def draw_trade_off(points: pd.DataFrame, note: str = "") -> Figure:
    """Left the run, right the paper (circles: table II, diamonds: table IV); times on a log scale.

    The two panels share no axis: neither machine, nor corpus, nor scale are the same. What is missing in the left one
    is named below it.
    """
    figure = new_figure(9.5, 4.4, columns=2)
    own, published = figure.axes
    is_own = points["source"] == RUN
    _draw(own, points[is_own], RUN)
    if own.containers:
        own.legend(frameon=False, fontsize=7)
    _draw(published, points[~is_own], "the paper: ○ table II, ◇ table IV")
    _name(published, points[~is_own])
    published.set_xlabel("inference time (ms, Nvidia P40, log scale)")
    missing = not_shown(points)
    lines = [note, f"not shown: {', '.join(missing)}" if missing else ""]
    figure.supxlabel("\n".join(line for line in lines if line), fontsize=8, wrap=True)
    return figure


def _draw(axes: Axes, points: pd.DataFrame, title: str) -> None:
    complete = points.dropna(subset=["ms", "vqa"])
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("inference time (ms, log scale)")
    axes.set_ylabel("VQA accuracy (%)")
    if complete.empty:
        axes.text(0.5, 0.5, "no model has both", ha="center", va="center", transform=axes.transAxes, color="0.4")
        return
    axes.set_xscale("log")
    axes.margins(0.25, 0.15)
    for point in complete.to_dict("records"):
        spread = [[point["ms"] - point["ms_low"]], [point["ms_high"] - point["ms"]]]
        axes.errorbar(
            point["ms"],
            point["vqa"],
            xerr=None if math.isnan(point["ms_low"]) else spread,
            yerr=None if math.isnan(point["half"]) else point["half"],
            fmt=_MARKERS[point["source"]],
            color=colour(point["row"]),
            # The paper's other models have no colour of their own, and ResNets that of their ViT: hollow.
            mfc="w" if "resnet" in point["row"] or point["row"] not in VARIANTS else None,
            ms=6,
            label=point["model"],
        )
    plain_log_ticks(axes.xaxis)


def _name(axes: Axes, points: pd.DataFrame) -> None:
    """Names beside the points; those of about equal accuracy lie close, so the names take sides in turns."""
    for place, point in enumerate(points.dropna(subset=["ms", "vqa"]).sort_values("vqa").to_dict("records")):
        side = 1 if place % 2 else -1
        axes.annotate(point["model"], (point["ms"], point["vqa"]), (7 * side, 0), textcoords="offset points",
                      ha="left" if side > 0 else "right", va="center", fontsize=7)  # fmt: skip
