"""`vlp bench`, `vlp model` and `vlp doctor`: what a machine and a model take."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from vlp_lib.cli.options import SCALE, Commands, declare, numbers
from vlp_lib.config import VARIANTS, CorpusConfig, parse_variant
from vlp_lib.errors import UserError


def add(commands: Commands) -> None:
    """Declare these commands."""
    ratios = "one table: how many times faster than what one would pick instead (CSV, Markdown, figure)"
    bench = declare(commands, "bench", _bench, ratios, *SCALE, "set")
    bench.add_argument("--only", nargs="+", default=[], metavar="ROW", help="e.g. training_step (default: quick ones)")
    bench.add_argument("--device", choices=("cpu", "cuda"), metavar="cpu|cuda", help="default: a GPU if there is one")
    bench.add_argument("--runs", type=int, default=7, help="of each row at most (default: %(default)s)")

    size = "parameters part by part and visual tokens; nothing is fetched"
    model = declare(commands, "model", _model, size, "profile", profile="paper")
    model.add_argument("--variant", default="", help="e.g. segl, or a mix such as segl+0.5*ssul (default: all eight)")
    model.add_argument("--image-sizes", default="384 600 800", help="pixels a side, separated by spaces")
    model.add_argument("--out", type=Path, help="also write architecture.csv and .md into this folder")
    model.add_argument("--draw", type=Path, metavar="FILE", help="also draw the (first) variant, an SVG")

    estimate = "check the installation; estimate a pretraining's memory and time"
    doctor = declare(commands, "doctor", _doctor, estimate, *SCALE, "set")
    doctor.add_argument("--variant", default="segl")
    doctor.add_argument("--gpus", type=int, default=1, help="that share the batch")
    doctor.add_argument("--gpu-memory", type=float, metavar="GIB", help="of each (default: as found)")


def _bench(options: argparse.Namespace) -> None:
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # torch, which reads it, is not imported yet
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from vlp_lib.bench.rows import chosen_rows
    from vlp_lib.bench.table import Setting, bench
    from vlp_lib.corpora.opening import open_corpus
    from vlp_lib.figures.bench_tables import bench_table, draw_bench
    from vlp_lib.figures.style import save_figure
    from vlp_lib.run import Layout
    from vlp_lib.trainers.trained import device_at_hand
    from vlp_lib.workspace import draw_corpus

    chosen, device = options.chosen, device_at_hand()
    if options.device == "cuda" and device.type != "cuda":
        raise UserError("there is no GPU here: leave out --device")
    if options.runs < 1:
        raise UserError(f"runs is {options.runs}: give at least 1")
    rows = chosen_rows(options.only)
    folder, name = Layout(chosen.name, options.data_root).root / "bench", "-".join(options.only) or "bench"
    with TemporaryDirectory() as place:
        root = Path(options.data_root) if options.data_root else Path(place) / "corpus"
        if not options.data_root:
            # What is measured does not depend on how many images there are.
            few = CorpusConfig(
                train_images=96, val_images=8, test_images=24, nlvr_pairs=(4, 2, 2), vcr_images=(4, 2, 2)
            )
            draw_corpus(replace(chosen, corpus=few), root)
        setting = Setting(chosen, open_corpus(root), device, Path(place))
        found = bench(setting, rows, options.runs, folder / f"{name}.json", chosen.speed.seconds)
    save_figure(draw_bench(found), bench_table(found), folder, name)
    print(bench_table(found).to_string(index=False), folder / f"{name}.md", sep="\n")


def _model(options: argparse.Namespace) -> None:
    from vlp_lib.bench.architecture import describe
    from vlp_lib.figures.bench_tables import architecture_note, architecture_table
    from vlp_lib.figures.style import save_table

    chosen, sizes = options.chosen, numbers(options.image_sizes, "image-sizes")
    variants = [parse_variant(name, chosen.model.vision) for name in options.variant.split() or VARIANTS]
    table = architecture_table([describe(chosen.model, variant, sizes) for variant in variants])
    note = architecture_note(chosen.name)
    print(table.to_string(index=False), note, sep="\n")
    if options.out:
        print(save_table(table, options.out, "architecture", note))
    if options.draw:
        from vlp_lib.figures.architecture import draw_architecture
        from vlp_lib.io import write_text

        write_text(options.draw, draw_architecture(chosen, variants[0]))


def _doctor(options: argparse.Namespace) -> None:
    from vlp_lib.bench.budget import PAPER_PAIRS, estimate, report
    from vlp_lib.checks import doctor
    from vlp_lib.corpora.opening import open_corpus
    from vlp_lib.run import results_root

    chosen, variant = options.chosen, parse_variant(options.variant, options.chosen.model.vision)
    packages = doctor.check_packages()
    print("\n".join(str(check) for check in packages if not check.fine) or f"ok  {len(packages)} packages", flush=True)
    if not all(check.fine for check in packages):
        raise UserError("the installation is not whole (see above): mend it before a long run")
    pairs = PAPER_PAIRS if chosen.name == "paper" else 5 * chosen.corpus.train_images
    if options.data_root:
        pairs = sum(len(record.captions) for record in open_corpus(Path(options.data_root)).split("train"))
    memory = None if options.gpu_memory is None else options.gpu_memory * 2**30
    found = estimate(chosen, variant, pairs, options.gpus, memory)
    machine = doctor.check_machine(results_root(), doctor.checkpoint_bytes(found.parameters, chosen.training.keep))
    print("\n".join(map(str, machine)), report(found, chosen, variant), sep="\n")
    if not all(check.fine for check in machine):
        raise UserError("this machine is not ready for the run (see above)")
