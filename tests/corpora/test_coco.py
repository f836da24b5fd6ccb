import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official import save_json
from PIL import Image, ImageDraw

from vlp_lib.corpora.coco import (
    SegmentationClasses,
    StuffAnnotations,
    read_captions,
    read_categories,
    read_karpathy,
    read_pixel_map,
)
from vlp_lib.corpora.records import IGNORED
from vlp_lib.errors import UserError

ABSENT = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}


def caption_file(path: Path, *captions: str, image_id: int = 7) -> Path:
    images = [{"id": 7, "file_name": "000000000007.jpg", "width": 640, "height": 480}]
    annotations = [{"image_id": image_id, "id": 90 + i, "caption": text} for i, text in enumerate(captions)]
    return save_json(path, {"images": images, "annotations": annotations})


# Captions


def test_caption_white_space_is_tidied_and_empty_ones_left_out(tmp_path: Path) -> None:
    (image,) = read_captions(caption_file(tmp_path / "c.json", "  A dog\n runs. ", " \n", "Two\t cats"))
    assert image.captions == ("A dog runs.", "Two cats")
    assert image.caption_ids == (90, 92)
    assert (image.image_id, image.path.name, image.width, image.height) == (7, "000000000007.jpg", 640, 480)
    assert [image.captions for image in read_captions(caption_file(tmp_path / "c.json"))] == [()]


def test_caption_of_an_unlisted_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"c\.json: caption 90 is of image 8, which the file does not list"):
        read_captions(caption_file(tmp_path / "c.json", "A dog", image_id=8))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"images": [', "is not JSON"),
        ("[]", "no list 'images'"),
        ('{"images": {}}', "no list 'images'"),
        ('{"images": []}', "no list 'annotations'"),
        ('{"images": [{"id": 1}], "annotations": []}', "without the official fields"),
        ('{"images": [], "annotations": [3]}', "without the official fields"),
    ],
)
def test_broken_captions_file_is_named(tmp_path: Path, content: str, fault: str) -> None:
    with pytest.raises(UserError, match=r"no such file: .*c\.json"):
        read_captions(tmp_path / "c.json")
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(UserError, match=rf"c\.json.*{fault}"):
        read_captions(tmp_path / "c.json")


def test_real_captions(shared_data: Path) -> None:
    path = shared_data / "coco/annotations/captions_val2017.json"
    images = read_captions(path)
    assert (len(images), sum(len(image.captions) for image in images)) == (762, 3812)
    raw = {a["id"]: a["caption"] for a in json.loads(path.read_text())["annotations"]}
    read = {n: c for image in images for c, n in zip(image.captions, image.caption_ids, strict=True)}
    assert any("\n" in caption for caption in raw.values()), "the case that is tested must occur"
    assert read == {number: " ".join(caption.split()) for number, caption in raw.items()}


# Categories


def test_categories_are_found_wherever_they_stand(tmp_path: Path) -> None:
    said = [{"caption": '"categories": [7]'}]
    categories = [{"id": 3, "name": 'a "dog"'}]
    for content in ({"annotations": said, "categories": categories}, {"categories": categories, "annotations": said}):
        for indent in (None, 1):
            (tmp_path / "i.json").write_text(json.dumps(content, indent=indent))
            assert read_categories(tmp_path / "i.json") == {3: 'a "dog"'}


@pytest.mark.parametrize("content", ['{"images": []}', '{"categories": [{"id": 3', '{"categories": [{"id": 3}]}'])
def test_broken_categories_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "i.json").write_text(content)
    with pytest.raises(UserError, match=r"i\.json has"):
        read_categories(tmp_path / "i.json")
    with pytest.raises(UserError, match=r"no such file: .*absent\.json"):
        read_categories(tmp_path / "absent.json")


# Classes and pixel maps


def test_official_classes_are_those_of_the_real_files(shared_data: Path) -> None:
    folder = shared_data / "coco/annotations"
    categories = read_categories(folder / "instances_val2017.json") | read_categories(folder / "stuff_val2017.json")
    assert categories[183] == "other"
    classes = SegmentationClasses.of(categories)
    assert classes == SegmentationClasses.official()
    assert len(classes) == 171
    assert classes.ids == tuple(i for i in range(1, 183) if i not in ABSENT)


def test_class_names_are_those_of_coco_stuff(shared_data: Path) -> None:
    labels = dict(line.split(": ") for line in (shared_data / "vocab/cocostuff_labels.txt").read_text().splitlines())
    classes = SegmentationClasses.official()
    assert {str(i): name for i, name in zip(classes.ids, classes.names, strict=True)}.items() <= labels.items()


def test_lookup_counts_the_categories_below() -> None:
    lookup = SegmentationClasses.official().lookup
    assert lookup.dtype == np.uint8
    for value in range(256):
        category = value + 1
        known = category <= 182 and category not in ABSENT
        assert lookup[value] == (value - sum(a < category for a in ABSENT) if known else IGNORED)


def test_ids_beyond_a_pixel_map_are_refused() -> None:
    for categories in ({0: "zero"}, {256: "far"}, {}):
        with pytest.raises(UserError, match="must be 1 … 255"):
            SegmentationClasses.of(categories)


def test_pixel_map_values(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 11, 12], [181, 182, 255]], dtype=np.uint8)).save(tmp_path / "m.png")
    labels = read_pixel_map(tmp_path / "m.png", SegmentationClasses.official())
    assert labels.tolist() == [[0, 255, 11], [170, 255, 255]]


def test_real_pixel_maps_agree_with_panoptic_things(shared_data: Path) -> None:
    """Panoptic segments were drawn from the same masks but packed in another way: an independent oracle."""
    coco = shared_data / "coco"
    classes = SegmentationClasses.official()
    compared = 0
    for entry in json.loads((coco / "annotations/panoptic_val2017.json").read_text())["annotations"]:
        path = coco / "stuffthingmaps/val2017" / entry["file_name"]
        if not path.exists():
            continue
        labels = read_pixel_map(path, classes)
        code = np.asarray(Image.open(coco / "annotations/panoptic_val2017" / entry["file_name"]).convert("RGB"))
        segment = code.astype(int) @ [1, 256, 65536]
        for part in entry["segments_info"]:
            if part["category_id"] <= 90 and part["area"] > 2000 and not part["iscrowd"]:
                inside = labels[segment == part["id"]]
                assert (inside == classes.ids.index(part["category_id"])).mean() > 0.85
                compared += 1
    assert compared >= 3


# COCO-Stuff JSON


def stuff_file(path: Path, *masks: tuple[int, Any], size: tuple[int, int] = (4, 6)) -> StuffAnnotations:
    images = [{"id": 5, "height": size[0], "width": size[1], "file_name": "000000000005.jpg"}]
    annotations = [{"image_id": 5, "category_id": c, "segmentation": s} for c, s in masks]
    return StuffAnnotations((save_json(path, {"images": images, "annotations": annotations}),))


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's plain run lengths, by definition: down the columns, absent first."""
    counts, present = [0], 0
    for pixel in mask.T.ravel():
        if pixel != present:
            counts.append(0)
            present = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def test_all_kinds_of_mask_decode_alike(tmp_path: Path) -> None:
    coder = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(1).random((9, 13)) < 0.4
    packed = coder.encode(np.asfortranarray(mask.astype(np.uint8)))
    compressed = {"size": list(mask.shape), "counts": packed["counts"].decode()}
    classes = SegmentationClasses.official()
    for segmentation in (compressed, run_lengths(mask)):
        labels = stuff_file(tmp_path / "s.json", (96, segmentation), size=mask.shape).label_map(5, classes)
        assert np.array_equal(labels == classes.ids.index(96), mask)
        assert np.array_equal(labels == IGNORED, ~mask)


def test_compressed_run_lengths_are_those_of_pycocotools(tmp_path: Path) -> None:
    coder = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(2)
    for share in (0.0, 0.001, 0.5, 0.999, 1.0):
        for shape in ((1, 1), (1, 60_000), (300, 200), (8, 8), (65, 3)):
            mask = rng.random(shape) < share
            packed = coder.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
            stuff = stuff_file(tmp_path / "s.json", (96, {"size": list(shape), "counts": packed}), size=shape)
            assert np.array_equal(stuff.label_map(5, SegmentationClasses.official()) != IGNORED, mask)


def test_polygon_mask(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    stuff = stuff_file(tmp_path / "s.json", (124, [[1, 0, 4, 0, 4, 3, 1, 3]]))
    expected = np.zeros((4, 6), dtype=bool)
    expected[0:3, 1:4] = True
    assert np.array_equal(stuff.label_map(5, SegmentationClasses.official()) != IGNORED, expected)


def test_other_is_ignored(tmp_path: Path) -> None:
    full = run_lengths(np.ones((4, 6), dtype=bool))
    stuff = stuff_file(tmp_path / "s.json", (183, full), (66, full))
    assert (stuff.label_map(5, SegmentationClasses.official()) == IGNORED).all()
    assert 5 in stuff
    assert 6 not in stuff


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [4, 6], "counts": [3, 4]},
        {"size": [6, 4], "counts": [24]},
        {"size": [4, 6], "counts": [-1, 25]},
        {"counts": [24]},
        "mask",
        {"size": [4, 6], "counts": [3e9]},
        {"size": [4, 6], "counts": [3_000_000_000]},
        {"size": [4, 6], "counts": [2**62, 2**62, 2**62, 2**62, 24]},
        {"size": [4, 6], "counts": [True] * 24},
        {"size": [4, 6], "counts": ["24"]},
        {"size": [4, 6], "counts": "\x7f"},
        {"size": [4, 6], "counts": "ooooooooooo0"},
        {"size": [4, 6], "counts": "h"},
        {"size": [4, 6], "counts": ""},
        {"size": [4, 6], "counts": "PPPPPPP0"},
        {"size": [4, 6], "counts": "é"},
        [],
        [[]],
        [[1, 1, 2, 2]],
        [[1, 1, 2, 2, 3]],
        [[1, 1, 2, 2, 3, 1e9]],
        [[1, 1, 2, 2, 3, -1e9]],
        [[1, 1, 2, 2, 3, float("nan")]],
        [[1, 1, 2, 2, 3, float("inf")]],
        [[1, 1, 2, 2, 3, 10**400]],
        [[1, 1, 2, 2, 3, "x"]],
        [[0, 0, 6, 4] * 100_000],
        [{"size": [4, 6], "counts": "oooooo"}],
    ],
)
def test_broken_mask_is_named(tmp_path: Path, segmentation: Any) -> None:
    stuff = stuff_file(tmp_path / "s.json", (124, segmentation))
    with pytest.raises(UserError, match=r"s\.json: the mask of category 124 in image 5 is broken"):
        stuff.label_map(5, SegmentationClasses.official())


def test_missing_pycocotools_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    stuff = stuff_file(tmp_path / "s.json", (124, [[0, 0, 6, 0, 6, 4]]))
    with pytest.raises(UserError, match="pip install pycocotools"):
        stuff.label_map(5, SegmentationClasses.official())


@pytest.mark.parametrize("part", ["train", "val"])
def test_real_stuff_masks_have_their_declared_areas_and_spare_the_things(shared_data: Path, part: str) -> None:
    """Oracles: the file's own `area` of each mask, and the polygons of the things, on which no stuff may lie."""
    pytest.importorskip("pycocotools")
    folder = shared_data / "coco/annotations"
    content = json.loads((folder / f"stuff_{part}2017.json").read_text())
    things = json.loads((folder / f"instances_{part}2017.json").read_text())["annotations"]
    stuff = StuffAnnotations((folder / f"stuff_{part}2017.json",))
    classes = SegmentationClasses.official()
    on_things = []
    for image in content["images"]:
        labels = stuff.label_map(image["id"], classes)
        assert labels.shape == (image["height"], image["width"])
        areas = {a["category_id"]: a["area"] for a in content["annotations"] if a["image_id"] == image["id"]}
        areas.pop(183, None)
        found = {classes.ids[i]: int((labels == i).sum()) for i in np.unique(labels) if i != IGNORED}
        assert found == areas
        canvas = Image.new("L", (image["width"], image["height"]))
        for thing in things:
            if thing["image_id"] == image["id"] and not thing["iscrowd"]:
                for polygon in thing["segmentation"]:
                    ImageDraw.Draw(canvas).polygon(polygon, fill=1)
        on_things.append((labels[np.asarray(canvas, dtype=bool)] != IGNORED).mean() if canvas.getbbox() else 0.0)
    assert np.mean(on_things) < 0.05


# Karpathy's split


def test_karpathy_layouts(tmp_path: Path) -> None:
    sentence = {"raw": " A dog.\n", "tokens": [], "sentid": 4, "imgid": 0}
    coco = {"filepath": "val2014", "filename": "COCO_val2014_000000000285.jpg", "cocoid": 285, "imgid": 0}
    flickr = {"filename": "1000092795.jpg", "imgid": 3}
    images = [coco | {"split": "restval", "sentences": [sentence]}, flickr | {"split": "test", "sentences": []}]
    first, second = read_karpathy(save_json(tmp_path / "k.json", {"images": images, "dataset": "coco"}))
    assert (first.split, first.path.parent.name, first.image_id) == ("train", "val2014", 285)
    assert (first.captions, first.caption_ids) == (("A dog.",), (4,))
    assert read_karpathy(tmp_path / "k.json", captions=False)[0].captions == ()
    assert (second.split, second.path.parent.name, second.image_id) == ("test", "", 1000092795)


def test_unknown_split_is_named(tmp_path: Path) -> None:
    path = save_json(tmp_path / "k.json", {"images": [{"filename": "1.jpg", "split": "dev", "sentences": []}]})
    with pytest.raises(UserError, match=r"k\.json: image 1\.jpg is in split 'dev'"):
        read_karpathy(path)


def test_real_karpathy_split_agrees_with_the_official_id_lists(shared_data: Path) -> None:
    entries = read_karpathy(shared_data / "coco/dataset_coco_karpathy_format.json")
    assert len(entries) == 762
    assert [sum(e.split == name for e in entries) for name in ("train", "val", "test")] == [573, 90, 99]
    for name in ("val", "test"):
        lines = (shared_data / f"splits/coco_karpathy_{name}_images.txt").read_text().splitlines()
        official = {int(line.split()[1]) for line in lines}
        assert {e.image_id for e in entries if e.split == name} <= official
        assert not {e.image_id for e in entries if e.split == "train"} & official


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", -1),
        ("id", 10**12),
        ("id", 1.5),
        ("id", None),
        ("id", "seven"),
        ("id", True),
        ("width", 0),
        ("width", 10**6),
        ("height", float("inf")),
        ("height", float("nan")),
        ("height", [1]),
        ("file_name", "../../etc/passwd.jpg"),
        ("file_name", "a\0b.jpg"),
        ("file_name", "\ud800.jpg"),
        ("file_name", 7),
        ("flickr_url", 7),
    ],
)
def test_an_absurd_field_is_named(tmp_path: Path, field: str, value: Any) -> None:
    path = caption_file(tmp_path / "c.json", "A dog.")
    content = json.loads(path.read_text())
    content["images"][0][field] = value
    with pytest.raises(UserError, match=r"c\.json"):
        read_captions(save_json(path, content))


def test_half_a_character_in_a_caption_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"c\.json .*surrogates not allowed"):
        read_captions(caption_file(tmp_path / "c.json", "A \ud800 dog."))


def test_masks_of_images_of_absurd_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"s\.json has an entry"):
        stuff_file(tmp_path / "s.json", size=(60_000, 60_000))
