"""What of a profile's results may be shared: small files, no weights, no corpus, no path of the machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from vlp_lib.errors import UserError
from vlp_lib.io import write_text
from vlp_lib.run import project_root

MOST_BYTES = 1_000_000
_SHARED = ("index.html", "figures/*", "tables/*", "*/*/seed*/run.json", "*/*/seed*/metrics.jsonl", "speed/*.json")
_BINARY = (".png", ".pdf")


def _without_paths(text: str, results: Path) -> str:
    """Paths of the results and of the checkout, relative to the checkout."""
    return text.replace(f"{results}/", "results/").replace(f"{project_root()}/", "")


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

    `target` is emptied first. Raises UserError where there is nothing to share or a file has 1 MB or more.
    """
    files = sorted({file for pattern in _SHARED for file in source.glob(pattern) if file.is_file()})
    notebooks = _of_first_seeds(sorted(source.glob("notebooks/*.ipynb")))
    if not files:
        raise UserError(f"{source} holds no results: run `make reproduce` first")
    for file in (*files, *notebooks):
        if file.stat().st_size >= MOST_BYTES:
            raise UserError(f"{file} has {file.stat().st_size:,} bytes, more than is shared: make it smaller")
    if target.exists():
        shutil.rmtree(target)
    written = []
    for file in files:
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in _BINARY:
            shutil.copyfile(file, copy)
        else:
            write_text(copy, _without_paths(file.read_text(encoding="utf-8"), source.resolve().parent))
        written.append(copy)
    for file in notebooks:
        notebook = json.loads(file.read_text(encoding="utf-8"))
        record = notebook["metadata"].get("papermill", {})
        for name in ("input_path", "output_path"):
            record[name] = Path(record.get(name, file.name)).name
        copy = target / file.relative_to(source)
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        write_text(copy, _without_paths(text, source.resolve().parent))
        written.append(copy)
    return written
