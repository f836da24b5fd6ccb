"""The only source of chance in the corpus."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import TypeVar

import numpy as np

T = TypeVar("T")


@cache
def _ranks(n: int, skew: float) -> tuple[int, ...]:
    """Sums of weights in whole numbers, in which the last bit of a power does not show."""
    return tuple(accumulate(max(1, round(10_000 * (k + 1) ** -skew)) for k in range(n)))


class Dice:
    """Random choices that are the same with every numpy version and on every machine.

    numpy freezes the streams of `RandomState` for good, not those of `default_rng`. Each key (seed, stream, index,
    purpose) opens a stream of its own, so a scene depends neither on how many others are drawn nor on their order.
    """

    def __init__(self, *key: int) -> None:
        self._rng = np.random.RandomState(key)
        self._pool: list[int] = []

    def restart(self, *key: int) -> None:
        """Become `Dice(*key)`, in a tenth of the time: numpy collects no entropy of the system first."""
        self._rng.seed(key)
        self._pool.clear()

    def below(self, n: int) -> int:
        """An integer in [0, n); the bias of the modulo (below n / 2³¹) does not matter here."""
        if not self._pool:  # blocks, because a single draw costs about as much as a block of 128
            self._pool = self._rng.randint(0, 2**31, size=128, dtype=np.int64).tolist()
        return self._pool.pop() % n

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high], both ends included."""
        return low + self.below(high - low + 1)

    def chance(self, percent: float) -> bool:
        """True in so many per cent of the calls."""
        return self.below(10_000) < round(100 * percent)

    def ranked(self, n: int, skew: float) -> int:
        """An integer in [0, n), of which the k-th comes (k + 1)^skew times as rarely as the first."""
        if not skew:
            return self.below(n)
        ends = _ranks(n, skew)
        return bisect_right(ends, self.below(ends[-1]))

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order."""
        mixed = list(items)
        for i in range(len(mixed) - 1, 0, -1):
            j = self.below(i + 1)
            mixed[i], mixed[j] = mixed[j], mixed[i]
        return mixed

    def bytes(self, n: int) -> bytes:
        """So many random bytes."""
        return self._rng.bytes(n)
