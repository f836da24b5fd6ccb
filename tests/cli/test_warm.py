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
from vlp_lib.cli.stage import ONE_THREAD, PLACE
from vlp_lib.io import read_json

pytest.importorskip("papermill")
pytestmark = pytest.mark.skipif(not can_fork(), reason="forks are tried on Linux without a GPU alone")

ROOT = Path(__file__).parents[2]
CODE = """
import os, sys
import numpy as np, torch
import matplotlib.pyplot as plt
print(np.random.default_rng(seed).random(), torch.get_num_threads(), os.getcwd(), sys.path[:2])
print(sorted(set(os.environ) - {"JPY_PARENT_PID"}), os.environ["VARIABLE"])
print("to stderr", file=sys.stderr)
plt.figure(figsize=(1, 1)).gca().plot([0, 1]);
"""


@pytest.fixture
def environment(results, tmp_path, monkeypatch):
    """The environment of a stage of one thread that knows of a warm process of a copy of the library."""
    place = tmp_path / "socket"
    shutil.copytree(ROOT / "vlp_lib", tmp_path / "kit/vlp_lib")
    given = os.environ | ONE_THREAD | {"PYTHONPATH": str(tmp_path / "kit")}
    command = [sys.executable, "-P", "-m", "vlp_lib.cli.warm", str(place), str(tmp_path)]  # no notebooks: soon ready
    with subprocess.Popen(command, env=given) as warm:
        while not place.exists():
            assert warm.poll() is None
            time.sleep(0.02)
        yield given | {PLACE: str(place), "VARIABLE": "value"}
        warm.kill()


def stage(environment, *words):
    command = [sys.executable, "-m", "vlp_lib.cli.stage", *map(str, words)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def parents(process):
    """The ids of the processes above one, from its parent on."""
    while process > 1:
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        yield process


def test_a_forked_stage_is_the_one_that_is_started(environment, write_notebook, tmp_path):
    path = write_notebook(tmp_path / "cell.ipynb", CODE, "seed = 0")
    shown, outputs = [], []
    for name, given in (("forked", environment), ("begun", environment | {PLACE: ""})):
        output = tmp_path / name / "out.ipynb"
        run = stage(given, path, output, "-p", "seed=3")
        text, error = run.communicate()
        assert (run.returncode, error) == (0, "")
        shown.append(text.partition("done")[0].replace(f"'{PLACE}', ", ""))
        cells = read_json(output)["cells"]
        outputs.append([{**o, "text": str(o.get("text")).replace(f"'{PLACE}', ", "")} for o in cells[-1]["outputs"]])
    assert shown[0] == shown[1] != ""
    assert outputs[0] == outputs[1]
    assert {output["output_type"] for output in outputs[0]} == {"stream", "display_data"}


def test_a_stage_is_forked_only_if_it_has_one_thread_and_the_code_is_as_it_was(environment, write_notebook, tmp_path):
    path = write_notebook(tmp_path / "cell.ipynb", "import os\nprint('kernel', os.getpid())\nwhile True: pass")

    def is_forked(given):
        run = stage(given, path, tmp_path / "out.ipynb")
        kernel = int(run.stdout.readline().split()[-1])
        above = list(parents(kernel))
        run.kill()
        run.communicate()
        return run.pid not in above

    assert is_forked(environment)
    assert not is_forked(environment | {"OMP_NUM_THREADS": "2"})
    assert not is_forked(environment | {PLACE: str(tmp_path / "nobody")})
    (tmp_path / "kit/vlp_lib/losses/ssul.py").touch()
    assert not is_forked(environment)


def test_a_failure_is_the_same_sentence_and_status(environment, write_notebook, tmp_path):
    out = tmp_path / "out.ipynb"
    path = write_notebook(tmp_path / "cell.ipynb", "x = 1 / 0", "seed = 0")
    for words, sentence in (
        ([], f"vlp: cell.ipynb: ZeroDivisionError: division by zero (executed so far: {out})\n"),
        (["-p", "sed=1"], "vlp: unknown parameter of cell.ipynb: 'sed': did you mean 'seed'? known are seed\n"),
    ):
        run = stage(environment, path, out, *words)
        assert (run.communicate()[1], run.returncode) == (sentence, 2)
    path = write_notebook(tmp_path / "cell.ipynb", "import os\nos.kill(os.getpid(), 9)")
    run = stage(environment, path, out)
    assert "its kernel died, most likely for want of memory" in run.communicate()[1]
    assert run.returncode == 2


@pytest.mark.parametrize("ends", ["client", "stage"])
def test_a_stage_and_its_kernel_end_with_the_client_and_the_client_with_its_stage(
    environment, write_notebook, tmp_path, ends
):
    path = write_notebook(tmp_path / "cell.ipynb", "import os\nprint(os.getpid(), os.getppid())\nwhile True: pass")
    run = stage(environment, path, tmp_path / "out.ipynb")
    _, kernel, parent = run.stdout.readline().split()
    os.kill(run.pid if ends == "client" else int(parent), signal.SIGKILL)
    error = run.communicate()[1]
    if ends == "stage":
        assert (run.returncode, error[:40]) == (2, "vlp: a stage was killed, most likely for")
    until = time.monotonic() + 10
    while any(Path(f"/proc/{process}/cmdline").exists() for process in (kernel, parent)):
        assert time.monotonic() < until
        time.sleep(0.05)
