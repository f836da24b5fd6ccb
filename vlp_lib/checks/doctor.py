"""Before a long run: is the installation whole, is the machine ready? Whether the run fits says `bench.budget`."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from importlib import import_module, metadata
from pathlib import Path
from typing import NamedTuple

import torch
from packaging.requirements import Requirement

from vlp_lib.bench.budget import GIB
from vlp_lib.trainers.trained import device_at_hand

_PACKAGE = "vlp-lib"
_IMPORT_NAMES = {"pillow": "PIL"}


class Check(NamedTuple):
    """One thing that was looked at: fine, or with what to do about it."""

    name: str
    fine: bool
    said: str

    def __str__(self) -> str:
        return f"{'ok ' if self.fine else 'NO '} {self.name:<14} {self.said}"


def _import(name: str) -> str | None:
    """The first line of what goes wrong when a package is imported, or None."""
    try:
        import_module(_IMPORT_NAMES.get(name, name.replace("-", "_")))
    except Exception as error:  # a broken installation raises anything
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def check_packages() -> list[Check]:
    """Every package that the library needs: there, of a version in its range, and importable."""
    try:
        requirements = metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        return [Check(_PACKAGE, False, "not installed: run `pip install -e .` in the checkout")]
    checks = []
    for text in requirements:
        needed = Requirement(text)
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            checks.append(Check(needed.name, False, f"missing: pip install '{needed}'"))
            continue
        if not needed.specifier.contains(version, prereleases=True):
            checks.append(Check(needed.name, False, f"{version}, needed is {needed.specifier}: pip install '{needed}'"))
            continue
        broken = _import(needed.name)
        checks.append(Check(needed.name, broken is None, version if broken is None else f"{version}, but {broken}"))
    return checks


def check_machine(results: Path, needed: int) -> list[Check]:
    """Python, the device, and the folder of results: whether it can be written and holds a run's checkpoints."""
    device = device_at_hand()
    checks = [Check("python", True, platform.python_version())]
    if device.type == "cuda":
        fine = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name(device)
        said = "multiplies bf16" if fine else "multiplies no bf16: training falls back to float32"
        checks.append(Check("device", True, f"{torch.cuda.device_count()} × {name}, {said}"))
    else:
        said = f"no GPU: {os.cpu_count()} CPU cores, fit for the profiles smoke, lesson, tiny and photos"
        checks.append(Check("device", True, said))
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
        free = shutil.disk_usage(results).free
        said = f"{results}: {free / GIB:,.0f} GiB free, a run keeps up to {needed / GIB:.1f} GiB of checkpoints"
        checks.append(Check("results", free > needed, said))
    except OSError as error:
        checks.append(Check("results", False, f"{results} cannot be written ({error.strerror}): set VLP_RESULTS"))
    return checks


def checkpoint_bytes(parameters: int, keep: int) -> int:
    """Disk that a run takes at most: the best weights, and one state more than are kept, with AdamW's moments."""
    return 4 * parameters * (1 + 3 * (keep + 1))
