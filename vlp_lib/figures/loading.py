"""Loading of images: plain, the kit's own, and prepared, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd


def loader_table(rows: Sequence[Mapping[str, Any]], target: int) -> pd.DataFrame:
    """The rows of loader.json for people."""
    return pd.DataFrame(
        [
            {
                "loader": row["what"],
                "files": f"{row['files']} ({row['width']}×{row['height']})",
                "images/s per core": round(row["rate"]),
                "5–95 %": f"{row['p5']:.0f}–{row['p95']:.0f}",
                "times plain": f"{row['times_plain']:.1f}",
                f"cores for {target:,} images/s": row["cores"],
            }
            for row in rows
        ]
    )
