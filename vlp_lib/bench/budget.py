"""What a training will need, known before it starts: memory by what it is for, operations, and the device's rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from vlp_lib.batches.sample import Batch
from vlp_lib.bench.probe import probe_batch, probe_model
from vlp_lib.config import Profile, Variant
from vlp_lib.models.attention import Attention
from vlp_lib.models.model import PretrainingModel
from vlp_lib.models.plain_attention import PlainAttention
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.trainers.efficiency import checkpoint_activations, recomputed_blocks, training_kernels
from vlp_lib.trainers.loop import make_optimiser, resolve_precision

GIB = 2**30
RESERVE = 0.1
"""Share of a GPU's memory left to its context, to kernels' workspaces and to gaps: a rule of thumb, not measured."""


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


@dataclass(frozen=True)
class Plan:
    """How a batch is computed: in `accumulation` parts, with or without checkpointing, in `bytes` a process."""

    accumulation: int
    checkpointing: bool
    bytes: int


@dataclass(frozen=True)
class Saved:
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

    def enter(block: nn.Module, _: Any) -> None:
        running.append(block)

    def leave(_: nn.Module, __: Any, ___: Any) -> None:
        running.pop()

    with _without_dropout(model) as dropouts:
        handles = [part.register_forward_hook(count) for part in dropouts]
        for block in recomputed_blocks(model):
            handles += [block.register_forward_pre_hook(enter), block.register_forward_hook(leave)]
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = forward()
        for handle in handles:
            handle.remove()
    del loss
    blocks = (sum(sizes[address] for address in addresses) for addresses in of_block.values())
    return Saved(sum(sizes.values()) + masks, max(blocks, default=0))


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[list[nn.Dropout]]:
    """Dropout set to 0 for a while; gives the modules that drop something otherwise.

    On a CPU, dropout inside of the attention would bring the plain kernel, which keeps a map that GPUs never do.
    """
    active = [part for part in model.modules() if isinstance(part, nn.Dropout) and part.p > 0]
    attentions = [part for part in model.modules() if isinstance(part, Attention)]
    before = [part.p for part in active], [part.dropout for part in attentions]
    for part in active:
        part.p = 0.0
    for attention in attentions:
        attention.dropout = 0.0
    try:
        yield active
    finally:
        for part, p in zip(active, before[0], strict=True):
            part.p = p
        for attention, p in zip(attentions, before[1], strict=True):
            attention.dropout = p


def optimiser_bytes(model: nn.Module) -> int:
    """AdamW's two moments of each trained weight, float32, and its step counters."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return sum(2 * p.numel() * p.element_size() + 4 for p in trained)


class Probe:
    """A variant of a profile, ready to be measured on a device."""

    def __init__(self, profile: Profile, variant: Variant, sizes: Vocabularies, device: torch.device) -> None:
        self.profile, self.variant, self.sizes, self.device = profile, variant, sizes, device
        self.model = probe_model(profile.model, variant, sizes, device)
        self.bf16 = resolve_precision(profile.training.precision) == "bf16"

    @property
    def parameters(self) -> int:
        """Numbers in the model."""
        return sum(p.numel() for p in self.model.parameters())

    def loss(self, model: PretrainingModel, batch: Batch) -> torch.Tensor:
        """A forward pass as in training."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            found: torch.Tensor = model(model.vlp.visual_loss.corrupt(batch))["loss"]
            return found

    def batch(self, images: int) -> Batch:
        """A batch of so many images."""
        return probe_batch(self.profile, self.variant, self.sizes, images, self.device)

    def saved(self, model: PretrainingModel, images: int) -> Saved:
        """What a forward pass of so many images keeps."""
        batch = self.batch(images)
        return saved_for_backward(lambda: self.loss(model, batch), model)

    def needs(self) -> tuple[Need, Need]:
        """What training needs, without and with checkpointing.

        Forward passes of one and of two images are measured: what they differ in is an image's, the rest is fixed.
        With checkpointing the block that keeps most is there once more, while its part of the backward pass is run.
        """
        plain = [self.saved(self.model, images) for images in (1, 2)]
        thrifty = probe_model(self.profile.model, self.variant, self.sizes, self.device)
        checkpoint_activations(thrifty)
        inputs = [self.saved(thrifty, images) for images in (1, 2)]
        again = [few.total + all_.largest_block for few, all_ in zip(inputs, plain, strict=True)]
        return self._need(*(one.total for one in plain)), self._need(*again)

    def _need(self, one: int, two: int) -> Need:
        weights = sum(p.numel() * p.element_size() for p in self.model.parameters())
        trained = sum(p.numel() * p.element_size() for p in self.model.parameters() if p.requires_grad)
        return Need(weights, trained, optimiser_bytes(self.model), max(0, 2 * one - two), two - one)

    def operations(self, images: int = 1) -> int:
        """Floating-point operations of the matrix products of an image's forward and backward pass (×2 for a + b·c).

        What checkpointing computes again is not among them: it is no progress.
        """
        batch = self.batch(images)
        # The plain attention consists of matrix products that the counter knows on every device.
        with FlopCounterMode(display=False) as counter, PlainAttention():
            self.loss(self.model, batch).backward()
        self.model.zero_grad(set_to_none=True)
        return counter.get_total_flops() // images

    def step_seconds(self, images: int, steps: int) -> float:
        """Seconds of the fastest of some whole training steps (forward, backward, optimiser) of so many images."""
        optimiser = make_optimiser(self.model, self.profile.training)
        batch, best = self.batch(images), float("inf")
        plain = replace(self.profile.training, compile=False)
        with training_kernels(plain, self.device):
            for _ in range(steps):
                begun = _now(self.device)
                self.loss(self.model, batch).backward()
                optimiser.step()
                optimiser.zero_grad()
                best = min(best, _now(self.device) - begun)
        return best


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Operations a second of the device's best product of two square matrices, measured for about so long."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    a @ b
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        begun = _now(device)
        a @ b
        best = min(best, _now(device) - begun)
        if time.perf_counter() > end:
            return 2 * size**3 / best


def plan(plain: Need, checkpointed: Need, images: int, processes: int, memory: float) -> Plan | None:
    """The fewest parts in which a batch of so many images fits into `memory` bytes a process; None where none does.

    Parts cost nothing as long as they keep the device busy, checkpointing costs a third forward pass: it is chosen
    only where not even single images fit without it.
    """
    usable = (1 - RESERVE) * memory
    share = images // processes
    for need, checkpointing in ((plain, False), (checkpointed, True)):
        for parts in (n for n in range(1, share + 1) if share % n == 0):
            total = need.total(share // parts, processes)
            if total <= usable:
                return Plan(parts, checkpointing, total)
    return None
