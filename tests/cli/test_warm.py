"""Stages that are forked are the stages that are started, and end with who asked for them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlp_lib.cli.graph import can_fork
from vlp_lib.cli.stage import ONE_THREAD, PLACE, begin_warm_process, forked
from vlp_lib.io import read_json

pytest.importorskip("papermill")
pytestmark = pytest.mark.skipif(not can_fork(), reason="forks are tried on Linux without a GPU alone")

ROOT = Path(__file__).parents[2]
CODE = """
import os, sys
import numpy as np, torch
import matplotlib.pyplot as plt
print(np.random.default_rng(seed).random(), torch.get_num_threads(), os.getcwd(), sys.path)
print(sorted(set(os.environ) - {"JPY_PARENT_PID"}), os.environ["VARIABLE"])
print("to stderr", file=sys.stderr)
plt.figure(figsize=(1, 1)).gca().plot([0, 1]);
"""


@pytest.fixture
def environment(results, write_notebook, tmp_path, monkeypatch):
    """The environment of a stage of one thread that knows of a warm process of a copy of the library."""
    shutil.copytree(ROOT / "vlp_lib", tmp_path / "kit/vlp_lib")
    (tmp_path / "notebooks").mkdir()
    write_notebook(
        tmp_path / "notebooks/10_imports.ipynb", "import matplotlib.pyplot\nfrom vlp_lib.errors import UserError"
    )
    (tmp_path / "notebooks/11_half.ipynb").write_text("{")
    write_notebook(tmp_path / "notebooks/12_no_python.ipynb", "x = = 1")
    for name, value in ({PLACE: "socket", "PYTHONPATH": str(tmp_path / "kit")} | ONE_THREAD).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with begin_warm_process(tmp_path / "notebooks") as warm:
        yield dict(os.environ) | {"VARIABLE": "value"}
        warm.kill()


def stage(environment, *words):
    command = [sys.executable, "-m", "vlp_lib.cli.stage", *map(str, words)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def is_of(run, process):
    """Whether a process descends from a stage's."""
    while process not in (run.pid, 1):
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return process == run.pid


def test_a_forked_stage_is_the_one_that_is_started(environment, write_notebook, tmp_path):
    path = write_notebook(tmp_path / "cell.ipynb", CODE, "seed = 0")
    shown, outputs = [], []
    for name, place in (("forked", "socket"), ("begun", "nobody")):
        output = tmp_path / name / "out.ipynb"
        run = stage(environment | {PLACE: place}, path, output, "-p", "seed=3")
        text, error = run.communicate(timeout=120)
        assert (run.returncode, error) == (0, "")
        shown.append(text.partition("done")[0])
        outputs.append(read_json(output)["cells"][-1]["outputs"])
    assert shown[0] == shown[1] != ""
    assert outputs[0] == outputs[1]
    assert {output["output_type"] for output in outputs[0]} == {"stream", "display_data"}


def test_a_stage_is_forked_only_if_it_has_one_thread_and_the_code_is_as_it_was(environment, tmp_path, monkeypatch):
    def is_forked(**changed):
        with monkeypatch.context() as patched:
            for name, value in changed.items():
                patched.setenv(name, value)
            return forked(["absent.ipynb", "out.ipynb"]) == 2  # it is asked for, and is not there

    assert is_forked()
    assert not is_forked(OMP_NUM_THREADS="2")
    assert not is_forked(**{PLACE: "nobody"})
    lock = tmp_path / "kit/vlp_lib/.#run.py"  # an editor's, which leads nowhere
    lock.symlink_to("nowhere")
    assert not is_forked()
    lock.unlink()
    (tmp_path / "kit/vlp_lib/losses/ssul.py").touch()
    assert not is_forked()


def test_a_failure_is_the_same_sentence_and_status(environment, write_notebook, tmp_path):
    out = tmp_path / "out.ipynb"

    def ends(code, *words, output=out):
        run = stage(environment, write_notebook(tmp_path / "cell.ipynb", code, "seed = 0"), output, *words)
        return run.communicate(timeout=120)[1], run.returncode

    sentence = f"vlp: cell.ipynb: ZeroDivisionError: division by zero (executed so far: {out})\n"
    assert ends("x = 1 / 0") == (sentence, 2)
    sentence = "vlp: unknown parameter of cell.ipynb: 'sed': did you mean 'seed'? known are seed\n"
    assert ends("", "-p", "sed=1") == (sentence, 2)
    said, status = ends("import os\nos.kill(os.getpid(), 9)")
    assert status == 2
    assert "its kernel died, most likely for want of memory" in said
    said, status = ends("", output=out / "out.ipynb")  # no folder, but the file from above
    assert status == 1
    assert "NotADirectoryError" in said.splitlines()[-1] or "FileExistsError" in said.splitlines()[-1]


@pytest.mark.parametrize("ends", ["client", "stage"])
def test_a_stage_and_its_kernel_end_with_the_client_and_the_client_with_its_stage(
    environment, write_notebook, tmp_path, ends
):
    path = write_notebook(tmp_path / "cell.ipynb", "import os\nprint(os.getpid(), os.getppid())\nwhile True: pass")
    run = stage(environment, path, tmp_path / "out.ipynb")
    try:
        _, kernel, parent = run.stdout.readline().split()
        assert not is_of(run, int(kernel))
    finally:
        os.kill(run.pid if ends == "client" else int(parent), signal.SIGKILL)
    error = run.communicate(timeout=120)[1]
    if ends == "stage":
        sentence = "vlp: out was killed, most likely for want of memory: close other programs\n"
        assert (run.returncode, error) == (2, sentence)
    until = time.monotonic() + 10
    while any(is_alive(process) for process in (kernel, parent)):
        assert time.monotonic() < until
        time.sleep(0.05)


def is_alive(process):
    """Whether a process works; the command of one that has ended and that nobody has waited for is empty."""
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())
    except OSError:
        return False
