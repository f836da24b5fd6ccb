"""Where the model looks (section IV-E2, figure 6): the cross-attention of a question on the image.

The map is the last cross-modality layer's attention from the words to the visual tokens, the mean over its heads, the
[CLS] row. Visual tokens have places on the image:

- a grid's token is its cell; a ViT leaves a border out where the image's side is no multiple of the patch;
- the tokens of a visual loss that makes a set of the grid (SPL) have no place of their own: each is spread over the
  grid by the loss's own attention, which made the token (the product of the two attentions, each a distribution, is one
  again);
- a region is its box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from vlp_lib.errors import UserError
from vlp_lib.models.cross_modality import CrossAttentionMaps
from vlp_lib.models.model import VLPModel
from vlp_lib.models.vision import RegionStream, VisionFeatures
from vlp_lib.tasks.common import TaskBatch

Query = Literal["cls", "mean"] | int


@dataclass(frozen=True)
class Places:
    """Where tokens lie on an image: the cells of a grid, or boxes, which may overlap."""

    corners: np.ndarray  # [tokens, 4] int64 (x1, y1, x2, y2) in pixels of the model's input, the end excluded
    side: int  # S, of the input

    @property
    def areas(self) -> np.ndarray:
        """[tokens] pixels of each, at least 1."""
        x1, y1, x2, y2 = self.corners.T
        return np.maximum((x2 - x1) * (y2 - y1), 1)

    def shares(self, mask: np.ndarray) -> np.ndarray:
        """How much of each token's area a mask [S, S] covers; [tokens] from 0 to 1, 0 for a token without a pixel."""
        x1, y1, x2, y2 = self.corners.T
        above = np.pad(mask.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # pixels of the mask above and left of a corner
        return (above[y2, x2] - above[y1, x2] - above[y2, x1] + above[y1, x1]) / self.areas

    def paint(self, weights: np.ndarray) -> np.ndarray:
        """Token weights [tokens] spread evenly over the tokens' pixels; [S, S], summed where tokens overlap."""
        shown = np.zeros((self.side, self.side))
        for weight, (x1, y1, x2, y2) in zip(weights / self.areas, self.corners, strict=True):
            shown[y1:y2, x1:x2] += weight
        return shown


def grid_places(side: int, grid: tuple[int, int], cell: int, offset: tuple[int, int] = (0, 0)) -> Places:
    """The cells of a feature map on an image of `side` pixels, row by row.

    Args:
        grid: (h, w) of the map.
        cell: pixels a side of a cell; the last row and column may stick out of the image.
        offset: pixels above and left of the first cell.
    """
    y, x = ((start + cell * np.arange(count + 1)).clip(0, side) for start, count in zip(offset, grid, strict=True))
    (left, top), (right, bottom) = np.meshgrid(x[:-1], y[:-1]), np.meshgrid(x[1:], y[1:])
    return Places(np.stack([left, top, right, bottom], -1).reshape(-1, 4), side)


def box_places(side: int, boxes: np.ndarray) -> Places:
    """Boxes [tokens, 4], fractions of the image, on an image of `side` pixels; every pixel they touch is theirs."""
    low, high = np.floor(boxes[:, :2] * side), np.ceil(boxes[:, 2:] * side)
    return Places(np.concatenate([low, high], 1).clip(0, side).astype(np.int64), side)


def places_of(model: VLPModel, features: VisionFeatures, batch: TaskBatch, row: int) -> Places:
    """Where the tokens of the vision stream's own output lie on picture `row` of the batch."""
    side = batch.pictures.images.shape[-1]
    if features.grid is not None and not isinstance(model.vision, RegionStream):
        rows, columns = model.vision.window(side, side)
        return grid_places(side, features.grid, model.vision.cell, (rows.start, columns.start))
    if batch.pictures.boxes is None:
        raise UserError("these tokens have no place on the image: the model reads neither a grid nor boxes")
    return box_places(side, batch.pictures.boxes[row, : features.tokens.shape[1]].cpu().numpy())


@dataclass(frozen=True)
class QuestionAttention:
    """The cross-attention of a batch of questions.

    Attributes:
        features: the vision stream's own output, whose tokens have places.
        decoder: [B, Q, N], where the visual loss makes a set of Q tokens of the grid: its attention to the grid's, the
            mean over heads; None where the model reads tokens that have places.
    """

    layers: list[CrossAttentionMaps]
    features: VisionFeatures
    decoder: torch.Tensor | None
    text_mask: torch.Tensor  # [B, L] bool, True at tokens
    pooled: torch.Tensor  # [B, C], what the answer is read from

    def on_image(self, row: int, query: Query, layer: int = -1, head: int | None = None) -> np.ndarray:
        """How the attention of one question lies on the tokens that have places; a distribution [N], float64.

        Args:
            query: "cls"; "mean" over the words between [CLS] and [SEP]; or a position (0 is [CLS]).
            layer: −1 is the last.
            head: None takes the mean over heads.

        Raises UserError for a layer, head or position that there is not.
        """
        attention = self._pick("layer", self.layers, layer).to_vision[row]
        weights = (attention.mean(0) if head is None else self._pick("head", attention, head)).double().cpu()
        length = int(self.text_mask[row].sum())
        if query == "mean":
            chosen = weights[1 : max(length - 1, 2)].mean(0)
        else:
            chosen = self._pick("word", weights[:length], 0 if query == "cls" else query)
        if self.decoder is not None:
            chosen = chosen @ self.decoder[row].double().cpu()
        return np.asarray(chosen)

    @staticmethod
    def _pick(kind: str, items: Any, index: int) -> Any:
        if not -len(items) <= index < len(items):
            raise UserError(f"there is no {kind} {index}: choose from 0 to {len(items) - 1}")
        return items[index]


def parse_query(text: str | int) -> Query:
    """A query as a notebook's parameter: "cls", "mean" or a position; raises UserError on anything else."""
    if text in ("cls", "mean"):
        return text  # type: ignore[return-value]
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{text!r} is no word to look from: give cls, mean or a position (0 is [CLS])") from None


@torch.inference_mode()
def look(model: VLPModel, batch: TaskBatch) -> QuestionAttention:
    """The attention of a batch of questions, each about one picture; the model in evaluation mode, in float32."""
    features, tokens = model.encode_vision(batch.pictures)
    language = model.language(batch.input_ids, batch.attention_mask)
    mask = batch.attention_mask[batch.text_of]
    pooled, _, _, maps = model.join(language[batch.text_of], mask, tokens.of_texts(batch.picture_of), need_weights=True)
    decoder = model.visual_loss.token_attention(features)
    if decoder is None and tokens.grid is None and features.grid is not None:
        raise UserError(
            "the visual loss makes a set of tokens and does not say by what attention (VisualLoss.token_attention), so "
            "they have no place on the image: choose another variant for this figure"
        )
    decoder = None if decoder is None else decoder[batch.picture_of]
    return QuestionAttention(maps, features.of_texts(batch.picture_of), decoder, mask, pooled)
