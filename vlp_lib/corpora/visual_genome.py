"""Reader of Visual Genome's image data and region descriptions: the sentence of each region is a caption of its image.

Formats: homes.cs.washington.edu/~ranjay/visualgenome/api_readme.html.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlp_lib.corpora.coco import tidy
from vlp_lib.errors import UserError

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
    """The images of image_data.json by id.

    Raises:
        UserError: the file is missing or broken.
    """
    images = {}
    for entry in _entries(path):
        try:
            coco, flickr = entry["coco_id"], entry["flickr_id"]
            images[entry["image_id"]] = GenomeImage(
                image_id=int(entry["image_id"]),
                width=int(entry["width"]),
                height=int(entry["height"]),
                coco_id=None if coco is None else int(coco),
                flickr_id=None if flickr is None else int(flickr),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _malformed(path, error) from error
    return images


def read_regions(path: Path) -> Iterator[Regions]:
    """The regions of region_descriptions.json, image by image; one image's at a time is held as objects.

    Raises:
        UserError: the file is missing or broken.
    """
    for entry in _entries(path):
        try:
            said = [(tidy(region["phrase"]), region["region_id"]) for region in entry["regions"]]
            kept = [(phrase, region_id) for phrase, region_id in said if phrase]
            yield Regions(
                image_id=entry["id"] if "id" in entry else entry["image_id"],  # as releases call it
                phrases=tuple(phrase for phrase, _ in kept),
                region_ids=tuple(region_id for _, region_id in kept),
                empty=len(said) - len(kept),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise _malformed(path, error) from error


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list one by one: parsed at once, region_descriptions.json takes ten times its 700 MB."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: fetch it from visualgenome.org") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text ({error}): fetch it again") from error
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


def _malformed(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} has an entry without the official fields ({error!r}): fetch it again")
