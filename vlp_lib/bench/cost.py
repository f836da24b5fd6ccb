"""What each visual loss costs (Table I), measured: parameters, time of a training step, visual tokens, extra data."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlp_lib import io, provenance
from vlp_lib.batches.sample import Batch
from vlp_lib.batches.tokenizer import Tokenizer
from vlp_lib.bench.latency import SIZES, parameters_at_inference, visual_tokens
from vlp_lib.config import VARIANTS, ModelConfig, Profile, Variant
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.errors import UserError
from vlp_lib.models.model import PretrainingModel, VLPModel, needs_of
from vlp_lib.trainers.efficiency import attention_kernel
from vlp_lib.trainers.loop import make_optimiser, resolve_precision, seed_everything
from vlp_lib.trainers.pretrain import PretrainingTask, make_tokenizer, require_targets, vocabularies
from vlp_lib.trainers.trained import device_at_hand

COST = "cost.json"
METHODS = ("naive_vit", "ssul", "segl", "spl_small", "spl_large")
"""Table I's rows, SPL in both sizes; the first is what the others are compared with."""

PAPER_SIZES = (384, 600)
"""Image sizes of pretraining and of finetuning."""


def parameters(variant: Variant) -> dict[str, int]:
    """Parameters at the paper's scale: of the visual loss in training, and of the whole model at inference."""
    with torch.device("meta"):
        model = VLPModel(ModelConfig(), variant, SIZES)
    extra = sum(p.numel() for p in model.visual_loss.parameters())
    return {"extra_in_training": extra, "at_inference": parameters_at_inference(model)}


def extra_data(corpus: Corpus, variant: Variant) -> tuple[str, float]:
    """What a variant learns from beside the pairs, and the share of the corpus's training images that have it."""
    needs = needs_of(ModelConfig(), variant, SIZES)
    training = corpus.split("train")
    if needs.label_maps:
        return "label maps", float(np.mean([corpus.has_label_map(record) for record in training]))
    if needs.detections:
        found = corpus.detections
        return "detector labels", float(np.mean([found is not None and r.image_id in found for r in training]))
    return "none", 0.0


class _Step:
    """A training step of one variant on a batch that is ready: forward, backward and the optimiser."""

    def __init__(
        self, profile: Profile, variant: Variant, corpus: Corpus, tokenizer: Tokenizer, device: torch.device
    ) -> None:
        training = profile.training
        part = replace(training, batch_size=training.batch_size // training.accumulation, accumulation=1)
        one_step = replace(profile, training=part)
        task = PretrainingTask(corpus, tokenizer, one_step, variant, seed=0, steps=1)
        seed_everything(0)
        # The weights' values do not change a step's time: nothing is fetched from the hub for it.
        vlp = VLPModel(profile.model, variant, vocabularies(corpus, tokenizer), pretrained=False)
        self.model = PretrainingModel(vlp).to(device).train()
        self.optimiser = make_optimiser(self.model, training)
        self.batch: Batch = next(iter(task.batches(0, 0, 1))).to(device)
        self.task, self.device = task, device
        self.bf16 = resolve_precision(training.precision) == "bf16"

    def __call__(self) -> float:
        """Seconds of one step."""
        self._wait()
        start = time.perf_counter()
        with attention_kernel(self.device):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                loss = self.task.losses(self.model, self.batch)["loss"]
            loss.backward()
            self.optimiser.step()
            self.optimiser.zero_grad()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def bench_cost(profile: Profile, corpus: Corpus, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Measure Table I, write `folder`/cost.json and return its rows.

    The training steps are those of the profile's own model and batch, the variants in turns; a variant whose targets
    the corpus lacks has no time (None) and says why. Parameters and tokens are the paper's architecture's.

    A row: variant, extra_parameters (in training), extra_parameters_at_inference, tokens (by image size), step_ms
    (median), step_ratio (to the naive model, of the fastest steps, which other work on the machine disturbs least),
    extra_data, extra_data_share.
    """
    if rounds < 1:
        raise UserError(f"rounds is {rounds}: a training step has to be measured at least once")
    begun, start = provenance.now(), time.monotonic()
    device, tokenizer = device_at_hand(), make_tokenizer(profile, corpus)
    steps: dict[str, _Step] = {}
    missing: dict[str, str] = {}
    for name in METHODS:
        try:
            needs = needs_of(profile.model, VARIANTS[name], vocabularies(corpus, tokenizer))
            require_targets(corpus, VARIANTS[name], needs)
        except UserError as error:
            missing[name] = str(error)
            continue
        steps[name] = _Step(profile, VARIANTS[name], corpus, tokenizer, device)
    for step in steps.values():
        step()
    times = {name: np.empty(rounds) for name in steps}
    names = list(steps)
    for turn in range(rounds):
        # Each round begins with another variant, so that none always has the same place.
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name][turn] = steps[name]()
    base = METHODS[0]
    counted = {name: parameters(VARIANTS[name]) for name in METHODS}
    rows = []
    for name in METHODS:
        data, share = extra_data(corpus, VARIANTS[name])
        rows.append(
            {
                "variant": name,
                "extra_parameters": counted[name]["extra_in_training"],
                "extra_parameters_at_inference": counted[name]["at_inference"] - counted[base]["at_inference"],
                "tokens": {str(size): visual_tokens(ModelConfig(), VARIANTS[name], size) for size in PAPER_SIZES},
                "step_ms": round(1000 * float(np.median(times[name])), 2) if name in times else None,
                "step_ratio": round(float(times[name].min() / times[base].min()), 4) if name in times else None,
                "extra_data": data,
                "extra_data_share": round(share, 4),
                "note": missing.get(name, ""),
            }
        )
    io.write_json(
        folder / COST,
        {
            "stage": "cost",
            "profile": profile.name,
            "synthetic": corpus.synthetic,
            "corpus": corpus.fingerprint,
            "batch_size": profile.training.batch_size // profile.training.accumulation,
            "precision": resolve_precision(profile.training.precision),
            "rounds": rounds,
            "rows": rows,
            "started": begun,
            "seconds": round(time.monotonic() - start, 1),
            **provenance.git_state(Path(__file__).parent),
            **provenance.environment(device),
        },
    )
    return rows
