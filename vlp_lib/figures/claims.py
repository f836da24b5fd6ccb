"""The paper's claims (the last section of the project's reading of it) against a run: each comparison and its verdict.

A comparison of scores is paired: the difference of two variants with the same seed, its mean over seeds and 95 %
interval (Student's t). It is confirmed or contradicted where the interval leaves 0 out. Two variants that the paper has
"about equal" are so where the interval stays within a margin, and are not where it lies beyond: the margin is the
smallest step between two groups of that ranking in the paper's own numbers. Times are compared by the ratio of their
medians, its bounds being those of the 5th and 95th percentiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise, product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vlp_lib import paper
from vlp_lib.config import VARIANTS, Variant, parse_variant
from vlp_lib.figures.convergence import CONFIRMED, CONTRADICTED, LN2, UNDECIDED, order_statistics, verdict
from vlp_lib.figures.speed import paper_ms
from vlp_lib.figures.style import label
from vlp_lib.paper import CLAIMS, Claim, Ranking
from vlp_lib.study.runs import NOT_RUN, interval, read_runs
from vlp_lib.study.scores import NOT_SCORED, Results, contender

UNDECIDED_TIMES = "not decidable with these runs"

PIPELINE_FACTOR = 10.0
"""How many times as long region pipelines take, by the claim ("more than 10 times as long")."""

_SCORES = {
    "coco_5k_tr_r1": ("all", "text_r1", "text R@1, whole gallery"),
    "coco_5k_ir_r1": ("all", "image_r1", "image R@1, whole gallery"),
    "coco_1k_tr_r1": ("folds", "text_r1", "text R@1, folds"),
    "coco_1k_ir_r1": ("folds", "image_r1", "image R@1, folds"),
}
"""Retrieval's metrics of the claims: the run's gallery and metric, and how the table calls them."""

_POINTS, _TIMES, _LOSS = "points of %", "times", "matching loss"
_COLOURS = {CONFIRMED: "#00664b", CONTRADICTED: "#a33c00"}


def claims_table(results: Results) -> pd.DataFrame:
    """A row a comparison.

    Columns: claim, metric, comparison, paper (its numbers), estimate with low and high (the difference, ratio or loss
    and its bounds; NaN where unknown) in `unit`, from (seeds or runs), verdict: "confirmed", "contradicted", "not
    decidable with these …", "not run" or "not scored" (there is no such score, such as folds of a small gallery).
    """
    makers = {
        "convergence": _convergence,
        "vqa": _scores,
        "retrieval": _retrieval,
        "inference": _inference,
        "joint_losses": _joint,
    }
    return pd.DataFrame({"claim": claim.id} | row for claim in CLAIMS for row in makers[claim.id](results, claim))


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """A row a claim: its words, where the paper says so, and how many of its comparisons got which verdict."""
    rows = []
    for claim in CLAIMS:
        found = table[table["claim"] == claim.id]["verdict"]
        rows.append(
            {
                "claim": claim.text,
                "where": claim.where,
                "comparisons": len(found),
                CONFIRMED: int((found == CONFIRMED).sum()),
                CONTRADICTED: int((found == CONTRADICTED).sum()),
                "not decidable": int(found.str.startswith("not decidable").sum()),
                "not run or scored": int(found.isin([NOT_RUN, NOT_SCORED]).sum()),
            }
        )
    return pd.DataFrame(rows)


# ---------------------------------------------------------------------------------------------------- verdicts


def equivalence(first: np.ndarray, second: np.ndarray, margin: float) -> tuple[float, float, str]:
    """Whether two paired sets of scores differ by less than a margin: mean of first − second, half-width, verdict.

    "confirmed" where the 95 % interval lies within ±margin, "contradicted" where it lies beyond on one side.
    """
    difference, half = interval(first - second)
    if abs(difference) + half <= margin:
        return difference, half, CONFIRMED
    return difference, half, CONTRADICTED if abs(difference) - half > margin else UNDECIDED


def no_gain(more: np.ndarray, best: np.ndarray, margin: float) -> tuple[float, float, str]:
    """Whether the first of two paired sets of scores is not the higher: mean of more − best, half-width, verdict.

    "confirmed" where the 95 % interval stays below the margin, "contradicted" where it lies above 0 (and not all below
    the margin).
    """
    difference, half = interval(more - best)
    if difference + half < margin:
        return difference, half, CONFIRMED
    return difference, half, CONTRADICTED if difference - half > 0 else UNDECIDED


def above(low: float, high: float, bound: float) -> str:
    """Whether a ratio with these bounds is above a bound."""
    return CONFIRMED if low > bound else CONTRADICTED if high < bound else UNDECIDED_TIMES


def within(low: float, high: float, factor: float) -> str:
    """Whether a ratio with these bounds lies between 1 / factor and factor."""
    if low >= 1 / factor and high <= factor:
        return CONFIRMED
    return CONTRADICTED if low > factor or high < 1 / factor else UNDECIDED_TIMES


# ---------------------------------------------------------------------------------------------------- rows


def _row(metric: str, comparison: str, said: str, unit: str) -> dict[str, Any]:
    """A comparison that was not run."""
    unknown = dict.fromkeys(("estimate", "low", "high"), math.nan)
    about = {"metric": metric, "comparison": comparison, "paper": said}
    return about | unknown | {"unit": unit, "from": "", "verdict": NOT_RUN}


def _decided(found: tuple[float, float, str], seeds: int) -> dict[str, Any]:
    mean, half, decision = found
    numbers = {"estimate": mean, "low": mean - half, "high": mean + half}
    return numbers | {"from": f"{seeds} seed{'' if seeds == 1 else 's'}", "verdict": decision}


def _pairs(ranking: Ranking) -> Iterator[tuple[str, str]]:
    """Better and worse: of neighbouring groups, and of every group with the last."""
    *_, last = ranking.groups
    neighbours = [pair for two in pairwise(ranking.groups) for pair in product(*two)]
    yield from dict.fromkeys([*neighbours, *(p for group in ranking.groups[:-1] for p in product(group, last))])


def _published(metric: str, row: str) -> float:
    """The paper's number for a variant in a ranking, from the first table that has it; fractions in percent."""
    cell = next(cell for cell in paper.values() if (cell.column, cell.row) == (metric, row))
    assert isinstance(cell.value, float)
    return 100 * cell.value if cell.unit == "fraction" else cell.value


def smallest_step(ranking: Ranking) -> float:
    """The smallest difference that the paper reports between members of neighbouring groups of a ranking."""
    pairs = (pair for two in pairwise(ranking.groups) for pair in product(*two))
    return min(abs(_published(ranking.metric, a) - _published(ranking.metric, b)) for a, b in pairs)


def _selection(results: Results, metric: str) -> tuple[str, str, str, str]:
    """Task, split, metric and words of a claim's metric in the run's scores."""
    if metric == "vqa":
        split = results.split("vqa")
        return "vqa", split, "overall", f"VQA accuracy, {split}"
    gallery, name, words = _SCORES[metric]
    return "retrieval", gallery, name, words


def _together(results: Results, metric: str, variants: Sequence[str]) -> pd.DataFrame:
    """Scores in percent, a row a seed that all of the variants have, a column a variant."""
    task, split, name, _ = _selection(results, metric)
    return pd.DataFrame({one: results.values(task, one, split, name) for one in variants}).dropna()


def _missing(results: Results, metric: str, variants: Sequence[str]) -> str:
    """Why variants cannot be compared: one was not run, or not scored so; "" where nothing is missing."""
    task, split, name, _ = _selection(results, metric)
    without = [one for one in variants if results.values(task, one, split, name).empty]
    if not without:
        return ""
    return NOT_SCORED if all(results.seeds(task, one) for one in without) else NOT_RUN


def _scores(results: Results, claim: Claim) -> Iterator[dict[str, Any]]:
    """The comparisons of a claim about scores."""
    for ranking in claim.rankings:
        margin = smallest_step(ranking)
        near = [pair for group in ranking.groups for pair in combinations(group, 2)]
        # What is in one group only because the claim does not order it, is not compared.
        near = [(a, b) for a, b in near if abs(_published(ranking.metric, a) - _published(ranking.metric, b)) < margin]
        for (first, second), equal in [(p, False) for p in _pairs(ranking)] + [(p, True) for p in near]:
            words = f"{label(first)} {'≈' if equal else '>'} {label(second)}"
            words += f" within {margin:.3g}" if equal else ""
            said = f"{_published(ranking.metric, first):g} and {_published(ranking.metric, second):g}"
            row = _row(_selection(results, ranking.metric)[-1], words, said, _POINTS)
            missing = _missing(results, ranking.metric, (first, second))
            if missing:
                yield row | {"verdict": missing}
                continue
            a, b = _together(results, ranking.metric, (first, second)).to_numpy().T
            yield row | _decided(equivalence(a, b, margin) if equal else verdict(b, a), len(a))


def _retrieval(results: Results, claim: Claim) -> Iterator[dict[str, Any]]:
    """The order, and that the naive model is far behind: further from the next than the others lie apart."""
    yield from _scores(results, claim)
    for ranking in claim.rankings:
        *better, (naive,) = ranking.groups
        names = [name for group in better for name in group]
        if len(names) < 2:
            continue
        published = np.array([_published(ranking.metric, name) for name in names])
        gap, apart = published.min() - _published(ranking.metric, naive), np.ptp(published)
        words = f"{label(naive)} further behind the next than the others lie apart"
        row = _row(_selection(results, ranking.metric)[-1], words, f"{gap:g} and {apart:g}", _POINTS)
        missing = _missing(results, ranking.metric, [*names, naive])
        if missing:
            yield row | {"verdict": missing}
            continue
        scores = _together(results, ranking.metric, [*names, naive]).to_numpy()
        behind = scores[:, :-1].min(axis=1) - scores[:, -1]
        yield row | _decided(verdict(np.ptp(scores[:, :-1], axis=1), behind), len(scores))


def _convergence(results: Results, claim: Claim) -> Iterator[dict[str, Any]]:
    """The order of the validation matching losses, of which the paper prints curves without numbers."""
    if not results.pretraining:
        yield _row("validation matching loss", claim.text, "", _LOSS)
        return
    for one in order_statistics(read_runs(results.root, "pretrain")):
        row = _row(
            "validation matching loss", one["claim"], "" if one["pair"] else f"0.9 ln 2 = {0.9 * LN2:.3f}", _LOSS
        )
        if one["seeds"] is not None:
            row |= _decided((one["mean"], one["half"], one["verdict"]), one["seeds"])
        yield row


def _inference(results: Results, claim: Claim) -> Iterator[dict[str, Any]]:
    """How many times as long one model takes as another; the region model with its detector."""
    for ranking in claim.rankings:
        factor = min(_paper_ratio(a, b) for two in pairwise(ranking.groups) for a, b in product(*two))
        for first, second in _pairs(ranking):
            bound = PIPELINE_FACTOR if second == "region" else 1.0
            words = f"{label(second)} takes more than {bound:g}× as long as {label(first)}"
            words = f"{label(first)} faster than {label(second)}" if bound == 1 else words
            found = _ratio(results, first, second)
            yield _timed(words, first, second, found, found and above(*found[1:3], bound))
        for group in ranking.groups:
            for other in group[1:]:
                found = _ratio(results, group[0], other)
                words = f"{label(other)} as fast as {label(group[0])} within a factor of {factor:.3g}"
                yield _timed(words, group[0], other, found, found and within(*found[1:3], factor))


def _paper_ratio(first: str, second: str) -> float:
    """How many times as long the second takes in the paper."""
    times = [paper.parse(paper_ms(contender(name))) for name in (first, second)]
    assert times[0] is not None and times[1] is not None
    return times[1] / times[0]


def _ratio(results: Results, first: str, second: str) -> tuple[float, float, float, str] | None:
    """The second's time over the first's, its bounds and the numbers of runs; None where one was not timed."""
    a, b = results.time(first), results.time(second)
    if a is None or b is None:
        return None
    bounds = b["p5_ms"] / a["p95_ms"], b["p95_ms"] / a["p5_ms"]
    return b["median_ms"] / a["median_ms"], *bounds, f"{a['runs']} and {b['runs']} runs"


def _timed(
    words: str, first: str, second: str, found: tuple[float, float, float, str] | None, decision: str | None
) -> dict[str, Any]:
    said = f"{paper_ms(contender(first))} and {paper_ms(contender(second))} ms"
    row = _row("inference time", words, said, _TIMES)
    if found is not None:
        row |= dict(zip(("estimate", "low", "high", "from"), found, strict=True)) | {"verdict": decision}
    return row


def _joint(results: Results, claim: Claim) -> Iterator[dict[str, Any]]:
    """Each mix of losses against the best variant of one loss, which is chosen by its mean over the mix's seeds."""
    rankings = {r.metric: r for one in CLAIMS if one.id in ("vqa", "retrieval") for r in reversed(one.rankings)}
    mixes = [name for name in results.variants if len(parse_variant(name).losses) > 1]
    if not mixes:
        yield _row("VQA accuracy and retrieval R@1", claim.text, "no numbers", _POINTS)
    for mix, (metric, ranking) in product(mixes, rankings.items()):
        margin, words = smallest_step(ranking), _selection(results, metric)[-1]
        singles = [name for name in results.variants if _is_single(VARIANTS.get(name), parse_variant(mix).vision)]
        singles = [name for name in singles if not _missing(results, metric, (mix, name))]
        row = _row(words, f"{mix} gains less than {margin:.3g} over the best single loss", "no numbers", _POINTS)
        if singles:
            means = {name: _together(results, metric, (mix, name))[name].mean() for name in singles}
            best = max(singles, key=lambda name: -math.inf if math.isnan(means[name]) else means[name])
            both = _together(results, metric, (mix, best))
            row["comparison"] = f"{mix} gains less than {margin:.3g} over {label(best)}"
            row |= _decided(no_gain(both[mix].to_numpy(), both[best].to_numpy(), margin), len(both))
        yield row


def _is_single(variant: Variant | None, vision: str) -> bool:
    return variant is not None and variant.vision == vision and len(variant.losses) == 1


# ---------------------------------------------------------------------------------------------------- picture


def draw_claims(table: pd.DataFrame, note: str = "") -> Figure:
    """The claims about scores: a panel a metric, each paired difference with its 95 % interval, coloured by verdict.

    Comparisons that were not run, and claims of other units, are in the table only.
    """
    shown = table[(table["unit"] == _POINTS) & table["estimate"].notna()]
    panels = list(shown.groupby("metric", sort=False))
    heights = [len(rows) for _, rows in panels] or [4]
    figure = Figure(figsize=(8.5, 0.24 * sum(heights) + 0.75 * len(heights) + 0.6), layout="constrained")
    grid = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
    for axes, (metric, rows) in zip(grid, panels, strict=False):
        for place, row in enumerate(rows.to_dict("records")):
            tint = _COLOURS.get(row["verdict"], "0.5")
            axes.plot([row["low"], row["high"]], [place, place], color=tint, lw=2)
            axes.plot(row["estimate"], place, "o", color=tint, ms=5)
        axes.axvline(0, color="0.5", lw=0.8, ls=":")
        axes.set_yticks(range(len(rows)), list(rows["comparison"]), fontsize=8)
        axes.invert_yaxis()
        axes.set_title(str(metric), fontsize=10, loc="left")
    if not panels:
        grid[0].text(0.5, 0.5, "no two variants with scores", ha="center", va="center", color="0.4")
        grid[0].set_axis_off()
    grid[-1].set_xlabel("difference in points of %")
    figure.suptitle(f"green: confirmed, red: contradicted, grey: not decidable\n{note}", fontsize=9)
    return figure
