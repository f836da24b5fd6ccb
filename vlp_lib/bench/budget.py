"""What a pretraining will need, known before it starts: memory, operations, rates and hours."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from vlp_lib import paper
from vlp_lib.batches.sample import Batch
from vlp_lib.bench.architecture import count
from vlp_lib.bench.made_up import SIZES, fill, shape_of, training_batch
from vlp_lib.bench.step import TrainingStep
from vlp_lib.clock import take_turns, timed
from vlp_lib.config import Profile, TrainingConfig
from vlp_lib.errors import UserError
from vlp_lib.models.model import PretrainingModel
from vlp_lib.models.plain_attention import PlainAttention
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.trainers.efficiency import checkpoint_activations, prepare_model, recomputed_blocks
from vlp_lib.trainers.loop import resolve_precision
from vlp_lib.trainers.trained import device_at_hand
from vlp_lib.variants import Variant

GIB = 2**30
RESERVE = 0.1
"""Share of a GPU's memory left to its context, kernels' workspaces, masks of dropout and gaps: a rule of thumb."""

PAPER_PAIRS = 5_000_000
"""Image–sentence pairs of the paper's pretraining (section IV-A2)."""

TARGET_RATE = 1_750.0
"""Samples a second that are aimed at on one H200: 15 epochs of the pairs in 11.9 h."""


_PATIENCE = 30.0
"""Seconds within which a CPU has to compute a step for it to be tried whole."""


def hours(count: int, per_second: float) -> float:
    """Hours of one GPU for so many samples."""
    return count / per_second / 3600


class Need(NamedTuple):
    """Bytes that a training holds at the start of a backward pass, when it holds most.

    `trained` is what is trained of the weights; `fixed` and `per_image` (of an image with its sentences) are what is
    saved for the backward pass.
    """

    weights: int
    trained: int
    fixed: int
    per_image: int

    def total(self, images: int, processes: int = 1) -> int:
        """Of one process that computes so many images at once.

        AdamW keeps two moments beside the gradients; several processes exchange copies of these.
        """
        copies = 3 if processes == 1 else 4
        return self.weights + copies * self.trained + self.fixed + images * self.per_image


def saved_for_backward(forward: Callable[[], torch.Tensor], model: nn.Module) -> tuple[int, int]:
    """Run a forward pass and count what autograd keeps of it, beside the model's own weights and buffers.

    Returns the bytes of all, each memory once, and of the block that keeps most.
    """
    seen: dict[int, object] = {t.untyped_storage().data_ptr(): t for t in (*model.parameters(), *model.buffers())}
    of_blocks, running = Counter[nn.Module](), [model]

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen[storage.data_ptr()] = storage  # as long as it lives, no other has its address
            of_blocks[running[-1]] += storage.nbytes()
        return tensor

    handles = []
    for block in recomputed_blocks(model):
        handles.append(block.register_forward_pre_hook(lambda part, _: running.append(part)))
        handles.append(block.register_forward_hook(lambda *_: running.pop() and None))
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    for handle in handles:
        handle.remove()
    del loss
    return of_blocks.total(), max((size for part, size in of_blocks.items() if part is not model), default=0)


def _operations_of_gradients(grad: torch.Size, x: torch.Size, weight: torch.Size, *rest: Any, **_: Any) -> int:
    wanted = rest[7]  # gradients of x, weight and bias
    return 2 * grad.numel() * weight[1:].numel() * sum(wanted[:2])


CONVOLUTIONS: dict[Any, Any] = {torch.ops.aten.convolution_backward: _operations_of_gradients}
"""Operations of a convolution's gradients for torch's counter, which takes a grouped convolution's for a full one's."""


class Probe:
    """A variant of a profile at its full size with made-up contents, ready to be measured on a device.

    It drops nothing out: on a CPU that would bring a kernel of the attention which keeps a map that GPUs never do.
    """

    def __init__(self, profile: Profile, variant: Variant, sizes: Vocabularies, device: torch.device) -> None:
        self.profile, self.variant, self.sizes, self.device = profile, variant, sizes, device
        vlp = shape_of(replace(profile.model, dropout=0.0), variant, sizes)
        with torch.device("meta"):
            model = PretrainingModel(vlp)
        self.model = fill(model, device).train()
        prepare_model(self.model, replace(profile.training, checkpointing=False, compile=False), device)
        self.bf16 = resolve_precision(profile.training.precision) == "bf16"

    def batch(self, images: int) -> Batch:
        """A batch of so many images."""
        return training_batch(self.profile, self.variant, self.sizes, images, self.device)

    def loss(self, model: PretrainingModel, batch: Batch) -> torch.Tensor:
        """A forward pass as in training."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss: torch.Tensor = model(model.vlp.visual_loss.corrupt(model.vlp.vision.cut(batch)))["loss"]
        return loss

    def saved(self, model: PretrainingModel, images: int) -> tuple[int, int]:
        """What a forward pass of so many images keeps, see `saved_for_backward`."""
        batch = self.batch(images)
        return saved_for_backward(lambda: self.loss(model, batch), model)

    def needs(self) -> tuple[Need, Need]:
        """What training needs, without and with checkpointing.

        Forward passes of one and of two images are measured: what they differ in is an image's, the rest is fixed.
        With checkpointing the block that keeps most is there once more, while its part of the backward pass is run.
        """
        thrifty = copy.deepcopy(self.model)
        checkpoint_activations(thrifty)
        (one, block), (two, block_of_two) = (self.saved(self.model, images) for images in (1, 2))
        less, less_of_two = self.saved(thrifty, 1)[0] + block, self.saved(thrifty, 2)[0] + block_of_two
        weights = sum(p.nbytes for p in self.model.parameters())
        trained = sum(p.nbytes for p in self.model.parameters() if p.requires_grad)
        plain = Need(weights, trained, max(0, 2 * one - two), two - one)
        return plain, Need(weights, trained, max(0, 2 * less - less_of_two), less_of_two - less)

    def operations(self) -> int:
        """Floating-point operations of the matrix products of an image's forward and backward pass (×2 for a + b·c).

        What checkpointing computes again is not among them: it is no progress.
        """
        # The plain attention consists of matrix products that the counter knows on every device.
        with FlopCounterMode(display=False, custom_mapping=CONVOLUTIONS) as counter, PlainAttention():
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

    Returns the parts, whether with checkpointing, and the bytes that a process then takes. Parts
    cost nothing as long as they keep the device busy; checkpointing, which costs a third forward pass, is chosen only
    where not even single images fit without it.
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
    """What a pretraining will need."""

    parameters: int  # numbers in the model
    processes: int  # GPUs
    plain: Need
    checkpointed: Need
    memory: float  # bytes of each GPU (or of the machine) that it has to fit into
    operations: int  # of an image with its sentences, forward and backward
    rate: float  # operations a second of the device's best matrix product
    pace: float  # samples a second of one device, of a whole step that was measured
    samples: int  # images with their sentences that the whole pretraining computes


def estimate(profile: Profile, variant: Variant, pairs: int, processes: int, memory: float | None) -> Budget:
    """Measure what a pretraining needs with a probe of its full size on the device at hand.

    Its vocabularies are the real data sets' (BERT's words among them), which the embedded corpus's are not larger than.
    `pairs` are the corpus's; `processes` are GPUs with `memory` bytes each, None those of the device at hand (of the
    machine where that is no GPU).

    Raises UserError where the batch cannot be shared out to so many processes.
    """
    training, device = profile.training, device_at_hand()
    if processes < 1 or training.batch_size % (processes * training.accumulation):
        raise UserError(
            f"training.batch_size {training.batch_size} cannot be shared out to {processes} GPUs in "
            f"{training.accumulation} parts: choose divisors"
        )
    gpu = device.type == "cuda"
    if memory is None and gpu:
        memory = torch.cuda.get_device_properties(device).total_memory
    elif memory is None:
        if not hasattr(os, "sysconf"):
            raise UserError("this system does not say how much memory it has: give it with --gpu-memory GIB")
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    probe = Probe(profile, variant, SIZES, device)
    plain, checkpointed = probe.needs()
    share = training.batch_size // processes // training.accumulation
    pace = 0.0 if gpu else 2 / probe.step_seconds(2, 1)
    if gpu or share / pace < _PATIENCE:  # so few images pay too much for what a step costs anyway, such as AdamW
        images = min(32, share)
        pace = images / probe.step_seconds(images, 4 if gpu else 1)
    return Budget(
        parameters=count(probe.model),
        processes=processes,
        plain=plain,
        checkpointed=checkpointed,
        memory=memory,
        operations=probe.operations(),
        rate=matrix_rate(device, torch.bfloat16 if probe.bf16 else torch.float32),
        pace=pace,
        samples=training.steps * training.batch_size if training.steps else round(training.epochs * pairs),
    )


def _advice(needed: Budget, training: TrainingConfig) -> str:
    """What to set so that it fits, in one line."""
    memory = f"{needed.memory / GIB:.0f} GiB"
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
        weights, trained, fixed, each = (size / GIB for size in need)
        return (
            f"  {name:<21} {need.total(share, processes) / GIB:8.1f} GiB  = weights {weights:.2f} + gradients "
            f"{trained:.2f} + AdamW {2 * trained:.2f} + activations {fixed:.2f} + {share} × {each:.4f}"
        )

    def pace(name: str, rate: float) -> str:
        took = hours(needed.samples, rate)
        shown = f"{took:12,.1f} h" if took >= 1 else f"{60 * took:12,.1f} min"
        return f"  {name:<21} {rate:10,.1f} samples/s  {shown}"

    return f"""\
{profile.name}, {variant.name}: {needed.parameters / 1e6:,.1f} million parameters, {profile.model.image_size} px, \
{training.batch_size} images a step on {processes} process(es), in {training.accumulation} part(s)
memory a process at {share} images (activations measured on this device):
{memory("as it is", needed.plain)}
{memory("with checkpointing", needed.checkpointed)}
  {_advice(needed, training)}
time for {needed.samples:,} samples of {needed.operations / 1e9:,.1f} GFLOP each, sentences as long as they may be, \
on {processes} × this device ({needed.rate / 1e12:,.2f} TFLOP/s in matrix products):
{pace("at that rate", best)}
{pace(f"at {measured / best:.0%} of it, measured", measured)}
the aim, {TARGET_RATE:,.0f} samples/s on one GPU, takes {TARGET_RATE * needed.operations / 1e12:,.1f} TFLOP/s; \
the paper's own pretraining took {paper.value("IV", "segl", "pretrain_gpu_hours"):.0f} V100-hours"""
