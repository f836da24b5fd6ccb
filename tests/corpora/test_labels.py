"""Detector labels: equal however often the labelling is interrupted and however it is divided."""

import shutil

import numpy as np
import pytest
import torch

from vlp_lib.corpora import labels as module
from vlp_lib.corpora.detections import NpzDetections, open_detections
from vlp_lib.corpora.labels import Detector, LabelConfig, import_tsv, label_images, load_detector, parse_shard
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.corpora.records import Detections
from vlp_lib.errors import UserError

CLASSES = ("dark", "bright")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 10)  # the tiny corpus's 48 images in 5 chunks


@pytest.fixture
def corpus(tiny_corpus, tmp_path):
    """A corpus without detections that a test may damage."""
    root = tmp_path / "corpus"
    shutil.copytree(tiny_corpus.root, root)
    for file in root.rglob("detections_*.npz"):
        file.unlink()
    return open_corpus(root)


def detector(fail_after=10**9, **about):
    """Sees a bright or dark box as large as the image is bright; stops at its n-th batch."""
    batches = []

    def detect(images):
        batches.append(len(images))
        if len(batches) > fail_after:
            raise KeyboardInterrupt
        means = [float(image.float().mean()) / 255 for image in images]
        return [
            Detections(np.array([mean > 0.4, 0]), np.array([0.9, mean * 0.5], np.float32),
                       np.array([[0, 0, mean, mean], [0, 0, 1, 1]], np.float32), np.full(2, -1))
            for mean in means
        ]  # fmt: skip

    return Detector(detect, CLASSES, {"detector": "brightness", "threshold": 0.1, **about})


@pytest.fixture
def whole(corpus, tmp_path):
    path = tmp_path / "whole" / "detections_brightness.npz"
    label_images(corpus, detector(), path)
    return path


def test_every_image_is_labelled(corpus, whole):
    found = open_detections([whole])
    assert found.classes == CLASSES
    for record in corpus.records:
        mean = np.asarray(corpus.read_image(record)).mean() / 255
        labels = found.get(record.image_id, 10, 0.0)
        assert labels.labels.tolist() == [int(mean > 0.4), 0]
        assert labels.scores.tolist() == pytest.approx([0.9, mean * 0.5], abs=1e-5)
        assert labels.boxes[0].tolist() == pytest.approx([0, 0, mean, mean], abs=1e-5)
    about = NpzDetections(whole).about
    assert (about["detector"], about["threshold"], about["images"]) == ("brightness", 0.1, 48)


@pytest.mark.parametrize("after", [0, 1, 3, 8])
def test_interrupted_and_started_again(corpus, whole, tmp_path, after):
    path = tmp_path / "again" / whole.name
    with pytest.raises(KeyboardInterrupt):
        label_images(corpus, detector(fail_after=after), path)
    assert not path.exists()
    done = label_images(corpus, detector(), path)
    assert done.complete
    assert (done.images, done.labels, done.skipped) == (48, 96, 0)
    assert path.read_bytes() == whole.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    # Once more there is nothing to do.
    assert label_images(corpus, detector(fail_after=0), path).images == 48


def test_processes_share_the_work(corpus, whole, tmp_path):
    path = tmp_path / "shared" / whole.name
    parts = [label_images(corpus, detector(), path, (index, 3), workers=index % 2) for index in (2, 0, 1)]
    assert [part.complete for part in parts] == [False, False, True]
    assert [part.images for part in parts] == [10, 20, 48]
    assert "this process's part" in str(parts[0])
    assert path.read_bytes() == whole.read_bytes()


def test_an_interrupted_merge_is_finished(corpus, whole, tmp_path, monkeypatch):
    path = tmp_path / "merge" / whole.name

    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_merge", fail)
    with pytest.raises(KeyboardInterrupt):
        label_images(corpus, detector(), path)
    monkeypatch.undo()
    monkeypatch.setattr(module, "CHUNK", 10)
    assert label_images(corpus, detector(fail_after=0), path).complete
    assert path.read_bytes() == whole.read_bytes()


def test_broken_images_are_counted(corpus, tmp_path):
    broken = corpus.records[7]
    broken.path.write_bytes(broken.path.read_bytes()[:90])
    done = label_images(corpus, detector(), tmp_path / "detections_b.npz")
    assert (done.images, done.skipped) == (47, 1)
    assert "skipped: 1 images that cannot be read" in str(done)
    assert str(broken.path) in str(done)
    assert broken.image_id not in NpzDetections(tmp_path / "detections_b.npz")


def test_other_settings_are_refused(corpus, whole, tmp_path):
    with pytest.raises(UserError, match=r"was begun with threshold 0.1 and now it is 0.2: take the old value, or"):
        label_images(corpus, detector(threshold=0.2), whole)
    path = tmp_path / "part" / whole.name
    with pytest.raises(KeyboardInterrupt):
        label_images(corpus, detector(fail_after=3), path)
    with pytest.raises(UserError, match=r"\.parts was begun with batch size 8 and now it is 4"):
        label_images(corpus, detector(), path, batch_size=4)


def test_labels_of_two_detectors_are_refused_before_the_work(tiny_corpus):
    with pytest.raises(UserError, match=r"detections_\w+.npz has the labels of another detector"):
        label_images(tiny_corpus, detector(fail_after=0), tiny_corpus.root / "detections_brightness.npz")
    assert not list(tiny_corpus.root.glob("*.parts"))


def test_shards():
    assert parse_shard("2/8", {"RANK": "1", "WORLD_SIZE": "4"}) == (2, 8)
    assert parse_shard("", {"RANK": "1", "WORLD_SIZE": "4"}) == (1, 4)
    assert parse_shard("", {}) == (0, 1)
    for wrong in ("3", "4/4", "-1/4", "a/b", "1/"):
        with pytest.raises(UserError, match=f"--shard '{wrong}' is no share: write 0/4"):
            parse_shard(wrong, {})


# torchvision's detectors

SMALL = LabelConfig("fasterrcnn_mobilenet_v3_large_320_fpn", most=4, threshold=0.0, short_side=64)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights of a detector of five classes."""
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    torch.manual_seed(0)
    network = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=6)
    path = tmp_path_factory.mktemp("weights") / "detector.pth"
    torch.save({"model": network.state_dict(), "epoch": 3}, path)
    return path


def test_a_checkpoint_labels_images(corpus, checkpoint, tmp_path):
    config = LabelConfig(**{**vars(SMALL), "weights": str(checkpoint)})
    small = open_corpus(corpus.root)
    object.__setattr__(small, "records", small.records[:3])
    loaded = load_detector(config, torch.device("cpu"))
    assert loaded.classes == tuple(f"class {i}" for i in range(5))
    done = label_images(small, loaded, tmp_path / "detections_m.npz")
    found = open_detections([done.path])
    assert done.images == 3
    assert 0 < done.labels <= 12
    for record in small.records:
        one = found.get(record.image_id, 100, 0.0)
        assert len(one.labels) <= 4
        assert ((one.labels >= 0) & (one.labels < 5)).all()
        assert (np.diff(one.scores) <= 0).all()
        # The library's own call says the same.
        pixels = torch.from_numpy(np.asarray(small.read_image(record)).transpose(2, 0, 1).copy())
        (own,) = loaded.detect([pixels])
        assert np.array_equal(own.labels, one.labels)
        np.testing.assert_allclose(own.scores, one.scores, atol=1e-5)
    about = NpzDetections(done.path).about
    assert (about["labels an image"], about["threshold"], about["short side"]) == (4, 0.0, 64)
    assert about["weights"].startswith("detector.pth ")


def test_what_is_no_detector(checkpoint, tmp_path):
    cpu = torch.device("cpu")
    with pytest.raises(UserError, match="unknown detector 'fasterrcnn_resnet50': did you mean"):
        load_detector(LabelConfig("fasterrcnn_resnet50"), cpu)
    with pytest.raises(UserError, match=f"{tmp_path / 'absent.pth'} is missing"):
        load_detector(LabelConfig(weights=str(tmp_path / "absent.pth")), cpu)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match=r"text\.pth holds no weights of a torchvision Faster R-CNN"):
        load_detector(LabelConfig(weights=str(tmp_path / "text.pth")), cpu)
    with pytest.raises(UserError, match="--most and --short-side must be at least 1"):
        load_detector(LabelConfig(weights=str(checkpoint), most=0), cpu)


# Bottom-Up


def test_a_real_tsv_is_imported(shared_data, tmp_path):
    tsv = shared_data / "bottomup/train2014_obj36.tsv"
    path = tmp_path / "detections_bottomup.npz"
    done = import_tsv(tsv, path, most=20, threshold=0.1)
    original, imported = open_detections([tsv]), open_detections([path])
    ids = original.sources[0].image_ids
    assert done.images == len(ids) == 10
    assert 0 < done.labels <= 200
    assert imported.classes == original.classes
    for image_id in ids:
        a, b = imported.get(image_id, 100, 0.0), original.get(image_id, 20, 0.1)
        assert np.array_equal(a.labels, b.labels)
        assert np.array_equal(a.attributes, b.attributes)
        assert np.array_equal(a.scores, b.scores)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-6)
        assert a.features is None
    assert path.stat().st_size < tsv.stat().st_size / 20
    about = NpzDetections(path).about
    assert about == {"detector": "Bottom-Up", "source": tsv.name, "labels an image": 20, "threshold": 0.1}
