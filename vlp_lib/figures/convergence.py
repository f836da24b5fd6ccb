"""Figures 1 and 5 (left): how fast the validation matching loss falls, and the table of samples it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from vlp_lib.figures.style import colour, label, line_style, new_figure
from vlp_lib.study.runs import NOT_RUN, interval, over_seeds, variant_order, with_half

LN2 = math.log(2)

CONFIRMED, CONTRADICTED, UNDECIDED = "confirmed", "contradicted", "not decidable with these seeds"

_NOT_RUN = {"mean": math.nan, "half": math.nan, "seeds": None, "verdict": NOT_RUN}

FIGURE_1 = ("region", "naive_vit", "segl")
"""Figure 1's comparison: the region-feature model, the naive pixel model, and a pixel model with a visual loss."""

ORDER = (
    ("region", "segl"),
    ("segl", "ssul"),
    ("segl", "spl_small"),
    ("segl", "spl_large"),
    ("ssul", "naive_vit"),
    ("spl_small", "naive_vit"),
    ("spl_large", "naive_vit"),
    ("segl_resnet", "naive_resnet"),
)
"""The paper's order of the matching loss (figures 1 and 5 left): the first of each pair has the lower loss."""


def convergence_curves(runs: pd.DataFrame, value: str = "val_itm") -> pd.DataFrame:
    """Mean and 95 % interval over seeds of a validation metric at each evaluation, for each variant.

    Args:
        runs: rows of metrics.jsonl with `variant` and `seed` (see `figures.runs.read_runs`).
    """
    return over_seeds(runs, ["variant", "samples"], value)


def draw_convergence(curves: pd.DataFrame, variants: Sequence[str] | None = None, title: str = "") -> Figure:
    """Validation matching loss against samples seen: a line a variant, its 95 % interval over seeds shaded."""
    figure = new_figure()
    axes = figure.axes[0]
    highest = 0.0
    for variant in variant_order(list(variants or curves["variant"])):
        curve = curves[curves["variant"] == variant].sort_values("samples")
        if curve.empty:
            continue
        axes.plot(
            curve["samples"], curve["mean"], line_style(variant), color=colour(variant), label=label(variant), lw=1.8
        )
        highest = max(highest, curve["mean"].max())
        low, high = curve["mean"] - curve["half"].fillna(0), curve["mean"] + curve["half"].fillna(0)
        axes.fill_between(curve["samples"], low, high, color=colour(variant), alpha=0.15, lw=0)
    axes.axhline(LN2, color="0.5", lw=0.8, ls=":")
    axes.annotate("chance (ln 2)", (1, LN2), (0, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
                  ha="right", va="bottom", fontsize=8, color="0.4")  # fmt: skip
    axes.set_xlabel("images seen, each with its own and another's sentence")
    axes.set_ylabel("validation matching loss")
    axes.set_ylim(*loss_limits(highest))
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="lower left", ncols=2)
    return figure


def loss_limits(highest: float) -> tuple[float, float]:
    """The range of an axis for matching losses: the same in all figures unless a loss rises far above chance."""
    return 0.0, max(0.8, 1.05 * highest)


def samples_until(samples: np.ndarray, losses: np.ndarray, threshold: float) -> float:
    """Samples seen when a loss curve first falls below a threshold, linear between evaluations; infinity if never."""
    below = np.flatnonzero(losses < threshold)
    if len(below) == 0:
        return math.inf
    i = int(below[0])
    if i == 0:
        return float(samples[0])
    share = (losses[i - 1] - threshold) / (losses[i - 1] - losses[i])
    return float(samples[i - 1] + share * (samples[i] - samples[i - 1]))


def speed_table(runs: pd.DataFrame, threshold: float, baseline: str = "naive_vit") -> pd.DataFrame:
    """Samples until the validation matching loss falls below `threshold`, and the speed-up over the naive model.

    A seed that never gets there counts as "more than the samples it saw"; a mean over such seeds is a lower bound and
    written with ">". Columns: variant, seeds, reached, images, speed-up, final loss and accuracy with their
    half-widths.
    """
    rows = []
    reached_by: dict[str, tuple[float, bool]] = {}
    for variant in variant_order(runs["variant"]):
        all_samples, reached, finals, accuracies = [], 0, [], []
        for _, run in runs[runs["variant"] == variant].groupby("seed"):
            run = run.sort_values("samples")
            samples, losses = run["samples"].to_numpy(float), run["val_itm"].to_numpy(float)
            found = samples_until(samples, losses, threshold)
            reached += math.isfinite(found)
            all_samples.append(found if math.isfinite(found) else samples[-1])
            finals.append(losses[-1])
            accuracies.append(run["val_itm_accuracy"].iloc[-1])
        complete = reached == len(all_samples)
        reached_by[variant] = (float(np.mean(all_samples)), complete)
        (loss, loss_half), (accuracy, accuracy_half) = interval(np.array(finals)), interval(np.array(accuracies))
        rows.append(
            {
                "variant": label(variant),
                "seeds": len(all_samples),
                "seeds below": reached,
                f"images until {threshold:g}": f"{'' if complete else '> '}{np.mean(all_samples):,.0f}",
                "speed-up over naive ViT": variant,
                "final matching loss": with_half(loss, loss_half, 3),
                "final matching accuracy": with_half(accuracy, accuracy_half, 3),
            }
        )
    for row in rows:
        row["speed-up over naive ViT"] = _speed_up(reached_by, str(row["speed-up over naive ViT"]), baseline)
    return pd.DataFrame(rows)


def _speed_up(reached: dict[str, tuple[float, bool]], variant: str, baseline: str) -> str:
    """Samples of the baseline over samples of the variant; a bound where one of them never got there."""
    if baseline not in reached or not reached[variant][1]:
        return "not decidable"
    (base, base_complete), (own, _) = reached[baseline], reached[variant]
    return f"{'' if base_complete else '> '}{base / own:.1f}×"


def verdict(lower: np.ndarray, higher: np.ndarray) -> tuple[float, float, str]:
    """Whether the first of two paired sets of losses (same seeds) is lower: mean difference, half-width, verdict.

    "confirmed" or "contradicted" when the 95 % interval of the paired difference leaves 0 out; "not decidable" when it
    does not, or with fewer than two seeds.
    """
    difference, half = interval(higher - lower)
    if math.isnan(half) or abs(difference) <= half:
        return difference, half, UNDECIDED
    return difference, half, CONFIRMED if difference > 0 else CONTRADICTED


def order_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The paper's order of the final matching loss, pair by pair, with the statistic that decides."""
    return pd.DataFrame(
        {
            "the paper's order": one["claim"],
            "difference of the final matching loss": ("" if one["pair"] else "loss ")
            + with_half(one["mean"], one["half"], 3),
            "seeds": one["seeds"],
            "verdict": one["verdict"],
        }
        for one in order_statistics(runs)
        if one["seeds"] is not None
    )


def order_statistics(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Each statement about the order of the matching losses, with the numbers that decide it.

    A row: claim (words), pair (whether two variants are compared; else one with 0.9 ln 2), mean and half (the paired
    difference, or the loss, with the half-width of its 95 % interval), seeds and verdict. Where a variant was not run
    mean and half are NaN, seeds is None and verdict "not run".
    """
    last = runs.sort_values("samples").groupby(["variant", "seed"])["val_itm"].last().unstack(0)
    rows = []
    for first, second in ORDER:
        row = {"claim": f"{label(first)} < {label(second)}", "pair": True}
        if first not in last or second not in last:
            rows.append(row | _NOT_RUN)
            continue
        both = last[[first, second]].dropna()
        difference, half, decision = verdict(both[first].to_numpy(), both[second].to_numpy())
        rows.append(row | {"mean": difference, "half": half, "seeds": len(both), "verdict": decision})
    return rows + _plateau(runs)


def _plateau(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The naive model's plateau: its loss at half of the run within 10 % of ln 2, and SEGL's below that by then."""
    half_way = runs["samples"].max() / 2
    near = runs[(runs["samples"] - half_way).abs() <= (runs["samples"] - half_way).abs().min()]
    rows: list[dict[str, Any]] = []
    for variant, claim, above in (
        ("naive_vit", "Naive (ViT) within 10 % of ln 2 at half of the run", True),
        ("segl", "SEGL more than 10 % below ln 2 at half of the run", False),
    ):
        row = {"claim": claim, "pair": False}
        values = near[near["variant"] == variant]["val_itm"].to_numpy(float)
        if len(values) == 0:
            rows.append(row | _NOT_RUN)
            continue
        mean, half = interval(values)
        margin = 0.0 if math.isnan(half) else half
        holds, fails = (mean - margin > 0.9 * LN2, mean + margin < 0.9 * LN2)
        if not above:
            holds, fails = fails, holds
        decided = CONFIRMED if holds else CONTRADICTED if fails else UNDECIDED
        decided = decided if len(values) > 1 else UNDECIDED
        rows.append(row | {"mean": mean, "half": half, "seeds": len(values), "verdict": decided})
    return rows
