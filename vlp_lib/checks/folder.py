"""What `vlp data check` says about a folder: what is there, what is missing and where to get it, what is broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlp_lib.checks.census import (
    count_genome,
    count_shards,
    count_tasks,
    count_tokens,
    genome_missing,
    missing_sets,
    of,
    vqa_images,
)
from vlp_lib.checks.proof import arithmetic, evaluated_sets, prove, write_splits
from vlp_lib.corpora.coco import read_captions, read_karpathy
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.exclusion import HeldOut
from vlp_lib.corpora.flickr30k import find_split_lists, find_tokens, read_split_lists
from vlp_lib.corpora.joined import JoinedCorpus, flickr30k_folders, join, read_held_out_images
from vlp_lib.corpora.layout import find_folder, find_karpathy, is_synthetic, list_files
from vlp_lib.corpora.opening import (
    Place,
    ShardCorpus,
    find_places,
    needs_joining,
    open_annotated,
    open_corpus,
    open_place,
)
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.table import SPLITS, Photographs
from vlp_lib.corpora.visual_genome import REGIONS
from vlp_lib.errors import UserError

# Images and captions of the official files.
_OFFICIAL = {
    "train2017": (118_287, 591_753),
    "val2017": (5_000, 25_014),
    "train2014": (82_783, 414_113),
    "val2014": (40_504, 202_654),
}
_KARPATHY = {"coco": (113_287, 5_000, 5_000), "flickr30k": (29_000, 1_014, 1_000)}  # train (with restval), val, test


def check(root: Path, sample: int = 50, splits: bool = False) -> str:
    """A report on the data sets below a folder, for pretraining and for the tasks.

    A data set that cannot be opened is named with its fault and does not hide the others.

    Args:
        root: as `open_corpus` reads it; missing image files are counted, not refused.
        sample: how many images, label maps and detector rows, evenly spaced, are decoded to find broken ones.
        splits: write the split lists into `root`/splits.

    Raises UserError where there is nothing to report on, or the lists cannot be written.
    """
    if not root.is_dir():
        raise UserError(f"{root} is no folder: name the folder of a corpus")
    found = _Found.of(root)
    corpus = found.corpus
    if corpus is not None and corpus.synthetic:
        return _render(_of_corpus(corpus, found, sample))
    tasks, absent = count_tasks(root)
    if corpus is None and not tasks and not found.faults:
        open_annotated(root, 1.0)  # which says what a corpus has to have
    sections = _of_corpus(corpus, found, sample) if corpus else [("Corpus", [f"{root}: no data set to pretrain on"])]
    sections.insert(1, ("Cannot be used", found.faults))
    if corpus:
        held_out = read_held_out_images(root)
        parts = _parts(corpus, found.opened)
        sections += [
            ("Pretraining", arithmetic(corpus, parts)),
            ("Leakage", _proof(corpus, root, held_out)),
        ]
        if splits:
            sections.append(("Split lists", [str(path) for path in write_splits(parts, held_out, root / "splits")]))
    missing = [line for _, one in found.opened for line in _missing(one)]
    if len(found.opened) != 1 or found.opened[0][0].folder != root:
        missing += missing_sets(root, {place.source for place, _ in found.opened})
    sections += [("Tasks", tasks), ("Missing", missing + (absent if tasks else []))]
    return _render(sections)


def _render(sections: Sequence[tuple[str, Sequence[str]]]) -> str:
    return "\n\n".join("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections if lines)


@dataclass(frozen=True)
class _Found:
    """The data sets below a folder.

    Attributes:
        opened: those that can be used, each for itself.
        corpus: what `open_corpus` makes of them; None without any.
        faults: of the others.
    """

    opened: list[tuple[Place, Corpus]]
    corpus: Corpus | None
    faults: list[str]

    @classmethod
    def of(cls, root: Path) -> _Found:
        """Open all that can be opened; missing image files are counted, not refused."""
        if is_synthetic(root):
            corpus = open_corpus(root, allow_missing=1.0)
            return cls([(Place("coco", root), corpus)], corpus, [])
        places = find_places(root)
        if not needs_joining(root, places):
            if not places:
                return cls([], None, [])
            corpus = open_corpus(root, allow_missing=1.0)
            return cls([(places[0], corpus)], corpus, [])
        opened, faults = [], []
        for place in places:
            try:
                opened.append((place, open_place(place, 1.0)))
            except UserError as error:
                faults.append(f"{place.source}: {error}")
        return cls(opened, join(root, [(place.source, corpus) for place, corpus in opened]) if opened else None, faults)


def _of_corpus(corpus: Corpus, found: _Found, sample: int) -> list[tuple[str, list[str]]]:
    return [
        ("Corpus", [_origin(corpus)]),
        ("Files", [line for _, one in found.opened for line in _files(one)]),
        ("Usable images", [*str(corpus.report).splitlines(), *_classes(corpus)]),
        ("Spot checks", _spot_checks(corpus, sample)),
        ("Splits", [line for _, one in found.opened for line in _splits(one)]),
    ]


def _parts(corpus: Corpus, opened: Sequence[tuple[Place, Corpus]]) -> dict[str, Sequence[ImageRecord]]:
    """The records that a corpus uses, by data set."""
    if isinstance(corpus, JoinedCorpus):
        return {member.source: corpus.part(member.source) for member in corpus.members}
    return {opened[0][0].source: corpus.records}


def _proof(corpus: Corpus, root: Path, held_out: HeldOut) -> list[str]:
    flickr30k: dict[str, set[int]] = {}
    for folder in flickr30k_folders(root):
        karpathy = find_karpathy(folder)
        for entry in read_karpathy(karpathy, captions=False) if karpathy else ():
            if entry.image.flickr_id is not None:
                flickr30k.setdefault(entry.split, set()).add(entry.image.flickr_id)
        if not flickr30k:
            for number, split in read_split_lists(find_split_lists(folder)).items():
                flickr30k.setdefault(split, set()).add(number)
    evaluated = {split: frozenset(ids) for split, ids in flickr30k.items() if split != "train"}
    photographs = Photographs.of(corpus.records)
    lines = prove(photographs, evaluated_sets(held_out, evaluated, vqa_images(root, "test")))
    trained = frozenset(photographs.coco_ids[photographs.splits == SPLITS.index("train")].tolist())
    if asked := vqa_images(root, "val"):
        lines.append(
            f"VQAv2 val: {len(asked & trained):,} of its {len(asked):,} images are pretrained on, for Karpathy's split "
            f"trains on most of COCO's val, as UNITER does: compare with others on VQAv2's test-dev"
        )
    return lines


def _origin(corpus: Corpus) -> str:
    if corpus.synthetic:
        return f"{corpus.root}: the embedded corpus, drawn by `vlp data synthesize` (fingerprint {corpus.fingerprint})"
    return f"{corpus.root}: real images"


def _files(corpus: Corpus) -> list[str]:
    if isinstance(corpus, ShardCorpus):
        return count_shards(corpus)
    if any(path.name == REGIONS for path in corpus.annotation_files):
        return count_genome(corpus.root)
    lines = count_tokens(corpus.root) if any(path.suffix == ".txt" for path in corpus.annotation_files) else []
    for path in corpus.annotation_files:
        if path.suffix != ".json":
            continue
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
        f"{captions.name}: {of(len(images), expected_images, 'images')}, "
        f"{of(sentences, expected_captions, 'captions')}",
        f"{part}/: {of(stored, expected_images, 'image files')}",
        f"stuffthingmaps/{part}/: {of(mapped, expected_images, 'pixel maps')}",
    ]


def _karpathy(path: Path, synthetic: bool) -> str:
    splits = Counter(entry.split for entry in read_karpathy(path, captions=False))
    if synthetic:
        return f"{path.name}: " + ", ".join(f"{splits[name]:,} {name}" for name in SPLITS)
    expected = _KARPATHY["flickr30k" if "flickr30k" in path.name else "coco"]
    counts = (of(splits[name], n, name) for name, n in zip(SPLITS, expected, strict=True))
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


def _splits(corpus: Corpus) -> list[str]:
    """What decides the split of a data set."""
    if isinstance(corpus, ShardCorpus):
        return [f"{corpus.root.name}: its folders decide; without val/ one pair in a hundred validates"]
    if any(path.name == REGIONS for path in corpus.annotation_files):
        return [f"{corpus.root.name}: trained on, but for COCO's Karpathy val, which validates, and what is kept out"]
    if any(path.suffix == ".txt" for path in corpus.annotation_files):
        return [
            *corpus.notes,
            "dataset_flickr30k.json beside it would choose Karpathy's; their test sets differ: use one throughout",
        ]
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
    if "flickr30k" in karpathy.name and find_split_lists(corpus.root):
        lines.append("Entities' lists lie beside it and decide nothing; their test set differs from Karpathy's.")
    return lines


def _missing(corpus: Corpus) -> list[str]:
    """What an official release has beyond this corpus, and where it is to be had."""
    if corpus.synthetic or isinstance(corpus, ShardCorpus):
        return []
    if any(path.name == REGIONS for path in corpus.annotation_files):
        return genome_missing(corpus)
    names = {path.name for path in corpus.annotation_files}
    lines = []
    if any(name.startswith("captions_") for name in names):
        for part in ("train", "val"):
            lines += _missing_part(
                corpus, names, f"{part}{'2017' if any('2017' in name for name in names) else '2014'}"
            )
    if find_karpathy(corpus.root) is None and find_tokens(corpus.root) is None:
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
