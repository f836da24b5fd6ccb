import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.visual_genome import read_image_data, read_regions
from vlp_lib.errors import UserError

ONE = {1: ImageRecord(1, Path("1.jpg"), "train", 1, 1, (), ())}


def test_image_data(official: Any) -> None:
    official.genome({7: (None, 99), 3: (42, None)})
    images = read_image_data(official.path / "vg/image_data.json")
    assert [(i, images[i].coco_id, images[i].flickr_id, images[i].width) for i in images] == [
        (7, None, 99, 12),
        (3, 42, None, 12),
    ]


def test_regions(official: Any) -> None:
    official.genome({7: (None, None)})
    folder = official.path / "vg"
    ((said, empty),) = read_regions(folder / "region_descriptions.json", read_image_data(folder / "image_data.json"))
    assert (said.image_id, said.captions, empty) == (7, ("region of 7", "another of 7"), 1)
    assert said.caption_ids == (70, 72)


@pytest.mark.parametrize("form", ["[{0}]", " [ {0} ,\n {0}]\n", "[]"])
def test_any_white_space_is_json(tmp_path: Path, form: str) -> None:
    text = form.replace("{0}", json.dumps({"id": 1, "regions": []}, indent=1))
    path = tmp_path / "region_descriptions.json"
    path.write_text(text)
    assert [said.image_id for said, _ in read_regions(path, ONE)] == [entry["id"] for entry in json.loads(text)]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"id": 1}', "is no JSON list"),
        ('[{"id": 1, "regions": []}', "cut off"),
        ('[{"id": 1, "regions": [', "cut off"),
        ("[1]", "where an object is needed"),
        ('[{"id": 1}]', "without the official fields"),
        ('[{"id": 1, "regions": [{"phrase": 5, "region_id": 1}]}]', "without the official fields"),
        ("", "is no JSON list"),
    ],
)
def test_broken_regions_are_named(tmp_path: Path, content: str, fault: str) -> None:
    path = tmp_path / "region_descriptions.json"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"region_descriptions\.json .*{fault}"):
        list(read_regions(path, ONE))


def test_real_regions(shared_data: Path, tmp_path: Path) -> None:
    content = gzip.decompress((shared_data / "vg/region_graphs.json.gz").read_bytes())
    path = tmp_path / "region_descriptions.json"
    path.write_bytes(content)
    entries = json.loads(content)
    images = {
        i: ImageRecord(i, Path(f"{i}.jpg"), "train", 1, 1, (), ()) for i in (entry["image_id"] for entry in entries)
    }
    read = list(read_regions(path, images))
    assert len(read) == len(entries) == 15
    for (said, empty), entry in zip(read, entries, strict=True):
        assert said.image_id == entry["image_id"]
        assert len(said.captions) + empty == len(entry["regions"])
        assert list(said.captions) == [
            " ".join(region["phrase"].split()) for region in entry["regions"] if region["phrase"].strip()
        ]
    assert sum(len(said.captions) for said, _ in read) > 300
