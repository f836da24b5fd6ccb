"""What a user would write without the kit: the rows of `vlp bench` are measured against it, and tests compare with it.

transformers and timm are put together as their pages show, losses are written as their formulas read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.transforms import v2
from transformers import (
    BatchEncoding,
    BertConfig,
    BertModel,
    DataCollatorForLanguageModeling,
    LxmertConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.lxmert.modeling_lxmert import LxmertPooler, LxmertPreTrainingHeads, LxmertXLayer

from vlp_lib.batches.sample import NO_MATCHED_TOKEN, Batch
from vlp_lib.batches.tokenizer import CLS, MASK, PAD, SEP, Tokenizer
from vlp_lib.config import DataConfig, ModelConfig, TrainingConfig
from vlp_lib.corpora.images import opened
from vlp_lib.corpora.records import IGNORED, ImageRecord
from vlp_lib.models.vocabularies import Vocabularies


class PlainModel(nn.Module):
    """timm's ViT, transformers' BERT and LXMERT's cross-modality layers and heads, with SEGL's convolution."""

    def __init__(self, config: ModelConfig, sizes: Vocabularies) -> None:
        super().__init__()
        vit, hidden = config.vit, config.hidden
        self.vision = VisionTransformer(
            img_size=config.image_size, patch_size=vit.patch, depth=vit.layers, embed_dim=vit.width,
            num_heads=vit.heads, num_classes=0, class_token=False, global_pool="",
        )  # fmt: skip
        self.project = nn.Identity() if vit.width == hidden else nn.Linear(vit.width, hidden)
        common: dict[str, Any] = {
            "vocab_size": sizes.words, "hidden_size": hidden, "num_attention_heads": config.heads,
            "intermediate_size": 4 * hidden, "hidden_dropout_prob": config.dropout,
            "attention_probs_dropout_prob": config.dropout,
        }  # fmt: skip
        self.language = BertModel(BertConfig(num_hidden_layers=config.language_layers, **common))
        lxmert = LxmertConfig(**common)
        self.cross = nn.ModuleList(LxmertXLayer(lxmert) for _ in range(config.cross_layers))
        self.pooler, self.heads = LxmertPooler(lxmert), LxmertPreTrainingHeads(lxmert)
        self.segment = nn.Conv2d(hidden, sizes.segmentation + 1, 1)

    def forward(self, batch: Batch) -> torch.Tensor:
        """The sum of MLM, ITM and SEGL: every pair a row, every position through the head."""
        images, maps = batch.images, batch.label_maps
        if batch.image_of_text is not None:
            images = images[batch.image_of_text]
            maps = None if maps is None else maps[batch.image_of_text]
        mean, std = (images.new_tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        features = self.project(self.vision.forward_features((images - mean) / std))
        words = self.language(batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        readable = torch.where(batch.attention_mask, 0.0, torch.finfo(words.dtype).min)[:, None, None]
        vision = features
        for layer in self.cross:
            words, vision = layer(words, readable, vision, None)
        logits, matched = self.heads(words, self.pooler(words))
        loss = F.cross_entropy(logits.flatten(0, 1), batch.mlm_labels.flatten(), ignore_index=NO_MATCHED_TOKEN)
        loss = loss + F.cross_entropy(matched, batch.matched)
        if maps is None:
            return loss
        grid = self.segment(features.transpose(1, 2).unflatten(2, self.vision.patch_embed.grid_size))
        labels = F.interpolate(maps[:, None].float(), grid.shape[-2:], mode="nearest-exact")[:, 0].long()
        return loss + F.cross_entropy(grid, labels, ignore_index=IGNORED)


def plain_step(model: PlainModel, batch: Batch, training: TrainingConfig) -> Callable[[], None]:
    """A training step in float32."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)

    def step() -> None:
        optimiser.zero_grad()
        model(batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        optimiser.step()

    return step


def detr_matching(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """DETR's matching without its boxes: costs of every query of the batch with every label of it.

    Arguments and result as `losses.spl.match_labels`.
    """
    images, queries, classes = logits.shape
    own = [row[row >= 0] for row in labels]
    probability = logits.flatten(0, 1).softmax(-1)
    cost = (-probability[:, torch.cat(own)]).view(images, queries, -1).cpu()
    targets = torch.full((images, queries), classes - 1)
    for i, part in enumerate(cost.split([len(row) for row in own], -1)):
        rows, columns = linear_sum_assignment(part[i])
        targets[i, rows] = own[i].cpu()[columns]
    return targets.to(logits.device)


def plain_loader(
    records: Sequence[ImageRecord], tokenizer: Tokenizer, size: int, data: DataConfig
) -> Callable[[], tuple[torch.Tensor, BatchEncoding]]:
    """Images, and two sentences for each: its first one and the next image's.

    Pillow decodes, torchvision resizes by a random factor and crops, transformers' tokenizer and collator make the ids
    and hide words.
    """
    rng, crop = np.random.default_rng(0), v2.RandomCrop(size, pad_if_needed=True)
    special = {"pad_token": PAD, "mask_token": MASK, "cls_token": CLS, "sep_token": SEP}
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer.engine, **special)
    hide = DataCollatorForLanguageModeling(words, mlm_probability=data.mlm_probability)
    captions = [record.captions[0] for record in records]

    def view(image: Any) -> Any:
        side = round(size * rng.uniform(*data.resize))
        return crop(v2.functional.resize(image, [side, side], antialias=True))

    transform = v2.Compose([view, v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])

    def load() -> tuple[torch.Tensor, BatchEncoding]:
        images, texts = [], [words(caption) for caption in captions + captions[1:] + captions[:1]]
        for record in records:
            with opened(record.path) as image:
                images.append(transform(image.convert("RGB")))
        return torch.stack(images), hide(texts)

    return load
