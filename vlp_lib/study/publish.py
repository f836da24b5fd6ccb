"""What of a profile's results may be shared: small files, no weights, no corpus, no path of the machine."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vlp_lib.errors import UserError
from vlp_lib.io import read_json, write_text
from vlp_lib.run import project_root

MOST_BYTES = 1_000_000
_OF_RUNS = ("run.json", "metrics.jsonl", "items.npz")
_SHARED = ("index.html", "figures/*", "tables/*", *(f"*/*/seed*/{name}" for name in _OF_RUNS), "speed/*.json")
_BINARY = (".png", ".pdf", ".npz")

MANIFEST = "published.txt"
"""Names the files that `publish` wrote into a folder: it empties no folder that holds others."""


def _places(source: Path, records: Iterable[dict[str, Any]]) -> dict[str, str]:
    """What replaces each path of this machine: the results, the checkout, and the data by the name of their folder."""
    roots = {str(record.get("data_root") or "") for record in records}
    data = {root.rstrip("/"): Path(root).name for root in roots if Path(root).is_absolute() and Path(root).name}
    return {**data, f"{source.resolve().parent}/": "results/", f"{project_root()}/": ""}


def _without_paths(text: str, places: dict[str, str]) -> str:
    """The text with the paths of this machine replaced, the longest first and only whole names of folders."""
    paths = sorted(places, key=len, reverse=True)
    pattern = "|".join(re.escape(path) + ("" if path.endswith("/") else r"(?![\w.-])") for path in paths)
    return re.sub(pattern, lambda found: places[found[0]], text)


def _require_ours(source: Path, target: Path) -> None:
    """Raise UserError unless emptying `target` loses nothing but what `publish` wrote there."""
    if source.is_relative_to(target):
        raise UserError(f"{target} is or holds the results that are to be shared: give another folder")
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file: give a folder")
    manifest = target / MANIFEST
    ours = {MANIFEST, *manifest.read_text(encoding="utf-8").splitlines()} if manifest.is_file() else set()
    for file in sorted(target.rglob("*")):
        if (file.is_symlink() or not file.is_dir()) and file.relative_to(target).as_posix() not in ours:
            raise UserError(f"{target} would be emptied, but {file} was not published there: give another folder")


def _of_first_seeds(notebooks: list[Path]) -> list[Path]:
    """The notebooks without a seed in their names, and of those with one the lowest seed's."""
    seeds: dict[str, dict[int, Path]] = {}
    for file in notebooks:
        stem, _, seed = file.stem.rpartition("-seed")
        name, number = (stem, int(seed)) if seed.isdigit() else (file.stem, 0)
        seeds.setdefault(name, {})[number] = file
    return [found[min(found)] for found in seeds.values()]


def publish(source: Path, target: Path) -> list[Path]:
    """Copy the records, figures, tables and executed notebooks of a profile; returns what was written.

    Of the notebooks that were executed with several seeds only the first seed's are copied: they differ in numbers that
    the records have, and their pictures are most of what there is to store.

    `target` is emptied first. Raises UserError where there is nothing to share, a file has 1 MB or more, or `target`
    holds what `publish` did not write, such as `source` itself.
    """
    source, target = source.resolve(), target.resolve()
    files = sorted({file for pattern in _SHARED for file in source.glob(pattern) if file.is_file()})
    notebooks = _of_first_seeds(sorted(source.glob("notebooks/*.ipynb")))
    if not files:
        raise UserError(f"{source} holds no results: run `make reproduce` first")
    for file in (*files, *notebooks):
        if file.stat().st_size >= MOST_BYTES:
            raise UserError(f"{file} has {file.stat().st_size:,} bytes, more than is shared: make it smaller")
    _require_ours(source, target)
    executed = {file: json.loads(file.read_text(encoding="utf-8")) for file in notebooks}
    parameters = [notebook["metadata"].get("papermill", {}).get("parameters", {}) for notebook in executed.values()]
    places = _places(source, [*(read_json(file) for file in files if file.name == "run.json"), *parameters])
    if target.exists():
        shutil.rmtree(target)
    names = (file.relative_to(source).as_posix() for file in (*files, *executed))
    write_text(
        target / MANIFEST, "".join(f"{name}\n" for name in names)
    )  # first: a copy that is cut short is ours, too
    written = []
    for file in files:
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in _BINARY:
            shutil.copyfile(file, copy)
        else:
            write_text(copy, _without_paths(file.read_text(encoding="utf-8"), places))
        written.append(copy)
    for file, notebook in executed.items():
        record = notebook["metadata"].get("papermill", {})
        for name in ("input_path", "output_path"):
            record[name] = Path(record.get(name, file.name)).name
        copy = target / file.relative_to(source)
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        write_text(copy, _without_paths(text, places))
        written.append(copy)
    return written
