"""Starts a small run again and again while another process trains it; prints what came of it as JSON.

A program of its own (see test_survival). Arguments: the corpus, an empty folder, the number of second starts.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import killed_runs
from made_runs import pretrain_into

from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.errors import UserError


def begin(corpus: Corpus, folder: Path) -> int:
    """A process that holds the folder, stopped as soon as it does; its id."""
    child = killed_runs.start(corpus, folder)
    lock = folder.with_name(f".{folder.name}.lock")
    while not lock.exists() or f"process {child} " not in lock.read_text():
        time.sleep(0.001)
    os.kill(child, signal.SIGSTOP)
    return child


def main(corpus: Corpus, root: Path, starts: int) -> None:
    moments = random.Random(0)
    killed_runs.finish(killed_runs.start(corpus, root / "whole"))
    folder, refused, killed = root / "twice", [], 0
    folder.mkdir()
    first = begin(corpus, folder)
    while len(refused) < starts:
        # It works for a moment between the starts, and stands still during each, so that none comes after its end.
        os.kill(first, signal.SIGCONT)
        time.sleep(moments.uniform(0.0, 0.03))
        os.kill(first, signal.SIGSTOP)
        try:
            pretrain_into(folder, killed_runs.PROFILE, "segl", corpus)
            refused.append("not refused")
        except UserError as error:
            refused.append(str(error).replace(str(first), "FIRST"))
        if len(refused) % 4 == 0:  # the lock of one that was killed stands in nobody's way
            os.kill(first, signal.SIGKILL)
            os.waitpid(first, 0)
            killed += 1
            first = begin(corpus, folder)
    os.kill(first, signal.SIGCONT)
    killed_runs.finish(first)
    equal = killed_runs.result(folder) == killed_runs.result(root / "whole")
    print(json.dumps({"refused": refused, "killed": killed, "equal": equal}))


if __name__ == "__main__":
    main(open_corpus(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]))
