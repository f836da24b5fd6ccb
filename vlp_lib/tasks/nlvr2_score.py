"""NLVR2: the official files, accuracy and consistency (lil-lab/nlvr, `nlvr2/eval/metrics.py`; section IV-B2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlp_lib.errors import UserError
from vlp_lib.io import placed_lines, read_text, refuse, refuse_repeated, take_all, write_text
from vlp_lib.tasks import percent


@dataclass(frozen=True)
class NlvrExample:
    """One statement about one pair of images.

    Attributes:
        identifier: "split-set-pair-sentence" in NLVR2, "sentence-picture" in NLVR.
        sentence: the statement.
        label: whether it is true.
        directory: numbered folder of its pictures; "" where they lie in the split's own.
    """

    identifier: str
    sentence: str
    label: bool
    directory: str = ""

    @property
    def group(self) -> str:
        """What the examples of one sentence share, by the official rule.

        NLVR2 blanks the identifier's third field, the pair; NLVR (`metrics_structured_rep.py`) keeps the first one.
        """
        fields = self.identifier.split("-")
        if len(fields) < 3:
            return fields[0]
        return "-".join([*fields[:2], "", *fields[3:]])


def read_examples(path: Path) -> tuple[NlvrExample, ...]:
    """The official JSON lines (.gz accepted) of NLVR2 (labels "True", "False") or NLVR ("true", "false").

    Raises UserError for a file of another form, a split without labels, or an identifier that stands twice.
    """
    kinds: dict[str, tuple[type, ...]] = {"identifier": (str,), "sentence": (str,), "label": (str,)}
    examples = []
    for where, entry in placed_lines(path, "the official JSON lines, e.g. dev.json"):
        fields = take_all(entry, kinds, where)
        fields |= {"label": _truth(fields["label"], where), "directory": str(entry.get("directory", ""))}
        examples.append(NlvrExample(**fields))
    refuse_repeated((example.identifier for example in examples), "identifiers", path)
    return tuple(examples)


def _truth(label: str, where: str) -> bool:
    # The official script compares in lower case and counts any other word as wrong, silently.
    if label.lower() not in ("true", "false"):
        raise UserError(f"{where}: label {label!r} is neither True nor False: write one of these")
    return label.lower() == "true"


def read_predictions(path: Path) -> dict[str, bool]:
    """A predictions CSV as the official script takes it: identifier,label on each line, no header.

    Further columns are ignored, as there. Raises UserError for a line without a label, a label other than true and
    false (in any case), or an identifier that stands twice.
    """
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        fields = line.strip().split(",")
        if len(fields) < 2:
            raise UserError(f"{where} has no label: write identifier,True or identifier,False on each line")
        rows.append((fields[0], _truth(fields[1], where)))
    refuse_repeated((identifier for identifier, _ in rows), "identifiers", path)
    return dict(rows)


def write_predictions(path: Path, predictions: Mapping[str, bool]) -> None:
    """Write predictions as the official script takes them, atomically.

    Raises UserError where `path` cannot be written.
    """
    write_text(path, "".join(f"{identifier},{label}\n" for identifier, label in predictions.items()))


def nlvr2_score(predictions: Mapping[str, bool], examples: Sequence[NlvrExample]) -> dict[str, Any]:
    """Accuracy and consistency by the official rule, in percent, with the numbers of examples and sentences.

    Consistency is the share of the sentences with every example right.

    Raises UserError unless predictions and examples have the same identifiers.
    """
    if not examples:
        raise UserError("there is no example to score against: give the JSON lines of the predicted examples")
    known = {example.identifier for example in examples}
    missing = [example.identifier for example in examples if example.identifier not in predictions]
    refuse(missing, f"of {len(known):,} examples have no prediction", "predict each example of the data file")
    unknown = [identifier for identifier in predictions if identifier not in known]
    refuse(unknown, "predictions are for unknown identifiers", "give the data file that belongs to the predictions")

    right = 0
    consistent: dict[str, bool] = {}
    for example in examples:
        correct = predictions[example.identifier] == example.label
        right += correct
        consistent[example.group] = consistent.get(example.group, True) and correct
    return {
        "task": "nlvr2",
        "unit": "percent",
        "accuracy": percent(right / len(examples)),
        "consistency": percent(sum(consistent.values()) / len(consistent)),
        "examples": len(examples),
        "sentences": len(consistent),
    }
