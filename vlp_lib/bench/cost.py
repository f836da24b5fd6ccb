"""What each visual loss costs (Table I), measured: parameters, time of a training step, visual tokens, extra data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vlp_lib.batches.tokenizer import Tokenizer
from vlp_lib.bench.architecture import describe
from vlp_lib.bench.record import Record
from vlp_lib.bench.step import TrainingStep
from vlp_lib.clock import take_turns, timed
from vlp_lib.config import ModelConfig, Profile, Variant, parse_variant
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.errors import UserError
from vlp_lib.models.model import PretrainingModel, VLPModel, needs_of
from vlp_lib.trainers.loop import resolve_precision, seed_everything
from vlp_lib.trainers.pretrain import PretrainingTask, make_tokenizer, require_targets, vocabularies
from vlp_lib.trainers.trained import device_at_hand

COST = "cost.json"
METHODS = ("naive_vit", "ssul", "segl", "spl_small", "spl_large")
"""Table I's rows, SPL in both sizes; the first is what the others are compared with."""

PAPER_SIZES = (384, 600)
"""Image sizes of pretraining and of finetuning."""


def _task(profile: Profile, variant: Variant, corpus: Corpus, tokenizer: Tokenizer) -> PretrainingTask:
    """One part of a batch, whatever the profile's accumulation."""
    training = profile.training
    part = replace(training, batch_size=training.batch_size // training.accumulation, accumulation=1)
    return PretrainingTask(corpus, tokenizer, replace(profile, training=part), variant, seed=0, steps=1)


def extra_data(task: PretrainingTask) -> tuple[str, float]:
    """What a variant learns from beside the pairs, and the share of the corpus's training images that have it."""
    corpus, training = task.train.corpus, task.train.corpus.split("train")
    if task.train.label_maps:
        return "label maps", float(np.mean([corpus.has_label_map(record) for record in training]))
    if task.train.max_detections:
        found = corpus.detections
        return "detector labels", float(np.mean([found is not None and r.image_id in found for r in training]))
    return "none", 0.0


def _step(task: PretrainingTask, variant: Variant, tokenizer: Tokenizer) -> Callable[[], object]:
    """A training step of a variant on a batch that is ready."""
    device, profile = device_at_hand(), task.profile
    seed_everything(0)
    vlp = VLPModel(profile.model, variant, vocabularies(task.train.corpus, tokenizer), pretrained=False)
    model = PretrainingModel(vlp).to(device).train()
    step = TrainingStep(model, lambda m, b: task.losses(m, b)["loss"], profile.training, device)
    return partial(step, [next(iter(task.batches(0, 0, 1))).to(device)])


def bench_cost(
    profile: Profile, corpus: Corpus, rounds: int, folder: Path, names: Sequence[str] = METHODS
) -> list[dict[str, Any]]:
    """Measure Table I, write `folder`/cost.json, .csv and .md and return its rows.

    The training steps are those of the profile's own model and batch, the variants in turns; a variant whose targets
    the corpus lacks has no time (None) and says why. Parameters and tokens are the paper's architecture's.

    A row: variant, extra_parameters (in training), extra_parameters_at_inference, tokens (by image size), step_ms
    (median), step_ratio (to the first variant, of the fastest steps, which other work on the machine disturbs least),
    extra_data, extra_data_share.

    Args:
        rounds: steps of each variant.
        names: the variants; the first is what the others are compared with.
    """
    if rounds < 1:
        raise UserError(f"rounds is {rounds}: a training step has to be measured at least once")
    variants = [parse_variant(name) for name in names]
    training = profile.training
    record = Record(
        "cost",
        profile=profile.name,
        synthetic=corpus.synthetic,
        corpus=corpus.fingerprint,
        batch_size=training.batch_size // training.accumulation,
        precision=resolve_precision(training.precision),
        rounds=rounds,
    )
    device, tokenizer = device_at_hand(), make_tokenizer(profile, corpus)
    tasks = {variant.name: _task(profile, variant, corpus, tokenizer) for variant in variants}
    passes, missing = {}, {}
    for variant in variants:
        try:
            needs = needs_of(profile.model, variant, vocabularies(corpus, tokenizer))
            require_targets(corpus, variant, needs)
            passes[variant.name] = timed(_step(tasks[variant.name], variant, tokenizer), device)
        except UserError as error:
            missing[variant.name] = str(error)
    times = take_turns(passes, rounds)
    sizes = {variant.name: describe(ModelConfig(), variant, PAPER_SIZES) for variant in variants}
    base = variants[0].name
    rows = []
    for name, size in sizes.items():
        data, share = extra_data(tasks[name])
        rows.append(
            {
                "variant": name,
                "extra_parameters": size.parameters["visual_loss"],
                "extra_parameters_at_inference": size.at_inference - sizes[base].at_inference,
                "tokens": {str(pixels): tokens for pixels, tokens in size.tokens.items()},
                "step_ms": round(1000 * float(np.median(times[name])), 2) if name in times else None,
                "step_ratio": round(float(times[name].min() / times[base].min()), 4)
                if {name, base} <= set(times)
                else None,
                "extra_data": data,
                "extra_data_share": round(share, 4),
                "note": missing.get(name, ""),
            }
        )
    record.write(folder, COST.removesuffix(".json"), rows, device)
    return rows
