"""Prepared images: decoded and resized once, read without decoding ever after.

Decoding a JPEG and resizing it are nearly all that a loader does. `prepare` does both once: each image is brought down
to the side that the largest random resize of pretraining needs (384 px and 1.2: 461; never up), and its raw RGB bytes
are laid into packs, followed by those of its label map. A pack is two files:

    pack-00007.bin   the bytes of up to `PACK` images, [h, w, 3] uint8 each, and after an image its map [h, w] uint8
    pack-00007.json  side, source (a digest of the files that it was made from), bytes, pictures: a list of
                     [path below the corpus, offset, height, width, whether a map follows], skipped: path → reason

manifest.json is written last and stands for a complete folder.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.workers import load
from vlp_lib.errors import UserError
from vlp_lib.io import read_json, remove_temporaries, require_ours, write_atomically, write_json
from vlp_lib.progress import Progress

PACK = 256
"""Images a pack: at 461 px at most 163 MB (218 MB with label maps), what an interruption costs at most."""

MANIFEST = "manifest.json"
_FORMAT = 1
_OURS = re.compile(r"\.?(pack-\d+\.(bin|json)|manifest\.json)(\.[a-z0-9_]{8})?")
"""The files of prepared images, whole or half-written."""


def prepared_side(image_size: int, resize: tuple[float, float]) -> int:
    """The longest side in pixels that a view needs: the largest resize of the squared image (never below 1)."""
    return math.ceil(image_size * max(1.0, resize[1]) - 1e-9)


def prepared_folder(root: Path, image_size: int) -> Path:
    """Where the prepared images of a corpus lie unless the user names another folder."""
    return root / "prepared" / str(image_size)


def fit_image(image: Image.Image, side: int) -> Image.Image:
    """The image with each side at most `side` px, the aspect ratio not kept (a view squares it anyway).

    Lanczos: the view's own bilinear filter comes on top, and two bilinear ones would blur.
    """
    size = (min(image.width, side), min(image.height, side))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def fit_label_map(labels: np.ndarray, side: int) -> np.ndarray:
    """The label map at the size that `fit_image` gives its image; nearest pixel."""
    size = (min(labels.shape[1], side), min(labels.shape[0], side))
    return np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))


class _Picture(NamedTuple):
    """Where an image lies."""

    pack: Path
    offset: int
    height: int
    width: int
    mapped: bool

    def read(self, channels: int, after: int = 0) -> np.ndarray:
        """[h, w, channels] uint8, so many bytes after the image's first."""
        shape = (self.height, self.width, channels)
        try:
            # Read and not mapped: one copy straight from the page cache, and no mapping that workers would inherit.
            return np.fromfile(self.pack, np.uint8, math.prod(shape), offset=self.offset + after).reshape(shape)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.pack} cannot be read ({error}): make it again with `vlp data prepare`") from error


def _picture(pack: Path, size: int, offset: int, height: int, width: int, mapped: bool) -> _Picture:
    """Where an image lies in a pack of so many bytes; raises ValueError where that has no room for it."""
    if not all(type(number) is int for number in (offset, height, width)):
        raise ValueError(f"{offset!r:.20}, {height!r:.20} and {width!r:.20} are no whole numbers")
    if min(offset, height - 1, width - 1) < 0 or offset + height * width * (3 + bool(mapped)) > size:
        raise ValueError(f"an image of {width} × {height} at {offset}")
    return _Picture(pack, offset, height, width, mapped)


class PreparedImages:
    """The prepared images of a corpus; reads like the corpus, an image that could not be prepared from its file.

    Attributes:
        identity: of source files and side; two folders of equal contents share it.
        count: images in the packs.
        skipped: images that could not be read when the packs were made.

    Raises UserError where a pack is missing, truncated, or older than the images, or was made for smaller views.
    """

    def __init__(self, corpus: Corpus, folder: Path, side: int) -> None:
        again = f"make it again with `vlp data prepare --root {corpus.root}`"
        manifest = read_json(folder / MANIFEST)
        try:
            if manifest["format"] != _FORMAT:
                raise UserError(f"{folder} has the format {manifest['format']} instead of {_FORMAT}: {again}")
            if manifest["side"] < side:
                raise UserError(
                    f"{folder} holds images of at most {manifest['side']} px and the views of this configuration need "
                    f"{side}: {again} or lower data.resize"
                )
            if manifest["source"] != _digest(corpus, _records(corpus)):
                raise UserError(
                    f"{folder} was made from other images or label maps than {corpus.root} has now: {again}"
                )
            self.identity, self.skipped = f"{manifest['source']}-{manifest['side']}", int(manifest["skipped"])
            self._corpus, self._side = corpus, int(manifest["side"])
            self._pictures: dict[str, _Picture] = {}
            for number in range(manifest["packs"]):
                pack = _pack(folder, number)
                index = read_json(pack.with_suffix(".json"))
                size = pack.stat().st_size if pack.is_file() else 0
                if size != index["bytes"]:
                    raise UserError(f"{pack} has {size:,} bytes instead of {index['bytes']:,}: {again}")
                self._pictures |= {name: _picture(pack, size, *place) for name, *place in index["pictures"]}
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{folder} has a broken manifest or index ({error!r}): {again}") from error
        self.count = len(self._pictures)

    def read_pixels(self, record: ImageRecord) -> np.ndarray:
        """The prepared image as [h, w, 3] uint8 RGB, each side at most the prepared one."""
        picture = self._pictures.get(_name(self._corpus, record))
        if picture is None:
            return np.asarray(fit_image(self._corpus.read_image(record), self._side)).copy()
        return picture.read(3)

    def read_image(self, record: ImageRecord) -> Image.Image:
        """As `Corpus.read_image`."""
        return Image.fromarray(self.read_pixels(record))

    def read_label_map(self, record: ImageRecord) -> np.ndarray | None:
        """As `Corpus.read_label_map`, at the size of the prepared image."""
        picture = self._pictures.get(_name(self._corpus, record))
        if picture is None:
            labels = self._corpus.read_label_map(record)
            return None if labels is None else fit_label_map(labels, self._side)
        return picture.read(1, picture.height * picture.width * 3)[..., 0] if picture.mapped else None


def open_prepared(
    corpus: Corpus, image_size: int, resize: tuple[float, float], folder: str = ""
) -> PreparedImages | None:
    """The prepared images of a corpus for views of this size, or None where there are none.

    Args:
        folder: where they were put; "" looks where `vlp data prepare` puts them by itself.

    Raises UserError where they are incomplete, stale or too small, or the named folder has none.
    """
    place = Path(folder) if folder else prepared_folder(corpus.root, image_size)
    if not (place / MANIFEST).is_file():
        if folder or any(place.glob("pack-*")):
            raise UserError(
                f"{place} holds no finished packs: finish them with `vlp data prepare --root {corpus.root}`, or remove "
                f"them to read the image files"
            )
        return None
    return PreparedImages(corpus, place, prepared_side(image_size, resize))


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did.

    Attributes:
        folder: of the packs.
        side: largest side in pixels.
        images, label_maps: in the packs.
        bytes: on disk.
        made, kept: packs written now, and found finished.
        skipped: path → reason of each image that could not be read.
    """

    folder: Path
    side: int
    images: int
    label_maps: int
    bytes: int
    made: int
    kept: int
    skipped: dict[str, str]

    def __str__(self) -> str:
        lines = [
            f"{self.folder}: {self.images:,} images and {self.label_maps:,} label maps of at most {self.side} px, "
            f"{self.bytes / 1e9:.2f} GB; {self.made} packs made, {self.kept} were there"
        ]
        lines += [f"skipped: {len(self.skipped):,} images that cannot be read"] if self.skipped else []
        return "\n".join(lines + [f"  {reason}" for reason in list(self.skipped.values())[:10]])


def prepare(
    corpus: Corpus, image_size: int, resize: tuple[float, float], folder: Path | None = None, workers: int = 0
) -> Prepared:
    """Make the packs of a corpus's training and validation images; those that are there and current are kept.

    Args:
        image_size, resize: of the configuration that will read them (`ModelConfig.image_size`, `DataConfig.resize`).
        folder: where to put them; None is <corpus>/prepared/<image_size>.
        workers: processes that decode; 0 decodes in this one.

    Raises UserError where the disk is too small or cannot be written, the folder holds what is no prepared image, or
    not one image can be read.
    """
    side = prepared_side(image_size, resize)
    folder = folder or prepared_folder(corpus.root, image_size)
    records = _records(corpus)
    require_ours(folder, lambda name: _OURS.fullmatch(name) is not None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error}): name another folder with --out") from error
    remove_temporaries(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    packs = _Packs(corpus, [records[i : i + PACK] for i in range(0, len(records), PACK)], folder, side)
    numbers = range(len(packs.packs))
    waiting = [number for number in numbers if not packs.is_finished(number)]
    needed, free = sum(map(packs.most_bytes, waiting)), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder} lies on a disk with {free / 1e9:.1f} GB free and the packs may take {needed / 1e9:.1f} GB: make "
            f"room or name another folder with --out"
        )
    with Progress("prepare", len(numbers), len(numbers) - len(waiting)) as progress:
        made = load(packs, [[number] for number in waiting], list, workers)
        for number, (index,) in zip(waiting, made, strict=True):
            progress.step()
            progress.note(f"pack {number}: {len(index['pictures'])} images, {len(index['skipped'])} skipped")
    for stray in folder.glob("pack-*"):  # of a larger corpus
        if int(stray.stem.removeprefix("pack-")) not in numbers:
            stray.unlink()
    indexes = [read_json(_pack(folder, number).with_suffix(".json")) for number in numbers]
    done = Prepared(
        folder=folder,
        side=side,
        images=sum(len(index["pictures"]) for index in indexes),
        label_maps=sum(mapped for index in indexes for *_, mapped in index["pictures"]),
        bytes=sum(index["bytes"] for index in indexes),
        made=len(waiting),
        kept=len(numbers) - len(waiting),
        skipped={name: reason for index in indexes for name, reason in index["skipped"].items()},
    )
    if not done.images:
        first = next(iter(done.skipped.values()))
        raise UserError(f"not one image of {corpus.root} can be read, the first because {first}")
    source = _digest(corpus, records)
    manifest = {"format": _FORMAT, "side": side, "source": source, "packs": len(numbers), "skipped": len(done.skipped)}
    write_json(folder / MANIFEST, manifest)
    return done


class _Packs(Dataset[dict[str, Any]]):
    """Item k makes pack k and gives its index; so the loader's workers make packs side by side."""

    def __init__(self, corpus: Corpus, packs: Sequence[Sequence[ImageRecord]], folder: Path, side: int) -> None:
        self.corpus, self.packs, self.folder, self.side = corpus, packs, folder, side

    def most_bytes(self, number: int) -> int:
        """What a pack takes at most."""
        return sum(
            min(r.width, self.side) * min(r.height, self.side) * (3 + self.corpus.has_label_map(r))
            for r in self.packs[number]
        )

    def _source(self, number: int) -> str:
        return f"{_digest(self.corpus, self.packs[number])}-{self.side}-{_FORMAT}"

    def is_finished(self, number: int) -> bool:
        """Whether a pack is there, whole and current."""
        path = _pack(self.folder, number)
        if not path.is_file() or not path.with_suffix(".json").is_file():
            return False
        index = read_json(path.with_suffix(".json"))
        return bool(index.get("source") == self._source(number) and index.get("bytes") == path.stat().st_size)

    def __getitem__(self, number: int) -> dict[str, Any]:
        path = _pack(self.folder, number)
        path.with_suffix(".json").unlink(missing_ok=True)
        pictures: list[tuple[str, int, int, int, bool]] = []
        skipped: dict[str, str] = {}

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                for record in self.packs[number]:
                    name = _name(self.corpus, record)
                    try:
                        image = fit_image(self.corpus.read_image(record), self.side)
                        labels = self.corpus.read_label_map(record)
                    except UserError as error:
                        skipped[name] = str(error)
                        continue
                    pictures.append((name, file.tell(), image.height, image.width, labels is not None))
                    file.write(image.tobytes())
                    if labels is not None:
                        file.write(fit_label_map(labels, self.side).tobytes())

        write_atomically(path, write)
        index = {"source": self._source(number), "bytes": path.stat().st_size, "pictures": pictures, "skipped": skipped}
        write_json(path.with_suffix(".json"), index)
        return index


def _pack(folder: Path, number: int) -> Path:
    """Where a pack lies; its index lies beside it."""
    return folder / f"pack-{number:05d}.bin"


def _records(corpus: Corpus) -> list[ImageRecord]:
    """What pretraining reads."""
    return [record for name in ("train", "val") for record in corpus.split(name)]


def _name(corpus: Corpus, record: ImageRecord) -> str:
    """The image's path below the corpus: unique, also where several data sets share their ids."""
    return os.path.relpath(record.path, corpus.root)


def _digest(corpus: Corpus, records: Sequence[ImageRecord]) -> str:
    """SHA-256 over names and sizes of the image files and over which have a label map.

    Not the corpus's fingerprint: captions or detector labels that are added later change no pixel.
    """
    digest = hashlib.sha256()
    for record in records:
        line = f"{_name(corpus, record)} {record.path.stat().st_size} {corpus.has_label_map(record)}\n"
        digest.update(line.encode())
    return digest.hexdigest()
