"""The loader benchmark: what is measured and written; never how fast it was."""

import dataclasses
import json

import pytest
import torch

from vlp_lib.bench import loader as loading
from vlp_lib.errors import UserError
from vlp_lib.io import read_text

NAMES = ["plain_pil", "plain_tensor", "files", "prepared_cpu", "prepared"]


def test_all_loaders_are_measured_at_both_sizes(tiny_corpus, small_profile, tmp_path):
    records = tuple(dataclasses.replace(r, width=48, height=40) for r in tiny_corpus.records)
    reduced = dataclasses.replace(tiny_corpus, records=records)
    threads = torch.get_num_threads()
    rows = loading.bench_loader(reduced, small_profile, 4, 2, tmp_path)
    assert torch.get_num_threads() == threads
    assert [(row["files"], row["name"]) for row in rows] == [
        (kind, name) for kind in ("as stored", "as declared") for name in NAMES
    ]
    assert [(row["width"], row["height"]) for row in rows[::5]] == [(32, 32), (48, 40)]
    for row in rows:
        assert (row["images"], row["runs"]) == (4, 2)
        assert 0 < row["p5"] <= row["rate"] <= row["p95"]
        assert row["cores"] == pytest.approx(1750 / row["rate"], rel=0.1, abs=0.1)
    assert rows[0]["times_plain"] == rows[5]["times_plain"] == 1
    written = json.loads((tmp_path / "loader.json").read_text())
    assert written["rows"] == rows
    assert written["corpus"] == "the embedded corpus"
    assert str(tiny_corpus.root) not in (tmp_path / "loader.json").read_text()
    table = [line for line in read_text(tmp_path / "loader.md").splitlines() if line.startswith("|")]
    assert len(table) == 10 + 2
    assert "| as declared | 48 | 40 |" in table[-1]
    assert "cores for 1,750 images/s" in table[0]
    assert len(read_text(tmp_path / "loader.csv").splitlines()) == 10 + 1


def test_nothing_to_measure(tiny_corpus, small_profile, tmp_path):
    with pytest.raises(UserError, match="images is 1 and runs 5: give at least 2 and 1"):
        loading.bench_loader(tiny_corpus, small_profile, 1, 5, tmp_path)
