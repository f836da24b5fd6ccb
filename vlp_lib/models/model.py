"""The two-stream model (section III-A, figure 2) and the pretraining heads on it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from vlp_lib.batches.sample import NO_MATCHED_TOKEN, Batch, Pictures
from vlp_lib.config import ModelConfig
from vlp_lib.errors import UserError
from vlp_lib.losses.base import Context, MixedVisualLoss, Needs, by_loss
from vlp_lib.losses.itm import itm_loss
from vlp_lib.losses.mlm import mlm_loss
from vlp_lib.models.attention import AttentionBlock
from vlp_lib.models.cross_modality import CrossAttentionMaps, CrossModalityEncoder
from vlp_lib.models.heads import ITMHead, MLMHead, Pooler
from vlp_lib.models.language import LanguageStream
from vlp_lib.models.vision import VisionFeatures, VisionStream, make_vision
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.variants import Variant


class VLPOutput(NamedTuple):
    """What a forward pass of the model gives.

    Attributes:
        pooled: [P, C], the [CLS] feature that ITM and the downstream heads read.
        language: [P, L, C] after the cross-modality encoder.
        features: the vision stream's own output, what the visual loss teaches, an image a row.
        tokens: what the cross-modality encoder read, an image a row.
        vision: [P, N, C] after the cross-modality encoder (only its last layer's input where nothing reads more).
        attention: each cross-modality layer's maps, where asked for.
    """

    pooled: torch.Tensor
    language: torch.Tensor
    features: VisionFeatures
    tokens: VisionFeatures
    vision: torch.Tensor
    attention: list[CrossAttentionMaps]


Seen = tuple[VisionFeatures, VisionFeatures]
"""The vision stream's features, and the tokens that the cross-modality encoder reads."""


def visual_loss_of(config: ModelConfig, variant: Variant, sizes: Vocabularies, vision: VisionStream) -> MixedVisualLoss:
    """The variant's visual losses, made for this vision stream; raises UserError for settings that do not fit."""
    context = Context(
        hidden=config.hidden,
        heads=config.heads,
        dropout=config.dropout,
        grid=vision.grid(config.image_size, config.image_size),
        patch=vision.cell,
        convolutional=vision.convolutional,
        vocabularies=sizes,
    )
    return MixedVisualLoss(context, dict(variant.losses), by_loss(config.losses))


def needs_of(config: ModelConfig, variant: Variant, sizes: Vocabularies) -> Needs:
    """What a variant's visual losses ask of the data; no number is computed for it."""
    with torch.device("meta"):
        return VLPModel(config, variant, sizes, pretrained=False).visual_loss.needs


class VLPModel(nn.Module):
    """Language encoder, vision encoder and cross-modality encoder, with the [CLS] pooler.

    `encode_vision` and `encode_language` see one stream each and can be cached; only `join` sees both.

    Args:
        pretrained: load the weights that the configuration names, fetching them if need be. False gives the same
            architecture, input scale included, with random weights: for a model that a checkpoint is to fill.
    """

    def __init__(self, config: ModelConfig, variant: Variant, sizes: Vocabularies, pretrained: bool = True) -> None:
        super().__init__()
        self.config = config
        self.vision = make_vision(config, variant.vision, sizes, pretrained)
        self.language = LanguageStream(config, sizes.words, pretrained)
        self.visual_loss = visual_loss_of(config, variant, sizes, self.vision)
        if config.visual_loss_at == "cross" and self.visual_loss.replaces_tokens:
            raise UserError(
                f"the visual loss of {variant.name!r} makes the cross-modality encoder's input: set "
                f"model.visual_loss_at to 'vision' for it"
            )
        self.cross_modality = CrossModalityEncoder(
            config.cross_layers,
            config.hidden,
            config.heads,
            config.dropout,
            config.shared_cross_attention,
            vision_output=config.visual_loss_at == "cross" and bool(variant.losses),
        )
        self.pooler = Pooler(config.hidden)
        for part in (self.visual_loss, self.cross_modality, self.pooler):
            initialise(part, config.hidden)
            sharpen(part, config.sharpness)
        if not self.language.load_report:
            initialise(self.language, config.hidden)
        if variant.vision == "region" or (variant.vision == "vit" and not self.vision.load_report):
            initialise(self.vision, config.hidden)

    def encode_vision(self, batch: Pictures) -> Seen:
        """The vision stream's features and the tokens that the cross-modality encoder reads."""
        features = self.vision(batch)
        return features, self.visual_loss.tokens(features)

    def encode_language(self, batch: Batch) -> torch.Tensor:
        """[P, L, C]; a sentence that stands in several pairs is read once."""
        if batch.sentences is None or batch.sentence_of_text is None:
            return self.language(batch.input_ids, batch.attention_mask)
        read = self.language(batch.input_ids[batch.sentences], batch.attention_mask[batch.sentences])
        return read.index_select(0, batch.sentence_of_text)

    def join(
        self, language: torch.Tensor, language_mask: torch.Tensor, tokens: VisionFeatures, need_weights: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[CrossAttentionMaps]]:
        """Pooled [CLS], language and vision after the cross-modality encoder, and its attention where asked for."""
        words, vision, maps = self.cross_modality(language, tokens.tokens, language_mask, tokens.mask, need_weights)
        return self.pooler(words), words, vision, maps

    def forward(self, batch: Batch, need_weights: bool = False, seen: Seen | None = None) -> VLPOutput:
        """Both streams and the cross-modality encoder on a batch of pairs.

        `seen` is what `encode_vision` gives for the batch's images, where that is known.
        """
        features, tokens = seen or self.encode_vision(batch)
        language = self.encode_language(batch)
        read = tokens.of_texts(batch.image_of_text)
        pooled, words, vision, maps = self.join(language, batch.attention_mask, read, need_weights)
        return VLPOutput(pooled, words, features, tokens, vision, maps)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those that began with pretrained weights: the backbone's and the language stream's, as far as loaded."""
        loaded: list[nn.Module] = [self.language.bert] if self.language.load_report else []
        if self.vision.load_report:
            loaded.append(self.vision.get_submodule("backbone"))
        return [parameter for part in loaded for parameter in part.parameters()]


class PretrainingModel(nn.Module):
    """The model with MLM and ITM heads; a forward pass gives every loss of a batch."""

    def __init__(self, vlp: VLPModel, mlm_weight: float = 1.0, itm_weight: float = 1.0) -> None:
        super().__init__()
        self.vlp = vlp
        self.mlm_head = MLMHead(vlp.config.hidden, len(vlp.language.word_embedding))
        self.itm_head = ITMHead(vlp.config.hidden)
        self.weights = {"mlm": mlm_weight, "itm": itm_weight}
        for head in (self.mlm_head, self.itm_head):
            initialise(head, vlp.config.hidden)

    def terms(self, batch: Batch) -> dict[str, torch.Tensor | float]:
        """How many terms each loss of a batch is a mean over, where that depends on the data.

        The matching loss is not among them: every part of a batch has as many pairs.
        """
        height, width = batch.images.shape[-2:]
        visual = self.vlp.visual_loss.terms(batch, self.vlp.vision.grid(height, width))
        return {"mlm": (batch.mlm_labels != NO_MATCHED_TOKEN).sum(), **visual}

    def forward(self, batch: Batch, seen: Seen | None = None) -> dict[str, torch.Tensor]:
        """Scalars by name: mlm, itm, each visual loss and its parts, "visual" (their weighted sum) and "loss" (all).

        `itm_logits` [P, 2] come with them. `seen` is as in `VLPModel.forward`.
        """
        output = self.vlp(batch, seen=seen)
        rows = batch.mlm_labels != NO_MATCHED_TOKEN
        mlm_logits = self.mlm_head.of_masked(output.language[rows], self.vlp.language.word_embedding)
        itm_logits = self.itm_head(output.pooled)
        mlm = batch.weighted("mlm", mlm_loss(mlm_logits, batch.mlm_labels[rows]))
        itm = itm_loss(itm_logits, batch.matched)
        losses = {"mlm": mlm, "itm": itm, "loss": self.weights["mlm"] * mlm + self.weights["itm"] * itm}
        if self.vlp.visual_loss.weights:
            features = output.features
            if self.vlp.config.visual_loss_at == "cross":
                # The first texts are the images' own sentences, a row each.
                features = features._replace(tokens=output.vision[: len(batch)])
            visual = self.vlp.visual_loss(features, output.tokens, batch)
            losses |= visual.parts | {"visual": visual.loss, "loss": losses["loss"] + visual.loss}
        return losses | {"itm_logits": itm_logits}


def initialise(module: nn.Module, hidden: int) -> None:
    """BERT's initialisation: normal weights, zero biases.

    BERT's deviation of 0.02 belongs to a width of 768; it is scaled with 1/√width, so that small profiles start with
    activations of the same size.
    """
    deviation = 0.02 * math.sqrt(768 / hidden)
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding | nn.Conv2d):
            nn.init.normal_(part.weight, std=deviation)
        if isinstance(part, nn.Linear | nn.Conv2d) and part.bias is not None:
            nn.init.zeros_(part.bias)


@torch.no_grad()
def sharpen(module: nn.Module, factor: float) -> None:
    """Multiply the initial queries and keys of every cross-attention below a module: its logits grow by factor²."""
    for name, part in module.named_modules():
        if name.endswith("cross_attention") and isinstance(part, AttentionBlock):
            part.attention.query.weight.mul_(factor)
            part.attention.key.weight.mul_(factor)
