"""What makes a training step cheaper without changing what it computes: kernels, memory layout, recomputation.

Everything is done in place: names in the state dict, and so weights on disk, are the same with and without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial

import torch
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import BertModel
from transformers.models.bert.modeling_bert import BertLayer

from vlp_lib.config import TrainingConfig
from vlp_lib.models.attention import AttentionBlock, FeedForwardBlock
from vlp_lib.models.cross_modality import CrossModalityEncoder, CrossModalityLayer
from vlp_lib.models.plain_attention import PlainAttention
from vlp_lib.models.vision import ResNetStream, TimmStream

_BLOCKS = (Block, BasicBlock, Bottleneck, BertLayer, CrossModalityLayer, AttentionBlock, FeedForwardBlock)
_SHAPES = 64
"""Shapes for which a block may be compiled: lengths of sentences (few, see `collate`), stages of a ResNet."""


def prepare_model(model: nn.Module, config: TrainingConfig, device: torch.device) -> None:
    """Set a model up for training on a device, as the configuration asks (checkpointing, compile)."""
    for part in model.modules():
        if isinstance(part, ResNetStream) and device.type == "cuda":
            part.to(memory_format=torch.channels_last)
        elif isinstance(part, TimmStream) and part.convolutional:
            part.to(memory_format=torch.channels_last)  # on a CPU, too: 1.3 times as fast
            if device.type == "cpu":
                _learn_depthwise_in_float32(part)
    if config.checkpointing:
        checkpoint_activations(model)
    if config.compile:
        compile_blocks(model)


def _learn_depthwise_in_float32(stream: nn.Module) -> None:
    """Take depthwise convolutions that learn out of autocast: their gradient in bf16 takes a CPU three times longer."""

    def compute(x: torch.Tensor, forward: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(x.float())

    for part in stream.modules():
        if isinstance(part, nn.Conv2d) and part.groups == part.in_channels and part.weight.requires_grad:
            part.forward = partial(compute, forward=part.forward)  # type: ignore[method-assign]


def checkpoint_activations(model: nn.Module) -> None:
    """Keep only the inputs of each block for the backward pass: of the ViT, ResNet stages, BERT and the cross layers.

    The visual loss and the heads, one small layer each, keep theirs.
    """
    for part in model.modules():
        if isinstance(part, VisionTransformer):
            part.set_grad_checkpointing()
        elif isinstance(part, BertModel):
            part.config.use_cache = False  # an encoder has none, but BERT warns
        elif isinstance(part, BertLayer):
            # What BertModel's own switch does; its name changes within the versions of transformers that we allow.
            part.gradient_checkpointing = True
            part._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)  # type: ignore[assignment]
        elif isinstance(part, ResNetStream | CrossModalityEncoder):
            part.checkpointing = True


def recomputed_blocks(model: nn.Module) -> list[nn.Module]:
    """What `checkpoint_activations` computes again, block by block."""
    blocks: list[nn.Module] = []
    for part in model.modules():
        if isinstance(part, Block | BertLayer | CrossModalityLayer):
            blocks.append(part)
        elif isinstance(part, ResNetStream):
            blocks += [getattr(part.backbone, f"layer{stage}") for stage in range(1, part.stages + 1)]
    return blocks


def compile_blocks(model: nn.Module, backend: str = "inductor") -> int:
    """Compile each repeated block in place, for the shapes that it meets; returns their number.

    Blocks of one kind share their code, so that one of them is compiled for all, and a few seconds suffice where the
    whole model would take minutes. What is not compiled – masked words of another number at each step, a visual loss's
    own computation – has no fixed shapes.
    """
    blocks = [part for part in model.modules() if isinstance(part, _BLOCKS)]
    inner = {part for block in blocks for part in block.modules() if part is not block}
    for block in blocks:
        if block not in inner:
            block.compile(dynamic=False, backend=backend)
    return sum(block not in inner for block in blocks)


@contextmanager
def training_kernels(config: TrainingConfig, device: torch.device) -> Iterator[None]:
    """The kernels of a training: on a GPU torch's choice of fused attention and TF32 for what stays in float32, on a
    CPU the plain formula of attention; room for compiled shapes. Settings of the process are put back at the end.
    """
    precision = torch.get_float32_matmul_precision()
    with ExitStack() as stack:
        if device.type != "cuda":
            stack.enter_context(PlainAttention())
        else:
            stack.callback(torch.set_float32_matmul_precision, precision)
            torch.set_float32_matmul_precision("high")
        if config.compile:
            from torch._dynamo import config as dynamo  # here and not above: it takes seconds to import

            stack.enter_context(dynamo.patch(recompile_limit=_SHAPES))
        yield


def evaluation_kernels(config: TrainingConfig) -> AbstractContextManager[object]:
    """Validation runs the plain code of compiled blocks: its few passes are not worth compiling for."""
    return torch.compiler.set_stance("force_eager") if config.compile else nullcontext()
