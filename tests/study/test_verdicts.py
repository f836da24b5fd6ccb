"""Intervals and verdicts against scipy, simulation and brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vlp_lib.study.verdicts import (
    AT_CHANCE,
    CONFIRMED,
    CONTRADICTED,
    SAME,
    Estimate,
    difference,
    equal,
    estimate,
    higher,
    holm,
    no_gain,
    undecided,
    within,
)

UNDECIDED = undecided()
SCORES = st.lists(st.floats(0, 100).map(lambda x: round(x, 3)), min_size=2, max_size=6)


@given(SCORES)
def test_over_seeds_it_is_students_interval(values):
    found = estimate(values)
    assert found.mean == pytest.approx(np.mean(values))
    if len(set(values)) == 1:
        assert math.isnan(found.half)  # nothing varies: nothing is known of how much it would
    else:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
        assert found.p(50.0) == pytest.approx(stats.ttest_1samp(values, 50.0).pvalue)


@pytest.mark.parametrize("values", [[0.4], [[0.4, 0.6]]])
def test_one_seed_has_no_interval(values):
    found = estimate(values)
    assert found.mean == pytest.approx(np.mean(values)) and math.isnan(found.half) and found.seeds == 1
    assert math.isnan(estimate([]).mean)


def test_mean_squares_are_those_of_a_two_way_table():
    """By hand from sums of squares of 3 seeds and 4 items."""
    table = np.array([[1.0, 4.0, 2.0, 9.0], [2.0, 6.0, 2.0, 8.0], [0.0, 5.0, 4.0, 7.0]])
    rows, columns, mean = table.mean(1), table.mean(0), table.mean()
    ms_rows = 4 * ((rows - mean) ** 2).sum() / 2
    ms_columns = 3 * ((columns - mean) ** 2).sum() / 3
    rest = ((table - mean) ** 2).sum() - 2 * ms_rows - 3 * ms_columns
    ms_rest = rest / 6
    found = estimate(table)
    variance = ms_rows + ms_columns - ms_rest
    assert found.error == pytest.approx(math.sqrt(variance / 12))
    assert found.freedom == pytest.approx(variance**2 / (ms_rows**2 / 2 + ms_columns**2 / 3 + ms_rest**2 / 6))


@given(st.integers(0, 1000))
def test_items_never_narrow_an_interval_by_more_than_degrees_of_freedom(seed):
    table = np.random.default_rng(seed).normal(0, 1, (4, 9))
    both, seeds = estimate(table), estimate(table.mean(1))
    assert both.mean == pytest.approx(seeds.mean) and both.error >= seeds.error * (1 - 1e-9)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Both samples are drawn anew: an interval over seeds alone misses the truth far too often, this one does not."""
    rng = np.random.default_rng(1)
    held, alone = [], []
    for _ in range(1500):
        seeds, items = rng.normal(0, 1, (5, 1)), rng.normal(0, 6, (1, 40))
        table = seeds + items + rng.normal(0, 4, (5, 40))
        both, of_seeds = estimate(table), estimate(table.mean(1))
        held.append(both.low < 0 < both.high)
        alone.append(of_seeds.low < 0 < of_seeds.high)
    assert 0.93 < np.mean(held) < 0.98
    assert np.mean(alone) < 0.9


def test_a_zero_is_zero():
    """The mean of 0.1, 0.2 and −0.3 is noise of binary fractions, and a small loss has no minus zero."""
    found = difference([0.3, 0.5, 0.1], [0.2, 0.3, 0.4])
    assert found.mean == 0 and math.copysign(1, found.mean) == 1
    noise = higher(difference([0.1 + 0.2, 0.1 + 0.2], [0.3, 0.3]))  # 5.6e-17 in both
    assert (noise.estimate.mean, noise.verdict) == (0, UNDECIDED)
    assert Estimate(-0.0001, 0.0001, 2, 3).written(3) == "0.000 ± 0.000"


@pytest.mark.parametrize(
    ("first", "second", "smallest", "expected"),
    [
        ([0.5, 0.52, 0.5], [0.1, 0.12, 0.11], 0.02, CONFIRMED),
        ([0.1, 0.12, 0.11], [0.5, 0.52, 0.5], 0.02, CONTRADICTED),
        ([0.2, 0.4, 0.35], [0.1, 0.5, 0.3], 0.02, UNDECIDED),
        ([0.5], [0.1], 0.02, UNDECIDED),
        ([], [], 0.02, UNDECIDED),
        # Far apart between seeds but always in the same order: the pairs decide, not the two means.
        ([0.2, 0.41, 0.59], [0.1, 0.3, 0.5], 0.02, CONFIRMED),
        # Sure, but too little to matter.
        ([0.693, 0.692, 0.6931], [0.691, 0.6901, 0.691], 0.02, SAME),
        ([0.693, 0.692, 0.6931], [0.691, 0.6901, 0.691], 0.0, CONFIRMED),
    ],
)
def test_higher(first, second, smallest, expected):
    found = higher(difference(first, second), smallest)
    assert found.verdict == expected
    if len(first) > 1 and expected != SAME:
        test = stats.ttest_rel(first, second)
        assert found.p == pytest.approx(test.pvalue)
        assert (expected != UNDECIDED) == (test.pvalue < 0.05)


@pytest.mark.parametrize(
    ("first", "second", "margin", "expected"),
    [
        ([70.0, 71.0, 72.0], [70.1, 71.0, 71.9], 0.5, CONFIRMED),  # 0 ± 0.248
        ([70.0, 71.0, 72.0], [70.1, 71.0, 71.9], 0.2, UNDECIDED),
        ([70.0, 71.0, 72.0], [68.0, 69.1, 69.9], 0.5, CONTRADICTED),  # 2 ± 0.248
        ([68.0, 69.1, 69.9], [70.0, 71.0, 72.0], 0.5, CONTRADICTED),
        ([70.0], [70.0], 0.5, UNDECIDED),
    ],
)
def test_equivalence(first, second, margin, expected):
    found = equal(difference(first, second), margin)
    assert found.verdict == expected
    if len(first) > 1:
        sides = [stats.ttest_1samp(np.subtract(first, second), bound).pvalue for bound in (-margin, margin)]
        assert found.p == pytest.approx(max(sides), abs=1e-9)


@pytest.mark.parametrize(
    ("more", "best", "expected"),
    [
        ([69.0, 70.1, 71.0], [70.0, 71.0, 72.0], CONFIRMED),  # worse
        ([70.1, 71.0, 71.9], [70.0, 71.0, 72.0], CONFIRMED),  # at most 0.248 ahead
        ([72.0, 73.1, 74.0], [70.0, 71.0, 72.0], CONTRADICTED),  # about 2 ahead
        ([70.0, 73.0, 72.0], [70.0, 71.0, 72.0], UNDECIDED),
        ([72.0], [70.0], UNDECIDED),
    ],
)
def test_no_gain(more, best, expected):
    assert no_gain(difference(more, best), 0.46).verdict == expected


def test_what_lies_within_bounds_of_which_one_may_be_infinite():
    unsure = undecided("runs")
    for low, high, expected in ((1.1, 1.3, CONFIRMED), (0.8, 0.9, CONTRADICTED), (0.9, 1.2, unsure)):
        assert within(low, high, 1.0, math.inf, "runs") == expected
    found = {(0.95, 1.05): CONFIRMED, (1.2, 1.3): CONTRADICTED, (0.5, 0.6): CONTRADICTED, (0.95, 1.2): unsure}
    for (low, high), expected in found.items():
        assert within(low, high, 1 / 1.1, 1.1, "runs") == expected


def closed(p, level):
    """Holm is the closed test of Bonferroni: a hypothesis is rejected where every intersection that has it is."""
    n = len(p)
    rejected = []
    for i in range(n):
        sets = [s for k in range(1, n + 1) for s in itertools.combinations(range(n), k) if i in s]
        rejected.append(all(min(p[j] for j in s) * len(s) < level for s in sets))
    return rejected


@given(st.lists(st.floats(0.0005, 0.2), min_size=1, max_size=5))
def test_holm_is_the_closed_test(p):
    adjusted = holm(p)
    assert (adjusted < 0.05).tolist() == closed(p, 0.05)
    assert (adjusted >= np.array(p)).all() and (adjusted <= 1).all()


def test_a_test_that_was_not_made_is_not_counted():
    adjusted = holm([0.02, math.nan, 0.04])
    assert adjusted[[0, 2]].tolist() == pytest.approx([0.04, 0.04]) and math.isnan(adjusted[1])
    assert len(holm([])) == 0
    assert AT_CHANCE not in (CONFIRMED, CONTRADICTED, SAME)
