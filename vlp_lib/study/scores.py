"""Everything after pretraining, read back from a profile's folder: scores of every run, inference times, costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlp_lib import paper
from vlp_lib.config import TASKS
from vlp_lib.errors import UserError
from vlp_lib.io import read_json
from vlp_lib.items import read_items
from vlp_lib.study.runs import CHECK_ONLY, NOT_RUN, in_order, is_check, label, read_records, read_runs
from vlp_lib.study.verdicts import Estimate, difference, estimate
from vlp_lib.tasks.recalls import CUTOFFS
from vlp_lib.variants import VARIANTS

NOT_SCORED = "not scored"
"""What a cell says whose run is there, but not that score: labels that are not public, a gallery without folds."""

GUESSING = "guessing"
"""The rule that says the commonest answer, or draws from a gallery."""

# The files of `bench.speed`, which is not imported because it brings torch along.
LATENCY, COST = "speed/latency.json", "speed/cost.json"

RUN = "this run"
"""The source of the run's own points."""

_PUBLISHED = {"II": "vqa", "IV": "vqav2_test_dev"}
"""The paper's tables that have a time and a VQA accuracy, and the column of the latter."""

_CONTENDERS = {"region": "region_bottom_up"}
"""The timed model, where it has another name than the variant: region features need their detector."""

_TIME_ROWS = {"region": "uniter_base", "region_bottom_up": "uniter_base"}
"""Table IV's row, where it has another name."""


def guessing(images: int, captions: int, way: str, k: int) -> float:
    """The share of queries that k draws from a gallery answer: "image", or "text" with several captions an image."""
    if way == "image":
        return min(1.0, k / images)
    return 1 - math.comb(captions - captions // images, k) / math.comb(captions, k)


@dataclass(frozen=True)
class Results:
    """What has been run of a profile, a folder results/<profile>/.

    `scores` has one row a score: task ("vqa", "nlvr2", "vcr", "retrieval", "attention"), name of the run, seed, split
    ("val", "test"; the gallery "all" or "folds"; the kind of question that attention is about), metric and value, in
    percent. The keys of `guesses`, which rules score that see no picture, are task, split and metric, and the rule.
    """

    scores: pd.DataFrame
    galleries: Mapping[str, str]  # retrieval's in words, by "all" and "folds"; empty where it was not run
    times: Mapping[str, Mapping[str, Any]]  # the rows of latency.json by the model's name
    costs: Sequence[Mapping[str, Any]]  # the rows of cost.json
    items: Mapping[tuple[str, str, int], Mapping[str, np.ndarray]]  # by task, name and seed, where a run kept them
    guesses: Mapping[tuple[str, str, str], Mapping[str, float]]
    pretraining: Sequence[Mapping[str, Any]]  # run.json of each finished pretraining
    courses: pd.DataFrame  # the pretrainings' validations, as `read_runs` gives them; empty where there are none
    provenance: str  # profile and corpus in words
    timing: str  # what was timed, and where, in words; "" where nothing was

    @property
    def names(self) -> list[str]:
        """All variants of the paper in its order, then the mixes and named runs that there are."""
        return in_order([*VARIANTS, *self.scores["name"]])

    def values(self, task: str, name: str, split: str, metric: str) -> pd.Series:
        """The score of each seed in percent (index: the seed); empty where it was not run or not scored."""
        wanted = {"task": task, "name": name, "split": split, "metric": metric}
        chosen = (self.scores[list(wanted)] == pd.Series(wanted)).all(axis=1)
        return self.scores[chosen].set_index("seed")["value"].astype(float)

    def together(self, task: str, names: Sequence[str], split: str, metric: str) -> list[np.ndarray]:
        """[seeds, items] scores of each name over the seeds that all have; of one "item", the mean, where not all have
        kept the scores of the same items.
        """
        values = pd.DataFrame({name: self.values(task, name, split, metric) for name in names}).dropna()
        kept = [
            [self.items.get((task, name, seed), {}).get(f"{split}.{metric}") for seed in values.index] for name in names
        ]
        sizes = {None if array is None else len(array) for row in kept for array in row}
        if len(sizes) != 1 or None in sizes:
            return list(values.to_numpy().T[:, :, None])
        return [np.stack([array for array in row if array is not None]).astype(float) for row in kept]

    def chance(self, task: str, split: str, metric: str) -> float:
        """The best that can be scored without a look at the image, in percent; −∞ where it is not known."""
        return max(self.guesses.get((task, split, metric), {}).values(), default=-math.inf)

    def seeds(self, task: str, name: str) -> int:
        """How many seeds of a name were run on a task."""
        rows = self.scores
        return int(rows[(rows["task"] == task) & (rows["name"] == name)]["seed"].nunique())

    def split(self, task: str) -> str:
        """The split that stands for a finetuned task: test where every run has its score, else val."""
        rows = self.scores[self.scores["task"] == task]
        runs = rows.groupby(["name", "seed"])["split"].agg(set)
        return "test" if len(runs) and all("test" in found for found in runs) else "val"

    def cell(self, task: str, name: str, split: str, metric: str) -> str:
        """A score as "mean ± half-width of its 95 % interval over seeds"; or that it was not run, or not scored."""
        values = self.values(task, name, split, metric)
        if values.empty:
            return NOT_SCORED if self.seeds(task, name) else NOT_RUN
        return estimate(values).written(2)

    def time(self, name: str) -> Mapping[str, Any] | None:
        """A variant's row of latency.json, the region model's with its detector; None where it was not timed."""
        return self.times.get(_CONTENDERS.get(name, name))

    def times_as_long(self, first: str, second: str) -> Estimate | None:
        """Logarithm of how many times as long `second` takes as `first`, over the rounds in which both answered.

        None where one of them was not timed round by round.
        """
        rows = self.time(first), self.time(second)
        if any(row is None or "times_ms" not in row for row in rows):
            return None
        both = np.log(np.array([row["times_ms"] for row in rows if row is not None], float))
        return difference(*both[::-1, ~np.isnan(both).any(0)])

    def source(self, task: str, name: str) -> str:
        """Where a row of a table comes from: profile, corpus and seeds; or that it was not run."""
        seeds = self.seeds(task, name)
        return f"{self.provenance}, {seeds} seed{'s' if seeds > 1 else ''}" if seeds else NOT_RUN


def paper_ms(name: str) -> str:
    """The paper's milliseconds of a variant or timed model as it prints them (Tables II and IV); "" where it has none.

    Its region models' times are with their detector.
    """
    row = _TIME_ROWS.get(name, name)
    times = (cell for number in ("II", "IV") for cell in paper.values(number) if cell.unit == "ms")
    return next((cell.printed for cell in times if cell.row == row), "")


def latency_note(rows: Sequence[Mapping[str, Any]], full_size: bool) -> str:
    """What was timed and where, for a caption."""
    first = rows[0]
    return (
        f"One question and one image of {first['image_size']} px at a time, random weights, "
        f"{'the architectures as published' if full_size else 'miniatures'}, float32, on {first['device']}, "
        f"{first['threads']} thread(s)."
    )


def read_results(root: Path) -> Results:
    """Read what has been run under `root` (results/<profile>/); finished runs only.

    Raises UserError where there is nothing at all, and for a broken file.
    """
    stages = {task: f"finetune-{task}" for task in TASKS} | {"retrieval": "retrieval", "attention": "attention"}
    runs = [(task, folder, run) for task, stage in stages.items() for folder, run in read_records(root, stage).items()]
    cost, latency = (read_json(root / name) if (root / name).is_file() else {} for name in (COST, LATENCY))
    made = [*(run for _, _, run in runs), *(one for one in (cost, latency) if one)]
    if not made:
        raise UserError(
            f"no finished finetuning, retrieval, timing or attention under {root}: run "
            f"`vlp reproduce --until tables` with this profile (and data_root) first"
        )
    scores = [
        (task, run["name"], run["seed"], split, metric, value)
        for task, _, run in runs
        for split, metric, value in _scores(task, run)
    ]
    guesses: dict[tuple[str, str, str], dict[str, float]] = {}
    for task, _, run in runs:
        for rule, splits in run.get("baselines", {}).items():
            for split, found in splits.items():
                for metric, value in found.items():
                    guesses.setdefault((task, split, metric), {})[rule] = value
    galleries: dict[str, str] = {}
    recalls: dict[str, Any] = next((run["recalls"] for task, _, run in runs if task == "retrieval"), {})
    for gallery in (name for name in ("all", "folds") if name in recalls):
        images, captions = recalls[gallery]["images"], recalls[gallery]["captions"]
        folds = sum(name.startswith("fold ") for name in recalls)
        galleries[gallery] = f"{'all' if gallery == 'all' else f'{folds} folds of'} {images:,} images"
        for way, k in product(("text", "image"), CUTOFFS):
            guesses["retrieval", gallery, f"{way}_r{k}"] = {GUESSING: 100 * guessing(images, captions, way, k)}
    pretraining = list(read_records(root, "pretrain").values())
    return Results(
        scores=pd.DataFrame(scores, columns=["task", "name", "seed", "split", "metric", "value"]),
        galleries=galleries,
        times={row["name"]: row for row in latency.get("rows", ())},
        costs=cost.get("rows", ()),
        items={(task, run["name"], run["seed"]): read_items(folder) for task, folder, run in runs},
        guesses=guesses,
        pretraining=pretraining,
        courses=read_runs(root, "pretrain") if pretraining else pd.DataFrame(),
        provenance=_provenance(made, root.name),
        timing=latency_note(latency["rows"], latency["architecture"] == "the paper's") if latency else "",
    )


def _scores(task: str, run: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Split, metric and value in percent of each score in a run's record."""
    if task == "retrieval":
        for gallery, way, k in product(("all", "folds"), ("text", "image"), CUTOFFS):
            recalls, metric = run["recalls"].get(gallery, {}), f"{way}_r{k}"
            if metric in recalls:
                yield gallery, metric, 100 * recalls[metric]
    elif task == "attention":
        for kind, row in run["pointing"].items():
            for metric in ("pointing", "mass", "chance", "even"):
                yield kind, metric, 100 * row[metric]
    else:
        for split in ("val", "test"):
            for metric, value in run.get(split, {}).items():
                if isinstance(value, float):  # counts are whole numbers, means of one type of question are mappings
                    yield split, metric, value


def _provenance(made: Sequence[Mapping[str, Any]], folder: str) -> str:
    """Profile and corpus of runs; times alone have no corpus."""
    profiles = dict.fromkeys(run["profile"] for run in made)
    words = {True: "embedded corpus", False: f"real images (results/{folder})"}
    corpora = dict.fromkeys(words[run["synthetic"]] for run in made if "synthetic" in run)
    checks = [CHECK_ONLY] if any(map(is_check, profiles)) else []
    return ", ".join([f"profile {', '.join(profiles)}", *checks, *corpora])


def trade_off(results: Results) -> pd.DataFrame:
    """A row a point: source, row, model, ms with ms_low and ms_high (5th and 95th percentile), vqa, half, seeds.

    VQA accuracy is in percent, with the half-width of its 95 % interval over seeds. A run that was not timed or not
    finetuned has NaN there, and so have the paper's points, which come without spread.
    """
    rows: list[dict[str, Any]] = []
    for name in results.names:
        vqa = estimate(results.values("vqa", name, results.split("vqa"), "overall"))
        time = results.time(name) or {}
        rows.append(
            {
                "source": RUN,
                "row": name,
                "model": label(name),
                "ms": time.get("median_ms"),
                "ms_low": time.get("p5_ms"),
                "ms_high": time.get("p95_ms"),
                "vqa": vqa.mean,
                "half": vqa.half,
                "seeds": vqa.seeds,
            }
        )
    for number, column in _PUBLISHED.items():
        for row in paper.table(number).rows:
            ms, score = (paper.value(number, row.name, name) for name in ("inference_ms", column))
            source = f"paper, table {number}"
            rows.append({"source": source, "row": row.name, "model": row.label, "ms": ms, "vqa": score})
    return pd.DataFrame(rows).astype(dict.fromkeys(("ms", "ms_low", "ms_high", "vqa"), float))


def not_shown(points: pd.DataFrame) -> list[str]:
    """The run's models that are no point because their time or their accuracy is missing, and which."""
    own = points[points["source"] == RUN]
    missing = {"ms": "not timed", "vqa": "no VQA run"}
    return [
        f"{row.model} ({', '.join(why for name, why in missing.items() if math.isnan(getattr(row, name)))})"
        for row in own[own[list(missing)].isna().any(axis=1)].itertuples()
    ]
