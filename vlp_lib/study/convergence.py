"""How fast the validation matching loss falls (figures 1 and 5, left), and the paper's order of its last values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vlp_lib.paper import CLAIMS
from vlp_lib.study.runs import NOT_RUN, in_order, label
from vlp_lib.study.verdicts import Estimate, above, estimate, higher, over_seeds

LN2 = math.log(2)
"""The matching loss of a coin."""

PLATEAU = 0.9 * LN2
"""Below this the matching loss has left the plateau."""

FIGURE_1 = ("region", "naive_vit", "segl")
"""Figure 1's comparison: the region-feature model, the naive pixel model, and a pixel model with a visual loss."""

ORDER = tuple(pair for claim in CLAIMS if claim.id == "convergence" for r in claim.rankings for pair in r.neighbours)
"""The paper's order of the matching loss: the first of each pair has the lower loss."""


@dataclass(frozen=True)
class Statement:
    """A statement about matching losses and what decides it.

    Attributes:
        words: such as "SEGL < SSUL".
        found: the paired difference, or the loss where `bound` is given; None where a run is missing.
        verdict: as `verdicts` has them, or "not run".
        bound: what a loss is compared with; None where two runs are compared.
    """

    words: str
    found: Estimate | None = None
    verdict: str = NOT_RUN
    bound: float | None = None


def convergence_curves(runs: pd.DataFrame, value: str = "val_itm") -> pd.DataFrame:
    """Mean and 95 % interval over seeds of a validation metric at each evaluation, for each name.

    Args:
        runs: rows of metrics.jsonl with `name` and `seed` (see `runs.read_runs`).
        value: the metric.
    """
    return over_seeds(runs, ["name", "samples"], value)


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
    written with ">". Columns: variant (label or name), seeds, seeds below, images, speed-up, final loss and accuracy
    with their half-widths.
    """
    rows = []
    means: dict[str, tuple[float, bool]] = {}  # and whether every seed got there
    names = in_order(runs["name"])
    for name in names:
        curves = [run.sort_values("samples") for _, run in runs[runs["name"] == name].groupby("seed")]
        until = [samples_until(run["samples"].to_numpy(float), run["val_itm"].to_numpy(), threshold) for run in curves]
        reached = sum(map(math.isfinite, until))
        seen = [min(found, float(run["samples"].iloc[-1])) for found, run in zip(until, curves, strict=True)]
        means[name] = float(np.mean(seen)), reached == len(curves)
        loss, accuracy = (estimate([run[c].iloc[-1] for run in curves]) for c in ("val_itm", "val_itm_accuracy"))
        rows.append(
            {
                "variant": label(name),
                "seeds": len(curves),
                "seeds below": reached,
                f"images until {threshold:g}": _bound(*means[name], ",.0f"),
                "speed-up over naive ViT": "not decidable",
                "final matching loss": loss.written(3),
                "final matching accuracy": accuracy.written(3),
            }
        )
    for name, row in zip(names, rows, strict=True):
        if baseline in means and means[name][1]:
            base, complete = means[baseline]
            row["speed-up over naive ViT"] = _bound(base / means[name][0], complete, ".1f") + "×"
    return pd.DataFrame(rows)


def _bound(value: float, complete: bool, form: str) -> str:
    """A number that is a lower bound where not every seed got there."""
    return f"{'' if complete else '> '}{value:{form}}"


def compare(runs: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> Iterator[Statement]:
    """Whether the first of each pair of names ends with the lower loss: the paired difference over common seeds."""
    last = runs.sort_values("samples").groupby(["name", "seed"])["val_itm"].last().unstack(0)
    for first, second in pairs:
        words = f"{label(first)} < {label(second)}"
        if first in last and second in last:
            both = last[[first, second]].dropna()
            yield Statement(words, *higher(both[second], both[first]))
        else:
            yield Statement(words)


def plateau(runs: pd.DataFrame) -> Iterator[Statement]:
    """The naive model's plateau: its loss at half of the run within 10 % of ln 2, and SEGL's below that by then."""
    for name, words, stays in (
        ("naive_vit", "within 10 % of ln 2 at half of the run", True),
        ("segl", "more than 10 % below ln 2 at half of the run", False),
    ):
        words = f"{label(name)} {words}"
        losses = [_at_half(run) for _, run in runs[runs["name"] == name].groupby("seed")]
        if not losses:
            yield Statement(words, bound=PLATEAU)
            continue
        found = estimate(losses)
        ends = (found.low, found.high, PLATEAU) if stays else (-found.high, -found.low, -PLATEAU)
        yield Statement(words, found, above(*ends), PLATEAU)


def _at_half(run: pd.DataFrame) -> float:
    """A run's loss when it had seen half of its samples, linear between evaluations."""
    run = run.sort_values("samples")
    return float(np.interp(run["samples"].iloc[-1] / 2, run["samples"], run["val_itm"]))


def order_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The paper's order of the final matching loss, pair by pair, with the statistic that decides."""
    return _table("the paper's order", [*compare(runs, ORDER), *plateau(runs)])


def ablation_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Each named run against the run of its own variant, where there is one; empty without named runs."""
    named = dict(zip(runs["name"], runs["variant"], strict=True))
    pairs = [(name, named[name]) for name in in_order(named) if name != named[name]]
    return _table("named run", compare(runs, pairs))


def _table(head: str, statements: Iterable[Statement]) -> pd.DataFrame:
    """What was run of the statements, for people; without any, the columns alone."""
    rows = [
        (one.words, ("" if one.bound is None else "loss ") + one.found.written(3), one.found.seeds, one.verdict)
        for one in statements
        if one.found is not None
    ]
    return pd.DataFrame(rows, columns=[head, "difference of the final matching loss", "seeds", "verdict"])
