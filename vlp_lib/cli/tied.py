"""`python -m vlp_lib.cli.tied …`: Snakemake, tied to the process that started it.

Its standard input is a pipe of which that process holds the other end. However the process ends, the pipe does too, and
then Snakemake's whole group is ended: the stages with it, and their kernels, which watch their parents.
"""

from __future__ import annotations

import os
import runpy
import signal
import threading


def _watch() -> None:
    if not os.read(0, 1):
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_watch, daemon=True).start()
    runpy.run_module("snakemake", run_name="__main__", alter_sys=True)
