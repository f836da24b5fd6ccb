"""Tables I–VI: what was run of a profile beside the paper's own numbers, and where each row comes from.

A cell whose run is missing says "not run"; one whose run has no such score (labels that are not public, a gallery too
small for folds) says "not scored". Scores are percent, mean ± half-width of the 95 % interval over seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from vlp_lib import paper
from vlp_lib.figures.bench_tables import cost_table, paper_cost
from vlp_lib.profiles import PROFILES
from vlp_lib.study.runs import NOT_RUN, label
from vlp_lib.study.scores import NOT_SCORED, Results, paper_ms
from vlp_lib.tasks.recalls import CUTOFFS
from vlp_lib.variants import VARIANTS

_NOTHING = "-"
"""As the paper prints a cell without a number."""

_COMPARED = tuple(name for name, variant in VARIANTS.items() if variant.vision == "vit")
"""Table I's rows where nothing was measured, SPL in both sizes: those of `bench.speed.METHODS`."""

_SPLITS = {
    "vqav2_test_dev": ("vqa", "val", "overall"),
    "vqav2_test_std": ("vqa", "test", "overall"),
    "nlvr2_val": ("nlvr2", "val", "accuracy"),
    "nlvr2_test_p": ("nlvr2", "test", "accuracy"),
}
"""Table IV's columns and the run's split that stands in them; VCR's are those of the one split that is scored."""

_GALLERIES = {"all": "coco_5k", "folds": "coco_1k"}
"""Table III's columns by the rule that the run's gallery follows: the whole of it, or the mean of its folds."""


def table_i(results: Results) -> pd.DataFrame:
    """What each visual loss costs, measured: cost.json and latency.json beside the paper's words."""
    if not results.costs:
        return pd.DataFrame({**paper_cost(name), "this run": NOT_RUN} for name in _COMPARED)
    table = cost_table(results.costs)
    table["time of a training step"] = table["time of a training step"].replace("", NOT_RUN)
    times = [(results.time(row["variant"]), results.time(_COMPARED[0])) for row in results.costs]
    answers = [f"{own['median_ms'] / naive['median_ms']:.2f}×" if own and naive else NOT_RUN for own, naive in times]
    table.insert(4, "time of an answer", answers)
    table["this run"] = results.provenance
    return table


def table_ii(results: Results) -> pd.DataFrame:
    """Inference time and VQA accuracy of every variant and named run, beside the paper's."""
    split = results.split("vqa")
    score = f"VQA, {split} (%)"
    rows = [
        {
            "model": label(name),
            "inference time (ms, 5–95 %)": _time(results, name),
            score: results.cell("vqa", name, split, "overall"),
            "paper: inference time (ms, P40)": paper_ms(name) or _NOTHING,
            "paper: VQAv2 (%)": _printed("II", name, "vqa"),
            "this run": results.source("vqa", name),
        }
        for name in results.names
    ]
    return pd.DataFrame(rows + _blind(results, "model", rows[0], {score: ("vqa", split, "overall")}))


def table_iii(results: Results) -> pd.DataFrame:
    """Zero-shot retrieval R@1 both ways: the whole gallery beside COCO 5k, the mean of its folds beside COCO 1k.

    Guessing is that in a gallery of the run's size, which no other gallery's scores can be compared with.
    """
    places = {f"{way} R@1 (%)": f"{way}_r1" for way in ("text", "image")}
    rows = [
        {
            "model": label(name),
            "gallery": _gallery(results, gallery),
            **{head: results.cell("retrieval", name, gallery, metric) for head, metric in places.items()},
            "paper: gallery": column.replace("_", " ").upper(),
            "paper: text R@1 (%)": _percent("III", name, f"{column}_tr_r1"),
            "paper: image R@1 (%)": _percent("III", name, f"{column}_ir_r1"),
            "this run": results.source("retrieval", name),
        }
        for gallery, column in _GALLERIES.items()
        for name in results.names
    ]
    for gallery in results.galleries:
        found = {head: ("retrieval", gallery, metric) for head, metric in places.items()}
        rows += _blind(results, "model", rows[0], found, gallery=_gallery(results, gallery))
    return pd.DataFrame(rows)


def table_iv(results: Results) -> pd.DataFrame:
    """The best variant on VQA, NLVR2 and VCR below the published rows of the paper and its peers.

    The run's cells name their split, which is not that of the column's head where the corpus is another.
    """
    found = paper.table("IV")
    heads = [column.header for column in found.columns]
    rows = [_published(row, heads, row.cells) for row in found.rows]
    places = {  # of what is scored: the first three columns are not
        column.header: _SPLITS.get(column.name, ("vcr", results.split("vcr"), column.name.removeprefix("vcr_")))
        for column in found.columns[3:]
    }
    own = dict(zip(heads, (_images(results), _hours(results), _time(results, paper.OURS)), strict=False))
    for head, (task, split, metric) in places.items():
        cell = results.cell(task, paper.OURS, split, metric)
        own[head] = cell if cell in (NOT_RUN, NOT_SCORED) else f"{cell} ({split})"
    sources = dict.fromkeys(results.source(task, paper.OURS) for task in ("vqa", "nlvr2", "vcr"))
    said = "; ".join(source for source in sources if source != NOT_RUN) or NOT_RUN
    rows.append({"Method": f"{label(paper.OURS)}, this run", **own, "from": said})
    for row in _blind(results, "Method", rows[0], places, **{"from": results.provenance}):
        of_splits = {head: f"{row[head]} ({place[1]})" for head, place in places.items() if row[head] != _NOTHING}
        rows.append(row | of_splits)
    return pd.DataFrame(rows)


def table_v(results: Results) -> pd.DataFrame:
    """Zero-shot retrieval in galleries of 1k images: the paper's rows, and the run's by the rule of COCO 1k.

    A run whose gallery has no folds, such as Flickr30k's 1,000 test images, stands here with the whole of it.
    """
    return _recall_table(results, "V", "all" if set(results.galleries) == {"all"} else "folds")


def table_vi(results: Results) -> pd.DataFrame:
    """Zero-shot retrieval in COCO's 5k images: the paper's rows, and the run's whole gallery."""
    return _recall_table(results, "VI", "all")


def pointing_scores(results: Results) -> pd.DataFrame:
    """How much of the attention lies on what a question asks for (beside figure 6), a row a name; percent.

    The paper has no such number.
    """
    heads = {
        "pointing accuracy (%)": "pointing",
        "attention on the object (%)": "mass",
        "the object's area, chance (%)": "chance",
        "evenly spread attention (%)": "even",
    }
    return pd.DataFrame(
        {
            "model": label(name),
            **{head: results.cell("attention", name, "all", metric) for head, metric in heads.items()},
            "this run": results.source("attention", name),
        }
        for name in results.names
    )


def _printed(number: str, row: str, column: str) -> str:
    """The paper's cell as it prints it; "-" where its table has no such row."""
    found = (cell.printed for cell in paper.values(number) if (cell.row, cell.column) == (row, column))
    return next(found, _NOTHING)


def _percent(number: str, row: str, column: str) -> str:
    """The paper's fraction in percent; "-" where its table has no such row."""
    share = paper.parse(_printed(number, row, column))
    return _NOTHING if share is None else f"{100 * share:g}"


def _published(row: paper.Row, heads: Iterable[str], cells: Iterable[str], **more: str) -> dict[str, str]:
    return {"Method": row.label, **more, **dict(zip(heads, cells, strict=True)), "from": "paper"}


def _blind(
    results: Results, head: str, columns: Iterable[str], places: Mapping[str, tuple[str, str, str]], **more: str
) -> list[dict[str, str]]:
    """A row for each rule that sees no picture: what it scores at (task, split, metric) of a column, "-" elsewhere."""
    found = {column: results.guesses.get(place, {}) for column, place in places.items()}
    return [
        dict.fromkeys(columns, _NOTHING)
        | {head: rule, **more}
        | {column: f"{scores[rule]:.2f}" for column, scores in found.items() if rule in scores}
        for rule in dict.fromkeys(rule for scores in found.values() for rule in scores)
    ]


def _time(results: Results, name: str) -> str:
    row = results.time(name)
    return NOT_RUN if row is None else f"{row['median_ms']:.1f} ({row['p5_ms']:.1f}–{row['p95_ms']:.1f})"


def _gallery(results: Results, name: str) -> str:
    return results.galleries.get(name, "no folds") if results.galleries else NOT_RUN


def _pretrained(results: Results) -> list[Mapping[str, Any]]:
    return [run for run in results.pretraining if run["name"] == paper.OURS]


def _images(results: Results) -> str:
    """Images that the best variant was pretrained on: known of the embedded corpus, whose profile says it."""
    runs = _pretrained(results)
    if not runs:
        return NOT_RUN
    return f"{PROFILES[runs[0]['profile']].corpus.train_images:,}" if runs[0]["synthetic"] else _NOTHING


def _hours(results: Results) -> str:
    """Mean hours of the best variant's pretraining, and on what."""
    runs = _pretrained(results)
    if not runs:
        return NOT_RUN
    devices = ", ".join(dict.fromkeys(f"{run['device']}, {run['threads']} thread(s)" for run in runs))
    return f"{np.mean([run['seconds'] for run in runs]) / 3600:.3g} ({devices})"


def _recall_table(results: Results, number: str, gallery: str) -> pd.DataFrame:
    """Rows of one gallery each: the paper's, the run's best variant, and guessing in the run's gallery."""
    found = paper.table(number)
    names = dict.fromkeys(c.name.rsplit("_", 2)[0] for c in found.columns if c.unit == "percent")
    ways = {"image": "ir", "text": "tr"}
    heads = [f"{way} R@{k}" for way in ways for k in CUTOFFS]
    rows = []
    for name in names:
        place = next(c.header for c in found.columns if c.name.startswith(name)).partition(" / ")[0]
        for row in found.rows:
            cells = [_printed(number, row.name, f"{name}_{short}_r{k}") for short in ways.values() for k in CUTOFFS]
            if set(cells) != {_NOTHING}:
                rows.append(_published(row, heads, cells, Images=row.cells[0], gallery=place))
    places = {f"{way} R@{k}": ("retrieval", gallery, f"{way}_r{k}") for way in ways for k in CUTOFFS}
    own = {head: results.cell("retrieval", paper.OURS, *place[1:]) for head, place in places.items()}
    of_run = {"gallery": _gallery(results, gallery), "from": results.source("retrieval", paper.OURS)}
    rows.append({"Method": f"{label(paper.OURS)}, this run", "Images": _images(results)} | own | of_run)
    rows += _blind(results, "Method", rows[0], places, **of_run | {"from": results.provenance})
    return pd.DataFrame(rows)
