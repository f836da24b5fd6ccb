"""Training images that cannot be read: named, counted over restarts and processes, an error beyond a stated share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlp_lib.errors import UserError
from vlp_lib.io import read_json, write_json

FOLDER = "corrupt_images"


class CorruptImages:
    """The corrupt images that one process of a run has met, kept in the run folder (a file a process).

    Which pair stands in for a corrupt one is the dataset's affair (`PairDataset`); this only keeps the books.

    Args:
        folder: the run's; None keeps them in memory.
        images: training images, of which `allowed` is a share.
        rank: of this process.
    """

    def __init__(self, folder: Path | None, images: int, allowed: float, rank: int = 0) -> None:
        self.path = None if folder is None else folder / FOLDER / f"process{rank}.json"
        self.images, self.allowed = images, allowed
        self._own: set[str] = set()

    def note(self, names: Sequence[str]) -> None:
        """Count these files; each is printed when it is met for the first time.

        Raises UserError where the run has met more than the allowed share.
        """
        new = sorted(set(names) - self._own)
        if not new:
            return
        self._own.update(new)
        print("\n".join(f"{name} cannot be read: another pair stands in for it" for name in new), flush=True)
        known = self._own
        if self.path is not None:
            if self.path.exists():
                self._own.update(read_json(self.path))
            write_json(self.path, sorted(self._own))
            known = set(recorded(self.path.parents[1]))
        if len(known) > self.allowed * self.images:
            raise UserError(
                f"{len(known):,} of the {self.images:,} training images cannot be read, the first is {min(known)}, and "
                f"data.allow_corrupt is {self.allowed}: fetch them again, or allow a larger share"
            )


def recorded(folder: Path) -> list[str]:
    """The corrupt images that all processes of the run in this folder have met."""
    return sorted({name for path in sorted((folder / FOLDER).glob("process*.json")) for name in read_json(path)})
