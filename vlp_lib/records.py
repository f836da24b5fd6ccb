"""What a run leaves on disk: its configuration, its metrics, and where they come from. Every write is atomic."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlp_lib.errors import UserError

if TYPE_CHECKING:
    import torch

_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")
"""What `write_atomically` calls a file until it is whole."""

_VERSIONS_OF = ("torch", "torchvision", "timm", "transformers", "accelerate", "numpy", "scipy", "vlp-lib")


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then give it its name; a failure leaves `path` as it was.

    Raises UserError when the disk is full or the folder cannot be written.
    """
    temporary = Path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error}): make room or choose a folder that can be written") from error
    finally:
        if temporary != Path():
            temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Delete what processes that were killed while they wrote into this folder have left there."""
    for path in folder.glob(".*.*"):
        if path.is_file() and _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A text file, atomically."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def write_json(path: Path, value: Any) -> None:
    """A JSON file, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """A JSON file; raises UserError naming a missing or broken one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON ({error}): write or fetch it again") from error


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """A JSON-lines file, atomically."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; none where it does not exist; raises UserError naming a broken line."""
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}, line {number}, is not JSON ({error}): delete the run's folder and run it again"
            ) from error
    return rows


def git_state(folder: Path) -> dict[str, Any]:
    """The commit of the checkout and whether it has changes; nulls outside of one."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    status = git("status", "--porcelain")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def peak_memory(of: int) -> float:
    """The most memory, in GiB, that this process (RUSAGE_SELF) or any finished child (RUSAGE_CHILDREN) has held."""
    # macOS counts in bytes, Linux in KiB.
    return resource.getrusage(of).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and device, as every run.json has them."""
    import torch  # here and not above: the launcher of notebooks reads this module and need not wait for torch

    versions = {name: metadata.version(name) for name in _VERSIONS_OF}
    return {
        "python": platform.python_version(),
        "versions": versions,
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "peak_memory_gib": round(peak_memory(resource.RUSAGE_SELF), 2),
    }


def write_run(folder: Path, facts: dict[str, Any], module: torch.nn.Module, begun: str, seconds: float) -> None:
    """Write run.json: the facts of a run, then what made them (size, time, commit, versions, device).

    Args:
        facts: stage, profile, variant, seed, corpus and whatever else the stage knows.
        module: the model, for its number of parameters and its device.
        begun: when the run started, as `now` gives it.
        seconds: what it took.
    """
    write_json(
        folder / "run.json",
        {
            **facts,
            "parameters": sum(p.numel() for p in module.parameters()),
            "started": begun,
            "seconds": round(seconds, 1),
            **git_state(Path(__file__).parent),
            **environment(next(module.parameters()).device),
        },
    )


def now() -> str:
    """This moment, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
