"""How fast the validation matching loss falls (figures 1 and 5, left), and the paper's claims about it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.special import ndtri

from vlp_lib.paper import CLAIMS
from vlp_lib.study.runs import baseline, in_order, label
from vlp_lib.study.verdicts import (
    AT_CHANCE,
    CONFIRMED,
    CONTRADICTED,
    Decision,
    difference,
    equal,
    estimate,
    higher,
    undecided,
)

LN2 = math.log(2)
"""The matching loss of a coin."""

PLATEAU = 0.9 * LN2
"""Below this the matching loss has left the plateau."""

THRESHOLD = 0.5
"""The matching loss that the paper's order is measured at: the images that it takes to fall below."""

SMALLEST_LOSS = 0.02
"""The smallest difference of two matching losses that matters: about a point of matching accuracy."""

SMALLEST_RATIO, ALIKE = 1.1, 1.5
"""The smallest ratio of two numbers of images that matters, and the largest at which they are "almost the same"."""

TWICE = 2.0
"""How many times as many images as SEGL the naive model takes to leave the plateau, at least: "a long time"."""

FIGURE_1 = ("region", "naive_vit", "segl")
"""Figure 1's comparison: the region-feature model, the naive pixel model, and a pixel model with a visual loss."""

ORDER = tuple(pair for claim in CLAIMS if claim.id == "convergence" for r in claim.rankings for pair in r.neighbours)
"""The paper's order of the matching loss: the first of each pair falls first."""


def convergence_curves(runs: pd.DataFrame, value: str = "val_itm") -> pd.DataFrame:
    """A row for each name of `read_runs` and evaluation: mean and half-width of the 95 % interval of a metric over
    seeds, and their number.
    """

    def summary(values: pd.Series) -> pd.Series:
        found = estimate(values)
        return pd.Series({"mean": found.mean, "half": found.half, "seeds": found.seeds}, dtype=float)

    return runs.groupby(["name", "samples"], sort=False)[value].apply(summary).unstack().reset_index()


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


def speed_table(runs: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Samples until the validation matching loss falls below `threshold`, and the speed-up over the naive model.

    A seed that never gets there counts as "more than the samples it saw"; a mean over such seeds is a lower bound and
    written with ">". Columns: variant (label or name), seeds, seeds below, images, speed-up, final loss and accuracy,
    with the half-widths of their intervals. The accuracy of one seed has Wilson's interval over its images.
    """
    names, naive = in_order(runs["name"]), baseline(runs["name"])
    until = {name: images_until(runs[runs["name"] == name], threshold) for name in names}
    images = {name: estimate(found["images"]) for name, found in until.items()}
    complete = {name: bool(found["reached"].all()) for name, found in until.items()}
    rows = []
    for name in names:
        found, last = images[name], runs[runs["name"] == name].sort_values("samples").groupby("seed").last()
        speed_up = "not decidable"
        if naive in names and complete[name]:
            speed_up = f"{'' if complete[naive] else '> '}{images[naive].mean / found.mean:.1f}×"
        rows.append(
            {
                "variant": label(name),
                "seeds": found.seeds,
                "seeds below": until[name]["reached"].sum(),
                f"images until {threshold:g}": found.written(0, ",") if complete[name] else f"> {found.mean:,.0f}",
                "speed-up over naive" + " ViT" * (naive == "naive_vit"): speed_up,
                "final matching loss": estimate(last["val_itm"]).written(3),
                "final matching accuracy": _accuracy(last),
            }
        )
    return pd.DataFrame(rows)


def _accuracy(last: pd.DataFrame) -> str:
    """The mean over seeds with its interval; of one seed with Wilson's interval of a share of so many images.

    The pairs of one image are not independent: as if it had been asked about once, the interval is rather too wide.
    """
    found, images = estimate(last["val_itm_accuracy"]), last["images"].iloc[0] if "images" in last else None
    if found.seeds > 1 or not images:
        return found.written(3)
    square = float(ndtri(0.975)) ** 2
    middle = (images * found.mean + square / 2) / (images + square)
    half = math.sqrt(square * images * found.mean * (1 - found.mean) + (square / 2) ** 2) / (images + square)
    return f"{found.mean:.3f} ({middle - half:z.3f}–{middle + half:.3f})"


def statements(runs: pd.DataFrame) -> Iterator[tuple[str, Decision | None]]:
    """The paper's claims about convergence in words, and what they came to; None where one model was not run.

    Estimates are logarithms of ratios of the images that two models take. A seed that never gets there counts with all
    the images it saw, so that the ratio is a bound: what only the unknown side could refute is still decided, no other.
    """
    naive = baseline(runs["name"])
    for first, second in ((a, naive if b == "naive_vit" else b) for a, b in ORDER):
        words = f"{label(first)} falls below {THRESHOLD:g} before {label(second)}"
        yield words, sooner(runs, first, second, THRESHOLD)
    words = f"{label('segl')} takes at most {ALIKE:g} times the images of {label('region')}, or as much fewer"
    yield words, sooner(runs, "region", "segl", THRESHOLD, alike=ALIKE)
    words = f"{label(naive)} takes more than {TWICE:g} times the images of {label('segl')} to leave the plateau"
    yield words, sooner(runs, "segl", naive, PLATEAU, factor=TWICE)


def sooner(
    runs: pd.DataFrame, first: str, second: str, threshold: float, factor: float = 1.0, alike: float = 0.0
) -> Decision | None:
    """Whether the second takes more than `factor` times the images of the first, or `alike` as many.

    The estimate is the logarithm of the ratio of images, with a seed that stays above counted as for `statements`. None
    where one of them was not run.
    """
    until = {name: images_until(runs[runs["name"] == name], threshold) for name in (first, second)}
    if any(found.empty for found in until.values()):
        return None
    both = pd.concat(until, axis=1).dropna()
    censored = {name: ~both[name]["reached"].astype(bool) for name in until}
    logs = {name: np.log(both[name]["images"].astype(float)) for name in until}
    found = difference(logs[second], logs[first])
    if alike:
        decision = equal(found, math.log(alike))
    else:
        beyond = found._replace(mean=found.mean - math.log(factor))
        decision = higher(beyond, math.log(SMALLEST_RATIO) if factor == 1 else 0)._replace(estimate=found)
    bound = {(False, True): ">", (True, False): "<", (True, True): "?"}
    decision = decision._replace(bound=bound.get((censored[first].any(), censored[second].any()), ""))
    if len(both) and (censored[first] & censored[second]).all():
        verdict = AT_CHANCE if threshold == PLATEAU else f"neither falls below {threshold:g}"
        return decision._replace(verdict=verdict, p=1.0)
    # A censored second makes the ratio a lower bound, a censored first an upper one.
    unknown = {CONFIRMED: (first,), CONTRADICTED: (second,)} if not alike else {}
    sure = not any(censored[name].any() for name in unknown.get(decision.verdict, (first, second)))
    return decision if sure else decision._replace(verdict=undecided(), p=1.0)


def images_until(runs: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Images until the threshold, and whether it was reached: a row a seed. All that were seen where it was not."""
    rows = {}
    for seed, run in runs.groupby("seed"):
        run = run.sort_values("samples")
        images = samples_until(run["samples"].to_numpy(float), run["val_itm"].to_numpy(), threshold)
        rows[seed] = (min(images, float(run["samples"].iloc[-1])), math.isfinite(images))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["images", "reached"])


def order_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The paper's claims about convergence: ratios of images with their intervals, and the verdicts."""
    rows = [
        (words, ratio_written(decision), decision.estimate.seeds, decision.verdict)
        for words, decision in statements(runs)
        if decision is not None
    ]
    return pd.DataFrame(rows, columns=["the paper's claim", "ratio of images (95 %)", "seeds", "verdict"])


def ratio_written(decision: Decision, unit: str = "") -> str:
    """A ratio whose logarithm was estimated, with its interval where that is known; of a bound the end that is."""
    found = decision.estimate
    middle, low, high = (f"{math.exp(value):.2f}" for value in (found.mean, found.low, found.high))
    interval = {"": f" ({low}–{high})", ">": f" (from {low})", "<": f" (to {high})"}
    if decision.bound == "?":
        return "not known"
    return f"{decision.bound} {middle}".strip() + math.isfinite(found.half) * interval[decision.bound] + unit
