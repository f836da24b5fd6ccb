"""`vlp evaluate`: official scores of files of predictions."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlp_lib.cli.options import Commands, print_json


def add(commands: Commands) -> None:
    """Declare these commands."""
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


def _evaluate_vqa(options: argparse.Namespace) -> None:
    from vlp_lib.tasks.by_file import score_vqa

    print_json(score_vqa(options.questions, options.annotations, options.results))


def _evaluate_nlvr2(options: argparse.Namespace) -> None:
    from vlp_lib.tasks.by_file import score_nlvr2

    print_json(score_nlvr2(options.data, options.predictions))


def _evaluate_retrieval(options: argparse.Namespace) -> None:
    from vlp_lib.tasks.by_file import score_retrieval

    print_json(score_retrieval(options.scores, options.captions))
