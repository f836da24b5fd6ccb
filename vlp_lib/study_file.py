"""A whole study as a table: the runs that `vlp reproduce --runs FILE` makes, a TOML file such as

    [[run]]
    variant = "segl"

    [[run]]
    name = "majority"
    variant = "segl"
    settings = "losses.segl.downsampling=majority training.steps=1000"
    seeds = [0, 1]
    plugin = "my_loss.py"

Only `variant` must be there. `seeds` are the command's where they are left out, and `plugin` is relative to the file.
"""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlp_lib.errors import UserError, unknown
from vlp_lib.io import read_text, write_text
from vlp_lib.run import READS, Run, settings_of_stage, split_settings

_EXAMPLES: dict[str, tuple[type, str]] = {
    "name": (str, '"majority"'),
    "variant": (str, '"segl"'),
    "settings": (str, '"training.steps=100"'),
    "seeds": (list, "[0, 1]"),
    "plugin": (str, '"my_loss.py"'),
}
"""What a run may have: of which kind, and how it is written."""


def read_study(path: Path, profile: str, data_root: str, seeds: Sequence[int]) -> list[Run]:
    """The runs of a study file, one for each name and seed.

    Raises UserError for a file that cannot be read, an unknown or wrong key, a wrong run, a setting that no stage
    reads, and a name that occurs twice.
    """
    try:
        table = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML ({error}): mend that line") from error
    for key in table:
        if key != "run":
            raise unknown(f"table in {path}:", key, ["run"])
    entries = table.get("run")
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path} has no [[run]]: write one for each run")
    runs = [run for entry in entries for run in _runs(path, entry, profile, data_root, seeds)]
    return require_different(runs, str(path))


def write_study(path: Path, runs: Sequence[Run], about: str) -> Path:
    """Write such a file, one entry a name and without seeds, which the command gives; returns its path.

    `about` becomes the comment at its head.
    """
    lines = [f"# {line}".rstrip() for line in about.splitlines()]
    for run in {run.name: run for run in runs}.values():
        entry = {"name": run.name, "variant": run.chosen.name, "settings": shlex.join(run.settings)}
        if run.plugin:
            entry["plugin"] = str(Path(run.plugin).resolve())
        lines += ["", "[[run]]", *(f"{key} = {json.dumps(value)}" for key, value in entry.items() if value)]
    write_text(path, "\n".join(lines) + "\n")
    return path


def require_different(runs: list[Run], where: str) -> list[Run]:
    """The runs, if no two share a folder; raises UserError that says where they stand."""
    seen: set[tuple[str, int]] = set()
    for run in runs:
        if (run.name, run.seed) in seen:
            raise UserError(f"{where} has two runs of name {run.name!r} and seed {run.seed}: give one another name")
        seen.add((run.name, run.seed))
    return runs


def _runs(path: Path, entry: dict[str, Any], profile: str, data_root: str, seeds: Sequence[int]) -> list[Run]:
    for key, value in entry.items():
        if key not in _EXAMPLES:
            raise unknown(f"key of a run in {path}:", key, _EXAMPLES)
        kind, example = _EXAMPLES[key]
        if not isinstance(value, kind):
            raise UserError(f"{path}: {key} is {value!r}: write it as in {key} = {example}")
    if "variant" not in entry:
        raise UserError(f'{path}: the run {entry.get("name", "")!r} has no variant: add e.g. variant = "segl"')
    chosen = entry.get("seeds", list(seeds))
    if not chosen or not all(type(seed) is int and seed >= 0 for seed in chosen):
        raise UserError(f"{path}: seeds is {chosen!r}: write it as in seeds = {_EXAMPLES['seeds'][1]}")
    settings = split_settings(entry.get("settings", ""))
    for text in settings:
        if not any(settings_of_stage([text], stage) for stage in READS):
            raise UserError(f"{path}: setting {text!r} is read by no stage of a run: leave it out")
    plugin = str((path.parent / entry["plugin"]).resolve()) if entry.get("plugin") else ""
    return [Run(profile, entry["variant"], seed, data_root, entry.get("name", ""), settings, plugin) for seed in chosen]
