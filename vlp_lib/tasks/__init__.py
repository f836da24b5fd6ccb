"""The finetuning tasks: readers of the official files, their items as tensors, and official scores of what is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vlp_lib.config import DownstreamConfig
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.errors import unknown
from vlp_lib.tasks.common import Encoder, TaskData
from vlp_lib.tasks.nlvr2 import open_nlvr2
from vlp_lib.tasks.vcr import open_vcr
from vlp_lib.tasks.vqa import open_vqa

TASKS: dict[str, Callable[[Corpus, Encoder, DownstreamConfig], TaskData[Any]]] = {
    "vqa": open_vqa,
    "nlvr2": open_nlvr2,
    "vcr": open_vcr,
}

FOLDERS = {"vqa": ("vqav2",), "nlvr2": ("nlvr2", "nlvr"), "vcr": ("vcr",)}
"""Where each task's files may lie below a corpus's root."""

RETRIEVAL = "retrieval"


def tasks_of(corpus: Corpus) -> list[str]:
    """What can follow a pretraining on this corpus: the tasks whose folder is there, and retrieval from test images."""
    found = [name for name, folders in FOLDERS.items() if any((corpus.root / folder).is_dir() for folder in folders)]
    return [*found, RETRIEVAL] if len(corpus.split("test")) else found


def check_task(name: str) -> str:
    """The name of a task; raises UserError for an unknown one."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return name


def open_task(name: str, corpus: Corpus, encoder: Encoder, config: DownstreamConfig) -> TaskData[Any]:
    """The task of that name on a corpus; raises UserError as its reader does."""
    return TASKS[check_task(name)](corpus, encoder, config)
