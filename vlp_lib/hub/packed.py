"""A run's model in one small file, eight bits a number, to come with the kit: two megabytes for `tiny`."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

from vlp_lib import io
from vlp_lib.batches.tokenizer import Tokenizer
from vlp_lib.errors import UserError
from vlp_lib.hub.model import CARD, FILES, TrainedModel, from_pretrained
from vlp_lib.run import CONFIG, RECORD, Run, reference_root
from vlp_lib.tasks.downstream import DownstreamModel
from vlp_lib.trainers.checkpoint import read_tensors
from vlp_lib.trainers.loop import WEIGHTS

_SCALE = "/scale"
_TEXTS = [name for name in FILES if name not in (WEIGHTS, CARD)]


def pack(run: Path, file: Path) -> Path:
    """Write a finished run's weights and its record into one file; returns it.

    Tensors of several rows are kept as int8 with a float32 scale a row, so that no number moves by more than half of a
    255th of its row's range; all others stay float32. The record's files stand in the header as they are.

    Raises UserError where the run is missing, unfinished or broken, and for a model whose loss is not the kit's own.
    """
    if io.read_json(run / CONFIG).get("plugins"):
        raise UserError(
            f"{run} has a visual loss that is not the kit's own, and weights hold no program: `vlp export` it"
        )
    with TemporaryDirectory() as folder:
        made = from_pretrained(run).save_pretrained(folder)
        texts = {name: io.read_text(made / name) for name in _TEXTS if (made / name).is_file()}
        _, state = read_tensors(made / WEIGHTS, "run its stage again")
    tensors = {}
    for name, value in state.items():
        if value.ndim > 1 and len(value) > 1:
            scale = (value.flatten(1).abs().amax(1) / 127).clamp(min=1e-12)
            tensors[name + _SCALE] = scale
            value = (value / _column(scale, value)).round().to(torch.int8)
        tensors[name] = value.contiguous()
    io.write_atomically(file, lambda target: save_file(tensors, target, metadata=texts))
    return file


def unpack(file: Path) -> TrainedModel:
    """The model of a packed file, on the CPU; raises UserError where it is broken or no packed model."""
    texts, tensors = read_tensors(file, "fetch it again")
    if missing := {CONFIG, RECORD} - texts.keys():
        raise UserError(f"{file} is no packed model (its header has no {min(missing)}): give one that `vlp pack` wrote")
    state = {name: value for name, value in tensors.items() if not name.endswith(_SCALE)}
    for name, value in state.items():
        if value.dtype == torch.int8:
            scale = tensors.get(name + _SCALE)
            if scale is None or value.ndim == 0 or scale.shape != value.shape[:1] or scale.dtype != torch.float32:
                raise UserError(f"{file} has no scale for {name}'s rows: fetch it again")
            state[name] = value * _column(scale, value)
    with TemporaryDirectory() as folder:
        for name in texts.keys() & set(_TEXTS):
            io.write_text(Path(folder) / name, texts[name])
        save_file(state, Path(folder) / WEIGHTS, metadata={"about": json.dumps({"file": str(file)})})
        try:
            return from_pretrained(folder)
        except UserError as error:
            raise UserError(str(error).replace(str(Path(folder) / WEIGHTS), str(file))) from error


def shipped(stage: str, name: str) -> Path:
    """Where the packed model of a run of `tiny` lies that comes with the kit."""
    return reference_root() / "weights" / f"{stage}-{name}.safetensors"


def ready_models(*runs: Run, stage: str = "pretrain") -> list[TrainedModel]:
    """The runs' own models where all of them are finished, else those of their names with the kit; says which.

    Never some of each: they would have learned from other images and words. Raises UserError where there are neither.
    """
    if all((run.folder(stage) / RECORD).is_file() for run in runs):
        print("trained by you:", *(run.folder(stage) for run in runs))
        return [from_pretrained(run.folder(stage), plugin=run.plugin) for run in runs]
    return [_shipped_model(run, stage) for run in runs]


def ready_model(run: Run, stage: str = "pretrain") -> TrainedModel:
    """As `ready_models`, of one run."""
    return ready_models(run, stage=stage)[0]


def shipped_vqa(run: Run) -> tuple[DownstreamModel, Tokenizer]:
    """The model of VQA that comes with the kit, for the profile and the corpus whose answers it knows.

    Raises UserError for a run of others, and a variant that does not come with the kit.
    """
    made = reference_root().name
    if run.profile != made or run.data_root or run.settings:
        raise UserError(
            f"no finished finetune-vqa in {run.folder('finetune-vqa')}, and the kit's model knows the answers of the "
            f"profile {made} only: run `{run.command('finetune-vqa')}` first"
        )
    model = _shipped_model(run, "finetune-vqa")
    assert isinstance(model.network, DownstreamModel)
    return model.network, model.tokenizer


def _shipped_model(run: Run, stage: str) -> TrainedModel:
    file = shipped(stage, run.name)
    if not file.is_file():
        raise UserError(
            f"no finished {stage} in {run.folder(stage)}, and no {run.name} comes with the kit: run "
            f"`{run.command(stage)}` first"
        )
    model = unpack(file)
    record = model.record
    print(
        f"not trained by you in the profile {run.profile}: the weights of {run.name} come with the kit (profile "
        f"{record.run['profile']}, seed {record.run['seed']}, {record.best['step']:,} steps)"
    )
    return model


def _column(scale: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The scales of the rows in a shape that multiplies them."""
    return scale.reshape(-1, *[1] * (value.ndim - 1))
