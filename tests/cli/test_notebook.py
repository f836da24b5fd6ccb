import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vlp_lib.cli.notebook import execute, parameters
from vlp_lib.errors import UserError

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("papermill")


@pytest.fixture(autouse=True)
def own_folders(results, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))


@pytest.fixture
def notebook(write_notebook, tmp_path):
    """Writes a notebook with two parameters and a cell of code."""
    return lambda code: write_notebook(tmp_path / "lesson.ipynb", code, 'seed = 0\nvariant = "segl"')


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


def test_lines_are_shown_as_they_come_behind_the_stages_name(notebook, tmp_path, capsys):
    execute(notebook("print('step 1/2')\nprint()\nprint('step 2/2')"), tmp_path / "10_a-seed0.ipynb", ["seed=1"])
    first, second, last = capsys.readouterr().out.splitlines()
    assert (first, second) == ("10_a-seed0  step 1/2", "10_a-seed0  step 2/2")
    assert last.startswith("done  lesson  seed=1  ")


def test_text_stays_text_and_paths_are_from_where_the_user_stands(write_notebook, tmp_path, monkeypatch):
    (tmp_path / "here" / "coco").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    path = write_notebook(tmp_path / "lesson.ipynb", "", "data_root = ''\nname = ''\nrate = 0.5")
    given = parameters(path, ["data_root=coco", "name=1e3", "rate=1"])
    assert given == {"data_root": str(tmp_path / "here" / "coco"), "name": "1e3", "rate": 1}
    with pytest.raises(UserError, match=r"'rate' of lesson\.ipynb is 'fast': it must be float, such as 0\.5"):
        parameters(path, ["rate=fast"])


def test_a_person_is_shown_the_sentence_and_the_kept_copy_has_the_traceback(notebook, tmp_path, monkeypatch):
    code = "from vlp_lib.errors import UserError\ndef deep():\n    raise UserError('draw it first')\ndeep()"
    for person in (True, False):
        if person:
            monkeypatch.setenv("JPY_SESSION_NAME", "lesson.ipynb")
        else:
            monkeypatch.delenv("JPY_SESSION_NAME")
        with pytest.raises(UserError, match="draw it first"):
            execute(notebook(code), tmp_path / "out.ipynb")
        outputs = [
            o for c in nbformat.read(tmp_path / "out.ipynb", 4).cells if c.cell_type == "code" for o in c.outputs
        ]
        [error] = [o for o in outputs if o.output_type == "error"]
        shown = "\n".join(error.traceback)
        assert ("in deep" in shown) != person
        assert shown.splitlines()[-1].endswith("draw it first")


def test_ctrl_c_is_one_sentence(notebook, tmp_path, monkeypatch):
    """While a cell works; before that nothing heavy is imported where Python itself would answer."""
    monkeypatch.delenv("IPYTHONDIR")  # with the kit's own settings
    program = "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "from vlp_lib.cli import main\nassert 'vlp_lib.cli.options' not in sys.modules\nsys.exit(main())"
    path = notebook("import time\nprint('begun')\nwhile True:\n    time.sleep(0.05)")
    run = subprocess.Popen(
        [sys.executable, "-c", program, "run", str(path), str(tmp_path / "out.ipynb")],
        text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert run.stdout.readline() == "out  begun\n"
    os.killpg(run.pid, signal.SIGINT)
    assert run.communicate()[1] == "vlp: interrupted; the same command goes on where it stopped\n"
    assert run.returncode == 130
