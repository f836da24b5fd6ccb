"""What the documents quote of the committed results is what stands there; new results make the sentence fail."""

import re
from pathlib import Path

import pandas as pd
import pytest

from vlp_lib.run import reference_root
from vlp_lib.study.runs import label, read_records
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
    assert re.search(sentence, page(name))[1] == NUMBERS[len(seeds(pretrained))]


def test_what_the_reference_is_made_of(pretrained):
    said = page("results/README.md")
    assert f"--seeds {' '.join(map(str, seeds(pretrained)))}` gave" in said.replace('"', "")
    assert {run["name"] for run in pretrained} == {*VARIANTS, "segl+ssul"} and "`segl+ssul`, a mix" in said


def test_segl_takes_the_share_of_the_naive_models_images_that_is_said(convergence):
    images = convergence["images until 0.5"].str.replace(",", "").str.partition(" ±")[0]
    share = float(images["SEGL"]) / float(images["Naive (ViT)"])
    assert re.search(r"SEGL in ([\w ]+) of the naive model's images", page("docs/running.md"))[1] == "two fifths"
    assert 0.35 <= share <= 0.45


def test_a_pretraining_takes_the_minutes_that_are_said(pretrained):
    took = [run["seconds"] / 60 for run in pretrained]
    low, high = map(int, re.search(r"one pretraining (\d+) to (\d+)", page("docs/running.md")).groups())
    assert low <= min(took) + 0.5 and max(took) - 0.5 <= high


def test_the_table_of_the_log_is_the_references(pretrained, convergence):
    """As long as the committed results are those that the log speaks of."""
    of_seeds, entry = entry_of_the_log(r"seeds ([\d, ]+)")
    if [int(seed) for seed in of_seeds.split(",")] != seeds(pretrained):
        pytest.skip("the committed results are newer than this entry of the log")
    rows = re.findall(r"^\| ([^|]+) \| (\d) \| ([^|]+) \| ([^|]+) \|$", entry, re.MULTILINE)
    assert len(rows) == len(convergence)
    for name, count, images, loss in rows:
        row = convergence.loc[name]
        assert [int(count), images, loss] == [row["seeds"], row["images until 0.5"], row["final matching loss"]]


def test_the_accuracies_of_the_log_are_the_references():
    """VQA was answered with seed 0 only, whose entry of the log has the scores."""
    (entry,) = entry_of_the_log("seed 0")
    records = [run for run in read_records(reference_root(), "finetune-vqa").values() if run["seed"] == 0]
    accuracy = {label(run["name"]): run["test"]["overall"] for run in records}
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \| ([\d.]+) \|$", entry, re.MULTILINE)
    assert len(rows) == len(accuracy)
    for name, score in rows:
        assert float(score) == pytest.approx(accuracy[name], abs=0.006)
