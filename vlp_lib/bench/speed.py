"""What the notebook 13_speed measures on the device at hand: the time of an answer, and what each visual loss costs.

Of an answer to one question about one image (Tables II and IV, figure 5 right): all models get the same, in a batch of
one and in float32. The weights are random: time does not depend on them. Visual losses are not computed at inference;
what makes their tokens is, because the cross-modality encoder reads them. Of each loss (Table I): parameters, time of a
training step, visual tokens, extra data. In both the models take turns, run by run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlp_lib.bench.architecture import IMAGE_SIZES, describe
from vlp_lib.bench.contenders import FULL_SIZE, MINIATURE, Contender, contenders
from vlp_lib.bench.made_up import WORDS
from vlp_lib.bench.step import in_one_part, start_training
from vlp_lib.bench.table import Record
from vlp_lib.clock import Stopwatch, rounds_of, spread, take_turns, timed
from vlp_lib.config import ModelConfig, Profile
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.errors import UserError
from vlp_lib.losses.base import Needs
from vlp_lib.models.model import needs_of
from vlp_lib.trainers.loop import resolve_precision
from vlp_lib.trainers.pretrain import make_tokenizer, require_targets, vocabularies
from vlp_lib.trainers.trained import device_at_hand
from vlp_lib.variants import parse_variant

LATENCY, COST = "latency.json", "cost.json"

METHODS = ("naive_vit", "ssul", "segl", "spl_small", "spl_large")
"""Table I's rows, SPL in both sizes; the first is what the others are compared with."""


@torch.inference_mode()
def one_pass(contender: Contender, device: torch.device) -> list[float]:
    """Seconds of each stage of one answer."""
    watch, state = Stopwatch(device), None
    for name, stage in contender.stages.items():
        state = stage(state)
        watch.mark(name)
    return list(watch.seconds().values())


def summary(times: np.ndarray, stages: list[str], rounds: int) -> dict[str, Any]:
    """Times [runs, stages] in s as ms: of the whole its median, 5th and 95th percentile; each stage's median.

    `times_ms` has a place for each round, in which all models answer in turns; null where this one sat out.
    """
    low, median, high = (round(1000 * value, 3) for value in spread(times.sum(1)))
    places = dict(zip(rounds_of(len(times), rounds), (1000 * times.sum(1)).round(3).tolist(), strict=True))
    medians = (1000 * np.median(times, axis=0)).round(3).tolist()
    of_stages = dict(zip(stages, medians, strict=True))
    found = {"runs": len(times), "median_ms": median, "p5_ms": low, "p95_ms": high, "stages_ms": of_stages}
    return found | {"times_ms": [places.get(turn) for turn in range(rounds)]}


def bench_speed(profile: Profile, image_size: int, runs: int, warmup: int, folder: Path) -> list[dict[str, Any]]:
    """Time all contenders, write `folder`/latency.json, .csv and .md and return the rows, one a contender.

    Raises UserError for an image smaller than a patch, and for no runs.
    """
    if image_size < 32:
        raise UserError(f"image_size is {image_size}: a patch alone has 32 pixels, so give at least that")
    if runs < 1 or warmup < 1:
        raise UserError(f"runs is {runs} and warmup {warmup}: both must be at least 1")
    record = Record(
        "speed",
        profile=profile.name,
        architecture="the paper's" if profile.speed.full_size else "miniature",
        random_weights=True,
        batch=1,
        words=WORDS,
        image_size=image_size,
        runs=runs,
        warmup=warmup,
        precision="float32",
        tf32=torch.backends.cuda.matmul.allow_tf32,
    )
    device = device_at_hand()
    models = list(contenders(FULL_SIZE if profile.speed.full_size else MINIATURE, image_size, device))
    passes: dict[str, Callable[[], list[float]]] = {one.name: partial(one_pass, one, device) for one in models}
    times = take_turns(passes, runs, warmup, profile.speed.seconds)
    rows = [
        {
            "name": one.name,
            "kind": one.kind,
            "random_weights": True,
            "note": one.note,
            "image_size": image_size,
            "visual_tokens": one.visual_tokens,
            "parameters": one.parameters,
            **summary(times[one.name], list(one.stages), runs),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "threads": torch.get_num_threads(),
        }
        for one in models
    ]
    record.write(folder / LATENCY, rows, device)
    return rows


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
    extra_data, extra_data_share, note. `rounds` are steps of each variant; the first of the `names` is what the
    others are compared with.
    """
    if rounds < 1:
        raise UserError(f"rounds is {rounds}: a training step has to be measured at least once")
    profile = in_one_part(profile)
    record = Record(
        "cost",
        profile=profile.name,
        synthetic=corpus.synthetic,
        corpus=corpus.fingerprint,
        batch_size=profile.training.batch_size,
        precision=resolve_precision(profile.training.precision),
        rounds=rounds,
    )
    device, tokenizer = device_at_hand(), make_tokenizer(profile, corpus)
    sizes = vocabularies(corpus, tokenizer)
    passes, rows = {}, dict[str, dict[str, Any]]()
    for name in names:
        # The paper calls the naive model after the ViT; here it has the backbone that the others have.
        variant = parse_variant("naive" if name == "naive_vit" else name, profile.model.vision)
        note = ""
        needs = needs_of(profile.model, variant, sizes)
        try:
            require_targets(corpus, variant, needs)
            task, step = start_training(profile, variant, corpus, tokenizer, sizes, 1)
            passes[name] = timed(partial(step, [next(task.batches(0, 0, 1)).to(device)]), device)
        except UserError as error:
            note = str(error)
        size = describe(ModelConfig(), variant, IMAGE_SIZES[:2])
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
