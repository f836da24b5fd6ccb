"""Readers of COCO's captions, COCO-Stuff and Karpathy's splits, in their official formats.

Formats: cocodataset.org/#format-data, github.com/nightrome/cocostuff, cs.stanford.edu/people/karpathy/deepimagesent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vlp_lib.corpora.images import MOST_PIXELS, MOST_SIDE, read_image, read_label_values
from vlp_lib.corpora.records import IGNORED, ImageRecord
from vlp_lib.corpora.table import ID_STRIDE
from vlp_lib.errors import UserError
from vlp_lib.io import read_json, readable

_MOST_CATEGORY = 10**6
_MOST_OUTLINE = 10**6
"""Pixels that the outlines of one mask may be long together."""

_STUFF_OTHER = 183
"""COCO-Stuff JSON's category "other": all things together, no class of its own."""

_FLICKR_IMAGE = re.compile(r"https?://[^/]*flickr\.com/(?:[^/]+/)*(\d{1,15})_")

_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}

# Names of the category ids 1 … 182. Eleven were never annotated and are empty here, which leaves 171 classes.
_OFFICIAL_NAMES = (
    "person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant||stop sign|parking meter"
    "|bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe||backpack|umbrella|||handbag|tie|suitcase|frisbee"
    "|skis|snowboard|sports ball|kite|baseball bat|baseball glove|skateboard|surfboard|tennis racket|bottle|"
    "|wine glass|cup|fork|knife|spoon|bowl|banana|apple|sandwich|orange|broccoli|carrot|hot dog|pizza|donut|cake|chair"
    "|couch|potted plant|bed||dining table|||toilet||tv|laptop|mouse|remote|keyboard|cell phone|microwave|oven|toaster"
    "|sink|refrigerator||book|clock|vase|scissors|teddy bear|hair drier|toothbrush||banner|blanket|branch|bridge"
    "|building-other|bush|cabinet|cage|cardboard|carpet|ceiling-other|ceiling-tile|cloth|clothes|clouds|counter"
    "|cupboard|curtain|desk-stuff|dirt|door-stuff|fence|floor-marble|floor-other|floor-stone|floor-tile|floor-wood"
    "|flower|fog|food-other|fruit|furniture-other|grass|gravel|ground-other|hill|house|leaves|light|mat|metal"
    "|mirror-stuff|moss|mountain|mud|napkin|net|paper|pavement|pillow|plant-other|plastic|platform|playingfield"
    "|railing|railroad|river|road|rock|roof|rug|salad|sand|sea|shelf|sky-other|skyscraper|snow|solid-other|stairs"
    "|stone|straw|structural-other|table|tent|textile-other|towel|tree|vegetable|wall-brick|wall-concrete|wall-other"
    "|wall-panel|wall-stone|wall-tile|wall-wood|water-other|waterdrops|window-blind|window-other|wood"
)


@contextmanager
def official_fields(path: Path) -> Iterator[None]:
    """Make a UserError that names the file of what an entry without the official fields raises in the block."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise UserError(f"{path} has an entry without the official fields ({error!r}): fetch it again") from error


def _lists(path: Path, *keys: str) -> list[list[Any]]:
    """Some lists of a JSON file's top level."""
    content = read_json(path)
    for key in keys:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{path} has no list {key!r}: give the official file of that name")
    return [content[key] for key in keys]


def whole(entry: Mapping[str, Any], name: str, least: int = 0, most: int = ID_STRIDE - 1) -> int:
    """A whole number of an entry, written as such or as a text; raises ValueError for another, or one out of range."""
    given = entry[name]
    value = int(given) if isinstance(given, str | int) and not isinstance(given, bool) else None
    if value is None or not least <= value <= most:
        raise ValueError(f"{name} is {given!r:.60} where a whole number from {least} to {most} is needed")
    return value


def tidy(text: str) -> str:
    """A sentence without the outer white space and the line breaks that COCO's captions have.

    Raises ValueError for half of a character (a lone surrogate, as JSON can write it).
    """
    text.encode()
    return " ".join(text.split())


def flickr_id(url: str) -> int | None:
    """The photograph's number in a Flickr image's address (…flickr.com/3446/3232237447_13d84bd0a1_z.jpg), or None."""
    match = _FLICKR_IMAGE.match(url)
    return int(match[1]) if match else None


def read_captions(path: Path) -> list[ImageRecord]:
    """The images of a COCO captions JSON, in the order of the file; some may have no caption.

    Raises UserError where the file is missing or broken, or a caption names an image that the file does not list.
    """
    images, annotations = _lists(path, "images", "annotations")
    with official_fields(path):
        spoken: dict[int, dict[int, str]] = {whole(image, "id"): {} for image in images}
        for annotation in annotations:
            if annotation["image_id"] not in spoken:
                raise UserError(
                    f"{path}: caption {annotation['id']} is of image {annotation['image_id']}, which the file does not "
                    f"list: fetch it again or remove the caption"
                )
            if sentence := tidy(annotation["caption"]):
                spoken[annotation["image_id"]][whole(annotation, "id")] = sentence
        return [_captioned(image, spoken[whole(image, "id")]) for image in images]


def _captioned(image: Mapping[str, Any], said: Mapping[int, str]) -> ImageRecord:
    width, height = (whole(image, side, 1, MOST_SIDE) for side in ("width", "height"))
    own = whole(image, "id")
    return ImageRecord(
        image_id=own,
        path=_within(image["file_name"]),
        split="",
        width=width,
        height=height,
        captions=tuple(said.values()),
        caption_ids=tuple(said),
        coco_id=own,
        flickr_id=flickr_id(image.get("flickr_url", "")),
    )


def read_categories(path: Path) -> dict[int, str]:
    """Category id → name of an instances or stuff JSON.

    Only this list is parsed: the masks and boxes around it take a thousand times as long.

    Raises UserError where the file is missing or has no sound list of categories.
    """
    with readable(path):
        content = path.read_bytes()
    # Within a JSON string the quotes would be escaped: this matches a key only.
    key = re.search(rb'"categories"\s*:\s*(?=\[)', content)
    if key is None:
        raise UserError(f"{path} has no list 'categories': give the official file of that name")
    with official_fields(path):
        try:
            categories, _ = json.JSONDecoder().raw_decode(content[key.end() :].decode())
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        return {whole(category, "id", most=_MOST_CATEGORY): tidy(category["name"]) for category in categories}


@dataclass(frozen=True)
class SegmentationClasses:
    """The classes of a label map: COCO category ids, sorted, and the contiguous index of each.

    SEGL's classifier has one output more than there are classes: "unlabeled", which is never a target.

    Attributes:
        ids: category ids, ascending; the position is the class index.
        names: the name of each.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def official(cls) -> SegmentationClasses:
        """COCO-Stuff's 171: ids 1 … 182 without the eleven that were never annotated."""
        return cls.of({i: name for i, name in enumerate(_OFFICIAL_NAMES.split("|"), start=1) if name})

    @classmethod
    def of(cls, categories: dict[int, str]) -> SegmentationClasses:
        """The classes of a category table, COCO-Stuff's "other" left out.

        Raises UserError where an id does not fit into the 8 bits of a pixel map.
        """
        ids = sorted(set(categories) - {_STUFF_OTHER})
        if not ids or ids[0] < 1 or ids[-1] > IGNORED:
            raise UserError(f"the categories {ids[:1]} … {ids[-1:]} do not fit pixel maps: their ids must be 1 … 255")
        return cls(tuple(ids), tuple(categories[i] for i in ids))

    @cached_property
    def lookup(self) -> np.ndarray:
        """[256] uint8: value of a COCO-Stuff pixel map (category id − 1) → class index, 255 where it has no class."""
        table = np.full(256, IGNORED, dtype=np.uint8)
        table[np.array(self.ids) - 1] = np.arange(len(self.ids))
        return table


def read_pixel_map(path: Path, classes: SegmentationClasses) -> np.ndarray:
    """A COCO-Stuff pixel map (PNG: category id − 1, 255 void) as [H, W] uint8 class indices, 255 without class.

    Raises UserError where the file is missing, broken or no pixel map.
    """
    return classes.lookup[read_label_values(path)]


Segments = dict[str, dict[int, int]]
"""By the stem of a panoptic PNG, the category of each segment of it."""


def read_segments(path: Path) -> Segments:
    """The segments of a panoptic_*.json; raises UserError where it is missing or broken."""
    (annotations,) = _lists(path, "annotations")
    with official_fields(path):
        return {
            _within(entry["file_name"]).stem: {
                whole(part, "id"): whole(part, "category_id", 1, IGNORED) for part in entry["segments_info"]
            }
            for entry in annotations
        }


def read_panoptic_map(path: Path, segments: Segments, classes: SegmentationClasses) -> np.ndarray:
    """A panoptic PNG (segment R + 256 G + 65536 B, 0 void) as [H, W] uint8 class indices, 255 without class.

    Raises UserError where the file is missing or broken, or has a segment that the JSON does not list.
    """
    parts = segments.get(path.stem, {})
    drawn = np.asarray(read_image(path)) @ np.array([1, 256, 65_536])
    found, where = np.unique(drawn, return_inverse=True)
    if unlisted := sorted(set(found.tolist()) - parts.keys() - {0}):
        raise UserError(f"{path} has a segment {unlisted[0]} that its JSON does not list: fetch both of one release")
    labels = [IGNORED if i == 0 else classes.lookup[parts[i] - 1] for i in found.tolist()]
    return np.array(labels, np.uint8)[where].reshape(drawn.shape)


class StuffAnnotations:
    """COCO-Stuff JSON: masks by image, decoded when asked for. It holds the whole files in memory.

    Raises UserError where a file is missing or broken.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._masks: dict[int, list[tuple[int, Any]]] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        self._files: dict[int, Path] = {}
        for path in paths:
            images, annotations = _lists(path, "images", "annotations")
            with official_fields(path):
                for image in images:
                    height, width = (whole(image, side, 1, MOST_SIDE) for side in ("height", "width"))
                    if height * width > MOST_PIXELS:
                        raise ValueError(f"an image of {width} × {height} pixels")
                    self._sizes[whole(image, "id")] = height, width
                for annotation in annotations:
                    image_id = annotation["image_id"]
                    if image_id not in self._sizes:
                        raise UserError(f"{path}: a mask is of image {image_id}, which is not listed: fetch it again")
                    self._files[image_id] = path
                    category = whole(annotation, "category_id", most=_MOST_CATEGORY)
                    self._masks.setdefault(image_id, []).append((category, annotation["segmentation"]))

    def __contains__(self, image_id: int) -> bool:
        return image_id in self._masks

    def source(self, image_id: int) -> Path:
        """The file that an image's masks are from."""
        return self._files[image_id]

    def label_map(self, image_id: int, classes: SegmentationClasses) -> np.ndarray:
        """[H, W] uint8 class indices at the declared size, 255 where no mask lies and on "other" (the things).

        Raises UserError where a mask is broken or of another size, or pycocotools, which draws polygons, is not there.
        """
        size = self._sizes[image_id]
        labels = np.full(size, IGNORED, dtype=np.uint8)
        for category, segmentation in self._masks[image_id]:
            index = classes.lookup[category - 1] if 0 < category <= IGNORED else IGNORED
            if index == IGNORED:
                continue
            try:
                mask = _decode_mask(segmentation, size)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                raise UserError(
                    f"{self._files[image_id]}: the mask of category {category} in image {image_id} is broken "
                    f"({error}): fetch the file again"
                ) from error
            labels[mask] = index
        return labels


def _decode_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """A COCO segmentation as [H, W] bool: compressed or plain run lengths, or polygons in pixels."""
    if isinstance(segmentation, list):
        return _drawn(segmentation, size)
    if tuple(segmentation["size"]) != size:
        raise ValueError(f"size {segmentation['size']!r:.60}, the image's is {list(size)}")
    given = segmentation["counts"]
    counts = _run_lengths(given.encode()) if isinstance(given, str) else given
    # Python's own numbers: numpy's would run over, and repeat before they are counted.
    if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != size[0] * size[1]:
        raise ValueError(f"its run lengths do not add up to {size[0] * size[1]} pixels")
    # Runs of absent and present pixels in turn, down the columns.
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size, order="F")


def _run_lengths(packed: bytes) -> list[int]:
    """The run lengths of COCO's compressed form (`rleFrString` of pycocotools, which trusts what it reads).

    Five bits a character, from 48 on, the lowest first; bit 5 says that another follows, bit 4 of the last is the sign;
    from the fourth on a run is a difference from the one before the last.
    """
    bits = np.frombuffer(packed, np.uint8).astype(np.int64) - 48
    last = bits & 32 == 0
    if bits.size == 0 or bits.min() < 0 or bits.max() > 63 or not last[-1]:
        raise ValueError("its run lengths are cut off or of other characters")
    ends = np.flatnonzero(last)
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > 7:
        raise ValueError("it has a run length of more than 35 bits")
    places = np.arange(bits.size) - np.repeat(ends - lengths + 1, lengths)
    runs = np.add.reduceat((bits & 31) << 5 * places, ends - lengths + 1)
    runs -= np.where(bits[ends] & 16, np.int64(1) << 5 * lengths, 0)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return [int(run) for run in runs]


def _drawn(polygons: list[Any], size: tuple[int, int]) -> np.ndarray:
    """Polygons as pycocotools draws them: it would write anywhere for points that are far away or no numbers."""
    try:
        from pycocotools import mask
    except ImportError:
        raise UserError(
            "the polygons of COCO-Stuff JSON need the package pycocotools: install it with `pip install pycocotools` "
            "or add COCO-Stuff's pixel maps as stuffthingmaps/"
        ) from None
    length, reach = 0.0, np.array(size[::-1], np.float64)
    for polygon in polygons:
        points = np.array(polygon, np.float64).reshape(-1, 2)
        if len(points) < 3 or not ((points >= -reach) & (points <= 2 * reach)).all():
            raise ValueError(f"a polygon has less than 3 points, or points far from the image of {size[1]} × {size[0]}")
        length += float(np.abs(points - np.roll(points, 1, axis=0)).sum())
    if not polygons or length > _MOST_OUTLINE:  # time and memory of drawing go by it
        raise ValueError(f"its polygons are none, or {length:,.0f} pixels long where {_MOST_OUTLINE:,} are possible")
    return mask.decode(mask.merge(mask.frPyObjects(polygons, *size))).astype(bool)


def _within(name: str) -> Path:
    """The name of an image file within its data set; raises ValueError for one that leads out of it."""
    tidy(name)
    if "\0" in name or ".." in Path(name).parts:
        raise ValueError(f"the file name {name!r:.60}")
    return Path(name)


def read_karpathy(path: Path, captions: bool = True) -> list[ImageRecord]:
    """Karpathy's split of COCO or Flickr30k ("restval" is train), in the order of the file.

    Args:
        path: dataset_coco.json, dataset_flickr30k.json or another file of the same layout.
        captions: False leaves them empty, which is faster where captions_*.json has them.

    Raises UserError where the file is missing or broken, or names another split.
    """
    (entries,) = _lists(path, "images")
    images = []
    with official_fields(path):
        for entry in entries:
            name = _within(entry.get("filepath", "")) / _within(entry["filename"])
            if not isinstance(entry["split"], str) or entry["split"] not in _SPLITS:
                raise UserError(
                    f"{path}: image {name.name} is in split {entry['split']!r}: it must be one of {', '.join(_SPLITS)}"
                )
            # Flickr30k has no id of its own but the number that is the file's name.
            image_id = whole({"cocoid": name.stem} | entry, "cocoid")
            ids = (image_id, None) if "cocoid" in entry else (None, image_id)
            sentences = entry["sentences"] if captions else ()
            said = {whole(s, "sentid"): sentence for s in sentences if (sentence := tidy(s["raw"]))}
            texts = tuple(said.values()), tuple(said)
            images.append(ImageRecord(image_id, name, _SPLITS[entry["split"]], 0, 0, *texts, *ids))
    return images
