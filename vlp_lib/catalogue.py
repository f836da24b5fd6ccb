"""Which visual losses there are, read from their files: names and settings are known without importing torch.

A loss is a class under `@visual_loss("name")`, in a file of `losses/`, in a plug-in file, or in a cell of a notebook.
Its settings are the keyword-only arguments of its `__init__`.
"""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from vlp_lib.errors import UserError, unknown

DECORATOR = "visual_loss"


@dataclass(frozen=True)
class LossEntry:
    """What is known of a visual loss before it is imported."""

    settings: tuple[str, ...]  # names that `losses.<name>.<setting>` may set
    replaces_tokens: bool  # whether the cross-modality encoder reads what this loss makes instead of the grid
    file: Path | None  # where it is written; None for a class that was defined in a notebook
    text: str = ""  # of the plug-in file or the notebook's cell, which a run keeps; "" for the kit's own losses

    @property
    def sha256(self) -> str:
        """Of the text, in hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()


_PLUGINS: dict[str, LossEntry] = {}


def losses() -> dict[str, LossEntry]:
    """The known losses by name: the kit's own, then those that were added."""
    return _built_in() | _PLUGINS


def loss(name: str) -> LossEntry:
    """The entry of a loss; raises UserError for an unknown name."""
    if name not in losses():
        raise unknown("visual loss", name, losses())
    return losses()[name]


def plugins(names: tuple[str, ...]) -> dict[str, LossEntry]:
    """Those of the named losses that are not the kit's own."""
    return {name: _PLUGINS[name] for name in names if name in _PLUGINS}


def add(name: str, entry: LossEntry) -> None:
    """Make a loss known; a name that was added before gets the new one, as when a cell of a notebook is run again.

    Raises UserError for the name of one of the kit's own losses.
    """
    if name in _built_in():
        raise UserError(f"there is a visual loss {name!r} in the kit already: give yours another name")
    _PLUGINS[name] = entry


def add_plugin(path: Path) -> list[str]:
    """Make the losses of a Python file known, without running it; returns their names.

    Raises UserError for a file that is missing, is not Python, or has no loss.
    """
    path = path.expanduser().resolve()
    try:
        text = path.read_text(encoding="utf-8")
        entries = _scan(path, text)
    except OSError as error:
        raise UserError(f"cannot read the plug-in {path} ({error.strerror}): check the path") from None
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(f"the plug-in {path} is not Python{line} ({error}): mend it") from None
    if not entries:
        raise UserError(f'the plug-in {path} has no class under @{DECORATOR}("name"): see CONTRIBUTING.md')
    for name, entry in entries.items():
        add(name, entry)
    return list(entries)


def _scan(path: Path, text: str) -> dict[str, LossEntry]:
    """The losses of a file's text, by name."""
    entries = {}
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ClassDef):
            continue
        methods = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
        init = methods.get("__init__")
        settings = tuple(argument.arg for argument in init.args.kwonlyargs) if init else ()
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == DECORATOR and call.args:
                name = str(ast.literal_eval(call.args[0]))
                entries[name] = LossEntry(settings, "tokens" in methods, path, text)
    return entries


@cache
def _built_in() -> dict[str, LossEntry]:
    files = sorted((Path(__file__).parent / "losses").glob("*.py"))
    found = (_scan(file, file.read_text(encoding="utf-8")) for file in files)
    return {name: replace(entry, text="") for entries in found for name, entry in entries.items()}
