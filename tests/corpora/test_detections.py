import base64
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlp_lib.corpora.detections import DetectionStore, open_detections, write_detections
from vlp_lib.corpora.records import Detections
from vlp_lib.errors import UserError

CLASSES = ("ball", "box", "grass")
ATTRIBUTES = ("red", "blue")


def detections(*scores: float, features: int = 0) -> Detections:
    n = len(scores)
    rng = np.random.default_rng(n)
    low = rng.random((n, 2)) / 2
    return Detections(
        rng.integers(0, 3, n),
        np.array(scores, dtype=np.float32),
        np.concatenate([low, low + rng.random((n, 2)) / 2], axis=1).astype(np.float32),
        rng.integers(-1, 2, n),
        rng.random((n, features), dtype=np.float32) if features else None,
    )


def store(path: Path, features: int = 0) -> tuple[DetectionStore, dict[int, Detections]]:
    given = {7: detections(0.9, 0.5, 0.2, features=features), 3: detections(features=features)}
    given[12] = detections(0.8, features=features)
    sizes = {7: (640, 480), 3: (10, 10), 12: (333, 500)}
    write_detections(path, [(i, sizes[i], d) for i, d in given.items()], CLASSES, ATTRIBUTES)
    return open_detections([path]), given


def assert_equal(got: Detections | None, expected: Detections, rows: slice = slice(None)) -> None:
    assert got is not None
    for name in ("labels", "scores", "attributes"):
        assert np.array_equal(getattr(got, name), getattr(expected, name)[rows])
    np.testing.assert_allclose(got.boxes, expected.boxes[rows], atol=1e-6)
    assert (got.features is None) == (expected.features is None)
    if got.features is not None and expected.features is not None:
        assert np.array_equal(got.features, expected.features[rows])
    types = (got.labels.dtype, got.scores.dtype, got.boxes.dtype, got.attributes.dtype)
    assert types == (np.int64, np.float32, np.float32, np.int64)


# The kit's npz


@pytest.mark.parametrize("features", [0, 5])
def test_what_is_written_is_read(tmp_path: Path, features: int) -> None:
    found, given = store(tmp_path / "d" / "detections_a.npz", features)
    assert (found.classes, found.attribute_names) == (CLASSES, ATTRIBUTES)
    for image_id, expected in given.items():
        assert image_id in found
        assert_equal(found.get(image_id, 100, 0.0), expected)
    assert 8 not in found
    assert found.get(8, 100, 0.0) is None
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["detections_a.npz"]


def test_best_are_kept_and_weak_left_out(tmp_path: Path) -> None:
    found, given = store(tmp_path / "d.npz")
    assert_equal(found.get(7, 1, 0.0), given[7], slice(1))
    assert_equal(found.get(7, 100, 0.5), given[7], slice(2))
    assert_equal(found.get(7, 100, 0.95), given[7], slice(0))


def test_rows_are_sorted_by_score_and_ties_keep_their_order(tmp_path: Path) -> None:
    given = detections(0.2, 0.9, 0.2, 0.9, features=2)
    write_detections(tmp_path / "d.npz", [(1, (100, 100), given)], CLASSES, ATTRIBUTES)
    assert_equal(open_detections([tmp_path / "d.npz"]).get(1, 10, 0.0), given, np.array([1, 3, 0, 2]))


def test_store_travels_to_workers(tmp_path: Path) -> None:
    found, given = store(tmp_path / "d.npz", 3)
    assert_equal(pickle.loads(pickle.dumps(found)).get(7, 9, 0.0), given[7])


def arrays(**changed: Any) -> dict[str, Any]:
    """Two images with two boxes and one."""
    return {
        "image_ids": np.array([4, 9]),
        "sizes": np.array([[20, 10], [30, 30]], dtype=np.int32),
        "offsets": np.array([0, 2, 3]),
        "labels": np.array([0, 1, 2], dtype=np.int16),
        "scores": np.array([0.5, 0.75, 1.0], dtype=np.float32),
        "boxes": np.array([[0, 0, 20, 10], [5, 5, 10, 10], [3, 6, 15, 30]], dtype=np.float32),
        "attributes": np.array([-1, 0, 1], dtype=np.int16),
        "classes": np.array(CLASSES),
        "attribute_names": np.array(ATTRIBUTES),
    } | changed


def test_boxes_are_fractions_of_their_own_image(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **arrays())
    found = open_detections([tmp_path / "d.npz"])
    first, second = found.get(4, 9, 0.0), found.get(9, 9, 0.0)
    assert first is not None and second is not None
    np.testing.assert_allclose(first.boxes, [[0.25, 0.5, 0.5, 1], [0, 0, 1, 1]])
    np.testing.assert_allclose(second.boxes, [[0.1, 0.2, 0.5, 1]], rtol=1e-6)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"labels": np.array([0, 1, 3])}, "image 9: labels has 3, outside the vocabulary of 3 classes"),
        ({"labels": np.array([0, -1, 2])}, "image 4: labels has -1"),
        ({"scores": np.array([0.5, 1.2, 1])}, "image 4: scores has 1.2"),
        ({"scores": np.array([0.5, 1, np.nan])}, "image 9: scores has nan"),
        ({"attributes": np.array([-1, 0, 2])}, "image 9: attributes has 2"),
        ({"boxes": np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, np.nan, 1]])}, "image 9: boxes has .*not finite"),
        ({"boxes": np.array([[0, 0, 1, 1], [9, 0, 1, 1], [0, 0, 1, 1]])}, "image 4: boxes has .*corners exchanged"),
        ({"boxes": np.array([[0, 0, 1, 1], [0, 0, 1, 30], [0, 0, 1, 1]])}, "image 4: boxes has .*outside the image"),
        ({"boxes": np.zeros((3, 5))}, "boxes has the shape"),
        ({"offsets": np.array([0, 3, 2])}, "offsets do not rise"),
        ({"offsets": np.array([0, 3])}, "offsets has the shape"),
        ({"image_ids": np.array([4, 4])}, "image 4 is listed twice"),
        ({"image_ids": np.array([[4], [9]])}, "image_ids has the shape"),
        ({"sizes": np.array([[20, 10], [0, 30]])}, "sizes of image 9"),
        ({"features": np.zeros((2, 4), dtype=np.float32)}, "features has the shape"),
        ({"features": np.zeros((3, 4), dtype="<U3")}, "features are no numbers"),
        ({"labels": np.array([0, 1, np.nan])}, "labels has nan, no whole number that fits into int16"),
        ({"labels": np.array([0, 65_536, 2])}, "labels has 65536, no whole number that fits into int16"),
        ({"labels": np.array([0, 0.5, 2])}, "labels has 0.5"),
        ({"labels": np.array(["0", "1", "2"])}, "labels has <U1 where numbers are needed"),
        ({"image_ids": np.array([4, 2**64 - 1], np.uint64)}, "image_ids has 18446744073709551615"),
    ],
)
def test_impossible_npz_is_refused(tmp_path: Path, changed: dict[str, Any], fault: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays(**changed))
    with pytest.raises(UserError, match=rf"d\.npz: {fault}"):
        open_detections([tmp_path / "d.npz"])


def test_feature_that_is_not_finite_is_refused_when_read(tmp_path: Path) -> None:
    features = np.zeros((3, 4), dtype=np.float32)
    features[2, 1] = np.inf
    np.savez(tmp_path / "d.npz", **arrays(features=features))
    found = open_detections([tmp_path / "d.npz"])
    assert found.get(4, 9, 0.0) is not None
    with pytest.raises(UserError, match=r"d\.npz: image 9: features"):
        found.get(9, 9, 0.0)


def test_broken_npz_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    with pytest.raises(UserError, match=r"no such file: .*d\.npz"):
        open_detections([path])
    np.savez(path, **{name: array for name, array in arrays().items() if name != "scores"})
    with pytest.raises(UserError, match=r"d\.npz lacks an array \(scores"):
        open_detections([path])
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UserError, match=r"d\.npz is truncated or no npz"):
        open_detections([path])
    np.savez_compressed(path, **arrays(features=np.zeros((3, 2), dtype=np.float32)))
    with pytest.raises(UserError, match=r"d\.npz: features are compressed"):
        open_detections([path])


def test_nothing_impossible_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="image 1: scores has 2"):
        write_detections(tmp_path / "d.npz", [(1, (9, 9), detections(2.0))], CLASSES, ATTRIBUTES)
    assert list(tmp_path.iterdir()) == []


def test_several_files_are_one_store(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays())
    np.savez(tmp_path / "b.npz", **arrays(image_ids=np.array([9, 5]), labels=np.array([1, 1, 1])))
    found = open_detections([tmp_path / "a.npz", tmp_path / "b.npz"])
    assert all(image_id in found for image_id in (4, 9, 5))
    nine = found.get(9, 9, 0.0)
    assert nine is not None and nine.labels.tolist() == [2], "the first file counts"
    np.savez(tmp_path / "c.npz", **arrays(classes=np.array(["x", "y", "z"])))
    with pytest.raises(UserError, match=r"c\.npz has another vocabulary"):
        open_detections([tmp_path / "a.npz", tmp_path / "c.npz"])


# Bottom-Up's TSV


def packed(values: Any, dtype: str) -> str:
    return base64.b64encode(np.asarray(values, dtype=dtype).tobytes()).decode()


def row(image: str = "COCO_train2014_000000000009", **changed: str) -> str:
    fields = {
        "img_id": image,
        "img_h": "10",
        "img_w": "20",
        "objects_id": packed([5, 1599], "<i8"),
        "objects_conf": packed([0.25, 0.75], "<f4"),
        "attrs_id": packed([0, 399], "<i8"),
        "attrs_conf": packed([0.5, 0.5], "<f4"),
        "num_boxes": "2",
        "boxes": packed([[0, 0, 20, 10], [5, 5, 10, 10]], "<f4"),
        "features": packed([[1, 2, 3], [4, 5, 6]], "<f4"),
    } | changed
    return "\t".join(fields.values()) + "\n"


def tsv(path: Path, *rows: str) -> DetectionStore:
    path.write_text("".join(rows))
    return open_detections([path])


def test_tsv_row(tmp_path: Path) -> None:
    found = tsv(tmp_path / "d.tsv", row("17"), row(), row("4"))
    for image_id in (17, 9, 4):
        got = found.get(image_id, 9, 0.0)
        assert got is not None and got.features is not None
        assert got.labels.tolist() == [1599, 5]
        assert got.scores.tolist() == [0.75, 0.25]
        assert got.attributes.tolist() == [399, 0]
        assert got.boxes.tolist() == [[0.25, 0.5, 0.5, 1], [0, 0, 1, 1]]
        assert got.features.tolist() == [[4, 5, 6], [1, 2, 3]]
    assert (len(found.classes), len(found.attribute_names)) == (1600, 400)


def test_tsv_rows_that_are_not_used_are_counted(tmp_path: Path) -> None:
    found = tsv(tmp_path / "d.tsv", row("9"), "\n", row(img_h="11"), row("dev-850-0-img0"))
    assert found.skipped == {
        "detections of an image that occurs again": 1,
        "detections whose image id is no COCO id": 1,
    }
    assert 9 in found


def test_tsv_row_without_boxes(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("objects_id", "objects_conf", "attrs_id", "attrs_conf", "boxes", "features"), "")
    got = tsv(tmp_path / "d.tsv", row("9", num_boxes="0", **nothing)).get(9, 9, 0.0)
    assert got is not None
    assert got.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"objects_id": packed([5, 1600], "<i8")}, "box 1: labels has 1600, outside the vocabulary of 1600"),
        ({"attrs_id": packed([400, 1], "<i8")}, "box 0: attributes has 400"),
        ({"objects_conf": packed([0.5, 1.5], "<f4")}, "box 1: scores has 1.5"),
        ({"objects_conf": packed([0.5], "<f4")}, r"objects_conf is no base64 of numbers of the shape \(2,\)"),
        ({"boxes": packed([[0, 0, np.inf, 1]] * 2, "<f4")}, "box 0: boxes has .*not finite"),
        ({"features": packed([1, 2, np.nan, 4], "<f4")}, "features has a value that is not finite"),
        ({"features": packed([1, 2, 3], "<f4")}, r"features is no base64 of numbers of the shape \(2, -1\)"),
        ({"features": "???"}, "features is no base64"),
        ({"features": ""}, "features is empty"),
        ({"num_boxes": "two"}, "num_boxes is b'two', no whole number"),
        ({"img_w": "0"}, "img_w × img_h is 0 × 10"),
    ],
)
def test_broken_tsv_row_is_named(tmp_path: Path, changed: dict[str, str], fault: str) -> None:
    found = tsv(tmp_path / "d.tsv", row("8"), row(**changed))
    assert found.get(8, 9, 0.0) is not None
    with pytest.raises(UserError, match=rf"d\.tsv: image 9: {fault}"):
        found.get(9, 9, 0.0)


def test_tsv_with_other_columns_is_named(tmp_path: Path) -> None:
    found = tsv(tmp_path / "d.tsv", row("8"), "9\t10\t20\t2\tAAAA\tAAAA\n")
    with pytest.raises(UserError, match=r"d\.tsv: row 2 \(image 9\) has 6 fields instead of 10"):
        found.get(8, 9, 0.0)


def test_vocabulary_beside_the_tsv(tmp_path: Path) -> None:
    (tmp_path / "objects_vocab.txt").write_text("\n".join(["stop sign,stopsign"] * 1600))
    assert tsv(tmp_path / "d.tsv", row()).classes[3] == "stop sign"
    (tmp_path / "attributes_vocab.txt").write_text("red\n")
    with pytest.raises(UserError, match=r"attributes_vocab\.txt has 1 names instead of 400"):
        open_detections([tmp_path / "d.tsv"])


def test_real_tsv(shared_data: Path, tmp_path: Path) -> None:
    for source, name in (("vg_objects_vocab", "objects_vocab"), ("vg_attributes_vocab", "attributes_vocab")):
        shutil.copy(shared_data / f"vocab/{source}.txt", tmp_path / f"{name}.txt")
    shutil.copy(shared_data / "bottomup/train2014_obj36.tsv", tmp_path)
    path = tmp_path / "train2014_obj36.tsv"
    found = open_detections([path])
    image_ids = [int(line.split("\t", 1)[0][-12:]) for line in path.read_text().splitlines()]
    assert len(image_ids) == 10
    assert found.skipped == {}
    for image_id in image_ids:
        got = found.get(image_id, 100, 0.0)
        assert got is not None and got.features is not None
        assert (got.labels.shape, got.boxes.shape, got.features.shape) == ((36,), (36, 4), (36, 2048))
        assert (np.diff(got.scores) <= 0).all()
        assert got.boxes.min() >= 0 and got.boxes.max() <= 1
        assert (got.boxes[:, 2:] > got.boxes[:, :2]).all()
        # Bottom-Up's pooled features follow a ReLU: no negative value can be there if the bytes are read rightly.
        assert got.features.min() >= 0 and 0.1 < got.features.mean() < 2
    assert {len(found.classes), len(found.attribute_names)} == {1600, 400}
    assert found.classes[found.get(image_ids[0], 1, 0.0).labels[0]].isascii()  # type: ignore[union-attr]
