import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are limited by what Linux offers")

SABOTAGE = """
import os, run, signal, sys
from dataclasses import replace

def harmful(target, harm):
    sound = []

    def build(root):
        target.build(root)
        sound.append((root / target.file).read_bytes())

    return replace(target, build=build, read=lambda root: (root / target.file).read_bytes() in sound or harm(root))

HARMS = {
    "json": lambda root: 1 // 0,
    "items": lambda root: os.kill(os.getpid(), signal.SIGSEGV),
    "metrics": lambda root: (root / "../../pwned").write_text(""),
    "vcr": lambda root: bytearray(3 * 2**30),
    "plug-in": lambda root: [0 for _ in iter(int, 1)],
}
run.SECONDS = 1
for name in list(run.TARGETS):
    if name in HARMS:
        run.TARGETS[name] = harmful(run.TARGETS[name], HARMS[name])
    else:
        del run.TARGETS[name]
run.bombs = run.payloads = lambda _: ()
sys.argv[1:] = ["--inputs", "5", "--keep", sys.argv[1]]
sys.exit(run.main())
"""


def fuzzed(tmp_path: Path, *command: str) -> tuple[int, dict[str, Any], str]:
    command = (sys.executable, *command)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


def test_hostile_files_are_read_or_refused_and_harm_nothing(tmp_path: Path) -> None:
    """A short part of `make fuzz`."""
    status, counts, said = fuzzed(tmp_path, "run.py", "--inputs", "150", "--keep", str(tmp_path))
    assert (status, counts["inputs"], counts["faults"]) == (0, 150, 0), said
    assert counts["read"] > 0 and counts["refused"] > 100


def test_the_fuzzer_sees_each_kind_of_harm(tmp_path: Path) -> None:
    status, counts, said = fuzzed(tmp_path, "-c", SABOTAGE, str(tmp_path))
    assert (status, counts["faults"]) == (1, 5), said
    for word in ("ZeroDivisionError", "signal 11", "it wrote", "MemoryError", "more than"):
        assert word in said
    assert len(list(tmp_path.iterdir())) == 5
