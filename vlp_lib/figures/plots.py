"""What several runs say, as plots: curves of convergence, time against accuracy, claims, inference times."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter

from vlp_lib.figures.bench_tables import name_of
from vlp_lib.figures.style import (
    LINE,
    OTHER,
    RIGHT,
    STAGES,
    WRONG,
    colours,
    draw_chance,
    line_look,
    new_figure,
    plain_log_ticks,
)
from vlp_lib.study.changes import AS_IT_IS
from vlp_lib.study.claims import POINTS
from vlp_lib.study.convergence import LN2, convergence_curves
from vlp_lib.study.runs import in_order, label
from vlp_lib.study.scores import RUN, not_shown
from vlp_lib.study.verdicts import CONFIRMED, CONTRADICTED

_SEEDS_OF_A_BAND = 3
"""Of two seeds the interval is nine times as wide as what lies between them, and hides all other curves."""

_CURVES_WITH_BANDS = 4
"""Of more in one panel the intervals hide each other."""

_LONGEST_LABEL = 44
"""Letters of a line beside an axis."""

_SEEN = "images seen, each with its own and another's sentence"

_MARKERS = {RUN: "o", "paper, table II": "o", "paper, table IV": "D"}


def draw_convergence(curves: pd.DataFrame, names: Sequence[str] = (), title: str = "") -> Figure:
    """Validation matching loss against samples seen (`convergence_curves`): a line a name, all where none is given.

    The 95 % interval over seeds is shaded where there are three of them or more.
    """
    figure = new_figure()
    (axes,) = figure.axes
    present = in_order(curves["name"])
    tints = colours(present)
    shown = [name for name in present if not names or name in names]
    highest = max((_draw_curve(axes, curves, name, tints[name]) for name in shown), default=0.0)
    draw_chance(axes, highest)
    axes.annotate("chance (ln 2)", (1, LN2), (0, 3), xycoords=("axes fraction", "data"),
                  textcoords="offset points", ha="right", va="bottom", fontsize=8, color="0.4")  # fmt: skip
    axes.set_xlabel(_SEEN)
    axes.set_ylabel("validation matching loss")
    axes.set_xlim(left=0)
    axes.set_title(textwrap.fill(title, 84), fontsize=10)
    _name_ends(axes, {name: curves[curves["name"] == name].sort_values("samples").iloc[-1] for name in shown}, tints)
    return figure


def _name_ends(axes: Axes, ends: Mapping[str, pd.Series], tints: Mapping[str, str]) -> None:
    """The name of each curve at its end, right of the axes; names that would overlap move apart."""
    low, high = axes.get_ylim()
    gap = 0.05 * (high - low)  # the height of a line of the names, with a little air
    by_height = sorted(ends, key=lambda name: ends[name]["mean"])
    places: list[float] = []
    for name in by_height:
        places.append(max(ends[name]["mean"], places[-1] + gap) if places else ends[name]["mean"])
    over = max(0.0, places[-1] - high) if places else 0.0
    for name, place in zip(by_height, places, strict=True):
        # "relpos": to where the name begins, not below it.
        leader = {"arrowstyle": "-", "color": tints[name], "lw": 0.8, "ls": ":", "shrinkB": 0, "relpos": (0, 0.5)}
        axes.annotate(label(name), (ends[name]["samples"], ends[name]["mean"]), (1.02, place - over),
                      textcoords=axes.get_yaxis_transform(), color=tints[name], fontsize=9, va="center",
                      annotation_clip=False, arrowprops=leader)  # fmt: skip


def _draw_curve(
    axes: Axes,
    curves: pd.DataFrame,
    name: str,
    tint: str,
    words: str = "",
    alpha: float = 1.0,
    lw: float = 1.8,
    band: bool = True,
    ls: str = "",
) -> float:
    """One run's mean with its interval; returns the highest value."""
    curve = curves[curves["name"] == name].sort_values("samples")
    axes.plot(curve["samples"], curve["mean"], color=tint, label=words or label(name), lw=lw, alpha=alpha,
              ms=4.5, markevery=(len(name) % 3, 3), **line_look(name) | ({"ls": ls} if ls else {}))  # fmt: skip
    half = curve["half"].where(band & (curve["seeds"] >= _SEEDS_OF_A_BAND), 0.0)
    axes.fill_between(curve["samples"], curve["mean"] - half, curve["mean"] + half, color=tint, alpha=0.15, lw=0)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return float(curve["mean"].max())


def draw_ends(ends: pd.DataFrame, title: str = "") -> Figure:
    """What each change does to each variant (`ends_table`), a row a change: how soon it learns, and how well.

    A run that does not leave the plateau with each seed is an arrow at the images that it took at least. Intervals are
    those of three seeds or more.
    """
    variants = in_order(ends["variant"])
    tints = colours(variants)
    looks: dict[str, dict[str, Any]] = {
        name: {"marker": line_look(name)["marker"] or "X", "mfc": "white" if "resnet" in name else tints[name]}
        for name in variants
    }
    changes = sorted(set(ends["change"]), key=lambda change: (change != AS_IT_IS, change))
    figure = new_figure(10.5, 0.27 * len(ends) + 1.8, columns=2)
    words = {"images": "images until the plateau ends", "loss": "matching loss at the end"}
    for axes, (value, said) in zip(figure.axes, words.items(), strict=True):
        for row, change in enumerate(changes):
            members = ends[ends["change"] == change]
            members = members.sort_values("variant", key=lambda names: names.map(variants.index), kind="stable")
            for place, (_, one) in enumerate(members.iterrows()):
                tint, height = tints[one["variant"]], row + 0.8 * (place - (len(members) - 1) / 2) / len(variants)
                stays = value == "images" and one["left"] < one["seeds"]
                look = {"marker": ">", "mfc": "none"} if stays else looks[one["variant"]]
                if one["seeds"] >= _SEEDS_OF_A_BAND:
                    axes.plot([one[f"{value}_low"], one[f"{value}_high"]], [height] * 2, color=tint, lw=1.4)
                axes.plot(one[value], height, color=tint, ls="", ms=6, **look)
            axes.axhline(row + 0.5, color="0.9", lw=0.6)
        axes.set_yticks(range(len(changes)), [""] * len(changes))
        axes.set_ylim(len(changes) - 0.5, -0.5)
        axes.set_xlabel(said)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    settings = {change: set(ends[ends["change"] == change]["settings"]) for change in changes}
    below = {change: f"\n{_short(*of)}" if len(of) == 1 and of != {""} else "" for change, of in settings.items()}
    figure.axes[0].set_yticklabels([change + below[change] for change in changes])
    figure.axes[0].tick_params(axis="y", labelsize=8)
    figure.axes[0].set_xlim(0, 1.05 * ends["seen"].max())
    figure.axes[1].axvline(LN2, color="0.5", lw=0.8, ls=":")
    figure.axes[1].set_xlim(0, max(0.8, 1.05 * ends["loss"].max()))
    key = [Line2D([], [], color=tints[name], ls="", label=label(name), **looks[name]) for name in variants]
    key.append(Line2D([], [], color="0.3", ls="", marker=">", mfc="none", label="stays with a seed or more"))
    figure.legend(handles=key, frameon=False, fontsize=9, loc="outside lower center", ncols=6)
    figure.suptitle(title, fontsize=10)
    return figure


def _short(settings: str) -> str:
    """Settings as they are, or where they are long their names alone."""
    if len(settings) <= _LONGEST_LABEL:
        return settings
    return textwrap.fill(", ".join(text.partition("=")[0] for text in settings.split()), _LONGEST_LABEL)


def draw_ablations(runs: pd.DataFrame, title: str = "") -> Figure:
    """Named runs beside the run of their own variant, a column a variant: matching loss above, entropy below.

    The entropy is that of the words' attention to the image: at 1 they look at all of it alike. A run called
    "segl-mlm15" has the colour of every other "…-mlm15". The runs are those of `study.runs.read_runs`. Intervals are
    shaded where a panel has few curves; `draw_ends` has them all.
    """
    named = runs[runs["name"] != runs["variant"]]
    variants = in_order(named["variant"])
    suffixes = {
        name: name.removeprefix(f"{variant}-") for name, variant in zip(named["name"], named["variant"], strict=True)
    }
    changes = sorted(set(suffixes.values()))
    tints = colours(changes)
    # Where there are more changes than colours, the next round is dashed, then dotted.
    lines = {
        change: ("-", "--", ":")[[tints[other] for other in changes[:place]].count(tints[change]) % 3]
        for place, change in enumerate(changes)
    }
    metrics = {"val_itm": "validation matching loss", "val_entropy": "entropy of attention (1: even)"}
    metrics = {name: words for name, words in metrics.items() if name in runs}
    figure = Figure(figsize=(3.6 * len(variants), 2.9 * len(metrics) + 0.8), layout="constrained")
    grid = figure.subplots(len(metrics), len(variants), squeeze=False, sharex=True, sharey="row")
    for row, (metric, words) in zip(grid, metrics.items(), strict=True):
        curves = convergence_curves(runs, metric)
        highest = 0.0
        for axes, variant in zip(row, variants, strict=True):
            changed = sorted(set(named[named["variant"] == variant]["name"]))
            alone = variant in set(runs["name"])
            band = len(changed) + alone <= _CURVES_WITH_BANDS
            if alone:
                highest = max(highest, _draw_curve(axes, curves, variant, "k", AS_IT_IS, band=band))
            for name in changed:
                change = suffixes[name]
                drawn = _draw_curve(axes, curves, name, tints[change], change, band=band, ls=lines[change])
                highest = max(highest, drawn)
            axes.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(words)
        for axes in row if metric == "val_itm" else ():
            draw_chance(axes, highest)
    for axes, variant in zip(grid[0], variants, strict=True):
        axes.set_title(label(variant), fontsize=10)
        axes.legend(frameon=False, fontsize=8, loc="lower left")
    figure.supxlabel(_SEEN, fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def draw_courses(own: pd.DataFrame, reference: pd.DataFrame, end: float, threshold: float) -> Figure:
    """Matching, word and visual loss of runs as far as they have come, over reference runs drawn pale; a panel a loss.

    `own` (`study.ablation.courses`) may be empty; `end` are the images that are drawn at most, `threshold` is a line.
    """
    losses = {"val_itm": "matching loss (dotted: a coin, ln 2)", "val_mlm": "words (MLM)", "val_visual": "visual loss"}
    figure = new_figure(10.5, 4.2, columns=len(losses))
    tints = colours([*(own["name"] if len(own) else ()), *reference["name"]])
    for axes, (value, words) in zip(figure.axes, losses.items(), strict=True):
        highest = 0.0
        for runs, suffix, alpha, lw in ((reference, " (kit)", 0.4, 4.0), (own, "", 1.0, 1.8)):
            measured = runs[(runs["samples"] <= end) & runs[value].notna()] if value in runs else runs[:0]
            curves = convergence_curves(measured, value) if len(measured) else measured
            for name in in_order(curves["name"]) if len(curves) else ():
                shown = label(name) + suffix
                highest = max(highest, _draw_curve(axes, curves, name, tints[name], shown, alpha, lw))
        axes.set_title(words, fontsize=10)
        if value == "val_itm":
            axes.axhline(threshold, color="0.5", lw=0.8, ls="--", label=f"threshold, {threshold:g}")
            draw_chance(axes, highest)
        axes.set_xlabel("images seen")
        axes.set_xlim(0, end)
        axes.set_ylim(bottom=0)
    key = {name: line for axes in figure.axes for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(key.values(), key.keys(), frameon=False, fontsize=9, loc="outside lower center", ncols=5)
    return figure


def draw_trade_off(points: pd.DataFrame, note: str = "") -> Figure:
    """Left the run, right the paper (circles: table II, diamonds: table IV); times on a log scale.

    The two panels share no axis: neither machine, nor corpus, nor scale are the same. What is missing in the left one
    is named below it.
    """
    figure = new_figure(9.5, 4.4, columns=2)
    own, published = figure.axes
    is_own = points["source"] == RUN
    _draw_points(own, points[is_own], RUN, colours(points[is_own]["row"]))
    if own.containers:
        own.legend(frameon=False, fontsize=7)
    _draw_points(published, points[~is_own], "the paper: ○ table II, ◇ table IV", colours())
    # Models of about equal accuracy lie close, so their names take sides in turns.
    by_accuracy = points[~is_own].dropna(subset=["ms", "vqa"]).sort_values("vqa")
    for place, point in enumerate(by_accuracy.to_dict("records")):
        side = 1 if place % 2 else -1
        published.annotate(point["model"], (point["ms"], point["vqa"]), (7 * side, 0), textcoords="offset points",
                           ha="left" if side > 0 else "right", va="center", fontsize=7)  # fmt: skip
    published.set_xlabel("inference time (ms, Nvidia P40, log scale)")
    missing = not_shown(points)
    lines = [note, f"not shown: {', '.join(missing)}" if missing else ""]
    figure.supxlabel("\n".join(line for line in lines if line), fontsize=8, wrap=True)
    return figure


def _draw_points(axes: Axes, points: pd.DataFrame, title: str, tints: Mapping[str, str]) -> None:
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
            color=tints.get(point["row"], OTHER),
            # The paper's other models have no colour of their own, and ResNets that of their ViT: hollow.
            mfc="w" if "resnet" in point["row"] or point["row"] not in tints else None,
            ms=6,
            label=point["model"],
        )
    plain_log_ticks(axes.xaxis)


def draw_claims(table: pd.DataFrame, note: str = "") -> Figure:
    """The claims about scores: a panel a metric, each paired difference with its 95 % interval, marked by verdict.

    A pale band is where the paper's claim has the difference. Hollow points are those that Holm's correction leaves
    undecided. Comparisons that were not run, and claims of other units, are in the table only.
    """
    looks = {CONFIRMED: (RIGHT, "o"), CONTRADICTED: (WRONG, "s")}
    shown = table[(table["unit"] == POINTS) & table["estimate"].notna()]
    panels = list(shown.groupby("metric", sort=False))
    heights = [len(rows) for _, rows in panels] or [4]
    figure = Figure(figsize=(9, 0.22 * sum(heights) + 0.85 * len(heights) + 0.9), layout="constrained")
    grid = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (metric, rows) in zip(grid, panels, strict=False):
        ends = rows[["low", "high"]].fillna({"low": rows["estimate"], "high": rows["estimate"]}).abs()
        reach = 1.15 * max(ends.to_numpy().max(), 1.0)
        for place, row in enumerate(rows.to_dict("records")):
            tint, mark = looks.get(row["verdict"], ("0.35", "D"))
            low, high = _claimed(row["comparison"], reach)
            axes.barh(place, high - low, 0.86, low, color=LINE, alpha=0.12)
            axes.plot([row["low"], row["high"]], [place, place], color=tint, lw=2)
            axes.plot(row["estimate"], place, mark, color=tint, mfc=tint if row["survives"] else "w", ms=5)
            axes.text(
                1.01, place, f"{row['estimate']:+.1f}", transform=axes.get_yaxis_transform(), fontsize=8, va="center"
            )
        axes.axvline(0, color="0.5", lw=0.8, ls=":")
        axes.set_xlim(-reach, reach)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), list(rows["comparison"]), fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.set_title(str(metric), fontsize=10, loc="left")
    if not panels:
        grid[0].text(0.5, 0.5, "no two variants with scores", ha="center", va="center", color="0.4")
        grid[0].set_axis_off()
    grid[-1].set_xlabel("difference in points of %")
    neither = "neither (coloured and hollow: not with Holm's correction)"
    key = [
        Patch(color=LINE, alpha=0.12, label="what the paper claims"),
        *(Line2D([], [], color=tint, marker=mark, ls="", ms=5, label=words) for words, (tint, mark) in looks.items()),
        Line2D([], [], color="0.35", marker="D", mfc="w", ls="", ms=5, label=neither),
    ]
    single = len(shown) and shown["low"].isna().all()
    title = f"{note} – a single seed gives no interval and decides nothing" if single else note
    figure.legend(
        handles=key, title=title, loc="outside upper center", ncols=4, fontsize=8, title_fontsize=9, frameon=False
    )
    return figure


def _claimed(comparison: str, reach: float) -> tuple[float, float]:
    """Where a claim has a difference, by its words: within so much of 0, less than so much, or above 0."""
    found = re.search(r" (within|less than) ([\d.]+)", comparison)
    if not found:
        return 0.0, reach
    bound = float(found[2])
    return (-bound if found[1] == "within" else -reach), bound


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
            shares.barh(place, took / total, left=left, color=STAGES[stage], height=0.7)
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
    present = [stage for stage in STAGES if any(stage in row["stages_ms"] for row in rows)]
    shares.legend(handles=[Patch(color=STAGES[stage], label=stage) for stage in present], frameon=False, fontsize=8,
                  loc="center left", bbox_to_anchor=(1, 0.5))  # fmt: skip
    figure.suptitle(note, fontsize=9)
    return figure
