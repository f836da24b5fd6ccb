import io
import json
from pathlib import Path
from typing import Any

import pytest
from official import save_json
from PIL import Image

from vlp_lib.checks.folder import check
from vlp_lib.checks.proof import evaluated_sets, prove
from vlp_lib.cli import main
from vlp_lib.corpora.exclusion import HeldOut
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.table import RecordTable
from vlp_lib.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 64, "height": 64} for i in range(1, 11)]
    said = [{"id": i, "image_id": i, "caption": "noise"} for i in range(1, 11)]
    save_json(tmp_path / "annotations/captions_train2017.json", {"images": images, "annotations": said})
    (tmp_path / "images/train2017").mkdir(parents=True)
    for image in images:
        Image.effect_noise((64, 64), 50).save(tmp_path / "images/train2017" / image["file_name"])
    return tmp_path


def test_partial_download_is_called_so(root: Path) -> None:
    (root / "images/train2017/000000000004.jpg").unlink()
    report = check(root)
    assert "captions_train2017.json: 10 of 118,287 images (partial), 10 of 591,753 captions (partial)" in report
    assert "train2017/: 9 of 118,287 image files (partial)" in report
    assert "not used: 1 listed images without a file" in report
    assert "images: 9 of 9 decoded are sound" in report


def test_what_is_missing_is_named_with_its_source(root: Path) -> None:
    report = check(root)
    for name, source in (
        ("captions_val2017.json", "annotations_trainval2017.zip of cocodataset.org"),
        ("images/val2017/", "val2017.zip of cocodataset.org"),
        ("stuffthingmaps/train2017/", "nightrome/cocostuff"),
        ("dataset_coco.json", "karpathy"),
        ("detections", "Bottom-Up"),
    ):
        assert any(name in line and source in line for line in report.splitlines())
    assert "divided by image (seed 0)" in report


def test_broken_files_are_named(root: Path) -> None:
    image = root / "images/train2017/000000000007.jpg"
    image.write_bytes(image.read_bytes()[:1500])
    maps = root / "stuffthingmaps/train2017"
    maps.mkdir(parents=True)
    Image.new("L", (9, 9)).save(maps / "000000000002.png")
    report = check(root)
    assert "images: 9 of 10 decoded are sound" in report
    assert "label maps: 0 of 1 decoded are sound" in report
    assert "000000000007.jpg is truncated" in report
    assert "pixel map of 9 × 9" in report


def test_sample_is_evenly_spaced(root: Path) -> None:
    for i in range(2, 10):
        (root / f"images/train2017/{i:012d}.jpg").write_bytes(b"")
    assert "images: 2 of 2 decoded are sound" in check(root, sample=2)
    assert "images: 2 of 3 decoded are sound" in check(root, sample=3)


def test_no_corpus_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither"):
        check(tmp_path)


def test_embedded_corpus_needs_nothing(root: Path) -> None:
    (root / "corpus.json").write_text('{"synthetic": true, "fingerprint": "abc"}')
    report = check(root)
    assert "the embedded corpus" in report
    assert "Missing" not in report and "of 118,287" not in report


def test_flickr30k(tmp_path: Path) -> None:
    (tmp_path / "flickr30k-images").mkdir()
    Image.effect_noise((64, 64), 50).save(tmp_path / "flickr30k-images/77.jpg")
    entry = {"filename": "77.jpg", "split": "test", "sentences": [{"raw": "noise", "sentid": 1}]}
    (tmp_path / "dataset_flickr30k.json").write_text(json.dumps({"images": [entry]}))
    report = check(tmp_path)
    assert "dataset_flickr30k.json: 0 of 29,000 train (partial), 0 of 1,014 val (partial), 1 of 1,000 test" in report
    assert "cocodataset.org" not in report


def test_real_data(shared_data: Path) -> None:
    report = check(shared_data / "coco")
    assert "captions_val2017.json: 762 of 5,000 images (partial), 3,812 of 25,014 captions (partial)" in report
    assert "573 of 113,287 train (partial), 90 of 5,000 val (partial), 99 of 5,000 test (partial)" in report
    assert "26 images that it does not name" in report
    assert "label maps: 133 classes" in report
    assert "label maps: 27 of 27 decoded are sound" in report
    assert "broken" not in report


# Several data sets below one folder


@pytest.fixture
def everything(official: Any) -> Path:
    """COCO, Flickr30k, Visual Genome and the tasks; VG 2 is COCO 1, VG 3 COCO's test image 6."""
    official.coco({"train": [1, 2], "restval": [3], "val": [5], "test": [6]})
    official.flickr30k({"train": [11, 12], "val": [13], "test": [14]})
    official.genome({1: (None, 99), 2: (1, 70_001), 3: (6, None), 5: (5, None), 7: (None, None)})
    root: Path = official.path
    (root / "vqav2").mkdir()
    asked = [{"question_id": 10 * i, "image_id": i, "question": "Is it?"} for i in (3, 6)]
    (root / "vqav2/v2_OpenEnded_mscoco_val2014_questions.json").write_text(json.dumps({"questions": asked}))
    return root


def test_every_data_set_is_counted(everything: Path) -> None:
    report = check(everything)
    for line in (
        "captions_train2014.json: 5 of 82,783 images (partial), 10 of 414,113 captions (partial)",
        "results_20130124.token: 4 of 31,783 images (partial), 8 of 158,915 captions (partial)",
        "flickr30k/: Entities' split, 2 of 29,783 train (partial), 1 of 1,000 val (partial), 1 of 1,000 test (partial)",
        "region_descriptions.json: 5 of 108,077 images (partial), 15 of 5,408,689 regions (partial), of which 5 say",
        "VG_100K/, VG_100K_2/: 5 of 108,077 image files (partial)",
        "vqav2 val: 2 of 214,354 questions (partial), 2 of their 2 images are there",
        "images: 13 of 13 decoded are sound",
        "refer/ (RefCOCO's val and test images): github.com/lichengunc/refer",
        "vqav2/v2_mscoco_val2014_annotations.json: visualqa.org",
        "vcr: visualcommonsense.com",
    ):
        assert line in report
    assert "vg/: region_descriptions.json.zip" not in report


def test_the_papers_arithmetic(everything: Path) -> None:
    lines = [line.split() for line in check(everything).splitlines()]
    assert ["coco", "3", "106k", "6", "533k"] in lines
    assert ["flickr30k", "2", "29k", "4", "145k"] in lines
    assert ["vg", "3", "101k", "6", "5.06M"] in lines
    assert ["total", "8", "230k", "16", "5M"] in lines
    # VG 2 and COCO 1 are one photograph.
    assert "distinct photographs among the images: 7" in check(everything)


def test_no_downstream_image_is_pretrained_on(everything: Path) -> None:
    report = check(everything)
    assert "  0 of 8 pretraining images are in a downstream val or test set\n" in report
    assert "Karpathy test: 0 of its 1 images" in report and "Flickr30k val: 0 of its 1 images" in report
    assert "nothing is proven about: RefCOCO, VQAv2 test" in report
    assert "1 pretraining images have neither COCO id nor Flickr number" in report
    assert "VQAv2 val: 1 of its 2 images are pretrained on" in report


def test_a_leak_is_counted_once_and_in_each_set() -> None:
    held_out = HeldOut({"Karpathy test": frozenset({6, 8})}, frozenset({5}), {70_006: "test"}, {6: 70_006, 8: 70_008})
    sets = evaluated_sets(held_out, frozenset({8}))
    shown = (("train", 6, 70_006), ("train", None, 70_006), ("train", 4, 4), ("test", 6, 1), ("train", 8, None))
    records = [
        ImageRecord(i, Path("a.jpg"), split, 1, 1, (), (), coco_id=coco, flickr_id=flickr)
        for i, (split, coco, flickr) in enumerate(shown)
    ]
    lines = prove(RecordTable.of(records), sets)
    assert lines[0] == "3 of 4 pretraining images are in a downstream val or test set"
    assert "Karpathy test: 3 of its 2 images" in lines and "Flickr30k test: 2 of its 1 images" in lines
    assert "VQAv2 test: 1 of its 1 images" in lines and "Karpathy val: 0 of its 1 images" in lines


def test_a_broken_data_set_does_not_hide_the_others(everything: Path) -> None:
    (everything / "vg/image_data.json").unlink()
    (everything / "nlvr2/data").mkdir(parents=True)
    (everything / "nlvr2/data/dev.json").write_text("{")
    report = check(everything)
    assert "Cannot be used" in report
    assert "vg: no such file: " in report and "image_data.json" in report
    assert "nlvr2: broken: " in report
    assert ["total", "5", "230k", "10", "5M"] in [line.split() for line in report.splitlines()]


def test_tasks_alone_are_reported(everything: Path, tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    (everything / "vqav2").rename(tmp_path / "only/vqav2")
    report = check(tmp_path / "only")
    assert "no data set to pretrain on" in report
    assert "vqav2 val: 2 of 214,354 questions (partial), 0 of their 2 images are there" in report


def test_split_lists_are_written(everything: Path) -> None:
    report = check(everything, splits=True)
    written = {path.name: path.read_text().split() for path in (everything / "splits").iterdir()}
    assert written == {
        "pretrain_train_coco.txt": ["1", "2", "3"],
        "pretrain_val_coco.txt": ["5"],
        "pretrain_train_flickr30k.txt": ["11", "12"],
        "pretrain_val_flickr30k.txt": ["13"],
        "pretrain_train_vg.txt": ["1", "2", "7"],
        "pretrain_val_vg.txt": ["5"],
        "held_out_karpathy_test.txt": ["6"],
        "held_out_flickr30k.txt": ["11", "12", "13", "14"],
    }
    assert all(str(everything / "splits" / name) in report for name in written)
    assert "0 of 8 pretraining" in check(everything)


def test_shards_are_counted_and_faulty_ones_named(official: Any, pack: Any) -> None:
    image = io.BytesIO()
    Image.new("RGB", (9, 9)).save(image, "jpeg")
    pack(official.path / "sbu/0.tar", [("a.jpg", image.getvalue()), ("a.txt", b"a pair")])
    (official.path / "sbu/1.tar").write_bytes(b"rubbish")
    report = check(official.path)
    assert "sbu: 1 usable pairs in 2 of 2 shards" in report
    assert f"cut off, damaged or missing: {official.path / 'sbu/1.tar'}" in report
    assert "not used: 1 shards that are cut off or damaged (sbu)" in report


def test_real_tasks(shared_data: Path, tmp_path: Path) -> None:
    for source in ("coco", "coco/vqav2", "nlvr/nlvr2", "vcr", "flickr30k"):
        (tmp_path / Path(source).name).symlink_to(shared_data / source)
    report = check(tmp_path, sample=5)
    questions = json.loads((shared_data / "coco/vqav2/v2_OpenEnded_mscoco_train2014_questions.json").read_text())
    assert f"vqav2 train: {len(questions['questions'])} of 443,757 questions (partial)" in report
    assert "nlvr2 dev: 6,982 statements (complete), 0 have both pictures" in report
    assert "nlvr2 test1: 6,967 statements (complete), 0 have both pictures" in report
    assert "vcr val: 1 of 26,534 questions (partial), 0 have their image" in report
    assert "0 of 596 pretraining images are in a downstream val or test set" in report


def test_command_writes_the_lists_when_asked(everything: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "--root", str(everything)]) == 0
    assert not (everything / "splits").exists()
    assert main(["data", "check", "--root", str(everything), "--write-splits"]) == 0
    assert (everything / "splits/pretrain_train_vg.txt").is_file()
    assert "0 of 8 pretraining images" in capsys.readouterr().out
