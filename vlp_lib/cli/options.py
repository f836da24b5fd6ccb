"""What several commands share: options, values written as text, and how a result is shown."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, TypeAlias

from vlp_lib.errors import UserError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a module of this package declares its commands."""

_WORDS = {"true": True, "false": False, "none": None}


def common(parser: argparse.ArgumentParser) -> None:
    """The options that say at which scale and on which data."""
    parser.add_argument("--profile", default="tiny", help="scale: smoke, tiny, gpu or paper (default: %(default)s)")
    parser.add_argument("--data-root", default="", help="a data set in its official layout (default: embedded corpus)")
    parser.add_argument(
        "--plugin", type=Path, default=None, metavar="FILE", help="a visual loss of your own, in Python"
    )


def numbers(text: str, name: str) -> list[int]:
    """Whole numbers separated by spaces."""
    try:
        return [int(word) for word in text.split()]
    except ValueError:
        raise UserError(f"--{name} {text!r} are no whole numbers: write e.g. --{name} '0 1 2'") from None


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


def print_json(value: object) -> None:
    """Show a result so that a script can read it."""
    print(json.dumps(value, indent=2))
