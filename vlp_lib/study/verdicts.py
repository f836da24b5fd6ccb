"""Intervals over seeds and items, and what they decide: the statistics that every figure, table and claim rests on.

A score is a mean over seeds and over items (the images of a test split), both of which are samples: another seed and
another test set would give another score. `estimate` treats them as two crossed random effects, as generalizability
theory does (Brennan 2001, chapter 5): the variance of the mean is (MS_seeds + MS_items − MS_rest) / (seeds · items),
its degrees of freedom are Satterthwaite's. With one value a seed it is Student's interval over seeds.

Verdicts, at 95 %:
    confirmed: the interval agrees with the statement, and the difference is at least the smallest that matters.
    contradicted: the same the other way round.
    no difference that matters: the interval lies within the smallest difference on both sides.
    neither left chance: both sides score what guessing scores, so that their difference says nothing.
    not decidable: all else. One seed has no interval and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit  # scipy.stats, which calls these, takes 0.4 s to import

CONFIRMED, CONTRADICTED = "confirmed", "contradicted"
SAME, AT_CHANCE = "no difference that matters", "neither left chance"
DECIDED = (CONFIRMED, CONTRADICTED, SAME)

_DIGITS = 12
"""Decimals that are kept of a difference. What lies below is the noise of binary fractions: 0.3 − 0.2 − 0.1 is 0."""

Values = Sequence[float] | np.ndarray | pd.Series


class Estimate(NamedTuple):
    """The mean of so many seeds and items, its standard error, and the degrees of freedom of that (NaN of one seed)."""

    mean: float
    error: float
    freedom: float
    seeds: int
    items: int = 1

    @property
    def half(self) -> float:
        """Half-width of the 95 % interval; NaN where it is unknown."""
        return float(stdtrit(self.freedom, 0.975)) * self.error

    @property
    def low(self) -> float:
        """The interval's lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The interval's upper end."""
        return self.mean + self.half

    def p(self, bound: float = 0.0) -> float:
        """Two-sided p-value of the mean being `bound`: below 0.05 where the interval leaves it out."""
        return float(2 * stdtr(self.freedom, -abs(self.mean - bound) / self.error))

    def written(self, digits: int, group: str = "") -> str:
        """ "70.12 ± 0.34"; without the half-width where that is unknown. `group` stands between thousands."""
        return f"{self.mean:z{group}.{digits}f}" + (
            "" if math.isnan(self.half) else f" ± {self.half:{group}.{digits}f}"
        )


class Decision(NamedTuple):
    """What a comparison came to: the estimate, the verdict, and the p-value of the test that decides it.

    `bound` says what the estimate is where a run ended before its value was known: ">" a lower bound of the truth, "<"
    an upper one, "?" neither.
    """

    estimate: Estimate
    verdict: str
    p: float
    bound: str = ""


def estimate(values: Values) -> Estimate:
    """The mean of [seeds] or [seeds, items] values with its standard error.

    The error is never smaller than that over seeds alone, and unknown (NaN) where nothing varies.
    """
    table = np.asarray(values, dtype=float)
    if not table.size:
        return Estimate(math.nan, math.nan, math.nan, 0)
    table = table.reshape(len(table), -1)
    seeds, items = table.shape
    mean = float(table.mean())
    if seeds < 2:
        return Estimate(mean, math.nan, math.nan, seeds, items)
    of_seeds = items * table.mean(1).var(ddof=1)
    variance, freedom = of_seeds, seeds - 1.0
    if items > 1:
        of_items = seeds * table.mean(0).var(ddof=1)
        rest = table - table.mean(1, keepdims=True) - table.mean(0) + mean
        of_rest = (rest**2).sum() / ((seeds - 1) * (items - 1))
        if of_items > of_rest:
            variance = of_seeds + of_items - of_rest
            parts = ((of_seeds, seeds - 1), (of_items, items - 1), (of_rest, (seeds - 1) * (items - 1)))
            freedom = variance**2 / sum(square**2 / n for square, n in parts)
    error = math.sqrt(variance / table.size)
    return Estimate(mean, error if error > 10**-_DIGITS else math.nan, float(freedom), seeds, items)


def difference(first: Values, second: Values) -> Estimate:
    """Mean of first − second, which have the same seeds (and items) in the same order."""
    found = estimate(np.round(np.asarray(first, float) - np.asarray(second, float), _DIGITS))
    return found._replace(mean=round(found.mean, _DIGITS) + 0.0)  # + 0.0: −0 is 0


def undecided(of: str = "seeds") -> str:
    """The verdict where neither side is sure; `of` says what there are too few of."""
    return f"not decidable with these {of}"


def higher(found: Estimate, smallest: float = 0.0) -> Decision:
    """Whether a difference is above 0, and by as much as matters."""
    if found.low > 0 and found.mean >= smallest:
        return Decision(found, CONFIRMED, found.p())
    if found.high < 0 and found.mean <= -smallest:
        return Decision(found, CONTRADICTED, found.p())
    if -smallest < found.low and found.high < smallest:
        return Decision(found, SAME, max(found.p(-smallest), found.p(smallest)))
    return Decision(found, undecided(), found.p())


def equal(found: Estimate, margin: float) -> Decision:
    """Whether a difference is at most a margin, either way: two one-sided tests."""
    p = max(found.p(-margin), found.p(margin))  # of the nearer bound
    return Decision(found, within(found.low, found.high, -margin, margin, "seeds"), p)


def no_gain(found: Estimate, margin: float) -> Decision:
    """Whether a difference is less than a margin; contradicted where it is a gain, and not surely a small one."""
    if found.high < margin:
        return Decision(found, CONFIRMED, found.p(margin))
    return Decision(found, CONTRADICTED if found.low > 0 else undecided(), found.p())


def within(low: float, high: float, least: float, most: float, of: str) -> str:
    """Whether what lies between low and high lies between `least` and `most`."""
    if least <= low and high <= most:
        return CONFIRMED
    return CONTRADICTED if low > most or high < least else undecided(of)


def holm(p_values: Values) -> np.ndarray:
    """Holm's adjusted p-values of a family of tests (Holm 1979); NaN, a test that was not made, stays NaN."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), math.nan)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted
