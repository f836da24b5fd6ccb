"""Measurements as tables: inference time (Tables II and IV), what each visual loss costs (Table I), sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure

from vlp_lib.figures.style import RIGHT, WRONG, new_figure, plain_log_ticks
from vlp_lib.paper import values
from vlp_lib.study.runs import label
from vlp_lib.study.scores import paper_ms

if TYPE_CHECKING:  # it brings torch along, which the tables of finished runs need not wait for
    from vlp_lib.bench.architecture import Architecture

_NAMES = {
    "region_bottom_up": "Region pipeline (Bottom-Up-like)",
    "region_stock": "Region pipeline (torchvision's R50-FPN)",
    "vilt": "ViLT",
    "lxmert": "LXMERT, regions given",
    "visual_bert": "VisualBERT, regions given",
}

_COST_ROWS = {"naive_vit": "none", "spl_small": "spl", "spl_large": "spl"}
"""Table I's row, where it has another name than the variant."""


def name_of(contender: str) -> str:
    """How a timed model is called in tables and figures."""
    return _NAMES.get(contender, label(contender))


def paper_cost(variant: str) -> dict[str, str]:
    """Table I's words about a variant."""
    cells = {cell.column: cell.printed for cell in values("I") if cell.row == _COST_ROWS.get(variant, variant)}
    return {
        "method": "No visual loss" if variant == "naive_vit" else label(variant),
        "paper: extra computation": cells["extra_computation"],
        "paper: extra data": cells["extra_data"],
        "paper: inference": cells["inference_speed"],
    }


def latency_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of latency.json for people; times relative to the naive ViT beside the paper's milliseconds."""
    naive = next((row["median_ms"] for row in rows if row["name"] == "naive_vit"), float("nan"))
    return pd.DataFrame(
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
    )


def bench_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of `vlp bench` for people."""
    table = pd.DataFrame(rows)[["row", "ratio", "p5", "p95", "kind", "aim", "met"]]
    return table.rename(columns={"p5": "5 %", "p95": "95 %", "kind": ""})


def draw_bench(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Each row's ratio over its aim (where less is better, its aim over it): right of 1 is ahead (log scale)."""
    figure = new_figure(8.0, 0.3 * len(rows) + 1.2)
    (axes,) = figure.axes
    for place, row in enumerate(rows):
        ahead = row["aim"] / max(row["ratio"], 0.01) if row["kind"] != "times" else row["ratio"] / row["aim"]
        axes.plot([1, ahead], [place, place], color=RIGHT if row["met"] else WRONG, lw=3)
        axes.annotate(f"{row['ratio']:,.2f} {row['kind']}", (ahead, place), (5, 0), textcoords="offset points",
                      va="center", fontsize=8)  # fmt: skip
    axes.axvline(1, color="0.6", lw=1)
    axes.set_yticks(range(len(rows)), [row["row"] for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    plain_log_ticks(axes.xaxis)
    axes.set_xlabel("times the aim")
    return figure


def cost_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Table I, measured: the rows of cost.json beside the paper's words."""
    table = []
    for row in rows:
        said = paper_cost(row["variant"])
        table.append(
            {
                "method": said["method"],
                "extra parameters (million)": round(row["extra_parameters"] / 1e6, 3),
                "of these at inference": round(row["extra_parameters_at_inference"] / 1e6, 3),
                "time of a training step": "" if row["step_ratio"] is None else f"{row['step_ratio']:.2f}×",
                "visual tokens at 384 and 600 px": f"{row['tokens']['384']}, {row['tokens']['600']}",
                "extra data": row["extra_data"],
                "training images with it": f"{row['extra_data_share']:.0%}",
                **said,
            }
        )
    return pd.DataFrame(table)


def architecture_table(sizes: Sequence[Architecture]) -> pd.DataFrame:
    """Parameters by part, their total, those used at inference, and visual tokens by image size."""
    return pd.DataFrame(
        {"variant": one.variant, **one.parameters, "total": one.total, "at_inference": one.at_inference}
        | {f"tokens_{size}": count for size, count in one.tokens.items()}
        for one in sizes
    )


def architecture_note(profile: str) -> str:
    """What the numbers are of."""
    from vlp_lib.bench.made_up import SIZES  # it brings torch along

    return (
        f"Parameters of profile {profile} in pretraining, with {SIZES.words:,} words, {SIZES.segmentation} + 1 "
        f"segmentation classes and {SIZES.detector:,} detector classes; at_inference without a task's head; tokens_S: "
        f"visual tokens of an image of S px."
    )
