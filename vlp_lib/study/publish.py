"""What of a profile's results may be shared: small files, packed weights, no corpus, no path of the machine."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path

from vlp_lib.errors import UserError
from vlp_lib.io import read_json, require_ours, write_text
from vlp_lib.run import project_root

MOST_BYTES, MOST_BYTES_OF_WEIGHTS = 1_000_000, 3_000_000
_OF_RUNS = ("run.json", "metrics.jsonl", "items.npz")
_SHARED = ("index.html", "figures/*", "tables/*", *(f"*/*/seed*/{name}" for name in _OF_RUNS), "speed/*.json",
           "weights/*.safetensors")  # fmt: skip
_BINARY = (".png", ".pdf", ".npz", ".safetensors")

MANIFEST = "published.txt"
"""The SHA-256 of what `publish` wrote into a folder, as sha256sum reads it: it replaces no folder that holds more."""


def _without_paths(text: str, places: dict[str, str]) -> str:
    """The text with the paths of this machine replaced, the longest first and only whole names of folders."""
    paths = sorted(places, key=len, reverse=True)
    pattern = "|".join(re.escape(path) + ("" if path.endswith("/") else r"(?![\w.-])") for path in paths)
    return re.sub(pattern, lambda found: places[found[0]], text)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def publish(source: Path, target: Path) -> list[Path]:
    """Copy the records, figures, tables and executed notebooks of a profile; returns what was written.

    Of the notebooks that were executed with several seeds only the first seed's are copied: they differ in numbers that
    the records have, and their pictures are most of what there is to store.

    `target` is replaced at once when all is written. Raises UserError where there is nothing to share, a file has 1 MB
    or more (weights: 3 MB), or `target` is, holds or lies in `source`, or holds what `publish` did not write or what
    has changed since.
    """
    source, target = source.resolve(), target.resolve()
    files = sorted({file for pattern in _SHARED for file in source.glob(pattern) if file.is_file()})
    first: dict[str, Path] = {}  # by the notebook's name without the seed
    for file in sorted(source.glob("notebooks/*.ipynb"), key=lambda file: (len(file.stem), file.stem)):  # 10 behind 9
        first.setdefault(re.sub(r"-seed\d+$", "", file.stem), file)
    notebooks = sorted(first.values())
    if not files:
        raise UserError(f"{source} holds no results: run `make reproduce` first")
    for file in (*files, *notebooks):
        if file.stat().st_size >= (MOST_BYTES_OF_WEIGHTS if file.suffix == ".safetensors" else MOST_BYTES):
            raise UserError(f"{file} has {file.stat().st_size:,} bytes, more than is shared: make it smaller")
    if source.is_relative_to(target) or target.is_relative_to(source):
        raise UserError(f"{target} is, holds or lies in the results that are to be shared: give another folder")
    manifest = target / MANIFEST
    lines = manifest.read_text(encoding="utf-8").splitlines() if manifest.is_file() else []
    before = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    require_ours(target, lambda name: name == MANIFEST or before.get(name) == _digest(target / name))
    executed = {file: json.loads(file.read_text(encoding="utf-8")) for file in notebooks}
    parameters = [notebook["metadata"].get("papermill", {}).get("parameters", {}) for notebook in executed.values()]
    records = (read_json(file) for file in files if file.name == "run.json")
    roots = {str(record.get("data_root") or "") for record in (*records, *parameters)}
    # Of the data only the name of their folder is left.
    places = {root.rstrip("/"): Path(root).name for root in roots if Path(root).is_absolute() and Path(root).name}
    places |= {f"{source.parent}/": "results/", f"{project_root()}/": ""}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as beside:
            draft = Path(beside) / "new"
            for file in files:
                copy = draft / file.relative_to(source)
                if file.suffix in _BINARY:
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, copy)
                else:
                    write_text(copy, _without_paths(file.read_text(encoding="utf-8"), places))
            for file, notebook in executed.items():
                record = notebook["metadata"].get("papermill", {})
                for name in ("input_path", "output_path"):
                    record[name] = Path(record.get(name, file.name)).name
                text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
                write_text(draft / file.relative_to(source), _without_paths(text, places))
            names = [file.relative_to(source).as_posix() for file in (*files, *executed)]
            write_text(draft / MANIFEST, "".join(f"{_digest(draft / name)}  {name}\n" for name in names))
            if target.exists():
                target.rename(Path(beside) / "old")
            draft.rename(target)
    except OSError as error:
        raise UserError(f"cannot write {target} ({error}): make room or choose a folder that can be written") from error
    return [target / name for name in names]
