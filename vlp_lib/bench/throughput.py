"""Training throughput (`vlp bench train`): samples a second, where a step's time goes, memory, and the forecast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from vlp_lib.batches.texts import training_texts
from vlp_lib.batches.tokenizer import train_tokenizer
from vlp_lib.bench import budget
from vlp_lib.bench.budget import GIB, PAPER_HOURS, PAPER_PAIRS, TARGET_HOURS, TARGET_RATE, Probe, matrix_rate
from vlp_lib.bench.made_up import SIZES
from vlp_lib.bench.record import Record, Row
from vlp_lib.bench.step import PARTS, TrainingStep, start_training
from vlp_lib.clock import Stopwatch
from vlp_lib.config import ModelConfig, Profile, Variant
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.errors import UserError
from vlp_lib.provenance import peak_memory
from vlp_lib.trainers.loop import resolve_precision
from vlp_lib.trainers.pretrain import PretrainingTask, vocabularies
from vlp_lib.trainers.trained import device_at_hand

TRAIN = "train.json"

_COLUMNS = {
    "variant": "variant",
    "samples_per_second": "samples/s",
    "step_ms": "step, ms",
    **{f"{name}_ms": f"{name}, ms" for name in PARTS},
    "memory_gib": "memory, GiB",
    "estimated_gib": "doctor's estimate, GiB",
    "gflop_per_sample": "GFLOP a sample",
    "tflops": "TFLOP/s",
    "share": "share of the matrix rate",
}


def measure(task: PretrainingTask, step: TrainingStep, steps: int, warmup: int) -> tuple[dict[str, float], float]:
    """Train for some steps as `loop.fit` does, the loader included, and look at the clock.

    Returns:
        Mean seconds that a step spends on each of `PARTS`, and bytes: the most that the GPU held, or of a CPU the most
        that this process has held so far.
    """
    gpu, accumulation = step.device.type == "cuda", step.training.accumulation
    if gpu:
        torch.cuda.reset_peak_memory_stats(step.device)
    batches = task.batches(0, 0, 1)
    for _ in range(warmup):
        step(islice(batches, accumulation), accumulation)
    watch = Stopwatch(step.device)
    for _ in range(steps):
        step(islice(batches, accumulation), accumulation, watch)
    parts = {name: seconds / steps for name, seconds in watch.seconds().items()}
    return parts, torch.cuda.max_memory_allocated(step.device) if gpu else (peak_memory() or float("nan")) * GIB


def is_full_size(config: ModelConfig) -> bool:
    """Whether this is the paper's architecture at the paper's size (its pretrained weights aside)."""
    paper, own = ModelConfig(), replace(config, vit=replace(config.vit, pretrained=""))
    fields = ("image_size", "hidden", "heads", "language_layers", "cross_layers", "vit")
    return all(getattr(own, name) == getattr(paper, name) for name in fields)


def what(facts: Mapping[str, Any]) -> str:
    """What was measured, in a sentence."""
    return (
        f"# Training throughput\n\nProfile {facts['profile']} ({facts['architecture']} architecture, "
        f"{facts['image_size']} px, batch {facts['batch_size']} in {facts['accumulation']} part(s), "
        f"{facts['precision']}, compile {facts['compile']}, checkpointing {facts['checkpointing']}, "
        f"{facts['workers']} loader processes), {facts['steps']} steps; "
        f"{'embedded' if facts['synthetic'] else 'real'} images; rate of a {facts['precision']} matrix product "
        f"{facts['matrix_tflops']:,} TFLOP/s; memory: the most that the GPU held, or without one the most that this "
        f"process held so far."
    )


def forecast(rows: Sequence[Row]) -> str:
    """What follows for the paper's pretraining, in Markdown."""
    aim = f"at least {TARGET_RATE:,.0f} samples/s and at most {TARGET_HOURS:.0f} h on one H200"
    if rows[0]["forecast_hours"] is None:
        return f"A miniature: it shows that the measurement works and says nothing about the aim ({aim})."
    return "\n".join(
        [
            f"The paper's pretraining, 15 epochs of {PAPER_PAIRS:,} pairs, took {PAPER_HOURS:.0f} V100-hours; "
            f"at these rates it takes on this device ({aim}):\n\n| variant | hours | aim met |\n| --- | --- | --- |",
            *(f"| {r['variant']} | {r['forecast_hours']:,} | {'yes' if r['target_met'] else 'no'} |" for r in rows),
        ]
    )


def bench_train(
    profile: Profile, variants: tuple[Variant, ...], corpus: Corpus, steps: int, warmup: int, folder: Path
) -> list[dict[str, Any]]:
    """Measure the variants, write `folder`/train.json, .csv and .md, and return the rows.

    Where the profile names a tokenizer the model has its vocabulary and the real data sets' classes, whatever the
    corpus.

    A row: variant, samples_per_second, step_ms and its parts data_ms, forward_ms, backward_ms, optimiser_ms,
    memory_gib, estimated_gib (what `vlp doctor` says), gflop_per_sample, tflops, share (of matrix_tflops, the
    machine's best in that precision). For the paper's architecture also forecast_hours of the paper's 15 epochs of 5
    million pairs and target_met; None for others, of which neither can be said.
    """
    if steps < 1 or warmup < 1:
        raise UserError(f"steps is {steps} and warmup {warmup}: both must be at least 1")
    training, device, full_size = profile.training, device_at_hand(), is_full_size(profile.model)
    precision = resolve_precision(training.precision)
    rate = matrix_rate(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    record = Record(
        "bench-train",
        profile=profile.name,
        architecture="the paper's" if full_size else "a miniature",
        synthetic=corpus.synthetic,
        corpus=corpus.fingerprint,
        image_size=profile.model.image_size,
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        precision=precision,
        compile=training.compile,
        checkpointing=training.checkpointing,
        workers=profile.data.workers,
        steps=steps,
        matrix_tflops=round(rate / 1e12, 4),
        paper_hours=PAPER_HOURS,
        target={"samples_per_second": TARGET_RATE, "hours": TARGET_HOURS},
    )
    tokenizer = train_tokenizer(training_texts(corpus), profile.model.max_text_length)
    sizes = SIZES if profile.model.tokenizer else vocabularies(corpus, tokenizer)
    rows = []
    for variant in variants:
        probe = Probe(profile, variant, sizes, device)
        need, operations = probe.needs()[training.checkpointing], probe.operations()
        del probe
        task, step = start_training(profile, variant, corpus, tokenizer, sizes, warmup + steps)
        parts, memory = measure(task, step, steps, warmup)
        pace = training.batch_size / sum(parts.values())
        hours = budget.hours(15 * PAPER_PAIRS, pace)
        rows.append(
            {
                "variant": variant.name,
                "samples_per_second": float(f"{pace:.5g}"),
                "step_ms": round(1000 * sum(parts.values()), 2),
                **{f"{name}_ms": round(1000 * parts[name], 2) for name in PARTS},
                "memory_gib": round(memory / GIB, 3),
                "estimated_gib": round(need.total(training.batch_size // training.accumulation) / GIB, 3),
                "gflop_per_sample": round(operations / 1e9, 3),
                "tflops": round(operations * pace / 1e12, 4),
                "share": round(operations * pace / rate, 4),
                "forecast_hours": round(hours, 2) if full_size else None,
                "target_met": hours <= TARGET_HOURS and pace >= TARGET_RATE if full_size else None,
            }
        )
    record.write(folder / TRAIN, rows, device, _COLUMNS, what(record.facts), forecast(rows))
    return rows
