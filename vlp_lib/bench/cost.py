"""What each visual loss costs (Table I), measured: parameters, time of a training step, visual tokens, extra data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vlp_lib.bench.architecture import describe
from vlp_lib.bench.record import Record, Row
from vlp_lib.bench.step import start_training
from vlp_lib.clock import take_turns, timed
from vlp_lib.config import ModelConfig, Profile, parse_variant
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.errors import UserError
from vlp_lib.losses.base import Needs
from vlp_lib.models.model import needs_of
from vlp_lib.trainers.loop import resolve_precision
from vlp_lib.trainers.pretrain import make_tokenizer, require_targets, vocabularies
from vlp_lib.trainers.trained import device_at_hand

COST = "cost.json"
METHODS = ("naive_vit", "ssul", "segl", "spl_small", "spl_large")
"""Table I's rows, SPL in both sizes; the first is what the others are compared with."""

PAPER_SIZES = (384, 600)
"""Image sizes of pretraining and of finetuning."""


def extra_data(corpus: Corpus, needs: Needs) -> tuple[str, float]:
    """What a variant learns from beside the pairs, and the share of the corpus's training images that have it."""
    training, labelled = corpus.split("train"), corpus.detections or ()
    if needs.label_maps:
        return "label maps", float(np.mean([corpus.has_label_map(record) for record in training]))
    if needs.detections:
        return "detector labels", float(np.mean([record.image_id in labelled for record in training]))
    return "none", 0.0


def bench_cost(
    profile: Profile, corpus: Corpus, rounds: int, folder: Path, names: Sequence[str] = METHODS
) -> list[dict[str, Any]]:
    """Measure Table I, write `folder`/cost.json, .csv and .md and return its rows.

    The training steps are those of the profile's own model and batch, the variants in turns; a variant whose targets
    the corpus lacks has no time (None) and says why. Parameters and tokens are the paper's architecture's.

    A row: variant, extra_parameters (in training), extra_parameters_at_inference, tokens (by image size), step_ms
    (median), step_ratio (to the first variant, of the fastest steps, which other work on the machine disturbs least),
    extra_data, extra_data_share, note.

    Args:
        rounds: steps of each variant.
        names: the variants; the first is what the others are compared with.
    """
    if rounds < 1:
        raise UserError(f"rounds is {rounds}: a training step has to be measured at least once")
    # One part of a batch, whatever the profile's accumulation.
    batch_size = profile.training.batch_size // profile.training.accumulation
    training = replace(profile.training, batch_size=batch_size, accumulation=1)
    record = Record(
        "cost",
        profile=profile.name,
        synthetic=corpus.synthetic,
        corpus=corpus.fingerprint,
        batch_size=batch_size,
        precision=resolve_precision(training.precision),
        rounds=rounds,
    )
    device, tokenizer = device_at_hand(), make_tokenizer(profile, corpus)
    sizes = vocabularies(corpus, tokenizer)
    passes, rows = {}, dict[str, Row]()
    for name in names:
        # The paper calls the naive model after the ViT; here it has the backbone that the others have.
        variant = parse_variant("naive" if name == "naive_vit" else name, profile.model.vision)
        note = ""
        needs = needs_of(profile.model, variant, sizes)
        try:
            require_targets(corpus, variant, needs)
            task, step = start_training(replace(profile, training=training), variant, corpus, tokenizer, sizes, 1)
            passes[name] = timed(partial(step, [next(task.batches(0, 0, 1)).to(device)]), device)
        except UserError as error:
            note = str(error)
        size = describe(ModelConfig(), variant, PAPER_SIZES)
        data, share = extra_data(corpus, needs)
        rows[name] = {
            "variant": name,
            "extra_parameters": size.parameters["visual_loss"],
            "extra_parameters_at_inference": size.at_inference,
            "tokens": {str(pixels): tokens for pixels, tokens in size.tokens.items()},
            "step_ms": None,
            "step_ratio": None,
            "extra_data": data,
            "extra_data_share": round(share, 4),
            "note": note,
        }
    times, base = take_turns(passes, rounds), next(iter(rows))
    at_inference = rows[base]["extra_parameters_at_inference"]
    for name, row in rows.items():
        row["extra_parameters_at_inference"] -= at_inference
        if name in times:
            row["step_ms"] = round(1000 * float(np.median(times[name])), 2)
        if {name, base} <= times.keys():
            row["step_ratio"] = round(float(times[name].min() / times[base].min()), 4)
    record.write(folder / COST, list(rows.values()), device)
    return list(rows.values())
