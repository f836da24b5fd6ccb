"""The lessons for a class: nothing of the answers, all of the questions, and a way into Google Colab."""

import ast
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from vlp_lib.cli import main

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
TAUGHT = ("01_matching_and_mlm", "02_ssul", "03_segl", "04_spl", "05_cross_modality")


@pytest.fixture(scope="module")
def lessons(tmp_path_factory):
    folder = tmp_path_factory.mktemp("class") / "new"
    assert main(["lessons", "--out", str(folder), "--repository", "https://example.org/kit"]) == 0
    return {file.stem: json.loads(file.read_text(encoding="utf-8"))["cells"] for file in folder.iterdir()}


def cells_of(name):
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def test_every_notebook_for_a_class_is_there(lessons):
    assert set(lessons) == {file.stem for file in NOTEBOOKS.glob("0*.ipynb")}


@pytest.mark.parametrize("name", TAUGHT)
def test_the_answer_is_left_out_and_all_else_stays(name, lessons):
    shown = {cell["id"]: source(cell) for cell in lessons[name]}
    differing = [cell for cell in cells_of(name) if shown[cell["id"]] != source(cell)]
    assert [cell["metadata"]["tags"] for cell in differing] == [["by-hand"]]
    (cell,) = differing
    _, *answer, check = source(cell).split("\n\n")
    twin = shown[cell["id"]]
    assert not any(line in twin.splitlines() for line in "\n\n".join(answer).splitlines() if line)
    assert twin.endswith(check) and "assert" in check
    ast.parse(twin)


def test_the_names_that_are_needed_later_are_said(lessons):
    asked = {name: [line for c in lessons[name] for line in c["source"] if "Your lines" in line] for name in TAUGHT}
    assert asked["03_segl"] == ["# Your lines. What stands below needs: loss\n"]
    assert asked["05_cross_modality"] == ["# Your lines. What stands below needs: a, k, q\n"]


@pytest.mark.parametrize("in_colab", [False, True])
def test_the_first_cell_fetches_the_kit_in_colab_and_does_nothing_elsewhere(in_colab, lessons, monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    cell = lessons["03_segl"][1]
    asked = []
    monkeypatch.setattr(sys, "path", list(sys.path))
    if in_colab:
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    shell = InteractiveShell.instance()
    monkeypatch.setattr(shell, "system", asked.append)
    try:
        shell.run_cell(source(cell)).raise_error()
    finally:
        InteractiveShell.clear_instance()
    if not in_colab:
        assert not asked
        return
    clone, install = asked
    assert clone.endswith("https://example.org/kit /content/kit")
    assert install == "{sys.executable} -m pip install --quiet --editable /content/kit"
    assert sys.path[0] == "/content/kit"


def test_nothing_is_written_over(tmp_path, capsys):
    (tmp_path / "03_segl.ipynb").write_text("a student's")
    assert main(["lessons", "--out", str(tmp_path)]) == 2
    assert "give a new folder" in capsys.readouterr().err
    assert (tmp_path / "03_segl.ipynb").read_text() == "a student's"
