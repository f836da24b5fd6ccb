"""One page with every figure and table of a profile."""

from __future__ import annotations

import html
from pathlib import Path

import pandas as pd

from vlp_lib.errors import UserError
from vlp_lib.figures.tables import title
from vlp_lib.io import write_text
from vlp_lib.study.runs import CHECK_ONLY, is_check, read_records

TITLES = {
    "figure_1": "Figure 1 – validation matching loss: region features, raw pixels, and a visual loss",
    "figure_5_left": "Figure 5 (left) – convergence of every variant",
    "order": "The paper's order of convergence, pair by pair",
    "ablations": "Named runs, each against its own variant",
    "convergence": "Images until the matching loss falls below a threshold",
    "claims_overview": "The paper's claims: how many comparisons confirm each",
    "claims": "The paper's claims, comparison by comparison",
    "table_i": title("I"),
    "table_ii": title("II"),
    "figure_5_right": "Figure 5 (right) – inference time and VQA accuracy",
    "inference_time": "Inference time of ours, region pipelines and peers",
    "cost": "Table I, measured – what each visual loss costs",
    "table_iii": title("III"),
    "table_iv": title("IV"),
    "table_v": title("V"),
    "table_vi": title("VI"),
    "figure_6": "Figure 6 – where the model looks",
    "pointing": "Beside figure 6 – how much of the attention lies on what is asked for",
    "corpus_annotations": "The corpus: images, label maps, detections",
    "corpus_pairs": "The corpus: matched and mismatched pairs",
    "corpus_colours": "The corpus: mean colours do not give classes away",
}
"""What stands on the page, in this order."""

_LONG = 20
"""Rows from which on a table is folded away."""

_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "img{max-width:100%;background:#fff;border-radius:.4rem}.wide{overflow-x:auto}"
    "table{border-collapse:collapse;font-size:.9rem}td,th{border:1px solid #8886;padding:.25rem .6rem;text-align:left}"
    "td:first-child{min-width:11rem}"
    ".note{opacity:.75}nav{columns:20rem 2;font-size:.9rem}nav ul{margin:0}"
)


def write_index(root: Path) -> Path:
    """Write `root/index.html` over root/figures and root/tables: those of `TITLES` first, then the rest by name."""
    figures = {p.stem: p for p in sorted((root / "figures").glob("*.png"))}
    tables = {p.stem: p for p in sorted((root / "tables").glob("*.csv"))}
    if not figures and not tables:
        raise UserError(f"{root} has no figures/ and no tables/: name the results of a profile, such as results/tiny")
    if (root / "index.html").exists() and not _is_ours(root / "index.html"):
        raise UserError(
            f"{root / 'index.html'} is a page that this command did not write: move it, or name another folder"
        )
    named = {name: html.escape(words) for name, words in _titles({*figures, *tables}).items()}
    links = "".join(f"<li><a href='#{html.escape(name)}'>{words}</a></li>" for name, words in named.items())
    checks = {run["profile"] for run in read_records(root, "*").values() if is_check(run["profile"])}
    heading = f"{root.name}: {CHECK_ONLY}" if checks else f"Results of {root.name}"
    parts = [
        f"<h1>{html.escape(heading)}</h1>",
        f"<p class=note>{html.escape(_provenance(root))}</p>",
        f"<nav><ul>{links}</ul></nav>",
    ]
    for name, words in named.items():
        parts.append(f"<h2 id='{html.escape(name)}'>{words}</h2>")
        if name in figures:
            parts.append(
                f"<img src='figures/{name}.png' alt='{words}'><p class=note>"
                f"<a href='figures/{name}.pdf'>PDF</a> · <a href='figures/{name}.csv'>data</a></p>"
            )
        if name in tables:
            frame = pd.read_csv(tables[name], dtype=str, keep_default_na=False)
            table = f"<div class=wide>{frame.to_html(index=False, border=0)}</div>"
            if len(frame) > _LONG:
                table = f"<details><summary>all {len(frame)} rows</summary>{table}</details>"
            parts.append(table)
            parts.append(
                f"<p class=note><a href='tables/{name}.csv'>CSV</a> · <a href='tables/{name}.md'>Markdown</a></p>"
            )
    body = "\n".join(parts)
    head = f"<meta charset=utf-8><title>{html.escape(root.name)}</title>"  # as `_is_ours` knows it
    head += f"<meta name=viewport content='width=device-width,initial-scale=1'><style>{_STYLE}</style>"
    write_text(root / "index.html", f"<!doctype html><html lang=en>{head}{body}</html>\n")
    return root / "index.html"


def _is_ours(page: Path) -> bool:
    """Whether this module wrote a page, now or in an earlier version; an interrupted write leaves none."""
    return page.read_bytes().startswith(b"<!doctype html><html lang=en><meta charset=utf-8><title>")


def _titles(present: set[str]) -> dict[str, str]:
    """The title of each figure and table that there is, in the order of the page."""
    titles = {name: words for name, words in TITLES.items() if name in present}
    return titles | {name: name.replace("_", " ") for name in sorted(present - set(titles))}


def _provenance(root: Path) -> str:
    """Where the numbers come from, in a sentence."""
    runs = read_records(root, "*").values()
    if not runs:
        return "No finished runs."
    seeds = sorted({run["seed"] for run in runs})
    corpus = "the embedded synthetic corpus" if all(run["synthetic"] for run in runs) else "real images"
    hours = sum(run["seconds"] for run in runs) / 3600
    commits = sorted(
        {f"{(run['commit'] or 'unknown')[:10]}{' (with changes)' if run['dirty'] else ''}" for run in runs}
    )
    devices = sorted({f"{run['device']}, {run['threads']} thread(s)" for run in runs})
    return (
        f"{len(runs)} runs, seeds {', '.join(map(str, seeds))}, on {corpus}; {hours:.2f} hours of computation on "
        f"{'; '.join(devices)}; code {', '.join(commits)}."
    )
