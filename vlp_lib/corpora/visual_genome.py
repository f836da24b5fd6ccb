"""Reader of Visual Genome's image data and region descriptions: the sentence of each region is a caption of its image.

Formats: homes.cs.washington.edu/~ranjay/visualgenome/api_readme.html.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlp_lib.corpora.coco import official_fields, tidy
from vlp_lib.errors import UserError
from vlp_lib.io import read_text

IMAGE_DATA, REGIONS = "image_data.json", "region_descriptions.json"
IMAGE_FOLDERS = ("VG_100K", "VG_100K_2")

_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class GenomeImage:
    """What image_data.json says of an image.

    Attributes:
        width, height: in pixels.
        coco_id, flickr_id: the photograph's id in COCO and on flickr.com, None where the file has null.
    """

    image_id: int
    width: int
    height: int
    coco_id: int | None
    flickr_id: int | None


@dataclass(frozen=True)
class Regions:
    """The sentences about the regions of an image, in the order of the file.

    Attributes:
        phrases: white space tidied, empty ones left out.
        region_ids: of each.
        empty: regions without a sentence.
    """

    image_id: int
    phrases: tuple[str, ...]
    region_ids: tuple[int, ...]
    empty: int


def read_image_data(path: Path) -> dict[int, GenomeImage]:
    """The images of image_data.json by id; raises UserError where the file is missing or broken."""
    images = {}
    with official_fields(path):
        for entry in _entries(path):
            coco, flickr = (None if entry[name] is None else int(entry[name]) for name in ("coco_id", "flickr_id"))
            size = int(entry["width"]), int(entry["height"])
            images[entry["image_id"]] = GenomeImage(int(entry["image_id"]), *size, coco, flickr)
    return images


def read_regions(path: Path) -> Iterator[Regions]:
    """The regions of region_descriptions.json, image by image; one image's at a time is held as objects.

    Raises UserError where the file is missing or broken.
    """
    for entry in _entries(path):
        with official_fields(path):
            said = [(region["region_id"], tidy(region["phrase"])) for region in entry["regions"]]
            image_id = entry["id"] if "id" in entry else entry["image_id"]  # as releases call it
        kept = [(region_id, phrase) for region_id, phrase in said if phrase]
        ids, phrases = tuple(region_id for region_id, _ in kept), tuple(phrase for _, phrase in kept)
        yield Regions(image_id, phrases, ids, len(said) - len(kept))


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
        except json.JSONDecodeError as error:
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
