"""The one clock: moments on a CPU or in a GPU's queue, and passes of several candidates in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch


class Stopwatch:
    """Marks the ends of named parts; on a GPU by events in its own queue, so that looking does not slow it down.

    The clock begins once the device has nothing left to do.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.names: list[str] = []
        self._rest()
        self.moments = [self._now()]

    def mark(self, name: str) -> None:
        """The part `name` ends here; the next one begins."""
        self.names.append(name)
        self.moments.append(self._now())

    def seconds(self) -> dict[str, float]:
        """Seconds of each part, in the order of their first ends; a name that was marked again is summed."""
        self._rest()
        sums = dict.fromkeys(self.names, 0.0)
        for name, begun, end in zip(self.names, self.moments, self.moments[1:], strict=False):
            sums[name] += begun.elapsed_time(end) / 1000 if self.device.type == "cuda" else end - begun
        return sums

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _rest(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def timed(function: Callable[[], object], device: torch.device) -> Callable[[], tuple[float]]:
    """A pass for `take_turns`: the seconds that one call takes on a device."""

    def once() -> tuple[float]:
        watch = Stopwatch(device)
        function()
        watch.mark("whole")
        return (watch.seconds()["whole"],)

    return once


def processor_timed(function: Callable[[], object]) -> Callable[[], tuple[float]]:
    """A pass for `take_turns`: the processor's own seconds, which other work on the machine does not lengthen."""

    def once() -> tuple[float]:
        begun = time.process_time()
        function()
        return (time.process_time() - begun,)

    return once


def take_turns(
    passes: Mapping[str, Callable[[], Sequence[float]]], runs: int, warmup: int = 1, seconds: float = float("inf")
) -> dict[str, np.ndarray]:
    """Time several candidates pass by pass, so that a machine that slows down slows all of them.

    Each round begins with another candidate, so that none always has the same place.

    Args:
        passes: one pass of each candidate; it returns the seconds of its parts.
        runs: passes of each.
        warmup: passes before that are not counted; a candidate of which one takes more than a sixth of `seconds` gets
            one only.
        seconds: time for one candidate; one that is too slow for `runs` passes in it makes fewer, at least five,
            spread over the rounds (`rounds_of`).

    Returns:
        [passes, parts] seconds by candidate.
    """
    counts = {}
    for name, one in passes.items():
        took = sum(one())
        for _ in range(warmup - 1 if took < seconds / 6 else 0):
            took = sum(one())
        counts[name] = min(runs, max(5, int(min(seconds / max(took, 1e-9), runs))))
    times: dict[str, list[Sequence[float]]] = {name: [] for name in passes}
    names, places = list(passes), {name: set(rounds_of(count, runs)) for name, count in counts.items()}
    for turn in range(runs):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if turn in places[name]:
                times[name].append(passes[name]())
    return {name: np.array(values) for name, values in times.items()}


def rounds_of(count: int, runs: int) -> list[int]:
    """The rounds of `runs` in which a candidate of `count` passes makes one, spread over all of them.

    One of more passes has these too, so that two candidates have as many rounds in common as the slower one makes.
    """
    bits = max(runs - 1, 1).bit_length()
    spread_out = sorted(range(runs), key=lambda turn: f"{turn:0{bits}b}"[::-1])  # halves, quarters, eighths …
    return sorted(spread_out[:count])


def spread(values: np.ndarray) -> tuple[float, float, float]:
    """5th percentile, median and 95th percentile."""
    low, median, high = np.percentile(values, (5, 50, 95)).tolist()
    return low, median, high
