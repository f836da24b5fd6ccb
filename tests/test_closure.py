import json

import pytest

from vlp_lib import closure as module
from vlp_lib.closure import closure, code_of, notebook_files


def test_what_finetuning_uses_is_in_its_code():
    names = closure(["vlp_lib.trainers.finetune"])
    assert {
        "vlp_lib.tasks.vqa",
        "vlp_lib.trainers.pretrain",
        "vlp_lib.corpora.corpus",
        "vlp_lib.config",
    } <= names.keys()
    assert not {"vlp_lib.figures.claims", "vlp_lib.checks.folder"} & names.keys()


def test_losses_that_are_found_by_their_files_are_in_the_code_of_a_pretraining():
    assert {"vlp_lib.losses.segl", "vlp_lib.losses.spl", "vlp_lib.losses.ssul"} <= closure(
        ["vlp_lib.trainers.pretrain"]
    ).keys()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small library in place of ours."""
    root = tmp_path / "vlp_lib"
    files = {
        "__init__": "", "a": "from vlp_lib import b", "b": "def f():\n    import vlp_lib.c.d", "c/__init__": "",
        "c/d": "from importlib import import_module\nimport_module(name)", "c/e": "from . import f", "c/f": "",
        "alone": "", "hints": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import vlp_lib.alone",
    }  # fmt: skip
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.py").write_text(text)
    monkeypatch.setattr(module, "PACKAGE", root)
    return root


def test_imports_in_functions_relative_ones_and_computed_ones_count(package):
    short = [name.removeprefix("vlp_lib").removeprefix(".") for name in closure(["vlp_lib.a"])]
    assert short == ["", "a", "b", "c", "c.d", "c.e", "c.f"]


def test_imports_for_type_hints_do_not(package):
    assert "vlp_lib.alone" not in closure(["vlp_lib.hints"])


def test_the_code_changes_with_a_module_that_is_imported_and_no_other(package):
    before = code_of("vlp_lib.a")
    (package / "alone.py").write_text("# a comment")
    assert code_of("vlp_lib.a") == before
    (package / "c/f.py").write_text("# a comment")
    after = code_of("vlp_lib.a")
    assert [name for name in before if before[name] != after[name]] == ["vlp_lib.c.f"]


def test_a_notebooks_files(package, tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["import vlp_lib.alone"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "from vlp_lib.c import e\n"]},
        {"cell_type": "code", "source": ["import vlp_lib.hints"]},
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    names = [path.name for path in notebook_files(tmp_path / "n.ipynb", ("vlp_lib.hints",))]
    assert names == ["__init__.py", "__init__.py", "e.py", "f.py"]
