"""From the official files to scores, on real ones, with the commands that a user gives; at the smallest scale.

Real are the photographs of COCO with all their annotations, the questions and answers of VQAv2, NLVR's statements and
pictures, a VCR record, the sentences of Flickr30k, Visual Genome's regions and a Bottom-Up TSV. Pixels that the folder
of real files lacks (Flickr30k's, Visual Genome's, VCR's) are COCO's photographs under their names.
"""

import gzip
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vlp_lib import cli
from vlp_lib.corpora.joined import JoinedCorpus
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.errors import UserError
from vlp_lib.io import read_json, read_lines
from vlp_lib.run import Run
from vlp_lib.tasks.retrieval import gallery_of
from vlp_lib.trainers.zero_shot import SCORES, retrieve

DETECTOR = "fasterrcnn_mobilenet_v3_large_320_fpn"
VARIANT = "segl+spl_small"


def command(capsys, *words) -> str:
    """What a command prints; it must succeed."""
    capsys.readouterr()
    status = cli.main([str(word) for word in words])
    said = capsys.readouterr()
    assert status == 0, said.err
    return said.out


def unpacked(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def lay_out(shared: Path, root: Path) -> None:
    """All data sets below one folder, in their official layouts."""
    photographs = sorted((shared / "coco/images/val2017").glob("*.jpg"))
    coco = root / "coco"
    coco.mkdir(parents=True)
    for name in ("annotations", "images", "stuffthingmaps", "dataset_coco_karpathy_format.json"):
        (coco / name).symlink_to(shared / "coco" / name)
    (root / "vqav2").symlink_to(shared / "coco/vqav2")
    (root / "nlvr").symlink_to(shared / "nlvr/nlvr")

    source, record = shared / "vcr", json.loads((shared / "vcr/val.jsonl").read_text().splitlines()[0])
    picture = root / "vcr/vcr1images" / record["img_fn"]
    picture.parent.mkdir(parents=True)
    shutil.copy(photographs[0], picture)
    shutil.copy(source / "vcr1images" / record["metadata_fn"], picture.with_suffix(".json"))
    # The one real record in three places: its words are real, its score is none.
    for split in ("train", "val"):
        shutil.copy(source / "val.jsonl", root / f"vcr/{split}.jsonl")

    flickr, lines = root / "flickr30k", []
    (flickr / "flickr30k-images").mkdir(parents=True)
    texts = shared / "flickr30k/multi30k/task2"
    for split, names, count in (("train", "train", 12), ("val", "val", 6), ("test", "test_2016", 10)):
        files = (texts / f"image_splits/{names}_images.txt").read_text().split()[:count]
        sentences = [unpacked(texts / f"raw/{names}.{k}.en.gz").splitlines() for k in range(1, 6)]
        for i, name in enumerate(files):
            shutil.copy(photographs[len(lines) // 5], flickr / "flickr30k-images" / name)
            lines += [f"{name}#{k}\t{sentences[k][i]}" for k in range(5)]
        (flickr / f"{split}.txt").write_text("\n".join(name.removesuffix(".jpg") for name in files) + "\n")
    (flickr / "results_20130124.token").write_text("\n".join(lines) + "\n")

    genome = root / "vg"
    (genome / "VG_100K").mkdir(parents=True)
    regions = unpacked(shared / "vg/region_graphs.json.gz")
    (genome / "region_descriptions.json").write_text(regions)
    described = []
    for photograph, image in zip(reversed(photographs), json.loads(regions), strict=False):
        shutil.copy(photograph, genome / f"VG_100K/{image['image_id']}.jpg")
        width, height = Image.open(photograph).size
        described.append(
            {"image_id": image["image_id"], "width": width, "height": height, "coco_id": None, "flickr_id": None}
        )
    (genome / "image_data.json").write_text(json.dumps(described))


def some_of_coco(coco: Path, root: Path) -> Path:
    """Every tenth photograph of COCO with all its annotations: a detector takes its time."""
    root.mkdir()
    (root / "annotations").symlink_to(coco / "annotations")
    for place, photograph in enumerate(sorted((coco / "images").glob("*/*.jpg"))):
        if place % 10 == 0:
            link = root / "images" / photograph.parent.name / photograph.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(photograph)
    return root


def assert_vqa_is_scored_alike(data: Path, chosen: Run, tmp_path: Path, capsys) -> None:
    """The predictions' file, given to `vlp evaluate` with the questions that it answers, scores as the run says."""
    run = chosen.folder("finetune-vqa")
    (predictions,) = (run / "predictions").glob("*val*.json")
    answered = {row["question_id"] for row in read_json(predictions)}
    assert answered
    words = []
    for option, key in (("--questions", "questions"), ("--annotations", "annotations")):
        (source,) = (data / "vqav2").glob(f"*_{key}.json")
        official = read_json(source)
        kept = [row for row in official[key] if row["question_id"] in answered]
        (tmp_path / source.name).write_text(json.dumps({**official, key: kept}))
        words += [option, tmp_path / source.name]
    report = json.loads(command(capsys, "evaluate", "vqa", *words, "--results", predictions))
    assert report["overall"] == read_json(run / "run.json")["val"]["overall"]


@pytest.fixture
def data(shared_data, tmp_path):
    root = tmp_path / "all"
    lay_out(shared_data, root)
    return root


def test_the_whole_chain_on_real_files(data, shared_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VLP_RESULTS", str(tmp_path / "results"))
    chosen = Run("smoke", VARIANT, data_root=str(data))

    # What is there, and that nothing downstream is pretrained on.
    said = command(capsys, "data", "check", "--root", data, "--write-splits")
    assert re.search(r"\b0 of [\d,]+ pretraining images", said)
    for name in ("coco", "flickr30k", "vg"):
        assert f"sentences of {name}" in said
    trained = (data / "splits").glob("*train*")
    assert sum(len(path.read_text().split()) for path in trained) > 500

    # Labels of a detector, and an import of another's.
    from torchvision.models import get_model

    torch.manual_seed(0)
    detector = get_model(DETECTOR, weights=None, weights_backbone=None)
    # Sure of one class: else each of its proposals would be a box of each of the 90 classes.
    detector.roi_heads.box_predictor.cls_score.bias.data[1] = 5.0
    torch.save(detector.state_dict(), tmp_path / "detector.pth")
    said = command(
        capsys, "data", "labels", "--root", some_of_coco(data / "coco", tmp_path / "some"), "--detector", DETECTOR,
        "--weights", tmp_path / "detector.pth", "--short-side", 48, "--most", 10, "--threshold", 0.1, "--workers", 0,
        "--batch-size", 32, "--out", data / "coco/detections_some.npz",
    )  # fmt: skip
    assert "78 images, 780 labels" in said
    tsv = shared_data / "bottomup/train2014_obj36.tsv"
    assert "10" in command(capsys, "data", "labels", "--tsv", tsv, "--out", tmp_path / "detections_bottomup.npz")

    # Pretraining with two losses, which read label maps and detections.
    settings = ["--profile", "smoke", "--data-root", data, "--variant", VARIANT]
    said = command(
        capsys, "pretrain", *settings, "--set", "training.steps=4", "--set", "training.evaluations=2",
        "--set", "training.validation_images=16",
    )  # fmt: skip
    run = chosen.folder("pretrain")
    record, rows = read_json(run / "run.json"), read_lines(run / "metrics.jsonl")
    assert record["synthetic"] is False
    assert rows[-1]["step"] == 4 and all(np.isfinite([v for v in row.values() if v is not None]).all() for row in rows)

    # The three tasks; what they lack is said.
    short = ["--set", "downstream.{}.steps=2", "--set", "downstream.{}.evaluations=1"]
    for task in ("vqa", "nlvr2", "vcr"):
        words = [word.format(task) for word in short]
        if task == "vqa":
            words += ["--set", f"downstream.answer_list={shared_data / 'vocab/lxmert_trainval_label2ans.json'}"]
        said = command(capsys, "finetune", "--task", task, *settings, *words)
        scores = read_json(chosen.folder(f"finetune-{task}") / "run.json")
        assert "val" in scores and said
    assert_vqa_is_scored_alike(data, chosen, tmp_path, capsys)

    # Retrieval in two data sets, by the notebook's function and by file.
    corpus = open_corpus(data)
    assert isinstance(corpus, JoinedCorpus)
    for name in ("coco", "flickr30k"):
        few = ("retrieval.images=10", "retrieval.fold=5", f"retrieval.data_set={name}")
        found = retrieve(replace(chosen, settings=few), corpus)
        folder = chosen.folder(f"retrieval-{name}")
        assert len(found.gallery.records) == 10 and found.scores.shape == (10, 50)
        captions = {
            "images": [{"id": i} for i in range(10)],
            "annotations": [
                {"id": k, "image_id": int(i), "caption": found.gallery.captions[k]}
                for k, i in enumerate(found.gallery.image_index)
            ],
        }
        (folder / "captions.json").write_text(json.dumps(captions))
        said = command(
            capsys, "evaluate", "retrieval", "--scores", folder / SCORES, "--captions", folder / "captions.json"
        )
        report, own = json.loads(said), found.recalls["all"]
        for direction in ("text", "image"):
            for k in (1, 5, 10):
                expected = pytest.approx(100 * own[f"{direction}_r{k}"], abs=1e-4)
                assert report[f"{direction}_retrieval"][f"R@{k}"] == expected
    with pytest.raises(UserError, match="did you mean 'flickr30k'"):
        gallery_of(corpus, 10, "flickr")
