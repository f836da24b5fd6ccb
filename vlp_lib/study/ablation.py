"""An ablation as a grid: every combination of what is to be tried, each a run with a name of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple, TypeVar

import pandas as pd

from vlp_lib.config import flatten, to_dict
from vlp_lib.errors import UserError
from vlp_lib.io import read_json, read_lines
from vlp_lib.losses.base import by_loss, resolve_settings
from vlp_lib.models.model import needs_of
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.profiles import profile
from vlp_lib.run import CONFIG, RECORD, Run
from vlp_lib.trainers.loop import METRICS
from vlp_lib.variants import VARIANTS, parse_variant

Number = TypeVar("Number", int, float)

_ANY_SIZES = Vocabularies(words=9, segmentation=9, detector=9, attributes=9)
"""What a loss asks of the data does not depend on how many classes there are."""


class Factor(NamedTuple):
    """Something to be varied: the setting, and what it is in words."""

    setting: str
    words: str


FACTORS = {
    "maps": Factor("corpus.maps", "share of the images with a label map"),
    "noise": Factor("corpus.detector_noise", "errors of the detector, times the usual"),
    "typical": Factor("corpus.typical", "share of the stuffs in their typical colour"),
    "mlm": Factor("data.mlm_probability", "share of the words that MLM hides"),
    "hidden": Factor("losses.ssul.probability", "share of the patches that SSUL hides"),
}
"""By the short word that stands in the names of runs, as in "segl-maps0.1"."""


def usual(profile_name: str, factor: str) -> float:
    """A profile's own value of a factor."""
    section, *rest = FACTORS[factor].setting.split(".")
    chosen = profile(profile_name)
    if section == "losses":
        loss, setting = rest
        return float(resolve_settings({loss: 1.0}, {loss: by_loss(chosen.model.losses).get(loss, {})})[loss][setting])
    return float(flatten(to_dict(chosen))[FACTORS[factor].setting])


def numbers(text: str, words: str, kind: type[Number]) -> list[Number]:
    """Numbers of a kind, separated by spaces; raises UserError that calls them by `words`."""
    try:
        return [kind(word) for word in text.split()]
    except ValueError:
        whole = "whole numbers" if kind is int else "numbers"
        raise UserError(f"{words}: {text!r} are no {whole}: write them with spaces between, such as 0 1") from None


def on_backbone(mix: str, backbone: str, profile_name: str) -> str:
    """The variant of a mix on a backbone, called as the paper's is where it is one of these ("naive_vit").

    A mix that names its backbone itself ("segl@resnet", "segl_resnet", "region") keeps it. Raises UserError for an
    unknown name.
    """
    own = profile(profile_name).model.vision
    bare = "@" not in mix and (mix not in VARIANTS or (VARIANTS[mix].vision == "vit" and VARIANTS[mix].losses))
    wanted = parse_variant(f"{mix}@{backbone}" if bare and backbone not in ("", own) else mix, own)
    same = (known.name for known in VARIANTS.values() if (known.vision, known.losses) == (wanted.vision, wanted.losses))
    return next(same, wanted.name)


def grid(
    profile_name: str,
    mixes: Sequence[str],
    backbones: Sequence[str],
    values: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    plugin: str = "",
) -> list[Run]:
    """The runs of all combinations, seed by seed, each once.

    What a variant does not read is not varied for it: a naive model reads no label maps. A value that is the profile's
    own leaves the name and the settings of the run alone, so that the baseline is the variant's own run. `values` are
    what to try of each of `FACTORS`.

    Raises UserError for unknown names, values out of range, and where nothing is to be run.
    """
    runs: dict[tuple[int, str], Run] = {}
    for seed, mix, backbone in product(seeds, mixes, backbones or [""]):
        variant = on_backbone(mix, backbone, profile_name)
        plain = Run(profile_name, variant, seed, plugin=plugin)
        read = {factor: tried for factor, tried in values.items() if tried and _reads(plain, factor)}
        for combination in product(*read.values()):
            changed = {f: v for f, v in zip(read, combination, strict=True) if v != usual(profile_name, f)}
            name = "-".join([plain.name, *(f"{factor}{value:g}" for factor, value in changed.items())])
            settings = tuple(f"{FACTORS[factor].setting}={value}" for factor, value in changed.items())
            runs[seed, name] = Run(profile_name, variant, seed, "", name, settings, plugin)
    if not runs:
        raise UserError("nothing is to be run: name at least one variant and one seed")
    return list(runs.values())


def _reads(run: Run, factor: str) -> bool:
    """Whether a factor changes anything for the variant of a run."""
    section, name, *_ = FACTORS[factor].setting.split(".")
    if section == "losses":
        return name in dict(run.chosen.losses)
    needs = needs_of(run.config.model, run.chosen, _ANY_SIZES)
    detections = run.chosen.vision == "region" or needs.detections > 0
    return {"maps": needs.label_maps, "noise": detections}.get(factor, True)


def finished(run: Run) -> bool:
    """Whether a pretraining of these settings is there already."""
    folder = run.folder("pretrain")
    return (folder / RECORD).is_file() and tuple(read_json(folder / CONFIG).get("settings", ())) == run.settings


def courses(runs: Sequence[Run]) -> pd.DataFrame:
    """What the runs have measured so far, as `study.runs.read_runs` gives the finished ones; empty before the first."""
    frames = [
        pd.DataFrame(rows).assign(name=run.name, variant=run.chosen.name, seed=run.seed)
        for run in runs
        if (rows := read_lines(run.folder("pretrain") / METRICS))
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
