"""`python -m vlp_lib.cli.stage …`: `vlp run` as the graph calls it, forked from a warm process where there is one."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

PLACE = "VLP_WARM"
"""The environment variable that names the socket of `vlp_lib.cli.warm`, from the folder that the graph works in."""

ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS", "GOTO_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    )
}  # fmt: skip
"""What Snakemake tells a stage of one thread. Libraries read it when they are imported: only such stages are forked."""

ANEW = 255
"""The answer to a stage that cannot be forked: start it as if there were no warm process."""


def begin_warm_process(notebooks: Path) -> subprocess.Popen[bytes] | None:
    """Begin the process that stages are forked from, where there is a place for it; it ends with its process group.

    Its socket listens at once: a stage that comes before the imports are done waits for them, which is sooner than its
    own. Where no socket can be made, there is none (None), and every stage is started anew. What a kernel tells
    matplotlib, which reads it when it is imported, is told here.
    """
    if place := os.environ.get(PLACE):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as listener:
            Path(place).unlink(missing_ok=True)
            listener.bind(place)
            listener.listen(64)
            return subprocess.Popen(
                [sys.executable, "-m", "vlp_lib.cli.warm", str(listener.fileno()), str(notebooks)],
                env={"MPLBACKEND": "module://matplotlib_inline.backend_inline"} | os.environ | ONE_THREAD,
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # the graph reads there why a stage failed
            )
    return None


def forked(arguments: list[str]) -> int:
    """The exit status of `vlp run` with these arguments in a fork of the warm process; `ANEW` where none will do."""
    place = os.environ.get(PLACE)
    if not place or ONE_THREAD.items() - os.environ.items():
        return ANEW
    asked = {"arguments": arguments, "environment": dict(os.environ), "folder": str(Path.cwd())}
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(place)
            text = json.dumps(asked).encode() + b"\n"
            socket.send_fds(server, [text[:1]], [1, 2])
            server.sendall(text[1:])
            answer = server.recv(1)
    except OSError:
        return ANEW
    if not answer:
        stage = Path(arguments[1]).stem if len(arguments) > 1 else "a stage"
        print(f"vlp: {stage} was killed, most likely for want of memory: close other programs", file=sys.stderr)
        return 2
    return answer[0]


if __name__ == "__main__":
    status = forked(sys.argv[1:])
    if status == ANEW:
        from vlp_lib.cli import main

        status = main(["run", *sys.argv[1:]])
    sys.exit(status)
