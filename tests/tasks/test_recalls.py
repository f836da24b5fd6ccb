"""Recalls against brute force, ties included; folds; which captions the columns of a matrix are."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlp_lib.errors import UserError
from vlp_lib.tasks import recalls as retrieval


def oracle(scores, owners):
    """Sort each query's whole gallery, best first, equal scores in the order of the file, and walk down."""
    images, captions = scores.shape
    text, image = [], []
    for row in range(images):
        gallery = sorted(range(captions), key=lambda column: (-scores[row, column], column))
        text.append(next(rank for rank, column in enumerate(gallery) if owners[column] == row))
    for column in range(captions):
        gallery = np.argsort(-scores[:, column], kind="stable").tolist()
        image.append(gallery.index(owners[column]))
    return text, image


@st.composite
def problems(draw):
    """Scores of few distinct values, so with many ties, for images with one to three captions in any order."""
    images = draw(st.integers(1, 8))
    owners = draw(st.permutations([i for i in range(images) for _ in range(draw(st.integers(1, 3)))]))
    values = draw(st.lists(st.integers(0, 3), min_size=images * len(owners), max_size=images * len(owners)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return np.array(values, dtype=dtype).reshape(images, len(owners)), np.array(owners)


@given(problems())
def test_ranks_equal_brute_force(problem):
    scores, owners = problem
    text, image = oracle(scores, owners)
    assert retrieval.text_ranks(scores, owners).tolist() == text
    assert retrieval.image_ranks(scores, owners).tolist() == image
    result = retrieval.recalls(scores, owners)
    for k in (1, 5, 10):
        assert result[f"text_r{k}"] == pytest.approx(sum(rank < k for rank in text) / len(text))
        assert result[f"image_r{k}"] == pytest.approx(sum(rank < k for rank in image) / len(image))
    assert (result["images"], result["captions"]) == scores.shape


def test_ranks_over_several_blocks_equal_brute_force(monkeypatch):
    monkeypatch.setattr(retrieval, "_ROWS", 7)
    rng = np.random.default_rng(0)
    owners = rng.permutation(np.repeat(np.arange(40), 5))
    scores = rng.integers(0, 50, (40, 200)).astype(np.float32)
    text, image = oracle(scores, owners)
    assert retrieval.text_ranks(scores, owners).tolist() == text
    assert retrieval.image_ranks(scores, owners).tolist() == image


def test_a_model_that_says_the_same_of_every_pair_is_at_chance():
    result = retrieval.recalls(np.zeros((20, 100), dtype=np.float32), np.repeat(np.arange(20), 5))
    assert [result[f"text_r{k}"] for k in (1, 5, 10)] == [1 / 20, 1 / 20, 2 / 20]
    assert [result[f"image_r{k}"] for k in (1, 5, 10)] == [1 / 20, 5 / 20, 10 / 20]


def test_perfect_scores():
    owners = np.repeat(np.arange(30), 5)
    result = retrieval.recalls((owners == np.arange(30)[:, None]).astype(np.float64), owners)
    assert {share for name, share in result.items() if "_r" in name} == {1.0}


@pytest.mark.parametrize(
    ("scores", "owners", "complaint"),
    [
        (np.zeros((2, 2), np.float16), [0, 1], "float16, which makes ties"),
        (np.zeros((2, 2), np.int64), [0, 1], "int64"),
        (np.zeros(4, np.float32), [0, 1], r"shape \[4\]"),
        (np.zeros((0, 0), np.float32), [], "shape"),
        (np.array([[0, np.nan], [0, 0]], np.float32), [0, 1], "NaN"),
    ],
)
def test_recalls_refuse(scores, owners, complaint):
    with pytest.raises(UserError, match=complaint):
        retrieval.recalls(scores, np.array(owners))


# ------------------------------------------------------------------------------------------------- folds


def test_folds_are_consecutive_images_with_their_first_five_captions():
    rng = np.random.default_rng(1)
    owners = np.concatenate([np.repeat(np.arange(12), 5), [3, 3, 7]])  # two images with more than five captions
    scores = rng.normal(size=(12, len(owners))).astype(np.float32)
    found = retrieval.all_recalls(scores, owners, 4)
    expected = []
    for start in (0, 4, 8):
        block, block_owners = scores[start : start + 4, start * 5 : start * 5 + 20], np.repeat(np.arange(4), 5)
        expected.append(retrieval.recalls(block, block_owners))
    assert list(found) == ["all", "folds", "fold 0", "fold 1", "fold 2"]
    assert [found[f"fold {i}"] for i in range(3)] == expected
    mean = found["folds"]
    assert mean["text_r1"] == pytest.approx(np.mean([fold["text_r1"] for fold in expected]))
    assert mean["image_r5"] == pytest.approx(np.mean([fold["image_r5"] for fold in expected]))
    assert (mean["images"], mean["captions"]) == (4, 20)
    assert list(retrieval.all_recalls(scores, owners, 5)) == ["all", "folds", "fold 0", "fold 1"]


def test_small_galleries_and_images_with_few_captions_have_no_folds():
    scores, owners = np.zeros((6, 30), np.float32), np.repeat(np.arange(6), 5)
    assert list(retrieval.all_recalls(scores, owners, 4)) == ["all"]
    assert list(retrieval.all_recalls(scores[:, :29], owners[:29], 3)) == ["all"]


# ------------------------------------------------------------------------------------------------- captions


def test_real_captions(shared_data):
    path = shared_data / "coco/annotations/captions_val2017.json"
    raw = json.loads(path.read_text())
    images, owners = retrieval.read_captions(path)
    assert images == len(raw["images"])
    assert [raw["images"][row]["id"] for row in owners] == [a["image_id"] for a in raw["annotations"]]

    rows, every, five = len(raw["images"]), len(raw["annotations"]), 5 * len(raw["images"])
    assert (rows, every, five) == (762, 3812, 3810)  # two images have six captions
    assert retrieval.columns_of(images, owners, (rows, every)).tolist() == list(range(every))
    columns = retrieval.columns_of(images, owners, (rows, five))
    assert columns.tolist() == sorted(columns)
    assert set(Counter(owners[columns].tolist()).values()) == {5}
    for shape in ((rows, 3811), (rows + 1, every), (every, rows)):
        with pytest.raises(UserError, match=r"762 rows and 3812 columns \(all .* or 3810 columns \(the first 5"):
            retrieval.columns_of(images, owners, shape)


def test_the_whole_official_file(shared_data):
    images, owners = retrieval.read_captions(shared_data / "coco/annotations/captions_val2017_full.json.gz")
    assert (images, len(owners)) == (5000, 25014)
    assert len(retrieval.first_captions(owners)) == 25000


def test_first_captions_keep_the_order_of_the_file():
    assert retrieval.first_captions(np.array([1, 0, 1, 1, 0, 2]), captions=2).tolist() == [0, 1, 2, 4, 5]


IMAGES = [{"id": 7}, {"id": 8}]
CAPTIONS = [{"id": 1, "image_id": 7, "caption": "a"}, {"id": 2, "image_id": 8, "caption": "b"}]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"annotations": CAPTIONS}, "no list 'images'"),
        ({"images": IMAGES}, "no list 'annotations'"),
        ({"images": [*IMAGES, {"id": 7}], "annotations": CAPTIONS}, "image ids stand more than once"),
        ({"images": IMAGES, "annotations": [*CAPTIONS, CAPTIONS[0]]}, "caption ids stand more than once"),
        ({"images": IMAGES[:1], "annotations": CAPTIONS}, r"of unknown images \(the first: 8\)"),
        ({"images": IMAGES, "annotations": CAPTIONS[:1]}, r"have no caption \(the first: 8\)"),
        ({"images": [{}], "annotations": []}, r"images\[0\]: field 'id' is missing"),
    ],
)
def test_read_captions_refuses(tmp_path, content, complaint):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=complaint) as caught:
        retrieval.read_captions(path)
    assert "captions.json" in str(caught.value)
