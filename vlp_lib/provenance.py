"""Where a result comes from: versions, machine, commit, time and memory."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlp_lib.io import write_json

if TYPE_CHECKING:
    import torch

_VERSIONS_OF = ("torch", "torchvision", "timm", "transformers", "accelerate", "numpy", "scipy", "vlp-lib")


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


def peak_memory(children: bool = False) -> float | None:
    """The most memory, in GiB, that this process or any finished child has held; None where nothing says it."""
    try:
        import resource  # Windows has none
    except ImportError:
        return None
    used = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes, Linux in KiB.
    return round(used / (2**30 if sys.platform == "darwin" else 2**20), 2)


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
        "peak_memory_gib": peak_memory(),
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
