"""Kills a small run at random moments and continues it, again and again; prints what came of it as JSON.

A program of its own (see test_survival): it forks from a process that has imported everything and computed nothing, so
that a start costs a fraction of a second. Arguments: the corpus, an empty folder, the number of kills.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch
from made_runs import pretrain_into
from safetensors.torch import load_file

from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.io import read_json, read_lines
from vlp_lib.profiles import profile

SMOKE = profile("smoke")
PROFILE = replace(
    SMOKE,
    model=replace(SMOKE.model, dropout=0.1),
    training=replace(
        SMOKE.training,
        steps=20,
        batch_size=4,
        evaluations=4,
        validation_images=8,
        checkpoints=10,
        keep=2,
        precision="float32",
    ),
)


def start(corpus: Corpus, folder: Path) -> int:
    """A process that begins or continues the run; its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        torch.set_num_threads(1)
        pretrain_into(folder, PROFILE, "segl", corpus)
        status = 0
    finally:
        os._exit(status)


def finish(child: int) -> None:
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the run ended with {status}"


def readable_states(folder: Path) -> int:
    """The states that bear a final name; each must be whole, as must be everything else that does."""
    states = [p for p in folder.glob("checkpoints/step-*") if not p.name.endswith(".half-written")]
    for state in states:
        sums = dict(reversed(line.split("  ")) for line in (state / "SHA256SUMS").read_text().splitlines())
        assert {name: sha256((state / name).read_bytes()).hexdigest() for name in sums} == sums, state
        load_file(state / "model.safetensors")
        torch.load(state / "optimizer.bin", weights_only=True)
    rows = read_lines(folder / "metrics.jsonl")
    if rows:
        load_file(folder / "model.safetensors")
    if (folder / "run.json").exists():
        read_json(folder / "run.json")
    return len(states)


def result(folder: Path) -> dict[str, object]:
    """Everything of a finished run that must not depend on its interruptions."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in read_lines(folder / "metrics.jsonl")]
    weights = [
        folder / "model.safetensors",
        folder / f"checkpoints/step-{PROFILE.training.steps:08d}/model.safetensors",
    ]
    return {
        "rows": rows,
        "weights": [path.read_bytes().hex() for path in weights],
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*")),
    }


def main(corpus: Corpus, root: Path, kills: int) -> None:
    moments = random.Random(0)
    begun = time.monotonic()
    whole = start(corpus, root / "whole")
    while not (root / "whole/metrics.jsonl").exists():
        time.sleep(0.01)
    first = time.monotonic() - begun
    finish(whole)
    training = time.monotonic() - begun - first
    expected = result(root / "whole")
    folder, done, equal, resumed = root / "killed", 0, [], 0
    while done < kills:
        child = start(corpus, folder)
        time.sleep(moments.uniform(0.7 * first, first + 0.3 * training))
        if os.waitpid(child, os.WNOHANG)[0]:  # it came to its end before: the next one begins anew
            equal.append(result(folder) == expected)
            shutil.rmtree(folder)
            continue
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        done += 1
        resumed += readable_states(folder) > 0
    finish(start(corpus, folder))
    equal.append(result(folder) == expected)
    print(json.dumps({"kills": done, "resumed": resumed, "equal": equal, "steps": expected["rows"][-1]["step"]}))


if __name__ == "__main__":
    main(open_corpus(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]))
