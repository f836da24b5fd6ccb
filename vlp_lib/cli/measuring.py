"""`vlp bench`, `vlp model` and `vlp doctor`: what a machine and a model take."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlp_lib.cli.options import SCALE, Commands, declare, declare_group, numbers
from vlp_lib.config import VARIANTS, CorpusConfig, parse_variant
from vlp_lib.errors import UserError


def add(commands: Commands) -> None:
    """Declare these commands."""
    bench = declare_group(commands, "bench", "what", "measure on this machine")
    inference = "inference time of ours, region pipelines and peers (random weights; smoke times miniatures)"
    speed = declare(bench, "speed", _bench_speed, inference, "profile")
    speed.add_argument("--image-size", type=int, default=600, metavar="PIXELS")
    speed.add_argument("--runs", type=int, default=5)
    speed.add_argument("--warmup", type=int, default=2)
    images = "images a second of one core: a plain loader, ours, and prepared images"
    loader = declare(bench, "loader", _bench_loader, images, "root", "profile", profile="paper")
    loader.add_argument("--images", type=int, default=48, help="of the sample (default: %(default)s)")
    loader.add_argument("--runs", type=int, default=7, help="passes of each loader (default: %(default)s)")
    throughput = "training throughput, where a step's time goes, memory, and the forecast"
    train = declare(bench, "train", _bench_train, throughput, *SCALE, "set")
    train.add_argument("--variants", default="naive_vit segl spl_large", help="separated by spaces")
    train.add_argument("--steps", type=int, default=20)
    train.add_argument("--warmup", type=int, default=5)
    train.add_argument("--output", type=Path, help="folder (default: bench/ among the results)")

    size = "parameters part by part and visual tokens; nothing is fetched"
    model = declare(commands, "model", _model, size, "profile", profile="paper")
    model.add_argument("--variant", default="", help="e.g. segl, or a mix such as segl+0.5*ssul (default: all eight)")
    model.add_argument("--image-sizes", default="384 600 800", help="pixels a side, separated by spaces")
    model.add_argument("--out", type=Path, help="also write architecture.csv and .md into this folder")

    estimate = "check the installation; estimate a pretraining's memory and time"
    doctor = declare(commands, "doctor", _doctor, estimate, *SCALE, "set")
    doctor.add_argument("--variant", default="segl")
    doctor.add_argument("--gpus", type=int, default=1, help="that share the batch")
    doctor.add_argument("--gpu-memory", type=float, metavar="GIB", help="of each (default: as found)")


def _bench_speed(options: argparse.Namespace) -> None:
    from vlp_lib.bench.latency import LATENCY, bench_speed
    from vlp_lib.figures.bench_tables import latency_table
    from vlp_lib.run import Layout
    from vlp_lib.study.scores import latency_note

    chosen = options.chosen
    folder = Layout(chosen.name).root / "speed"
    rows = bench_speed(chosen, options.image_size, options.runs, options.warmup, folder)
    print(latency_table(rows).drop(columns="note").to_string(index=False))
    print(latency_note(rows, chosen.speed.full_size), folder / LATENCY, sep="\n")


def _bench_loader(options: argparse.Namespace) -> None:
    from vlp_lib.bench.loader import LOADER, bench_loader
    from vlp_lib.corpora.opening import open_corpus
    from vlp_lib.io import read_text
    from vlp_lib.run import results_root

    folder = results_root() / "bench"
    corpus = open_corpus(options.root)
    bench_loader(corpus, options.chosen, options.images, options.runs, folder)
    print(read_text((folder / LOADER).with_suffix(".md")), folder, sep="\n")


def _bench_train(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from vlp_lib.bench.throughput import TRAIN, bench_train
    from vlp_lib.corpora.opening import open_corpus
    from vlp_lib.io import read_text
    from vlp_lib.run import Layout
    from vlp_lib.workspace import draw_corpus

    chosen = options.chosen
    folder = Layout(chosen.name, options.data_root).root / "bench"
    root = Path(options.data_root)
    if not options.data_root:
        # A loader's pace does not depend on how many images there are; a profile's own corpus may take hours to draw.
        few = CorpusConfig(train_images=256, val_images=16, test_images=16, nlvr_pairs=(4, 2, 2), vcr_images=(4, 2, 2))
        root = folder / f"corpus-{chosen.model.image_size}"
        draw_corpus(replace(chosen, corpus=few), root)
    output = options.output or folder
    variants = tuple(parse_variant(name, chosen.model.vision) for name in options.variants.split())
    bench_train(chosen, variants, open_corpus(root), options.steps, options.warmup, output)
    print(read_text((output / TRAIN).with_suffix(".md")), output / TRAIN, sep="\n")


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
