import hashlib
import json

import pytest

from vlp_lib.errors import UserError
from vlp_lib.run import project_root
from vlp_lib.study.publish import MANIFEST, MOST_BYTES, publish


@pytest.fixture
def results(tmp_path):
    root = tmp_path / "tiny"
    said = [f"val: {root}/finetune-vqa\n", f"{project_root()}/vlp_lib/a.py:3: a warning\n"]
    papermill = {"input_path": "/somewhere/a.ipynb", "output_path": "/b/c.ipynb"}
    notebook = {"cells": [{"outputs": [{"text": said}]}], "metadata": {"papermill": papermill}}
    for name, text in {
        "index.html": "page",
        "figures/figure_1.png": "picture",
        "tables/order.csv": "a,b",
        "pretrain/segl/seed0/run.json": json.dumps({"weights": str(root / "pretrain")}),
        "pretrain/segl/seed0/metrics.jsonl": "{}",
        "finetune-vqa/segl/seed0/items.npz": "scores",
        "pretrain/segl/seed0/model.safetensors": "weights",
        "corpus/corpus.json": "{}",
        "notebooks/a.ipynb": json.dumps(notebook),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_shares_records_and_no_weights_corpus_or_paths(results, tmp_path):
    target = tmp_path / "reference"
    (results / "figures" / "stale.csv").write_text("old")
    assert target / "figures" / "stale.csv" in publish(results, target)
    (results / "figures" / "stale.csv").unlink()
    names = {file.relative_to(target).as_posix() for file in publish(results, target)}
    assert names == {
        "index.html",
        "figures/figure_1.png",
        "tables/order.csv",
        "pretrain/segl/seed0/run.json",
        "pretrain/segl/seed0/metrics.jsonl",
        "finetune-vqa/segl/seed0/items.npz",
        "notebooks/a.ipynb",
    }
    assert not (target / "figures" / "stale.csv").exists()
    notebook = (target / "notebooks" / "a.ipynb").read_text()
    assert "somewhere" not in notebook
    assert '"val: results/tiny/finetune-vqa\\n"' in notebook and '"vlp_lib/a.py:3: a warning\\n"' in notebook
    assert json.loads((target / "pretrain/segl/seed0/run.json").read_text()) == {"weights": "results/tiny/pretrain"}
    for file in target.rglob("*"):
        assert file.is_dir() or str(tmp_path) not in file.read_text()


def test_shares_the_notebooks_of_the_first_seed(results, tmp_path):
    text = (results / "notebooks" / "a.ipynb").read_text()
    shared = {"10_pretrain-segl-seed9", "10_pretrain-ssul-seed10", "11_finetune-vqa-seed9"}
    for name in ("10_pretrain-segl-seed10", *shared):
        (results / "notebooks" / f"{name}.ipynb").write_text(text)
    publish(results, tmp_path / "reference")
    assert {file.stem for file in (tmp_path / "reference" / "notebooks").iterdir()} == {"a", *shared}


def test_refuses_large_files_and_empty_results(results, tmp_path):
    (results / "figures" / "large.png").write_bytes(bytes(MOST_BYTES))
    with pytest.raises(UserError, match=r"large\.png"):
        publish(results, tmp_path / "reference")
    with pytest.raises(UserError, match="holds no results"):
        publish(tmp_path / "nothing", tmp_path / "reference")


def test_paths_of_the_data_are_not_shared(results, tmp_path):
    others = "/data/coco2 and /data/coco-small are other folders"
    record = {"data_root": "/data/coco", "notes": ["/data/coco/vqav2, train: 3 images are missing", others]}
    (results / "pretrain" / "segl" / "seed0" / "run.json").write_text(json.dumps(record))
    notebook = json.loads((results / "notebooks" / "a.ipynb").read_text())
    notebook["metadata"]["papermill"]["parameters"] = {"data_root": "/scratch/me/flickr30k/"}
    notebook["cells"].append({"source": ['data_root = "/scratch/me/flickr30k/"'], "outputs": []})
    (results / "notebooks" / "a.ipynb").write_text(json.dumps(notebook))
    publish(results, tmp_path / "reference")
    shared = json.loads((tmp_path / "reference" / "pretrain/segl/seed0/run.json").read_text())
    assert shared == {"data_root": "coco", "notes": ["coco/vqav2, train: 3 images are missing", others]}
    assert "scratch" not in (tmp_path / "reference" / "notebooks" / "a.ipynb").read_text()


def everything_in(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


OWN = ("tiny", "tiny/", "tiny/../tiny", ".", "tiny/pretrain", "tiny/corpus", "tiny/new", "link", "link/new")
"""What is, holds or lies in the results that are to be shared."""


@pytest.mark.parametrize("place", [*OWN, "papers", "file", "published", "changed", "linked", "forged"])
def test_empties_no_folder_that_it_did_not_write(results, tmp_path, place):
    (tmp_path / "link").symlink_to(results)
    (tmp_path / "papers" / "deep").mkdir(parents=True)
    (tmp_path / "papers" / "deep" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    publish(results, tmp_path / "published")
    (tmp_path / "published" / "figures" / "of_my_own.txt").write_text("put there by hand")
    publish(results, tmp_path / "changed")
    (tmp_path / "changed" / "index.html").write_text("improved by hand")
    publish(results, tmp_path / "linked")
    (tmp_path / "linked" / "thesis.tex").symlink_to(tmp_path / "papers" / "deep" / "thesis.tex")
    (tmp_path / "forged").mkdir()
    (tmp_path / "forged" / "thesis.tex").write_text("years of work")
    (tmp_path / "forged" / MANIFEST).write_text("thesis.tex\n")
    before = everything_in(tmp_path)
    with pytest.raises(UserError, match=r"another folder|give a folder"):
        publish(results, tmp_path / place)
    assert everything_in(tmp_path) == before


def test_publishes_again_into_its_own_folder_and_into_an_empty_one(results, tmp_path):
    (tmp_path / "reference").mkdir()
    first = publish(results, tmp_path / "reference")
    named = dict(line.split("  ")[::-1] for line in (tmp_path / "reference" / MANIFEST).read_text().splitlines())
    assert list(named) == [file.relative_to(tmp_path / "reference").as_posix() for file in first]
    assert set(named.values()) == {hashlib.sha256(file.read_bytes()).hexdigest() for file in first}
    assert publish(results, tmp_path / "reference") == first


def test_a_disk_that_is_full_leaves_what_was_published(results, tmp_path, monkeypatch):
    publish(results, tmp_path / "reference")
    before = everything_in(tmp_path)

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("vlp_lib.study.publish.shutil.copyfile", full)
    with pytest.raises(UserError, match=r"cannot write .*reference \(No space"):
        publish(results, tmp_path / "reference")
    assert everything_in(tmp_path) == before
