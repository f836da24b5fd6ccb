"""Zero-shot retrieval of a pretrained run (section IV-B4): from its folder to its recalls."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vlp_lib import io, provenance
from vlp_lib.arrays import write_array
from vlp_lib.clock import Stopwatch
from vlp_lib.config import to_dict
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.distributed import held
from vlp_lib.items import write_items
from vlp_lib.run import Run
from vlp_lib.tasks.recalls import CAPTIONS_PER_IMAGE, all_recalls, recalls_of_images
from vlp_lib.tasks.retrieval import Gallery, gallery_of, score_matrix
from vlp_lib.trainers.loop import METRICS, WEIGHTS, resolve_precision
from vlp_lib.trainers.trained import device_at_hand, regions_of, restore_pretrained

SCORES = "scores.npy"

_KEEP_SCORES_BELOW = 1_000_000
"""Bytes of a score matrix that is kept with its run; COCO 5k's would have 500 MB."""


@dataclass(frozen=True)
class Retrieved:
    """What a retrieval gives: the gallery, its scores [images, captions], and the recalls (see `all_recalls`)."""

    gallery: Gallery
    scores: np.ndarray
    recalls: Mapping[str, Mapping[str, float]]


def retrieve(run: Run, corpus: Corpus, restart: bool = False) -> Retrieved:
    """Zero-shot retrieval of one pretrained model.

    Writes into the run's folder of "retrieval" (or "retrieval-<data set>"): config.json, metrics.jsonl (a line a
    gallery: text_r1 … image_r10 as fractions of 1), run.json (the same, and what the computation took) and the scores
    where they are small.

    Raises UserError for a missing or other model, a test split that retrieval cannot use, a folder that another process
    works in, and (without `restart`) one that another configuration began.
    """
    run = run.at("retrieval")
    folder = run.folder(f"retrieval-{run.config.retrieval.data_set}".rstrip("-"))
    with held(folder):
        begun, start = provenance.now(), time.monotonic()
        profile, variant, settings = run.config, run.chosen, run.config.retrieval
        model, tokenizer = restore_pretrained(run, corpus)
        model.to(device_at_hand())
        bf16 = resolve_precision(settings.precision) == "bf16"
        gallery = gallery_of(corpus, settings.images, settings.data_set)
        size = settings.image_size or profile.model.image_size
        identity = run.identity("retrieval")
        config = {name: value for name, value in identity.items() if name != "name"}
        config |= {"retrieval": to_dict(settings), "model": to_dict(profile.model), "corpus": corpus.fingerprint}
        provenance.begin(folder, config, restart, __name__, recomputed=True)
        watch = Stopwatch(device_at_hand())
        scores = score_matrix(
            model, corpus, gallery, tokenizer, size, settings.block, regions_of(profile, variant),
            profile.data.detector_threshold, bf16,
        )  # fmt: skip
        watch.mark("pairs")
        found = all_recalls(scores, gallery.image_index, settings.fold)
        if scores.nbytes < _KEEP_SCORES_BELOW:
            write_array(folder / SCORES, scores)
        write_items(folder, recalls_of_images(scores, gallery.image_index, settings.fold))
        rows = [{"gallery": name, **one} for name, one in found.items()]
        io.write_lines(folder / METRICS, rows)
        facts = identity | {
            "synthetic": corpus.synthetic,
            "corpus": corpus.fingerprint,
            "weights": str(run.folder("pretrain") / WEIGHTS),
            "data_set": settings.data_set,
            "images": len(gallery.records),
            "captions": len(gallery.captions),
            "captions_per_image": CAPTIONS_PER_IMAGE,
            "test_images_of_the_corpus": len(corpus.split("test")),
            "image_size": size,
            "precision": "bf16" if bf16 else "float32",
            "recalls": {row["gallery"]: row for row in rows},
            "pairs": scores.size,
        }
        pace = round(scores.size / watch.seconds()["pairs"], 1)
        provenance.write_run(folder, facts, model, begun, time.monotonic() - start, pairs_per_second=pace)
        return Retrieved(gallery, scores, found)
