"""`vlp index`, `vlp publish`, `vlp export` and `vlp pack`: results and models for others."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlp_lib.cli.options import Commands, declare


def add(commands: Commands) -> None:
    """Declare these commands."""
    index = declare(commands, "index", _index, "one page with every figure and table of a profile")
    index.add_argument("folder", type=Path, help="e.g. results/tiny")
    publish = declare(commands, "publish", _publish, "copy what of a profile's results may be shared")
    publish.add_argument("source", type=Path, help="e.g. results/tiny")
    publish.add_argument("target", type=Path, help="e.g. results/reference/tiny")
    export = declare(commands, "export", _export, "a finished run's model in the hub's format, with a model card")
    export.add_argument("source", type=Path, metavar="run", help="e.g. results/tiny/pretrain/segl/seed0")
    whereto = "where to; then e.g. `hf upload someone/name FOLDER`"
    export.add_argument("target", type=Path, metavar="folder", help=whereto)
    pack = declare(commands, "pack", _pack, "a finished run's model in one small file, eight bits a number")
    pack.add_argument("source", type=Path, metavar="run", help="e.g. results/tiny/pretrain/segl/seed0")
    pack.add_argument("target", type=Path, metavar="file", help="e.g. results/tiny/weights/pretrain-segl.safetensors")


def _index(options: argparse.Namespace) -> None:
    from vlp_lib.figures.index import write_index

    print(write_index(options.folder))


def _publish(options: argparse.Namespace) -> None:
    from vlp_lib.study.publish import publish

    print(f"{len(publish(options.source, options.target))} files in {options.target}")


def _export(options: argparse.Namespace) -> None:
    from vlp_lib.hub.model import export

    print(export(options.source, options.target))


def _pack(options: argparse.Namespace) -> None:
    from vlp_lib.hub.packed import pack

    file = pack(options.source, options.target)
    print(f"{file} ({file.stat().st_size:,} bytes)")
