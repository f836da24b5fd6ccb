"""What each data set has beside its official release, what decides its split, what is missing and where to get it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlp_lib.corpora.coco import read_captions, read_karpathy
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.flickr30k import find_split_lists, find_tokens, read_split_lists, read_tokens
from vlp_lib.corpora.layout import find_folder, find_karpathy, list_files
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.shards import ShardCorpus
from vlp_lib.corpora.table import SPLITS
from vlp_lib.corpora.visual_genome import IMAGE_DATA, REGIONS, find_image_folders, read_image_data, read_regions
from vlp_lib.errors import UserError
from vlp_lib.io import find_file
from vlp_lib.tasks.common import Folders
from vlp_lib.tasks.nlvr2 import read_statements
from vlp_lib.tasks.vcr import read_questions as read_vcr
from vlp_lib.tasks.vqa import annotations_name, folder_images, questions_name
from vlp_lib.tasks.vqa_accuracy import read_annotations, read_questions

_COCO_PARTS = {"train2017": (118_287, 591_753), "val2017": (5_000, 25_014),
               "train2014": (82_783, 414_113), "val2014": (40_504, 202_654)}  # images, captions  # fmt: skip
_KARPATHY = {"coco": (113_287, 5_000, 5_000), "flickr30k": (29_000, 1_014, 1_000)}  # train (with restval), val, test
_TOKENS, _ENTITIES = (31_783, 158_915), (29_783, 1_000, 1_000)  # Flickr30k: images, captions; train, val, test
_GENOME = (108_077, 5_408_689)  # images, regions
_VQA = {"train": 443_757, "val": 214_354, "test": 447_793}
_PICTURED = {
    "nlvr2": ("data/{}.json", {"train": 86_373, "dev": 6_982, "test1": 6_967}, "statements", "both pictures"),
    "vcr": ("{}.jsonl", {"train": 212_923, "val": 26_534, "test": 25_263}, "questions", "their image"),
}
_TASKS = {
    "vqav2": "visualqa.org/download.html, into vqav2/",
    "nlvr2": "github.com/lil-lab/nlvr (texts; its pictures on request), into nlvr2/",
    "vcr": "visualcommonsense.com/download, into vcr/",
}

_CAPTIONS_ZIP = "caption_datasets.zip of cs.stanford.edu/people/karpathy/deepimagesent"
_GENOME_SITE = "homes.cs.washington.edu/~ranjay/visualgenome"


class Facts(NamedTuple):
    """What there is to say of a data set, a line each: its files, what decides its split, what is missing."""

    files: list[str]
    splits: list[str]
    missing: list[str]


def facts_of(corpus: Corpus) -> Facts:
    """Count the files of one data set; raises UserError where one of them is broken."""
    name = corpus.root.name
    if isinstance(corpus, ShardCorpus):
        files = [f"{name}: {len(corpus.records):,} usable pairs in {len(corpus.shards):,} of {corpus.listed:,} shards"]
        files += [f"cut off, damaged or missing: {path}" for path in corpus.faulty]
        return Facts(files, [f"{name}: its folders decide; without val/ one pair in a hundred validates"], [])
    files = [line for path in corpus.annotation_files for line in _of_file(corpus, path)]
    sources = corpus.detections.sources if corpus.detections else ()
    files += [f"{source.path.name}: detections, {len(source.classes):,} classes" for source in sources]
    if any(path.name == REGIONS for path in corpus.annotation_files):
        folders = find_image_folders(corpus.root)
        zips = (("VG_100K", "images.zip"), ("VG_100K_2", "images2.zip"))
        splits = [f"{name}: trained on, but for COCO's Karpathy val, which validates, and what is kept out"]
        return Facts(files, splits, _absent((n in folders, f"{name}/{n}/", f"{z} of {_GENOME_SITE}") for n, z in zips))
    return Facts(files, _annotated_splits(corpus), [] if corpus.synthetic else _annotated_missing(corpus))


def beside(found: int, expected: int | None, what: str) -> str:
    """A count beside the official one; None where there is none (the embedded corpus)."""
    if expected is None:
        return f"{found:,} {what}"
    if found == expected:
        return f"{found:,} {what} (complete)"
    note = "partial" if found < expected else "more than the official release"
    return f"{found:,} of {expected:,} {what} ({note})"


def _all_beside(found: Iterable[int], expected: Iterable[int | None], names: Iterable[str]) -> str:
    return ", ".join(map(beside, found, expected, names))


def _parts_beside(splits: Iterable[str], expected: Iterable[int | None]) -> str:
    counts = Counter(splits)
    return _all_beside((counts[split] for split in SPLITS), expected, SPLITS)


def _captions_beside(images: Sequence[ImageRecord], expected: Sequence[int | None]) -> str:
    return _all_beside((len(images), sum(len(image.captions) for image in images)), expected, ("images", "captions"))


def _absent(needs: Iterable[tuple[object, str, str]]) -> list[str]:
    """Of (whether it is there, its name, its source) those that are not there."""
    return [f"{name}: {source}" for there, name, source in needs if not there]


def _of_file(corpus: Corpus, path: Path) -> Iterator[str]:
    """What there is to say of a file that describes a data set, and of the folders that belong to it."""
    root, name = corpus.root, path.name
    if name == REGIONS:
        folders, data = find_image_folders(root), read_image_data(root / IMAGE_DATA)
        counts = np.array([(1, len(image.captions) + empty, empty) for image, empty in read_regions(path, data)])
        images, regions, empty = counts.reshape(-1, 3).sum(0).tolist()
        stored = {file for folder in folders.values() for file in list_files(folder, (".jpg",))}
        yield f"{IMAGE_DATA}: {beside(len(data), _GENOME[0], 'images')}"
        counted = _all_beside((images, regions), _GENOME, ("images", "regions"))
        yield f"{name}: {counted}, of which {empty:,} say nothing"
        shown = ", ".join(f"{folder}/" for folder in folders) or "no folder"
        yield f"{shown}: {beside(len(stored), _GENOME[0], 'image files')}"
    elif name.startswith("captions_"):
        part = path.stem.removeprefix("captions_")
        folder, maps = find_folder(root, part) or root / part, root / "stuffthingmaps" / part
        official = (None, None) if corpus.synthetic else _COCO_PARTS[part]
        yield f"{name}: {_captions_beside(read_captions(path), official)}"
        yield f"{part}/: {beside(len(list_files(folder)), official[0], 'image files')}"
        yield f"stuffthingmaps/{part}/: {beside(len(list_files(maps, ('.png',))), official[0], 'pixel maps')}"
    elif name.startswith("dataset_"):
        expected = [None] * 3 if corpus.synthetic else _KARPATHY["flickr30k" if "flickr30k" in name else "coco"]
        yield f"{name}: {_parts_beside((image.split for image in read_karpathy(path, captions=False)), expected)}"
    elif path.suffix == ".token":
        yield f"{name}: {_captions_beside(read_tokens(path), _TOKENS)}"
    elif name == "train.txt":
        listed = read_split_lists(find_split_lists(root)).values()
        yield f"{path.parent.name}/: Entities' split, {_parts_beside(listed, _ENTITIES)}"
    elif path.suffix == ".json" and name != IMAGE_DATA:
        yield f"{name}: present"


def _annotated_splits(corpus: Corpus) -> list[str]:
    if corpus.split_notes and corpus.division is None:
        return [
            *corpus.split_notes,
            "dataset_flickr30k.json beside it would choose Karpathy's; their test sets differ: use one throughout",
        ]
    if corpus.synthetic:
        return ["train, val and test are drawn from random streams of their own"]
    if corpus.division:
        return [
            f"{corpus.split_notes[-1]}; `vlp data split --root {corpus.root} --seed N` draws and writes down others"
        ]
    if not (karpathy := find_karpathy(corpus.root)):
        return [
            "no Karpathy split file: training images are those of the train folder, and there is no test split.",
            "COCO's train2017 holds images that Karpathy's split, and so COCO retrieval and VQA, test on: a model "
            "pretrained here must not be reported on them.",
        ]
    named = {entry.image_id for entry in read_karpathy(karpathy, captions=False)}
    others = sum(record.image_id not in named for record in corpus.records)
    lines = [f"{karpathy.name} decides; train, val and test share no image."]
    if others:
        unnamed = f"{others:,} images that it does not name are train or val as their folder is"
        lines.append(f"{unnamed}; the complete file names all.")
    if "flickr30k" in karpathy.name and find_split_lists(corpus.root):
        lines.append("Entities' lists lie beside it and decide nothing; their test set differs from Karpathy's.")
    return lines


def _annotated_missing(corpus: Corpus) -> list[str]:
    root, names = corpus.root, {path.name for path in corpus.annotation_files}
    needs: list[tuple[object, str, str]] = []
    if any(name.startswith("captions_") for name in names):
        year = "2017" if any("2017" in name for name in names) else "2014"
        for part in (f"train{year}", f"val{year}"):
            captions, maps = f"captions_{part}.json", f"stuffthingmaps/{part}"
            needs += [
                (captions in names, f"annotations/{captions}", f"annotations_trainval{year}.zip of cocodataset.org"),
                (find_folder(root, part), f"images/{part}/", f"{part}.zip of cocodataset.org"),
                (year == "2014" or (root / maps).is_dir(), f"{maps}/ (SEGL)",
                 "stuffthingmaps_trainval2017.zip of github.com/nightrome/cocostuff"),
            ]  # fmt: skip
    labels = f"`vlp data labels --root {root}`, or Bottom-Up's TSV as github.com/airsplay/lxmert links it"
    needs += [
        (find_karpathy(root) or find_tokens(root), "dataset_coco.json (test split)", _CAPTIONS_ZIP),
        (corpus.detections is not None, "detections (SPL, region features)", labels),
    ]
    return _absent(needs)


def missing_sets(root: Path, sources: set[str]) -> list[str]:
    """The data sets of the paper's pretraining that are not there, and what decides splits, with their sources."""
    flickr = "images and results_20130124.token of shannon.cs.illinois.edu/DenotationGraph; dataset_flickr30k.json: "
    genome = "region_descriptions.json.zip, image_data.json.zip, images.zip (VG_100K), images2.zip (VG_100K_2) of "
    return _absent(
        (
            ("flickr30k" in sources, "flickr30k/", flickr + _CAPTIONS_ZIP),
            ("vg" in sources, "vg/", genome + _GENOME_SITE),
            ((root / "refer").is_dir(), "refer/ (RefCOCO's val and test images)", "github.com/lichengunc/refer"),
        )
    )


Split = tuple[str, list[str], list[str]]
"""A split of a task: its name, what there is of it (nothing without its file), the files that are absent."""


def _count_vqa(root: Path) -> Iterator[Split]:
    files = folder_images(root)
    for split, expected in _VQA.items():
        questions, annotations = (find_file(root / "vqav2", name(split)) for name in (questions_name, annotations_name))
        if questions is None:
            yield split, [], [questions_name(split)]
            continue
        asked = read_questions(questions)
        images = {question.image_id for question in asked}
        parts = [beside(len(asked), expected, "questions")]
        parts += [beside(len(read_annotations(annotations)), expected, "annotations")] if annotations else []
        parts.append(f"{sum(image in files for image in images):,} of their {len(images):,} images are there")
        yield split, parts, [] if annotations or split == "test" else [annotations_name(split)]


def _count_pictured(root: Path, task: str) -> Iterator[Split]:
    """NLVR2 or VCR, whose items name their picture files."""
    folders = Folders()
    file, official, noun, whole = _PICTURED[task]
    for split, expected in official.items():
        items: list[Sequence[Path]] | None = None
        if task == "nlvr2" and (statements := read_statements(root / task, split)) is not None:
            items = [statement.pictures for statement in statements]
        elif task == "vcr" and (path := find_file(root / task, file.format(split))):
            items = [[question.picture] for question in read_vcr(path)]
        if items is None:
            yield split, [], [file.format(split)]
        else:
            there = sum(folders.lacks(task, pictures) is None for pictures in items)
            yield split, [beside(len(items), expected, noun), f"{there:,} have {whole}"], []


def count_tasks(root: Path) -> tuple[list[str], list[str]]:
    """What VQAv2, NLVR2 and VCR have, and what is missing; a broken file is named and does not hide the others."""
    found, missing = [], []
    for task, source in _TASKS.items():
        if not (root / task).is_dir():
            missing.append(f"{task}: {source}")
            continue
        try:
            splits = list(_count_vqa(root) if task == "vqav2" else _count_pictured(root, task))
        except UserError as error:
            found.append(f"{task}: broken: {error}")
            continue
        found += [f"{task} {split}: {', '.join(parts)}" for split, parts, _ in splits if parts]
        missing += [f"{task}/{file}: {source}" for *_, absent in splits for file in absent]
    return found, missing


def vqa_images(root: Path, split: str) -> frozenset[int]:
    """The COCO ids that VQAv2's questions of a split ask about; empty where there are none."""
    path = find_file(root / "vqav2", questions_name(split))
    return frozenset(int(q.image_id) for q in read_questions(path)) if path else frozenset()
