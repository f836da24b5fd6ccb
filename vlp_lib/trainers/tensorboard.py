"""A run's curves for TensorBoard, where it is installed; metrics.jsonl stays the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlp_lib.errors import UserError

FOLDER = "tensorboard"


class ScalarWriter:
    """Writes the rows of metrics.jsonl as scalars into `folder`/tensorboard.

    The rows of a run that is continued are written once more and stand in for what an earlier process wrote.

    Raises UserError where TensorBoard is not installed.
    """

    def __init__(self, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "TensorBoard is not installed: install it with `pip install tensorboard`, or leave out --tensorboard"
            ) from None
        self._writer = SummaryWriter(str(folder / FOLDER), purge_step=0)
        for row in rows:
            self.write(row)

    def write(self, row: Mapping[str, Any]) -> None:
        """One evaluation: val_itm becomes val/itm, and so on."""
        for name, value in row.items():
            if name not in ("step", "samples"):
                self._writer.add_scalar(name.replace("_", "/", 1), value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        """Nothing more will come."""
        self._writer.close()
