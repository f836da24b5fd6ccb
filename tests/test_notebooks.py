"""Every notebook: as it is kept, and executed once at the smallest scale."""

import ast
import json
import shutil
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from safetensors.torch import load_file

from vlp_lib import profiles
from vlp_lib.cli import main
from vlp_lib.cli.notebook import parameters, solved
from vlp_lib.errors import UserError
from vlp_lib.io import read_json, read_lines
from vlp_lib.models.model import VLPModel
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.run import Run
from vlp_lib.study_file import read_study

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))

# What each notebook needs done before it, and the parameters it is executed with.
CHAIN = {
    "00_start": {},
    "00_corpus": {},
    "07_ablation_bench": {},
    "08_ask_the_model": {},
    "09_backbones": {"steps": 2},
    "10_pretrain": {"variant": "segl"},
    "20_convergence": {},
    "11_finetune": {"task": "vqa", "variant": "segl"},
    "12_retrieval": {"variant": "segl"},
    "13_speed": {"image_size": 224, "runs": 1, "warmup": 1},
    "14_attention": {"variant": "segl"},
    "15_attention_explorer": {"variant": "segl"},
    "16_tables": {},
    "17_claims": {},
}
IN_A_KERNEL = "10_pretrain"
"""The notebook that `vlp run` executes; the others of the chain run in this process, which has imported torch."""

LESSONS = sorted(path.stem for path in NOTEBOOKS.glob("solutions/*.py"))


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


def run(name, results, monkeypatch, **given):
    """Executes a notebook by `vlp run`; the exit status and all that its cells displayed."""
    monkeypatch.setenv("VLP_RESULTS", str(results))
    monkeypatch.delenv("IPYTHONDIR", raising=False)
    words = [word for key, value in given.items() for word in ("-p", f"{key}={value}")]
    output = results / "executed" / f"{name}.ipynb"
    status = main(["run", str(NOTEBOOKS / f"{name}.ipynb"), str(output), *words])
    cells = nbformat.read(output, as_version=4).cells if status == 0 else []
    return status, [o.get("data", {}) for c in cells if c.cell_type == "code" for o in c.outputs]


def run_here(name, shell, monkeypatch, **given):
    """Executes a notebook in this process; all that its cells displayed."""
    notebook = NOTEBOOKS / f"{name}.ipynb"
    values = parameters(notebook, [f"{key}={value}" for key, value in given.items()])
    monkeypatch.chdir(NOTEBOOKS)
    shell.reset(new_session=False)
    shell.displayed.clear()
    for cell, tags in cells_of(json.loads(notebook.read_text(encoding="utf-8"))):
        shell.run_cell("".join(cell["source"])).raise_error()
        if "parameters" in tags:
            shell.user_ns.update(values)
    return shell.displayed


def pictures(displayed):
    return sum("image/png" in data for data in displayed)


def test_every_notebook_is_in_the_chain_or_a_lesson():
    assert set(NAMES) == set(CHAIN) | set(LESSONS)


@pytest.mark.parametrize("name", NAMES)
def test_is_kept_without_outputs_and_with_scalar_parameters(name):
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["cells"][0]["cell_type"] == "markdown"
    parameters = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(parameters) == 1
    for statement in ast.parse("".join(parameters[0]["source"])).body:
        assert isinstance(statement, ast.Assign), "a parameters cell assigns and does nothing else"
        assert isinstance(ast.literal_eval(statement.value), str | int | float | bool)


@pytest.fixture(scope="module")
def shell():
    """One IPython in this process for all notebooks but one."""
    from IPython.core.interactiveshell import InteractiveShell

    class Shell(InteractiveShell):
        def enable_gui(self, gui=None):
            """What `%matplotlib inline` asks for."""

    shell = Shell.instance()
    shell.displayed = []
    shell.display_pub.publish = lambda data, **_: shell.displayed.append(data)
    yield shell
    Shell.clear_instance()


def cells_of(notebook):
    return [(cell, cell["metadata"].get("tags", [])) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", [name for name in CHAIN if name in NAMES])
def test_executes_at_the_smallest_scale(name, shell, results, monkeypatch):
    given = {"profile": "smoke", **CHAIN[name]}
    if name == IN_A_KERNEL:
        status, displayed = run(name, results, monkeypatch, **given)
        assert status == 0
    else:
        monkeypatch.setenv("VLP_RESULTS", str(results))
        # 00_start opens this one's corpus whatever its profile.
        monkeypatch.setitem(profiles.PROFILES, "lesson", replace(profiles.profile("smoke"), name="lesson"))
        displayed = run_here(name, shell, monkeypatch, **given)
    if name == "09_backbones":
        (file,) = (results / "smoke/backbones").glob("*/study.toml")
        words = len(load_file(file.parent / "bert" / "model.safetensors")["embeddings.word_embeddings.weight"])
        sizes = Vocabularies(words, segmentation=18, detector=8, attributes=8)
        for made in read_study(file, "smoke", "", [0]):
            vlp = VLPModel(made.config.model, made.chosen, sizes)
            assert vlp.vision.load_report.share == vlp.language.load_report.share == 1
    if name in ("00_corpus", "07_ablation_bench", "10_pretrain", "20_convergence"):
        assert pictures(displayed) >= 1


@pytest.mark.parametrize("name", LESSONS)
@pytest.mark.usefixtures("forget_plugins")
def test_a_lessons_checks_fail_without_and_pass_with_the_solutions(name, shell, results, monkeypatch):
    monkeypatch.setenv("VLP_RESULTS", str(results))
    shell.reset(new_session=False)
    shell.displayed.clear()

    def run_cell(cell):
        return shell.run_cell("".join(cell["source"]), silent=False).error_in_exec

    attempts = cells_of(json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")))
    solutions = [cell for cell, tags in cells_of(solved(NOTEBOOKS / f"{name}.ipynb")) if "exercise" in tags]
    assert len(solutions) == 3
    for cell, tags in attempts:
        if "raises-exception" in tags:
            assert isinstance(run_cell(cell), AssertionError), "the check passes without the solution"
            assert run_cell(solutions.pop(0)) is None
        assert run_cell(cell) is None
        if "parameters" in tags:
            shell.run_cell("profile, steps = 'smoke', 3")
    assert pictures(shell.displayed) >= 2


@pytest.mark.parametrize("name", ["16_tables", "17_claims", "20_convergence"])
def test_without_runs_of_ones_own_those_of_the_kit_are_shown(name, shell, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VLP_RESULTS", str(tmp_path))
    displayed = run_here(name, shell, monkeypatch)
    assert "come with the kit" in capsys.readouterr().out
    assert sum("text/html" in data or "image/png" in data or "text/markdown" in data for data in displayed) >= 2
    # Apart from one's own figures, which the page of results will show.
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["reference"]


def test_a_missing_solution_is_named(tmp_path):
    shutil.copy(NOTEBOOKS / "03_segl.ipynb", tmp_path)
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / "03_segl.py").write_text("# %% exercise 1\nx = 1\n# %% exercise 3\ny = 2\n")
    with pytest.raises(UserError, match=r"03_segl\.py has no part '# %% exercise 2'"):
        solved(tmp_path / "03_segl.ipynb")


@pytest.mark.parametrize("variant", ["naive_vit", "segl"])
def test_pretrains_on_real_images(variant, shell, shared_data, tmp_path, monkeypatch, capsys):
    root = shared_data / "coco"
    monkeypatch.setenv("VLP_RESULTS", str(tmp_path))
    run_here("10_pretrain", shell, monkeypatch, profile="smoke", data_root=root, variant=variant)
    folder = Run("smoke", variant, data_root=str(root)).folder("pretrain")
    record = read_json(folder / "run.json")
    assert record["synthetic"] is False and record["variant"] == variant
    rows = read_lines(folder / "metrics.jsonl")
    # Sentences of real photographs are learned even in the few steps of this profile.
    assert rows[-1]["val_mlm"] < rows[0]["val_mlm"]
    said = capsys.readouterr().out
    assert "788" in said and "77 images without captions" in said
    shutil.rmtree(folder)
