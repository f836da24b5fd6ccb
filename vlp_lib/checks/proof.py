"""Proof that no downstream image is pretrained on, the paper's arithmetic of images and pairs, and the split lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlp_lib.checks.census import vqa_images
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.exclusion import COCO, FLICKR30K, VISUAL_GENOME, HeldOut
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.table import ID_STRIDE, NO_ID, SPLITS, RecordTable, caption_counts
from vlp_lib.io import write_text

# Images and sentences that the complete data sets leave to train on: UNITER, table 1 (COCO, VG); Karpathy (Flickr30k).
_COMPLETE = {COCO: (106_000, 533_000), FLICKR30K: (29_000, 145_000), VISUAL_GENOME: (101_000, 5_060_000)}
_PAPER = (230_000, 5_000_000)
_EVALUATED = ("Karpathy val", "Karpathy test", "RefCOCO", "Flickr30k", "VQAv2 test")

Parts = Mapping[str, Sequence[ImageRecord]]
"""The records of a corpus by data set."""


class Evaluated(NamedTuple):
    """The images of a downstream val or test set, by their ids in COCO and on flickr.com; those of COCO have both."""

    name: str
    coco_ids: frozenset[int]
    flickr_ids: frozenset[int]

    @property
    def size(self) -> int:
        """Images."""
        return max(len(self.coco_ids), len(self.flickr_ids))


def leakage(corpus: Corpus, root: Path, held_out: HeldOut) -> list[str]:
    """The proof for a corpus and for every downstream set whose images are known below its folder."""
    records = RecordTable.of(corpus.records)
    lines = prove(records, evaluated_sets(held_out, vqa_images(root, "test")))
    if asked := vqa_images(root, "val"):
        trained = asked.intersection(_trained(records).coco_ids.tolist())
        lines.append(
            f"VQAv2 val: {len(trained):,} of its {len(asked):,} images are pretrained on, for Karpathy's split trains "
            f"on most of COCO's val, as UNITER does: compare with others on VQAv2's test-dev"
        )
    return lines


def evaluated_sets(held_out: HeldOut, vqa_test: frozenset[int]) -> list[Evaluated]:
    """Every downstream val and test set whose images are known; `vqa_test` are those of VQAv2's test, by COCO id."""
    coco = {**held_out.coco, "Karpathy val": held_out.coco_validation, "VQAv2 test": vqa_test}
    sets = [Evaluated(name, ids, held_out.flickr_of(ids)) for name, ids in sorted(coco.items())]
    for part in ("test", "val"):
        numbers = frozenset(number for number, split in held_out.flickr30k.items() if split == part)
        sets.append(Evaluated(f"Flickr30k {part}", frozenset(), numbers))
    return [one for one in sets if one.size]


def prove(records: RecordTable, sets: Sequence[Evaluated]) -> list[str]:
    """How many pretraining images are in each set, by COCO id or Flickr number; the first line sums up.

    Args:
        records: all images of the corpus; those of the split "train" are the pretraining images.
        sets: as `evaluated_sets` gives them.
    """
    shown = _trained(records)
    coco, flickr = shown.coco_ids, shown.flickr_ids
    inside = [np.isin(coco, list(one.coco_ids)) | np.isin(flickr, list(one.flickr_ids)) for one in sets]
    leaked = np.any([np.zeros(len(coco), bool), *inside], axis=0).sum()
    unknown = ((coco == NO_ID) & (flickr == NO_ID)).sum()
    absent = [name for name in _EVALUATED if not any(one.name.startswith(name) for one in sets)]
    lines = [f"{leaked:,} of {len(coco):,} pretraining images are in a downstream val or test set"]
    lines += [f"{one.name}: {hit.sum():,} of its {one.size:,} images" for one, hit in zip(sets, inside, strict=True)]
    if absent:
        lines.append(f"not known here, so nothing is proven about: {', '.join(absent)}")
    if unknown:
        lines.append(f"{unknown:,} pretraining images have neither COCO id nor Flickr number and cannot be compared")
    return lines


def _trained(records: Sequence[ImageRecord]) -> RecordTable:
    """The images to train on."""
    table = RecordTable.of(records)
    return table.chosen(table.splits == SPLITS.index("train"))


def arithmetic(corpus: Corpus, parts: Parts) -> list[str]:
    """Images and sentences to train on beside those of the complete data sets and the paper's sums."""
    rows = dict.fromkeys([*parts, *_COMPLETE], (0, 0))
    for source, records in parts.items():
        trained = _trained(records)
        rows[source] = len(trained), int(caption_counts(trained).sum())
    images, sentences = rows["total"] = sum(n for n, _ in rows.values()), sum(n for _, n in rows.values())
    lines = [f"{'':<12}{'images':>12}{'complete':>12}{'sentences':>14}{'complete':>12}"]
    for source, counts in rows.items():
        complete = [_about(count) for count in {**_COMPLETE, "total": _PAPER}.get(source, ())] or ["", ""]
        lines.append(f"{source:<12}{counts[0]:>12,}{complete[0]:>12}{counts[1]:>14,}{complete[1]:>12}")
    lines.append("complete: UNITER's table 1 and Karpathy's Flickr30k; in total what the paper states (section IV-A2)")
    lines.append(f"distinct photographs among the images: {_distinct(_trained(corpus.records)):,}")
    maps = corpus.report.with_label_map["train"]
    labelled = sum(len(r.captions) for r in _trained(parts.get(COCO, ())) if corpus.has_label_map(r))
    lines.append(
        f"label maps: {maps:,} images ({maps / max(images, 1):.0%}) and {labelled / max(sentences, 1):.0%} of the "
        f"pairs (the paper: about 50% and 10%)"
    )
    return lines


def _about(count: int) -> str:
    return f"{count / 1e6:g}M" if count >= 10**6 else f"{count // 1000}k"


def _distinct(records: RecordTable) -> int:
    """Photographs, each once: by Flickr number where known, else by COCO id, else each image for itself."""
    coco, flickr = records.coco_ids.tolist(), records.flickr_ids.tolist()
    # One photograph may come with either number: a record with both tells which they are.
    number_of = {c: f for c, f in zip(coco, flickr, strict=True) if NO_ID not in (c, f)}
    ids = [(c, number_of.get(c, NO_ID) if f == NO_ID else f) for c, f in zip(coco, flickr, strict=True)]
    named = {("flickr", f) if f != NO_ID else ("coco", c) for c, f in ids if (c, f) != (NO_ID, NO_ID)}
    return len(named) + ids.count((NO_ID, NO_ID))


def write_splits(parts: Parts, held_out: HeldOut, folder: Path) -> list[Path]:
    """Write the split lists as text, one image a line, under each data set's own ids.

    pretrain_<split>_<data set>.txt: COCO ids, Flickr numbers, Visual Genome ids, or shard and file of web pairs;
    held_out_<set>.txt: COCO ids that no pretraining may see; held_out_flickr30k.txt: Flickr numbers that no other data
    set may bring in.

    Raises UserError where the folder cannot be written.
    """
    lists: dict[str, list[str]] = {}
    for source, records in parts.items():
        for record in records:
            if record.split != "test":
                name = f"{record.path.parent.name}/{record.path.name}"
                own = str(record.image_id % ID_STRIDE) if source in _COMPLETE else name
                lists.setdefault(f"pretrain_{record.split}_{source}", []).append(own)
    for name, ids in {**held_out.coco, FLICKR30K: held_out.flickr30k}.items():
        lists[f"held_out_{name.lower().replace(' ', '_')}"] = [str(i) for i in sorted(ids)]
    paths = {folder / f"{name}.txt": lines for name, lines in lists.items() if lines}
    for path, lines in paths.items():
        write_text(path, "".join(f"{line}\n" for line in lines))
    return list(paths)
