"""The finetuning tasks: readers of the official files, their items as tensors, and official scores of what is said.

The official files and rules need no torch (`vqa_accuracy`, `nlvr2_score`, `recalls` for retrieval); beside them are the
items of each task for a model (`vqa`, `nlvr2`, `vcr`, `retrieval`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlp_lib.config import check_task
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.errors import UserError

if TYPE_CHECKING:
    from vlp_lib.config import DownstreamConfig
    from vlp_lib.tasks.common import Encoder, TaskData

_FOLDERS = {"vqa": ("vqav2",), "nlvr2": ("nlvr2", "nlvr"), "vcr": ("vcr",)}
"""Where the files of each task may lie below a corpus's root."""


def percent(share: float) -> float:
    """A share of 1 as the scores print it."""
    return round(100 * float(share), 6)


@contextmanager
def naming(first: Path, second: Path) -> Iterator[None]:
    """Put the two files that do not fit each other before a complaint that cannot know them."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{first} against {second}: {error}") from None


def tasks_of(corpus: Corpus) -> list[str]:
    """What can follow a pretraining on this corpus: the tasks whose folder is there, and retrieval from test images."""
    names = [name for name, folders in _FOLDERS.items() if any((corpus.root / folder).is_dir() for folder in folders)]
    return [*names, "retrieval"] if len(corpus.split("test")) else names


def open_task(name: str, corpus: Corpus, encoder: Encoder, config: DownstreamConfig) -> TaskData[Any]:
    """The task of that name on a corpus; raises UserError as its reader does."""
    # Only now, for its module waits for torch and its name must not.
    module = import_module(f"vlp_lib.tasks.{check_task(name)}")
    data: TaskData[Any] = getattr(module, f"open_{name}")(corpus, encoder, config)
    return data
