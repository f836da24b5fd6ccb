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
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from vlp_lib.corpora.coco import flickr_id, tidy
from vlp_lib.corpora.images import image_size_in
from vlp_lib.corpora.table import NO_ID, SPLITS, RecordTable, Strings
from vlp_lib.errors import UserError
from vlp_lib.io import write_atomically
from vlp_lib.run import results_root

_IMAGES = ("jpg", "jpeg", "png", "webp")
_FORMAT = 1
"""Of the index; another number makes it anew."""

_ARRAYS, _TEXTS = ("offsets", "lengths", "sizes", "flickr_ids"), ("names", "captions")
_DAMAGED = "shards that are cut off or damaged"

_LIST = "shards.txt"
_BRACES = re.compile(r"\{([^{}]*)\}")
_BLOCK = 512
_VALIDATION_SHARE, _VALIDATION_MOST = 100, 5_000


@dataclass(frozen=True)
class Shard:
    """Where the samples of one tar file lie; N samples, each with one image and one caption.

    Attributes:
        path: the tar file.
        offsets, lengths: [N] int64, of each image, in bytes.
        sizes: [N, 2] int32, width and height.
        flickr_ids: [N] int64, `NO_ID` where the image is not from flickr.com.
        names: of each image file within the tar.
        captions: white space tidied.
        skipped: what is not used, by reason.
    """

    path: Path
    offsets: np.ndarray
    lengths: np.ndarray
    sizes: np.ndarray
    flickr_ids: np.ndarray
    names: Strings
    captions: Strings
    skipped: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.offsets)


def expand_braces(pattern: str) -> list[str]:
    """All names of a pattern such as "cc3m-{00000..00331}.tar" or "{train,val}/{0..9}.tar", in order.

    Leading zeros are kept; a pattern without braces is itself.

    Raises UserError where braces hold neither a range nor a list, or are nested or not closed.
    """
    pieces = _BRACES.split(pattern)
    if any("{" in piece or "}" in piece for piece in pieces[::2]):
        raise UserError(f"the shard pattern {pattern!r} has nested or unclosed braces: write e.g. {{00000..00331}}.tar")
    choices = [[piece] for piece in pieces]
    for i, inner in enumerate(pieces[1::2]):
        if span := re.fullmatch(r"(\d+)\.\.(\d+)", inner):
            first, last = span.groups()
            if int(last) < int(first):
                raise UserError(f"the shard pattern {pattern!r} counts backwards: write the smaller number first")
            choices[2 * i + 1] = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
        elif "," in inner:
            choices[2 * i + 1] = inner.split(",")
        else:
            raise UserError(
                f"the shard pattern {pattern!r} has braces without a range or list: write e.g. {{00000..00331}}.tar"
            )
    return ["".join(chosen) for chosen in product(*choices)]


def find_shards(folder: Path) -> dict[str, list[Path]]:
    """The shards of a folder by split, "train" and (where it has such a subfolder) "val"; empty where there are none.

    They are the *.tar of the folder, or of its subfolders train/ and val/, or those that its shards.txt names: a path
    or brace pattern a line, relative to the folder or absolute. Listed shards that do not exist are in the result.

    Raises UserError where a pattern in shards.txt is wrong.
    """
    if (folder / _LIST).is_file():
        lines = [line.strip() for line in (folder / _LIST).read_text(encoding="utf-8").splitlines()]
        return {"train": [folder / name for line in lines if line for name in expand_braces(line)]}
    places = {"train": [folder, folder / "train"], "val": [folder / "val"]}
    found = {split: sorted(tar for place in where for tar in place.glob("*.tar")) for split, where in places.items()}
    return {split: shards for split, shards in found.items() if shards} if found["train"] else {}


def open_shard(path: Path) -> Shard:
    """The index of a shard, read from the one kept beside it, or made and kept.

    Where the folder cannot be written to, indexes are kept in results/. One that does not fit its shard (another size
    or time of change) is made anew.

    Raises UserError where the shard cannot be read, or there is no room for the index.
    """
    state = path.stat()
    stamp = np.array([_FORMAT, state.st_size, state.st_mtime_ns], dtype=np.int64)
    kept = path.parent / ".vlp-index" / f"{path.name}.npz"
    if not os.access(path.parent, os.W_OK):
        folder = hashlib.sha256(str(path.parent.resolve()).encode()).hexdigest()[:16]
        kept = results_root() / "shard-index" / folder / kept.name
    try:
        with np.load(kept, allow_pickle=False) as archive:
            if np.array_equal(archive["stamp"], stamp):
                columns: dict[str, Any] = {name: archive[name] for name in _ARRAYS}
                columns |= {name: Strings(archive[f"{name}_block"], archive[f"{name}_offsets"]) for name in _TEXTS}
                return Shard(path, skipped=json.loads(str(archive["skipped"])), **columns)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        pass  # none is kept, or a broken one
    shard = scan(path)
    columns = {name: getattr(shard, name) for name in _ARRAYS}
    for name in _TEXTS:
        columns |= {f"{name}_{part}": getattr(getattr(shard, name), part) for part in ("block", "offsets")}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, stamp=stamp, skipped=np.array(json.dumps(dict(shard.skipped))), **columns)

    write_atomically(kept, write)
    return shard


def scan(path: Path) -> Shard:
    """Read through a shard; what a cut-off or damaged one has before the damage is used, and the damage counted.

    Raises UserError where the shard cannot be read.
    """
    skipped: Counter[str] = Counter()
    found: list[_Sample] = []
    try:
        with path.open("rb") as file:
            for _, files in groupby(_members(file, skipped), key=lambda member: member.key):
                sample = _sample({member.suffix: member for member in files}, file)
                if isinstance(sample, str):
                    skipped[sample] += 1
                else:
                    found.append(sample)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}): fetch it again or remove it") from error
    return Shard(
        path=path,
        offsets=np.array([s.image.offset for s in found], dtype=np.int64),
        lengths=np.array([s.image.length for s in found], dtype=np.int64),
        sizes=np.array([s.size for s in found], dtype=np.int32).reshape(-1, 2),
        flickr_ids=np.array([s.flickr for s in found], dtype=np.int64),
        names=Strings.of(s.image.name for s in found),
        captions=Strings.of(s.caption for s in found),
        skipped=dict(skipped),
    )


class _Member(NamedTuple):
    """A file in a tar; the files of a sample share the key, its path up to the first dot of its name."""

    name: str
    key: str
    suffix: str
    offset: int
    length: int


class _Sample(NamedTuple):
    """A usable sample."""

    image: _Member
    caption: str
    size: tuple[int, int]
    flickr: int


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
    except tarfile.TarError:
        pass  # the block of zeros is not there either, or the first header is broken
    file.seek(min(end, size))
    if file.read(_BLOCK) != bytes(_BLOCK):
        skipped[_DAMAGED] += 1


def _sample(files: Mapping[str, _Member], file: BinaryIO) -> _Sample | str:
    """The sample that some files, by suffix, make up, or why it is none."""
    image = next((files[suffix] for suffix in _IMAGES if suffix in files), None)
    if image is None:
        return "samples without an image"
    try:
        facts = json.loads(_read(file, files["json"])) if "json" in files else {}
        text = _read(file, files["txt"]).decode() if "txt" in files else facts.get("caption") or ""
        if not (caption := tidy(text)):
            return "samples without a caption"
        width, height = facts.get("width"), facts.get("height")
        declared = (int(width), int(height)) if width and height else None
        size = declared or image_size_in(io.BytesIO(_read(file, image)), Path(image.name))
        # The first bytes of JPEG, PNG and WebP; decoding all images would read the whole shard.
        head = _read(file, image, 12)
        if not (head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or head[:4] + head[8:] == b"RIFFWEBP"):
            return "samples whose image is broken"
        flickr = flickr_id(str(facts.get("url", "")))
        return _Sample(image, caption, size, NO_ID if flickr is None else flickr)
    except UserError:
        return "samples whose image is broken"
    except (ValueError, TypeError, AttributeError):
        return "samples whose caption or JSON is broken"


def _read(file: BinaryIO, member: _Member, most: int | None = None) -> bytes:
    file.seek(member.offset)
    return file.read(member.length if most is None else min(most, member.length))


@dataclass(frozen=True)
class ShardedPairs:
    """All samples of a folder of shards.

    Attributes:
        shards: in the order of their ids.
        records: one a sample, by ascending id, which is its number over all shards; the path is the tar's followed by
            the image's name in it.
        listed: shards found or listed.
        skipped: what is not used, by reason.
        faulty: shards that do not exist, are cut off or damaged.
    """

    shards: tuple[Shard, ...]
    records: RecordTable
    listed: int
    skipped: Mapping[str, int]
    faulty: tuple[Path, ...]

    def read(self, image_id: int) -> io.BytesIO:
        """The file of an image, from its shard; raises UserError where the shard is gone."""
        number = int(self.records.folder_of[image_id])
        shard, place = self.shards[number], image_id - int(np.searchsorted(self.records.folder_of, number))
        try:
            with shard.path.open("rb") as file:
                file.seek(int(shard.offsets[place]))
                return io.BytesIO(file.read(int(shard.lengths[place])))
        except OSError as error:
            raise UserError(f"{shard.path} cannot be read ({error}): fetch it again") from error


def open_shards(found: Mapping[str, Sequence[Path]]) -> ShardedPairs:
    """The samples of shards by split; without shards for "val" one sample in a hundred validates (at most 5,000).

    Args:
        found: as `find_shards` gives them.

    Raises UserError where a shard cannot be read.
    """
    listed = [(path, SPLITS.index(split)) for split, paths in found.items() for path in paths]
    opened = [(open_shard(path), split) for path, split in listed if path.is_file()]
    shards, counts = [shard for shard, _ in opened], [len(shard) for shard, _ in opened]
    splits = np.repeat(np.array([split for _, split in opened], np.int8), counts)
    count = len(splits)
    if "val" not in found and count:
        held = min(max(count // _VALIDATION_SHARE, 1), _VALIDATION_MOST)
        splits[np.linspace(0, count - 1, held).round().astype(int)] = SPLITS.index("val")
    skipped = Counter({"listed shards without a file": len(listed) - len(shards)})
    for shard in shards:
        skipped.update(shard.skipped)
    sound = {shard.path for shard in shards if _DAMAGED not in shard.skipped}
    records = RecordTable(
        image_ids=np.arange(count),
        splits=splits,
        sizes=np.concatenate([np.zeros((0, 2), np.int32), *(shard.sizes for shard in shards)]),
        folders=tuple(shard.path for shard in shards),
        folder_of=np.repeat(np.arange(len(shards), dtype=np.int32), counts),
        names=Strings.join([shard.names for shard in shards]),
        captions=Strings.join([shard.captions for shard in shards]),
        caption_ids=np.arange(count),
        first_caption=np.arange(count + 1),
        coco_ids=np.full(count, NO_ID),
        flickr_ids=np.concatenate([np.zeros(0, np.int64), *(shard.flickr_ids for shard in shards)]),
    )
    faulty = tuple(path for path, _ in listed if path not in sound)
    return ShardedPairs(tuple(shards), records, len(listed), dict(+skipped), faulty)
