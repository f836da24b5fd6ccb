"""Reader of Visual Genome's image data and region descriptions: the sentence of each region is a caption of its image.

Formats: homes.cs.washington.edu/~ranjay/visualgenome/api_readme.html.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlp_lib.corpora.coco import official_fields, tidy, whole
from vlp_lib.corpora.images import MOST_SIDE
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.errors import UserError
from vlp_lib.io import read_text

IMAGE_DATA, REGIONS = "image_data.json", "region_descriptions.json"
_IMAGE_FOLDERS = ("VG_100K", "VG_100K_2")

_DECODER = json.JSONDecoder()


def find_image_folders(root: Path) -> dict[str, Path]:
    """The folders VG_100K and VG_100K_2 that are there, at the root or in images/, by name."""
    places = ((name, place) for name in _IMAGE_FOLDERS for place in (root / "images" / name, root / name))
    return {name: place for name, place in places if place.is_dir()}


def read_image_data(path: Path) -> dict[int, ImageRecord]:
    """The images of image_data.json by id, without captions; raises UserError where the file is missing or broken."""
    images = {}
    with official_fields(path):
        for entry in _entries(path):
            width, height = (whole(entry, name, 1, MOST_SIDE) for name in ("width", "height"))
            image_id = whole(entry, "image_id")
            ids = (None if entry[name] is None else whole(entry, name) for name in ("coco_id", "flickr_id"))
            images[image_id] = ImageRecord(image_id, Path(f"{image_id}.jpg"), "train", width, height, (), (), *ids)
    return images


def read_regions(path: Path, images: dict[int, ImageRecord]) -> Iterator[tuple[ImageRecord, int]]:
    """The images of region_descriptions.json with the sentences of their regions, and how many regions have none.

    One image's regions at a time are held as objects.

    Args:
        path: of the file; white space of its sentences is tidied, empty ones are left out.
        images: as `read_image_data` gives them.

    Raises UserError where the file is missing or broken, or has an image that `images` has not.
    """
    for entry in _entries(path):
        with official_fields(path):
            regions = [(whole(region, "region_id"), tidy(region["phrase"])) for region in entry["regions"]]
            image_id = whole(entry, "id" if "id" in entry else "image_id")  # as releases call it
        if image_id not in images:
            data = path.with_name(IMAGE_DATA)
            raise UserError(f"{data} does not list image {image_id} of {path}: fetch both of one release")
        captions = tuple(phrase for _, phrase in regions if phrase)
        caption_ids = tuple(region_id for region_id, phrase in regions if phrase)
        yield replace(images[image_id], captions=captions, caption_ids=caption_ids), len(regions) - len(captions)


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list one by one: parsed at once, region_descriptions.json takes ten times its 700 MB."""
    text = read_text(path)
    place = _skip(text, 0)
    if text[place : place + 1] != "[":
        raise UserError(f"{path} is no JSON list: give Visual Genome's official file of that name")
    place = _skip(text, place + 1)
    while text[place : place + 1] != "]":
        try:
            entry, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is cut off or no JSON ({error}): fetch it again") from error
        if not isinstance(entry, dict):
            raise UserError(f"{path} has {entry!r:.40} where an object is needed: give the official file of that name")
        yield entry
        place = _skip(text, place)
        if text[place : place + 1] == ",":
            place = _skip(text, place + 1)


def _skip(text: str, place: int) -> int:
    """The next place that is no white space."""
    while text[place : place + 1].isspace():
        place += 1
    return place
