"""The finetuning heads (section IV-B): a classifier on the [CLS] features of an item's image–sentence pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from vlp_lib.losses.precision import at_least_float32
from vlp_lib.models.model import VLPModel, initialise
from vlp_lib.tasks.common import TaskBatch


class TaskHead(nn.Module):
    """A two-layer MLP, as LXMERT's, on the concatenated [CLS] features of an item's pairs.

    VQA (one pair) reads one feature, NLVR2 two, in the order of the pictures, VCR four, in the order of the candidates.
    """

    def __init__(self, hidden: int, pairs: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(pairs * hidden, 2 * hidden),
            nn.GELU(),
            nn.LayerNorm(2 * hidden, eps=1e-12),
            nn.Linear(2 * hidden, classes),
        )

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """[B, pairs · C] to logits [B, classes]."""
        return self.layers(pooled)


class DownstreamModel(nn.Module):
    """The pretrained model with a task's head.

    Each picture and each text is encoded once, however many pairs it is in; the pairs of the whole batch go through
    the cross-modality encoder in one pass.
    """

    def __init__(self, vlp: VLPModel, pairs: int, classes: int) -> None:
        super().__init__()
        self.vlp = vlp
        self.pairs = pairs
        self.head = TaskHead(vlp.config.hidden, pairs, classes)
        initialise(self.head, vlp.config.hidden)

    def pooled(self, batch: TaskBatch) -> torch.Tensor:
        """[P, C], the [CLS] feature of each pair."""
        _, tokens = self.vlp.encode_vision(batch.pictures)
        language = self.vlp.language(batch.input_ids, batch.attention_mask)
        text = batch.text_of
        return self.vlp.join(language[text], batch.attention_mask[text], tokens.of_texts(batch.picture_of))[0]

    def forward(self, batch: TaskBatch) -> torch.Tensor:
        """Logits [B, classes]."""
        return self.head(self.pooled(batch).unflatten(0, (-1, self.pairs)).flatten(1))


def task_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The scalar loss of logits [B, A].

    Soft targets [B, A] (VQA): binary cross-entropy, its mean over items and answers times the number of answers.
    Classes [B] (NLVR2, VCR): cross-entropy.
    """
    if targets.is_floating_point():
        return F.binary_cross_entropy_with_logits(at_least_float32(logits), targets) * targets.shape[1]
    return F.cross_entropy(at_least_float32(logits), targets)


def freeze_unread(model: DownstreamModel, batch: TaskBatch) -> list[str]:
    """Exclude from training what the task's loss does not reach; returns the names.

    These are the heads of the visual losses, which only pretraining reads: a distributed trainer would wait for their
    gradients, and weight decay would shrink them.
    """
    task_loss(model(batch), batch.targets).backward()
    unread = [(name, p) for name, p in model.named_parameters() if p.grad is None]
    for _, parameter in unread:
        parameter.requires_grad_(False)
    model.zero_grad(set_to_none=True)
    return [name for name, _ in unread]
