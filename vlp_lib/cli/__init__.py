"""The console script `vlp`: the library's functions for a shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vlp_lib import __version__
from vlp_lib.errors import UserError

if TYPE_CHECKING:
    from vlp_lib.cli.options import Parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""

    def command() -> None:
        options = parsed(arguments)
        options.run(options)

    return answered(command)


def answered(command: Callable[[], object]) -> int:
    """The exit status of a command; a failure the user can mend is one sentence on stderr and status 2."""
    try:
        command()
    except UserError as error:
        print(f"vlp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("vlp: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """A command's options, checked. Raises UserError for what does not fit."""
    options = _parser().parse_args(arguments)
    from vlp_lib.cli.options import check

    check(options)
    return options


def _parser() -> Parser:
    # Imported here, where Ctrl-C is one sentence: it takes half a second.
    from vlp_lib.cli import commands as calls
    from vlp_lib.cli import demo, graph, lessons, notebook
    from vlp_lib.cli.options import Parser

    parser = Parser(prog="vlp", description="The vision language pretraining kit.")
    parser.add_argument("--version", action="version", version=f"vlp {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for group in (graph, notebook, lessons, demo, calls):
        group.add(commands)
    return parser
