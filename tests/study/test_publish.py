import json

import pytest

from vlp_lib.errors import UserError
from vlp_lib.run import project_root
from vlp_lib.study.publish import MOST_BYTES, publish


@pytest.fixture
def results(tmp_path):
    root = tmp_path / "tiny"
    for name, text in {
        "index.html": "page",
        "figures/figure_1.png": "picture",
        "tables/order.csv": "a,b",
        "pretrain/segl/seed0/run.json": json.dumps({"weights": str(root / "pretrain")}),
        "pretrain/segl/seed0/metrics.jsonl": "{}",
        "pretrain/segl/seed0/model.safetensors": "weights",
        "corpus/corpus.json": "{}",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    notebook = {
        "cells": [
            {"outputs": [{"text": [f"val: {root}/finetune-vqa\n", f"{project_root()}/vlp_lib/a.py:3: a warning\n"]}]}
        ],
        "metadata": {"papermill": {"input_path": "/somewhere/a.ipynb", "output_path": "/b/c.ipynb"}},
    }
    (root / "notebooks").mkdir()
    (root / "notebooks" / "a.ipynb").write_text(json.dumps(notebook))
    return root


def test_shares_records_and_no_weights_corpus_or_paths(results, tmp_path):
    target = tmp_path / "reference"
    target.mkdir()
    (target / "stale.txt").write_text("old")
    names = {file.relative_to(target).as_posix() for file in publish(results, target)}
    assert names == {
        "index.html",
        "figures/figure_1.png",
        "tables/order.csv",
        "pretrain/segl/seed0/run.json",
        "pretrain/segl/seed0/metrics.jsonl",
        "notebooks/a.ipynb",
    }
    assert not (target / "stale.txt").exists()
    notebook = (target / "notebooks" / "a.ipynb").read_text()
    assert "somewhere" not in notebook
    assert '"val: results/tiny/finetune-vqa\\n"' in notebook and '"vlp_lib/a.py:3: a warning\\n"' in notebook
    assert json.loads((target / "pretrain/segl/seed0/run.json").read_text()) == {"weights": "results/tiny/pretrain"}
    for file in target.rglob("*"):
        assert file.is_dir() or str(tmp_path) not in file.read_text()


def test_shares_the_notebooks_of_the_first_seed(results, tmp_path):
    text = (results / "notebooks" / "a.ipynb").read_text()
    for name in (
        "10_pretrain-segl-seed10",
        "10_pretrain-segl-seed9",
        "10_pretrain-ssul-seed10",
        "11_finetune-vqa-seed9",
    ):
        (results / "notebooks" / f"{name}.ipynb").write_text(text)
    publish(results, tmp_path / "reference")
    assert {file.stem for file in (tmp_path / "reference" / "notebooks").iterdir()} == {
        "a",
        "10_pretrain-segl-seed9",
        "10_pretrain-ssul-seed10",
        "11_finetune-vqa-seed9",
    }


def test_refuses_large_files_and_empty_results(results, tmp_path):
    (results / "figures" / "large.png").write_bytes(bytes(MOST_BYTES))
    with pytest.raises(UserError, match=r"large\.png"):
        publish(results, tmp_path / "reference")
    with pytest.raises(UserError, match="holds no results"):
        publish(tmp_path / "nothing", tmp_path / "reference")
