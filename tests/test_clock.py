"""The clock: order, warm-up, how often, and what is summed; never how long it took."""

import numpy as np
import pytest
import torch

from vlp_lib import clock

CPU = torch.device("cpu")


def counting(name, order, seconds=0.001):
    def one_pass():
        order.append(name)
        return [seconds]

    return one_pass


def test_candidates_take_turns_and_none_always_comes_first():
    order: list[str] = []
    found = clock.take_turns({name: counting(name, order) for name in "ab"}, runs=4, warmup=2, seconds=60.0)
    assert order == ["a", "a", "b", "b", *["a", "b", "b", "a"] * 2]
    assert [times.shape for times in found.values()] == [(4, 1), (4, 1)]


def test_one_pass_is_not_counted():
    order: list[str] = []
    clock.take_turns({name: counting(name, order) for name in "abc"}, runs=2)
    assert "".join(order) == "abc" + "abc" + "bca"


def test_slow_candidates_run_less_often_but_all_along():
    order: list[str] = []
    passes = {"slow": counting("slow", order, 1.0), "fast": counting("fast", order, 0.001)}
    found = clock.take_turns(passes, runs=10, warmup=3, seconds=5.0)
    assert {name: len(times) for name, times in found.items()} == {"slow": 5, "fast": 10}
    assert order.count("slow") == 5 + 1  # one warm-up: it takes more than a sixth of its time
    assert order.count("fast") == 10 + 3
    assert "slow" in order[-3:]
    fewest = clock.take_turns(passes, runs=10, warmup=1, seconds=0.5)
    assert len(fewest["slow"]) == 5


@pytest.mark.parametrize("runs", [1, 2, 7, 20, 64])
def test_two_candidates_have_the_rounds_of_the_slower_one_in_common(runs):
    for count in range(1, runs + 1):
        rounds = clock.rounds_of(count, runs)
        assert len(rounds) == count and rounds == sorted(set(rounds)) and set(rounds) <= set(range(runs))
        assert set(rounds) <= set(clock.rounds_of(min(count + 1, runs), runs))
    if runs == 20:
        assert max(np.diff(clock.rounds_of(5, runs))) <= 8


def test_parts_of_one_name_are_summed(monkeypatch):
    moments = iter([0.0, 1.0, 3.0, 6.0, 10.0])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(moments))
    watch = clock.Stopwatch(CPU)
    for name in ("data", "forward", "data", "optimiser"):
        watch.mark(name)
    assert watch.seconds() == {"data": 1 + 3, "forward": 2, "optimiser": 4}


def test_processor_time_and_wall_time(monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(clock.time, "process_time", lambda: next(ticks) * 0.5)
    assert clock.processor_timed(lambda: None)() == (0.5,)
    assert clock.timed(lambda: None, CPU)()[0] > 0


def test_spread():
    assert clock.spread(np.array([3.0, 7.0, 11.0])) == pytest.approx((3.4, 7.0, 10.6))
