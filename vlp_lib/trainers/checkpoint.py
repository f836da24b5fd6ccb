"""Weights and resumable states on disk; nothing half-written ever carries a final name."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from vlp_lib.errors import UserError, reason
from vlp_lib.io import read_json, write_atomically, write_json, write_text
from vlp_lib.models.weights import NAMED, require_same_tensors

_HALF = ".half-written"
_SUMS = "SHA256SUMS"
"""In a state: the SHA-256 of each of its other files, as sha256sum writes them."""


def save_weights(path: Path, model: nn.Module, about: dict[str, Any]) -> None:
    """A model's weights as safetensors, with what they are of (a flat JSON object) in the header."""
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}

    def write(target: Path) -> None:
        try:
            save_file(state, target, metadata={"about": json.dumps(about)})
        except SafetensorError as error:  # what the library makes of a full disk
            raise OSError(str(error)) from error

    write_atomically(path, write)


def read_tensors(path: Path, mend: str) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """What the header of a safetensors file says, and its tensors by name.

    Raises UserError, with the mend, for a file that is broken or none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has several kinds of failure, and one more for kinds that torch has not
        raise UserError(f"{path} is no readable weights file ({error}): {mend}") from error


def load_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Load weights saved by `save_weights`; returns what they are of.

    Raises UserError where the file is missing or broken, holds values that are not finite, or is of another model:
    the tensors that differ are named, the first with its shapes.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}: run the pretraining that writes them first")
    metadata, state = read_tensors(path, "delete it and run its stage again")
    try:
        about = dict(json.loads(metadata.get("about", "{}")))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no readable weights file ({error}): delete it and run its stage again") from error
    given = {name: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for name, value in state.items()}
    of = ", ".join(f"{k} {v}" for k, v in about.items() if isinstance(v, str | int)) or "unnamed"
    mend = "give the checkpoint of the same profile, variant and corpus"
    require_same_tensors(given, model.state_dict(), path, f"{path} holds another model ({of})", mend)
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise UserError(f"{path} holds values that are not finite in {', '.join(broken[:NAMED])}: train it again")
    model.load_state_dict(state)
    return about


def save_state(accelerator: Accelerator, folder: Path, state: dict[str, Any], keep: int) -> None:
    """Everything a resumed run needs, in `folder/step-…`; the last `keep` of these stay.

    The state is written under another name and renamed when it is whole. Every process calls this.
    """
    final = folder / f"step-{state['step']:08d}"
    half = folder / (final.name + _HALF)
    try:
        if accelerator.is_main_process:
            remove_half_written(folder)
            half.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(half), safe_serialization=True)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            write_json(half / "state.json", state | {"processes": accelerator.num_processes})
            write_text(half / _SUMS, _sums(half))
            if final.exists():
                _remove(final)
            half.rename(final)
            for old in _states(folder)[:-keep]:
                _remove(old)
    except (OSError, SafetensorError, RuntimeError, UserError) as error:
        shutil.rmtree(half, ignore_errors=True)
        raise UserError(
            f"cannot write the checkpoint {final} ({error}): make room on the disk and start the run again; it goes on "
            f"from the last whole checkpoint"
        ) from error
    accelerator.wait_for_everyone()


def load_state(accelerator: Accelerator, folder: Path) -> dict[str, Any] | None:
    """Restore the newest whole state into what the accelerator has prepared; None where there is none.

    A state is whole where each of its files has the SHA-256 that it was written with. Of others it prints the name and
    takes the one before. Raises UserError where no state is whole, and for one of another model or other processes.
    """
    states = _states(folder)
    if not states:
        return None
    whole = next((state for state in reversed(states) if _is_whole(state)), None)
    if whole is None:
        raise UserError(
            f"the checkpoint {states[-1]} cannot be read (its files are not those of its {_SUMS}), and there is no "
            f"whole one before it: delete that folder and start again"
        )
    if whole != states[-1] and accelerator.is_main_process:
        print(f"the checkpoint {states[-1]} is damaged (its {_SUMS} says so): going on from {whole.name}")
    folder = whole
    state: dict[str, Any] = read_json(folder / "state.json")
    processes = state.pop("processes")
    if processes != accelerator.num_processes:
        raise UserError(
            f"the checkpoint {folder} was written by {processes} processes and {accelerator.num_processes} would go on "
            f"with it: start the run with {processes}"
        )
    try:
        accelerator.load_state(str(folder))
    except Exception as error:  # unpickling raises whatever the bytes make it raise
        raise UserError(
            f"the checkpoint {folder} cannot be read ({reason(error)}): delete that folder and start again"
        ) from error
    return state


def remove_half_written(folder: Path) -> None:
    """Delete what processes that were killed while they wrote or deleted states have left in this folder."""
    for left in folder.glob(f"*{_HALF}"):
        shutil.rmtree(left, ignore_errors=True)


def _remove(state: Path) -> None:
    """Delete a state; a process that is killed meanwhile leaves nothing that looks whole."""
    gone = state.with_name(state.name + ".old" + _HALF)
    state.rename(gone)
    shutil.rmtree(gone)


def _sums(state: Path) -> str:
    """What `_SUMS` of a state says: a line for each of its other files."""
    lines = []
    for path in sorted(p for p in state.iterdir() if p.name != _SUMS):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    return "".join(lines)


def _is_whole(state: Path) -> bool:
    try:
        return (state / _SUMS).read_bytes() == _sums(state).encode()
    except OSError:
        return False


def _states(folder: Path) -> list[Path]:
    """The whole states, oldest first."""
    return sorted(folder.glob(f"step-{'[0-9]' * 8}"))
