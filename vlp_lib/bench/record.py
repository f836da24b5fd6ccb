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
        path: Path,
        rows: Sequence[Row],
        device: torch.device,
        columns: Mapping[str, str] | None = None,
        before: str = "",
        after: str = "",
    ) -> None:
        """Write `path` (.json), and beside it .csv and .md.

        Args:
            columns: headings of the Markdown's columns by the rows' names; None shows all under their own names.
            before, after: paragraphs above and below the Markdown's table.
        """
        made = provenance.circumstances(device, self.begun, time.monotonic() - self.start)
        io.write_json(path, self.facts | {"rows": list(rows)} | made)
        table = pd.json_normalize(list(rows))
        io.write_text(path.with_suffix(".csv"), table.to_csv(index=False))
        heads = columns or {name: name for name in table.columns}
        shown = table[list(heads)].astype(object).where(table.notna(), "")
        where = f"Measured on {made['device']} with {made['threads']} CPU thread(s), {made['system']}"
        versions = f"torch {made['versions']['torch']}, commit {made['commit'] or 'unknown'}, {self.begun}"
        parts = (before, io.markdown_table(heads.values(), shown.to_numpy()).rstrip(), after, f"{where}; {versions}.\n")
        io.write_text(path.with_suffix(".md"), "\n\n".join(filter(None, parts)))
