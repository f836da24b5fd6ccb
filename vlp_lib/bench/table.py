"""How benchmarks are written, and the table of `vlp bench`: each row a ratio of two things measured in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from vlp_lib import io, provenance
from vlp_lib.clock import processor_timed, spread, take_turns, timed
from vlp_lib.config import Profile
from vlp_lib.corpora.corpus import Corpus


class Record:
    """One benchmark, from its start to its files; `facts` hold for all rows, e.g. the profile's name."""

    def __init__(self, stage: str, **facts: Any) -> None:
        self.facts = {"stage": stage, **facts}
        self.begun, self.start = provenance.now(), time.monotonic()

    def write(
        self, path: Path, rows: Sequence[dict[str, Any]], device: torch.device, columns: Mapping[str, str] | None = None
    ) -> None:
        """Write `path` (.json), and beside it .csv and .md.

        `columns` are headings of the Markdown's columns by the rows' names; None shows all under their own names.
        """
        made = provenance.circumstances(device, self.begun, time.monotonic() - self.start)
        io.write_json(path, self.facts | {"rows": list(rows)} | made)
        table = pd.json_normalize(list(rows))
        io.write_text(path.with_suffix(".csv"), table.to_csv(index=False))
        heads = columns or {name: name for name in table.columns}
        shown = table[list(heads)].astype(object).where(table.notna(), "")
        where = f"Measured on {made['device']} with {made['threads']} CPU thread(s), {made['system']}"
        versions = f"torch {made['versions']['torch']}, commit {made['commit'] or 'unknown'}, {self.begun}"
        text = io.markdown_table(heads.values(), shown.to_numpy())
        io.write_text(path.with_suffix(".md"), f"{text.rstrip()}\n\n{where}; {versions}.\n")


@dataclass(frozen=True)
class Setting:
    """Where and at which scale is measured; `folder` is for what a measurement writes on its way."""

    profile: Profile
    corpus: Corpus
    device: torch.device
    folder: Path


@dataclass(frozen=True)
class Pair:
    """The two things of a row."""

    ours: Callable[[], object]  # does the work once
    theirs: Callable[[], object] | float  # the same of what it is compared with; or seconds that the work may take
    share: float = 1.0  # of ours' work that a call of theirs does
    facts: Callable[[], Mapping[str, Any]] = field(default=dict)  # what else is worth writing down; called afterwards


@dataclass(frozen=True)
class Row:
    """A row of the table: what is compared, in words, and what makes it."""

    name: str
    ours: str
    theirs: str
    aim: float  # the least ratio of theirs' time to ours; with `above` the most seconds that ours may take longer
    measure: Callable[[Setting], Pair]
    slow: bool = False  # takes minutes, and is measured only where it is named
    above: bool = False  # processes are started: their wall time counts, and its difference


def row(ours: str, theirs: str, aim: float, slow: bool = False) -> Callable[[Callable[[Setting], Pair]], Row]:
    """Make a function the row of its name."""
    return lambda measure: Row(measure.__name__, ours, theirs, aim, measure, slow)


def measure(one: Row, setting: Setting, runs: int, seconds: float) -> dict[str, Any]:
    """A row's numbers, of so many runs of both, or of fewer where one takes more than `seconds` for them.

    Seconds are of the processor (one core), or of the device where that is a GPU. The ratio is the median of the runs,
    with their 5th and 95th percentile.
    """
    pair = one.measure(setting)
    on_clock = one.above or setting.device.type == "cuda"

    def clocked(function: Callable[[], object]) -> Callable[[], tuple[float]]:
        return timed(function, setting.device) if on_clock else processor_timed(function)

    sides = {"ours": pair.ours, "theirs": pair.theirs}
    passes = {name: clocked(side) for name, side in sides.items() if callable(side)}
    times = {name: taken[:, 0] for name, taken in take_turns(passes, runs, seconds=seconds).items()}
    count = min(map(len, times.values()))
    ours = times["ours"][:count] * pair.share
    other = times["theirs"][:count] if "theirs" in times else np.full(count, pair.theirs)
    low, middle, high = spread(ours - other if one.above else other / ours)
    return {
        "row": one.name,
        "ours": one.ours,
        "against": one.theirs,
        "ours_ms": round(1000 * spread(ours)[1], 3),
        "against_ms": round(1000 * spread(other)[1], 3),
        "kind": "seconds above" if one.above else "times",
        "ratio": round(middle, 3),
        "p5": round(low, 3),
        "p95": round(high, 3),
        "aim": one.aim,
        "met": middle <= one.aim if one.above else middle >= one.aim,
        **pair.facts(),
    }


_COLUMNS = {"row": "row", "ours": "ours", "against": "against", "ratio": "times (or s above)", "p5": "5 %",
            "p95": "95 %", "aim": "aim", "met": "met"}  # fmt: skip


def bench(setting: Setting, rows: Sequence[Row], runs: int, path: Path, seconds: float) -> list[dict[str, Any]]:
    """Measure rows, write `path` (.json), .csv and .md, and return them."""
    record = Record(
        "bench",
        profile=setting.profile.name,
        corpus=setting.corpus.fingerprint,
        precision=setting.profile.training.precision,
        clock="the GPU's" if setting.device.type == "cuda" else "seconds of one core",
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = []
    try:
        for one in rows:
            print(f"{one.name} ...", flush=True)
            found.append(measure(one, setting, runs, seconds))
            record.write(path, found, setting.device, _COLUMNS)
    finally:
        torch.set_num_threads(threads)
    return found
