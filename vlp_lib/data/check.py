"""What `vlp data check` says about a folder: what is there, what is missing and where to get it, what is broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vlp_lib.data.coco import read_captions, read_karpathy
from vlp_lib.data.corpus import SPLITS, Corpus, find_folder, find_karpathy, list_files, open_corpus
from vlp_lib.data.sample import ImageRecord
from vlp_lib.errors import UserError

# Images and captions of the official files.
_OFFICIAL = {
    "train2017": (118_287, 591_753),
    "val2017": (5_000, 25_014),
    "train2014": (82_783, 414_113),
    "val2014": (40_504, 202_654),
}
_KARPATHY = {"coco": (113_287, 5_000, 5_000), "flickr30k": (29_000, 1_014, 1_000)}  # train (with restval), val, test


def check(root: Path, sample: int = 50) -> str:
    """A report on the corpus below a folder.

    Args:
        root: as `open_corpus` reads it; missing image files are counted, not refused.
        sample: how many images, label maps and detector rows, evenly spaced, are decoded to find broken ones.

    Raises:
        UserError: there is no corpus, or an annotation file is broken.
    """
    corpus = open_corpus(root, allow_missing=1.0)
    sections = [
        ("Corpus", [_origin(corpus)]),
        ("Files", _files(corpus)),
        ("Usable images", [*str(corpus.report).splitlines(), *_classes(corpus)]),
        ("Spot checks", _spot_checks(corpus, sample)),
        ("Splits", _leakage(corpus)),
        ("Missing", _missing(corpus)),
    ]
    return "\n\n".join("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections if lines)


def _origin(corpus: Corpus) -> str:
    if corpus.synthetic:
        return f"{corpus.root}: the embedded corpus, drawn by `vlp data synthesize` (fingerprint {corpus.fingerprint})"
    return f"{corpus.root}: real images"


def _of(found: int, expected: int, what: str) -> str:
    """A count beside the official one."""
    if found == expected:
        return f"{found:,} {what} (complete)"
    note = "partial" if found < expected else "more than the official release"
    return f"{found:,} of {expected:,} {what} ({note})"


def _files(corpus: Corpus) -> list[str]:
    lines = []
    for path in corpus.annotation_files:
        if path.name.startswith("captions_"):
            lines += _part(corpus, path)
        elif not path.name.startswith("dataset_"):
            lines.append(f"{path.name}: present")
    karpathy = find_karpathy(corpus.root)
    lines += [_karpathy(karpathy, corpus.synthetic)] if karpathy else []
    sources = corpus.detections.sources if corpus.detections else ()
    return lines + [f"{source.path.name}: detections, {len(source.classes):,} classes" for source in sources]


def _part(corpus: Corpus, captions: Path) -> list[str]:
    """A captions file, its folder of images and its pixel maps."""
    part = captions.stem.removeprefix("captions_")
    images = read_captions(captions)
    sentences = sum(len(image.captions) for image in images)
    folder, maps = find_folder(corpus.root, part), corpus.root / "stuffthingmaps" / part
    stored = len(list_files(folder)) if folder else 0
    mapped = len(list_files(maps, (".png",))) if maps.is_dir() else 0
    if corpus.synthetic:
        return [f"{part}: {stored:,} images, {sentences:,} captions, {mapped:,} pixel maps"]
    expected_images, expected_captions = _OFFICIAL[part]
    return [
        f"{captions.name}: {_of(len(images), expected_images, 'images')}, "
        f"{_of(sentences, expected_captions, 'captions')}",
        f"{part}/: {_of(stored, expected_images, 'image files')}",
        f"stuffthingmaps/{part}/: {_of(mapped, expected_images, 'pixel maps')}",
    ]


def _karpathy(path: Path, synthetic: bool) -> str:
    splits = Counter(entry.split for entry in read_karpathy(path, captions=False))
    if synthetic:
        return f"{path.name}: " + ", ".join(f"{splits[name]:,} {name}" for name in SPLITS)
    expected = _KARPATHY["flickr30k" if "flickr30k" in path.name else "coco"]
    counts = (_of(splits[name], n, name) for name, n in zip(SPLITS, expected, strict=True))
    return f"{path.name}: " + ", ".join(counts)


def _classes(corpus: Corpus) -> list[str]:
    lines = [f"label maps: {len(corpus.segmentation_classes)} classes"]
    if corpus.detections:
        attributes = len(corpus.detections.attribute_names)
        lines.append(f"detector: {len(corpus.detections.classes):,} classes, {attributes} attributes")
    return lines


def _spot_checks(corpus: Corpus, sample: int) -> list[str]:
    mapped = [record for record in corpus.records if corpus.has_label_map(record)]
    detected = [r for r in corpus.records if corpus.detections and r.image_id in corpus.detections]
    return [
        *_try("images", corpus.records, sample, corpus.read_image),
        *_try("label maps", mapped, sample, corpus.read_label_map),
        *_try("detector rows", detected, sample, lambda record: corpus.read_detections(record, 1, 0.0)),
    ]


def _try(what: str, records: Sequence[ImageRecord], sample: int, read: Callable[[ImageRecord], object]) -> list[str]:
    """Decode evenly spaced records; how many could be read, and a line for each that could not."""
    if not records:
        return []
    chosen = np.unique(np.linspace(0, len(records) - 1, min(sample, len(records))).round().astype(int))
    faults = []
    for i in chosen:
        try:
            read(records[i])
        except UserError as error:
            faults.append(f"broken: {error}")
    return [f"{what}: {len(chosen) - len(faults)} of {len(chosen)} decoded are sound", *faults]


def _leakage(corpus: Corpus) -> list[str]:
    karpathy = find_karpathy(corpus.root)
    if corpus.synthetic:
        return ["train, val and test are drawn from random streams of their own"]
    if karpathy is None:
        return [
            "no Karpathy split file: training images are those of the train folder, and there is no test split.",
            "COCO's train2017 holds images that Karpathy's split, and so COCO retrieval and VQA, test on: a model "
            "pretrained here must not be reported on them.",
        ]
    named = {entry.image.image_id for entry in read_karpathy(karpathy, captions=False)}
    others = sum(record.image_id not in named for record in corpus.records)
    lines = [f"{karpathy.name} decides; train, val and test share no image."]
    if others:
        lines.append(
            f"{others:,} images that it does not name are train or val as their folder is; the complete file names all."
        )
    if "flickr30k" not in karpathy.name:
        lines.append("Not checked: photographs that COCO shares with Flickr30k (five in val2017).")
    return lines


def _missing(corpus: Corpus) -> list[str]:
    """What an official release has beyond this corpus, and where it is to be had."""
    if corpus.synthetic:
        return []
    names = {path.name for path in corpus.annotation_files}
    lines = []
    if any(name.startswith("captions_") for name in names):
        for part in ("train", "val"):
            lines += _missing_part(
                corpus, names, f"{part}{'2017' if any('2017' in name for name in names) else '2014'}"
            )
    if find_karpathy(corpus.root) is None:
        lines.append(
            "dataset_coco.json (test split): caption_datasets.zip of cs.stanford.edu/people/karpathy/deepimagesent"
        )
    if corpus.detections is None:
        lines.append(
            f"detections (SPL, region features): `vlp data labels --root {corpus.root}`, or Bottom-Up's TSV as "
            "github.com/airsplay/lxmert links it"
        )
    return lines


def _missing_part(corpus: Corpus, names: set[str], part: str) -> list[str]:
    year = part[-4:]
    lines = []
    if f"captions_{part}.json" not in names:
        lines.append(f"annotations/captions_{part}.json: annotations_trainval{year}.zip of cocodataset.org")
    if find_folder(corpus.root, part) is None:
        lines.append(f"images/{part}/: {part}.zip of cocodataset.org")
    if year == "2017" and not (corpus.root / "stuffthingmaps" / part).is_dir():
        lines.append(
            f"stuffthingmaps/{part}/ (SEGL): stuffthingmaps_trainval2017.zip of github.com/nightrome/cocostuff"
        )
    return lines
