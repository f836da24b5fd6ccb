"""Loading pretrained weights, with a report of what was loaded: silent losses are how reproductions fail."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from vlp_lib import io, packages
from vlp_lib.arrays import refuse_bomb
from vlp_lib.config import ResNetConfig, TimmConfig, ViTConfig
from vlp_lib.errors import UserError, reason
from vlp_lib.fetch import hub

LEAST_MATCH = 0.95
NAMED = 5
"""Tensors that an error names, at most."""

_FLOATS = ("float32", "float16", "bfloat16", "float64", "F32", "F16", "BF16", "F64")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class LoadReport:
    """What became of a set of pretrained weights.

    Attributes:
        source: name or path of the weights.
        matched: parameters (single numbers, not tensors) that were loaded.
        total: parameters of the model.
        missing: names the model has and the weights have not.
        unused: names the weights have and the model has not.
        reshaped: names that both have with different shapes (not loaded).
    """

    source: str
    matched: int
    total: int
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    reshaped: tuple[str, ...]

    @property
    def share(self) -> float:
        """Share of the model's parameters that was loaded."""
        return self.matched / max(self.total, 1)

    def __str__(self) -> str:
        return (
            f"{self.source}: {self.share:.1%} of {self.total:,} parameters loaded; {len(self.missing)} tensors "
            f"missing, {len(self.reshaped)} of another shape, {len(self.unused)} unused"
        )


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors or PyTorch file; raises UserError naming a missing or broken one."""
    if not path.is_file():
        raise UserError(f"no weights at {path}: give a file that exists, or a name that the hub knows")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            refuse_bomb(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # unpickling raises whatever the bytes make it raise
        raise UserError(f"{path} is no readable weights file ({reason(error)}): fetch or write it again") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} is no readable weights file (it holds a {type(state).__name__}): give a state dict")
    if wrong := [k for k, v in state.items() if not (isinstance(k, str) and isinstance(v, torch.Tensor))]:
        raise UserError(f"{path} is no readable weights file ({wrong[0]!r:.60} is no tensor): give a state dict")
    return state


def declared(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and kind ("F32") of each tensor in a .safetensors file's header; raises UserError for a broken one."""
    try:
        with safe_open(path, framework="pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return {name: (tuple(part.get_shape()), str(part.get_dtype())) for name, part in parts.items()}
    except Exception as error:
        raise UserError(f"{path} is no readable weights file ({error}): fetch or write it again") from error


def require_floats(kinds: Mapping[str, str], own: Mapping[str, torch.Tensor], source: object) -> None:
    """Raise UserError where a weight of a model, `own`, is given as what stands for other numbers (int8, float8, bool).

    `kinds` are those of given tensors that the model has, as torch or as safetensors calls them.
    """
    for name, kind in kinds.items():
        if own[name].is_floating_point() and kind not in _FLOATS:
            raise UserError(
                f"{source} has {name} as {kind}: give weights that are not quantised ({', '.join(_FLOATS[:4])})"
            )


def require_same_tensors(
    given: Mapping[str, tuple[tuple[int, ...], str]], own: Mapping[str, torch.Tensor], path: Path, what: str, mend: str
) -> None:
    """Raise UserError where the tensors of a file (shape and kind of each) are not those of a model, `own`.

    `what` and `mend` begin and end the sentence where names or shapes differ; the first tensor has its shapes in it.
    """
    there = {name: shape for name, (shape, _) in given.items()}
    here = {name: tuple(value.shape) for name, value in own.items()}
    differ = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    if differ:
        name, *others = differ
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        also = f" (also {', '.join(others[:NAMED])}{more})" if others else ""
        raise UserError(
            f"{what}: at {name} it has {there.get(name, 'nothing')}, this model {here.get(name, 'nothing')}{also}; "
            f"{mend}"
        )
    require_floats({name: kind for name, (_, kind) in given.items()}, own, path)


def load_matching(module: nn.Module, state: dict[str, torch.Tensor], source: str) -> LoadReport:
    """Load what fits by name and shape, print the report, and refuse a match below 95 % of the parameters."""
    own = module.state_dict()
    fits = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    require_floats({k: str(v.dtype).removeprefix("torch.") for k, v in fits.items()}, own, source)
    report = LoadReport(
        source=source,
        matched=sum(own[k].numel() for k in fits),
        total=sum(v.numel() for v in own.values()),
        missing=tuple(sorted(own.keys() - state.keys())),
        unused=tuple(sorted(state.keys() - own.keys())),
        reshaped=tuple(sorted((own.keys() & state.keys()) - fits.keys())),
    )
    print(report)
    if report.share < LEAST_MATCH:
        first = (report.missing + report.reshaped)[0]
        raise UserError(
            f"{source} fills only {report.share:.1%} of the model (at least {LEAST_MATCH:.0%} is needed; first tensor "
            f"without weights: {first}): give weights of this architecture"
        )
    module.load_state_dict(fits, strict=False)
    return report


def _local(source: str) -> Path | None:
    """The file of weights that a package, a folder or a path names; None for the name of weights on a hub."""
    if source.startswith(packages.PREFIX):
        print(f"{source}: licence {packages.licence(source)}")
        return packages.weights_file(source)
    folder = Path(source)
    if not folder.is_dir():
        return folder if folder.exists() else None
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} has neither model.safetensors nor pytorch_model.bin: give a folder that holds weights")


def timm_state_dict(source: str) -> dict[str, torch.Tensor]:
    """Weights of a timm model by name (fetched from the hub), or from a package, a local file or folder."""
    return _state_dict(source, lambda: timm.create_model(source, pretrained=True, num_classes=0))


def bert_state_dict(source: str) -> dict[str, torch.Tensor]:
    """Weights of a BERT encoder by hub name, package or folder, without the "bert." prefix of models with heads."""
    from transformers import BertModel  # here and not above: losses, which need no BERT, read this module, too

    state = _state_dict(source, lambda: BertModel.from_pretrained(source, add_pooling_layer=False))
    return {_bert_name(name): value for name, value in state.items()}


def _state_dict(source: str, fetch: Callable[[], nn.Module]) -> dict[str, torch.Tensor]:
    """Weights from where `_local` finds them, else of the model that `fetch` has from the hub."""
    if (path := _local(source)) is not None:
        return read_state_dict(path)
    try:
        with hub():
            return fetch().state_dict()
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(
            f"cannot load the pretrained weights {source!r} ({reason(error)}): give a local folder, or connect to the "
            f"hub"
        ) from error


def named_as(own: Mapping[str, torch.Tensor], state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under a model's own names, where no name is known but tensor for tensor order, kind and shape agree.

    The same architecture written by others has other names in the same order, as EfficientNet's first port to PyTorch.
    """
    if own.keys() & state.keys() or len(own) != len(state):
        return state
    pairs = list(zip(own.items(), state.items(), strict=True))
    kinds = all(ours.rpartition(".")[2] == theirs.rpartition(".")[2] for (ours, _), (theirs, _) in pairs)
    if not kinds or any(a.shape != b.shape for (_, a), (_, b) in pairs):
        return state
    return {ours: value for (ours, _), (_, value) in pairs}


def input_scale(
    backbone: ViTConfig | ResNetConfig | TimmConfig, name: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the deviation of red, green and blue of the images that a backbone's weights were trained on.

    Those that are set; without pretrained weights, ImageNet's; else what timm's configuration of the weights says:
    config.json in their folder (as timm writes it), on the hub, or timm's own list of models. Weights are not read.

    Args:
        backbone: the configuration of the vision stream, `model.vit`, `model.resnet` or `model.timm`.
        name: of the vision stream, as a variant has it.

    Raises UserError where nothing says it: another scale would cost accuracy without a word.
    """
    mean, std = backbone.mean, backbone.std
    source, section = weights_of(backbone, name), name.partition(":")[0]
    if not (mean and std):
        known = _timm_config(source) if source else {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
        mean, std = mean or tuple(known.get("mean") or ()), std or tuple(known.get("std") or ())
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise UserError(
            f"the scale of the images that {source!r} was trained on is not known (mean {mean}, deviation {std}): "
            f"give weights that exist, with timm's config.json beside them, connect to the hub, or set "
            f"model.{section}.mean and model.{section}.std, three numbers each"
        )
    return mean, std


def weights_of(backbone: ViTConfig | ResNetConfig | TimmConfig, name: str) -> str:
    """Where the pretrained weights of a vision stream are; "hub" is timm's own of the backbone's name."""
    return name.removeprefix("timm:") if backbone.pretrained == "hub" else backbone.pretrained


def _timm_config(source: str) -> Mapping[str, Any]:
    """What timm says of pretrained weights; empty where it says nothing."""
    path, (kind, _, name) = Path(source), source.partition(":")
    if f"{kind}:" == packages.PREFIX:
        return {}
    if path.exists():
        file = (path if path.is_dir() else path.parent) / "config.json"
        config = io.read_json(file) if file.is_file() else {}
        if not isinstance(config, dict):
            return {}
        inner = config.get("pretrained_cfg")
        return inner if isinstance(inner, dict) else config
    if kind in ("hf-hub", "hf_hub"):
        try:
            with hub():
                return timm.models.load_model_config_from_hf(name)[0]
        except Exception:  # the hub's library has one for every kind of failure
            return {}
    known = None if "/" in source else timm.get_pretrained_cfg(source, allow_unregistered=True)
    return known.to_dict() if known else {}


def _bert_name(name: str) -> str:
    """A tensor's name today: without prefix, and with the norms' names of BERT's first release translated."""
    name = name.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight")
    return name.replace("LayerNorm.beta", "LayerNorm.bias")
