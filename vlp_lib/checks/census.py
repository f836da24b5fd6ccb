"""How much of each data set lies on disk beside its official counts, and where the rest is to be had."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.flickr30k import find_split_lists, find_tokens, read_split_lists, read_tokens
from vlp_lib.corpora.layout import list_files
from vlp_lib.corpora.opening import ShardCorpus, genome_folders
from vlp_lib.corpora.visual_genome import IMAGE_DATA, REGIONS, read_image_data, read_regions
from vlp_lib.errors import UserError
from vlp_lib.io import find_file
from vlp_lib.tasks.common import Folders
from vlp_lib.tasks.nlvr2 import read_statements
from vlp_lib.tasks.vcr import read_questions as read_vcr
from vlp_lib.tasks.vqa import annotations_name, folder_images, questions_name
from vlp_lib.tasks.vqa_accuracy import read_annotations, read_questions

_FLICKR30K = (31_783, 158_915)  # images, captions
_ENTITIES = {"train": 29_783, "val": 1_000, "test": 1_000}
_GENOME = (108_077, 5_408_689)  # images, regions
_VQA = {"train": 443_757, "val": 214_354, "test": 447_793}
_NLVR2 = {"train": 86_373, "dev": 6_982, "test1": 6_967}
_VCR = {"train": 212_923, "val": 26_534, "test": 25_263}

_SOURCES = {
    "vqav2": "visualqa.org/download.html, into vqav2/",
    "nlvr2": "github.com/lil-lab/nlvr (texts; its pictures on request), into nlvr2/",
    "vcr": "visualcommonsense.com/download, into vcr/",
}


def of(found: int, expected: int, what: str) -> str:
    """A count beside the official one."""
    if found == expected:
        return f"{found:,} {what} (complete)"
    note = "partial" if found < expected else "more than the official release"
    return f"{found:,} of {expected:,} {what} ({note})"


def count_tokens(root: Path) -> list[str]:
    """Flickr30k's token file, the split lists and the images."""
    tokens, lists = find_tokens(root), find_split_lists(root)
    lines = []
    if tokens:
        images = read_tokens(tokens)
        captions = sum(len(image.captions) for image in images)
        lines.append(f"{tokens.name}: {of(len(images), _FLICKR30K[0], 'images')}, "
                     f"{of(captions, _FLICKR30K[1], 'captions')}")  # fmt: skip
    if lists:
        splits = list(read_split_lists(lists).values())
        counts = ", ".join(of(splits.count(name), expected, name) for name, expected in _ENTITIES.items())
        lines.append(f"{lists['train'].parent.name}/: Entities' split, {counts}")
    return lines


def count_genome(root: Path) -> list[str]:
    """Visual Genome's two files and its images."""
    described = len(read_image_data(root / IMAGE_DATA))
    images = sentences = empty = 0
    for said in read_regions(root / REGIONS):
        images, sentences, empty = images + 1, sentences + len(said.phrases), empty + said.empty
    stored = {name for folder in genome_folders(root) for name in list_files(folder, (".jpg",))}
    return [
        f"{IMAGE_DATA}: {of(described, _GENOME[0], 'images')}",
        f"{REGIONS}: {of(images, _GENOME[0], 'images')}, {of(sentences + empty, _GENOME[1], 'regions')}, of which "
        f"{empty:,} say nothing",
        f"{', '.join(f'{f.name}/' for f in genome_folders(root)) or 'no folder'}: "
        f"{of(len(stored), _GENOME[0], 'image files')}",
    ]


def count_shards(corpus: ShardCorpus) -> list[str]:
    """The shards of pairs; broken and missing ones are named."""
    pairs = corpus.pairs
    used = len(pairs.shards)
    lines = [f"{corpus.root.name}: {len(pairs.records):,} usable pairs in {used:,} of {pairs.listed:,} shards"]
    return lines + [f"cut off, damaged or missing: {path}" for path in pairs.faulty]


def count_tasks(root: Path) -> tuple[list[str], list[str]]:
    """What VQAv2, NLVR2 and VCR have, and what is missing; a broken file is named and does not hide the others."""
    found, missing = [], []
    for name, count in _TASKS.items():
        if not (root / name).is_dir():
            missing.append(f"{name}: {_SOURCES[name]}")
            continue
        try:
            lines, absent = count(root)
        except UserError as error:
            found.append(f"{name}: broken: {error}")
            continue
        found += lines
        missing += [f"{name}/{file}: {_SOURCES[name]}" for file in absent]
    return found, missing


def _count_vqa(root: Path) -> tuple[list[str], list[str]]:
    files, lines, absent = folder_images(root), [], []
    for split, expected in _VQA.items():
        questions, annotations = (find_file(root / "vqav2", name(split)) for name in (questions_name, annotations_name))
        if questions is None:
            absent.append(questions_name(split))
            continue
        asked = read_questions(questions)
        images = {question.image_id for question in asked}
        parts = [of(len(asked), expected, "questions")]
        if annotations:
            parts.append(of(len(read_annotations(annotations)), expected, "annotations"))
        elif split != "test":
            absent.append(annotations_name(split))
        parts.append(f"{sum(image in files for image in images):,} of their {len(images):,} images are there")
        lines.append(f"vqav2 {split}: {', '.join(parts)}")
    return lines, absent


def _count_nlvr2(root: Path) -> tuple[list[str], list[str]]:
    def pictures(name: str) -> list[Sequence[Path]] | None:
        statements = read_statements(root / "nlvr2", name)
        return None if statements is None else [statement.pictures for statement in statements]

    return _count_pictured("nlvr2", _NLVR2, "data/{}.json", pictures, "statements", "both pictures")


def _count_vcr(root: Path) -> tuple[list[str], list[str]]:
    def pictures(name: str) -> list[Sequence[Path]] | None:
        path = find_file(root / "vcr", f"{name}.jsonl")
        return [[root / "vcr/vcr1images" / question.image] for question in read_vcr(path)] if path else None

    return _count_pictured("vcr", _VCR, "{}.jsonl", pictures, "questions", "their image")


def _count_pictured(
    task: str,
    official: Mapping[str, int],
    file: str,
    pictures_of: Callable[[str], Sequence[Sequence[Path]] | None],
    noun: str,
    whole: str,
) -> tuple[list[str], list[str]]:
    """Of each split how many items it has and how many of them have all their pictures; and the absent files."""
    folders, lines, absent = Folders(), [], []
    for name, expected in official.items():
        items = pictures_of(name)
        if items is None:
            absent.append(file.format(name))
            continue
        there = sum(folders.lacks(pictures) is None for pictures in items)
        lines.append(f"{task} {name}: {of(len(items), expected, noun)}, {there:,} have {whole}")
    return lines, absent


_TASKS: dict[str, Callable[[Path], tuple[list[str], list[str]]]] = {
    "vqav2": _count_vqa,
    "nlvr2": _count_nlvr2,
    "vcr": _count_vcr,
}


def missing_sets(root: Path, sources: set[str]) -> list[str]:
    """The data sets of the paper's pretraining that are not there, and what decides splits, with their sources."""
    lines = []
    if "flickr30k" not in sources:
        lines.append(
            "flickr30k/: images and results_20130124.token of shannon.cs.illinois.edu/DenotationGraph; "
            "dataset_flickr30k.json: caption_datasets.zip of cs.stanford.edu/people/karpathy/deepimagesent"
        )
    if "vg" not in sources:
        lines.append(
            "vg/: region_descriptions.json.zip, image_data.json.zip, images.zip (VG_100K), images2.zip (VG_100K_2) of "
            "homes.cs.washington.edu/~ranjay/visualgenome"
        )
    if not (root / "refer").is_dir():
        lines.append("refer/ (RefCOCO's val and test images): github.com/lichengunc/refer")
    return lines


def genome_missing(corpus: Corpus) -> list[str]:
    """Visual Genome's image folders that are not there."""
    there = {folder.name for folder in genome_folders(corpus.root)}
    zips = {"VG_100K": "images.zip", "VG_100K_2": "images2.zip"}
    return [f"{corpus.root.name}/{name}/: {zips[name]} of homes.cs.washington.edu/~ranjay/visualgenome"
            for name in zips if name not in there]  # fmt: skip


def vqa_images(root: Path, split: str) -> frozenset[int]:
    """The COCO ids that VQAv2's questions of a split ask about; empty where there are none."""
    path = find_file(root / "vqav2", questions_name(split))
    return frozenset(int(q.image_id) for q in read_questions(path)) if path else frozenset()
