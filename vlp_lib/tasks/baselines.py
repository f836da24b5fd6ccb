"""What can be scored without a look at the picture: the floor that a task's scores are read against."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np

from vlp_lib.tasks.common import NO_TARGET, TaskData, TaskSplit


def baselines(data: TaskData[Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Scores in percent, by rule, split ("val", "test") and metric, of two rules learned from the training labels.

    "guessing" says the commonest class. "question only" says the commonest class of the same text, and of a text that
    training does not have, of those that begin with its first two words.
    """
    train = data.train
    votes: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for item in train.items:
        if (label := train.label(item)) != NO_TARGET:
            for key in _keys(item):
                votes[key][label] += 1
    rules = {"guessing": slice(2, None), "question only": slice(None)}
    found: dict[str, dict[str, dict[str, float]]] = {rule: {} for rule in rules}
    for rule, part in rules.items():
        for split in (data.val, data.test):
            if split is not None and split.labelled:
                found[rule][split.name] = _scores(split, votes, part)
    return found


def _keys(item: Any) -> tuple[str, str, str]:
    """What training items may share with an item, the closest first; "" is shared by all."""
    text = " ".join(item.texts()[0])
    return text, " ".join(text.split()[:2]), ""


def _scores(split: TaskSplit[Any], votes: dict[str, Counter[int]], part: slice) -> dict[str, float]:
    classes = [
        next(votes[key].most_common(1)[0][0] for key in _keys(item)[part] if votes.get(key)) for item in split.items
    ]
    scores = split.scores_of_questions(split.deciding(np.array(classes, np.int64)))
    return {metric: round(float(values.mean()), 4) for metric, values in scores.items()}
