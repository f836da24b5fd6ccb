"""Settings by name, as `--set` and notebooks give them: read, put into a configuration, or refused."""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_type_hints

from vlp_lib import catalogue
from vlp_lib.config import Profile, TrainingConfig
from vlp_lib.errors import UserError, unknown
from vlp_lib.ranges import fits, require_in_range

_WORDS = {"true": True, "false": False, "none": None}


def parse_parameter(text: str) -> tuple[str, Any]:
    """`name=value` as papermill's -p reads it: numbers, true, false and none become such, everything else is text.

    Beside that, "[12, 16]" is a list, for the settings that are tuples.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"{text!r} is no parameter: write name=value")
    if value.lower() in _WORDS:
        return name, _WORDS[value.lower()]
    for number in (int, float):
        try:
            return name, number(value)
        except ValueError:
            continue
    if value.startswith("["):
        try:
            return name, json.loads(value)
        except ValueError as error:
            raise UserError(f"{text!r} is no list: write it as {name}=[1,2]") from error
    return name, value


def override(config: Any, values: dict[str, Any]) -> Any:
    """A copy of a (nested) configuration with dotted fields replaced, e.g. {"training.steps": 10}.

    Raises UserError for an unknown field, naming the nearest known one, and for a value of another type.
    """
    for path, value in values.items():
        short = path.startswith("losses.") and isinstance(config, Profile)
        config = _override(config, path, f"model.{path}" if short else path, value)
    if isinstance(config, Profile):
        for rule, holds in _TOGETHER.items():
            if not holds(config):
                raise UserError(f"{rule}: change one of the two")
    return config


def _divides(training: str) -> Callable[[Profile], bool]:
    of: Callable[[Profile], TrainingConfig] = operator.attrgetter(training)
    return lambda p: of(p).batch_size % of(p).accumulation == 0


_TOGETHER: dict[str, Callable[[Profile], bool]] = {
    "model.hidden must be a multiple of model.heads": lambda p: p.model.hidden % p.model.heads == 0,
    "model.vit.width must be a multiple of model.vit.heads": lambda p: p.model.vit.width % p.model.vit.heads == 0,
    "model.image_size must be at least model.vit.patch": lambda p: p.model.image_size >= p.model.vit.patch,
    "downstream.image_size must be at least model.vit.patch": lambda p: p.downstream.image_size >= p.model.vit.patch,
    "model.resnet.layers must be as many as model.resnet.channels": lambda p: (
        len(p.model.resnet.layers) == len(p.model.resnet.channels)
    ),
    "data.text_lengths must end with at least model.max_text_length": lambda p: (
        not p.data.text_lengths or p.data.text_lengths[-1] >= p.model.max_text_length
    ),
    **{
        f"{name}.batch_size must be a multiple of {name}.accumulation": _divides(name)
        for name in ("training", "downstream.vqa", "downstream.nlvr2", "downstream.vcr")
    },
}
"""What settings need of each other, whatever order they are given in."""


def _loss_setting(path: str, name_and_setting: str) -> str:
    """The "<loss>.<setting>" of a setting's path; which values fit is known where the loss is made."""
    name, _, setting = name_and_setting.partition(".")
    known = catalogue.loss(name).settings
    if setting not in known:
        raise unknown(f"setting {path!r}:", setting, known or ["none"])
    return f"{name}.{setting}"


def _override(config: Any, path: str, rest: str, value: Any) -> Any:
    head, _, rest = rest.partition(".")
    names = [f.name for f in dataclasses.fields(config)]
    if head not in names:
        raise unknown(f"setting {path!r}:", head, names)
    old, hint = getattr(config, head), get_type_hints(type(config))[head]
    if head == "losses":
        return replace(config, losses={**old, _loss_setting(path, rest): value})
    if rest and dataclasses.is_dataclass(old):
        return replace(config, **{head: _override(old, path, rest, value)})
    if rest or dataclasses.is_dataclass(old):
        fields = ", ".join(f.name for f in dataclasses.fields(old)) if dataclasses.is_dataclass(old) else "no fields"
        raise UserError(f"setting {path!r} names no single value: {head!r} has {fields}")
    value = tuple(value) if isinstance(value, list) else value
    if not fits(value, hint):
        kind = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
        raise UserError(f"setting {path!r} is {value!r}: it must be {kind}, such as {old!r}")
    require_in_range(type(config), head, value, path)
    return replace(config, **{head: float(value) if hint is float else value})
