"""One batch on two processes (gloo) and in accumulated parts: the same losses and the same weights."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from distributed_runs import STEPS, run
from safetensors.torch import load_file

from vlp_lib.io import read_json, read_lines

PROGRAM = Path(__file__).with_name("distributed_runs.py")
VARIANTS = ("segl+0.5*ssul", "spl_small", "segl_resnet", "region")
LAST = f"checkpoints/step-{STEPS:08d}"


@pytest.fixture(scope="module")
def runs(tiny_corpus, tmp_path_factory):
    """The folders of the plain runs and of those on two processes, the first of these also with two parts on each."""
    root = tmp_path_factory.mktemp("runs")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[1:3])),
        "OMP_NUM_THREADS": "1",
        "VLP_RESULTS": str(root / "results"),
    }
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    launcher += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    specifications = [f"{name}:{name}:1" for name in VARIANTS] + [f"parts:{VARIANTS[0]}:2"]
    command = [sys.executable, *launcher, str(PROGRAM), str(tiny_corpus.root), str(root / "two"), *specifications]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for name in VARIANTS:
        run(tiny_corpus, root / "one" / name, name, 1)
    run(tiny_corpus, root / "one" / "parts", VARIANTS[0], 4)
    said, _ = child.communicate()
    assert child.returncode == 0, said[-3000:]
    return root, said


def distance(one, other):
    return math.sqrt(sum(float((one[k] - other[k]).square().sum()) for k in one))


@pytest.mark.parametrize(
    ("found", "expected"),
    [(f"two/{name}", f"one/{name}") for name in VARIANTS]
    + [("two/parts", f"one/{VARIANTS[0]}"), ("one/parts", f"one/{VARIANTS[0]}")],
)
def test_same_curve_and_weights(runs, found, expected):
    root, _ = runs
    rows, whole = (read_lines(root / folder / "metrics.jsonl") for folder in (found, expected))
    assert [row["step"] for row in rows] == [0, 2, 4]
    for row, other in zip(rows, whole, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {"seconds"}:
            assert row[name] == pytest.approx(other[name], abs=2e-4), (row["step"], name)
    weights, wanted = (load_file(root / folder / LAST / "model.safetensors") for folder in (found, expected))
    begun = load_file(root / expected / "checkpoints/step-00000002/model.safetensors")
    # AdamW turns the rounding of a gradient near zero into a whole step: single numbers may differ, the whole not.
    assert distance(weights, wanted) < 0.1 * distance(begun, wanted)


def test_one_process_speaks_and_writes(runs):
    root, said = runs
    assert said.count(f"pretrain spl_small seed 0  step {STEPS}/{STEPS}") == 1
    assert said.count("captions") == 1  # the command's report of its corpus
    (facts,) = root.glob("results/*/pretrain/naive_vit/seed0/run.json")
    assert read_json(facts)["variant"] == "naive_vit"
    assert read_json(root / "two" / "region" / LAST / "state.json")["processes"] == 2
