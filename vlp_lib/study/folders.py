"""Whose results a page shows: the user's own, or those that come with the kit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlp_lib.run import Layout, reference_root

PRETRAINED = ("pretrain/*/seed*/run.json",)
SCORED = (*(f"{stage}/*/seed*/run.json" for stage in ("finetune-*", "retrieval", "attention")), "speed/*.json")
"""What a page of curves, and one of scores, needs at least one of."""


@dataclass(frozen=True)
class ResultsFolder:
    """Results to be drawn by a notebook.

    Attributes:
        root: where their runs lie.
        profile: theirs.
        folder: where figures/ and tables/ of them go.
    """

    root: Path
    profile: str
    folder: Path

    @property
    def own(self) -> bool:
        """Whether they are the user's."""
        return self.folder == self.root

    @property
    def figures(self) -> Path:
        """Figures: PNG, PDF and the CSV behind each."""
        return self.folder / "figures"

    @property
    def tables(self) -> Path:
        """Tables: CSV and Markdown."""
        return self.folder / "tables"


def shown_results(layout: Layout, needed: Sequence[str]) -> ResultsFolder:
    """A profile's own results where any of the needed files is there, else those that come with the kit; says which.

    What is drawn of the kit's lies apart from one's own figures.
    """
    own = ResultsFolder(layout.root, layout.profile, layout.root)
    if layout.data_root or any(True for pattern in needed for _ in layout.root.glob(pattern)):
        return own
    kit = ResultsFolder(reference_root(), reference_root().name, layout.root / "reference")
    print(f"no runs of your own in the profile {layout.profile} yet: those of {kit.profile} come with the kit")
    return kit
