"""The architecture (figures 2 to 4) drawn from the model itself: one pair on its way through it."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from vlp_lib.batches.sample import Batch
from vlp_lib.bench.architecture import count
from vlp_lib.bench.made_up import SIZES, fill, question, shape_of, training_batch
from vlp_lib.config import Profile
from vlp_lib.figures.style import STAGES
from vlp_lib.losses.base import MixedVisualLoss, VisualLoss
from vlp_lib.models.heads import ITMHead, MLMHead
from vlp_lib.models.vision import PixelStream, RegionStream, VisionFeatures, ViTStream
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.study.runs import label
from vlp_lib.variants import Variant

# In pixels: the middles of the columns and of the page, a box's width, from a box to the next one, the first arrow.
_VISION, _LANGUAGE, _PAGE, _WIDTH, _GAP, _TOP = 145, 425, 285, 260, 38, 64

# Strokes and tinted fills serve both modes; only the page and its letters change.
_STYLE = """.vlp text{font:13px system-ui,sans-serif;text-anchor:middle;fill:#1b1b1b}.vlp .title{font-weight:600}
.vlp .shape{font:12px ui-monospace,monospace;text-anchor:start}.vlp .page{fill:#fff}.vlp .line{stroke:#1b1b1b;fill:none}
@media(prefers-color-scheme:dark){.vlp text{fill:#eee}.vlp .page{fill:#16181c}.vlp .line{stroke:#eee}}"""


@dataclass(frozen=True)
class Station:
    """A part of the network; every parameter of the pretraining model is in exactly one."""

    stream: str  # "vision", "language", "loss", "cross" or "head"
    title: str  # what it is
    parameters: int  # how many numbers it learns
    gives: tuple[int, ...]  # the shape of one picture or one sentence after it
    says: str = ""  # what it does, where title and shape do not say it
    replaces: bool = False  # of a visual loss, whether the cross-modality encoder reads what it makes


def stations(profile: Profile, variant: Variant, sizes: Vocabularies = SIZES) -> list[Station]:
    """What one picture and one sentence of 16 tokens pass in pretraining. Only the visual losses compute numbers."""
    meta, config = torch.device("meta"), profile.model
    model, pair = shape_of(config, variant, sizes), question(config, sizes, meta)
    with torch.no_grad(), meta:
        (features, tokens), bert = model.encode_vision(pair), model.language.bert
        words = tuple(bert(input_ids=pair.input_ids).last_hidden_state.shape[1:])
        itm, mlm = ITMHead(config.hidden), MLMHead(config.hidden, sizes.words)
    read, layers = tokens.tokens.shape[1], model.cross_modality.layers
    return [
        *_vision(model.vision, tuple(features.tokens.shape[1:])),
        Station("language", "words and their places", count(bert.embeddings), words),
        Station("language", f"{len(bert.encoder.layer)} transformer layers", count(bert.encoder), words),
        *_losses(model.visual_loss, training_batch(profile, variant, sizes, 1, torch.device("cpu")), features),
        *(
            Station(
                "cross",
                f"cross-modality layer {place} of {len(layers)}",
                count(layer),
                words,
                f"{words[0]} words {'⇄' if layer.updates_vision else '→'} {read} visual tokens",
            )
            for place, layer in enumerate(layers, 1)
        ),
        Station("head", "do they match? (ITM)", count(model.pooler, itm), (itm.classify.out_features,)),
        Station("head", "which word is hidden? (MLM)", count(mlm), (words[0], sizes.words)),
    ]


def _vision(stream: PixelStream | RegionStream, tokens: tuple[int, ...]) -> list[Station]:
    """The vision stream: how a picture becomes tokens, and what is computed with them."""
    if isinstance(stream, RegionStream):
        return [Station("vision", "class, colour and box", count(stream), tokens)]
    if isinstance(stream, ViTStream):
        net, title = stream.backbone, f"patches of {stream.cell} × {stream.cell} pixels"
        begun = sum(p.numel() for name, p in net.named_parameters() if not name.startswith(("blocks", "norm")))
        return [
            Station("vision", title, begun, (tokens[0], net.embed_dim)),
            Station("vision", f"{len(net.blocks)} transformer layers", count(stream) - begun, tokens),
        ]
    begun, channels = count(stream.backbone), stream.project.in_features
    return [
        Station("vision", f"convolutions, stride {stream.cell}", begun, (tokens[0], channels)),
        Station("vision", "each cell with its place", count(stream) - begun, tokens),
    ]


def _losses(loss: MixedVisualLoss, batch: Batch, features: VisionFeatures) -> list[Station]:
    """The visual losses, computed once on made-up features to see what they predict."""
    batch = fill(loss, torch.device("cpu")).corrupt(batch)
    seen = VisionFeatures(torch.rand(features.tokens.shape), features.grid)
    found = []
    with torch.no_grad():
        tokens = loss.tokens(seen)
        for name, one in loss.losses.items():
            assert isinstance(one, VisualLoss)
            drawn = [f"{what} {_written(value.shape[1:])}" for what, value in one(seen, tokens, batch).drawings.items()]
            replaces, shape = type(one).tokens is not VisualLoss.tokens, tuple(tokens.tokens.shape[1:])
            found.append(Station("loss", f"visual loss: {label(name)}", count(one), shape, ", ".join(drawn), replaces))
    return sorted(found, key=lambda one: one.replaces)


@dataclass
class _Lane:
    """A stream on the page: its next arrow begins at (x, y), its lowest box ends at `low`, a box stands in its way."""

    x: int
    y: int
    low: int
    gives: str  # what it hands on
    around: bool = False

    def down(self, top: int) -> str:
        """An arrow to a box whose top is there, with what is handed on beside it."""
        path = f"v12H{_PAGE}V{top - 12}H{self.x}V{top}" if self.around else f"V{top}"
        return _arrow(self.x, self.y, path) + _text(self.x + 8, top - (18 if self.around else 14), self.gives, "shape")

    def box(self, top: int, station: Station, x: int = 0, width: int = _WIDTH) -> str:
        """A box that it goes through, and goes on below."""
        self.y = self.low = top + _height(station)
        self.around = False
        return _box(x or self.x, top, station, width)


def draw_architecture(profile: Profile, variant: Variant, sizes: Vocabularies = SIZES) -> str:
    """An SVG of `stations`, for light and dark pages; beside each arrow stands the shape of what is handed on."""
    found = stations(profile, variant, sizes)
    side = profile.model.image_size
    picture = "detections" if variant.vision == "region" else f"picture 3 × {side} × {side}"
    vision, language = _Lane(_VISION, _TOP, _TOP, picture), _Lane(_LANGUAGE, _TOP, _TOP, "sentence")
    parts: list[str] = []
    for one in found[:-2]:
        lane = language if one.stream == "language" else vision
        top = (max(vision.low, language.low) if one.stream == "cross" else lane.low) + _GAP
        if one.stream == "cross":
            parts += [vision.down(top), language.down(top), vision.box(top, one, _PAGE, 2 * _WIDTH + 20)]
            language.y = language.low = vision.low
            language.gives = _written(one.gives)
        elif one.stream == "loss" and not one.replaces:
            aside = _arrow(lane.x, lane.y, f"v12H{_PAGE}V{top + 24}h-26")
            parts += [aside, _box(lane.x - 2, top, one, _WIDTH - 28)]
            lane.low, lane.around = top + _height(one), True
        else:
            parts += [lane.down(top), lane.box(top, one)]
            lane.gives = _written(one.gives)
    top = language.y + _GAP
    cls = _text(_VISION + 8, top - 6, f"[CLS] {found[-3].gives[-1]}", "shape")
    parts += [_arrow(_LANGUAGE, language.y, f"v14H{_VISION}V{top}"), cls, language.down(top)]
    for x, one in zip((_VISION, _LANGUAGE), found[-2:], strict=True):
        parts += [_box(x, top, one), _text(x, top + _height(one) + 18, _written(one.gives))]
    title = f"{label(variant.name)}, profile {profile.name}: a pair on its way"
    learned = f"{sum(one.parameters for one in found):,} parameters"
    size = f"viewBox='0 0 {2 * _PAGE} {top + 80}' width='{2 * _PAGE}' style='max-width:100%;height:auto'"
    return f"""<svg class='vlp' xmlns='http://www.w3.org/2000/svg' {size} role='img'>
<title>{html.escape(title)}, {learned}</title><style>{_STYLE}</style>
<defs><marker id='vlp-end' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='8' markerHeight='8' orient='auto'>
<path class='line' d='M1 1L7 4L1 7'/></marker></defs><rect class='page' width='100%' height='100%'/>
{_text(_PAGE, 26, title, "title")}{_text(_PAGE, 46, learned)}
{chr(10).join(parts)}
</svg>
"""


def _height(station: Station) -> int:
    return 30 + 16 * (1 + (station.stream == "loss"))


def _box(x: int, top: int, station: Station, width: int = _WIDTH) -> str:
    """A station, with its lines of text: the first says what it is."""
    learned = f"{station.parameters:,} parameters"
    lines = [station.says, learned] if station.stream == "loss" else [f"{station.says} · {learned}".lstrip(" ·")]
    tint = STAGES[{"loss": "selection", "head": "whole"}.get(station.stream, station.stream)]
    shape = f"x='{x - width // 2}' y='{top}' width='{width}' height='{_height(station)}' rx='6'"
    words = [_text(x, top + 19 + 17 * i, line, "" if i else "title") for i, line in enumerate([station.title, *lines])]
    return f"<rect {shape} fill='{tint}' fill-opacity='.18' stroke='{tint}' stroke-width='1.5'/>" + "".join(words)


def _arrow(x: int, y: int, path: str) -> str:
    return f"<path class='line' d='M{x} {y}{path}' marker-end='url(#vlp-end)'/>\n"


def _text(x: int, y: int, words: str, kind: str = "") -> str:
    return f"<text x='{x}' y='{y}' class='{kind}'>{html.escape(words)}</text>\n"


def _written(shape: Iterable[int]) -> str:
    return " × ".join(f"{side:,}" for side in shape)
