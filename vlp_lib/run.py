"""Where things lie: the results of a profile, its corpus, its runs. Nothing depends on the current folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


def project_root() -> Path:
    """The checkout that holds notebooks/ and results/, or the current folder for an installed package."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "notebooks").is_dir() else Path.cwd()


def results_root() -> Path:
    """`results/` of the checkout; the environment variable VLP_RESULTS puts it elsewhere."""
    return Path(os.environ.get("VLP_RESULTS") or project_root() / "results").resolve()


@dataclass(frozen=True)
class Layout:
    """The folders of one profile on one corpus: results/<profile>/, or results/<profile>-<name>/ with a data_root."""

    profile: str
    data_root: str = ""

    @property
    def root(self) -> Path:
        """Everything of this profile and corpus."""
        name = self.profile if not self.data_root else f"{self.profile}-{Path(self.data_root).resolve().name}"
        return results_root() / name

    @property
    def corpus(self) -> Path:
        """The corpus: the given data_root, or the embedded one that is drawn here."""
        return Path(self.data_root).resolve() if self.data_root else self.root / "corpus"

    def run(self, stage: str, variant: str, seed: int) -> Path:
        """The folder of one run."""
        return self.root / stage / variant / f"seed{seed}"

    @property
    def figures(self) -> Path:
        """Figures: PNG, PDF and the CSV behind each."""
        return self.root / "figures"

    @property
    def tables(self) -> Path:
        """Tables: CSV and Markdown."""
        return self.root / "tables"
