"""The loader benchmark: what is measured and written; never how fast it was."""

import json

import pytest
import torch

from vlp_lib.bench import loader as loading
from vlp_lib.errors import UserError
from vlp_lib.io import read_text


def test_all_loaders_are_measured(tiny_corpus, small_profile, tmp_path):
    threads = torch.get_num_threads()
    rows = loading.bench_loader(tiny_corpus, small_profile, 4, 2, tmp_path)
    assert torch.get_num_threads() == threads
    assert [row["name"] for row in rows] == ["plain_pil", "plain_tensor", "files", "prepared_cpu", "prepared"]
    for row in rows:
        assert (row["images"], row["runs"], row["width"], row["height"]) == (4, 2, 32, 32)
        assert 0 < row["p5"] <= row["rate"] <= row["p95"]
        assert row["cores"] == pytest.approx(1750 / row["rate"], rel=0.1, abs=0.1)
    assert rows[0]["times_plain"] == 1
    written = json.loads((tmp_path / "loader.json").read_text())
    assert written["rows"] == rows
    assert written["corpus"] == "the embedded corpus"
    assert str(tiny_corpus.root) not in (tmp_path / "loader.json").read_text()
    table = [line for line in read_text(tmp_path / "loader.md").splitlines() if line.startswith("|")]
    assert len(table) == 5 + 2
    assert "cores for 1,750 images/s" in table[0]
    assert len(read_text(tmp_path / "loader.csv").splitlines()) == 5 + 1


def test_nothing_to_measure(tiny_corpus, small_profile, tmp_path):
    with pytest.raises(UserError, match="images is 1 and runs 5: give at least 2 and 1"):
        loading.bench_loader(tiny_corpus, small_profile, 1, 5, tmp_path)
