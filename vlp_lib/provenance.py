"""A run's folder and its record: begun, continued or moved aside; versions, machine, code, time and memory."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlp_lib import __version__
from vlp_lib.closure import code_of
from vlp_lib.config import flatten
from vlp_lib.errors import UserError
from vlp_lib.io import read_json, write_json
from vlp_lib.run import CONFIG, RECORD

if TYPE_CHECKING:
    import torch

CODE = "code.json"
"""In a run's folder: the SHA-256 of each module that it was made by, and which of them have changed since it began."""

_VERSIONS_OF = ("torch", "torchvision", "timm", "transformers", "accelerate", "numpy", "scipy")


def git_state(folder: Path) -> dict[str, Any]:
    """The commit of the checkout and whether it has changes; nulls outside of one."""
    command = ["git", "-C", str(folder), "status", "--porcelain=v2", "--branch"]
    try:
        status = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {
        "commit": status[0].removeprefix("# branch.oid "),
        "dirty": any(not line.startswith("#") for line in status),
    }


def peak_memory(children: bool = False) -> float | None:
    """The most memory, in GiB, that this process or any finished child has held; None where nothing says it.

    Of what a fork shares with the process it comes from, the system counts what the fork has touched.
    """
    try:
        import resource  # Windows has none
    except ImportError:
        return None
    used = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes, Linux in KiB.
    return round(used / (2**30 if sys.platform == "darwin" else 2**20), 2)


def circumstances(device: torch.device, begun: str, seconds: float) -> dict[str, Any]:
    """What a record says of its making: when (`begun`, see `now`), how long, commit, versions, machine and memory."""
    import torch  # here and not above: the launcher of notebooks reads this module and need not wait for torch

    return {
        "started": begun,
        "seconds": round(seconds, 1),
        **git_state(Path(__file__).parent),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _VERSIONS_OF} | {"vlp-lib": __version__},
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "peak_memory_gib": peak_memory(),
    }


def begin(folder: Path, config: dict[str, Any], restart: bool, entry: str, recomputed: bool = False) -> None:
    """Begin or continue a run folder: a run is its settings and its data, `config`.

    A folder that other settings or data began is refused, naming the first field that differs; with `restart` it is
    moved aside (`set_aside`) and a new one begun. Code that has changed since is no other run: it is printed once, and
    noted in code.json and run.json.

    Args:
        config: what decides the results, as plain data; "settings" says how it was asked for and is not compared.
        entry: the stage's module; the code of a run is that of all modules which this one imports.
        recomputed: whether the stage computes everything again; a finished folder of other code is then moved aside.
    """
    code = code_of(entry)
    if (folder / CONFIG).is_file():
        old, new = flatten(read_json(folder / CONFIG)), flatten(config)
        changed = sorted(n for n in (old.keys() | new.keys()) - {"settings"} if old.get(n) != new.get(n))
        if not changed:
            if not (_note_code(folder, code) and recomputed and (folder / RECORD).is_file()):
                return
            print(f"what {folder} had lies now in {set_aside(folder)}")
        elif restart:
            print(f"{changed[0]} has changed since {folder} was begun; it lies now in {set_aside(folder)}")
        else:
            name = changed[0]
            raise UserError(
                f"{folder} was begun with {name} = {old.get(name)!r} and now it is {new.get(name)!r}: take the old "
                f"value, or give this run a name of its own (--name, in a notebook name=)"
            )
    write_json(folder / CODE, {"modules": code, "changed": []})
    write_json(folder / CONFIG, config)


def set_aside(path: Path) -> Path:
    """Rename a run's folder or file so that it stays and nothing reads it: old-<date>-<time>-<name>, beside it."""
    return path.rename(path.with_name(f"old-{datetime.now():%Y%m%d-%H%M%S.%f}-{path.name}"))


def _note_code(folder: Path, code: dict[str, str]) -> list[str]:
    """The modules whose code differs from that of the run so far; they are printed and noted."""
    noted: dict[str, Any] = read_json(folder / CODE) if (folder / CODE).is_file() else {"modules": code, "changed": []}
    old: dict[str, str] = noted["modules"]
    changed = sorted(name for name in old.keys() | code.keys() if old.get(name) != code.get(name))
    if changed:
        shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
        print(f"the code has changed since {folder} was begun ({shown}): nothing is lost, and {CODE} names it all")
    if changed or not (folder / CODE).is_file():
        write_json(folder / CODE, {"modules": code, "changed": sorted({*noted["changed"], *changed})})
    return changed


def write_run(
    folder: Path, facts: dict[str, Any], module: torch.nn.Module, begun: str, seconds: float, **measured: float
) -> None:
    """Write run.json: the facts of a run, then what made them (size, time, code, commit, versions, device).

    Where the run was finished before with the same facts, its record stays but for the changed code; with other facts
    (scored anew by other code), the old record is moved aside.

    `module` is the model, for its parameters and device; the run began at `begun` (as `now` gives it) and took so many
    seconds. `measured` differs from time to time and is compared with nothing.
    """
    path = folder / RECORD
    noted = read_json(folder / CODE)
    digest = hashlib.sha256(json.dumps(noted["modules"], sort_keys=True).encode()).hexdigest()
    if path.is_file():
        old = read_json(path)
        if json.loads(json.dumps(facts)).items() <= old.items():
            write_json(path, {**old, "code_changed": noted["changed"]})
            return
        set_aside(path)
    write_json(
        path,
        {
            **facts,
            **measured,
            "parameters": sum(p.numel() for p in module.parameters()),
            "code": digest,
            "code_changed": noted["changed"],
            **circumstances(next(module.parameters()).device, begun, seconds),
        },
    )


def now() -> str:
    """This moment, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
