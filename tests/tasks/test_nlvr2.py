"""NLVR2's reader: embedded, real and laid-out files, the order of the pictures, and missing ones."""

import gzip
import json
import shutil

import numpy as np
import pytest
import torch

from vlp_lib.batches.texts import training_texts
from vlp_lib.batches.tokenizer import train_tokenizer
from vlp_lib.config import DownstreamConfig
from vlp_lib.corpora.images import read_image
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.errors import UserError
from vlp_lib.tasks.common import Encoder
from vlp_lib.tasks.nlvr2 import open_nlvr2
from vlp_lib.tasks.nlvr2_score import read_predictions


def encoder_of(corpus, size=32):
    return Encoder(train_tokenizer(training_texts(corpus), 1_000_000), 24, size)


@pytest.fixture(scope="module")
def nlvr2(tiny_corpus):
    return open_nlvr2(tiny_corpus, encoder_of(tiny_corpus), DownstreamConfig())


def reopened(root, **settings):
    corpus = open_corpus(root)
    return open_nlvr2(corpus, encoder_of(corpus), DownstreamConfig(**settings))


def test_left_comes_before_right(nlvr2, tiny_corpus):
    assert [len(s) for s in (nlvr2.train, nlvr2.val, nlvr2.test)] == [8, 4, 4]
    item, sample = nlvr2.train.items[0], nlvr2.train[0]
    folder = tiny_corpus.root / "nlvr2" / "images" / "train" / "0"
    assert item.pictures == (folder / "train-0-0-img0.png", folder / "train-0-0-img1.png")
    for picture, path in zip(sample.pictures, item.pictures, strict=True):
        assert torch.equal(picture, torch.from_numpy(np.asarray(read_image(path)).transpose(2, 0, 1).copy()))
    assert int(sample.target) == item.example.label
    assert nlvr2.val.items[0].pictures[0].parent == tiny_corpus.root / "nlvr2" / "images" / "dev"
    assert item.block == "train-0"


def test_jpeg_bytes_in_png_files_and_a_split_folder_without_images(root):
    folder = root / "nlvr2"
    for path in (folder / "images" / "dev").iterdir():
        read_image(path).save(path, format="JPEG")
    (folder / "images" / "dev").rename(folder / "dev")
    data = (folder / "data" / "dev.json").read_bytes()
    (folder / "data" / "dev.json").unlink()
    (folder / "data" / "dev.json.gz").write_bytes(gzip.compress(data))
    val = reopened(root).val
    assert len(val) == 4 and val[0].pictures[0].shape == (3, 32, 32)
    assert val.items[0].pictures[0].parent == folder / "dev"


def test_a_missing_picture_counts_as_wrong(root, tmp_path):
    path = root / "nlvr2" / "images" / "dev" / "dev-0-0-img1.png"
    path.unlink()
    with pytest.raises(UserError, match=r"2 of 4 items have no image \(the first: dev-0-0-0, .*dev-0-0-img1.png\)"):
        reopened(root)
    val = reopened(root, allow_missing=0.5).val
    right = np.array([int(s.example.label) for s in val.items])
    assert val.score(right)["accuracy"] == 50.0
    [file] = val.write(right, tmp_path)
    assert len(read_predictions(file)) == 4


def test_the_region_model_has_no_detections(tiny_corpus):
    encoder = Encoder(train_tokenizer(["a a"], 9), 9, 32, tiny_corpus.detections, 8)
    with pytest.raises(UserError, match="choose another variant"):
        open_nlvr2(tiny_corpus, encoder, DownstreamConfig())


def test_no_files(root):
    shutil.rmtree(root / "nlvr2")
    with pytest.raises(UserError, match=r"no nlvr2/data/train\.json"):
        reopened(root)


def test_real_nlvr_statements_with_their_pictures(shared_data, root):
    shutil.rmtree(root / "nlvr2")
    (root / "nlvr").symlink_to(shared_data / "nlvr" / "nlvr")
    data = reopened(root)
    assert len(data.train) + len(data.val) == 250
    assert not {s.block for s in data.train.items} & {s.block for s in data.val.items}
    assert [path.name[-6:] for path in data.train.items[0].pictures] == ["-0.png", "-1.png"]
    assert len(data.train[0].pictures) == 2
    assert any("NLVR, not NLVR2" in note for note in data.notes)


def test_real_nlvr2_texts_without_pictures_say_so(shared_data, root):
    shutil.rmtree(root / "nlvr2")
    (root / "nlvr2").symlink_to(shared_data / "nlvr" / "nlvr2")
    with pytest.raises(UserError, match="have no image"):
        reopened(root)


def test_a_line_that_is_broken(root):
    path = root / "nlvr2" / "data" / "dev.json"
    path.write_text(path.read_text() + json.dumps({"identifier": "dev-9-0-0", "sentence": "?", "label": "Maybe"}))
    with pytest.raises(UserError, match=r"dev.json, line 5: label 'Maybe'"):
        reopened(root)
