"""What a visual loss is, how one is made known, and weighted mixes. Nothing else in the kit knows one by name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import linecache
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast, get_type_hints

import torch
from torch import nn

from vlp_lib import catalogue
from vlp_lib.batches.sample import Batch
from vlp_lib.errors import UserError
from vlp_lib.models.vision import VisionFeatures
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.ranges import fits, require_in_range


@dataclass(frozen=True)
class Context:
    """The model that a visual loss is made for.

    Attributes:
        hidden, heads, dropout: of the cross-modality encoder; the features have `hidden` channels.
        grid: rows and columns of the vision stream's feature map at the pretraining's image size; 0 where none is.
        patch: pixels a side of a cell of that map; 0 where there is none.
        convolutional: whether the vision stream's map is of falling resolution, as a ResNet's.
        vocabularies: classes of the label maps and of the detector.
    """

    hidden: int
    heads: int
    dropout: float
    grid: tuple[int, int]
    patch: int
    convolutional: bool
    vocabularies: Vocabularies


@dataclass(frozen=True)
class Needs:
    """What a visual loss asks of the data.

    Attributes:
        label_maps: whether images must have label maps, `Batch.label_maps`.
        detections: how many detector labels of an image it reads at most, `Batch.labels`; 0 for none.
    """

    label_maps: bool = False
    detections: int = 0


class VisualOutput(NamedTuple):
    """A visual loss and what there is to see of it.

    Attributes:
        loss: scalar.
        parts: further scalars that are written beside the loss, by name, such as an accuracy.
        drawings: named tensors a lesson may want to draw (predicted colours, predicted label map, matching), detached.
    """

    loss: torch.Tensor
    parts: Mapping[str, torch.Tensor] = {}
    drawings: Mapping[str, torch.Tensor] = {}


class VisualLoss(nn.Module):
    """A loss of the vision branch; each duty but `forward` has a neutral default.

    A subclass with parameters or settings defines `__init__(self, context, *, setting=default, …)`: the keyword-only
    arguments are its settings, set by `losses.<name>.<setting>`.
    """

    needs = Needs()

    def __init__(self, context: Context) -> None:
        super().__init__()

    def corrupt(self, batch: Batch) -> Batch:
        """What it does to the input before the model sees it; `Batch.extras` keeps what `forward` needs of it."""
        return batch

    def tokens(self, features: VisionFeatures) -> VisionFeatures:
        """What the cross-modality encoder reads instead of the vision stream's own output."""
        return features

    def token_attention(self, features: VisionFeatures) -> torch.Tensor | None:
        """Where on the grid the tokens that it makes come from, [B, N, cells]; None where it makes none."""
        return None

    def terms(self, batch: Batch, grid: tuple[int, int]) -> torch.Tensor | float:
        """How many terms (or what sum of weights) the loss of this batch is a mean over.

        It is known before the model has run, so that the parts of a batch can be weighted by it. `grid` is the vision
        stream's feature map, rows and columns.
        """
        return len(batch)

    def forward(self, features: VisionFeatures, tokens: VisionFeatures, batch: Batch) -> VisualOutput:
        """The loss of the stream's `features` (and of what `tokens` made of them) against the batch's targets."""
        raise TypeError(f"{type(self).__name__} does not say what its loss is")


_CLASSES: dict[str, tuple[type[VisualLoss], dict[str, Any]]] = {}
"""By name a class, and the settings that the name stands for."""

_Loss = TypeVar("_Loss", bound=type[VisualLoss])


def visual_loss(name: str, **preset: Any) -> Callable[[_Loss], _Loss]:
    """Make a class known as the visual loss `name`, which a variant may have: alone, weighted, mixed, on any backbone.

    `preset` gives the settings of this name; the same class may have several names.
    """

    def register(make: _Loss) -> _Loss:
        if not make.__module__.startswith(f"{__package__}."):
            catalogue.add(name, _entry(make))
        _CLASSES[name] = (make, preset)
        return make

    return register


def _entry(make: type[VisualLoss]) -> catalogue.LossEntry:
    """The entry of a class that is defined outside of the kit, with the text of its whole file or cell."""
    source = make.forward.__code__.co_filename
    linecache.checkcache(source)
    arguments = inspect.signature(make.__init__).parameters.values()
    return catalogue.LossEntry(
        settings=tuple(a.name for a in arguments if a.kind is a.KEYWORD_ONLY),
        replaces_tokens=make.tokens is not VisualLoss.tokens,
        file=Path(source) if Path(source).is_file() else None,
        text="".join(linecache.getlines(source)),
    )


def _registered(name: str) -> tuple[type[VisualLoss], dict[str, Any]]:
    """The class and the preset of a name; imports the file that the class is written in."""
    entry = catalogue.loss(name)
    if name not in _CLASSES and entry.file is not None:
        if not entry.text:
            importlib.import_module(f"vlp_lib.losses.{entry.file.stem}")
        else:
            _run_plugin(entry.file)
    if name not in _CLASSES:
        raise UserError(f"the plug-in {entry.file} does not define the visual loss {name!r} when it is run: mend it")
    return _CLASSES[name]


def _run_plugin(file: Path) -> None:
    """Import a plug-in file; raises UserError with what went wrong in it."""
    spec = importlib.util.spec_from_file_location(f"vlp_plugin_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file} cannot be imported: a plug-in's name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:  # a stranger's code raises anything
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"the plug-in {file} fails when it is run ({reason}): mend it") from error


def by_loss(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings "<loss>.<setting>" (`ModelConfig.losses`) as those of each loss."""
    nested: dict[str, dict[str, Any]] = {}
    for path, value in settings.items():
        name, _, setting = path.partition(".")
        nested.setdefault(name, {})[setting] = value
    return nested


def resolve_settings(
    weights: Mapping[str, float], settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The settings of each loss of a mix: its defaults, its name's preset, then the given ones.

    Raises UserError for settings of a loss that the mix has not, for a value of another type, and for one outside of
    the range that its annotation gives.
    """
    if unused := sorted(settings.keys() - weights.keys()):
        name = unused[0]
        raise UserError(
            f"losses.{name}.{next(iter(settings[name]))} is set and this variant has no loss {name!r}: leave it out"
        )
    return {name: _resolved(name, settings.get(name, {})) for name in weights}


def _resolved(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    make, preset = _registered(name)
    init = make.__init__
    arguments = inspect.signature(init).parameters.values()
    defaults = {a.name: a.default for a in arguments if a.kind is a.KEYWORD_ONLY}
    hints = get_type_hints(init) if defaults else {}
    for setting, value in given.items():
        if setting in hints and not fits(value, hints[setting]):
            raise UserError(f"setting 'losses.{name}.{setting}' is {value!r}: it must be like {defaults[setting]!r}")
        require_in_range(init, setting, value, f"losses.{name}.{setting}")
    return defaults | preset | dict(given)


class MixedVisualLoss(nn.Module):
    """A weighted sum of visual losses (section V); the empty mix is the naive model's "no visual loss".

    Attributes:
        weights: by name.
        settings: of each loss, by name, defaults filled in.
        needs: what all of them ask of the data.
    """

    def __init__(
        self, context: Context, weights: Mapping[str, float], settings: Mapping[str, Mapping[str, Any]] = {}
    ) -> None:
        super().__init__()
        self.weights = dict(weights)
        self.settings = resolve_settings(weights, settings)
        made = {name: _registered(name)[0](context, **self.settings[name]) for name in weights}
        self.losses = cast("Mapping[str, VisualLoss]", nn.ModuleDict(made))
        asked = [loss.needs for loss in self.losses.values()]
        self.needs = Needs(any(n.label_maps for n in asked), max((n.detections for n in asked), default=0))

    @property
    def replaces_tokens(self) -> bool:
        """Whether the cross-modality encoder reads what one of the losses makes."""
        return any(type(loss).tokens is not VisualLoss.tokens for loss in self.losses.values())

    def corrupt(self, batch: Batch) -> Batch:
        """Each loss's corruption, one after the other."""
        for loss in self.losses.values():
            batch = loss.corrupt(batch)
        return batch

    def tokens(self, features: VisionFeatures) -> VisionFeatures:
        """The tokens of the one loss that makes its own, or the features."""
        for loss in self.losses.values():
            features = loss.tokens(features)
        return features

    def token_attention(self, features: VisionFeatures) -> torch.Tensor | None:
        """That of the one loss that makes the tokens, or None."""
        maps = (loss.token_attention(features) for loss in self.losses.values())
        return next((attention for attention in maps if attention is not None), None)

    def terms(self, batch: Batch, grid: tuple[int, int]) -> dict[str, torch.Tensor | float]:
        """The terms of each loss."""
        return {name: loss.terms(batch, grid) for name, loss in self.losses.items()}

    def forward(self, features: VisionFeatures, tokens: VisionFeatures, batch: Batch) -> VisualOutput:
        """The weighted sum; the parts are each loss's own value under its name and its parts under name_part."""
        total = features.tokens.new_zeros(())
        parts: dict[str, torch.Tensor] = {}
        drawings: dict[str, torch.Tensor] = {}
        for name, loss in self.losses.items():
            output = loss(features, tokens, batch)
            value = batch.weighted(name, output.loss)
            total = total + self.weights[name] * value
            parts[name] = value.detach()
            parts |= {f"{name}_{part}": batch.weighted(name, part_value) for part, part_value in output.parts.items()}
            drawings |= {f"{name}_{drawn}": tensor for drawn, tensor in output.drawings.items()}
        return VisualOutput(total, parts, drawings)
