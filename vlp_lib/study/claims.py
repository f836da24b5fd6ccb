"""The paper's claims (the last section of the project's reading of it) against a run: each comparison and its verdict.

A comparison of scores is paired: the difference of two variants with the same seed on the same items, and its interval
over seeds and items (`verdicts`). Two variants that the paper has "about equal" are so where the interval stays within
a margin, and are not where it lies beyond: the margin is the smallest step between two groups of that ranking in the
paper's own numbers. Times are compared by the ratio of their medians, its bounds being those of the 5th and 95th
percentiles. Beside each verdict stands whether it survives Holm's correction within its claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd

from vlp_lib import paper
from vlp_lib.paper import CLAIMS, Claim, Ranking
from vlp_lib.study.convergence import statements
from vlp_lib.study.runs import NOT_RUN, baseline, label, read_runs
from vlp_lib.study.scores import NOT_SCORED, Results, paper_ms
from vlp_lib.study.verdicts import (
    AT_CHANCE,
    CONFIRMED,
    CONTRADICTED,
    DECIDED,
    SAME,
    Decision,
    above,
    difference,
    equal,
    higher,
    holm,
    no_gain,
    within,
)
from vlp_lib.variants import VARIANTS

PIPELINE_FACTOR = 10.0
"""How many times as long region pipelines take, by the claim ("more than 10 times as long")."""

POINTS = "points of %"
"""The unit of a difference of scores."""

SMALLEST_POINTS = 1.0
"""The smallest difference of scores that matters, in points of per cent; scores within it of guessing are at chance."""

_SCORES = {
    "coco_5k_tr_r1": ("retrieval", "all", "text_r1", "text R@1, whole gallery"),
    "coco_5k_ir_r1": ("retrieval", "all", "image_r1", "image R@1, whole gallery"),
    "coco_1k_tr_r1": ("retrieval", "folds", "text_r1", "text R@1, folds"),
    "coco_1k_ir_r1": ("retrieval", "folds", "image_r1", "image R@1, folds"),
}
"""Retrieval's metrics of the claims: the run's task, gallery and metric, and how the table calls them."""

Rule = Callable[..., Decision]
"""Decides from the scores of each variant of a comparison, an array [seeds, items] a variant."""


def claims_table(results: Results) -> pd.DataFrame:
    """A row a comparison.

    Columns: claim, metric, comparison, paper (its numbers), estimate with low and high (the difference or ratio and its
    bounds; NaN where unknown) in `unit`, from (seeds and items, or runs), verdict (those of `verdicts`, "not run" or
    "not scored": there is no such score, such as folds of a small gallery), p, Holm (p adjusted within the claim) and
    survives (whether a decided comparison is still decided with it).
    """
    makers = {
        "convergence": _convergence,
        "vqa": _scores,
        "retrieval": _retrieval,
        "inference": _inference,
        "joint_losses": _joint,
    }
    table = pd.DataFrame({"claim": claim.id} | row for claim in CLAIMS for row in makers[claim.id](results, claim))
    table["Holm"] = table.groupby("claim")["p"].transform(lambda p: holm(p))
    table["survives"] = table["verdict"].isin(DECIDED) & ~(table["Holm"] >= 0.05)  # times have no p-value
    return table


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """A row a claim: its words, where the paper says so, and how many of its comparisons got which verdict."""
    rows = []
    for claim in CLAIMS:
        rows_of = table[table["claim"] == claim.id]
        verdicts = rows_of["verdict"]
        rows.append(
            {
                "claim": claim.text,
                "where": claim.where,
                "comparisons": len(verdicts),
                **{verdict: int((verdicts == verdict).sum()) for verdict in (CONFIRMED, CONTRADICTED, SAME)},
                "neither got there": int(verdicts.str.startswith("neither").sum()),
                "not decidable": int(verdicts.str.startswith("not decidable").sum()),
                "not run or scored": int(verdicts.isin([NOT_RUN, NOT_SCORED]).sum()),
                "decided, with Holm": int(rows_of["survives"].sum()),
            }
        )
    return pd.DataFrame(rows)


def smallest_step(ranking: Ranking) -> float:
    """The smallest difference that the paper reports between members of neighbouring groups of a ranking."""
    return min(_apart(ranking, *pair) for pair in ranking.neighbours)


def _published(metric: str, row: str) -> float:
    """The paper's number for a variant in a ranking, from the first table that has it; fractions in percent."""
    cell = next(cell for cell in paper.values() if (cell.column, cell.row) == (metric, row))
    assert isinstance(cell.value, float)
    return 100 * cell.value if cell.unit == "fraction" else cell.value


def _apart(ranking: Ranking, first: str, second: str) -> float:
    return abs(_published(ranking.metric, first) - _published(ranking.metric, second))


def _said(ranking: Ranking, first: str, second: str) -> str:
    return f"{_published(ranking.metric, first):g} and {_published(ranking.metric, second):g}"


def _pairs(ranking: Ranking) -> list[tuple[str, str]]:
    """Better and worse: of neighbouring groups, and of every group with the last."""
    *better, last = ranking.groups
    return list(dict.fromkeys([*ranking.neighbours, *(pair for group in better for pair in product(group, last))]))


def _row(metric: str, words: str, said: str, unit: str, verdict: str = NOT_RUN) -> dict[str, Any]:
    """A comparison without numbers."""
    unknown = dict.fromkeys(("estimate", "low", "high", "p"), math.nan)
    row = {"metric": metric, "comparison": words, "paper": said, **unknown}
    return row | {"unit": unit, "from": "", "verdict": verdict}


def _decided(decision: Decision) -> dict[str, Any]:
    """What a comparison over seeds adds to its row."""
    found = decision.estimate
    source = f"{found.seeds} seed{'' if found.seeds == 1 else 's'}"
    source += f", {found.items:,} items" if found.items > 1 else ""
    numbers = {"estimate": found.mean, "low": found.low, "high": found.high, "p": decision.p}
    return numbers | {"from": source, "verdict": decision.verdict}


class _Metric:
    """A metric of the claims in the run's scores; `words` is what the table calls it."""

    def __init__(self, results: Results, column: str) -> None:
        split = results.split("vqa")
        vqa = ("vqa", split, "overall", f"VQA accuracy, {split}")
        self.task, self.split, self.name, self.words = vqa if column == "vqa" else _SCORES[column]
        self.results = results
        self.naive = baseline(results.scores["name"])

    def run(self, name: str) -> str:
        """The run that stands for one of the paper's models."""
        return self.naive if name == "naive_vit" else name

    def missing(self, names: Sequence[str]) -> str:
        """Why names cannot be compared: one was not run, or not scored so; "" where nothing is missing."""
        without = [name for name in names if self.results.values(self.task, name, self.split, self.name).empty]
        if not without:
            return ""
        return NOT_SCORED if all(self.results.seeds(self.task, name) for name in without) else NOT_RUN

    def row(self, words: str, said: str, names: Sequence[str], rule: Rule) -> dict[str, Any]:
        """A comparison of these names by a rule, or why there is none."""
        missing = self.missing(names)
        if missing:
            return _row(self.words, words, said, POINTS, missing)
        scores = self.results.together(self.task, names, self.split, self.name)
        decision = rule(*scores)
        chance = self.results.chance(self.task, self.split, self.name)
        if scores[0].size and all(array.mean() < chance + SMALLEST_POINTS for array in scores):
            decision = decision._replace(verdict=AT_CHANCE)
        return _row(self.words, words, said, POINTS) | _decided(decision)


def _scores(results: Results, claim: Claim) -> Iterator[dict[str, Any]]:
    """The comparisons of a claim about scores."""
    for ranking in claim.rankings:
        metric, margin = _Metric(results, ranking.metric), smallest_step(ranking)
        for better, worse in _pairs(ranking):
            words = f"{label(better)} > {label(metric.run(worse))}"
            yield metric.row(words, _said(ranking, better, worse), (better, metric.run(worse)), _higher)
        for pair in (pair for group in ranking.groups for pair in combinations(group, 2)):
            # What is in one group only because the claim does not order it, is not compared.
            if _apart(ranking, *pair) < margin:
                words = f"{label(pair[0])} ≈ {label(pair[1])} within {margin:.3g}"
                yield metric.row(words, _said(ranking, *pair), pair, partial(_equal, margin=margin))


def _higher(first: np.ndarray, second: np.ndarray) -> Decision:
    return higher(difference(first, second), SMALLEST_POINTS)


def _equal(first: np.ndarray, second: np.ndarray, margin: float) -> Decision:
    return equal(difference(first, second), margin)


def _no_gain(more: np.ndarray, best: np.ndarray, margin: float) -> Decision:
    return no_gain(difference(more, best), margin)


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
        metric = _Metric(results, ranking.metric)
        words = f"{label(metric.run(naive))} further behind the next than the others lie apart"
        yield metric.row(words, f"{gap:g} and {apart:g}", [*names, metric.run(naive)], _far_behind)


def _far_behind(*scores: np.ndarray) -> Decision:
    """Whether the last is further behind the worst of the others than those lie apart, by the means of each seed."""
    *better, last = (array.mean(1) for array in scores)
    return higher(difference(np.min(better, axis=0) - last, np.ptp(better, axis=0)), SMALLEST_POINTS)


def _convergence(results: Results, claim: Claim) -> Iterator[dict[str, Any]]:
    """How many times as many images one model takes as another, of which the paper prints curves without numbers."""
    metric, unit = "images until a matching loss", "times"
    if not results.pretraining:
        yield _row(metric, claim.text, "", unit)
        return
    for words, decision in statements(read_runs(results.root, "pretrain")):
        row = _row(metric, words, "", unit)
        if decision is not None:
            row |= _decided(decision)
            row |= {name: math.exp(row[name]) for name in ("estimate", "low", "high")}
        yield row


def _inference(results: Results, claim: Claim) -> Iterator[dict[str, Any]]:
    """How many times as long one model takes as another; the region model with its detector."""
    for ranking in claim.rankings:
        factor = min(_paper_ratio(*pair) for pair in ranking.neighbours)
        for first, second in _pairs(ranking):
            bound = PIPELINE_FACTOR if second == "region" else 1.0
            words = f"{label(second)} takes more than {bound:g}× as long as {label(first)}"
            words = f"{label(first)} faster than {label(second)}" if bound == 1 else words
            yield _timed(results, words, first, second, partial(above, bound=bound, of="runs"))
        for first, *others in ranking.groups:
            for other in others:
                words = f"{label(other)} as fast as {label(first)} within a factor of {factor:.3g}"
                yield _timed(results, words, first, other, partial(within, least=1 / factor, most=factor, of="runs"))


def _paper_ratio(first: str, second: str) -> float:
    """How many times as long the second takes in the paper."""
    times = [paper.parse(paper_ms(name)) for name in (first, second)]
    assert times[0] is not None and times[1] is not None
    return times[1] / times[0]


def _timed(
    results: Results, words: str, first: str, second: str, rule: Callable[[float, float], str]
) -> dict[str, Any]:
    """The second's time over the first's, judged by its bounds."""
    row = _row("inference time", words, f"{paper_ms(first)} and {paper_ms(second)} ms", "times")
    a, b = results.time(first), results.time(second)
    if a is None or b is None:
        return row
    low, high = b["p5_ms"] / a["p95_ms"], b["p95_ms"] / a["p5_ms"]
    numbers = {"estimate": b["median_ms"] / a["median_ms"], "low": low, "high": high}
    return row | numbers | {"from": f"{a['runs']} and {b['runs']} runs", "verdict": rule(low, high)}


def _joint(results: Results, claim: Claim) -> Iterator[dict[str, Any]]:
    """Each mix of losses against its best single loss on test: the best by the validation loss of the pretraining.

    To choose it on the scores that are compared would count its luck as skill.
    """
    rankings = {r.metric: r for one in CLAIMS if one.id in ("vqa", "retrieval") for r in reversed(one.rankings)}
    mixes = [name for name in results.names if "+" in name]
    if not mixes:
        yield _row("VQA accuracy and retrieval R@1", claim.text, "no numbers", POINTS)
    for mix, (column, ranking) in product(mixes, rankings.items()):
        metric, margin = _Metric(results, column), smallest_step(ranking)
        vision = "resnet" if mix.endswith("@resnet") else "vit"
        singles = [name for name, one in VARIANTS.items() if one.vision == vision and len(one.losses) == 1]
        singles = [name for name in singles if not metric.missing((mix, name)) and name in results.matching]
        if not singles:
            words = f"{mix} gains less than {margin:.3g} over the best single loss"
            yield _row(metric.words, words, "no numbers", POINTS)
            continue
        best = min(singles, key=lambda name: results.matching[name])
        words = f"{mix} gains less than {margin:.3g} over {label(best)}"
        yield metric.row(words, "no numbers", (mix, best), partial(_no_gain, margin=margin))
