"""The runs of a profile as data frames, and intervals over seeds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from vlp_lib.config import VARIANTS
from vlp_lib.errors import UserError
from vlp_lib.io import read_json, read_lines

NOT_RUN = "not run"
"""What a cell of a table says whose run is not there."""


def read_runs(root: Path, stage: str) -> pd.DataFrame:
    """All rows of metrics.jsonl of a stage, with `variant`, `seed` and `synthetic`; finished runs only.

    Raises UserError where there is none.
    """
    frames = []
    for record in sorted(root.glob(f"{stage}/*/seed*/run.json")):
        run = read_json(record)
        rows = pd.DataFrame(read_lines(record.parent / "metrics.jsonl"))
        frames.append(rows.assign(variant=run["variant"], seed=run["seed"], synthetic=run["synthetic"]))
    if not frames:
        raise UserError(f"no finished {stage} run under {root}: run `make reproduce` or the {stage} notebook first")
    return pd.concat(frames, ignore_index=True)


def variant_order(variants: pd.Series | list[str]) -> list[str]:
    """The variants that occur, the paper's in its own order first."""
    found = list(dict.fromkeys(variants))
    known = [v for v in VARIANTS if v in found]
    return known + sorted(set(found) - set(known))


def interval(values: np.ndarray | pd.Series, level: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of its confidence interval over seeds (Student's t); the half-width of one value is NaN."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return float(array.mean()) if len(array) else math.nan, math.nan
    half = stats.t.ppf(0.5 + level / 2, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array))
    return float(array.mean()), float(half)


def with_half(mean: float, half: float, digits: int) -> str:
    """A mean with the half-width of its interval, "70.12 ± 0.34"; without it where that is unknown."""
    return f"{mean:.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")


def over_seeds(rows: pd.DataFrame, by: list[str], value: str) -> pd.DataFrame:
    """Mean, half-width of the 95 % interval and number of seeds of `value` for each group."""
    groups = rows.groupby(by, sort=False)[value]
    summary = groups.apply(lambda v: pd.Series([*interval(v), float(len(v))], index=["mean", "half", "seeds"]))
    return summary.unstack().reset_index()


def describe(runs: pd.DataFrame, profile: str) -> str:
    """What a figure was computed from, for its caption: profile, corpus and seeds."""
    corpus = "embedded synthetic corpus" if runs["synthetic"].all() else "real images"
    seeds = runs["seed"].nunique()
    return f"profile {profile}, {corpus}, {seeds} seed{'s' if seeds > 1 else ''}"
