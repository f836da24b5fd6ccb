"""What the documents quote of the committed results is what stands there; new results make the sentence fail."""

import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from vlp_lib.run import reference_root
from vlp_lib.study.runs import label, read_records, read_runs
from vlp_lib.study.verdicts import CONFIRMED, CONTRADICTED, DECIDED, difference
from vlp_lib.variants import VARIANTS

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}


@pytest.fixture(scope="module")
def pretrained():
    return list(read_records(reference_root(), "pretrain").values())


@pytest.fixture(scope="module")
def convergence():
    return pd.read_csv(reference_root() / "tables/convergence.csv").set_index("variant")


def page(name):
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def entry_of_the_log(title):
    """What the pattern of its title catches, and its text."""
    log = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    return re.search(rf"## [\d-]+ · Reference results, {title}\n(.*?)\n## ", log, re.DOTALL).groups()


def seeds(pretrained):
    return sorted({run["seed"] for run in pretrained})


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("README.md", r"every variant on the embedded corpus, (\w+) seeds? each"),
        ("docs/running.md", r"naive model's images \((\w+) seeds?\)"),
    ],
)
def test_as_many_seeds_as_are_said(name, sentence, pretrained):
    fewest = min(Counter(run["name"] for run in pretrained).values())
    assert re.search(sentence, page(name))[1] == NUMBERS[fewest] == NUMBERS[len(seeds(pretrained))]


def test_what_the_reference_is_made_of(pretrained):
    said = page("results/README.md")
    assert f"--seeds {' '.join(map(str, seeds(pretrained)))}` gave" in said.replace('"', "")
    assert {run["name"] for run in pretrained} == {*VARIANTS, "segl+ssul"} and "`segl+ssul`, a mix" in said


def test_segl_takes_the_share_of_the_naive_models_images_that_is_said(convergence):
    images = convergence["images until 0.5"].str.replace(",", "").str.partition(" ±")[0]
    share = float(images["SEGL"]) / float(images["Naive (ViT)"])
    assert re.search(r"SEGL in ([\w ]+) of the naive model's images", page("docs/running.md"))[1] == "less than half"
    assert share < 0.5


def test_a_pretraining_takes_the_minutes_that_are_said(pretrained):
    took = [run["seconds"] / 60 for run in pretrained]
    low, high = map(int, re.search(r"one pretraining (\d+) to (\d+)", page("docs/running.md")).groups())
    assert low <= min(took) + 0.5 and max(took) - 0.5 <= high


def test_the_tables_of_the_log_are_the_references(pretrained, convergence):
    """Of the newest entry: who wins by how much, and what of it stands."""
    of_seeds, entry = entry_of_the_log(r"seeds ([\d, ]+)")
    assert [int(seed) for seed in of_seeds.split(",")] == seeds(pretrained)
    rows = re.findall(r"^\| ([^|]+) \| (\d) \| ([^|]+) \| ([^|]+) \|$", entry, re.MULTILINE)
    assert len(rows) == len(convergence)
    for name, count, images, loss in rows:
        row = convergence.loc[name]
        assert [int(count), images, loss] == [row["seeds"], row["images until 0.5"], row["final matching loss"]]
    claims = pd.read_csv(reference_root() / "tables/claims.csv")
    order = pd.read_csv(reference_root() / "tables/order.csv").set_index("the paper's claim")
    for row in claims[claims["claim"].isin(["convergence", "vqa"])].itertuples():
        verdict = f"{row.verdict}, with Holm, too" if row.survives and row.verdict in DECIDED else row.verdict
        numbers = f"{row.estimate:+.1f} ({row.low:+.1f} to {row.high:+.1f})"
        numbers = numbers if row.claim == "vqa" else order.loc[row.comparison, "ratio of images (95 %)"]
        assert f"| {row.comparison} | {numbers} | {verdict} |" in entry.splitlines()
    counts = [(claims["verdict"] == verdict).sum() for verdict in (CONFIRMED, CONTRADICTED)]
    said = re.search(r"Of (\d+) comparisons (\d+) are confirmed, (\d+) contradicted, (\d+) not decided", entry)
    assert [int(number) for number in said.groups()] == [len(claims), *counts, len(claims) - sum(counts)]
    stand = pd.read_csv(reference_root() / "tables/claims_overview.csv")["decided, with Holm"].sum()
    assert int(re.search(r"; (\d+) of the decided ones stand", entry)[1]) == stand


def test_the_named_runs_of_the_log_are_the_references():
    """Of the study of named runs: where each ends, and every interval that a sentence quotes."""
    lesson = ROOT / "results/reference/lesson"
    log = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    entry = re.search(r"\n## [\d-]+ · What ends the plateau.*?\n(.*?)\n## ", log, re.DOTALL)[1]
    ends = pd.read_csv(lesson / "figures/ablations.csv").set_index("name")
    rows = re.findall(r"^\| ([^|]+) \|[^|]*\| (\d) \| (\d) \| (> )?([\d,]+) \| ([^|]+) \|$", entry, re.MULTILINE)
    assert [row[0] for row in rows] == sorted(map(label, ends.index), key=[row[0] for row in rows].index)
    of_label = {label(name): row for name, row in ends.iterrows()}
    for name, seeds_run, left, stays, images, loss in rows:
        row = of_label[name]
        assert [int(seeds_run), int(left), bool(stays)] == [row["seeds"], row["left"], row["left"] < row["seeds"]]
        assert float(images.replace(",", "")) == pytest.approx(row["images"], abs=0.6)
        assert loss == f"{row['loss']:.3f} ± {(row['loss_high'] - row['loss_low']) / 2:.3f}"
    written = set(pd.read_csv(lesson / "tables/ablations.csv")["final matching loss"])
    last = read_runs(lesson, "pretrain").sort_values("samples").groupby(["name", "seed"])["val_itm"].last().unstack(0)
    for pair in (("spl_beside", "spl_large"), ("ssul_deep", "ssul"), ("ssul", "naive_vit")):
        written.add(difference(*last[list(pair)].dropna().to_numpy().T).written(3))
    quoted = re.findall(r"[-+]\d\.\d{3} ± \d\.\d{3}", entry)
    assert len(quoted) > 15 and set(quoted) <= written
