"""What an object detector saw: the kit's own npz files and the TSV files of Bottom-Up attention as LXMERT packs them.

Where there is neither, COCO's instances stand for a detector's labels.

The npz holds N images and M boxes; the boxes of image i are the rows offsets[i] to offsets[i + 1]:

    image_ids [N] int64, sizes [N, 2] int32 (width, height), offsets [N + 1] int64, labels [M] int16,
    scores [M] float32 in [0, 1], boxes [M, 4] float32 (x1, y1, x2, y2) in pixels of `sizes`,
    attributes [M] int16 (−1 none), classes and attribute_names [·] unicode, features [M, D] float32 (optional),
    about [] unicode, JSON (optional): which detector, how many labels an image, above which score.

The TSV's columns are those of github.com/airsplay/lxmert; its vocabulary (1,600 objects, 400 attributes) is Visual
Genome's as github.com/peteanderson80/bottom-up-attention cut it.
"""

from __future__ import annotations

import base64
import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from vlp_lib.arrays import array_header, read_npz
from vlp_lib.corpora.coco import official_fields, read_categories, whole
from vlp_lib.corpora.images import MOST_SIDE
from vlp_lib.corpora.records import Detections
from vlp_lib.errors import UserError
from vlp_lib.io import parse_json, read_json, read_text, readable, write_atomically

_IMAGE_DTYPES: dict[str, type] = {"image_ids": np.int64, "sizes": np.int32, "offsets": np.int64}
_BOX_DTYPES: dict[str, type] = {"labels": np.int16, "scores": np.float32, "boxes": np.float32, "attributes": np.int16}
_DTYPES = _IMAGE_DTYPES | _BOX_DTYPES
_COLUMNS = ("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf", "num_boxes", "boxes",
            "features")  # fmt: skip
_OBJECTS, _ATTRIBUTES = 1600, 400
_TSV_ID = re.compile(rb"(?:COCO_\w+_)?(\d{1,18})")
_SLACK = 1.0
"""Pixels that a box may reach over the image's edge: detectors round."""

Rows = Mapping[str, np.ndarray]
"""Arrays of an npz by name."""


def _first_fault(rows: Rows, sizes: np.ndarray, classes: int, attributes: int) -> tuple[int, str] | None:
    """The first impossible box and what is wrong with it, or None; `sizes` [M, 2] are those of the boxes' images."""
    labels, scores, boxes, kinds = (rows[name] for name in _BOX_DTYPES)
    outside = (boxes < -_SLACK) | (boxes > np.tile(sizes, 2) + _SLACK)
    for name, bad, fault in (
        ("labels", (labels < 0) | (labels >= classes), f"outside the vocabulary of {classes} classes"),
        ("scores", ~((scores >= 0) & (scores <= 1 + 1e-6)), "not within [0, 1]"),
        ("attributes", (kinds < -1) | (kinds >= attributes), f"none of {attributes} attributes"),
        ("boxes", ~np.isfinite(boxes).all(1), "not finite"),
        ("boxes", (boxes[:, 2:] < boxes[:, :2]).any(1), "with its corners exchanged"),
        ("boxes", outside.any(1), "outside the image"),
    ):
        if bad.any():
            row = int(bad.argmax())
            return row, f"{name} has {rows[name][row].tolist()}, {fault}"
    return None


def _exact(name: str, values: np.ndarray, kind: type) -> np.ndarray:
    """Numbers as another kind; raises ValueError where whole numbers are asked for and one is none, or too large."""
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{name} has {values.dtype} where numbers are needed")
    with np.errstate(invalid="ignore", over="ignore"):
        cast: np.ndarray = values.astype(kind)
    if np.dtype(kind).kind == "i" and (wrong := cast != values).any():
        raise ValueError(f"{name} has {values[wrong].flat[0]}, no whole number that fits into {np.dtype(kind)}")
    return cast


def _detections(rows: Rows, sizes: np.ndarray, features: np.ndarray | None) -> Detections:
    """Best score first, boxes as fractions of the image; ties keep the order of the file."""
    if features is not None and not np.isfinite(features).all():
        raise ValueError("features has a value that is not finite")
    order = np.argsort(-rows["scores"], kind="stable")
    return Detections(
        rows["labels"][order].astype(np.int64),
        rows["scores"][order].clip(0, 1).astype(np.float32),
        (rows["boxes"] / np.tile(sizes, 2))[order].clip(0, 1).astype(np.float32),
        rows["attributes"][order].astype(np.int64),
        None if features is None else features[order],
    )


class _BoxArrays:
    """A source whose boxes are in memory, in the arrays of the npz."""

    path: Path
    classes: tuple[str, ...]
    attribute_names: tuple[str, ...] = ()
    skipped: ClassVar[dict[str, int]] = {}
    """Rows that are not used, by reason: none."""

    _arrays: Rows
    _features: _FeatureFile | None = None

    @cached_property
    def _row(self) -> dict[int, int]:
        return {image_id: row for row, image_id in enumerate(self._arrays["image_ids"].tolist())}

    @property
    def image_ids(self) -> tuple[int, ...]:
        """The images, in the order of the file."""
        return tuple(self._row)

    def __contains__(self, image_id: int) -> bool:
        return image_id in self._row

    def size(self, image_id: int) -> tuple[int, int]:
        """Width and height in pixels of the image that the boxes are of."""
        width, height = self._arrays["sizes"][self._row[image_id]].tolist()
        return width, height

    def read(self, image_id: int) -> Detections:
        """All detections of an image, best score first; raises UserError where its features are not finite."""
        image = self._row[image_id]
        rows = slice(*self._arrays["offsets"][image : image + 2].tolist())
        boxes = {name: self._arrays[name][rows] for name in _BOX_DTYPES}
        try:
            return _detections(boxes, self._arrays["sizes"][image], self._features and self._features.read(rows))
        except ValueError as fault:
            raise UserError(f"{self.path}: image {image_id}: {fault}: make it again") from fault


class NpzDetections(_BoxArrays):
    """Detections in the kit's npz; features stay on disk until asked for.

    Raises UserError where the file is missing or broken, an array is missing, of a wrong shape, or holds an impossible
    value.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        arrays = read_npz(path, leave=("features",))
        try:
            self._arrays = {name: _exact(name, arrays[name], kind) for name, kind in _DTYPES.items()}
            self.classes, self.attribute_names = (tuple(map(str, arrays[n])) for n in ("classes", "attribute_names"))
            self._features = _FeatureFile.of(path)
            self._require_sound()
        except KeyError as error:
            raise UserError(f"{path} lacks an array ({error.args[0]}): write it again") from error
        except (ValueError, TypeError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: {error}: make it again") from error
        self.about: dict[str, Any] = parse_json(str(arrays["about"]), f"{path}: about") if "about" in arrays else {}

    def __len__(self) -> int:
        return len(self._arrays["labels"])

    def _require_sound(self) -> None:
        """Raise ValueError where the arrays do not fit together or hold an impossible value."""
        a, images, boxes = self._arrays, len(self._arrays["image_ids"]), len(self)
        wanted = {"image_ids": (images,), "sizes": (images, 2), "offsets": (images + 1,), "scores": (boxes,),
                  "boxes": (boxes, 4), "attributes": (boxes,)}  # fmt: skip
        for name, shape in wanted.items():
            if a[name].shape != shape:
                raise ValueError(f"{name} has the shape {a[name].shape} instead of {shape}")
        if self._features and (len(self._features.shape) != 2 or self._features.shape[0] != boxes):
            raise ValueError(f"features has the shape {self._features.shape} for {boxes} boxes")
        counts = np.diff(a["offsets"])
        if a["offsets"][0] != 0 or a["offsets"][-1] != boxes or (counts < 0).any():
            raise ValueError(f"offsets do not rise from 0 to the {boxes} boxes")
        unique, repeats = np.unique(a["image_ids"], return_counts=True)
        if (repeats > 1).any():
            raise ValueError(f"image {unique[repeats.argmax()]} is listed twice in image_ids")
        if (empty := (a["sizes"] < 1).any(1)).any():
            raise ValueError(f"sizes of image {a['image_ids'][empty.argmax()]} is not positive")
        sizes = np.repeat(a["sizes"], counts, axis=0)
        if fault := _first_fault(a, sizes, len(self.classes), len(self.attribute_names)):
            image = a["image_ids"][np.searchsorted(a["offsets"], fault[0], side="right") - 1]
            raise ValueError(f"image {image}: {fault[1]}")


class _FeatureFile(NamedTuple):
    """The features of an uncompressed npz, read row by row: those of all COCO images do not fit into memory."""

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, path: Path) -> _FeatureFile | None:
        """Find where they begin, None where there are none; raises ValueError where they are broken."""
        with zipfile.ZipFile(path) as archive:
            if "features.npy" not in archive.namelist():
                return None
            info = archive.getinfo("features.npy")
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError("features are compressed, which cannot be read in parts; use numpy.savez")
            with archive.open(info) as member:
                shape, fortran, dtype = array_header(member)
                header = member.tell()
        if fortran:
            raise ValueError("features lie in Fortran order; use numpy.ascontiguousarray")
        if dtype.kind != "f" or math.prod(shape) * dtype.itemsize != info.file_size - header:
            raise ValueError("features are no numbers, or not as many as they say")
        # The local file header ends with a name and an extra field whose lengths stand at its bytes 26 and 28.
        name, extra = np.fromfile(path, "<u2", 2, offset=info.header_offset + 26).tolist()
        return cls(path, info.header_offset + 30 + name + extra + header, shape, dtype)

    def read(self, rows: slice) -> np.ndarray:
        """Some rows as float32."""
        width = self.shape[1]
        start = self.start + rows.start * width * self.dtype.itemsize
        values = np.fromfile(self.path, self.dtype, (rows.stop - rows.start) * width, offset=start)
        return values.reshape(-1, width).astype(np.float32)


def write_detections(
    path: Path,
    images: Iterable[tuple[int, tuple[int, int], Detections]],
    classes: Sequence[str],
    attribute_names: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write the kit's npz; the file appears only when it is complete.

    Args:
        path: of the npz; its folder is made.
        images: image id, (width, height) in pixels, and detections; with features either in every image or in none.
        classes: names of the detector's classes.
        attribute_names: names of its attributes, if it has any.
        about: of the detector and of what was kept, as JSON takes it.

    Raises UserError where a value is impossible; it is named and nothing is written.
    """
    images = list(images)
    rows = [detections for _, _, detections in images]
    sizes = np.array([size for _, size, _ in images]).reshape(-1, 2)
    pixels = [d.boxes * np.tile(np.float32(size), 2) for size, d in zip(sizes, rows, strict=True)]
    arrays: dict[str, Any] = {
        "image_ids": [image_id for image_id, _, _ in images],
        "sizes": sizes,
        "offsets": np.cumsum([0] + [len(d.labels) for d in rows]),
        "boxes": np.concatenate([np.zeros((0, 4)), *pixels]),
    }
    for name in ("labels", "scores", "attributes"):
        arrays[name] = np.concatenate([np.zeros(0), *(getattr(d, name) for d in rows)])
    typed: dict[str, Any] = {name: _exact(name, np.asarray(arrays[name]), kind) for name, kind in _DTYPES.items()}
    typed |= {"classes": np.array(classes, np.str_), "attribute_names": np.array(attribute_names, np.str_)}
    if about is not None:
        typed["about"] = np.array(json.dumps(about))
    if features := [d.features for d in rows if d.features is not None]:
        typed["features"] = np.concatenate(features)

    def write(draft: Path) -> None:
        with draft.open("wb") as file:
            np.savez(file, **typed)
        NpzDetections(draft)

    write_atomically(path, write)


class TsvDetections:
    """Detections in the TSV of Bottom-Up attention and LXMERT; a row is decoded when asked for.

    Names of the vocabulary are read from objects_vocab.txt and attributes_vocab.txt beside the TSV, where they lie
    there (the first of several synonyms); else the classes are called "object 0" … . The first need of a row reads
    through the file once to find where the rows begin.

    Raises UserError where the file is missing, has other columns, or (when a row is read) a broken or impossible value.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"{path} is missing: fetch it again")
        self.path = path
        self.classes = _vocabulary(path.with_name("objects_vocab.txt"), "object", _OBJECTS)
        self.attribute_names = _vocabulary(path.with_name("attributes_vocab.txt"), "attribute", _ATTRIBUTES)

    @cached_property
    def _index(self) -> tuple[dict[int, int], dict[str, int]]:
        """Image id → offset of its row in bytes; and the rows that are not used, by reason."""
        offsets: dict[int, int] = {}
        skipped: Counter[str] = Counter()
        offset = 0
        with readable(self.path), self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                start, offset = offset, offset + len(line)
                if not line.strip():
                    continue
                name, fields = line.split(b"\t", 1)[0], line.count(b"\t") + 1
                if fields != len(_COLUMNS):
                    called = " ".join(name[:40].decode(errors="replace").split())
                    raise UserError(
                        f"{self.path}: row {number} (image {called}) has {fields} "
                        f"fields instead of {len(_COLUMNS)} ({', '.join(_COLUMNS)}): fetch it again"
                    )
                match = _TSV_ID.fullmatch(name)
                if match is None:
                    skipped["detections whose image id is no COCO id"] += 1
                elif int(match[1]) in offsets:
                    skipped["detections of an image that occurs again"] += 1
                else:
                    offsets[int(match[1])] = start
        return offsets, dict(skipped)

    @property
    def image_ids(self) -> tuple[int, ...]:
        """The images, in the order of the file."""
        return tuple(self._index[0])

    @property
    def skipped(self) -> dict[str, int]:
        """Rows that are not used, by reason."""
        return self._index[1]

    def __contains__(self, image_id: int) -> bool:
        return image_id in self._index[0]

    @contextmanager
    def _row(self, image_id: int) -> Iterator[dict[str, bytes]]:
        """The fields of an image; a ValueError over them becomes a UserError that names file and image."""
        with readable(self.path), self.path.open("rb") as file:
            file.seek(self._index[0][image_id])
            line = file.readline().rstrip(b"\r\n")
        try:
            yield dict(zip(_COLUMNS, line.split(b"\t"), strict=True))
        except ValueError as fault:
            raise UserError(f"{self.path}: image {image_id}: {fault}: fetch it again") from fault

    def size(self, image_id: int) -> tuple[int, int]:
        """Width and height in pixels of the image that the detector saw."""
        with self._row(image_id) as fields:
            return _number(fields, "img_w"), _number(fields, "img_h")

    def read(self, image_id: int) -> Detections:
        """All detections of an image, best score first; an image without a box has no features either."""
        with self._row(image_id) as fields:
            height, width, count = (_number(fields, name) for name in ("img_h", "img_w", "num_boxes"))
            if not (0 < height <= MOST_SIDE and 0 < width <= MOST_SIDE):
                raise ValueError(f"img_w × img_h is {width} × {height}")
            rows = {
                "labels": _values(fields, "objects_id", "<i8", count),
                "scores": _values(fields, "objects_conf", "<f4", count),
                "boxes": _values(fields, "boxes", "<f4", count, 4),
                "attributes": _values(fields, "attrs_id", "<i8", count),
            }
            size = np.array([width, height])
            if fault := _first_fault(rows, size, _OBJECTS, _ATTRIBUTES):
                raise ValueError(f"box {fault[0]}: {fault[1]}")
            return _detections(rows, size, _values(fields, "features", "<f4", count, -1) if count else None)


def _number(fields: Mapping[str, bytes], name: str) -> int:
    if not (fields[name].isdigit() and len(fields[name]) < 19):
        raise ValueError(f"{name} is {fields[name][:20]!r}, no whole number")
    return int(fields[name])


def _values(fields: Mapping[str, bytes], name: str, dtype: str, *shape: int) -> np.ndarray:
    """The numbers of a field in a shape, of which one side may be −1: as many as there are."""
    try:
        content = base64.b64decode(fields[name], validate=True)
        values = np.frombuffer(content, dtype).reshape(shape)
    except ValueError as error:  # base64's errors are such, too
        raise ValueError(f"{name} is no base64 of numbers of the shape {shape} ({error})") from error
    if -1 in shape and not values.size:
        raise ValueError(f"{name} is empty")
    return values


def _vocabulary(path: Path, kind: str, size: int) -> tuple[str, ...]:
    if not path.is_file():
        return tuple(f"{kind} {i}" for i in range(size))
    names = tuple(line.split(",")[0].strip() for line in read_text(path).splitlines())
    if len(names) != size:
        raise UserError(f"{path} has {len(names)} names instead of {size}: fetch it again")
    return names


class InstanceLabels(_BoxArrays):
    """The annotators' boxes of an instances_*.json in a detector's place: score 1, the largest first, no crowds.

    The file, 450 MB of COCO's training part, is read through when the first image is asked for.

    Raises UserError where the file is missing or broken.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._names = path, read_categories(path)
        self.classes = tuple(self._names[i] for i in sorted(self._names))

    @cached_property
    def _arrays(self) -> Rows:  # type: ignore[override]  # when it is asked for
        content, index = read_json(self.path), {category: i for i, category in enumerate(sorted(self._names))}
        found: list[tuple[float, ...]] = []  # place of the image, class, x, y, width, height
        with official_fields(self.path):
            sizes = {
                whole(image, "id"): [whole(image, side, 1, MOST_SIDE) for side in ("width", "height")]
                for image in content["images"]
            }
            places = {image_id: place for place, image_id in enumerate(sizes)}
            for entry in content["annotations"]:
                if not entry.get("iscrowd"):
                    box = tuple(map(float, entry["bbox"]))
                    if not (len(box) == 4 and all(abs(value) <= MOST_SIDE for value in box) and min(box[2:]) >= 0):
                        raise ValueError(f"the box {entry['bbox']!r:.60}")
                    found.append((places[entry["image_id"]], index[entry["category_id"]], *box))
        table = np.array(found).reshape(-1, 6)
        table = table[np.lexsort((-table[:, 4] * table[:, 5], table[:, 0]))]
        boxes = table[:, 2:].astype(np.float32)
        boxes[:, 2:] += boxes[:, :2]
        return {
            "image_ids": np.array(list(sizes), np.int64),
            "sizes": np.array(list(sizes.values()), np.int64).reshape(-1, 2),
            "offsets": np.searchsorted(table[:, 0], np.arange(len(sizes) + 1)),
            "labels": table[:, 1],
            "scores": np.ones(len(table)),
            "boxes": boxes,
            "attributes": np.full(len(table), -1),
        }


DetectionSource = NpzDetections | TsvDetections | InstanceLabels


class DetectionStore:
    """The detections of a corpus, over one or several files of the same detector.

    Args:
        sources: the files; where two hold the same image, the first counts.
        bases: what the corpus adds to the ids of each file; nothing by default.

    Raises UserError where the files have different vocabularies.
    """

    def __init__(self, sources: Sequence[DetectionSource], bases: Sequence[int] = ()) -> None:
        first = sources[0]
        for source in sources[1:]:
            if (source.classes, source.attribute_names) != (first.classes, first.attribute_names):
                raise UserError(
                    f"{source.path} has another vocabulary than {first.path}: keep the files of one detector only"
                )
        self.sources, self.bases = tuple(sources), tuple(bases) or (0,) * len(sources)
        self.classes, self.attribute_names = first.classes, first.attribute_names

    @property
    def skipped(self) -> dict[str, int]:
        """Rows that are not used, by reason."""
        return dict(sum((Counter(source.skipped) for source in self.sources), Counter()))

    def _source(self, image_id: int) -> tuple[DetectionSource, int] | None:
        """The first file that holds an image, and the image's id there."""
        ids = zip(self.sources, (image_id - base for base in self.bases), strict=True)
        return next(((source, own_id) for source, own_id in ids if own_id in source), None)

    def __contains__(self, image_id: int) -> bool:
        return self._source(image_id) is not None

    def size(self, image_id: int) -> tuple[int, int] | None:
        """Width and height in pixels of the image that the detector saw; None where it has not seen it."""
        place = self._source(image_id)
        return None if place is None else place[0].size(place[1])

    def get(self, image_id: int, max_count: int, min_score: float) -> Detections | None:
        """The best detections of an image, at most `max_count`, of at least the score `min_score`.

        Best score first, possibly none of them; None where the detector has not seen the image.

        Raises UserError where the image's row is broken.
        """
        if (place := self._source(image_id)) is None:
            return None
        detections = place[0].read(place[1])
        return detections.chosen(slice(min(max_count, int((detections.scores >= min_score).sum()))))


def open_detections(paths: Sequence[Path]) -> DetectionStore | None:
    """The store over npz and TSV files, by their suffix, None without files; raises UserError where one is broken."""
    sources = [TsvDetections(path) if path.suffix == ".tsv" else NpzDetections(path) for path in paths]
    return DetectionStore(sources) if sources else None
