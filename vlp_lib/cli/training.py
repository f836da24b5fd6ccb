"""`vlp pretrain` and `vlp finetune`."""

from __future__ import annotations

import argparse

from vlp_lib.cli.options import Commands, common, print_json, settings
from vlp_lib.config import parse_variant


def add(commands: Commands) -> None:
    """Declare these commands."""
    pretrain = commands.add_parser("pretrain", help="pretrain one variant with one seed")
    common(pretrain)
    pretrain.add_argument("--variant", required=True, help="e.g. segl, or a mix such as segl+0.5*ssul")
    pretrain.add_argument("--seed", type=int, default=0)
    settings(pretrain, "training.steps=100")
    pretrain.add_argument("--tensorboard", action="store_true", help="write the curves for TensorBoard, too")
    pretrain.set_defaults(run=_pretrain)

    finetune = commands.add_parser("finetune", help="finetune a pretrained variant on a task and score it")
    common(finetune)
    finetune.add_argument("--task", required=True, help="vqa, nlvr2 or vcr")
    finetune.add_argument("--variant", required=True, help="as it was pretrained, e.g. segl")
    finetune.add_argument("--seed", type=int, default=0, help="of the pretraining and of the finetuning")
    settings(finetune, "downstream.allow_missing=0.1")
    finetune.set_defaults(run=_finetune)


def _pretrain(options: argparse.Namespace) -> None:
    from vlp_lib.distributed import leave
    from vlp_lib.trainers.pretrain import pretrain
    from vlp_lib.workspace import open_workspace

    workspace = open_workspace(options.profile, options.data_root)
    folder = workspace.layout.run("pretrain", options.variant, options.seed)
    pretrain(
        options.chosen,
        parse_variant(options.variant),
        workspace.corpus,
        options.seed,
        folder,
        tensorboard=options.tensorboard,
    )
    leave()


def _finetune(options: argparse.Namespace) -> None:
    from vlp_lib.distributed import is_main, leave
    from vlp_lib.trainers.finetune import finetune
    from vlp_lib.workspace import open_workspace

    workspace = open_workspace(options.profile, options.data_root)
    pretrained = workspace.layout.run("pretrain", options.variant, options.seed)
    folder = workspace.layout.run(f"finetune-{options.task}", options.variant, options.seed)
    done = finetune(
        options.chosen, options.task, parse_variant(options.variant), workspace.corpus, options.seed, pretrained, folder
    )
    if is_main():
        print_json(done.scores)
    leave()
