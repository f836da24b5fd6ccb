"""What several commands share: a parser that names the nearest word, options, and what they are checked against."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from vlp_lib import catalogue
from vlp_lib.config import ModelConfig, Profile, check_task
from vlp_lib.errors import UserError, unknown
from vlp_lib.profiles import profile
from vlp_lib.run import Run, check_seed
from vlp_lib.settings import override, parse_parameter
from vlp_lib.variants import Variant, parse_variant

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a module of this package declares its commands."""


class _Help(argparse.HelpFormatter):
    """Room for the longest command and what it does on one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = 16


class Parser(argparse.ArgumentParser):
    """argparse's parser, but a misspelt command or option is answered with the nearest known one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **settings)

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]  # as argparse declares it
        """As argparse does, after a look at every option: a missing one is often one that is misspelt."""
        words: Sequence[str] = sys.argv[1:] if args is None else args
        known = [name for name in self._option_string_actions if name.startswith("--")]
        for word in words:
            if word == "--" or (self._subparsers is not None and not word.startswith("-")):
                break
            name = word.partition("=")[0]
            if name.startswith("--") and name not in known:
                self.error(str(unknown("option", name, known)))
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            self.error(str(unknown(str(action.metavar), value, action.choices)))


def declare(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], None], text: str, *shared: str, **defaults: str
) -> argparse.ArgumentParser:
    """Declare a command: what it runs, what the help says of it, and which of the `_SHARED` options it takes.

    `defaults` stand in for those of the shared options.
    """
    parser = commands.add_parser(name, help=text)
    for option in shared:
        parser.add_argument(f"--{option}", **_SHARED[option])
    parser.set_defaults(run=run, **defaults)
    return parser


def declare_group(commands: Commands, name: str, kind: str, text: str) -> Commands:
    """Declare a command that has commands of its own; `kind` is what errors call those."""
    return commands.add_parser(name, help=text).add_subparsers(required=True, metavar=kind)


_SHARED: dict[str, dict[str, Any]] = {
    "profile": {"default": "tiny", "help": "scale: smoke, lesson, tiny, photos, gpu or paper (default: %(default)s)"},
    "data-root": {"default": "", "help": "a data set in its official layout (default: embedded corpus)"},
    "plugin": {"type": Path, "metavar": "FILE", "help": "a visual loss of your own, in Python"},
    "set": {"action": "append", "default": [], "metavar": "FIELD=VALUE", "help": "e.g. training.steps=100"},
    "variant": {"required": True, "help": "e.g. segl, or a mix such as segl+0.5*ssul"},
    "seed": {"type": int, "default": 0, "help": "of all random choices (default: %(default)s)"},
    "name": {"default": "", "help": "of the run, e.g. of an ablation (default: the variant)"},
    "root": {"type": Path, "required": True, "metavar": "DIR", "help": "a data set, e.g. COCO"},
}

SCALE = ("profile", "data-root", "plugin")
"""The shared options that say at which scale, on which data and with which losses."""


def check(options: argparse.Namespace) -> None:
    """Check what is named, so that a wrong word is answered before anything that takes long is imported.

    Adds `chosen`, the profile with its settings, and makes the path of the data set whole. Raises UserError.
    """
    given = vars(options)
    options.chosen = check_words(given, given.get("set", ()))
    if "data_root" in given:
        options.data_root = check_folder(options.data_root)


def check_words(given: Mapping[str, Any], settings: Sequence[str]) -> Profile:
    """Check the plug-in, variants, task and data set that options or parameters name; raises UserError.

    Returns the named profile with the settings.
    """
    if given.get("plugin"):
        catalogue.add_plugin(Path(given["plugin"]))
    chosen: Profile = override(profile(given.get("profile", "tiny")), dict(map(parse_parameter, settings)))
    for name in [*given.get("variant", "").split(), *given.get("variants", "").split()]:
        check_losses(parse_variant(name), chosen.model)
    if "task" in given:
        check_task(given["task"])
    check_seed(given.get("seed", 0))
    check_folder(given.get("data_root", ""))
    return chosen


def check_losses(variant: Variant, model: ModelConfig) -> None:
    """Check the settings of a variant's visual losses, which are written where the losses are; raises UserError."""
    if model.losses:
        from vlp_lib.losses.base import by_loss, resolve_settings

        resolve_settings(dict(variant.losses), by_loss(model.losses))


def check_folder(data_root: str) -> str:
    """The whole path of a data set's folder, from where the user stands; "" is the embedded corpus."""
    if data_root and not Path(data_root).is_dir():
        raise UserError(f"{data_root} is no folder: name the folder of a corpus")
    return str(Path(data_root).resolve()) if data_root else ""


def run_of(options: argparse.Namespace) -> Run:
    """The run that checked options with a variant, a seed, a name and settings describe."""
    plugin = str(options.plugin.resolve()) if options.plugin else ""
    return Run(
        options.profile, options.variant, options.seed, options.data_root, options.name, tuple(options.set), plugin
    )  # fmt: skip


def numbers(text: str, name: str) -> list[int]:
    """Whole numbers separated by spaces."""
    try:
        return [int(word) for word in text.split()]
    except ValueError:
        raise UserError(f"--{name} {text!r} are no whole numbers: write e.g. --{name} '0 1 2'") from None


def print_json(value: object) -> None:
    """Show a result so that a script can read it."""
    print(json.dumps(value, indent=2))
