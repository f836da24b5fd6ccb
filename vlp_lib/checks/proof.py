"""Proof that no downstream image is pretrained on, the paper's arithmetic of images and pairs, and the split lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.exclusion import COCO, FLICKR30K, VISUAL_GENOME, HeldOut
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.table import ID_STRIDE, NO_ID, SPLITS, Photographs, caption_counts
from vlp_lib.io import write_text

# Images and sentences that the complete data sets leave to train on: UNITER, table 1 (COCO, VG); Karpathy (Flickr30k).
_COMPLETE = {COCO: (106_000, 533_000), FLICKR30K: (29_000, 145_000), VISUAL_GENOME: (101_000, 5_060_000)}
_PAPER = (230_000, 5_000_000)
_EVALUATED = ("Karpathy val", "Karpathy test", "RefCOCO", "Flickr30k", "VQAv2 test")
_TRAIN = SPLITS.index("train")

Parts = Mapping[str, Sequence[ImageRecord]]
"""The records of a corpus by data set."""


@dataclass(frozen=True)
class Evaluated:
    """The images of a downstream val or test set.

    Attributes:
        name: e.g. "Karpathy test".
        coco_ids, flickr_ids: of its photographs; those of COCO images have both.
    """

    name: str
    coco_ids: frozenset[int]
    flickr_ids: frozenset[int]

    def __len__(self) -> int:
        return max(len(self.coco_ids), len(self.flickr_ids))


def evaluated_sets(
    held_out: HeldOut, flickr30k: Mapping[str, frozenset[int]], vqa_test: frozenset[int]
) -> list[Evaluated]:
    """Every downstream val and test set whose images are known.

    Args:
        held_out: COCO's.
        flickr30k: Flickr numbers of its val and test images.
        vqa_test: COCO ids that VQAv2's test questions ask about.
    """
    coco = {**held_out.coco, "Karpathy val": held_out.coco_validation, "VQAv2 test": vqa_test}
    sets = [Evaluated(name, ids, held_out.flickr_of(ids)) for name, ids in sorted(coco.items())]
    sets += [Evaluated(f"Flickr30k {split}", frozenset(), numbers) for split, numbers in sorted(flickr30k.items())]
    return [one for one in sets if len(one)]


def prove(photographs: Photographs, sets: Sequence[Evaluated]) -> list[str]:
    """How many pretraining images are in each set, by COCO id or Flickr number; the first line sums up.

    Args:
        photographs: all images of the corpus; those of the split "train" are the pretraining images.
        sets: as `evaluated_sets` gives them.
    """
    trained = photographs.splits == _TRAIN
    coco, flickr = photographs.coco_ids[trained].tolist(), photographs.flickr_ids[trained].tolist()
    inside = {
        one.name: {
            i
            for i, (coco_id, number) in enumerate(zip(coco, flickr, strict=True))
            if coco_id in one.coco_ids or number in one.flickr_ids
        }
        for one in sets
    }
    found = len(set().union(*inside.values()))
    unknown = sum(coco_id == NO_ID and number == NO_ID for coco_id, number in zip(coco, flickr, strict=True))
    lines = [f"{found:,} of {len(coco):,} pretraining images are in a downstream val or test set"]
    lines += [f"{one.name}: {len(inside[one.name]):,} of its {len(one):,} images" for one in sets]
    absent = [name for name in _EVALUATED if not any(one.name.startswith(name) for one in sets)]
    if absent:
        lines.append(f"not known here, so nothing is proven about: {', '.join(absent)}")
    if unknown:
        lines.append(f"{unknown:,} pretraining images have neither COCO id nor Flickr number and cannot be compared")
    return lines


def arithmetic(corpus: Corpus, parts: Parts) -> list[str]:
    """Images and sentences to train on beside those of the complete data sets and the paper's sums."""
    trained = {source: Photographs.of(records).splits == _TRAIN for source, records in parts.items()}
    rows = {source: (int(trained[source].sum()), int(caption_counts(records)[trained[source]].sum()))
            for source, records in parts.items()}  # fmt: skip
    rows |= {source: (0, 0) for source in _COMPLETE if source not in rows}
    lines = [f"{'':<12}{'images':>12}{'complete':>12}{'sentences':>14}{'complete':>12}"]
    for source, (images, sentences) in rows.items():
        complete = [_about(count) for count in _COMPLETE.get(source, ())] or ["", ""]
        lines.append(f"{source:<12}{images:>12,}{complete[0]:>12}{sentences:>14,}{complete[1]:>12}")
    images, sentences = (sum(row[i] for row in rows.values()) for i in (0, 1))
    lines.append(f"{'total':<12}{images:>12,}{_about(_PAPER[0]):>12}{sentences:>14,}{_about(_PAPER[1]):>12}")
    lines.append("complete: UNITER's table 1 and Karpathy's Flickr30k; in total what the paper states (section IV-A2)")
    lines.append(f"distinct photographs among the images: {_distinct(Photographs.of(corpus.records)):,}")
    maps = corpus.report.with_label_map["train"]
    labelled = sum(len(r.captions) for r in parts.get(COCO, ()) if r.split == "train" and corpus.has_label_map(r))
    lines.append(
        f"label maps: {maps:,} images ({maps / max(images, 1):.0%}) and {labelled / max(sentences, 1):.0%} of the "
        f"pairs (the paper: about 50% and 10%)"
    )
    return lines


def _about(count: int) -> str:
    return f"{count / 1e6:g}M" if count >= 10**6 else f"{count // 1000}k"


def _distinct(photographs: Photographs) -> int:
    """Photographs to train on, each once: by Flickr number where known, else by COCO id, else each image for itself."""
    chosen = photographs.splits == _TRAIN
    coco, flickr = photographs.coco_ids[chosen], photographs.flickr_ids[chosen]
    # One photograph may come with either number: a record with both tells which they are.
    both = (coco != NO_ID) & (flickr != NO_ID)
    number_of = dict(zip(coco[both].tolist(), flickr[both].tolist(), strict=True))
    numbers = [
        (f if f != NO_ID else number_of.get(c, NO_ID), c) for c, f in zip(coco.tolist(), flickr.tolist(), strict=True)
    ]
    named = {("flickr", f) if f != NO_ID else ("coco", c) for f, c in numbers if (f, c) != (NO_ID, NO_ID)}
    return len(named) + numbers.count((NO_ID, NO_ID))


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
    written = []
    for name, lines in lists.items():
        if lines:
            path = folder / f"{name}.txt"
            write_text(path, "".join(f"{line}\n" for line in lines))
            written.append(path)
    return written
