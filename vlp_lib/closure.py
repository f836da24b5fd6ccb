"""Which files of the library a module or a notebook depends on: all that it imports, and all that those import.

Read off the sources, so that nothing is run and nothing can be forgotten. Two questions hang on it: whether a run was
made by the code that is there now, and which stages of the graph a changed file concerns.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def code_of(*modules: str) -> dict[str, str]:
    """The SHA-256 of each file that these modules depend on, themselves included, by the name of its module."""
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in closure(modules).items()}


def closure(modules: Iterable[str], without: tuple[str, ...] = ()) -> dict[str, Path]:
    """The files that these modules of the library depend on, themselves included, by the name of the module, sorted.

    An import counts wherever it stands, in a function as well; one for type hints alone (`if TYPE_CHECKING:`) does not.
    Of a package in which a module imports others by a name that it computes, every module counts.

    Names that are no modules of the library are passed over; `without` are modules and packages that are left out with
    all that only they import.
    """
    files: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if name in files or file is None or any(f"{name}.".startswith(f"{left}.") for left in without):
            continue
        files[name] = file
        waiting += _imported(file, file.stat().st_mtime_ns)
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # a package's __init__ runs before its modules
    return dict(sorted(files.items()))


def notebook_files(notebook: Path, without: tuple[str, ...] = ()) -> list[Path]:
    """The library's files that the code cells of a notebook depend on; `without` as for `closure`."""
    return list(closure(notebook_imports(notebook), without).values())


def notebook_imports(notebook: Path) -> list[str]:
    """What the code cells of a notebook import: modules, and names in modules that may be modules."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return list(_names(parse_cell(code)))


def parse_cell(code: str) -> ast.Module:
    """The syntax of a notebook's code, without the lines that are IPython's own."""
    return ast.parse("\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!"))))


def _file(module: str) -> Path | None:
    """The file of a module of the library; None for other names."""
    package, *parts = module.split(".")
    if package != PACKAGE.name:
        return None
    place = PACKAGE.joinpath(*parts)
    candidates = (place / "__init__.py", place.with_suffix(".py"))
    return next((file for file in candidates if file.is_file()), None)


@cache
def _imported(file: Path, changed: int) -> tuple[str, ...]:
    """The modules that a file of the library imports; `changed` is when it was written, for the cache."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = ".".join([PACKAGE.name, *file.parent.relative_to(PACKAGE).parts])
    names = list(_names(tree, package))
    called = (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))
    if any(name.endswith("import_module") for name in called):
        names += [f"{package}.{other.stem}" for other in file.parent.glob("*.py") if other.stem != "__init__"]
    return tuple(names)


def _names(tree: ast.AST, package: str = "") -> Iterator[str]:
    """What is imported in a tree. What `from x import y` takes may be a module: `x.y` is named beside `x`.

    `package` is what `from . import y` starts from.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        yield from _names(node, package)
