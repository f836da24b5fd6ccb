"""`vlp pretrain` and `vlp finetune`."""

from __future__ import annotations

import argparse

from vlp_lib.cli.options import Commands, common, print_json, run_of, settings


def add(commands: Commands) -> None:
    """Declare these commands."""
    pretrain = commands.add_parser("pretrain", help="pretrain one variant with one seed")
    common(pretrain)
    pretrain.add_argument("--variant", required=True, help="e.g. segl, or a mix such as segl+0.5*ssul")
    pretrain.add_argument("--seed", type=int, default=0)
    settings(pretrain, "training.steps=100")
    pretrain.add_argument("--name", default="", help="of the run, e.g. of an ablation (default: the variant)")
    pretrain.add_argument("--tensorboard", action="store_true", help="write the curves for TensorBoard, too")
    pretrain.set_defaults(run=_pretrain)

    finetune = commands.add_parser("finetune", help="finetune a pretrained variant on a task and score it")
    common(finetune)
    finetune.add_argument("--task", required=True, help="vqa, nlvr2 or vcr")
    finetune.add_argument("--variant", required=True, help="as it was pretrained, e.g. segl")
    finetune.add_argument("--seed", type=int, default=0, help="of the pretraining and of the finetuning")
    settings(finetune, "downstream.allow_missing=0.1")
    finetune.add_argument("--name", default="", help="of the pretraining, whose settings are taken with it")
    finetune.set_defaults(run=_finetune)


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
