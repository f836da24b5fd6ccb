"""Losses from outside the kit: a run keeps the file that its loss was written in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlp_lib import catalogue
from vlp_lib.io import write_text
from vlp_lib.variants import Variant

FOLDER = "plugins"


def describe_plugins(variant: Variant) -> dict[str, str]:
    """The SHA-256 of each of the variant's losses that is not the kit's own, by name: part of what a run is."""
    entries = catalogue.plugins(tuple(dict(variant.losses)))
    return {name: entry.sha256 for name, entry in entries.items()}


def keep_plugins(variant: Variant, folder: Path) -> dict[str, dict[str, Any]]:
    """Copy the text of the variant's plug-ins into a run's folder; returns file and SHA-256 by name, for run.json."""
    kept = {}
    for name, entry in catalogue.plugins(tuple(dict(variant.losses))).items():
        file = f"{FOLDER}/{entry.file.name if entry.file else f'{name}.py'}"
        write_text(folder / file, entry.text)
        kept[name] = {"file": file, "sha256": entry.sha256}
    return kept
