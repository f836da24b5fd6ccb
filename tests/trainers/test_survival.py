import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("killed_runs.py")


def test_twenty_kills_at_random_moments_change_nothing(tiny_corpus, tmp_path):
    """Curve and weights are bit-equal to the uninterrupted run's, and no kill leaves a state that cannot be read."""
    paths = os.pathsep.join(map(str, PROGRAM.parents[1:3]))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, str(PROGRAM), str(tiny_corpus.root), str(tmp_path), "20"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert said["kills"] == 20
    assert said["steps"] == 40
    assert said["resumed"] >= 5  # the moments were in training, not all in its beginning
    assert said["equal"]
    assert all(said["equal"])
