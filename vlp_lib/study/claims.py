"""The paper's claims (the last section of the project's reading of it) against a run: each comparison and its verdict.

A comparison of scores is paired: the difference of two variants with the same seed on the same items, and its interval
over seeds and items (`verdicts`). Two variants that the paper has "about equal" are so where the interval stays within
a margin, and are not where it lies beyond: the margin is the smallest step between two groups of that ranking in the
paper's own numbers. Times are compared round by round (in a round every model answers once, a slow one in some rounds
only): by the mean of the ratios' logarithms and its interval over the rounds that both have. Beside each verdict stands
whether it survives Holm's correction within its claim.
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
from vlp_lib.study.runs import NOT_RUN, baseline, label
from vlp_lib.study.scores import NOT_SCORED, Results, paper_ms
from vlp_lib.study.verdicts import (
    AT_CHANCE,
    CONFIRMED,
    CONTRADICTED,
    DECIDED,
    SAME,
    Decision,
    Estimate,
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


_BOUNDS = {">": ("at least", "high"), "<": ("at most", "low"), "?": ("not known", "estimate", "low", "high")}
"""How the table says that an estimate is a bound, and which numbers are then unknown."""


def claims_table(results: Results) -> pd.DataFrame:
    """A row a comparison.

    Columns: claim, metric, comparison, paper (its numbers), estimate with low and high (the difference or ratio and its
    bounds; NaN where unknown) in `unit`, from (seeds and items, or rounds), verdict (those of `verdicts`, "not run" or
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
    table["survives"] = table["verdict"].isin(DECIDED) & (table["Holm"] < 0.05)
    return table


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """A row a claim: its words, where the paper says so, and how many of its comparisons got which verdict."""
    rows = []
    for claim in CLAIMS:
        own = table[table["claim"] == claim.id]
        verdicts = own["verdict"]
        rows.append(
            {
                "claim": claim.text,
                "where": claim.where,
                "comparisons": len(own),
                **{verdict: (verdicts == verdict).sum() for verdict in (CONFIRMED, CONTRADICTED, SAME)},
                "neither got there": verdicts.str.startswith("neither").sum(),
                "not decidable": verdicts.str.startswith("not decidable").sum(),
                "not run or scored": verdicts.isin([NOT_RUN, NOT_SCORED]).sum(),
                "decided, with Holm": own["survives"].sum(),
            }
        )
    return pd.DataFrame(rows)


def smallest_step(ranking: Ranking) -> float:
    """The smallest difference that the paper reports between members of neighbouring groups of a ranking."""
    published = partial(_published, ranking.metric)
    return min(abs(published(first) - published(second)) for first, second in ranking.neighbours)


def _published(metric: str, row: str) -> float:
    """The paper's number for a variant in a ranking, from the first table that has it; fractions in percent."""
    cell = next(cell for cell in paper.values() if (cell.column, cell.row) == (metric, row))
    assert isinstance(cell.value, float)
    return 100 * cell.value if cell.unit == "fraction" else cell.value


def _pairs(ranking: Ranking) -> list[tuple[str, str]]:
    """Better and worse: of neighbouring groups, and of every group with the last."""
    *better, last = ranking.groups
    return list(dict.fromkeys([*ranking.neighbours, *(pair for group in better for pair in product(group, last))]))


def _row(metric: str, words: str, said: str, unit: str, decision: Decision | str = NOT_RUN) -> dict[str, Any]:
    """A comparison with what it came to, or with why there are no numbers."""
    row = {"metric": metric, "comparison": words, "paper": said}
    if isinstance(decision, str):
        unknown = dict.fromkeys(("estimate", "low", "high", "p"), math.nan)
        return row | unknown | {"unit": unit, "from": "", "verdict": decision}
    found = decision.estimate
    numbers = {"estimate": found.mean, "low": found.low, "high": found.high, "p": decision.p}
    source = f"{found.seeds} seed{'' if found.seeds == 1 else 's'}"
    source += f", {found.items:,} items" if found.items > 1 else ""
    return row | numbers | {"unit": unit, "from": source, "verdict": decision.verdict}


class _Metric:
    """A metric of the claims in the run's scores; `words` is what the table calls it."""

    def __init__(self, results: Results, column: str) -> None:
        split = results.split("vqa")
        vqa = ("vqa", split, "overall", f"VQA accuracy, {split}")
        self.task, self.split, self.name, self.words = vqa if column == "vqa" else _SCORES[column]
        self.results = results

    def missing(self, names: Sequence[str]) -> str:
        """Why names cannot be compared: one was not run, or not scored so; "" where nothing is missing."""
        without = [name for name in names if self.results.values(self.task, name, self.split, self.name).empty]
        if not without:
            return ""
        return NOT_SCORED if all(self.results.seeds(self.task, name) for name in without) else NOT_RUN

    def row(
        self,
        words: str,
        said: str,
        names: Sequence[str],
        rule: Callable[[Estimate, float], Decision],
        margin: float = SMALLEST_POINTS,
        between: Callable[..., Estimate] = difference,
    ) -> dict[str, Any]:
        """A comparison of these names: a rule on the difference `between` their scores, or why there is none."""
        missing = self.missing(names)
        if missing:
            return _row(self.words, words, said, POINTS, missing)
        scores = self.results.together(self.task, names, self.split, self.name)
        decision = rule(between(*scores), margin)
        chance = self.results.chance(self.task, self.split, self.name)
        if scores[0].size and all(array.mean() < chance + SMALLEST_POINTS for array in scores):
            decision = decision._replace(verdict=AT_CHANCE, p=1.0)
        return _row(self.words, words, said, POINTS, decision)


def _scores(results: Results, claim: Claim) -> Iterator[dict[str, Any]]:
    """The comparisons of a claim about scores."""
    naive = baseline(results.scores["name"])
    for ranking in claim.rankings:
        metric, margin = _Metric(results, ranking.metric), smallest_step(ranking)
        published = partial(_published, ranking.metric)
        for better, worse in _pairs(ranking):
            own = naive if worse == "naive_vit" else worse
            said = f"{published(better):g} and {published(worse):g}"
            yield metric.row(f"{label(better)} > {label(own)}", said, (better, own), higher)
        for first, second in (pair for group in ranking.groups for pair in combinations(group, 2)):
            # What is in one group only because the claim does not order it, is not compared.
            if abs(published(first) - published(second)) < margin:
                said = f"{published(first):g} and {published(second):g}"
                words = f"{label(first)} ≈ {label(second)} within {margin:.3g}"
                yield metric.row(words, said, (first, second), equal, margin)


def _retrieval(results: Results, claim: Claim) -> Iterator[dict[str, Any]]:
    """The order, and that the naive model is far behind: further from the next than the others lie apart."""
    yield from _scores(results, claim)
    for ranking in claim.rankings:
        *better, (worst,) = ranking.groups
        names = [name for group in better for name in group]
        if len(names) < 2:
            continue
        published = np.array([_published(ranking.metric, name) for name in names])
        gap, apart = published.min() - _published(ranking.metric, worst), np.ptp(published)
        own = baseline(results.scores["name"]) if worst == "naive_vit" else worst
        words = f"{label(own)} further behind the next than the others lie apart"
        metric = _Metric(results, ranking.metric)
        yield metric.row(words, f"{gap:g} and {apart:g}", [*names, own], higher, between=_behind)


def _behind(*scores: np.ndarray) -> Estimate:
    """How much further the last is behind the worst of the others than those lie apart, by the means of each seed."""
    *better, last = (array.mean(1) for array in scores)
    return difference(np.min(better, axis=0) - last, np.ptp(better, axis=0))


def _convergence(results: Results, claim: Claim) -> Iterator[dict[str, Any]]:
    """How many times as many images one model takes as another, of which the paper prints curves without numbers."""
    metric, unit = "images until a matching loss", "times"
    if not results.pretraining:
        yield _row(metric, claim.text, "", unit)
        return
    for words, decision in statements(results.courses):
        row = _row(metric, words, "", unit, decision or NOT_RUN)
        row |= {name: math.exp(row[name]) for name in ("estimate", "low", "high")}
        if decision and decision.bound:
            kind, *unknown = _BOUNDS[decision.bound]
            row |= {"unit": f"{unit}, {kind}"} | dict.fromkeys(unknown, math.nan)
        yield row


def _inference(results: Results, claim: Claim) -> Iterator[dict[str, Any]]:
    """How many times as long one model takes as another; the region model with its detector."""
    for ranking in claim.rankings:
        times = {name: paper.parse(paper_ms(name)) or math.nan for group in ranking.groups for name in group}
        factor = min(times[second] / times[first] for first, second in ranking.neighbours)
        compared: list[tuple[str, str, str, float, float]] = []  # the last two: between what the ratio is to lie
        for first, second in _pairs(ranking):
            words, least = f"{label(first)} faster than {label(second)}", 1.0
            if second == "region":
                least = PIPELINE_FACTOR
                words = f"{label(second)} takes more than {least:g}× as long as {label(first)}"
            compared.append((words, first, second, least, math.inf))
        for first, *others in ranking.groups:
            for other in others:
                words = f"{label(other)} as fast as {label(first)} within a factor of {factor:.3g}"
                compared.append((words, first, other, 1 / factor, factor))
        for words, first, second, least, most in compared:
            row = _row("inference time", words, f"{paper_ms(first)} and {paper_ms(second)} ms", "times")
            found = results.times_as_long(first, second)
            if found is None and results.time(first) and results.time(second):
                row["verdict"] = NOT_SCORED  # timed by an earlier version, which kept no rounds
            elif found is not None:
                middle, low, high = (math.exp(value) for value in (found.mean, found.low, found.high))
                p = max(found.p(math.log(bound)) for bound in (least, most))
                row |= {"estimate": middle, "low": low, "high": high, "p": p}
                row |= {"from": f"{found.seeds} round{'s' * (found.seeds != 1)}"}
                row |= {"verdict": within(low, high, least, most, "rounds")}
            yield row


def _joint(results: Results, claim: Claim) -> Iterator[dict[str, Any]]:
    """Each mix of losses against its best single loss on test: the best by the validation loss of the pretraining.

    To choose it on the scores that are compared would count its luck as skill.
    """
    rankings = {r.metric: r for one in CLAIMS if one.id in ("vqa", "retrieval") for r in reversed(one.rankings)}
    mixes = [name for name in results.names if "+" in name]
    if not mixes:
        yield _row("VQA accuracy and retrieval R@1", claim.text, "no numbers", POINTS)
        return
    matching = pd.Series(dtype=float)  # the mean final matching loss of each name
    if len(results.courses):
        last = results.courses.sort_values("samples").groupby(["name", "seed"])["val_itm"].last()
        matching = last.groupby("name").mean()
    for mix, (column, ranking) in product(mixes, rankings.items()):
        metric, margin = _Metric(results, column), smallest_step(ranking)
        vision = "resnet" if mix.endswith("@resnet") else "vit"
        singles = [name for name, one in VARIANTS.items() if one.vision == vision and len(one.losses) == 1]
        singles = [name for name in singles if not metric.missing((mix, name)) and name in matching]
        best = min(singles, key=lambda name: matching[name], default="")
        words = f"{mix} gains less than {margin:.3g} over {label(best) or 'the best single loss'}"
        if best:
            yield metric.row(words, "no numbers", (mix, best), no_gain, margin)
        else:
            yield _row(metric.words, words, "no numbers", POINTS)
