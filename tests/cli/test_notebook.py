import sys
from pathlib import Path

import pytest

from vlp_lib.cli.notebook import execute
from vlp_lib.errors import UserError

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


def test_an_unknown_parameter_names_the_nearest(notebook, tmp_path):
    path = notebook("print(seed)")
    with pytest.raises(UserError, match=r"unknown parameter of lesson\.ipynb: 'sed': did you mean 'seed'\?"):
        execute(path, tmp_path / "out.ipynb", ["sed=3"])
    assert not (tmp_path / "out.ipynb").exists()


def test_a_notebook_is_executed_with_its_parameters(notebook, tmp_path):
    output = tmp_path / "new" / "out.ipynb"
    code = (
        "from pathlib import Path\nPath('made.txt').write_text(f'{variant} {seed}')\nimport sys\nprint(sys.executable)"
    )
    execute(notebook(code), output, ["seed=7"])
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
        execute(notebook(code), tmp_path / "out.ipynb")
    assert (tmp_path / "out.ipynb").is_file()


def test_a_missing_or_broken_notebook_is_named(tmp_path):
    with pytest.raises(UserError, match=f"no notebook {tmp_path / 'absent.ipynb'}: notebooks lie in"):
        execute(tmp_path / "absent.ipynb", tmp_path / "out.ipynb")
    (tmp_path / "broken.ipynb").write_text("{")
    with pytest.raises(UserError, match=r"broken\.ipynb is no notebook"):
        execute(tmp_path / "broken.ipynb", tmp_path / "out.ipynb")
