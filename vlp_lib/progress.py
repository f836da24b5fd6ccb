"""A bar with the remaining time where somebody watches, plain lines where the output is kept."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import SupportsFloat

from tqdm.auto import tqdm

from vlp_lib.errors import in_jupyter

_SILENCE = 10.0
"""Seconds without a line, where lines are printed."""


class Progress:
    """Counts steps. On a terminal or in JupyterLab it is tqdm's bar; elsewhere (papermill, a log file) it prints a
    line at each `note` and after ten silent seconds, because a bar redrawn a thousand times would flood the kept
    output. Of several processes one speaks (`shown`).
    """

    def __init__(self, name: str, total: int, start: int = 0, shown: bool = True) -> None:
        watched = sys.stderr.isatty() or in_jupyter()
        self._bar = tqdm(total=total, initial=start, desc=name) if watched and shown else None
        self._shown = shown
        self._name, self._total, self._start, self._step = name, total, start, start
        self._begun = self._spoken = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, loss: SupportsFloat | None = None) -> None:
        """One step is done; its loss is read only where it is shown, for reading makes a GPU's queue run empty."""
        self._step += 1
        if self._step == self._start + 1:
            self._begun = time.monotonic()  # the first step builds kernels, and foretells nothing
        if self._bar is not None:
            self._bar.update()
        elif time.monotonic() - self._spoken > _SILENCE:
            self.note("" if loss is None else f"loss {float(loss):.4f}")

    def note(self, text: str) -> None:
        """What there is to say at this step, e.g. validation metrics."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)
            return
        if not self._shown:
            return
        self._spoken = time.monotonic()
        done = self._step - self._start - 1
        left = (self._spoken - self._begun) / done * (self._total - self._step) if done > 0 else None
        shown = "" if left is None else f"  {left:.0f} s left"
        print(f"{self._name}  step {self._step}/{self._total}  {text}{shown}".rstrip(), flush=True)
