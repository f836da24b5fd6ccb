"""Signals to the graph: nothing of it lives on, and the same command goes on where it stopped."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from safetensors.torch import load_file

from vlp_lib.cli.graph import can_fork
from vlp_lib.io import read_lines

ROOT = Path(__file__).parents[2]
MODES = ("INT", "TERM", "HUP", "KILL", "INT to the group", "KILL to Snakemake")
KIT = [sys.executable, "-m", "vlp_lib.cli", "reproduce"]

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes as Linux shows them")


class Graph:
    """`vlp reproduce` up to its pretraining, in a process group and a folder of results of its own."""

    def __init__(self, results, command=KIT):
        self.results = results
        environment = os.environ | {"VLP_RESULTS": str(results), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        words = ["--profile", "smoke", "--seeds", "0", "--variants", "naive_vit", "--cores", "1", "--until", "pretrain"]
        self.process = subprocess.Popen(
            [*command, *words], env=environment, start_new_session=True, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def alive(self, word=b""):
        """Ids of the processes that have this folder of results in their environment and a word in their command."""
        mine, found = f"VLP_RESULTS={self.results}\0".encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mine in (folder / "environ").read_bytes() and word in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:  # it has ended meanwhile
                continue
        return found

    def wait_for_kernel(self):
        while not (self.results / "begun").exists():
            assert self.process.poll() is None, self.process.stderr.read()
            time.sleep(0.05)
        assert bool(self.alive(b"ipykernel_launcher")) != can_fork()

    def end_by(self, mode):
        """Give a signal; returns the processes that are left 5 s later, the exit status and the last words."""
        number = signal.Signals[f"SIG{mode.split()[0]}"]
        if mode.endswith("group"):
            os.killpg(self.process.pid, number)
        else:
            os.kill(self.alive(b"vlp_lib.cli.tied")[0] if mode.endswith("Snakemake") else self.process.pid, number)
        until = time.monotonic() + 5
        while (self.process.poll() is None or self.alive()) and time.monotonic() < until:
            time.sleep(0.02)
        left = self.alive()
        for process in left:
            os.kill(process, signal.SIGKILL)
        return left, self.process.wait(), self.process.stderr.read()

    def finish(self):
        said = self.process.communicate()[1]
        assert self.process.returncode == 0, said


@pytest.fixture
def waiting(write_notebook, tmp_path):
    """A checkout whose graph is one notebook that waits until there is a file `go`; the command, and that file."""
    pytest.importorskip("snakemake")
    notebooks = tmp_path / "checkout/notebooks"
    notebooks.mkdir(parents=True)
    code = "import os, time\nfrom pathlib import Path\nPath(os.environ['VLP_RESULTS'], 'begun').touch()\n"
    code += "while not Path('go').exists():\n    time.sleep(0.05)"
    write_notebook(notebooks / "wait.ipynb", code)
    (notebooks / "Snakefile").write_text(
        "from pathlib import Path\nfrom vlp_lib.cli.stage import begin_warm_process\n"
        "onstart:\n    begin_warm_process(Path('.kit/notebooks'))\n"
        f"rule pretrain:\n    output: touch('done')\n"
        f"    shell: '{sys.executable} -m vlp_lib.cli.stage .kit/notebooks/wait.ipynb out.ipynb'\n"
    )
    program = tmp_path / "reproduce.py"
    program.write_text(
        "import sys\nfrom pathlib import Path\nfrom vlp_lib.cli import graph, main\n"
        f"graph.project_root = lambda: Path({str(notebooks.parent)!r})\nsys.exit(main(['reproduce', *sys.argv[1:]]))\n"
    )
    # A test run in the background may ignore these, and what it starts would, too.
    before = {one: signal.signal(one, signal.default_int_handler) for one in (signal.SIGINT, signal.SIGHUP)}
    yield [sys.executable, str(program)], notebooks / "go"
    for one, handler in before.items():
        signal.signal(one, handler)


def test_six_signals_leave_nothing_of_the_graph(waiting, tmp_path):
    command, go = waiting

    def end(mode):
        graph = Graph(tmp_path / mode.replace(" ", "-"), command)
        graph.wait_for_kernel()
        return graph.end_by(mode)

    with ThreadPoolExecutor(2) as pool:  # six at once, beside other tests, would be starved of their 5 seconds
        ended = dict(zip(MODES, pool.map(end, MODES), strict=True))
    assert not any(left for left, _, _ in ended.values())
    interrupted = "vlp: interrupted; the same command goes on where it stopped\n"
    assert {ended[mode][1:] for mode in ("INT", "TERM", "HUP", "INT to the group")} == {(130, interrupted)}
    status, said = ended["KILL to Snakemake"][1:]
    assert status == 2
    assert said.splitlines()[-1].startswith("vlp: a stage failed: Snakemake was ended by SIGKILL")
    go.touch()
    Graph(tmp_path / "KILL", command).finish()
    assert (tmp_path / "KILL/done").is_file()


def test_a_second_graph_is_refused_and_names_the_first(waiting, tmp_path):
    command, go = waiting
    first = Graph(tmp_path / "results", command)
    first.wait_for_kernel()
    second = Graph(tmp_path / "results", command).process
    said = second.communicate()[1]
    assert second.returncode == 2
    assert said.startswith(f"vlp: process {first.process.pid} on ") and "works in" in said and said.count("\n") == 1
    go.touch()
    first.finish()


@pytest.mark.fuzz
def test_sixty_signals_to_a_real_graph_change_nothing(tmp_path):
    """Six modes, ten moments each; curve and weights end as those of a graph that nobody disturbed."""
    run = "smoke/pretrain/naive_vit/seed0"
    whole = tmp_path / "whole"
    begun = time.monotonic()
    Graph(whole).finish()
    duration = time.monotonic() - begun
    moments = random.Random(0)
    for attempt in range(10):
        results = tmp_path / str(attempt)
        for mode in MODES:
            graph = Graph(results)
            time.sleep(moments.uniform(1.0, duration))  # often before it has finished, sometimes after
            if graph.process.poll() is None and (not mode.endswith("Snakemake") or graph.alive(b"vlp_lib.cli.tied")):
                assert graph.end_by(mode)[0] == [], mode
            else:
                graph.process.communicate()
        Graph(results).finish()
        rows = [
            [{k: v for k, v in row.items() if k != "seconds"} for row in read_lines(folder / run / "metrics.jsonl")]
            for folder in (whole, results)
        ]
        assert rows[0] == rows[1]
        ours, theirs = (load_file(folder / run / "model.safetensors") for folder in (results, whole))
        assert all((ours[name] == theirs[name]).all() for name in theirs)
