"""The commands that are a call of the library each: training, scoring, data, measurements, results to share.

What takes long to import is imported where it is called, after the words of the command have been checked.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from vlp_lib.cli.options import SCALE, Commands, declare, declare_group, numbers, print_json, run_of
from vlp_lib.config import CorpusConfig
from vlp_lib.errors import UserError
from vlp_lib.variants import VARIANTS, parse_variant

_RUN = (*SCALE, "variant", "seed", "set", "name")


def add(commands: Commands) -> None:
    """Declare these commands."""
    pretrain = declare(commands, "pretrain", _pretrain, "pretrain one variant with one seed", *_RUN)
    pretrain.add_argument("--tensorboard", action="store_true", help="write the curves for TensorBoard, too")
    finetune = declare(commands, "finetune", _finetune, "finetune a pretrained variant on a task and score it", *_RUN)
    finetune.add_argument("--task", required=True, help="vqa, nlvr2 or vcr")

    evaluate = declare_group(commands, "evaluate", "task", "score files of predictions by the official rules")
    vqa = declare(evaluate, "vqa", _evaluate_vqa, "VQA accuracy")
    vqa.add_argument("--questions", type=Path, required=True, help="the official questions JSON")
    vqa.add_argument("--annotations", type=Path, required=True, help="the official annotations JSON")
    vqa.add_argument("--results", type=Path, required=True, help="a JSON list of question_id and answer")
    nlvr2 = declare(evaluate, "nlvr2", _evaluate_nlvr2, "NLVR2 accuracy and consistency")
    nlvr2.add_argument("--data", type=Path, required=True, help="the official JSON lines, e.g. dev.json")
    nlvr2.add_argument("--predictions", type=Path, required=True, help="a CSV of identifier,label")
    retrieval = declare(evaluate, "retrieval", _evaluate_retrieval, "R@1, R@5 and R@10 both ways")
    retrieval.add_argument("--scores", type=Path, required=True, help="a .npy matrix, images × captions")
    retrieval.add_argument("--captions", type=Path, required=True, help="a COCO captions JSON")

    data = declare_group(commands, "data", "action", "draw the embedded corpus, or check a data set")
    synthesize = declare(data, "synthesize", _synthesize, "draw a profile's embedded corpus", "profile", "set")
    synthesize.add_argument("--root", type=Path, help="folder (default: the profile's own in results/)")
    check = declare(data, "check", _check, "what a data set has, what is missing, and where to get it", "root")
    check.add_argument("--write-splits", action="store_true", help="write the split lists into DIR/splits")
    parts = "divide the images that no split divides well into train, val and test"
    split = declare(data, "split", _split, parts, "root")
    split.add_argument("--seed", type=int, default=0, help="seed of the draw (default: %(default)s)")
    labels = declare(data, "labels", _labels, "label a data set's images with a detector, or import a Bottom-Up TSV")
    labels.add_argument("--root", type=Path, help="the data set to label or to put the TSV's labels into")
    labels.add_argument("--out", type=Path, help="the npz (default: <root>/detections_<detector or TSV>.npz)")
    labels.add_argument("--tsv", type=Path, help="import this Bottom-Up or LXMERT file")
    labels.add_argument("--detector", default="", help="one of torchvision's (default: fasterrcnn_resnet50_fpn_v2)")
    labels.add_argument("--weights", default="", help="a checkpoint of the detector (default: COCO's, downloaded)")
    labels.add_argument("--most", type=int, default=100, help="the most labels of an image (default: %(default)s)")
    labels.add_argument("--threshold", type=float, help="lowest score (default: 0.05; of a TSV: 0)")
    labels.add_argument("--short-side", type=int, default=800, metavar="PIXELS", help="that the detector sees")
    labels.add_argument("--shard", default="", metavar="I/N", help="this process's share (default: torchrun's)")
    labels.add_argument("--batch-size", type=int, default=8)
    labels.add_argument("--workers", type=int, default=4, help="processes that decode (default: %(default)s)")

    ratios = "one table: how many times faster than what one would pick instead (CSV, Markdown, figure)"
    bench = declare(commands, "bench", _bench, ratios, *SCALE, "set")
    bench.add_argument("--only", nargs="+", default=[], metavar="ROW", help="e.g. training_step (default: quick ones)")
    bench.add_argument("--device", choices=("cpu", "cuda"), metavar="cpu|cuda", help="default: a GPU if there is one")
    bench.add_argument("--runs", type=int, default=7, help="the most runs of a row (default: %(default)s)")

    size = "parameters part by part and visual tokens; nothing is fetched"
    model = declare(commands, "model", _model, size, "profile", profile="paper")
    model.add_argument("--variant", default="", help="e.g. segl, or a mix such as segl+0.5*ssul (default: all eight)")
    model.add_argument("--image-sizes", default="384 600 800", help="pixels a side, separated by spaces")
    model.add_argument("--out", type=Path, help="also write architecture.csv and .md into this folder")
    model.add_argument("--draw", type=Path, metavar="FILE", help="also draw the (first) variant, an SVG")

    estimate = "check the installation; estimate a pretraining's memory and time"
    doctor = declare(commands, "doctor", _doctor, estimate, *SCALE, "set")
    doctor.add_argument("--variant", default="segl")
    doctor.add_argument("--gpus", type=int, default=1, help="number of GPUs that share the batch")
    doctor.add_argument("--gpu-memory", type=float, metavar="GIB", help="memory of each GPU (default: as found)")

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


def _pretrain(options: argparse.Namespace) -> None:
    run = run_of(options).at("pretrain")
    from vlp_lib.distributed import leave
    from vlp_lib.trainers.pretrain import pretrain
    from vlp_lib.workspace import open_run_corpus

    pretrain(run, open_run_corpus(run), tensorboard=options.tensorboard)
    leave()


def _finetune(options: argparse.Namespace) -> None:
    run = run_of(options).at(f"finetune-{options.task}")
    from vlp_lib.distributed import is_main, leave
    from vlp_lib.trainers.finetune import finetune
    from vlp_lib.workspace import open_run_corpus

    done = finetune(run, options.task, open_run_corpus(run))
    if is_main():
        print_json(done.scores)
    leave()


def _evaluate_vqa(options: argparse.Namespace) -> None:
    from vlp_lib.tasks.by_file import score_vqa

    print_json(score_vqa(options.questions, options.annotations, options.results))


def _evaluate_nlvr2(options: argparse.Namespace) -> None:
    from vlp_lib.tasks.by_file import score_nlvr2

    print_json(score_nlvr2(options.data, options.predictions))


def _evaluate_retrieval(options: argparse.Namespace) -> None:
    from vlp_lib.tasks.by_file import score_retrieval

    print_json(score_retrieval(options.scores, options.captions))


def _synthesize(options: argparse.Namespace) -> None:
    from vlp_lib.run import Layout
    from vlp_lib.workspace import draw_corpus

    root = options.root or Layout(options.profile).corpus(options.chosen)
    print(f"{root}  {draw_corpus(options.chosen, root)}")


def _check(options: argparse.Namespace) -> None:
    from vlp_lib.checks.folder import check

    print(check(options.root, splits=options.write_splits))


def _split(options: argparse.Namespace) -> None:
    from vlp_lib.corpora.opening import open_corpus
    from vlp_lib.corpora.split import write_division

    corpus = open_corpus(options.root)
    if corpus.division is None:
        counts = ", ".join(f"{count:,} {name}" for name, count in corpus.report.images.items())
        raise UserError(f"{options.root} is divided already ({counts}), and that split is used: there is nothing to do")
    print(write_division(options.root, corpus.records, options.seed))


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
        print(import_tsv(options.tsv, path, options.most, options.threshold or 0.0))
        return
    config = LabelConfig(
        options.detector or default.detector,
        options.weights,
        options.most,
        default.threshold if options.threshold is None else options.threshold,
        options.short_side,
    )
    shard = parse_shard(options.shard)
    corpus = open_corpus(options.root)
    path = options.out or options.root / f"detections_{config.detector}.npz"
    detector = load_detector(config, device_of_process())
    print(label_images(corpus, detector, path, shard, options.batch_size, options.workers))


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
