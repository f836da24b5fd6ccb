"""How every benchmark is written: its rows as JSON, CSV and Markdown, and the environment beside them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from vlp_lib import io, provenance

Row = dict[str, Any]


class Record:
    """One benchmark, from its start to its files.

    Args:
        stage: what is measured, e.g. "speed".
        facts: what holds for all rows, e.g. the profile's name.
    """

    def __init__(self, stage: str, **facts: Any) -> None:
        self.facts = {"stage": stage, **facts}
        self.begun, self.start = provenance.now(), time.monotonic()

    def write(
        self,
        folder: Path,
        name: str,
        rows: Sequence[Row],
        device: torch.device,
        columns: Mapping[str, str] | None = None,
        before: str = "",
        after: str = "",
        **facts: Any,
    ) -> None:
        """Write `folder`/`name`.json, .csv and .md.

        Args:
            columns: headings of the Markdown's columns by the rows' names; None shows all under their own names.
            before, after: paragraphs above and below the Markdown's table.
            facts: further ones that hold for all rows.
        """
        environment = provenance.environment(device)
        made = {"started": self.begun, "seconds": round(time.monotonic() - self.start, 1)}
        git = provenance.git_state(Path(__file__).parent)
        io.write_json(folder / f"{name}.json", self.facts | facts | {"rows": list(rows)} | made | git | environment)
        table = pd.json_normalize(list(rows))
        io.write_text(folder / f"{name}.csv", table.to_csv(index=False))
        shown = table if columns is None else table[list(columns)].rename(columns=dict(columns))
        where = f"{environment['device']} with {environment['threads']} CPU thread(s), {environment['system']}"
        versions = f"torch {environment['versions']['torch']}, commit {git['commit'] or 'unknown'}, {self.begun}"
        text = "\n\n".join(
            part for part in (before, markdown(shown), after, f"Measured on {where}; {versions}.") if part
        )
        io.write_text(folder / f"{name}.md", text + "\n")


def markdown(table: pd.DataFrame) -> str:
    """A data frame as a Markdown table; what is missing stays empty."""
    cells = table.astype(object).where(table.notna(), "").astype(str)
    rows = [list(cells.columns), ["---"] * len(cells.columns), *map(list, cells.itertuples(index=False))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
