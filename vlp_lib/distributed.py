"""One process or many: who speaks, who writes, who goes first, and who works in a folder."""

from __future__ import annotations

import errno
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlp_lib.errors import UserError
from vlp_lib.io import writable


def launched() -> bool:
    """Whether a launcher (torchrun, `accelerate launch`) has started several processes for this command."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def is_main() -> bool:
    """Whether this process is the one that prints and writes."""
    return not launched() or int(os.environ.get("RANK") or 0) == 0


@contextmanager
def main_first() -> Iterator[None]:
    """The others enter when the main process has left, e.g. to read what it has written."""
    if not launched():
        yield
        return
    from accelerate import PartialState

    with PartialState().main_process_first():
        yield


def leave() -> None:
    """Part from the other processes at the end of a command."""
    if launched():
        from accelerate import PartialState

        PartialState().destroy_process_group()


def end_with_parent(*_: object) -> None:
    """Let the kernel of Linux end this process when the one that started it is killed; elsewhere it may work on."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep every other start out of a folder of results; raises UserError naming the process that works in it.

    The lock is the system's, on the hidden file .<name>.lock beside the folder: it ends with its process, however that
    ends. Of several processes of one start the main one holds it for all.
    """
    if not is_main():
        yield
        return
    path = folder.with_name(f".{folder.name}.lock")
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    with file:
        try:
            _lock(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                print(f"{folder} is not locked, for want of locks on this disk ({error}): start nothing else there")
                yield
                return
            time.sleep(0.1)  # the holder's name follows its lock
            file.seek(0)
            raise UserError(
                f"{file.read().strip() or 'another process'} works in {folder}: let it finish, or end it and run the "
                f"same command again to go on"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def _lock(descriptor: int) -> None:
    """Take the lock of an open file, or raise OSError at once.

    Not flock: workers that are forked inherit its locks and would keep them when the process itself is killed.
    """
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # a byte behind the text, which others must read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        try:
            import fcntl
        except ImportError as error:
            raise OSError(errno.ENOLCK, "this system has none") from error
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
