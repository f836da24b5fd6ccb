"""Training throughput (`vlp bench train`): samples a second, where a step's time goes, memory, and the forecast."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from vlp_lib import io, provenance
from vlp_lib.batches.sample import Batch
from vlp_lib.batches.texts import training_texts
from vlp_lib.batches.tokenizer import Tokenizer, train_tokenizer
from vlp_lib.bench import forecast
from vlp_lib.bench.budget import GIB, Probe, matrix_rate
from vlp_lib.bench.latency import SIZES
from vlp_lib.config import ModelConfig, Profile, Variant
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.errors import UserError
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.trainers.efficiency import prepare_model, training_kernels
from vlp_lib.trainers.loop import make_optimiser, resolve_precision, seed_everything
from vlp_lib.trainers.pretrain import PretrainingTask, vocabularies
from vlp_lib.trainers.trained import device_at_hand

TRAIN = "train"
VARIANTS = ("naive_vit", "segl", "spl_large")
"""No visual loss, the best one, and the one with most visual work: what the target is judged on."""

PARTS = ("data", "forward", "backward", "optimiser")


@dataclass(frozen=True)
class Throughput:
    """What was measured of a variant.

    Attributes:
        seconds: of each step, from the end of one to the end of the next.
        parts: mean seconds a step spent on each of `PARTS`; "data" is what the device waited for batches (and for the
            host).
        memory: bytes: the most that the GPU held, or of a CPU the most that this process has held so far.
    """

    steps: int
    seconds: float
    parts: dict[str, float]
    memory: float


class _Marks:
    """Moments within a step; on a GPU in its own queue, so that asking for the time does not slow it down."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[Any] = []

    def mark(self) -> None:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def intervals(self) -> list[float]:
        """Seconds between the marks; the device must have come to rest."""
        if self.device.type == "cuda":
            return [a.elapsed_time(b) / 1000 for a, b in zip(self.marks, self.marks[1:], strict=False)]
        return [b - a for a, b in zip(self.marks, self.marks[1:], strict=False)]


def measure(profile: Profile, variant: Variant, corpus: Corpus, steps: int, warmup: int) -> Throughput:
    """Train for some steps as `loop.fit` does, the loader included, and look at the clock.

    Where the profile names a tokenizer the model has its vocabulary and the real data sets' classes, whatever the
    corpus; nothing is downloaded.
    """
    training, device = profile.training, device_at_hand()
    tokenizer = _tokenizer(profile, corpus)
    task = PretrainingTask(corpus, tokenizer, profile, variant, seed=0, steps=warmup + steps)
    seed_everything(0)
    sizes = _sizes(profile, corpus, tokenizer)
    model = PretrainingModel(VLPModel(profile.model, variant, sizes, pretrained=False)).to(device).train()
    prepare_model(model, training, device)
    optimiser = make_optimiser(model, training)
    bf16 = resolve_precision(training.precision) == "bf16"
    batches = task.batches(0, 0, 1)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    measured: list[_Marks] = []
    with training_kernels(training, device):
        for step in range(warmup + steps):
            if step == warmup:
                _wait(device)
                begun = time.perf_counter()
            marks = _Marks(device)
            measured.append(marks)
            for batch in _moved(batches, training.accumulation, device):
                marks.mark()
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    loss = task.losses(model, batch)["loss"] / training.accumulation
                marks.mark()
                loss.backward()
                marks.mark()
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
            optimiser.step()
            optimiser.zero_grad()
            marks.mark()
        _wait(device)
        whole = (time.perf_counter() - begun) / steps
    sums = dict.fromkeys(PARTS[1:], 0.0)
    for marks in measured[warmup:]:
        # Of each part: forward, backward, then, up to the next part, the wait for data; at last the optimiser.
        *intervals, last = marks.intervals()
        sums["forward"] += sum(intervals[0::3]) / steps
        sums["backward"] += sum(intervals[1::3]) / steps
        sums["optimiser"] += last / steps
    memory = (
        torch.cuda.max_memory_allocated(device)
        if device.type == "cuda"
        else provenance.peak_memory(resource.RUSAGE_SELF) * GIB
    )
    return Throughput(steps, whole, {"data": max(0.0, whole - sum(sums.values())), **sums}, memory)


def _tokenizer(profile: Profile, corpus: Corpus) -> Tokenizer:
    return train_tokenizer(training_texts(corpus), profile.model.max_text_length)


def _sizes(profile: Profile, corpus: Corpus, tokenizer: Tokenizer) -> Vocabularies:
    return SIZES if profile.model.tokenizer else vocabularies(corpus, tokenizer)


def _moved(batches: Iterator[Batch], parts: int, device: torch.device) -> Iterator[Batch]:
    for _ in range(parts):
        yield next(batches).to(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def is_full_size(config: ModelConfig) -> bool:
    """Whether this is the paper's architecture at the paper's size (its pretrained weights aside)."""
    paper, own = ModelConfig(), replace(config, vit=replace(config.vit, pretrained=""))
    fields = ("image_size", "hidden", "heads", "language_layers", "cross_layers", "vit")
    return all(getattr(own, name) == getattr(paper, name) for name in fields)


def describe(facts: dict[str, Any]) -> str:
    """The measurement as Markdown: what was measured on what, the rows, and what follows for the paper."""
    columns = {
        "variant": "variant",
        "samples_per_second": "samples/s",
        "step_ms": "step, ms",
        **{f"{name}_ms": f"{name}, ms" for name in PARTS},
        "memory_gib": "memory, GiB",
        "estimated_gib": "doctor's estimate, GiB",
        "gflop_per_sample": "GFLOP a sample",
        "tflops": "TFLOP/s",
        "share": "share of the bf16 matrix rate",
    }
    rows, first = facts["rows"], facts["rows"][0]
    kind = "memory: the most the GPU held" if facts["device"] != "cpu" else "memory: the most this process held so far"
    lines = [
        "# Training throughput",
        "",
        f"Profile {facts['profile']} ({facts['architecture']} architecture, {first['image_size']} px, batch "
        f"{first['batch_size']} in {first['accumulation']} part(s), {first['precision']}, compile {first['compile']}, "
        f"checkpointing {first['checkpointing']}, {first['workers']} loader processes) on {facts['device']} with "
        f"{facts['threads']} CPU thread(s), {first['steps']} steps; {'embedded' if facts['synthetic'] else 'real'} "
        f"images; bf16 matrix rate of this machine {first['matrix_tflops']:,} TFLOP/s; {kind}.",
        "",
        f"| {' | '.join(columns.values())} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(str(row[name]) for name in columns)} |" for row in rows),
        "",
    ]
    target = facts["target"]
    aim = f"at least {target['samples_per_second']:,.0f} samples/s and at most {target['hours']:.0f} h on one H200"
    if not first["full_size"]:
        return "\n".join(
            [*lines, f"A miniature: it shows that the measurement works and says nothing about the aim ({aim}).", ""]
        )
    lines += [
        f"The paper's pretraining, 15 epochs of {forecast.PAPER_PAIRS:,} pairs, took {facts['paper_hours']:.0f} "
        f"V100-hours; at these rates it takes on this device ({aim}):",
        "",
        "| variant | hours | aim met |",
        "|---|---|---|",
        *(f"| {row['variant']} | {row['forecast_hours']:,} | {'yes' if row['target_met'] else 'no'} |" for row in rows),
        "",
    ]
    return "\n".join(lines)


def bench_train(
    profile: Profile, variants: tuple[Variant, ...], corpus: Corpus, steps: int, warmup: int, folder: Path
) -> list[dict[str, Any]]:
    """Measure the variants, write `folder`/train.json, .csv and .md, and return the rows.

    A row: variant, full_size, image_size, batch_size, accumulation, precision, compile, checkpointing, workers, steps,
    samples_per_second, step_ms and its parts data_ms, forward_ms, backward_ms, optimiser_ms, memory_gib,
    estimated_gib (what `vlp doctor` says), gflop_per_sample, tflops, matrix_tflops (the machine's best), share. For the
    paper's architecture also forecast_hours of the paper's 15 epochs of 5 million pairs and target_met; None for
    others, of which neither can be said.
    """
    if steps < 1 or warmup < 1:
        raise UserError(f"steps is {steps} and warmup {warmup}: both must be at least 1")
    begun, start = provenance.now(), time.monotonic()
    training, device = profile.training, device_at_hand()
    precision = resolve_precision(training.precision)
    rate = matrix_rate(device, torch.bfloat16)
    full_size = is_full_size(profile.model)
    share = training.batch_size // training.accumulation
    sizes = _sizes(profile, corpus, _tokenizer(profile, corpus))
    rows = []
    for variant in variants:
        probe = Probe(profile, variant, sizes, device)
        needs, operations = probe.needs(), probe.operations()
        del probe
        found = measure(profile, variant, corpus, steps, warmup)
        pace = training.batch_size / found.seconds
        hours = forecast.hours(round(15 * forecast.PAPER_PAIRS), pace)
        rows.append(
            {
                "variant": variant.name,
                "full_size": full_size,
                "image_size": profile.model.image_size,
                "batch_size": training.batch_size,
                "accumulation": training.accumulation,
                "precision": precision,
                "compile": training.compile,
                "checkpointing": training.checkpointing,
                "workers": profile.data.workers,
                "steps": steps,
                "samples_per_second": round(pace, 2),
                "step_ms": round(1000 * found.seconds, 2),
                **{f"{name}_ms": round(1000 * found.parts[name], 2) for name in PARTS},
                "memory_gib": round(found.memory / GIB, 3),
                "estimated_gib": round(needs[training.checkpointing].total(share) / GIB, 3),
                "gflop_per_sample": round(operations / 1e9, 3),
                "tflops": round(operations * pace / 1e12, 4),
                "matrix_tflops": round(rate / 1e12, 4),
                "share": round(operations * pace / rate, 4),
                "forecast_hours": round(hours, 2) if full_size else None,
                "target_met": hours <= forecast.TARGET_HOURS and pace >= forecast.TARGET_RATE if full_size else None,
            }
        )
    facts = {
        "stage": "bench-train",
        "profile": profile.name,
        "architecture": "the paper's" if full_size else "miniature",
        "synthetic": corpus.synthetic,
        "corpus": corpus.fingerprint,
        "paper_hours": forecast.paper_hours(),
        "target": {"samples_per_second": forecast.TARGET_RATE, "hours": forecast.TARGET_HOURS},
        "rows": rows,
        "started": begun,
        "seconds": round(time.monotonic() - start, 1),
        **provenance.git_state(Path(__file__).parent),
        **provenance.environment(device),
    }
    io.write_json(folder / f"{TRAIN}.json", facts)
    io.write_text(folder / f"{TRAIN}.csv", pd.DataFrame(rows).to_csv(index=False))
    io.write_text(folder / f"{TRAIN}.md", describe(facts))
    return rows
