"""Reads hostile inputs in a process with 2 GiB and 10 seconds for each, and prints what is no plain refusal.

    python tests/fuzz/run.py --inputs 3000 --seed 0 [--only TARGET]

An input may be read, or be refused by one sentence. A traceback, a signal, a hang, a program that was run or a file
outside the input's folder is a fault: it is printed and its file kept below --keep, and the status is 1.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

from inputs import bombs, hostile, payloads
from targets import TARGETS

from vlp_lib.errors import UserError

MEMORY, SECONDS = 2 * 2**30, 10
BOMB_MEMORY, BOMB_SECONDS = 2**30, 2
READ, REFUSED, FAULT = 0, 1, 2


class Child:
    """A process that reads what lies in one folder, time after time, and a new one where that dies."""

    def __init__(self, folder: Path, told: Path) -> None:
        self.folder, self.told = folder, told
        self._process = self._asks = self._answers = 0

    def _start(self) -> None:
        asked, self._asks = os.pipe()
        self._answers, answered = os.pipe()
        self._process = os.fork()
        if self._process:
            os.close(asked), os.close(answered)
            return
        os.close(self._asks), os.close(self._answers)
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with os.fdopen(asked) as requests:
            for request in requests:
                os.write(answered, b"%d" % self._read(*json.loads(request)))
        os._exit(0)

    def _read(self, name: str, memory: int, seconds: int) -> int:
        """READ, REFUSED or FAULT; why, goes into the file `told`.

        It may take so much more memory than it has, so many seconds of the processor, and `SECONDS` by the clock.
        """
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CPU, (round(time.process_time()) + seconds, resource.RLIM_INFINITY))
        signal.alarm(SECONDS)
        status, why = READ, ""
        try:
            os.chdir(self.folder)
            TARGETS[name].read(self.folder)
        except UserError as error:
            status, why = REFUSED if len(str(error).splitlines()) == 1 else FAULT, str(error)
        except BaseException:
            status, why = FAULT, traceback.format_exc(limit=-6)[-3_000:]
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self.told.write_text(why, errors="replace")
        return status

    def outcome(self, name: str, memory: int = MEMORY, seconds: int = SECONDS) -> tuple[int, str]:
        """What becomes of reading the folder, and why."""
        if not self._process:
            self._start()
        os.write(self._asks, json.dumps([name, memory, seconds]).encode() + b"\n")
        if answer := os.read(self._answers, 1):
            return int(answer), self.told.read_text()
        _, status = os.waitpid(self._process, 0)
        os.close(self._asks), os.close(self._answers)
        self._process = 0
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        late = number in (signal.SIGALRM, signal.SIGXCPU)
        return FAULT, f"more than {seconds} s" if late else f"it ended by signal {number}, with status {status}"


def inputs(seed: int, count: int, sound: dict[str, bytes], canary: str) -> Iterator[tuple[str, bytes, bool]]:
    """Name of a target, its file, and whether that is a bomb: all bombs and payloads, or some, then hostile files."""
    rng = random.Random(seed)
    given = [(*one, True) for one in bombs(sound)] if sound.keys() == TARGETS.keys() else []
    given += [(name, content, False) for name, content in payloads(canary) if name in sound]
    rng.shuffle(given)
    given = given[: count // 3]
    yield from given
    names = sorted(sound)
    for place in range(count - len(given)):
        name = names[place % len(names)]
        yield name, hostile(rng, sound[name]), False


def fuzz(root: Path, options: argparse.Namespace) -> dict[str, int]:
    """Read all inputs below a folder; how many there were, by what became of them."""
    for name in ("sound", "home", "bin", "results", "deep/er"):
        (root / name).mkdir(parents=True)
    canary, told, case = root / "pwned", root / "told", root / "deep/er/case"
    (root / "bin/gs").write_text(f"#!/bin/sh\ntouch {canary}\n")
    (root / "bin/gs").chmod(0o755)
    os.environ |= {"PATH": f"{root}/bin:{os.environ['PATH']}", "HOME": f"{root}/home", "TMPDIR": f"{root}/home"}
    os.environ["VLP_RESULTS"] = str(root / "results")
    chosen = {name: target for name, target in TARGETS.items() if options.only in name}
    sound: dict[str, bytes] = {}
    for name, target in chosen.items():
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            (root / "sound" / name).mkdir()
            target.build(root / "sound" / name)
        sound[name] = (root / "sound" / name / target.file).read_bytes()
    child = Child(case, told)
    for name in chosen:
        shutil.copytree(root / "sound" / name, case)
        status, why = child.outcome(name)
        assert status == READ, f"the sound input of {name!r} is not read: {why}"
        shutil.rmtree(case)
    known = {*root.iterdir(), *(root / "deep").iterdir(), case}
    counts: collections.Counter[str] = collections.Counter(targets=len(chosen), bombs=0, read=0, refused=0, faults=0)
    for number, (name, content, bomb) in enumerate(inputs(options.seed, options.inputs, sound, str(canary))):
        shutil.copytree(root / "sound" / name, case)
        (case / chosen[name].file).write_bytes(content)
        status, why = child.outcome(name, *((BOMB_MEMORY, BOMB_SECONDS) if bomb else ()))
        if bomb and status == READ:
            status, why = FAULT, "a bomb was read"
        if strange := {*root.iterdir(), *(root / "deep").iterdir(), *(root / "deep/er").iterdir()} - known:
            status, why = FAULT, f"it wrote {sorted(map(str, strange))}"
            for path in strange:
                path.unlink()
        if status == FAULT:
            kept = options.keep / f"{options.seed}-{number}-{name.replace(' ', '_')}"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(content)
            print(f"--- {name}, input {number} of seed {options.seed} ({kept})\n{why}", flush=True)
        counts.update(inputs=1, bombs=bomb, read=status == READ, refused=status == REFUSED, faults=status == FAULT)
        shutil.rmtree(case)
    return dict(counts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="targets whose name has this in it")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "vlp-fuzz")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vlp-fuzz-") as place:
        counts = fuzz(Path(place).resolve(), options)
    print(json.dumps(counts | {"seconds": round(time.monotonic() - begun, 1)}))
    return int(counts["faults"] > 0)


if __name__ == "__main__":
    sys.exit(main())
