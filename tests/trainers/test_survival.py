import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def said_by(program, *arguments):
    """What a program beside this file prints as JSON."""
    paths = os.pathsep.join(map(str, HERE.parents[:2]))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, str(HERE / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("kills", [20, pytest.param(100, marks=pytest.mark.fuzz)])
def test_kills_at_random_moments_change_nothing(tiny_corpus, tmp_path, kills):
    """Curve and weights are bit-equal to the uninterrupted run's, and no kill leaves a state that cannot be read."""
    said = said_by("killed_runs.py", tiny_corpus.root, tmp_path, kills)
    assert said["kills"] == kills
    assert said["steps"] == 20
    assert said["resumed"] >= kills / 4  # the moments were in training, not all in its beginning
    assert said["equal"]
    assert all(said["equal"])


@pytest.mark.parametrize("starts", [5, pytest.param(40, marks=pytest.mark.fuzz)])
def test_of_two_starts_in_a_folder_the_second_is_refused(tiny_corpus, tmp_path, starts):
    """It names the first, which ends with the bits that it would have had alone; a killed one is in nobody's way."""
    said = said_by("started_twice.py", tiny_corpus.root, tmp_path, starts)
    folder = tmp_path / "twice"
    assert set(said["refused"]) == {
        f"process FIRST on {platform.node()} works in {folder}: let it finish, or end it and run the same command "
        f"again to go on"
    }
    assert len(said["refused"]) == starts
    assert said["killed"] == starts // 4
    assert said["equal"]
