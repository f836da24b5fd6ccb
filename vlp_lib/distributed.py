"""One process or many: who speaks, who writes, who goes first. Without a launcher nothing of this costs anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def launched() -> bool:
    """Whether a launcher (torchrun, `accelerate launch`) has started several processes for this command."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def is_main() -> bool:
    """Whether this process is the one that prints and writes."""
    return not launched() or int(os.environ.get("RANK") or 0) == 0


@contextmanager
def main_first() -> Iterator[None]:
    """The others enter when the main process has left, e.g. to read what it has written."""
    if not launched():
        yield
        return
    from accelerate import PartialState

    with PartialState().main_process_first():
        yield


def leave() -> None:
    """Part from the other processes at the end of a command."""
    if launched():
        from accelerate import PartialState

        PartialState().destroy_process_group()
