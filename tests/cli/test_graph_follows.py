"""What the graph runs again when a file changes, planned on made-up results; nothing is executed."""

import os
import re
import shutil
from pathlib import Path

import pytest

from vlp_lib import closure
from vlp_lib.cli import graph
from vlp_lib.closure import notebook_files

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
STAGES = {"10_pretrain": "pretrain_one", "11_finetune": "finetune_one", "12_retrieval": "retrieval_one"}


def concerned(module):
    """The notebooks that depend on a module's file, as the rules of the runs see it."""
    file = closure.PACKAGE / f"{module}.py"
    assert file.is_file()
    return {name for name in STAGES if file in notebook_files(NOTEBOOKS / f"{name}.ipynb", ("vlp_lib.figures",))}


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("losses/segl", set(STAGES)),
        ("trainers/finetune", {"11_finetune"}),
        ("trainers/zero_shot", {"12_retrieval"}),
        ("checks/folder", set()),
        ("figures/style", set()),
    ],
)
def test_a_stage_depends_on_what_it_imports_and_on_no_neighbour(module, stages):
    assert concerned(module) == stages


@pytest.fixture
def checkout(results, tmp_path, monkeypatch):
    """A copy of the notebooks and of the library, which a test may change."""
    root = tmp_path / "checkout"
    shutil.copytree(NOTEBOOKS, root / "notebooks")
    shutil.copytree(closure.PACKAGE, root / "vlp_lib", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(graph, "project_root", lambda: root)
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.chdir(root)  # `python -m` looks there first
    return root


def test_a_changed_comment_runs_only_its_stages_again_and_removes_nothing(checkout, results, capfd):
    pytest.importorskip("snakemake")
    here = results / "smoke"
    marks = [here / stage / "segl/seed0" for stage in ("pretrain", "finetune-vqa", "finetune-vcr", "retrieval")]
    for folder in marks:
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
    (here / "corpus").mkdir()
    (here / "corpus/corpus.json").write_text("{}")
    # Older than what has been made of them.
    for file in [*checkout.rglob("*.*"), here / "corpus/corpus.json"]:
        os.utime(file, (1e9, 1e9))
    for age, folder in enumerate(marks):
        (folder / ".finished").touch()
        os.utime(folder / ".finished", (1.1e9 + 10 * age, 1.1e9 + 10 * age))

    def planned(until):
        capfd.readouterr()
        extra = ["--dry-run", "--quiet", "rules", "--rerun-triggers", "mtime"]
        graph.run_graph("smoke", [0], "", ["segl"], ["vqa", "vcr", "retrieval"], 1, until, extra)
        return set(re.findall(r"^(\w+_one) +\d", capfd.readouterr().out, re.MULTILINE))

    assert planned(["finetune", "retrieval"]) == set()
    for module, stages in (("checks/folder", set()), ("trainers/zero_shot", {"retrieval_one"})):
        file = checkout / "vlp_lib" / f"{module}.py"
        file.write_text(file.read_text() + "# a comment\n")
        assert planned(["finetune", "retrieval"]) == stages
    assert all((folder / "run.json").is_file() for folder in marks)
