"""The console script `vlp`: the library's functions for a shell."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vlp_lib import __version__
from vlp_lib.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a failure the user can mend is one sentence on stderr and status 2."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(f"vlp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("vlp: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vlp", description="The vision language pretraining kit.")
    parser.add_argument("--version", action="version", version=f"vlp {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    reproduce = commands.add_parser("reproduce", help="run the graph of notebooks: every table and figure")
    _common(reproduce)
    reproduce.add_argument("--seeds", default="0 1 2", help="seeds, separated by spaces (default: %(default)s)")
    reproduce.add_argument("--variants", default="", help="variants, separated by spaces (default: all eight)")
    reproduce.add_argument(
        "--tasks",
        default=None,
        help="of vqa, nlvr2, vcr, retrieval, separated by spaces (default: those that the data has; '' runs none)",
    )
    reproduce.add_argument("--cores", type=int, default=None, help="stages at once (default: all cores)")
    reproduce.add_argument(
        "--workflow-profile",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="where stages run: e.g. a cluster's profile",
    )
    reproduce.add_argument("--until", default="", help="stop after this stage, e.g. pretrain")
    reproduce.set_defaults(run=_reproduce)

    pretrain = commands.add_parser("pretrain", help="pretrain one variant with one seed")
    _common(pretrain)
    pretrain.add_argument("--variant", required=True, help="e.g. segl, or a mix such as segl+0.5*ssul")
    pretrain.add_argument("--seed", type=int, default=0)
    pretrain.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="e.g. training.steps=100")
    pretrain.add_argument("--tensorboard", action="store_true", help="write the curves for TensorBoard, too")
    pretrain.set_defaults(run=_pretrain)

    finetune = commands.add_parser("finetune", help="finetune a pretrained variant on a task and score it")
    _common(finetune)
    finetune.add_argument("--task", required=True, help="vqa, nlvr2 or vcr")
    finetune.add_argument("--variant", required=True, help="as it was pretrained, e.g. segl")
    finetune.add_argument("--seed", type=int, default=0, help="of the pretraining and of the finetuning")
    finetune.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="e.g. downstream.allow_missing=0.1"
    )
    finetune.set_defaults(run=_finetune)

    evaluate = commands.add_parser("evaluate", help="score files of predictions by the official rules").add_subparsers(
        required=True, metavar="task"
    )
    evaluate_vqa = evaluate.add_parser("vqa", help="VQA accuracy")
    evaluate_vqa.add_argument("--questions", type=Path, required=True, help="the official questions JSON")
    evaluate_vqa.add_argument("--annotations", type=Path, required=True, help="the official annotations JSON")
    evaluate_vqa.add_argument("--results", type=Path, required=True, help="a JSON list of question_id and answer")
    evaluate_vqa.set_defaults(run=_evaluate_vqa)
    evaluate_nlvr2 = evaluate.add_parser("nlvr2", help="NLVR2 accuracy and consistency")
    evaluate_nlvr2.add_argument("--data", type=Path, required=True, help="the official JSON lines, e.g. dev.json")
    evaluate_nlvr2.add_argument("--predictions", type=Path, required=True, help="a CSV of identifier,label")
    evaluate_nlvr2.set_defaults(run=_evaluate_nlvr2)
    evaluate_retrieval = evaluate.add_parser("retrieval", help="R@1, R@5 and R@10 both ways")
    evaluate_retrieval.add_argument("--scores", type=Path, required=True, help="a .npy matrix, images × captions")
    evaluate_retrieval.add_argument("--captions", type=Path, required=True, help="a COCO captions JSON")
    evaluate_retrieval.set_defaults(run=_evaluate_retrieval)

    run = commands.add_parser("run", help="execute one notebook with checked parameters")
    run.add_argument("notebook", type=Path)
    run.add_argument("output", type=Path)
    run.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE")
    run.set_defaults(run=_run)

    index = commands.add_parser("index", help="one page with every figure and table of a profile")
    index.add_argument("folder", type=Path, help="e.g. results/tiny")
    index.set_defaults(run=_index)

    bench = commands.add_parser("bench", help="measure on this machine").add_subparsers(required=True, metavar="what")
    speed = bench.add_parser("speed", help="inference time of ours, region pipelines and peers (random weights)")
    speed.add_argument("--profile", default="tiny", help="smoke times miniatures; others the paper's architecture")
    speed.add_argument("--image-size", type=int, default=600, metavar="PIXELS")
    speed.add_argument("--runs", type=int, default=5)
    speed.add_argument("--warmup", type=int, default=2)
    speed.set_defaults(run=_bench_speed)
    loader = bench.add_parser("loader", help="images a second of one core: a plain loader, ours, and prepared images")
    loader.add_argument("--root", type=Path, required=True, help="a data set, e.g. COCO")
    loader.add_argument("--profile", default="paper", help="whose image size and augmentation (default: %(default)s)")
    loader.add_argument("--images", type=int, default=48, help="of the sample (default: %(default)s)")
    loader.add_argument("--runs", type=int, default=7, help="passes of each loader (default: %(default)s)")
    loader.set_defaults(run=_bench_loader)

    model = commands.add_parser("model", help="parameters part by part and visual tokens; nothing is fetched")
    model.add_argument("--profile", default="paper", help="scale: smoke, tiny, gpu or paper (default: %(default)s)")
    model.add_argument("--variant", default="", help="e.g. segl, or a mix such as segl+0.5*ssul (default: all eight)")
    model.add_argument("--image-sizes", default="384 600 800", help="pixels a side, separated by spaces")
    model.add_argument("--out", type=Path, default=None, help="also write architecture.csv and .md into this folder")
    model.set_defaults(run=_model)

    export = commands.add_parser("export", help="a finished run's model in the hub's format, with a model card")
    export.add_argument("source", type=Path, metavar="run", help="e.g. results/tiny/pretrain/segl/seed0")
    export.add_argument(
        "target", type=Path, metavar="folder", help="where to; then e.g. `hf upload someone/name FOLDER`"
    )
    export.set_defaults(run=_export)

    train = bench.add_parser("train", help="training throughput, where a step's time goes, memory, and the forecast")
    _common(train)
    train.add_argument("--variants", default="naive_vit segl spl_large", help="separated by spaces")
    train.add_argument("--steps", type=int, default=20)
    train.add_argument("--warmup", type=int, default=5)
    train.add_argument("--output", type=Path, default=None, help="folder (default: bench/ among the results)")
    train.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="e.g. training.compile=false")
    train.set_defaults(run=_bench_train)

    doctor = commands.add_parser("doctor", help="check the installation; estimate a pretraining's memory and time")
    _common(doctor)
    doctor.add_argument("--variant", default="segl")
    doctor.add_argument("--gpus", type=int, default=1, help="that share the batch")
    doctor.add_argument("--gpu-memory", type=float, default=None, metavar="GIB", help="of each (default: as found)")
    doctor.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="e.g. training.accumulation=2"
    )
    doctor.set_defaults(run=_doctor)

    publish = commands.add_parser("publish", help="copy what of a profile's results may be shared")
    publish.add_argument("source", type=Path, help="e.g. results/tiny")
    publish.add_argument("target", type=Path, help="e.g. results/reference/tiny")
    publish.set_defaults(run=_publish)

    data = commands.add_parser("data", help="draw the embedded corpus, or check a data set").add_subparsers(
        required=True, metavar="action"
    )
    synthesize = data.add_parser("synthesize", help="draw a profile's embedded corpus")
    synthesize.add_argument("--profile", default="tiny")
    synthesize.add_argument("--root", type=Path, default=None, help="folder (default: results/<profile>/corpus)")
    synthesize.set_defaults(run=_synthesize)
    check = data.add_parser("check", help="what a data set has, what is missing, and where to get it")
    check.add_argument("--root", type=Path, required=True, metavar="DIR", help="one data set, or several below it")
    check.add_argument("--write-splits", action="store_true", help="write the split lists into DIR/splits")
    check.set_defaults(run=_check)
    prepare = data.add_parser("prepare", help="decode and resize a data set's images once, for fast loading")
    prepare.add_argument("--root", type=Path, required=True)
    prepare.add_argument("--profile", default="paper", help="whose image size and augmentation (default: %(default)s)")
    prepare.add_argument("--out", type=Path, default=None, help="folder (default: <root>/prepared/<image size>)")
    prepare.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    prepare.set_defaults(run=_prepare)
    labels = data.add_parser("labels", help="label a data set's images with a detector, or import a Bottom-Up TSV")
    labels.add_argument("--root", type=Path, default=None, help="the data set to label or to put the TSV's labels into")
    labels.add_argument("--out", type=Path, default=None, help="the npz (default: <root>/detections_<detector>.npz)")
    labels.add_argument("--tsv", type=Path, default=None, help="import this Bottom-Up or LXMERT file")
    labels.add_argument("--features", action="store_true", help="import its region features as well (8 KB a box)")
    labels.add_argument("--detector", default="", help="of torchvision (default: fasterrcnn_resnet50_fpn_v2)")
    labels.add_argument("--weights", default="", help="a checkpoint of the detector (default: COCO's, downloaded)")
    labels.add_argument("--most", type=int, default=100, help="labels an image (default: %(default)s)")
    labels.add_argument("--threshold", type=float, default=None, help="lowest score (default: 0.05; of a TSV: 0)")
    labels.add_argument("--short-side", type=int, default=800, metavar="PIXELS", help="for the detector")
    labels.add_argument("--shard", default="", metavar="I/N", help="this process's share (default: torchrun's)")
    labels.add_argument("--batch-size", type=int, default=8)
    labels.add_argument("--workers", type=int, default=4, help="processes that decode (default: %(default)s)")
    labels.set_defaults(run=_labels)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="tiny", help="scale: smoke, tiny, gpu or paper (default: %(default)s)")
    parser.add_argument("--data-root", default="", help="a data set in its official layout (default: embedded corpus)")


def _numbers(text: str, name: str) -> list[int]:
    try:
        return [int(word) for word in text.split()]
    except ValueError:
        raise UserError(f"--{name} {text!r} are no whole numbers: write e.g. --{name} '0 1 2'") from None


def _reproduce(options: argparse.Namespace) -> None:
    from vlp_lib.config import VARIANTS, parse_variant, profile
    from vlp_lib.runner import run_graph

    profile(options.profile)
    variants = options.variants.split() or list(VARIANTS)
    for name in variants:
        parse_variant(name)
    seeds = _numbers(options.seeds, "seeds")
    data_root = str(Path(options.data_root).resolve()) if options.data_root else ""
    targets = [options.until] if options.until else []
    tasks = _tasks(options.tasks, options.data_root)
    cores = options.cores or (None if options.workflow_profile else os.cpu_count() or 1)
    run_graph(
        options.profile, seeds, data_root, variants, tasks, cores, targets, workflow_profile=options.workflow_profile
    )


def _tasks(asked: str | None, data_root: str) -> list[str]:
    """The tasks that the graph runs: those asked for, else those that the data has; says which it leaves out."""
    from vlp_lib.corpora.opening import open_corpus
    from vlp_lib.tasks import RETRIEVAL, TASKS, check_task, tasks_of

    everything = [*TASKS, RETRIEVAL]
    if asked is not None:
        return [name if name == RETRIEVAL else check_task(name) for name in asked.split()]
    if not data_root:
        return everything
    found = tasks_of(open_corpus(Path(data_root)))
    if left := [name for name in everything if name not in found]:
        print(f"{data_root} has no data for {', '.join(left)}: left out of the graph")
    return found


def _pretrain(options: argparse.Namespace) -> None:
    from vlp_lib.config import override, parse_variant, profile
    from vlp_lib.distributed import leave
    from vlp_lib.runner import parse_parameter
    from vlp_lib.trainers.pretrain import pretrain
    from vlp_lib.workspace import open_workspace

    settings = override(profile(options.profile), dict(parse_parameter(text) for text in options.set))
    variant = parse_variant(options.variant)
    workspace = open_workspace(options.profile, options.data_root)
    folder = workspace.layout.run("pretrain", variant.name, options.seed)
    pretrain(settings, variant, workspace.corpus, options.seed, folder, tensorboard=options.tensorboard)
    leave()


def _finetune(options: argparse.Namespace) -> None:
    from vlp_lib.config import override, parse_variant, profile
    from vlp_lib.distributed import is_main, leave
    from vlp_lib.runner import parse_parameter
    from vlp_lib.tasks import check_task
    from vlp_lib.trainers.finetune import finetune
    from vlp_lib.workspace import open_workspace

    settings = override(profile(options.profile), dict(parse_parameter(text) for text in options.set))
    variant, task = parse_variant(options.variant), check_task(options.task)
    workspace = open_workspace(options.profile, options.data_root)
    pretrained = workspace.layout.run("pretrain", variant.name, options.seed)
    folder = workspace.layout.run(f"finetune-{task}", variant.name, options.seed)
    done = finetune(settings, task, variant, workspace.corpus, options.seed, pretrained, folder)
    if is_main():
        _print_json(done.scores)
    leave()


def _evaluate_vqa(options: argparse.Namespace) -> None:
    from vlp_lib.tasks.by_file import score_vqa

    _print_json(score_vqa(options.questions, options.annotations, options.results))


def _evaluate_nlvr2(options: argparse.Namespace) -> None:
    from vlp_lib.tasks.by_file import score_nlvr2

    _print_json(score_nlvr2(options.data, options.predictions))


def _evaluate_retrieval(options: argparse.Namespace) -> None:
    from vlp_lib.tasks.by_file import score_retrieval

    _print_json(score_retrieval(options.scores, options.captions))


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _run(options: argparse.Namespace) -> None:
    from vlp_lib.runner import execute, parse_parameter

    execute(options.notebook, options.output, dict(parse_parameter(text) for text in options.parameter))


def _index(options: argparse.Namespace) -> None:
    from vlp_lib.figures.index import write_index

    print(write_index(options.folder))


def _bench_speed(options: argparse.Namespace) -> None:
    from vlp_lib.bench.latency import LATENCY, bench_speed
    from vlp_lib.config import profile
    from vlp_lib.figures.speed import latency_table
    from vlp_lib.run import Layout
    from vlp_lib.study.scores import latency_note

    chosen = profile(options.profile)
    folder = Layout(options.profile).root / "speed"
    rows = bench_speed(chosen, options.image_size, options.runs, options.warmup, folder)
    print(latency_table(rows).drop(columns="note").to_string(index=False))
    print(latency_note(rows, chosen.speed.full_size), folder / LATENCY, sep="\n")


def _bench_train(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from vlp_lib.bench.throughput import TRAIN, bench_train
    from vlp_lib.config import CorpusConfig, override, parse_variant, profile
    from vlp_lib.corpora.opening import open_corpus
    from vlp_lib.run import Layout
    from vlp_lib.runner import parse_parameter
    from vlp_lib.workspace import draw_corpus

    chosen = override(profile(options.profile), dict(parse_parameter(text) for text in options.set))
    variants = tuple(parse_variant(name) for name in options.variants.split())
    folder = Layout(options.profile, options.data_root).root / "bench"
    root = Path(options.data_root)
    if not options.data_root:
        # A loader's pace does not depend on how many images there are; a profile's own corpus may take hours to draw.
        few = CorpusConfig(train_images=256, val_images=16, test_images=16, nlvr_pairs=(4, 2, 2), vcr_images=(4, 2, 2))
        root = folder / f"corpus-{chosen.model.image_size}"
        draw_corpus(replace(chosen, corpus=few), root)
    output = options.output or folder
    bench_train(chosen, variants, open_corpus(root), options.steps, options.warmup, output)
    print((output / f"{TRAIN}.md").read_text(encoding="utf-8"), output / f"{TRAIN}.json", sep="\n")


def _doctor(options: argparse.Namespace) -> None:
    from vlp_lib.bench.forecast import PAPER_PAIRS
    from vlp_lib.checks import doctor
    from vlp_lib.config import override, parse_variant, profile
    from vlp_lib.corpora.opening import open_corpus
    from vlp_lib.run import results_root
    from vlp_lib.runner import parse_parameter

    chosen = override(profile(options.profile), dict(parse_parameter(text) for text in options.set))
    variant = parse_variant(options.variant)
    packages = doctor.check_packages()
    print("\n".join(str(check) for check in packages if not check.fine) or f"ok  {len(packages)} packages", flush=True)
    if not all(check.fine for check in packages):
        raise UserError("the installation is not whole (see above): mend it before a long run")
    pairs = PAPER_PAIRS if chosen.name == "paper" else 5 * chosen.corpus.train_images
    if options.data_root:
        pairs = sum(len(record.captions) for record in open_corpus(Path(options.data_root)).split("train"))
    memory = None if options.gpu_memory is None else options.gpu_memory * 2**30
    found = doctor.estimate(chosen, variant, pairs, options.gpus, memory)
    machine = doctor.check_machine(results_root(), doctor.checkpoint_bytes(found.parameters, chosen.training.keep))
    print("\n".join(map(str, machine)), doctor.report(found, chosen, variant), sep="\n")
    if not all(check.fine for check in machine):
        raise UserError("this machine is not ready for the run (see above)")


def _model(options: argparse.Namespace) -> None:
    from vlp_lib.bench.architecture import describe
    from vlp_lib.config import VARIANTS, parse_variant, profile
    from vlp_lib.figures.architecture import architecture_note, architecture_table
    from vlp_lib.figures.style import save_table

    chosen, sizes = profile(options.profile), _numbers(options.image_sizes, "image-sizes")
    variants = [parse_variant(name) for name in ([options.variant] if options.variant else VARIANTS)]
    table = architecture_table([describe(chosen.model, variant, sizes) for variant in variants])
    note = architecture_note(chosen.name)
    print(table.to_string(index=False), note, sep="\n")
    if options.out:
        print(save_table(table, options.out, "architecture", note))


def _export(options: argparse.Namespace) -> None:
    from vlp_lib.hub.model import export

    print(export(options.source, options.target))


def _bench_loader(options: argparse.Namespace) -> None:
    from vlp_lib.bench.loader import TARGET, bench_loader
    from vlp_lib.config import profile
    from vlp_lib.corpora.opening import open_corpus
    from vlp_lib.figures.loading import loader_table
    from vlp_lib.figures.style import markdown
    from vlp_lib.io import write_text
    from vlp_lib.run import results_root

    folder = results_root() / "bench"
    corpus = open_corpus(options.root, allow_missing=1.0)
    table = loader_table(bench_loader(corpus, profile(options.profile), options.images, options.runs, folder), TARGET)
    write_text(folder / "loader.csv", table.to_csv(index=False))
    write_text(folder / "loader.md", markdown(table))
    print(table.to_string(index=False), folder, sep="\n")


def _publish(options: argparse.Namespace) -> None:
    from vlp_lib.study.publish import publish

    print(f"{len(publish(options.source, options.target))} files in {options.target}")


def _synthesize(options: argparse.Namespace) -> None:
    from vlp_lib.config import profile
    from vlp_lib.run import Layout
    from vlp_lib.workspace import draw_corpus

    chosen = profile(options.profile)
    root = options.root or Layout(options.profile).corpus
    print(f"{root}  {draw_corpus(chosen, root)}")


def _check(options: argparse.Namespace) -> None:
    from vlp_lib.checks.folder import check

    print(check(options.root, splits=options.write_splits))


def _prepare(options: argparse.Namespace) -> None:
    from vlp_lib.config import profile
    from vlp_lib.corpora.opening import open_corpus
    from vlp_lib.corpora.prepared import prepare

    chosen = profile(options.profile)
    corpus = open_corpus(options.root, allow_missing=1.0)
    out = options.out.resolve() if options.out else None
    print(prepare(corpus, chosen.model.image_size, chosen.data.resize, out, options.workers))
    if out:
        print(f"train with --set data.prepared={out}")


def _labels(options: argparse.Namespace) -> None:
    from vlp_lib.corpora.labels import (
        LabelConfig,
        device_of_process,
        import_tsv,
        label_images,
        load_detector,
        parse_shard,
    )
    from vlp_lib.corpora.opening import open_corpus

    if options.root is None and (options.tsv is None or options.out is None):
        raise UserError("nothing says where the labels belong: give --root, or --tsv and --out")
    default = LabelConfig()
    if options.tsv is not None:
        path = options.out or options.root / f"detections_{options.tsv.stem}.npz"
        print(import_tsv(options.tsv, path, options.most, options.threshold or 0.0, options.features))
        return
    config = LabelConfig(
        options.detector or default.detector,
        options.weights,
        options.most,
        default.threshold if options.threshold is None else options.threshold,
        options.short_side,
    )
    shard = parse_shard(options.shard)
    corpus = open_corpus(options.root, allow_missing=1.0)
    path = options.out or options.root / f"detections_{config.detector}.npz"
    detector = load_detector(config, device_of_process())
    print(label_images(corpus, detector, path, shard, options.batch_size, options.workers))


if __name__ == "__main__":
    sys.exit(main())
