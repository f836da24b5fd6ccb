"""`python -m vlp_lib.cli.warm DESCRIPTOR NOTEBOOKS`: a process that has imported what stages need, and forks them.

A stage of the graph is two processes, papermill's and the kernel's, which import for about eight seconds what every
other stage imports, too. Here it is imported once, and each stage starts as a copy.

Only on Linux and without a GPU: elsewhere libraries forbid the fork of a process that has imported them, or nobody has
tried it. A stage of several threads, or of code that has changed since, is started anew (`vlp_lib.cli.stage`).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path

from vlp_lib.cli import answered, parsed
from vlp_lib.cli.kernel import ForkedKernel, become_kernel, manager_of, settle
from vlp_lib.cli.notebook import execute, without_iri_grammar
from vlp_lib.cli.stage import ANEW
from vlp_lib.closure import PACKAGE, notebook_imports


def _stage(client: socket.socket, sources: Mapping[Path, int]) -> int:
    """Do what a client asks for, with its output and environment, and answer with the exit status.

    Returns in the kernel alone.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        head, descriptors, _, _ = socket.recv_fds(client, 1, 2)
        with client.makefile(encoding="utf-8") as lines:
            asked = json.loads(head.decode() + lines.readline())
        for target, descriptor in enumerate(descriptors, 1):
            os.dup2(descriptor, target)
            os.close(descriptor)
        settle(asked["environment"], asked["folder"])
        fits = sources == _sources()
    except (OSError, ValueError):
        fits = False
    if not fits:
        with contextlib.suppress(OSError):  # the client has gone
            client.sendall(bytes([ANEW]))
        os._exit(0)
    reading, writing = os.pipe()
    own = os.getpid()
    if (pid := os.fork()) == 0:  # before this process has a thread
        client.close()
        os.close(writing)
        return become_kernel(reading, own)
    os.close(reading)
    threading.Thread(target=_end_with, args=(client,), daemon=True).start()

    def command() -> None:
        given = parsed(["run", *asked["arguments"]])
        execute(given.notebook, given.output, given.parameter, manager_of(ForkedKernel(pid, writing)))

    try:
        status = answered(command)
    except BaseException as error:  # the answer of a process that was started would be the same
        status = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    client.sendall(bytes([status]))
    os._exit(status)


def _end_with(client: socket.socket) -> None:
    """End this process when its client does; the kernel ends with this one."""
    if not client.recv(1):
        os.kill(os.getpid(), signal.SIGKILL)


def _sources() -> dict[Path, int]:
    """When each file of the library was written: what has changed since it was imported must be imported anew."""
    return {path: path.stat().st_mtime_ns for path in PACKAGE.rglob("*.py")}


def serve(listener: socket.socket, notebooks: Path) -> int:
    """Fork a stage for each client; returns in their kernels alone."""
    sources = _sources()
    without_iri_grammar()
    for name in ("papermill", "jupyter_client.provisioning", "ipykernel.kernelapp"):
        importlib.import_module(name)
    for notebook in notebooks.glob("[12]?_*.ipynb"):  # those of the graph
        with contextlib.suppress(ValueError, KeyError, SyntaxError):  # half written, or no Python: its stage says so
            for name in notebook_imports(notebook):
                with contextlib.suppress(Exception):  # a name in a module, or a broken module, which its stage says
                    importlib.import_module(name)
    sys.stdout.flush()  # or each fork would print what an import has printed
    gc.collect()
    gc.freeze()  # a collection in a fork would copy all that is shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the stages here: their clients do
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return _stage(client, sources)
        client.close()


if __name__ == "__main__":
    if sys.path[0] == str(Path.cwd()):  # a kernel reads no modules from where the graph works
        del sys.path[0]
    sys.exit(serve(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2])))
