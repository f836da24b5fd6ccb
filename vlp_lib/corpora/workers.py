"""Decoding in worker processes, with errors as clear as without them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from vlp_lib.distributed import end_with_parent
from vlp_lib.errors import UserError

SomeBatch = TypeVar("SomeBatch")


def load(
    dataset: Dataset[Any],
    batches: Iterable[Sequence[Any]],
    collate: Callable[[list[Any]], SomeBatch],
    workers: int,
    pin_memory: bool = False,
) -> Iterator[SomeBatch]:
    """The batches of the items with these keys, in their order, decoded by so many processes (0: by this one)."""
    loader = DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]  # any iterable does, and only lists are sized
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=end_with_parent,
        # A loader draws a number for its workers when it begins. From torch's own generator it would change what a
        # resumed run, which begins once more, draws for its dropout.
        generator=torch.Generator(),
    )
    iterator = iter(loader)
    try:
        yield from iterator
    except UserError as error:
        # Of an error in a worker torch hands on the whole traceback as its text; the sentence stands behind the name.
        raise UserError(str(error).strip().rpartition(f"{type(error).__name__}: ")[2]) from error
    finally:
        # Workers that end only when the garbage is collected are waited for, five seconds each.
        getattr(iterator, "_shutdown_workers", lambda: None)()
