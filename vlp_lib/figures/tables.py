"""Tables I–VI: what was run of a profile beside the paper's own numbers, and where each row comes from.

A cell whose run is missing says "not run"; one whose run has no such score (labels that are not public, a gallery too
small for folds) says "not scored". Scores are percent, mean ± half-width of the 95 % interval over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from vlp_lib import paper
from vlp_lib.config import PROFILES, VARIANTS
from vlp_lib.figures.bench_tables import cost_table
from vlp_lib.study.runs import NOT_RUN, label
from vlp_lib.study.scores import NOT_SCORED, Results, guessing, paper_ms
from vlp_lib.tasks.recalls import CUTOFFS

BEST = next(row.name for row in paper.table("IV").rows if row.name in VARIANTS)
"""The variant that the paper puts beside other models' rows ("Ours (SEGL)")."""

PAPER = "paper"
_NOTHING = "-"
"""As the paper prints a cell without a number."""

_COMPARED = tuple(name for name, variant in VARIANTS.items() if variant.vision == "vit")
"""Table I's rows where nothing was measured, SPL in both sizes: those of `bench.cost.METHODS`."""

_UNMEASURED: Mapping[str, Any] = {
    "extra_parameters": 0,
    "extra_parameters_at_inference": 0,
    "tokens": {"384": 0, "600": 0},
    "step_ratio": None,
    "extra_data": "",
    "extra_data_share": 0.0,
}
"""Stands for a row of cost.json where there is none; its numbers are not shown."""

_SPLITS = {
    "vqav2_test_dev": ("vqa", "val", "overall"),
    "vqav2_test_std": ("vqa", "test", "overall"),
    "nlvr2_val": ("nlvr2", "val", "accuracy"),
    "nlvr2_test_p": ("nlvr2", "test", "accuracy"),
}
"""Table IV's columns and the run's split that stands in them; VCR's are those of the one split that is scored."""

_GALLERIES = {"all": "coco_5k", "folds": "coco_1k"}
"""Table III's columns by the rule that the run's gallery follows: the whole of it, or the mean of its folds."""


def title(number: str) -> str:
    """A table's number and title as the paper has them."""
    return f"Table {number} – {paper.table(number).title}"


def table_i(results: Results) -> pd.DataFrame:
    """What each visual loss costs, measured: cost.json and latency.json beside the paper's words."""
    costs = results.costs or [{**_UNMEASURED, "variant": name} for name in _COMPARED]
    table = cost_table(costs)
    if not results.costs:
        own = [column for column in table.columns if column != "method" and not column.startswith("paper: ")]
        table[own] = NOT_RUN
    table["time of a training step"] = table["time of a training step"].replace("", NOT_RUN)
    table.insert(4, "time of an answer", [_times_naive(results, row["variant"]) for row in costs])
    table["this run"] = results.provenance
    return table


def table_ii(results: Results) -> pd.DataFrame:
    """Inference time and VQA accuracy of every variant and named run, beside the paper's.

    The last rows are those of rules that see no picture.
    """
    split = results.split("vqa")
    rows: list[dict[str, str]] = [
        {
            "model": label(name),
            "inference time (ms, 5–95 %)": _time(results, name),
            f"VQA, {split} (%)": results.cell("vqa", name, split, "overall"),
            "paper: inference time (ms, P40)": paper_ms(name) or _NOTHING,
            "paper: VQAv2 (%)": _printed("II", name, "vqa"),
            "this run": results.source("vqa", name),
        }
        for name in results.names
    ]
    for rule, score in results.guesses.get(("vqa", split, "overall"), {}).items():
        rows.append(dict.fromkeys(rows[0], _NOTHING) | {"model": rule, f"VQA, {split} (%)": f"{score:.2f}"})
    return pd.DataFrame(rows)


def table_iii(results: Results) -> pd.DataFrame:
    """Zero-shot retrieval R@1 both ways: the whole gallery beside COCO 5k, the mean of its folds beside COCO 1k.

    The last rows say what guessing would score in a gallery of the run's size, which no other gallery's scores can be
    compared with.
    """
    rows = []
    for gallery, column in _GALLERIES.items():
        for name in results.names:
            rows.append(
                {
                    "model": label(name),
                    "gallery": _gallery(results, gallery),
                    "text R@1 (%)": results.cell("retrieval", name, gallery, "text_r1"),
                    "image R@1 (%)": results.cell("retrieval", name, gallery, "image_r1"),
                    "paper: gallery": column.replace("_", " ").upper(),
                    "paper: text R@1 (%)": _percent("III", name, f"{column}_tr_r1"),
                    "paper: image R@1 (%)": _percent("III", name, f"{column}_ir_r1"),
                    "this run": results.source("retrieval", name),
                }
            )
    for gallery in results.galleries:
        text, image = _guessing(results, gallery, "text", 1), _guessing(results, gallery, "image", 1)
        own = {"gallery": _gallery(results, gallery), "text R@1 (%)": text, "image R@1 (%)": image}
        rows.append(dict.fromkeys(rows[0], _NOTHING) | {"model": "guessing"} | own)
    return pd.DataFrame(rows)


def table_iv(results: Results) -> pd.DataFrame:
    """The best variant on VQA, NLVR2 and VCR below the published rows of the paper and its peers.

    The run's cells name their split, which is not that of the column's head where the corpus is another.
    """
    found = paper.table("IV")
    cells = {column.name: _iv_cell(results, column.name) for column in found.columns}
    own = {"Method": f"{label(BEST)}, this run"} | {column.header: cells[column.name] for column in found.columns}
    tasks = [results.source(task, BEST) for task in ("vqa", "nlvr2", "vcr")]
    said = list(dict.fromkeys(one for one in tasks if one != NOT_RUN)) or [NOT_RUN]
    heads = [column.header for column in found.columns]
    published = [{"Method": row.label, **dict(zip(heads, row.cells, strict=True)), "from": PAPER} for row in found.rows]
    floors = [
        {"Method": rule} | {column.header: _floor(results, column.name, rule) for column in found.columns}
        for rule in dict.fromkeys(rule for rules in results.guesses.values() for rule in rules)
    ]
    blind = [row | {"from": results.provenance} for row in floors if set(row.values()) != {row["Method"], _NOTHING}]
    return pd.DataFrame([*published, own | {"from": "; ".join(said)}, *blind])


def table_v(results: Results) -> pd.DataFrame:
    """Zero-shot retrieval in galleries of 1k images: the paper's rows, and the run's by the rule of COCO 1k.

    A run whose gallery has no folds, such as Flickr30k's 1,000 test images, stands here with the whole of it.
    """
    gallery = "all" if set(results.galleries) == {"all"} else "folds"
    return _recall_table(results, "V", gallery)


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


# ---------------------------------------------------------------------------------------------------- cells


def _printed(number: str, row: str, column: str) -> str:
    """The paper's cell as it prints it; "-" where its table has no such row."""
    found = (cell.printed for cell in paper.values(number) if (cell.row, cell.column) == (row, column))
    return next(found, _NOTHING)


def _percent(number: str, row: str, column: str) -> str:
    """The paper's fraction in percent; "-" where its table has no such row."""
    share = paper.parse(_printed(number, row, column))
    return _NOTHING if share is None else f"{100 * share:g}"


def _time(results: Results, name: str) -> str:
    row = results.time(name)
    return NOT_RUN if row is None else f"{row['median_ms']:.1f} ({row['p5_ms']:.1f}–{row['p95_ms']:.1f})"


def _times_naive(results: Results, name: str) -> str:
    """The median inference time relative to the naive model's."""
    own, naive = results.time(name), results.time(_COMPARED[0])
    return NOT_RUN if own is None or naive is None else f"{own['median_ms'] / naive['median_ms']:.2f}×"


def _gallery(results: Results, name: str) -> str:
    if not results.galleries:
        return NOT_RUN
    return str(results.galleries[name]) if name in results.galleries else "no folds"


def _guessing(results: Results, gallery: str, way: str, k: int) -> str:
    """What drawing k at random would find in the run's gallery, in percent."""
    size = results.galleries[gallery]
    return f"{100 * guessing(size.images, size.captions, way, k):.2f}"


def _iv_cell(results: Results, column: str) -> str:
    """What the run puts into a column of Table IV."""
    if column == "images":
        return _images(results)
    if column == "pretrain_gpu_hours":
        return _hours(results)
    if column == "inference_ms":
        return _time(results, BEST)
    task, split, metric = _place(results, column)
    score = results.cell(task, BEST, split, metric)
    return score if score in (NOT_RUN, NOT_SCORED) else f"{score} ({split})"


def _place(results: Results, column: str) -> tuple[str, str, str]:
    """Task, split and metric of the run that stand in a column of Table IV."""
    return _SPLITS.get(column, ("vcr", results.split("vcr"), column.removeprefix("vcr_")))


def _floor(results: Results, column: str, rule: str) -> str:
    """What a rule that sees no picture scores in a column of Table IV."""
    task, split, metric = _place(results, column)
    score = results.guesses.get((task, split, metric), {}).get(rule)
    return _NOTHING if score is None else f"{score:.2f} ({split})"


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


def _pretrained(results: Results) -> list[Mapping[str, Any]]:
    return [run for run in results.pretraining if run["name"] == BEST]


def _recall_table(results: Results, number: str, gallery: str) -> pd.DataFrame:
    """Rows of one gallery each: the paper's, the run's best variant, and guessing in the run's gallery."""
    found = paper.table(number)
    names = dict.fromkeys(c.name.rsplit("_", 2)[0] for c in found.columns if c.unit == "percent")
    heads = {(short, way, k): f"{way} R@{k}" for short, way in (("ir", "image"), ("tr", "text")) for k in CUTOFFS}
    rows = []
    for name in names:
        title = next(c.header for c in found.columns if c.name.startswith(name)).partition(" / ")[0]
        for row in found.rows:
            cells = {head: _printed(number, row.name, f"{name}_{short}_r{k}") for (short, _, k), head in heads.items()}
            if set(cells.values()) != {_NOTHING}:
                images = _printed(number, row.name, "images")
                rows.append({"Method": row.label, "Images": images, "gallery": title, **cells, "from": PAPER})
    place = _gallery(results, gallery)
    own = {head: results.cell("retrieval", BEST, gallery, f"{way}_r{k}") for (_, way, k), head in heads.items()}
    names_it = {"Method": f"{label(BEST)}, this run", "Images": _images(results), "gallery": place}
    rows.append({**names_it, **own, "from": results.source("retrieval", BEST)})
    if gallery in results.galleries:
        chance = {head: _guessing(results, gallery, way, k) for (_, way, k), head in heads.items()}
        rows.append({"Method": "guessing", "Images": _NOTHING, "gallery": place, **chance, "from": results.provenance})
    return pd.DataFrame(rows)
