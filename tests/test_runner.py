import json
import sys
from pathlib import Path

import pytest

from vlp_lib import runner
from vlp_lib.errors import UserError
from vlp_lib.runner import execute, parse_parameter, run_graph

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("papermill")


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("VLP_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))


@pytest.fixture
def notebook(tmp_path):
    """Writes a notebook with two parameters and a cell of code."""

    def write(code):
        cells = [
            nbformat.v4.new_code_cell('seed = 0\nvariant = "segl"', metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(code),
        ]
        path = tmp_path / "lesson.ipynb"
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
        return path

    return write


# Parameters


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seed=3", 3),
        ("rate=1e-3", 1e-3),
        ("restart=true", True),
        ("restart=false", False),
        ("restart=False", False),
        ("nothing=None", None),
        ("variant=segl+0.5*ssul", "segl+0.5*ssul"),
        ("data_root=", ""),
        ("data.text_lengths=[12, 16]", [12, 16]),
        ("data_root=/a/b=c d", "/a/b=c d"),
    ],
)
def test_parameters_become_what_they_look_like(text, value):
    name, found = parse_parameter(text)
    assert name == text.partition("=")[0]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["seed", "", "=3"])
def test_what_is_no_parameter_is_named(text):
    with pytest.raises(UserError, match=f"'{text}' is no parameter: write name=value"):
        parse_parameter(text)


def test_a_broken_list_is_refused():
    with pytest.raises(UserError, match=r"is no list: write it as data\.text_lengths=\[1,2\]"):
        parse_parameter("data.text_lengths=[12,")


def test_an_unknown_parameter_names_the_nearest(notebook, tmp_path):
    path = notebook("print(seed)")
    with pytest.raises(UserError, match=r"unknown parameter of lesson\.ipynb: 'sed': did you mean 'seed'\?"):
        execute(path, tmp_path / "out.ipynb", {"sed": 3})
    assert not (tmp_path / "out.ipynb").exists()


# Notebooks


def test_a_notebook_is_executed_with_its_parameters(notebook, tmp_path):
    output = tmp_path / "new" / "out.ipynb"
    code = (
        "from pathlib import Path\nPath('made.txt').write_text(f'{variant} {seed}')\nimport sys\nprint(sys.executable)"
    )
    execute(notebook(code), output, {"seed": 7})
    assert (tmp_path / "made.txt").read_text() == "segl 7"  # it runs in the notebook's own folder
    shown = "".join(o["text"] for o in nbformat.read(output, 4).cells[-1].outputs)
    assert Path(shown.strip()).parent == Path(sys.executable).parent  # with the same Python


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "from vlp_lib.errors import UserError\nraise UserError('no such corpus: draw it first')",
            r"^lesson\.ipynb: no such corpus: draw it first \(executed so far: .*out\.ipynb\)$",
        ),
        ("x = 1 / 0", r"^lesson\.ipynb: ZeroDivisionError: division by zero \(executed so far: .*out\.ipynb\)$"),
        ("import os\nos._exit(1)", r"^lesson\.ipynb: its kernel died.*memory.*out\.ipynb\)$"),
    ],
)
def test_a_failing_notebook_is_one_sentence(notebook, tmp_path, code, message):
    with pytest.raises(UserError, match=message):
        execute(notebook(code), tmp_path / "out.ipynb", {})
    assert (tmp_path / "out.ipynb").is_file()


def test_a_missing_or_broken_notebook_is_named(tmp_path):
    with pytest.raises(UserError, match=f"no notebook {tmp_path / 'absent.ipynb'}: notebooks lie in"):
        execute(tmp_path / "absent.ipynb", tmp_path / "out.ipynb", {})
    (tmp_path / "broken.ipynb").write_text("{")
    with pytest.raises(UserError, match=r"broken\.ipynb is no notebook"):
        execute(tmp_path / "broken.ipynb", tmp_path / "out.ipynb", {})


# The graph


@pytest.fixture
def graph(tmp_path, monkeypatch):
    """A checkout whose Snakefile writes down what it was started with."""
    root = tmp_path / "checkout"
    (root / "notebooks").mkdir(parents=True)
    monkeypatch.setattr(runner, "project_root", lambda: root)
    return root / "notebooks" / "Snakefile"


def test_graph_is_handed_its_settings(graph, tmp_path):
    pytest.importorskip("snakemake")
    graph.write_text(
        "import json, os\n"
        "rule all:\n"
        "    output: 'seen.json'\n"
        "    run:\n"
        "        seen = {**config, 'results': os.environ['VLP_RESULTS']}\n"
        "        open(output[0], 'w').write(json.dumps(seen))\n"
    )
    run_graph("smoke", [0, 2], "", ["segl", "segl+0.5*ssul"], ["vqa", "retrieval"], cores=1)
    seen = json.loads((tmp_path / "results" / "seen.json").read_text())
    assert (seen["profile"], str(seen["seeds"]), seen["variants"]) == ("smoke", "0 2", "segl segl+0.5*ssul")
    assert seen["tasks"] == "vqa retrieval"
    assert not seen["data_root"]
    assert seen["results"] == str(tmp_path / "results")


def test_a_failing_stage_is_one_sentence(graph):
    pytest.importorskip("snakemake")
    graph.write_text("rule all:\n    shell: 'exit 3'\n")
    with pytest.raises(UserError, match="a stage failed: its error stands above"):
        run_graph("smoke", [0], "", ["segl"], [], cores=1)


def test_what_needs_no_failed_stage_is_still_run(graph, tmp_path):
    pytest.importorskip("snakemake")
    graph.write_text(
        "rule all:\n    input: 'bad', 'good'\n"
        "rule bad:\n    output: 'bad'\n    priority: 1\n    shell: 'exit 3'\n"
        "rule good:\n    output: 'good'\n    shell: 'touch {output}'\n"
    )
    with pytest.raises(UserError, match="a stage failed"):
        run_graph("smoke", [0], "", ["segl"], [], cores=1)
    assert (tmp_path / "results" / "good").is_file()


def test_outside_of_a_checkout_there_is_no_graph(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "project_root", lambda: tmp_path)
    with pytest.raises(UserError, match="Snakefile: run this in a checkout"):
        run_graph("smoke", [0], "", ["segl"], [], cores=1)


@pytest.mark.parametrize("tasks", [["vqa", "nlvr2", "vcr", "retrieval"], ["retrieval"], []])
def test_the_projects_graph_can_be_planned(tasks, capfd):
    pytest.importorskip("snakemake")
    run_graph("smoke", [0], "", ["region", "segl"], tasks, 1, extra=["--dry-run", "--quiet", "rules"])
    planned = capfd.readouterr().out
    assert ("finetune_one" in planned) == bool({"vqa", "nlvr2", "vcr"} & set(tasks))
    assert ("retrieval_one" in planned) == ("retrieval" in tasks)
    assert ("attention_one" in planned) == ("vqa" in tasks)
    assert "pretrain_one" in planned and "tables" in planned and "index" in planned
