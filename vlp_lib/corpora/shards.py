"""Web-scale image–sentence pairs in WebDataset shards, with random access.

Format: tar files in which the files of one sample follow each other and share their name up to the first dot, as
img2dataset writes Conceptual Captions and SBU: 000000012.jpg, .txt (the caption) and .json (url, width, height, …).

The order of training depends on seed and step alone, so any sample must be readable at any time: each shard is read
through once, and where its images lie is kept in an index beside it. Images stay in their tar files.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from vlp_lib.arrays import read_npz, write_arrays
from vlp_lib.corpora.coco import flickr_id, tidy, whole
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.images import MOST_SIDE, image_size, read_image
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.table import NO_ID, SPLITS, RecordTable, Strings, Texts
from vlp_lib.errors import UserError
from vlp_lib.io import read_text, readable
from vlp_lib.run import results_root

_IMAGES = ("jpg", "jpeg", "png", "webp")
_FORMAT = 2
"""Of the index; another number makes it anew."""

_PLACE = np.dtype([("offset", "<i8"), ("length", "<i8"), ("width", "<i4"), ("height", "<i4"), ("flickr_id", "<i8")])
_DAMAGED = "shards that are cut off or damaged"

_LIST = "shards.txt"
_BLOCK = 512
_MOST_TEXT = 2**20
"""Bytes of a caption or of a sample's JSON; img2dataset's have some hundreds."""
_VALIDATION_SHARE, _VALIDATION_MOST = 100, 5_000


class Shard(NamedTuple):
    """Where the samples of one tar file lie; N samples, each with one image and one caption.

    Attributes:
        path: the tar file.
        places: [N] of `_PLACE`: of each image offset and length in bytes, size in pixels, and its number on flickr.com,
            `NO_ID` where it is not from there.
        names: of each image file within the tar.
        captions: white space tidied.
        skipped: what is not used, by reason.
    """

    path: Path
    places: np.ndarray
    names: Strings
    captions: Strings
    skipped: Mapping[str, int]


def find_shards(folder: Path) -> dict[str, list[Path]]:
    """The shards of a folder by split, "train" and (where it has such a subfolder) "val"; empty where there are none.

    They are the *.tar of the folder, or of its subfolders train/ and val/, or those that its shards.txt names: a path a
    line, relative to the folder or absolute. Listed shards that do not exist are in the result.
    """
    if (folder / _LIST).is_file():
        lines = [line.strip() for line in read_text(folder / _LIST).splitlines()]
        return {"train": [folder / line for line in lines if line]}
    places = {"train": [folder, folder / "train"], "val": [folder / "val"]}
    found = {split: sorted(tar for place in where for tar in place.glob("*.tar")) for split, where in places.items()}
    return {split: shards for split, shards in found.items() if shards} if found["train"] else {}


def open_shard(path: Path) -> Shard:
    """The index of a shard, made at the first opening and kept in results/.

    Of a shard that has changed since (another size or time of change) it is made anew.

    Raises UserError where the shard cannot be read, or there is no room for the index.
    """
    with readable(path):
        state = path.stat()
    stamp = np.array([_FORMAT, state.st_size, state.st_mtime_ns], dtype=np.int64)
    place = hashlib.sha256(str(path.parent.resolve()).encode()).hexdigest()[:16]
    kept = results_root() / "shard-index" / place / f"{path.name}.npz"
    try:
        arrays = read_npz(kept)
        if np.array_equal(arrays["stamp"], stamp):
            names, captions = (Strings(arrays[f"{n}_block"], arrays[f"{n}_offsets"]) for n in ("names", "captions"))
            return Shard(path, arrays["places"], names, captions, json.loads(str(arrays["skipped"])))
    except (UserError, KeyError):
        pass  # none is kept, or a broken one
    shard = scan(path)
    texts = {f"{n}_{part}": getattr(getattr(shard, n), part) for n in ("names", "captions") for part in Strings._fields}
    arrays = {"stamp": stamp, "places": shard.places, "skipped": np.array(json.dumps(shard.skipped)), **texts}
    write_arrays(kept, arrays, compressed=False)
    return shard


def scan(path: Path) -> Shard:
    """Read through a shard; what a cut-off or damaged one has before the damage is used, and the damage counted.

    Raises UserError where the shard cannot be read.
    """
    skipped: Counter[str] = Counter()
    samples: list[tuple[tuple[int, ...], str, str]] = []
    try:
        with path.open("rb") as file:
            for _, files in groupby(_members(file, skipped), key=lambda member: member.key):
                sample = _sample({member.suffix: member for member in files}, file)
                if isinstance(sample, str):
                    skipped[sample] += 1
                else:
                    samples.append(sample)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}): fetch it again or remove it") from error
    places = np.array([place for place, *_ in samples], dtype=_PLACE)
    names, captions = Strings.of(name for _, name, _ in samples), Strings.of(caption for *_, caption in samples)
    return Shard(path, places, names, captions, dict(skipped))


class _Member(NamedTuple):
    """A file in a tar; the files of a sample share the key, its path up to the first dot of its name."""

    name: str
    key: str
    suffix: str
    offset: int
    length: int


def _members(file: BinaryIO, skipped: Counter[str]) -> Iterator[_Member]:
    """The files of a tar that are whole; counts a shard that ends early or is damaged.

    tarfile ends silently at a damaged header; a sound archive ends with a block of zeros.
    """
    size = os.fstat(file.fileno()).st_size
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                if member.offset_data + member.size > size:
                    break
                if member.isreg():
                    folder, _, name = member.name.rpartition("/")
                    stem, _, suffix = name.partition(".")
                    yield _Member(member.name, f"{folder}/{stem}", suffix.lower(), member.offset_data, member.size)
                tar.members.clear()  # type: ignore[attr-defined]  # else it holds every header of the shard
    except (tarfile.TarError, ValueError, OverflowError, RecursionError):
        pass  # the block of zeros is not there either, or the first header is broken
    file.seek(min(end, size))
    if file.read(_BLOCK) != bytes(_BLOCK):
        skipped[_DAMAGED] += 1


def _sample(files: Mapping[str, _Member], file: BinaryIO) -> tuple[tuple[int, ...], str, str] | str:
    """Place, image name and caption of the sample that some files, by suffix, make up; or why it is none."""
    image = next((files[suffix] for suffix in _IMAGES if suffix in files), None)
    if image is None:
        return "samples without an image"
    try:
        said = {name: _read(file, files[name], _MOST_TEXT + 1) for name in ("json", "txt") if name in files}
        if max(map(len, said.values()), default=0) > _MOST_TEXT:
            return "samples whose caption or JSON is broken"
        facts = json.loads(said.get("json", b"{}"))
        if not (caption := tidy(said["txt"].decode() if "txt" in said else facts.get("caption") or "")):
            return "samples without a caption"
        if facts.get("width") and facts.get("height"):
            size = whole(facts, "width", 1, MOST_SIDE), whole(facts, "height", 1, MOST_SIDE)
        else:
            size = image_size(Path(image.name), io.BytesIO(_read(file, image)))
        # The first bytes of JPEG, PNG and WebP; decoding all images would read the whole shard.
        head = _read(file, image, 12)
        if not (head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or head[:4] + head[8:] == b"RIFFWEBP"):
            return "samples whose image is broken"
        number = flickr_id(str(facts.get("url", "")))
        return (image.offset, image.length, *size, NO_ID if number is None else number), image.name, caption
    except UserError:
        return "samples whose image is broken"
    except (ValueError, TypeError, AttributeError, RecursionError):
        return "samples whose caption or JSON is broken"


def _read(file: BinaryIO, member: _Member, most: int | None = None) -> bytes:
    file.seek(member.offset)
    return file.read(member.length if most is None else min(most, member.length))


@dataclass(frozen=True, kw_only=True)
class ShardCorpus(Corpus):
    """All samples of a folder of shards: image i is sample i over all shards, its path the tar's and its name in it.

    Attributes:
        shards: in the order of their ids.
        listed: how many shards were found or listed.
        faulty: shards that do not exist, are cut off or damaged.
    """

    shards: tuple[Shard, ...] = field(repr=False)
    listed: int
    faulty: tuple[Path, ...]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names, sizes in bytes and numbers of samples of the shards; their contents take too long."""
        digest = hashlib.sha256()
        for shard in self.shards:
            digest.update(f"{shard.path.name} {shard.path.stat().st_size} {len(shard.places)}\n".encode())
        return digest.hexdigest()

    def read_image(self, record: ImageRecord) -> Image.Image:
        """The image, decoded, RGB; raises UserError where its shard is gone or the image is broken."""
        assert isinstance(self.records, RecordTable)
        number = int(self.records.folder_of[record.image_id])
        first = int(np.searchsorted(self.records.folder_of, number))
        shard = self.shards[number]
        offset, length, *_ = shard.places[record.image_id - first].tolist()
        try:
            with shard.path.open("rb") as file:
                file.seek(offset)
                content = io.BytesIO(file.read(length))
        except OSError as error:
            raise UserError(f"{shard.path} cannot be read ({error}): fetch it again") from error
        return read_image(record.path, content)


def open_pairs(folder: Path) -> ShardCorpus:
    """The samples of a folder's shards; without shards for "val" one sample in a hundred validates (at most 5,000).

    Raises UserError where a shard cannot be read, or not one sample can be used.
    """
    paths = find_shards(folder)
    listed = [(path, SPLITS.index(split)) for split, tars in paths.items() for path in tars]
    there = [(path, split) for path, split in listed if os.path.isfile(path)]  # noqa: PTH113 (names may be too long)
    shards = tuple(open_shard(path) for path, _ in there)
    counts = [len(shard.places) for shard in shards]
    splits = np.repeat(np.array([split for _, split in there], np.int8), counts)
    if not (count := len(splits)):
        raise UserError(f"{folder} has {len(listed)} shards and no usable sample in them: fetch them again")
    if "val" not in paths:
        held = min(max(count // _VALIDATION_SHARE, 1), _VALIDATION_MOST)
        splits[np.linspace(0, count - 1, held).round().astype(int)] = SPLITS.index("val")
    skipped = Counter({"listed shards without a file": len(listed) - len(shards)})
    for shard in shards:
        skipped.update(shard.skipped)
    sound = {shard.path for shard in shards if _DAMAGED not in shard.skipped}
    places = np.arange(count)
    columns = np.concatenate([shard.places for shard in shards])
    names, captions = Strings.join([s.names for s in shards]), Strings.join([s.captions for s in shards])
    records = RecordTable(
        image_ids=places,
        splits=splits,
        sizes=np.column_stack([columns["width"], columns["height"]]),
        folders=tuple(shard.path for shard in shards),
        folder_of=np.repeat(np.arange(len(shards), dtype=np.int32), counts),
        data_sets=(Texts(names, captions, places),),
        part=np.zeros(count, np.int16),
        texts=np.column_stack([places, places, places + 1]),
        coco_ids=np.full(count, NO_ID),
        flickr_ids=columns["flickr_id"],
    )
    return ShardCorpus(
        root=folder,
        records=records,
        _skipped=skipped,
        shards=shards,
        listed=len(listed),
        faulty=tuple(path for path, _ in listed if path not in sound),
    )
