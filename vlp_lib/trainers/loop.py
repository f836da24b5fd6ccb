"""The one training loop, for pretraining and finetuning alike, on whatever accelerate finds (CPU, GPU, many)."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from torch import nn

from vlp_lib.config import TrainingConfig
from vlp_lib.errors import UserError
from vlp_lib.io import read_lines, remove_temporaries, write_lines
from vlp_lib.progress import Progress
from vlp_lib.provenance import begin
from vlp_lib.trainers.checkpoint import load_state, remove_half_written, save_state, save_weights
from vlp_lib.trainers.efficiency import evaluation_kernels, prepare_model, training_kernels

METRICS, WEIGHTS, STATES = "metrics.jsonl", "model.safetensors", "checkpoints"
_GPU_CHECK = 20
"""Steps between looks at the losses on a GPU: a look at each step would make the GPU wait for the CPU."""


class OnDevice(Protocol):
    """What a batch must do for the loop."""

    def to(self, device: torch.device) -> Self:
        """A copy on another device."""


SomeBatch = TypeVar("SomeBatch", bound=OnDevice)


class Task(Protocol[SomeBatch]):
    """What is trained: where the batches come from, what the loss is, how it is judged.

    Only `losses` sees the model as several processes wrap it.
    """

    name: str

    def batches(self, start: int, rank: int, world: int) -> Iterator[SomeBatch]:
        """This process's parts of each optimiser step, from step `start` on."""

    def share_out(
        self, model: Any, parts: Sequence[SomeBatch], mean: Callable[[torch.Tensor], torch.Tensor]
    ) -> Sequence[SomeBatch]:
        """This process's parts of one step, each so weighted that the mean of their losses is the whole batch's.

        Called where a batch has several parts, with the parts on the device. `mean` averages a tensor over all
        processes. The parts as they are will do where each has as many of what the loss is a mean over.
        """
        return parts

    def losses(self, model: Any, batch: SomeBatch) -> dict[str, torch.Tensor]:
        """Scalars by name; "loss" is minimised."""

    def evaluate(self, model: Any, device: torch.device) -> dict[str, float]:
        """Validation metrics by name; `selected_by` says which one chooses the weights. Only the main process asks."""


def selected_by(metrics: Mapping[str, float]) -> float:
    """The validation loss at whose lowest value the weights are kept: without the visual loss of a pretraining.

    Words and match are what all variants share and later stages use. A visual loss whose labels are few over-fits
    before these do (docs/experiments.md).
    """
    return metrics["val_loss"] - metrics.get("val_visual", 0.0)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def learning_rate_factor(step: int, steps: int, warmup: float, decay: float = 1.0) -> float:
    """Linear warm-up over the first `warmup` share of the steps, and linear decay to 0 after the last one.

    `decay` is the share of the steps after the warm-up in which it falls; before them it is constant.
    """
    rising = max(1, round(warmup * steps))
    falling = max(1, round(decay * (steps - rising)))
    return min((step + 1) / rising, max(0.0, (steps - step) / falling), 1.0)


def steps_of_epochs(config: TrainingConfig, items: int) -> int:
    """Optimiser steps of the configuration's epochs over so many items, at least one."""
    return max(1, math.ceil(config.epochs * items / config.batch_size))


def make_optimiser(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (β of UNITER: 0.9, 0.98), one kernel a step, without weight decay on biases, normalisations and vectors.

    What the model calls pretrained (`pretrained_parameters`) has a rate of its own.
    """
    begun = {id(p) for part in model.modules() for p in getattr(part, "pretrained_parameters", list)()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in begun, parameter.ndim <= 1), []).append(parameter)
    arranged = [
        {
            "params": groups[pretrained, plain],
            "weight_decay": 0.0 if plain else config.weight_decay,
            "lr": config.learning_rate * (config.pretrained_rate if pretrained else 1.0),
        }
        for pretrained, plain in sorted(groups)
    ]
    return torch.optim.AdamW(arranged, betas=(0.9, 0.98), fused=True)


def resolve_precision(precision: Literal["auto", "bf16", "float32"]) -> Literal["bf16", "float32"]:
    """What "auto" means on this machine: bf16 where matrices of it are multiplied in hardware."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    # Emulated bf16 is slower than float32; oneDNN multiplies it in hardware with these two instruction sets. Older
    # torch versions cannot say what the processor has.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "float32"


class _LossBook:
    """Losses of the steps since the last evaluation: their means, and the watch for NaN and infinity."""

    def __init__(self, look_every: int) -> None:
        self.look_every = look_every
        self.unread: list[tuple[int, dict[str, torch.Tensor]]] = []
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, step: int, losses: dict[str, torch.Tensor]) -> None:
        self.unread.append((step, losses))
        if len(self.unread) >= self.look_every:
            self.read()

    def read(self) -> None:
        for step, losses in self.unread:
            for name, value in losses.items():
                number = float(value)
                if not math.isfinite(number):
                    raise UserError(
                        f"the loss {name!r} became {number} at step {step}: lower training.learning_rate, or look at "
                        f"the data of that step"
                    )
                self.sums[name] = self.sums.get(name, 0.0) + number
            self.count += 1
        self.unread = []

    def means(self) -> dict[str, float]:
        self.read()
        means = {f"train_{name}": total / max(self.count, 1) for name, total in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


def _scalar_writer(folder: Path) -> Any:
    """TensorBoard's writer into a run's folder; what an earlier process has written there counts no more.

    Raises UserError where TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "TensorBoard is not installed: install it with `pip install tensorboard`, or leave out --tensorboard"
        ) from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=0)


def _write_scalars(writer: Any, row: dict[str, Any]) -> None:
    """A row of metrics.jsonl for TensorBoard: val_itm becomes val/itm, and so on."""
    for name, value in row.items():
        if name not in ("step", "samples"):
            writer.add_scalar(name.replace("_", "/", 1), value, row["step"])
    writer.flush()


def fit(
    model: nn.Module,
    task: Task[SomeBatch],
    config: TrainingConfig,
    steps: int,
    seed: int,
    folder: Path,
    about: dict[str, Any],
    restart: bool = False,
    tensorboard: bool = False,
    entry: str = __name__,
) -> list[dict[str, Any]]:
    """Train `model` on `task` in the run folder `folder`, going on from its newest checkpoint if it has one.

    Writes config.json (`about` and the training configuration), metrics.jsonl (a line an evaluation), the weights of
    the lowest validation loss as model.safetensors, and states to resume from. Returns the rows of metrics.jsonl.

    With `restart` a folder that another configuration began is moved aside and a new one begun; with `tensorboard` the
    rows are written for TensorBoard, too. `entry` is the stage's module, whose code is the run's (`provenance.begin`).

    Launched as several processes (torchrun, `accelerate launch`), each computes its part of every batch, and the main
    one evaluates and writes; the batch, and so the curve, is the same whatever the number of processes and parts.

    Raises UserError for a configuration that cannot be run or (without `restart`) differs from the one that began the
    folder, and for a loss that is not finite.
    """
    AcceleratorState._reset_state()  # one process may train twice, and then in another precision
    accelerator = Accelerator(
        mixed_precision="bf16" if resolve_precision(config.precision) == "bf16" else "no",
        gradient_accumulation_steps=config.accumulation,
        cpu=not torch.cuda.is_available(),
    )
    pieces = config.accumulation * accelerator.num_processes
    if config.batch_size % pieces:
        raise UserError(
            f"training.batch_size {config.batch_size} cannot be divided into {config.accumulation} parts on "
            f"{accelerator.num_processes} processes: choose a multiple of {pieces}"
        )
    if accelerator.is_main_process:
        identity = {"training": dataclasses.asdict(config), "steps": steps, "seed": seed}
        begin(folder, about | identity, restart, entry)
        remove_temporaries(folder)
        remove_half_written(folder / STATES)
    accelerator.wait_for_everyone()
    prepare_model(model, config, accelerator.device)
    optimiser = make_optimiser(model, config)
    rates = [group["lr"] for group in optimiser.param_groups]
    wrapped, optimiser = accelerator.prepare(model, optimiser)
    if accelerator.process_index:  # the weights are there: from here on each process drops its own units
        seed_everything(seed + 2**31 + accelerator.process_index)
    state = load_state(accelerator, folder / STATES) or {"step": 0, "seconds": 0.0, "losses": ({}, 0)}
    rows = [row for row in read_lines(folder / METRICS) if row["step"] <= state["step"]]
    best = min(map(selected_by, rows), default=math.inf)
    evaluate_at = {round(steps * (i + 1) / config.evaluations) for i in range(config.evaluations)}
    save_at = {round(steps * (i + 1) / config.checkpoints) for i in range(config.checkpoints)} | {steps}
    book = _LossBook(look_every=1 if accelerator.device.type == "cpu" else _GPU_CHECK)
    book.sums, book.count = state["losses"]
    begun = time.monotonic() - state["seconds"]
    batches = task.batches(state["step"], accelerator.process_index, accelerator.num_processes)
    scalars = _scalar_writer(folder) if tensorboard and accelerator.is_main_process else None
    mean_of_processes = partial(accelerator.reduce, reduction="mean")

    def evaluate(step: int) -> None:
        nonlocal best
        trained = book.means() if step else {}
        found: list[dict[str, float]] = [{}]
        if accelerator.is_main_process:
            wrapped.eval()
            with torch.inference_mode(), accelerator.autocast(), evaluation_kernels(config):
                found = [task.evaluate(accelerator.unwrap_model(wrapped), accelerator.device)]
            wrapped.train()
        metrics = broadcast_object_list(found)[0]
        row = {"step": step, "samples": step * config.batch_size, "seconds": round(time.monotonic() - begun, 3)}
        rows.append(row | metrics | trained)
        if accelerator.is_main_process:
            # The weights first: a row of metrics.jsonl is the proof that they are there.
            if selected_by(metrics) < best:
                save_weights(folder / WEIGHTS, accelerator.unwrap_model(wrapped), about | {"step": step})
            write_lines(folder / METRICS, rows)
            if scalars:
                _write_scalars(scalars, rows[-1])
        best = min(best, selected_by(metrics))

    with ExitStack() as stack:
        progress = stack.enter_context(Progress(task.name, steps, state["step"], accelerator.is_main_process))
        stack.enter_context(training_kernels(config, accelerator.device))
        if scalars:
            stack.callback(scalars.close)
            for row in rows:
                _write_scalars(scalars, row)
        if not rows:
            evaluate(0)
        wrapped.train()
        for step in range(state["step"], steps):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * learning_rate_factor(step, steps, config.warmup, config.decay)
            parts: Sequence[SomeBatch] = [next(batches) for _ in range(config.accumulation)]
            if pieces > 1:
                moved = [part.to(accelerator.device) for part in parts]
                parts = task.share_out(accelerator.unwrap_model(wrapped), moved, mean_of_processes)
            totals: dict[str, torch.Tensor] = {}
            for part in parts:
                batch = part.to(accelerator.device)
                with accelerator.accumulate(wrapped), accelerator.autocast():
                    losses = task.losses(wrapped, batch)
                    accelerator.backward(losses["loss"])
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(wrapped.parameters(), config.clip)
                    optimiser.step()
                    optimiser.zero_grad()
                for name, value in losses.items():
                    totals[name] = totals.get(name, 0.0) + value.detach() / config.accumulation
            if accelerator.num_processes > 1:
                whole = mean_of_processes(torch.stack([value.float() for value in totals.values()]))
                totals = dict(zip(totals, whole.unbind(), strict=True))
            book.add(step + 1, totals)
            progress.step(totals["loss"])
            if step + 1 in evaluate_at:
                evaluate(step + 1)
                validated = (f"{k} {v:.4f}" for k, v in rows[-1].items() if k.startswith("val_"))
                progress.note("  ".join(validated))
            if step + 1 in save_at:
                book.read()
                save_state(
                    accelerator,
                    folder / STATES,
                    {"step": step + 1, "seconds": time.monotonic() - begun, "losses": (book.sums, book.count)},
                    config.keep,
                )
    return rows
