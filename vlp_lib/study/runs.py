"""The finished runs of a profile, and how runs are called and in which order they stand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from vlp_lib.errors import UserError
from vlp_lib.io import read_json, read_lines
from vlp_lib.profiles import PROFILES
from vlp_lib.run import Layout, reference_root
from vlp_lib.variants import VARIANTS

NOT_RUN = "not run"
"""What a cell of a table says whose run is not there."""

CHECK_ONLY = "installation check, no result"
"""What stands for every verdict on a profile that is there to see whether everything runs."""

PRETRAINED = ("pretrain/*/seed*/run.json",)
SCORED = (*(f"{stage}/*/seed*/run.json" for stage in ("finetune-*", "retrieval", "attention")), "speed/*.json")
"""What a page of curves, and one of scores, needs at least one of."""

_LABELS = {
    "region": "Region features",
    "naive": "Naive",
    "naive_vit": "Naive (ViT)",
    "naive_resnet": "Naive (ResNet)",
    "ssul": "SSUL",
    "segl": "SEGL",
    "segl_resnet": "SEGL (ResNet)",
    "spl_small": "SPL (small)",
    "spl_large": "SPL (large)",
}


def label(name: str) -> str:
    """How a run is called in figures and tables: the paper's variants by their labels, others by their names."""
    return _LABELS.get(name, name)


def in_order(names: Iterable[str]) -> list[str]:
    """The names that occur, each once: the paper's variants in its own order first, then the others by name."""
    present = set(names)
    return [name for name in VARIANTS if name in present] + sorted(present - set(VARIANTS))


def baseline(names: Iterable[str]) -> str:
    """The naive model that stands for the paper's: the ViT's, or a profile's own backbone where only that was run."""
    return "naive" if set(names) & {"naive", "naive_vit"} == {"naive"} else "naive_vit"


def read_records(root: Path, stage: str) -> dict[Path, dict[str, Any]]:
    """run.json of each finished run of a stage ("*": of all), by its folder."""
    return {path.parent: read_json(path) for path in sorted(root.glob(f"{stage}/*/seed*/run.json"))}


class Shown(NamedTuple):
    """Whose results a page shows: the profile's folder and name, and where the page draws them."""

    root: Path
    profile: str
    figures: Path
    tables: Path


def shown_results(layout: Layout, needed: Sequence[str]) -> Shown:
    """A profile's own results where any of the needed files is there, else those that come with the kit; says which.

    What is drawn of the kit's lies apart from one's own figures.
    """
    if layout.data_root or any(True for pattern in needed for _ in layout.root.glob(pattern)):
        return Shown(layout.root, layout.profile, layout.figures, layout.tables)
    kit, folder = reference_root(), layout.root / "reference"
    print(f"no runs of your own in the profile {layout.profile} yet: those of {kit.name} come with the kit")
    return Shown(kit, kit.name, folder / "figures", folder / "tables")


def read_runs(root: Path, stage: str) -> pd.DataFrame:
    """All rows of metrics.jsonl of a stage, with `name`, `variant`, `seed`, `synthetic`, its own `settings` as one text
    and, of a pretraining, the number of `images` that it was validated on; finished runs only.

    Raises UserError where there is none.
    """
    # Records of before have the number of pairs under the name of the images.
    frames = [
        pd.DataFrame(read_lines(folder / "metrics.jsonl")).assign(
            **{key: run[key] for key in ("name", "variant", "seed", "synthetic")},
            images=run["validation_images"] if "validation_pairs" in run else None,
            settings=" ".join(run.get("settings", ())),
        )
        for folder, run in read_records(root, stage).items()
    ]
    if not frames:
        raise UserError(f"no finished {stage} run under {root}: run `make reproduce` or the {stage} notebook first")
    return pd.concat(frames, ignore_index=True)


def is_check(profile: str) -> bool:
    """Whether the results of a profile of that name say nothing (`Profile.check_only`)."""
    return profile in PROFILES and PROFILES[profile].check_only


def stamped(table: pd.DataFrame, profile: str) -> pd.DataFrame:
    """A table of comparisons; of a profile that is a check only, without its verdicts."""
    if not is_check(profile):
        return table
    verdicts = table.columns.intersection(["verdict", "leaves it", "ends"])
    unsaid = table.assign(**{name: table[name].where(table[name] == NOT_RUN, CHECK_ONLY) for name in verdicts})
    return unsaid.assign(survives=False) if "survives" in table else unsaid


def describe(runs: pd.DataFrame, profile: str) -> str:
    """What a figure was computed from, for its caption: profile, corpus and seeds."""
    corpus = "embedded synthetic corpus" if runs["synthetic"].all() else "real images"
    seeds = runs["seed"].nunique()
    kind = f"profile {profile} ({CHECK_ONLY})" if is_check(profile) else f"profile {profile}"
    return f"{kind}, {corpus}, {seeds} seed{'s' if seeds > 1 else ''}"
