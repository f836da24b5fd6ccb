import json
from pathlib import Path

import pytest
from PIL import Image

from vlp_lib.data.check import check
from vlp_lib.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images/train2017"
    folder.mkdir(parents=True)
    (tmp_path / "annotations").mkdir()
    images, said = [], []
    for i in range(1, 11):
        name = f"{i:012d}.jpg"
        Image.effect_noise((64, 64), 50).save(folder / name)
        images.append({"id": i, "file_name": name, "width": 64, "height": 64})
        said.append({"id": i, "image_id": i, "caption": "noise"})
    content = json.dumps({"images": images, "annotations": said})
    (tmp_path / "annotations/captions_train2017.json").write_text(content)
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
    assert "no Karpathy split file" in report


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
    assert "label maps: 171 classes" in report
    assert "label maps: 9 of 9 decoded are sound" in report
    assert "broken" not in report
