"""Runs of profiles that a test has made."""

import json
from pathlib import Path
from typing import Any

import pytest

from vlp_lib.config import Profile, flatten, to_dict
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.profiles import profile
from vlp_lib.run import Run, settings_of_stage
from vlp_lib.trainers.pretrain import pretrain


def run_of(scale: Profile, stage: str, variant: str, seed: int = 0, name: str = "") -> Run:
    """A run whose settings are those that `stage` reads and in which `scale` differs from its profile."""
    usual, made = flatten(to_dict(profile(scale.name))), flatten(to_dict(scale))
    changed = {key: value for key, value in made.items() if value != usual.get(key)}
    texts = tuple(f"{key}={json.dumps(value) if isinstance(value, list) else value}" for key, value in changed.items())
    return Run(scale.name, variant, seed, name=name, settings=settings_of_stage(texts, stage))


def pretrain_into(
    folder: Path, scale: Profile, variant: str, corpus: Corpus, seed: int = 0, **options: Any
) -> list[dict[str, Any]]:
    """Pretrains into a folder of the test's choice; the run's rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "folder", lambda run, stage: folder)
        return pretrained(scale, variant, corpus, seed, **options)[1]


def pretrained(
    scale: Profile, variant: str, corpus: Corpus, seed: int = 0, name: str = "", **options: Any
) -> tuple[Path, list[dict[str, Any]]]:
    """Pretrains; the run's folder and its rows."""
    run = run_of(scale, "pretrain", variant, seed, name)
    return run.folder("pretrain"), pretrain(run, corpus, **options)


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl as a second run should have them, too."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
