"""`vlp lessons`: the lessons for a class, without their answers, and with a cell that fetches the kit in Colab."""

from __future__ import annotations

import argparse
import ast
import json
from pathlib import Path
from typing import Any

from vlp_lib.cli.options import Commands, declare
from vlp_lib.closure import parse_cell
from vlp_lib.errors import UserError
from vlp_lib.io import read_json, write_text
from vlp_lib.run import project_root

BY_HAND = "by-hand"
"""The tag of a cell whose middle paragraphs are the answer: the first one prepares, the last one checks."""

_COLAB = """# In Google Colab this fetches the kit, which takes a few minutes; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    !git clone --quiet --depth 1 {repository} /content/kit
    !{{sys.executable}} -m pip install --quiet --editable /content/kit
    sys.path.insert(0, "/content/kit")  # it was installed after Python had begun"""


def add(commands: Commands) -> None:
    """Declare the command."""
    lessons = declare(commands, "lessons", _lessons, "the lessons for a class: without answers, for Colab if you like")
    lessons.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the notebooks")
    where = "address of the kit, for a first cell that fetches it in Google Colab"
    lessons.add_argument("--repository", default="", metavar="URL", help=where)


def _lessons(options: argparse.Namespace) -> None:
    notebooks = sorted((project_root() / "notebooks").glob("0*.ipynb"))
    if not notebooks:
        raise UserError(f"no lessons in {project_root() / 'notebooks'}: run this in a checkout of the project")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise UserError(f"{options.out} is there already, and what lies in it would be lost: give a new folder")
    for notebook in notebooks:
        content = for_colab(without_answers(read_json(notebook)), options.repository)
        write_text(options.out / notebook.name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(notebooks)} notebooks in {options.out}; the answers stay in {project_root() / 'notebooks'}")


def without_answers(content: dict[str, Any]) -> dict[str, Any]:
    """A lesson, whose cells tagged `BY_HAND` now ask for what they showed."""
    for place, cell in enumerate(content["cells"]):
        if BY_HAND in cell["metadata"].get("tags", ()):
            first, *answer, last = "".join(cell["source"]).split("\n\n")
            code = ["".join(c["source"]) for c in content["cells"][place + 1 :] if c["cell_type"] == "code"]
            later = set().union(*(_names(text, ast.Load) - _names(text, ast.Store) for text in (last, *code)))
            wanted = ", ".join(sorted(_names("\n".join(answer), ast.Store) & later))
            cell["source"] = f"{first}\n\n# Your lines. What stands below needs: {wanted}\n\n{last}".splitlines(True)
    return content


def for_colab(content: dict[str, Any], repository: str) -> dict[str, Any]:
    """A notebook, now with a cell that fetches the kit before the first code, where an address is given."""
    if repository and content["cells"][1].get("id") != "colab":
        source = _COLAB.format(repository=repository).splitlines(True)
        cell: dict[str, Any] = {"cell_type": "code", "id": "colab", "metadata": {}, "outputs": []}
        content["cells"].insert(1, cell | {"execution_count": None, "source": source})
    return content


def _names(code: str, use: type[ast.expr_context]) -> set[str]:
    """The names that a cell reads (ast.Load), or gives a value (ast.Store; arguments of its functions, too)."""
    found = list(ast.walk(parse_cell(code)))
    arguments = {node.arg for node in found if isinstance(node, ast.arg)} if use is ast.Store else set()
    return arguments | {node.id for node in found if isinstance(node, ast.Name) and isinstance(node.ctx, use)}
