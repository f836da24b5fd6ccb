"""Figure 5 (right): inference time against VQA accuracy, the run's points and the paper's."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from vlp_lib import paper
from vlp_lib.study.runs import label
from vlp_lib.study.scores import Results
from vlp_lib.study.verdicts import estimate

RUN = "this run"

_PUBLISHED = {"II": "vqa", "IV": "vqav2_test_dev"}
"""The paper's tables that have a time and a VQA accuracy, and the column of the latter."""


def trade_off(results: Results) -> pd.DataFrame:
    """A row a point: source, row, model, ms with ms_low and ms_high (5th and 95th percentile), vqa, half, seeds.

    VQA accuracy is in percent, with the half-width of its 95 % interval over seeds. A run that was not timed or not
    finetuned has NaN there, and so have the paper's points, which come without spread.
    """
    rows: list[dict[str, Any]] = []
    for name in results.names:
        vqa = estimate(results.values("vqa", name, results.split("vqa"), "overall"))
        time = results.time(name) or {}
        times = {"ms": "median_ms", "ms_low": "p5_ms", "ms_high": "p95_ms"}
        milliseconds = {column: time.get(field, math.nan) for column, field in times.items()}
        scores = {"vqa": vqa.mean, "half": vqa.half, "seeds": vqa.seeds}
        rows.append({"source": RUN, "row": name, "model": label(name), **milliseconds, **scores})
    for number, column in _PUBLISHED.items():
        for row in paper.table(number).rows:
            ms, score = (paper.value(number, row.name, name) for name in ("inference_ms", column))
            source = f"paper, table {number}"
            rows.append({"source": source, "row": row.name, "model": row.label, "ms": ms, "vqa": score})
    return pd.DataFrame(rows).astype({"ms": float, "vqa": float})


def not_shown(points: pd.DataFrame) -> list[str]:
    """The run's models that are no point because their time or their accuracy is missing, and which."""
    own = points[points["source"] == RUN]
    missing = {"ms": "not timed", "vqa": "no VQA run"}
    return [
        f"{row.model} ({', '.join(why for name, why in missing.items() if math.isnan(getattr(row, name)))})"
        for row in own[own[list(missing)].isna().any(axis=1)].itertuples()
    ]
