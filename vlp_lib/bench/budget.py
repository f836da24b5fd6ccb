"""What a pretraining will need, known before it starts: memory by what it is for, operations, rates and hours."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from vlp_lib import paper
from vlp_lib.batches.sample import Batch
from vlp_lib.bench.made_up import SIZES, fill, training_batch
from vlp_lib.bench.step import TrainingStep
from vlp_lib.clock import take_turns, timed
from vlp_lib.config import Profile, Variant
from vlp_lib.errors import UserError
from vlp_lib.models.attention import Attention
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.models.plain_attention import PlainAttention
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.trainers.efficiency import checkpoint_activations, recomputed_blocks
from vlp_lib.trainers.loop import resolve_precision
from vlp_lib.trainers.trained import device_at_hand

GIB = 2**30
RESERVE = 0.1
"""Share of a GPU's memory left to its context, to kernels' workspaces and to gaps: a rule of thumb, not measured."""

PAPER_PAIRS = 5_000_000
"""Image–sentence pairs of the paper's pretraining (section IV-A2)."""

PAPER_HOURS = cast(float, paper.value("IV", "segl", "pretrain_gpu_hours"))
"""V100-hours of the paper's pretraining with SEGL (Table IV)."""

TARGET_RATE = 1_750.0
"""Samples a second that are aimed at on one H200: 15 epochs of the pairs in 11.9 h."""


def samples(profile: Profile, pairs: int) -> int:
    """Images with their own sentences (and, as `data.pairing` says, another's) that a whole pretraining computes."""
    training = profile.training
    return training.steps * training.batch_size if training.steps else round(training.epochs * pairs)


def hours(count: int, per_second: float) -> float:
    """Hours of one GPU for so many samples."""
    return count / per_second / 3600


@dataclass(frozen=True)
class Need:
    """Bytes that a training holds at the start of a backward pass, when it holds most.

    Attributes:
        parameters, gradients, optimiser: of the weights (float32), whatever the batch.
        fixed: saved for the backward pass whatever the batch (weights in bf16).
        per_image: saved for the backward pass for each image with its sentences.
    """

    parameters: int
    gradients: int
    optimiser: int
    fixed: int
    per_image: int

    def total(self, images: int, processes: int = 1) -> int:
        """Of one process that computes so many images at once; several processes exchange copies of the gradients."""
        copies = self.gradients if processes > 1 else 0
        return self.parameters + self.gradients + copies + self.optimiser + self.fixed + images * self.per_image


class Saved(NamedTuple):
    """Bytes that a forward pass keeps for the backward pass: of all, and of the block that keeps most."""

    total: int
    largest_block: int


def saved_for_backward(forward: Callable[[], torch.Tensor], model: nn.Module) -> Saved:
    """Run a forward pass and count what autograd keeps of it, beside the model's own weights and buffers.

    Memory that several operations keep counts once. The mask of each active nn.Dropout counts a byte an element, as
    GPUs keep it, whatever the device at hand does.
    """
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}
    kept: list[torch.Tensor] = []  # as long as they live, no other tensor has their address
    running: list[nn.Module] = []
    of_block: dict[nn.Module, set[int]] = {}
    masks = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
            if running:
                of_block.setdefault(running[-1], set()).add(storage.data_ptr())
        return tensor

    def count(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        nonlocal masks
        masks += output.numel()

    with _without_dropout(model) as dropouts:
        handles = [part.register_forward_hook(count) for part in dropouts]
        for block in recomputed_blocks(model):
            handles.append(block.register_forward_pre_hook(lambda part, _: running.append(part)))
            handles.append(block.register_forward_hook(lambda *_: running.pop() and None))
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = forward()
        for handle in handles:
            handle.remove()
    del loss
    blocks = (sum(sizes[address] for address in addresses) for addresses in of_block.values())
    return Saved(sum(sizes.values()) + masks, max(blocks, default=0))


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[list[nn.Module]]:
    """Dropout set to 0 for a while; gives the nn.Dropout modules that drop something otherwise.

    On a CPU, dropout inside of the attention would bring the plain kernel, which keeps a map that GPUs never do.
    """
    names = {nn.Dropout: "p", Attention: "dropout"}
    rates = [(part, name, getattr(part, name)) for part in model.modules() if (name := names.get(type(part), ""))]
    for part, name, _ in rates:
        setattr(part, name, 0.0)
    try:
        yield [part for part, name, rate in rates if name == "p" and rate > 0]
    finally:
        for part, name, rate in rates:
            setattr(part, name, rate)


class Probe:
    """A variant of a profile at its full size with made-up contents, ready to be measured on a device."""

    def __init__(self, profile: Profile, variant: Variant, sizes: Vocabularies, device: torch.device) -> None:
        self.profile, self.variant, self.sizes, self.device = profile, variant, sizes, device
        self.model = self.build()
        self.bf16 = resolve_precision(profile.training.precision) == "bf16"

    def build(self) -> PretrainingModel:
        """The variant's model in training mode."""
        with torch.device("meta"):
            model = PretrainingModel(VLPModel(self.profile.model, self.variant, self.sizes, pretrained=False))
        return fill(model, self.device).train()

    def batch(self, images: int) -> Batch:
        """A batch of so many images."""
        return training_batch(self.profile, self.variant, self.sizes, images, self.device)

    def loss(self, model: PretrainingModel, batch: Batch) -> torch.Tensor:
        """A forward pass as in training."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss: torch.Tensor = model(model.vlp.visual_loss.corrupt(model.vlp.vision.cut(batch)))["loss"]
            return loss

    def saved(self, model: PretrainingModel, images: int) -> Saved:
        """What a forward pass of so many images keeps."""
        batch = self.batch(images)
        return saved_for_backward(lambda: self.loss(model, batch), model)

    def needs(self) -> tuple[Need, Need]:
        """What training needs, without and with checkpointing.

        Forward passes of one and of two images are measured: what they differ in is an image's, the rest is fixed.
        With checkpointing the block that keeps most is there once more, while its part of the backward pass is run.
        """
        thrifty = self.build()
        checkpoint_activations(thrifty)
        plain = [self.saved(self.model, images) for images in (1, 2)]
        again = [self.saved(thrifty, n).total + saved.largest_block for n, saved in enumerate(plain, 1)]
        weights = list(self.model.parameters())
        trained = [p for p in weights if p.requires_grad]

        def need(one: int, two: int) -> Need:
            return Need(
                parameters=sum(p.nbytes for p in weights),
                gradients=sum(p.nbytes for p in trained),
                # AdamW keeps two moments of each trained weight, float32, and a step counter.
                optimiser=sum(2 * p.nbytes + 4 for p in trained),
                fixed=max(0, 2 * one - two),
                per_image=two - one,
            )

        return need(*(saved.total for saved in plain)), need(*again)

    def operations(self) -> int:
        """Floating-point operations of the matrix products of an image's forward and backward pass (×2 for a + b·c).

        What checkpointing computes again is not among them: it is no progress.
        """
        # The plain attention consists of matrix products that the counter knows on every device.
        with FlopCounterMode(display=False) as counter, PlainAttention():
            self.loss(self.model, self.batch(1)).backward()
        self.model.zero_grad(set_to_none=True)
        return counter.get_total_flops()

    def step_seconds(self, images: int, runs: int) -> float:
        """Seconds of the fastest of some whole training steps (forward, backward, optimiser) of so many images."""
        step, batch = TrainingStep(self.model, self.loss, self.profile.training, self.device), self.batch(images)
        return float(take_turns({"step": timed(lambda: step([batch]), self.device)}, runs)["step"].min())


def matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Operations a second of the device's best product of two square matrices, measured for about so long."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times = take_turns({"product": timed(lambda: a @ b, device)}, runs=10_000, warmup=2, seconds=seconds)
    return float(2 * size**3 / times["product"].min())


def plan(plain: Need, checkpointed: Need, images: int, processes: int, memory: float) -> tuple[int, bool, int] | None:
    """The fewest parts in which a batch of so many images fits into `memory` bytes a process; None where none does.

    Returns the parts, whether with checkpointing, and the bytes that a process then takes.

    Parts cost nothing as long as they keep the device busy, checkpointing costs a third forward pass: it is chosen
    only where not even single images fit without it.
    """
    share = images // processes
    for need, checkpointing in ((plain, False), (checkpointed, True)):
        for parts in (n for n in range(1, share + 1) if share % n == 0):
            total = need.total(share // parts, processes)
            if total <= (1 - RESERVE) * memory:
                return parts, checkpointing, total
    return None


@dataclass(frozen=True)
class Budget:
    """What a pretraining will need.

    Attributes:
        parameters: numbers in the model.
        processes: GPUs.
        plain, checkpointed: memory without and with checkpointing.
        memory: bytes of each GPU (or of the machine) that it has to fit into.
        operations: of an image with its sentences, forward and backward.
        rate: operations a second of the device's best matrix product.
        pace: samples a second of one device, of a whole step that was measured.
        samples: of the whole pretraining.
    """

    parameters: int
    processes: int
    plain: Need
    checkpointed: Need
    memory: float
    operations: int
    rate: float
    pace: float
    samples: int


def estimate(profile: Profile, variant: Variant, pairs: int, processes: int, memory: float | None) -> Budget:
    """Measure what a pretraining needs with a probe of its full size on the device at hand.

    Its vocabularies are the real data sets' (BERT's words among them), which the embedded corpus's are not larger than.

    Args:
        pairs: image–sentence pairs of the corpus.
        processes: GPUs.
        memory: bytes of each; None takes the GPU's at hand, or the machine's where there is none.

    Raises UserError where the batch cannot be shared out to so many processes.
    """
    training, device = profile.training, device_at_hand()
    if processes < 1 or training.batch_size % processes:
        raise UserError(
            f"training.batch_size {training.batch_size} cannot be shared out to {processes} GPUs: choose a divisor"
        )
    gpu = device.type == "cuda"
    if memory is None and gpu:
        memory = torch.cuda.get_device_properties(device).total_memory
    elif memory is None and not hasattr(os, "sysconf"):
        raise UserError("this system does not say how much memory it has: give it with --gpu-memory GIB")
    elif memory is None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    probe = Probe(profile, variant, SIZES, device)
    plain, checkpointed = probe.needs()
    operations = probe.operations()
    images = min(32, training.batch_size // processes) if gpu else 2
    return Budget(
        parameters=sum(p.numel() for p in probe.model.parameters()),
        processes=processes,
        plain=plain,
        checkpointed=checkpointed,
        memory=memory,
        operations=operations,
        rate=matrix_rate(device, torch.bfloat16 if probe.bf16 else torch.float32),
        pace=images / probe.step_seconds(images, 4 if gpu else 1),
        samples=samples(profile, pairs),
    )


def advice(needed: Budget, profile: Profile) -> str:
    """What to set so that it fits, in one line."""
    training, memory = profile.training, f"{needed.memory / GIB:.0f} GiB"
    asked = training.batch_size // needed.processes // training.accumulation
    need = needed.checkpointed if training.checkpointing else needed.plain
    if need.total(asked, needed.processes) <= (1 - RESERVE) * needed.memory:
        return f"fits into {memory} as it is"
    fitting = plan(needed.plain, needed.checkpointed, training.batch_size, needed.processes, needed.memory)
    if fitting is None:
        return f"does not fit into {memory}: take a GPU with more memory, or a smaller model"
    parts, checkpointing, total = fitting
    settings = f"--set training.accumulation={parts}" + " --set training.checkpointing=true" * checkpointing
    return f"does not fit into {memory} as it is; with {settings} it takes {total / GIB:.1f} GiB"


def report(needed: Budget, profile: Profile, variant: Variant) -> str:
    """The estimate, to be read."""
    training, processes = profile.training, needed.processes
    share = training.batch_size // processes // training.accumulation
    best, measured = processes * needed.rate / needed.operations, processes * needed.pace

    def memory(name: str, need: Need) -> str:
        return (
            f"  {name:<21} {need.total(share, processes) / GIB:8.1f} GiB  = weights "
            f"{need.parameters / GIB:.2f} + gradients {need.gradients / GIB:.2f} + AdamW {need.optimiser / GIB:.2f} + "
            f"activations {need.fixed / GIB:.2f} + {share} × {need.per_image / GIB:.4f}"
        )

    def pace(name: str, rate: float) -> str:
        took = hours(needed.samples, rate)
        shown = f"{took:12,.1f} h" if took >= 1 else f"{60 * took:12,.1f} min"
        return f"  {name:<21} {rate:10,.1f} samples/s  {shown}"

    return "\n".join(
        (
            f"{profile.name}, {variant.name}: {needed.parameters / 1e6:,.1f} million parameters, "
            f"{profile.model.image_size} px, {training.batch_size} images a step on {processes} process(es), in "
            f"{training.accumulation} part(s)",
            f"memory a process at {share} images (activations measured on this device):",
            memory("as it is", needed.plain),
            memory("with checkpointing", needed.checkpointed),
            f"  {advice(needed, profile)}",
            f"time for {needed.samples:,} samples of {needed.operations / 1e9:,.1f} GFLOP each, on {processes} × "
            f"this device ({needed.rate / 1e12:,.2f} TFLOP/s in matrix products):",
            pace("at that rate", best),
            pace(f"at {measured / best:.0%} of it, measured", measured),
            f"the aim, {TARGET_RATE:,.0f} samples/s on one GPU, takes "
            f"{TARGET_RATE * needed.operations / 1e12:,.1f} TFLOP/s; the paper's own pretraining took "
            f"{PAPER_HOURS:.0f} V100-hours",
        )
    )
