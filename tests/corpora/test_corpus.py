import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official import save_json
from PIL import Image

from vlp_lib.batches.texts import training_texts
from vlp_lib.corpora.coco import SegmentationClasses
from vlp_lib.corpora.corpus import Corpus, same_shape
from vlp_lib.corpora.detections import write_detections
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.corpora.records import IGNORED, Detections
from vlp_lib.errors import UserError

STORED = (12, 8)
DECLARED = (24, 16)
THINGS = [{"id": 1, "name": "ball"}, {"id": 4, "name": "box"}]
STUFF = [{"id": 9, "name": "grass"}, {"id": 183, "name": "other"}]
CLASSES = SegmentationClasses((1, 4, 9), ("ball", "box", "grass"))


def add_part(root: Path, part: str, ids: list[int], prefix: str = "", images: str = "images") -> None:
    """A folder of images with two captions each."""
    folder = root / images / part
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for image_id in ids:
        name = f"{prefix}{image_id:012d}.jpg"
        Image.new("RGB", STORED, (image_id, 0, 0)).save(folder / name)
        listed.append({"id": image_id, "file_name": name, "width": DECLARED[0], "height": DECLARED[1]})
    said = [{"image_id": i, "id": 10 * i + k, "caption": f"{k} of {i}"} for k in range(2) for i in ids]
    save_json(root / f"annotations/captions_{part}.json", {"images": listed, "annotations": said})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    add_part(tmp_path, "train2017", [5, 3, 8])
    add_part(tmp_path, "val2017", [4, 2])
    return tmp_path


def karpathy(root: Path, *splits: tuple[int, str]) -> None:
    place, said = {"filepath": "val2014"}, [{"raw": "a ball", "sentid": 1}]
    entries = [
        place | {"cocoid": i, "split": split, "filename": f"COCO_val2014_{i:012d}.jpg", "sentences": said}
        for i, split in splits
    ]
    save_json(root / "dataset_coco.json", {"images": entries, "dataset": "coco"})


def pixel_map(root: Path, part: str, image_id: int, size: tuple[int, int], value: int = 8) -> Path:
    path = root / "stuffthingmaps" / part / f"{image_id:012d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


def ids(corpus: Corpus, split: str) -> list[int]:
    return [record.image_id for record in corpus.split(split)]


# Layout and splits


def test_folders_decide_without_a_split_file(root: Path) -> None:
    corpus = open_corpus(root)
    assert [ids(corpus, name) for name in ("train", "val", "test")] == [[3, 5, 8], [2, 4], []]
    assert corpus.records[0].captions == ("0 of 2", "1 of 2")
    assert (corpus.records[0].width, corpus.records[0].height) == DECLARED
    assert corpus.read_image(corpus.records[0]).size == STORED
    assert not corpus.synthetic
    assert corpus.detections is None
    assert corpus.read_detections(corpus.records[0], 5, 0.0) is None


def test_karpathy_decides_and_folders_for_the_rest(root: Path) -> None:
    karpathy(root, (5, "val"), (3, "test"), (4, "restval"))
    corpus = open_corpus(root)
    assert [ids(corpus, name) for name in ("train", "val", "test")] == [[4, 8], [2, 5], [3]]


def test_unknown_split_is_named(root: Path) -> None:
    with pytest.raises(UserError, match="no split 'dev'"):
        open_corpus(root).split("dev")


def test_training_texts_are_those_of_train_only(root: Path) -> None:
    assert list(training_texts(open_corpus(root))) == [f"{k} of {i}" for i in (3, 5, 8) for k in range(2)]


def test_image_folders_beside_annotations(tmp_path: Path) -> None:
    add_part(tmp_path, "train2017", [5], images=".")
    assert ids(open_corpus(tmp_path), "train") == [5]


def test_release_of_2014_with_maps_of_2017(tmp_path: Path) -> None:
    add_part(tmp_path, "train2014", [5], prefix="COCO_train2014_")
    pixel_map(tmp_path, "train2017", 5, STORED)
    corpus = open_corpus(tmp_path)
    assert ids(corpus, "train") == [5]
    assert corpus.has_label_map(corpus.records[0])


def test_release_of_2017_goes_before_2014(root: Path) -> None:
    add_part(root, "train2014", [5], prefix="COCO_train2014_")
    assert ids(open_corpus(root), "train") == [3, 5, 8]


def test_flickr30k(tmp_path: Path) -> None:
    (tmp_path / "flickr30k-images").mkdir()
    entries = []
    for image_id, split in ((77, "train"), (66, "test")):
        Image.new("RGB", STORED).save(tmp_path / f"flickr30k-images/{image_id}.jpg")
        said = [{"raw": f"photo {image_id}", "sentid": image_id, "tokens": []}]
        entries.append({"filename": f"{image_id}.jpg", "imgid": 0, "split": split, "sentences": said})
    save_json(tmp_path / "dataset_flickr30k.json", {"images": entries, "dataset": "flickr30k"})
    corpus = open_corpus(tmp_path)
    assert (ids(corpus, "train"), ids(corpus, "test")) == ([77], [66])
    assert (corpus.records[0].captions, corpus.records[0].width) == (("photo 66",), STORED[0])


def test_no_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        open_corpus(tmp_path / "absent")
    with pytest.raises(UserError, match=r"neither annotations/captions_train2017\.json nor"):
        open_corpus(tmp_path)


def test_two_split_files_are_refused(root: Path) -> None:
    karpathy(root, (5, "val"))
    save_json(root / "annotations/dataset_flickr30k.json", {"images": []})
    with pytest.raises(UserError, match="several split files"):
        open_corpus(root)


# Missing files


def test_missing_image_files_are_counted(root: Path) -> None:
    (root / "images/train2017/000000000003.jpg").unlink()
    corpus = open_corpus(root)
    assert ids(corpus, "train") == [5, 8]
    assert corpus.report.skipped == {"listed images without a file": 1}


def test_without_any_image_file_the_first_is_named(root: Path) -> None:
    shutil.rmtree(root / "images")
    with pytest.raises(UserError, match=r"no image with a caption.*the first of 5 absent files: .*images/train2017/"):
        open_corpus(root)


def test_images_without_captions_are_counted(root: Path) -> None:
    Image.new("RGB", STORED).save(root / "images/train2017/000000000099.jpg")
    path = root / "annotations/captions_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 2]
    save_json(path, content)
    corpus = open_corpus(root)
    assert [record.image_id for record in corpus.records] == [3, 4, 5, 8]
    assert corpus.report.skipped == {"images without captions": 2}


def test_corpus_without_any_caption_is_refused(tmp_path: Path) -> None:
    add_part(tmp_path, "train2017", [])
    with pytest.raises(UserError, match="no image with a caption"):
        open_corpus(tmp_path)


def test_opening_decodes_nothing(root: Path) -> None:
    (root / "images/train2017/000000000003.jpg").write_bytes(b"rubbish")
    pixel_map(root, "train2017", 3, STORED).write_bytes(b"rubbish")
    corpus = open_corpus(root)
    record = corpus.split("train")[0]
    assert corpus.has_label_map(record)
    for read in (corpus.read_image, corpus.read_label_map):
        with pytest.raises(UserError, match=r"000000000003\.(jpg|png) is truncated or not an image"):
            read(record)


# Label maps


def with_classes(root: Path) -> None:
    save_json(root / "annotations/instances_val2017.json", {"images": [], "annotations": [], "categories": THINGS})
    save_json(root / "annotations/stuff_val2017.json", {"images": [], "annotations": [], "categories": STUFF})


def test_classes_are_those_of_both_files_or_official(root: Path) -> None:
    assert open_corpus(root).segmentation_classes == SegmentationClasses.official()
    with_classes(root)
    assert open_corpus(root).segmentation_classes == CLASSES
    (root / "annotations/stuff_val2017.json").unlink()
    assert open_corpus(root).segmentation_classes == SegmentationClasses.official()


@pytest.mark.parametrize("size", [STORED, DECLARED])
def test_label_map_has_the_size_of_the_stored_image(root: Path, size: tuple[int, int]) -> None:
    with_classes(root)
    path = pixel_map(root, "train2017", 5, size)
    values = np.asarray(Image.open(path)).copy()
    values[: size[1] // 2] = 3
    values[:, -size[0] // 4 :] = 255
    Image.fromarray(values).save(path)
    corpus = open_corpus(root)
    record = corpus.split("train")[1]
    labels = corpus.read_label_map(record)
    expected = np.full(STORED[::-1], 2)
    expected[: STORED[1] // 2] = 1
    expected[:, -STORED[0] // 4 :] = IGNORED
    assert labels is not None and labels.dtype == np.uint8
    assert np.array_equal(labels, expected)
    assert [corpus.has_label_map(r) for r in corpus.split("train")] == [False, True, False]
    assert corpus.read_label_map(corpus.split("train")[0]) is None


def test_pixel_map_of_another_size_is_named(root: Path) -> None:
    pixel_map(root, "train2017", 5, (16, 24))
    corpus = open_corpus(root)
    with pytest.raises(
        UserError, match=r"5\.png has a pixel map of 16 × 24 for .*5\.jpg, an image of 12 × 8 .*24 × 16"
    ):
        corpus.read_label_map(corpus.split("train")[1])


def stuff_json(root: Path) -> None:
    width, height = DECLARED
    half = {"size": [height, width], "counts": [0, height * width // 2, height * width // 2]}
    masks = [{"image_id": 3, "category_id": 9, "segmentation": half}]
    images = [{"id": 3, "width": width, "height": height, "file_name": "000000000003.jpg"}]
    save_json(root / "annotations/stuff_train2017.json", {"images": images, "annotations": masks, "categories": STUFF})
    save_json(root / "annotations/instances_train2017.json", {"images": [], "annotations": [], "categories": THINGS})


def panoptic(root: Path, *image_ids: int) -> None:
    """Images whose left half is the ball, whose right half is grass, with a void first pixel."""
    folder = root / "annotations/panoptic_train2017"
    folder.mkdir(parents=True)
    entries = []
    for image_id in image_ids:
        pixels = np.zeros((DECLARED[1], DECLARED[0], 3), np.uint8)
        pixels[:, : DECLARED[0] // 2] = (7, 1, 2)  # 7 + 256 + 2 · 65,536
        pixels[:, DECLARED[0] // 2 :] = (9, 0, 0)
        pixels[0, 0] = 0
        Image.fromarray(pixels).save(folder / f"{image_id:012d}.png")
        parts = [{"id": 7 + 256 + 2 * 65_536, "category_id": 1}, {"id": 9, "category_id": 193}]
        entries.append({"image_id": image_id, "file_name": f"{image_id:012d}.png", "segments_info": parts})
    grass = {"id": 193, "name": "grass-merged"}
    save_json(folder.with_suffix(".json"), {"annotations": entries, "categories": [THINGS[0], grass]})


def test_panoptic_maps_serve_where_more_images_have_them(root: Path) -> None:
    pixel_map(root, "train2017", 5, DECLARED)
    panoptic(root, 5)
    assert len(open_corpus(root).segmentation_classes) == 171  # as many of each: the pixel maps
    (root / "annotations/panoptic_train2017.json").unlink()
    shutil.rmtree(root / "annotations/panoptic_train2017")
    before = open_corpus(root).fingerprint
    panoptic(root, 5, 3)
    corpus = open_corpus(root)
    assert corpus.fingerprint != before
    assert corpus.segmentation_classes == SegmentationClasses((1, 193), ("ball", "grass-merged"))
    assert corpus.report.with_label_map == {"train": 2, "val": 0, "test": 0}
    record = next(r for r in corpus.records if r.image_id == 3)
    labels = corpus.read_label_map(record)
    assert labels is not None and labels.shape == STORED[::-1]
    assert set(labels[:, 0].tolist()) <= {0, 255}
    assert set(labels[:, -1].tolist()) == {1}


def test_a_segment_that_the_panoptic_json_does_not_list_is_named(root: Path) -> None:
    panoptic(root, 5)
    path = root / "annotations/panoptic_train2017/000000000005.png"
    Image.new("RGB", DECLARED, (3, 0, 0)).save(path)
    corpus = open_corpus(root)
    with pytest.raises(UserError, match=r"000000000005\.png has a segment 3 that its JSON does not list"):
        corpus.read_label_map(next(r for r in corpus.records if r.image_id == 5))


# Instances in a detector's place


def instances(root: Path, *boxes: tuple[int, int, list[float], int]) -> None:
    images = [{"id": i, "width": DECLARED[0], "height": DECLARED[1]} for i in (5, 3)]
    found = [{"image_id": i, "category_id": c, "bbox": box, "iscrowd": crowd} for i, c, box, crowd in boxes]
    content = {"images": images, "annotations": found, "categories": THINGS}
    save_json(root / "annotations/instances_train2017.json", content)


def test_instances_stand_for_a_detector_where_there_is_none(root: Path) -> None:
    """The largest first, crowds left out; an image that is listed without a box has been looked at."""
    instances(root, (5, 4, [0, 0, 6, 8], 0), (5, 1, [12, 8, 12, 8], 0), (5, 1, [0, 0, 24, 16], 1))
    corpus = open_corpus(root)
    assert corpus.detections is not None and corpus.detections.classes == ("ball", "box")
    five, three, other = (next(r for r in corpus.records if r.image_id == i) for i in (5, 3, 8))
    seen = corpus.read_detections(five, 9, 0.5)
    assert seen is not None and seen.labels.tolist() == [0, 1]
    assert seen.boxes.tolist() == [[0.5, 0.5, 1, 1], [0, 0, 0.25, 0.5]]
    assert seen.scores.tolist() == [1, 1] and seen.attributes.tolist() == [-1, -1]
    assert len(corpus.read_detections(three, 9, 0.5).labels) == 0
    assert corpus.read_detections(other, 9, 0.5) is None
    assert "COCO's instances (2 classes" in str(corpus.report)


@pytest.mark.parametrize(
    "box",
    [[0, 0, 1], [0, 0, 1, np.nan], [0, np.nan, 1, 1], [0, 0, 1, 1e9], [0, 0, -5, 5], [1e9, 0, 1, 1], ["a"] * 4, None],
)
def test_a_box_that_cannot_be_is_named(root: Path, box: Any) -> None:
    instances(root, (5, 4, box, 0))
    corpus = open_corpus(root)
    with pytest.raises(UserError, match=r"instances_train2017\.json has an entry"):
        corpus.read_detections(corpus.records[1], 9, 0.5)


def test_a_detectors_labels_go_before_instances(root: Path) -> None:
    instances(root, (5, 4, [0, 0, 10, 10], 0))
    write_detections(root / "detections_a.npz", [], ("dog",))
    corpus = open_corpus(root)
    assert corpus.detections is not None and corpus.detections.classes == ("dog",)
    assert corpus.notes == []


def test_broken_instances_are_named(root: Path) -> None:
    instances(root, (8, 4, [0, 0, 10, 10], 0))
    with pytest.raises(UserError, match=r"instances_train2017\.json has an entry without the official fields"):
        _ = open_corpus(root).report


def test_stuff_json_serves_where_there_are_no_pixel_maps(root: Path) -> None:
    stuff_json(root)
    corpus = open_corpus(root)
    assert [corpus.has_label_map(r) for r in corpus.split("train")] == [True, False, False]
    labels = corpus.read_label_map(corpus.split("train")[0])
    assert labels is not None
    assert labels.shape == STORED[::-1]
    assert (labels[:, :6] == 2).all() and (labels[:, 6:] == IGNORED).all()


def test_stuff_json_is_not_mixed_with_pixel_maps(root: Path) -> None:
    stuff_json(root)
    pixel_map(root, "train2017", 5, STORED)
    corpus = open_corpus(root)
    assert [corpus.has_label_map(r) for r in corpus.split("train")] == [False, True, False]


def test_stuff_json_serves_where_it_knows_more_images_than_the_maps_of_a_few(root: Path) -> None:
    stuff_json(root)
    path = root / "annotations/stuff_train2017.json"
    content = json.loads(path.read_text())
    mask, image = content["annotations"][0], content["images"][0]
    content["annotations"].append(mask | {"image_id": 8})
    content["images"].append(image | {"id": 8, "file_name": "000000000008.jpg"})
    path.write_text(json.dumps(content))
    pixel_map(root, "train2017", 5, STORED)
    corpus = open_corpus(root)
    assert len(corpus.records) > 2  # the one map covers less than half of them
    assert [corpus.has_label_map(r) for r in corpus.split("train")] == [True, False, True]
    labels = corpus.read_label_map(corpus.split("train")[0])
    assert labels is not None and set(np.unique(labels)) == {2, IGNORED}


# Detections, report, fingerprint


def add_detections(root: Path, name: str, *image_ids: int) -> None:
    one = Detections(np.array([1]), np.array([0.5]), np.array([[0, 0, 0.5, 1]]), np.array([-1]))
    write_detections(root / name, [(i, DECLARED, one) for i in image_ids], ("ball", "box"))


def test_detections_of_several_files(root: Path) -> None:
    add_detections(root, "detections_train.npz", 3, 8)
    add_detections(root, "detections/detections_val.npz", 4)
    corpus = open_corpus(root)
    assert corpus.report.with_detections == {"train": 2, "val": 1, "test": 0}
    got = corpus.read_detections(corpus.split("val")[1], 5, 0.0)
    assert got is not None and got.boxes.tolist() == [[0, 0, 0.5, 1]]
    assert corpus.read_detections(corpus.split("val")[0], 5, 0.0) is None


def test_report_is_a_table(root: Path) -> None:
    pixel_map(root, "train2017", 5, STORED)
    (root / "images/val2017/000000000002.jpg").unlink()
    report = open_corpus(root).report
    assert report.captions == {"train": 6, "val": 2, "test": 0}
    assert [line.split() for line in str(report).splitlines()] == [
        ["split", "images", "captions", "label", "maps", "detections"],
        ["train", "3", "6", "1", "0"],
        ["val", "1", "2", "0", "0"],
        ["test", "0", "0", "0", "0"],
        ["total", "4", "8", "1", "0"],
        ["not", "used:", "1", "listed", "images", "without", "a", "file"],
    ]


def test_fingerprint_follows_the_contents(tmp_path: Path) -> None:
    roots = [tmp_path / name for name in ("a", "b")]
    for folder in roots:
        add_part(folder, "train2017", [5, 3])
    prints = [open_corpus(folder).fingerprint for folder in roots]
    assert prints[0] == prints[1]
    Image.new("RGB", (99, 99)).save(roots[1] / "images/train2017/000000000003.jpg")
    add_detections(roots[0], "detections_a.npz", 3)
    changed = [open_corpus(folder).fingerprint for folder in roots]
    assert len({prints[0], *changed}) == 3


def test_synthetic_corpus_keeps_its_own_fingerprint(root: Path) -> None:
    save_json(root / "corpus.json", {"synthetic": True, "fingerprint": "abc"})
    corpus = open_corpus(root)
    assert (corpus.synthetic, corpus.fingerprint) == (True, "abc")


@pytest.mark.parametrize("content", ["{", "[]", '{"synthetic": true}'])
def test_broken_description_is_named(root: Path, content: str) -> None:
    (root / "corpus.json").write_text(content)
    with pytest.raises(UserError, match=r"corpus\.json is broken"):
        open_corpus(root)


def test_unfinished_synthetic_corpus_is_refused(root: Path) -> None:
    (root / "corpus.json.unfinished").touch()
    with pytest.raises(UserError, match="was not finished"):
        open_corpus(root)


def test_corpus_travels_to_workers(root: Path) -> None:
    stuff_json(root)
    add_detections(root, "detections_a.npz", 3)
    corpus = open_corpus(root)
    assert corpus.has_label_map(corpus.records[1])
    copy = pickle.loads(pickle.dumps(corpus))
    assert copy.records == corpus.records
    assert copy.read_detections(copy.records[1], 1, 0.0) is not None


# Real files


def test_real_corpus(shared_data: Path) -> None:
    corpus = open_corpus(shared_data / "coco")
    assert corpus.report.images == {"train": 573 + 26, "val": 90, "test": 99}
    assert sum(corpus.report.captions.values()) == 3942
    assert corpus.report.with_label_map == {"train": 25, "val": 2, "test": 0}  # panoptic; pixel maps: 9
    assert corpus.report.with_detections == {"train": 87, "val": 12, "test": 10}  # instances
    assert corpus.report.skipped == {"images without captions": 77}
    assert len(corpus.segmentation_classes) == 133
    assert all("\n" not in caption for record in corpus.records for caption in record.captions)


@pytest.mark.parametrize(
    ("kept", "classes", "count", "most_void"),
    [("stuffthingmaps", 171, 9, 0.15), ("panoptic_", 133, 27, 0.15), ("stuffthingmaps stuff_", 171, 26, 0.5)],
    ids=["pixel maps", "panoptic", "stuff, of more images than the pixel maps"],
)
def test_real_label_maps(
    shared_data: Path, tmp_path: Path, kept: str, classes: int, count: int, most_void: float
) -> None:
    files = [path for name in ("annotations", "images") for path in (shared_data / "coco" / name).iterdir()]
    named = ("captions_", "instances_", *kept.split())
    for path in (*files, *(shared_data / "coco/stuffthingmaps").iterdir()):
        if path.name.startswith(named) or path.parent.name in (*named, "images"):
            target = tmp_path / path.relative_to(shared_data / "coco")
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(path)
    corpus = open_corpus(tmp_path)
    assert len(corpus.segmentation_classes) == classes
    void = []
    for record in corpus.records:
        labels = corpus.read_label_map(record)
        assert (labels is not None) == corpus.has_label_map(record)
        if labels is not None:
            assert labels.shape[::-1] == corpus.read_image(record).size != (record.width, record.height)
            assert labels[labels != IGNORED].max() < classes
            void.append((labels == IGNORED).mean())
    assert len(void) == count and np.mean(void) < most_void


# Turned images


def turned(root: Path, orientation: int, declared: tuple[int, int], drawn_on: tuple[int, int]) -> Corpus:
    """One image of 24 × 12 with a mark in its stored top left corner, and that corner as a map and as a box."""
    folder = root / "images/train2017"
    folder.mkdir(parents=True)
    pixels = np.zeros((12, 24, 3), np.uint8)
    pixels[:6, :6] = 255
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(folder / "7.png", exif=exif)
    listed = [{"id": 7, "file_name": "7.png", "width": declared[0], "height": declared[1]}]
    said = [{"id": 70, "image_id": 7, "caption": "a mark"}]
    save_json(root / "annotations/captions_train2017.json", {"images": listed, "annotations": said})
    labels = np.full(drawn_on[::-1], 255, np.uint8)
    labels[:6, :6] = 0
    path = root / "stuffthingmaps/train2017/7.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(labels).save(path)
    corner = np.array([[0, 0, 6 / drawn_on[0], 6 / drawn_on[1]]], np.float32)
    found = Detections(np.zeros(1, np.int64), np.ones(1, np.float32), corner, np.full(1, -1))
    write_detections(root / "detections_a.npz", [(7, drawn_on, found)], ["mark"])
    return open_corpus(root)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_was_drawn_on_the_stored_pixels_lies_on_them(tmp_path: Path, orientation: int) -> None:
    corpus = turned(tmp_path, orientation, (24, 12), (24, 12))
    (record,) = corpus.records
    mark = np.asarray(corpus.read_image(record))[..., 0] == 255
    labels, found = corpus.read_label_map(record), corpus.read_detections(record, 1, 0.0)
    assert labels is not None and found is not None
    assert np.array_equal(labels == 0, mark)
    x1, y1, x2, y2 = (found.boxes[0] * (24, 12, 24, 12)).round().astype(int)
    assert mark[y1:y2, x1:x2].all() and mark.sum() == (x2 - x1) * (y2 - y1)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("declared", [(24, 12), (12, 24)])
def test_what_was_drawn_on_the_turned_image_is_refused(
    tmp_path: Path, orientation: int, declared: tuple[int, int]
) -> None:
    corpus = turned(tmp_path, orientation, declared, (12, 24))
    (record,) = corpus.records
    with pytest.raises(UserError, match="EXIF"):
        corpus.read_label_map(record)
    with pytest.raises(UserError, match=r"save it upright|as they are stored"):
        corpus.read_image(record), corpus.read_detections(record, 1, 0.0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((640, 480), (640, 480), True),
        ((640, 480), (320, 240), True),
        ((640, 427), (300, 200), True),
        ((427, 640), (2, 3), True),
        ((640, 480), (480, 640), False),
        ((500, 499), (499, 500), False),
        ((640, 480), (256, 256), False),
        ((12, 24), (24, 12), False),
    ],
)
def test_a_smaller_copy_has_the_same_shape(one: tuple[int, int], other: tuple[int, int], same: bool) -> None:
    assert same_shape(one, other) is same is same_shape(other, one)


# An image twice


def relist(root: Path, part: str, **entry: Any) -> None:
    """Add an entry to a list of images."""
    path = root / f"annotations/captions_{part}.json"
    content = json.loads(path.read_text())
    content["images"].append({"width": DECLARED[0], "height": DECLARED[1], **entry})
    save_json(path, content)


def test_an_image_that_is_listed_twice_counts_once(root: Path) -> None:
    for _ in range(2):
        relist(root, "train2017", id=5, file_name="000000000005.jpg")
    corpus = open_corpus(root)
    assert ids(corpus, "train") == [3, 5, 8]
    assert corpus.report.captions["train"] == 6
    assert corpus.report.skipped == {"images that are listed again (the first entry counts)": 2}


@pytest.mark.parametrize("name", ["000000000004.jpg", "000000000002.jpg"])
def test_an_id_of_two_images_is_refused(root: Path, name: str) -> None:
    relist(root, "val2017", id=5, file_name=name)
    with pytest.raises(UserError, match=r"1 ids of images are of two images, or of one in two splits \(the first: 5\)"):
        open_corpus(root)


def test_an_id_in_two_splits_of_karpathys_file_is_refused(root: Path) -> None:
    add_part(root, "val2014", [4], "COCO_val2014_")
    for path in root.glob("annotations/captions_*.json"):
        path.unlink()
    karpathy(root, (4, "train"), (4, "test"))
    with pytest.raises(UserError, match="in two splits"):
        open_corpus(root)
