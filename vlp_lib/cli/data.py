"""`vlp data`: draw the embedded corpus, or check, divide and label a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlp_lib.cli.options import Commands, declare, declare_group
from vlp_lib.errors import UserError


def add(commands: Commands) -> None:
    """Declare these commands."""
    data = declare_group(commands, "data", "action", "draw the embedded corpus, or check a data set")
    synthesize = declare(data, "synthesize", _synthesize, "draw a profile's embedded corpus", "profile", "set")
    synthesize.add_argument("--root", type=Path, help="folder (default: results/<profile>/corpus)")
    check = declare(data, "check", _check, "what a data set has, what is missing, and where to get it", "root")
    check.add_argument("--write-splits", action="store_true", help="write the split lists into DIR/splits")
    parts = "divide the images that no split divides well into train, val and test"
    split = declare(data, "split", _split, parts, "root")
    split.add_argument("--seed", type=int, default=0, help="of the draw (default: %(default)s)")
    labels = declare(data, "labels", _labels, "label a data set's images with a detector, or import a Bottom-Up TSV")
    labels.add_argument("--root", type=Path, help="the data set to label or to put the TSV's labels into")
    labels.add_argument("--out", type=Path, help="the npz (default: <root>/detections_<detector>.npz)")
    labels.add_argument("--tsv", type=Path, help="import this Bottom-Up or LXMERT file")
    labels.add_argument("--detector", default="", help="of torchvision (default: fasterrcnn_resnet50_fpn_v2)")
    labels.add_argument("--weights", default="", help="a checkpoint of the detector (default: COCO's, downloaded)")
    labels.add_argument("--most", type=int, default=100, help="labels an image (default: %(default)s)")
    labels.add_argument("--threshold", type=float, help="lowest score (default: 0.05; of a TSV: 0)")
    labels.add_argument("--short-side", type=int, default=800, metavar="PIXELS", help="for the detector")
    labels.add_argument("--shard", default="", metavar="I/N", help="this process's share (default: torchrun's)")
    labels.add_argument("--batch-size", type=int, default=8)
    labels.add_argument("--workers", type=int, default=4, help="processes that decode (default: %(default)s)")


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
