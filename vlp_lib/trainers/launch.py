"""Pretraining on several GPUs of this machine from a notebook; a shell has `accelerate launch` and torchrun."""

from __future__ import annotations

from typing import Any

import torch

from vlp_lib.corpora.corpus import Corpus
from vlp_lib.errors import UserError
from vlp_lib.io import read_lines
from vlp_lib.run import Run
from vlp_lib.trainers.loop import METRICS
from vlp_lib.trainers.pretrain import pretrain


def pretrain_from_notebook(processes: int, run: Run, corpus: Corpus, restart: bool = False) -> list[dict[str, Any]]:
    """`pretrain`, shared out to so many GPUs, one process each; with 1, in this process.

    Raises UserError where there are fewer GPUs, or where the notebook has used one already, which processes that are
    forked from it then cannot.
    """
    if processes == 1:
        return pretrain(run, corpus, restart)
    found = torch.cuda.device_count()
    if not 1 <= processes <= found:
        raise UserError(f"processes is {processes} and this machine has {found} GPUs: ask for at most that many, or 1")
    if torch.cuda.is_initialized():
        raise UserError("this notebook has used a GPU already: restart its kernel and run the training first")
    from accelerate import notebook_launcher

    notebook_launcher(pretrain, (run, corpus, restart), num_processes=processes)
    return read_lines(run.folder("pretrain") / METRICS)
