"""Intervals over seeds, and what they decide: the statistics that every figure, table and claim rests on.

A statement is confirmed where the whole 95 % interval agrees with it, contradicted where the whole interval speaks
against it, and not decidable otherwise: one seed has no interval and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

CONFIRMED, CONTRADICTED = "confirmed", "contradicted"

_DIGITS = 12
"""Decimals that are kept of a difference. What lies below is the noise of binary fractions: 0.3 − 0.2 − 0.1 is 0."""

Values = Sequence[float] | np.ndarray | pd.Series


class Estimate(NamedTuple):
    """A mean over so many seeds with the half-width of its 95 % interval, which is NaN for fewer than two."""

    mean: float
    half: float
    seeds: int

    @property
    def low(self) -> float:
        """The interval's lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The interval's upper end."""
        return self.mean + self.half

    def written(self, digits: int) -> str:
        """ "70.12 ± 0.34"; without the half-width where that is unknown."""
        return f"{self.mean:z.{digits}f}" + ("" if math.isnan(self.half) else f" ± {self.half:.{digits}f}")


def estimate(values: Values, level: float = 0.95) -> Estimate:
    """Mean and half-width of its confidence interval over seeds (Student's t); NaN where there are too few values."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return Estimate(float(array.mean()) if len(array) else math.nan, math.nan, len(array))
    half = stats.t.ppf(0.5 + level / 2, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array))
    return Estimate(float(array.mean()), float(half), len(array))


def difference(first: Values, second: Values) -> Estimate:
    """Mean of first − second over seeds that both have, in the same order, and its interval."""
    found = estimate(np.round(np.asarray(first, float) - np.asarray(second, float), _DIGITS))
    return found._replace(mean=round(found.mean, _DIGITS) + 0.0)  # + 0.0: −0 is 0


def over_seeds(rows: pd.DataFrame, by: list[str], value: str) -> pd.DataFrame:
    """Mean, half-width of the 95 % interval and number of seeds of `value` for each group."""
    groups = rows.groupby(by, sort=False)[value]
    summary = groups.apply(lambda v: pd.Series(estimate(v)._asdict(), dtype=float))
    return summary.unstack().reset_index()


def decide(holds: bool, fails: bool, of: str = "seeds") -> str:
    """The verdict on a statement; `of` says what there are too few of where neither is sure."""
    return CONFIRMED if holds else CONTRADICTED if fails else f"not decidable with these {of}"


def above(low: float, high: float, bound: float, of: str = "seeds") -> str:
    """Whether what lies between low and high is above a bound."""
    return decide(low > bound, high < bound, of)


def within(low: float, high: float, least: float, most: float, of: str = "seeds") -> str:
    """Whether what lies between low and high lies between `least` and `most`."""
    return decide(least <= low and high <= most, low > most or high < least, of)


def higher(first: Values, second: Values) -> tuple[Estimate, str]:
    """Whether the first of two paired sets of scores is the higher: first − second, verdict."""
    found = difference(first, second)
    return found, above(found.low, found.high, 0)


def equal(first: Values, second: Values, margin: float) -> tuple[Estimate, str]:
    """Whether two paired sets of scores differ by at most a margin: first − second, verdict."""
    found = difference(first, second)
    return found, within(found.low, found.high, -margin, margin)


def no_gain(more: Values, best: Values, margin: float) -> tuple[Estimate, str]:
    """Whether the first of two paired sets of scores gains less than a margin: more − best, verdict.

    Contradicted is that already where the interval lies above 0 and not all below the margin.
    """
    found = difference(more, best)
    return found, decide(found.high < margin, found.low > 0)
