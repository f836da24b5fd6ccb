"""`vlp pretrain`, `vlp finetune`, and `vlp evaluate`: official scores of files of predictions."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlp_lib.cli.options import SCALE, Commands, declare, declare_group, print_json, run_of

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
