"""Inference time (Tables II and IV) and what each visual loss costs (Table I), beside the paper's own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vlp_lib.figures.style import label, new_figure, plain_log_ticks
from vlp_lib.paper import values

NAMES = {
    "region_bottom_up": "Region pipeline (Bottom-Up-like)",
    "region_stock": "Region pipeline (torchvision's R50-FPN)",
    "vilt": "ViLT",
    "lxmert": "LXMERT, regions given",
    "visual_bert": "VisualBERT, regions given",
}

_TIME_ROWS = {"region_bottom_up": "uniter_base"}
"""Table IV's row, where it has another name; the region models' times there are with their detector."""

_COST_ROWS = {"naive_vit": "none", "spl_small": "spl", "spl_large": "spl"}
"""Table I's row, where it has another name than the variant."""

_STAGES = {
    "detector": "#D55E00",
    "selection": "#E69F00",
    "vision": "#0072B2",
    "language": "#56B4E9",
    "cross": "#009E73",
    "whole": "#999999",
}


def name_of(contender: str) -> str:
    """How a timed model is called in tables and figures."""
    return NAMES.get(contender, label(contender))


def paper_ms(contender: str) -> str:
    """The paper's milliseconds on a P40 as it prints them (Tables II and IV), or nothing."""
    row = _TIME_ROWS.get(contender, contender)
    times = [cell for number in ("II", "IV") for cell in values(number) if cell.unit == "ms"]
    return next((cell.printed for cell in times if cell.row == row), "")


def _paper_cost(variant: str) -> dict[str, str]:
    """Table I's words about a variant."""
    cells = {cell.column: cell.printed for cell in values("I") if cell.row == _COST_ROWS.get(variant, variant)}
    return {
        "paper: extra computation": cells["extra_computation"],
        "paper: extra data": cells["extra_data"],
        "paper: inference": cells["inference_speed"],
    }


def latency_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of latency.json for people; times relative to the naive ViT beside the paper's milliseconds."""
    naive = next((row["median_ms"] for row in rows if row["name"] == "naive_vit"), float("nan"))
    return pd.DataFrame(
        [
            {
                "model": name_of(row["name"]),
                "visual tokens": row["visual_tokens"],
                "parameters (million)": round(row["parameters"] / 1e6, 1),
                "median (ms)": round(row["median_ms"], 1),
                "5–95 % (ms)": f"{row['p5_ms']:.1f}–{row['p95_ms']:.1f}",
                "runs": row["runs"],
                "times the naive ViT": round(row["median_ms"] / naive, 2),
                "paper (ms, P40)": paper_ms(row["name"]),
                "note": row["note"],
            }
            for row in rows
        ]
    )


def draw_latency(rows: Sequence[Mapping[str, Any]], note: str = "") -> Figure:
    """Left each model's median with its 5th to 95th percentile (log scale), right what share each stage has of it."""
    figure = new_figure(9.0, 0.32 * len(rows) + 1.4, columns=2)
    times, shares = figure.axes
    for place, row in enumerate(rows):
        times.plot([row["p5_ms"], row["p95_ms"]], [place, place], color="0.6", lw=3)
        times.plot(row["median_ms"], place, "o", color="k", ms=5)
        times.annotate(f"{row['median_ms']:,.1f}", (row["p95_ms"], place), (5, 0), textcoords="offset points",
                       va="center", fontsize=8)  # fmt: skip
        total = sum(row["stages_ms"].values())
        left = 0.0
        for stage, took in row["stages_ms"].items():
            shares.barh(place, took / total, left=left, color=_STAGES[stage], height=0.7)
            left += took / total
    times.set_yticks(range(len(rows)), [name_of(row["name"]) for row in rows], fontsize=8)
    times.set_xscale("log")
    times.margins(x=0.2)
    plain_log_ticks(times.xaxis)
    times.set_xlabel("milliseconds a question (log scale)")
    shares.set_yticks([])
    shares.set_xlabel("share of each stage")
    for axes in (times, shares):
        axes.set_ylim(len(rows) - 0.5, -0.5)  # the same rows beside each other, the first on top
    present = [stage for stage in _STAGES if any(stage in row["stages_ms"] for row in rows)]
    shares.legend(handles=[Patch(color=_STAGES[stage], label=stage) for stage in present], frameon=False, fontsize=8,
                  loc="center left", bbox_to_anchor=(1, 0.5))  # fmt: skip
    figure.suptitle(note, fontsize=9)
    return figure


def cost_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Table I, measured: the rows of cost.json beside the paper's words."""
    return pd.DataFrame(
        [
            {
                "method": "No visual loss" if row["variant"] == "naive_vit" else label(row["variant"]),
                "extra parameters (million)": round(row["extra_parameters"] / 1e6, 3),
                "of these at inference": round(row["extra_parameters_at_inference"] / 1e6, 3),
                "time of a training step": "" if row["step_ratio"] is None else f"{row['step_ratio']:.2f}×",
                "visual tokens at 384 and 600 px": f"{row['tokens']['384']}, {row['tokens']['600']}",
                "extra data": row["extra_data"],
                "training images with it": f"{row['extra_data_share']:.0%}",
                **_paper_cost(row["variant"]),
            }
            for row in rows
        ]
    )
