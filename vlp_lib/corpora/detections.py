"""What an object detector saw: the kit's own npz files and the TSV files of Bottom-Up attention as LXMERT packs them.

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
import binascii
import itertools
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vlp_lib.corpora.records import Detections
from vlp_lib.errors import UserError
from vlp_lib.io import write_atomically

_DTYPES: dict[str, type] = {
    "image_ids": np.int64,
    "sizes": np.int32,
    "offsets": np.int64,
    "labels": np.int16,
    "scores": np.float32,
    "boxes": np.float32,
    "attributes": np.int16,
}
_COLUMNS = ("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf", "num_boxes", "boxes",
            "features")  # fmt: skip
_OBJECTS, _ATTRIBUTES = 1600, 400
_TSV_ID = re.compile(rb"(?:COCO_\w+_)?(\d+)")
_SLACK = 1.0
"""Pixels that a box may reach over the image's edge: detectors round."""


@dataclass(frozen=True)
class _Rows:
    """Boxes of one or many images: the arrays of an npz, with the size of its image in each row."""

    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    attributes: np.ndarray
    sizes: np.ndarray

    def first_fault(self, classes: int, attributes: int) -> tuple[int, str] | None:
        """The first faulty row and its fault, or None."""
        limits = np.concatenate([self.sizes, self.sizes], axis=1) + _SLACK
        faults = (
            ("labels", (self.labels < 0) | (self.labels >= classes), f"outside the vocabulary of {classes} classes"),
            ("scores", ~((self.scores >= 0) & (self.scores <= 1 + 1e-6)), "not within [0, 1]"),
            (
                "attributes",
                (self.attributes < -1) | (self.attributes >= attributes),
                f"none of {attributes} attributes",
            ),
            ("boxes", ~np.isfinite(self.boxes).all(1), "not finite"),
            ("boxes", (self.boxes[:, 2:] < self.boxes[:, :2]).any(1), "with its corners exchanged"),
            ("boxes", ((self.boxes < -_SLACK) | (self.boxes > limits)).any(1), "outside the image"),
        )
        for field, bad, fault in faults:
            if bad.any():
                row = int(bad.argmax())
                return row, f"{field} has {np.asarray(getattr(self, field)[row]).tolist()}, {fault}"
        return None

    def detections(self, features: np.ndarray | None) -> Detections:
        """Best score first, boxes as fractions of the image; ties keep the order of the file."""
        order = np.argsort(-self.scores, kind="stable")
        fractions = self.boxes / np.concatenate([self.sizes, self.sizes], axis=1)
        return Detections(
            self.labels[order].astype(np.int64),
            self.scores[order].clip(0, 1).astype(np.float32),
            fractions[order].clip(0, 1).astype(np.float32),
            self.attributes[order].astype(np.int64),
            None if features is None else features[order],
        )


class DetectionSource(Protocol):
    """One file of detections."""

    path: Path
    classes: tuple[str, ...]
    attribute_names: tuple[str, ...]

    @property
    def skipped(self) -> dict[str, int]:
        """Rows that are not used, by reason."""

    def __contains__(self, image_id: int) -> bool: ...

    def read(self, image_id: int) -> Detections:
        """All detections of an image, best score first."""


class NpzDetections:
    """Detections in the kit's npz; features stay on disk until asked for.

    Raises UserError where the file is missing or broken, an array is missing, of a wrong shape, or holds an impossible
    value.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with np.load(path, allow_pickle=False) as archive:
                self._features = _FeatureFile(path) if "features" in archive.files else None
                self._arrays = {name: archive[name].astype(dtype) for name, dtype in _DTYPES.items()}
                self.classes = tuple(str(name) for name in archive["classes"])
                self.attribute_names = tuple(str(name) for name in archive["attribute_names"])
                self.about: dict[str, Any] = json.loads(str(archive["about"])) if "about" in archive.files else {}
        except FileNotFoundError:
            raise UserError(f"{path} is missing: write it again") from None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is truncated or no npz ({error}): write it again") from error
        except KeyError as error:
            raise UserError(f"{path} lacks an array ({error.args[0]}): write it again") from error
        self._check()
        self._row = {int(image_id): row for row, image_id in enumerate(self._arrays["image_ids"])}

    @property
    def image_ids(self) -> tuple[int, ...]:
        """The images, in the order of the file."""
        return tuple(self._row)

    def size(self, image_id: int) -> tuple[int, int]:
        """Width and height in pixels of the image that the detector saw."""
        width, height = self._arrays["sizes"][self._row[image_id]].tolist()
        return width, height

    def __len__(self) -> int:
        return len(self._arrays["labels"])

    @property
    def skipped(self) -> dict[str, int]:
        """Nothing: every row is used."""
        return {}

    def _check(self) -> None:
        a = self._arrays
        images, boxes = len(a["image_ids"]), len(a["labels"])
        shapes = {
            "sizes": (images, 2),
            "offsets": (images + 1,),
            "scores": (boxes,),
            "boxes": (boxes, 4),
            "attributes": (boxes,),
        }
        for name, shape in shapes.items():
            if a[name].shape != shape:
                raise UserError(f"{self.path}: {name} has the shape {a[name].shape} instead of {shape}: make it again")
        if self._features is not None and (len(self._features.shape) != 2 or self._features.shape[0] != boxes):
            shape = self._features.shape
            raise UserError(f"{self.path}: features has the shape {shape} for {boxes} boxes: make it again")
        counts = np.diff(a["offsets"])
        if a["offsets"][0] != 0 or a["offsets"][-1] != boxes or (counts < 0).any():
            raise UserError(f"{self.path}: offsets do not rise from 0 to the {boxes} boxes: make it again")
        unique, repeats = np.unique(a["image_ids"], return_counts=True)
        if (repeats > 1).any():
            image = unique[repeats.argmax()]
            raise UserError(f"{self.path}: image {image} is listed twice in image_ids: make it again")
        if (a["sizes"] < 1).any():
            image = a["image_ids"][(a["sizes"] < 1).any(1).argmax()]
            raise UserError(f"{self.path}: sizes of image {image} is not positive: make it again")
        fault = self._rows(slice(None), np.repeat(a["sizes"], counts, axis=0)).first_fault(
            len(self.classes), len(self.attribute_names)
        )
        if fault:
            image = a["image_ids"][np.searchsorted(a["offsets"], fault[0], side="right") - 1]
            raise UserError(f"{self.path}: image {image}: {fault[1]}: make it again")

    def _rows(self, rows: slice, sizes: np.ndarray) -> _Rows:
        a = self._arrays
        return _Rows(a["labels"][rows], a["scores"][rows], a["boxes"][rows], a["attributes"][rows], sizes)

    def __contains__(self, image_id: int) -> bool:
        return image_id in self._row

    def read(self, image_id: int) -> Detections:
        """All detections of an image, best score first; raises UserError where its features are not finite."""
        image = self._row[image_id]
        rows = slice(*(int(v) for v in self._arrays["offsets"][image : image + 2]))
        sizes = np.broadcast_to(self._arrays["sizes"][image], (rows.stop - rows.start, 2))
        features = None if self._features is None else self._features.read(rows)
        if features is not None and not np.isfinite(features).all():
            raise UserError(f"{self.path}: image {image_id}: features has a value that is not finite: make it again")
        return self._rows(rows, sizes).detections(features)


class _FeatureFile:
    """The features of an uncompressed npz, read row by row: those of all COCO images do not fit into memory."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo("features.npy")
            if info.compress_type != zipfile.ZIP_STORED:
                raise UserError(f"{path}: features are compressed, which cannot be read in parts: use numpy.savez")
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                read_header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                self.shape, fortran, self._dtype = read_header(member)
                header = member.tell()
        if fortran:
            raise UserError(f"{path}: features lie in Fortran order: save it with numpy.ascontiguousarray")
        self._path = path
        with path.open("rb") as file:
            # The local file header ends with a name and an extra field whose lengths stand at its bytes 26 and 28.
            file.seek(info.header_offset + 26)
            name, extra = np.frombuffer(file.read(4), dtype="<u2").tolist()
        self._start = info.header_offset + 30 + name + extra + header

    def read(self, rows: slice) -> np.ndarray:
        """Some rows as float32."""
        width = self.shape[1]
        with self._path.open("rb") as file:
            file.seek(self._start + rows.start * width * self._dtype.itemsize)
            count = (rows.stop - rows.start) * width
            values = np.fromfile(file, dtype=self._dtype, count=count)
        return values.reshape(-1, width).astype(np.float32)


def write_detections(
    path: Path,
    images: Iterable[tuple[int, tuple[int, int], Detections]],
    classes: Sequence[str],
    attribute_names: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
    features: Iterable[np.ndarray] | None = None,
) -> None:
    """Write the kit's npz; the file appears only when it is complete.

    Args:
        path: of the npz; its folder is made.
        images: image id, (width, height) in pixels, and detections; with features either in every image or in none.
        classes: names of the detector's classes.
        attribute_names: names of its attributes, if it has any.
        about: of the detector and of what was kept, as JSON takes it.
        features: in place of those of the detections, where they do not fit into memory: [k, D] of each image that has
            a box, one after the other in the same order.

    Raises UserError where a value is impossible; it is named and nothing is written.
    """
    images = list(images)
    found = [detections for _, _, detections in images]
    corners = [np.tile(np.asarray(size, dtype=np.float32), 2) for _, size, _ in images]
    arrays = {
        "image_ids": [image_id for image_id, _, _ in images],
        "sizes": np.array([size for _, size, _ in images]).reshape(-1, 2),
        "offsets": np.cumsum([0] + [len(d.labels) for d in found]),
        "labels": np.concatenate([np.zeros(0), *(d.labels for d in found)]),
        "scores": np.concatenate([np.zeros(0), *(d.scores for d in found)]),
        "boxes": np.concatenate([np.zeros((0, 4)), *(d.boxes * c for d, c in zip(found, corners, strict=True))]),
        "attributes": np.concatenate([np.zeros(0), *(d.attributes for d in found)]),
    }
    typed: dict[str, Any] = {name: np.asarray(array, dtype=_DTYPES[name]) for name, array in arrays.items()}
    if about is not None:
        typed["about"] = np.array(json.dumps(about))
    rows = features if features is not None else [d.features for d in found if d.features is not None]

    def write(draft: Path) -> None:
        with draft.open("wb") as file:
            np.savez(file, classes=np.array(classes, dtype=np.str_),
                     attribute_names=np.array(attribute_names, dtype=np.str_), **typed)  # fmt: skip
        _append_features(draft, rows, len(typed["labels"]))
        NpzDetections(draft)

    write_atomically(path, write)


def _append_features(path: Path, rows: Iterable[np.ndarray], count: int) -> None:
    """Add features.npy [count, D] to an npz, row by row; nothing where there are no rows."""
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, first.shape[1])}
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive,
        archive.open("features.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(member, header)
        for part in itertools.chain([first], rows):
            member.write(np.ascontiguousarray(part, dtype="<f4").tobytes())


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
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                start, offset = offset, offset + len(line)
                if not line.strip():
                    continue
                name = line.split(b"\t", 1)[0]
                fields = line.count(b"\t") + 1
                if fields != len(_COLUMNS):
                    raise UserError(
                        f"{self.path}: row {number} (image {name[:40].decode(errors='replace').strip()}) has {fields} "
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

    def size(self, image_id: int) -> tuple[int, int]:
        """Width and height in pixels of the image that the detector saw."""
        fields = self._fields(image_id)
        return self._number(image_id, fields, "img_w"), self._number(image_id, fields, "img_h")

    @property
    def skipped(self) -> dict[str, int]:
        """Rows that are not used, by reason."""
        return self._index[1]

    def __contains__(self, image_id: int) -> bool:
        return image_id in self._index[0]

    def read(self, image_id: int) -> Detections:
        """All detections of an image, best score first; an image without a box has no features either."""
        fields = self._fields(image_id)
        height, width, count = (self._number(image_id, fields, name) for name in ("img_h", "img_w", "num_boxes"))
        if height < 1 or width < 1:
            raise self._fault(image_id, f"img_w × img_h is {width} × {height}")
        rows = _Rows(
            labels=self._array(image_id, fields, "objects_id", np.int64, count),
            scores=self._array(image_id, fields, "objects_conf", np.float32, count),
            boxes=self._array(image_id, fields, "boxes", np.float32, 4 * count).reshape(-1, 4),
            attributes=self._array(image_id, fields, "attrs_id", np.int64, count),
            sizes=np.broadcast_to(np.array([width, height]), (count, 2)),
        )
        fault = rows.first_fault(_OBJECTS, _ATTRIBUTES)
        if fault:
            raise self._fault(image_id, f"box {fault[0]}: {fault[1]}")
        return rows.detections(self._features(image_id, fields, count) if count else None)

    def _fields(self, image_id: int) -> dict[str, bytes]:
        with self.path.open("rb") as file:
            file.seek(self._index[0][image_id])
            return dict(zip(_COLUMNS, file.readline().rstrip(b"\r\n").split(b"\t"), strict=True))

    def _features(self, image_id: int, fields: dict[str, bytes], count: int) -> np.ndarray:
        content = self._decode(image_id, fields, "features")
        if not content or len(content) % (4 * count):
            raise self._fault(image_id, f"features holds {len(content)} bytes, no whole number of values a box")
        features = np.frombuffer(content, dtype="<f4").reshape(count, -1)
        if not np.isfinite(features).all():
            raise self._fault(image_id, "features has a value that is not finite")
        return features

    def _array(self, image_id: int, fields: dict[str, bytes], name: str, dtype: type, count: int) -> np.ndarray:
        content = self._decode(image_id, fields, name)
        size = np.dtype(dtype).itemsize * count
        if len(content) != size:
            raise self._fault(image_id, f"{name} holds {len(content)} bytes instead of {size}")
        return np.frombuffer(content, dtype=np.dtype(dtype).newbyteorder("<"))

    def _decode(self, image_id: int, fields: dict[str, bytes], name: str) -> bytes:
        try:
            return base64.b64decode(fields[name], validate=True)
        except binascii.Error as error:
            raise self._fault(image_id, f"{name} is no base64 ({error})") from error

    def _number(self, image_id: int, fields: dict[str, bytes], name: str) -> int:
        if not fields[name].isdigit():
            raise self._fault(image_id, f"{name} is {fields[name][:20]!r}, no whole number")
        return int(fields[name])

    def _fault(self, image_id: int, fault: str) -> UserError:
        return UserError(f"{self.path}: image {image_id}: {fault}: fetch it again")


def _vocabulary(path: Path, kind: str, size: int) -> tuple[str, ...]:
    if not path.is_file():
        return tuple(f"{kind} {i}" for i in range(size))
    names = tuple(line.split(",")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    if len(names) != size:
        raise UserError(f"{path} has {len(names)} names instead of {size}: fetch it again")
    return names


class DetectionStore:
    """The detections of a corpus, over one or several files of the same detector.

    Args:
        sources: the files; where two hold the same image, the first counts.

    Raises UserError where the files have different vocabularies.
    """

    def __init__(self, sources: Sequence[DetectionSource]) -> None:
        first = sources[0]
        for source in sources[1:]:
            if (source.classes, source.attribute_names) != (first.classes, first.attribute_names):
                raise UserError(
                    f"{source.path} has another vocabulary than {first.path}: keep the files of one detector only"
                )
        self.sources = tuple(sources)
        self.classes = first.classes
        self.attribute_names = first.attribute_names

    @property
    def skipped(self) -> dict[str, int]:
        """Rows that are not used, by reason."""
        total: Counter[str] = Counter()
        for source in self.sources:
            total.update(source.skipped)
        return dict(total)

    def __contains__(self, image_id: int) -> bool:
        return any(image_id in source for source in self.sources)

    def get(self, image_id: int, max_count: int, min_score: float) -> Detections | None:
        """The best detections of an image.

        Args:
            image_id: the data set's id.
            max_count: how many at most.
            min_score: those of a lower score are left out.

        Returns:
            Detections, best score first, possibly none of them; None where the detector has not seen the image.

        Raises UserError where the image's row is broken.
        """
        source = next((source for source in self.sources if image_id in source), None)
        if source is None:
            return None
        found = source.read(image_id)
        count = min(max_count, int((found.scores >= min_score).sum()))
        return found.chosen(slice(count))


def open_detections(paths: Sequence[Path]) -> DetectionStore:
    """The store over npz and TSV files, by their suffix; raises UserError where a file is broken."""
    return DetectionStore([TsvDetections(path) if path.suffix == ".tsv" else NpzDetections(path) for path in paths])
