"""Where the files of a data set lie below its folder, in the official layouts."""

from __future__ import annotations

import os
from pathlib import Path

from vlp_lib.corpora.flickr30k import find_tokens
from vlp_lib.errors import UserError
from vlp_lib.io import read_json, readable

YEARS = ("2017", "2014")
"""Where both are there, the newer: they annotate the same images."""

PARTS = ("train", "val")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def is_synthetic(root: Path) -> bool:
    """Whether a folder is the embedded corpus; raises UserError where that is broken or was not finished."""
    return bool(description(root)["synthetic"])


def has_annotations(root: Path) -> str:
    """Whose captions a folder has: "coco", "flickr30k", or "" where it has none."""
    if annotation_files(root):
        return "coco"
    names = {path.name for folder in (root, root / "annotations") for path in folder.glob("dataset_*.json")}
    if find_tokens(root) or any("flickr30k" in name for name in names):
        return "flickr30k"
    return "coco" if names else ""


def description(root: Path) -> dict[str, object]:
    """What the embedded corpus says of itself; of real images that they are not synthetic."""
    if (root / "corpus.json.unfinished").exists():
        raise UserError(f"{root} is an embedded corpus that was not finished: draw it again with `vlp data synthesize`")
    path = root / "corpus.json"
    if not path.is_file():
        return {"synthetic": False}
    try:
        found = read_json(path)
        return {key: found[key] for key in ("synthetic", "fingerprint")}
    except (UserError, KeyError, TypeError) as error:
        raise UserError(f"{path} is broken ({error!r}): delete the folder and draw the corpus anew") from error


def annotation_files(root: Path) -> list[Path]:
    """The files of the newest year that has captions: captions, instances, stuff; train, val."""
    for year in YEARS:
        files = [root / "annotations" / f"{kind}_{part}{year}.json" for kind in ("captions", "instances", "stuff")
                 for part in PARTS]  # fmt: skip
        found = [path for path in files if path.is_file()]
        if any(path.name.startswith("captions_") for path in found):
            return found
    return []


def panoptic_files(root: Path) -> list[Path]:
    """The panoptic_*.json of the newest year that has any, each with a folder of its name beside it."""
    for year in YEARS:
        files = [root / "annotations" / f"panoptic_{part}{year}.json" for part in PARTS]
        if found := [path for path in files if path.is_file() and path.with_suffix("").is_dir()]:
            return found
    return []


def find_karpathy(root: Path) -> Path | None:
    """Karpathy's split file of a corpus, or None; raises UserError where there are several."""
    found = sorted([*root.glob("dataset_*.json"), *(root / "annotations").glob("dataset_*.json")])
    if len(found) > 1:
        raise UserError(f"{root} has several split files ({', '.join(p.name for p in found)}): keep one of them")
    return found[0] if found else None


def find_detections(root: Path) -> list[Path]:
    """The detector files of a corpus, in the order in which they count."""
    patterns = ("detections_*.npz", "detections/detections_*.npz", "*.tsv", "detections/*.tsv")
    return [path for pattern in patterns for path in sorted(root.glob(pattern))]


def find_folder(root: Path, name: str) -> Path | None:
    """The folder of COCO's images such as val2017, of a corpus of COCO or of several data sets; or None."""
    places = (place / name for base in (root, root / "coco") for place in (base / "images", base))
    return next((folder for folder in places if folder.is_dir()), None)


def list_files(folder: Path, suffixes: tuple[str, ...] = _IMAGE_SUFFIXES) -> set[str]:
    """The names in a folder with one of the suffixes, none where there is no folder.

    One pass, as asking for each file is slow on network disks.
    """
    if not folder.is_dir():
        return set()
    with readable(folder), os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.name.lower().endswith(suffixes)}
