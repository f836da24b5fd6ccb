"""`python -m vlp_lib.cli.warm SOCKET NOTEBOOKS`: a process that has imported what stages need, and forks them.

A stage of the graph is two processes, papermill's and the kernel's, which import for about eight seconds what every
other stage imports, too. Here it is imported once, and each stage starts as a copy.

Only on Linux and without a GPU: elsewhere libraries forbid the fork of a process that has imported them, or nobody has
tried it. Every stage can as well be started anew (`vlp_lib.cli.stage`), and is where anything here does not fit it.
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

from vlp_lib.cli import answered, parsed
from vlp_lib.cli.notebook import execute, without_iri_grammar
from vlp_lib.cli.stage import ANEW
from vlp_lib.closure import PACKAGE, notebook_imports


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

    class Provisioner(LocalProvisioner):
        async def launch_kernel(self, cmd: list[str], **given: Any) -> Any:
            folder = given.get("cwd") or Path.cwd()
            kernel.begin(cmd[cmd.index("ipykernel_launcher") + 1 :], given["env"], folder)
            self.process, self.pid, self.pgid, self.cwd = kernel, kernel.pid, kernel.pid, folder  # type: ignore[assignment]
            return self.connection_info

    class Manager(AsyncKernelManager):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.provisioner = Provisioner(kernel_id="", kernel_spec=self.kernel_spec, parent=self)

    return Manager


def _become_kernel(orders: int) -> int:
    """Wait for a command line, then be the kernel until it is told to end."""
    os.setsid()
    parent = os.getppid()
    with os.fdopen(orders, encoding="utf-8") as pipe:
        text = pipe.read()
    if not text:  # the stage ended before it started a kernel
        return 0
    asked = json.loads(text)
    _settle(asked["environment"], asked["folder"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    from ipykernel.kernelapp import launch_new_instance

    # Whom to end with it reads from the environment when it is imported, which was elsewhere.
    launch_new_instance([*asked["arguments"], f"--IPKernelApp.parent_handle={parent}"])
    return 0


def _settle(environment: Mapping[str, str], folder: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)


def _stage(client: socket.socket, sources: Mapping[Path, int]) -> int:
    """Do what a client asks for, with its output and environment, and answer with the exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, descriptors, _, _ = socket.recv_fds(client, 1, 2)
    with client.makefile(encoding="utf-8") as lines:
        asked = json.loads(head.decode() + lines.readline())
    if sources != _sources():
        client.sendall(bytes([ANEW]))
        return 0
    for target, descriptor in enumerate(descriptors, 1):
        os.dup2(descriptor, target)
        os.close(descriptor)
    _settle(asked["environment"], asked["folder"])
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:  # before this process has a thread
        client.close()
        os.close(writing)
        return _become_kernel(reading)
    os.close(reading)
    threading.Thread(target=_end_with, args=(client,), daemon=True).start()

    def command() -> None:
        given = parsed(["run", *asked["arguments"]])
        execute(given.notebook, given.output, given.parameter, _manager_of(_Kernel(pid, writing)))

    status = answered(command)
    sys.stdout.flush()
    client.sendall(bytes([status]))
    return status


def _end_with(client: socket.socket) -> None:
    """End this process when its client does; the kernel watches this one."""
    if not client.recv(1):
        os.kill(os.getpid(), signal.SIGKILL)


def _sources() -> dict[Path, int]:
    """When each file of the library was written: what has changed since it was imported must be imported anew."""
    return {path: path.stat().st_mtime_ns for path in PACKAGE.rglob("*.py")}


def serve(place: str, notebooks: Path) -> int:
    """Fork a stage for each client; returns in the forks alone."""
    sources = _sources()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen(64)  # before the imports: who comes early waits for them, which is sooner than its own
        without_iri_grammar()
        names = {name for notebook in notebooks.glob("[012]?_*.ipynb") for name in notebook_imports(notebook)}
        for name in ["papermill", "ipykernel.kernelapp", *sorted(names)]:
            with contextlib.suppress(Exception):  # no module but a name in one; or broken, which the stage says itself
                importlib.import_module(name)
        gc.collect()
        gc.freeze()  # a collection in a fork would copy all that is shared
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the stages here: their clients do
        while True:
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                with client:
                    return _stage(client, sources)
            client.close()


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1], Path(sys.argv[2])))
