"""Scores of a user's own files, each as one dictionary ready for JSON: what `vlp evaluate` prints.

Scores are in percent, rounded to six decimals. Every file at fault is a UserError that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlp_lib.errors import UserError, reason
from vlp_lib.tasks import naming, percent
from vlp_lib.tasks import nlvr2_score as nlvr2
from vlp_lib.tasks import recalls as retrieval
from vlp_lib.tasks import vqa_accuracy as vqa

FOLD = 1000
"""Images of a COCO 1k fold."""


def score_vqa(questions: Path, annotations: Path, results: Path) -> dict[str, Any]:
    """The official VQA accuracy: overall, per answer type and per question type.

    Args:
        questions, annotations: the official files of one split.
        results: a list of {"question_id", "answer"}, as the test server takes it.
    """
    _, answered = vqa.read_annotated(questions, annotations)
    predictions = vqa.read_results(results)
    with naming(results, annotations):
        return vqa.vqa_accuracy(predictions, answered)


def score_nlvr2(data: Path, predictions: Path) -> dict[str, Any]:
    """The official NLVR2 accuracy and consistency.

    Args:
        data: the official JSON lines of a split with labels.
        predictions: identifier,label on each line.
    """
    examples, predicted = nlvr2.read_examples(data), nlvr2.read_predictions(predictions)
    with naming(predictions, data):
        return nlvr2.nlvr2_score(predicted, examples)


def score_retrieval(scores: Path, captions: Path) -> dict[str, Any]:
    """R@1, R@5 and R@10 of text and image retrieval; for several thousand images also the mean of folds of 1,000.

    Args:
        scores: .npy, float32 or float64 [images, captions]: rows in the order of the file's images, columns in the
            order of its annotations, either all of them or the first five of each image.
        captions: a COCO captions JSON.
    """
    matrix, (images, image_index) = _read_scores(scores), retrieval.read_captions(captions)
    with naming(scores, captions):
        owners = image_index[retrieval.columns_of(images, image_index, matrix.shape)]
        found = retrieval.all_recalls(matrix, owners, FOLD)
    report = {"task": "retrieval", "unit": "percent", **_recalls(found["all"])}
    if "folds" in found:
        report["mean_of_folds"] = {"folds": len(matrix) // FOLD, **_recalls(found["folds"])}
    return report


def _read_scores(path: Path) -> np.ndarray:
    try:
        # Mapped, for COCO 5k's matrix takes half a gigabyte; pickles could run code.
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"no such file: {path}; check the path") from None
    except Exception as error:  # Python's own parser reads the header
        raise UserError(f"{path} is no .npy array ({reason(error)}): save the scores with numpy.save") from error
    if not isinstance(matrix, np.ndarray):
        raise UserError(f"{path} is an archive of arrays: save the scores alone, with numpy.save")
    return matrix


def _recalls(found: Mapping[str, float]) -> dict[str, Any]:
    return {
        "text_retrieval": {f"R@{k}": percent(found[f"text_r{k}"]) for k in retrieval.CUTOFFS},
        "image_retrieval": {f"R@{k}": percent(found[f"image_r{k}"]) for k in retrieval.CUTOFFS},
        "images": found["images"],
        "captions": found["captions"],
    }
