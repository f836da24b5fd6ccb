"""A notebook's kernel that is a fork of the process that asks for it (`vlp_lib.cli.warm`), for papermill to drive."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlp_lib.distributed import end_with_parent

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager


def settle(environment: Mapping[str, str], folder: str) -> None:
    """Work with another environment, and in another folder."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)


class ForkedKernel:
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


def manager_of(kernel: ForkedKernel) -> type[AsyncKernelManager]:
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


def become_kernel(orders: int, stage: int) -> int:
    """Wait for a command line, then be the kernel until it is told to end, or until its stage, a process id, does."""
    end_with_parent()
    os.setsid()
    with os.fdopen(orders, encoding="utf-8") as pipe:
        text = pipe.read()
    if not text or os.getppid() != stage:  # the stage ended before it started a kernel
        return 0
    asked = json.loads(text)
    settle(asked["environment"], asked["folder"])
    for name in {"numpy.random", "torch"} & sys.modules.keys():
        sys.modules[name].seed()  # what nobody seeds is not to be the same in every fork
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance(asked["arguments"])
    return 0
