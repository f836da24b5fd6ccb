"""One page with every figure and table of a profile."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vlp_lib import paper
from vlp_lib.errors import UserError
from vlp_lib.io import write_text
from vlp_lib.run import DATA_ROOT
from vlp_lib.study.runs import CHECK_ONLY, is_check, read_records

TITLES = {
    "20_convergence": {
        "figure_1": "Figure 1 – validation matching loss: region features, raw pixels, and a visual loss",
        "figure_5_left": "Figure 5 (left) – convergence of every variant",
        "order": "The paper's order of convergence, pair by pair",
        "ablations": "Runs that are not the paper's, each beside what it is a change of",
        "ablation_curves": "The curves of named runs",
        "convergence": "Images until the matching loss falls below a threshold",
    },
    "17_claims": {
        "claims_overview": "The paper's claims: how many comparisons confirm each",
        "claims": "The paper's claims, comparison by comparison",
    },
    "16_tables": {
        "table_i": f"Table I – {paper.table('I').title}",
        "table_ii": f"Table II – {paper.table('II').title}",
        "figure_5_right": "Figure 5 (right) – inference time and VQA accuracy",
        "table_iii": f"Table III – {paper.table('III').title}",
        "table_iv": f"Table IV – {paper.table('IV').title}",
        "table_v": f"Table V – {paper.table('V').title}",
        "table_vi": f"Table VI – {paper.table('VI').title}",
        "figure_6": "Figure 6 – where the model looks",
        "pointing": "Beside figure 6 – how much of the attention lies on what is asked for",
    },
    "13_speed": {
        "inference_time": "Inference time of ours, region pipelines and peers",
        "cost": "Table I, measured – what each visual loss costs",
    },
    "00_corpus": {
        "corpus_annotations": "The corpus: images, label maps, detections",
        "corpus_pairs": "The corpus: matched and mismatched pairs",
        "corpus_colours": "The corpus: the mean colour of each class in each image",
    },
}
"""What stands on the page, in this order, by the notebook that makes it."""

_SEEN = {
    "figure_1": "curves that fall, a line a variant, from chance (ln 2, dotted), against the images seen",
    "figure_5_left": "curves that fall, a line a variant, from chance (ln 2, dotted), against the images seen",
    "ablations": "a row a change: left the images until the plateau ends, right the matching loss at the end",
    "ablation_curves": "curves of the matching loss above and of the attention's entropy below, a column a variant",
    "claims": "a panel a score, a row a comparison: its difference beside the band that the paper claims",
    "figure_5_right": "points of the variants, accuracy against milliseconds: left these runs, right the paper",
    "figure_6": "three images in rows, a column a model, brighter where it looks; what is asked for is outlined",
    "inference_time": "left each model's milliseconds, right what share of them each stage takes",
    "corpus_annotations": "images in rows, beside each its label map and the boxes of a detector",
    "corpus_pairs": "images, each with a sentence of its own above and another's below",
    "corpus_colours": "dots, the mean colours of regions by class, which overlap",
}
"""What a picture shows, for those who do not see it; its numbers are in the CSV."""

_BEGINNING = "<!doctype html><html lang=en><meta charset=utf-8><title>"
"""By which a page is known as this module's; an interrupted write leaves none."""

_LONG = 20
"""Rows from which on a table is folded away."""

_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "img{max-width:100%;background:#fff;border-radius:.4rem}.wide{overflow-x:auto}"
    "table{border-collapse:collapse;font-size:.9rem}td,th{border:1px solid #8886;padding:.25rem .6rem;text-align:left}"
    "td:first-child{min-width:11rem}"
    "figure{margin:0}code{font-size:.85em;overflow-wrap:anywhere}.note{opacity:.8;font-size:.9rem}"
    "nav{columns:20rem 2;font-size:.9rem}nav ul{margin:0}"
)


def write_index(root: Path) -> Path:
    """Write `root/index.html` over root/figures and root/tables: those of `TITLES` first, then the rest by name."""
    figures = {p.stem: p for p in sorted((root / "figures").glob("*.png"))}
    tables = {p.stem: p for p in sorted((root / "tables").glob("*.csv"))}
    if not figures and not tables:
        raise UserError(f"{root} has no figures/ and no tables/: name the results of a profile, such as results/tiny")
    page = root / "index.html"
    if page.exists() and not page.read_bytes().startswith(_BEGINNING.encode()):
        raise UserError(f"{page} is a page that this command did not write: move it, or name another folder")
    titles = {name: words for section in TITLES.values() for name, words in section.items()}
    others = {name: name.replace("_", " ") for name in sorted({*figures, *tables} - set(titles))}
    named = {name: html.escape(words) for name, words in (titles | others).items() if name in figures or name in tables}
    links = "".join(f"<li><a href='#{html.escape(name)}'>{words}</a></li>" for name, words in named.items())
    runs = list(read_records(root, "*").values())
    heading = (
        f"{root.name}: {CHECK_ONLY}" if any(is_check(run["profile"]) for run in runs) else f"Results of {root.name}"
    )
    parts = [
        f"<h1>{html.escape(heading)}</h1>",
        f"<p class=note>{html.escape(_provenance(runs))}</p>",
        f"<nav><ul>{links}</ul></nav>",
    ]
    for name, words in named.items():
        parts.append(f"<h2 id='{html.escape(name)}'>{words}</h2>")
        made = _made(root, name, runs)
        if name in figures:
            seen = f"{words}: {html.escape(_SEEN[name])}" if name in _SEEN else words
            parts.append(
                f"<figure><img src='figures/{name}.png' alt='{seen}' loading=lazy><figcaption class=note>"
                f"<a href='figures/{name}.pdf'>PDF</a> · <a href='figures/{name}.csv'>data</a>{made}"
                "</figcaption></figure>"
            )
        if name in tables:
            frame = pd.read_csv(tables[name], dtype=str, keep_default_na=False)
            table = f"<div class=wide>{frame.to_html(index=False, border=0)}</div>"
            if len(frame) > _LONG:
                table = f"<details><summary>all {len(frame)} rows</summary>{table}</details>"
            parts.append(table)
            parts.append(
                f"<p class=note><a href='tables/{name}.csv'>CSV</a> · <a href='tables/{name}.md'>Markdown</a>{made}</p>"
            )
    body = "\n".join(parts)
    head = f"{_BEGINNING}{html.escape(root.name)}</title>"
    head += f"<meta name=viewport content='width=device-width,initial-scale=1'><style>{_STYLE}</style>"
    write_text(page, f"{head}{body}</html>\n")
    return page


def _made(root: Path, name: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """What stands below a figure or table: notebook, data, command, commits."""
    notebook = next((notebook for notebook, page in TITLES.items() if name in page), "")
    if not notebook:
        return ""
    words = ["vlp", "run", f"notebooks/{notebook}.ipynb", "executed.ipynb"]
    words += [f"-p profile={profile}" for profile in sorted({run["profile"] for run in runs})[:1]]
    words += ["-p data_root=DATA"] if (root / DATA_ROOT).is_file() else []
    executed = f"<a href='notebooks/{notebook}.ipynb'>{notebook}</a>"
    by = executed if (root / "notebooks" / f"{notebook}.ipynb").is_file() else notebook
    commits = f" · code {_commits(runs)}" if runs else ""
    return f" · {by} on {html.escape(_corpus(runs))}: <code>{html.escape(' '.join(words))}</code>{html.escape(commits)}"


def _corpus(runs: Sequence[Mapping[str, Any]]) -> str:
    return "the embedded synthetic corpus" if all(run["synthetic"] for run in runs) else "real images"


def _commits(runs: Sequence[Mapping[str, Any]]) -> str:
    """The code that made the runs, each commit once."""
    made = {f"{(run['commit'] or 'unknown')[:10]}{' (with changes)' if run['dirty'] else ''}" for run in runs}
    return ", ".join(sorted(made))


def _provenance(runs: Sequence[Mapping[str, Any]]) -> str:
    """Where the numbers come from, in a sentence."""
    if not runs:
        return "No finished runs."
    seeds = sorted({run["seed"] for run in runs})
    hours = sum(run["seconds"] for run in runs) / 3600
    devices = sorted({f"{run['device']}, {run['threads']} thread(s)" for run in runs})
    return (
        f"{len(runs)} runs, seeds {', '.join(map(str, seeds))}, on {_corpus(runs)}; {hours:.2f} hours of computation "
        f"on {'; '.join(devices)}; code {_commits(runs)}."
    )
