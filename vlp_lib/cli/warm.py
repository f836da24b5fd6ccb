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
from typing import TYPE_CHECKING, Any

from vlp_lib.cli import answered, parsed
from vlp_lib.cli.notebook import execute, without_iri_grammar
from vlp_lib.cli.stage import ANEW
from vlp_lib.closure import PACKAGE, notebook_imports
from vlp_lib.distributed import end_with_parent

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager


class _Kernel:
    """A forked process that waits to become a notebook's kernel, with what jupyter_client asks of a Popen."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int, orders: int) -> None:
        self.pid, self._orders = pid, orders
        self._status: int | None = None

    def begin(self, arguments: list[str], environment: Mapping[str, str], folder: Path) -> None:
        """Become the kernel of this command line."""
        with os.fdopen(self._orders, "w", encoding="utf-8") as pipe:
            json.dump({"arguments": arguments, "environment": dict(environment), "folder": str(folder)}, pipe)

    def poll(self, options: int = os.WNOHANG) -> int | None:
        """Its exit status; None while it runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, options)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def wait(self) -> int | None:
        """Its exit status, once it has ended."""
        return self.poll(0)

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _manager_of(kernel: _Kernel) -> type[AsyncKernelManager]:
    """The class of a manager whose kernel is this process, for papermill to make one of."""
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_client.provisioning import LocalProvisioner

    class Provisioner(LocalProvisioner):
        async def launch_kernel(self, cmd: list[str], **given: Any) -> Any:
            folder = given.get("cwd") or Path.cwd()
            kernel.begin(cmd[cmd.index("-f") :], given["env"], folder)  # what stands before it starts a Python
            self.process, self.pid, self.pgid, self.cwd = kernel, kernel.pid, kernel.pid, folder  # type: ignore[assignment]
            return self.connection_info

    class Manager(AsyncKernelManager):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.provisioner = Provisioner(kernel_id="", kernel_spec=self.kernel_spec, parent=self)

    return Manager


def _become_kernel(orders: int, stage: int) -> int:
    """Wait for a command line, then be the kernel until it is told to end, or until its stage does."""
    end_with_parent()
    os.setsid()
    with os.fdopen(orders, encoding="utf-8") as pipe:
        text = pipe.read()
    if not text or os.getppid() != stage:  # the stage ended before it started a kernel
        return 0
    asked = json.loads(text)
    _settle(asked["environment"], asked["folder"])
    for name in {"numpy.random", "torch"} & sys.modules.keys():
        sys.modules[name].seed()  # what nobody seeds is not to be the same in every fork
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance(asked["arguments"])
    return 0


def _settle(environment: Mapping[str, str], folder: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)


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
        _settle(asked["environment"], asked["folder"])
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
        return _become_kernel(reading, own)
    os.close(reading)
    threading.Thread(target=_end_with, args=(client,), daemon=True).start()

    def command() -> None:
        given = parsed(["run", *asked["arguments"]])
        execute(given.notebook, given.output, given.parameter, _manager_of(_Kernel(pid, writing)))

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
