"""What `vlp data check` says about a folder: what is there, what is missing and where to get it, what is broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vlp_lib.checks.census import count_tasks, facts_of, missing_sets
from vlp_lib.checks.proof import arithmetic, leakage, write_splits
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.exclusion import COCO
from vlp_lib.corpora.joined import JoinedCorpus, join, read_held_out_images
from vlp_lib.corpora.layout import is_synthetic
from vlp_lib.corpora.opening import Place, find_places, needs_joining, open_corpus, open_place
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.errors import UserError


def check(root: Path, sample: int = 50, splits: bool = False) -> str:
    """A report on the data sets below a folder, for pretraining and for the tasks.

    A data set that cannot be opened is named with its fault and does not hide the others.

    Args:
        root: as `open_corpus` reads it.
        sample: how many images, label maps and detector rows, evenly spaced, are decoded to find broken ones.
        splits: write the split lists into `root`/splits.

    Raises UserError where there is nothing to report on, or the lists cannot be written.
    """
    if not root.is_dir():
        raise UserError(f"{root} is no folder: name the folder of a corpus")
    opened, corpus, faults = _open(root)
    synthetic = corpus is not None and corpus.synthetic
    tasks, absent = ([], []) if synthetic else count_tasks(root)
    if corpus is None and not tasks and not faults:
        open_corpus(root)  # which says what a corpus has to have
    facts = [facts_of(one) for _, one in opened]
    missing = [line for one in facts for line in one.missing]
    if not synthetic and [place.folder for place, _ in opened] != [root]:
        missing += missing_sets(root, {place.source for place, _ in opened})
    origin = "real images" if corpus else "no data set to pretrain on"
    if synthetic and corpus:
        origin = f"the embedded corpus, drawn by `vlp data synthesize` (fingerprint {corpus.fingerprint})"
    sections: dict[str, Sequence[str]] = {
        "Corpus": [f"{root}: {origin}"],
        "Cannot be used": faults,
        "Files": [line for one in facts for line in one.files],
    }
    if corpus:
        usable = [*str(corpus.report).splitlines(), f"label maps: {len(corpus.segmentation_classes)} classes"]
        if found := corpus.detections:
            usable.append(f"detector: {len(found.classes):,} classes, {len(found.attribute_names)} attributes")
        sections["Usable images"] = usable
        sections["Spot checks"] = _spot_checks(corpus, sample)
        sections["Splits"] = [line for one in facts for line in one.splits]
    if corpus and not synthetic:
        held_out, parts = read_held_out_images(root), _parts(corpus, opened)
        sections["Pretraining"] = arithmetic(corpus, parts)
        sections["Leakage"] = leakage(corpus, root, held_out)
        if splits:
            sections["Split lists"] = [str(path) for path in write_splits(parts, held_out, root / "splits")]
    sections |= {"Tasks": tasks, "Missing": missing + (absent if tasks else [])}
    return "\n\n".join("\n  ".join([title, *lines]) for title, lines in sections.items() if lines)


def _open(root: Path) -> tuple[list[tuple[Place, Corpus]], Corpus | None, list[str]]:
    """The data sets that can be used, each for itself; what `open_corpus` makes of them; the faults of the others."""
    synthetic = is_synthetic(root)
    places = [Place(COCO, root)] if synthetic else find_places(root)
    if synthetic or not needs_joining(root, places):
        corpus = open_corpus(root) if places else None
        return [(place, corpus) for place in places if corpus], corpus, []
    opened, faults = [], []
    for place in places:
        try:
            opened.append((place, open_place(place)))
        except UserError as error:
            faults.append(f"{place.source}: {error}")
    return opened, join(root, [(place.source, corpus) for place, corpus in opened]) if opened else None, faults


def _parts(corpus: Corpus, opened: Sequence[tuple[Place, Corpus]]) -> dict[str, Sequence[ImageRecord]]:
    """The records that a corpus uses, by data set."""
    if isinstance(corpus, JoinedCorpus):
        return {member.source: corpus.part(member.source) for member in corpus.members}
    return {place.source: corpus.records for place, _ in opened}


def _spot_checks(corpus: Corpus, sample: int) -> list[str]:
    """Decode evenly spaced records; how many could be read, and a line for each that could not."""
    mapped = [record for record in corpus.records if corpus.has_label_map(record)]
    detected = [r for r in corpus.records if corpus.detections and r.image_id in corpus.detections]
    readers: dict[str, tuple[Sequence[ImageRecord], Callable[[ImageRecord], object]]] = {
        "images": (corpus.records, corpus.read_image),
        "label maps": (mapped, corpus.read_label_map),
        "detector rows": (detected, lambda record: corpus.read_detections(record, 1, 0.0)),
    }
    lines = []
    for what, (records, read) in readers.items():
        chosen = np.unique(np.linspace(0, len(records) - 1, min(sample, len(records))).round().astype(int))
        faults = []
        for i in chosen:
            try:
                read(records[i])
            except UserError as error:
                faults.append(f"broken: {error}")
        if len(records):
            lines += [f"{what}: {len(chosen) - len(faults)} of {len(chosen)} decoded are sound", *faults]
    return lines
