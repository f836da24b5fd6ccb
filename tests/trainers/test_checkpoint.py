import contextlib
import errno
import os
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from contexts import SIZES
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from vlp_lib.errors import UserError
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.trainers import checkpoint
from vlp_lib.trainers.checkpoint import load_state, load_weights, save_state, save_weights
from vlp_lib.variants import parse_variant

ABOUT = {"profile": "smoke", "variant": "segl", "step": 7, "model": {"hidden": 32}}


def build(config, name):
    return PretrainingModel(VLPModel(config, parse_variant(name), SIZES))


@pytest.fixture
def saved(small_model, tmp_path):
    """A model and the file of its weights."""
    model, path = build(small_model, "segl"), tmp_path / "model.safetensors"
    save_weights(path, model, ABOUT)
    return model, path


@contextlib.contextmanager
def small_disk(size=20_000):
    """No file can be written beyond so many bytes: what a full disk does, for real."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Weights


def test_weights_come_back_with_what_they_are_of(small_model, tmp_path):
    model, other = build(small_model, "segl"), build(small_model, "segl")
    path = tmp_path / "new" / "model.safetensors"
    save_weights(path, model, ABOUT)
    assert load_weights(path, other) == ABOUT
    state = other.state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(state)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("name", "change", "tensor"),
    [
        ("naive_vit", {}, r"at vlp\.visual_loss\.losses\.segl\.classify\.bias it has \(7,\), this model nothing"),
        ("segl+ssul", {}, r"at vlp\.visual_loss\.losses\.ssul\.predict\.bias it has nothing, this model \(3,\)"),
        ("segl_resnet", {}, r"at vlp\.vision\.backbone\."),
        ("segl", {"max_text_length": 600}, r"position_embeddings\.weight it has \(512, 32\), this model \(600, 32\)"),
    ],
)
def test_weights_of_another_model_are_refused(small_model, saved, name, change, tensor):
    _, path = saved
    other = build(replace(small_model, **change), name)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    message = rf"{path} holds another model \(profile smoke, variant segl, step 7\): .*{tensor}"
    with pytest.raises(UserError, match=message):
        load_weights(path, other)
    assert all(torch.equal(other.state_dict()[k], v) for k, v in before.items())


def test_missing_and_broken_weights_are_named(saved):
    model, path = saved
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match=f"no weights at {path}"):
        load_weights(path, model)
    for content in (b"", b"x" * 100, whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path} is no readable weights file"):
            load_weights(path, model)
    for about in ("{", "[1]", "[" * 5_000):
        save_file(model.state_dict(), path, metadata={"about": about})
        with pytest.raises(UserError, match=f"{path} is no readable weights file"):
            load_weights(path, model)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.int8, torch.bool])
def test_quantised_weights_are_named(tmp_path, kind):
    save_file({"weight": torch.ones(2, 3).to(kind), "bias": torch.ones(2)}, tmp_path / "linear.safetensors")
    with pytest.raises(UserError, match=r"has weight as .*give weights that are not quantised"):
        load_weights(tmp_path / "linear.safetensors", nn.Linear(3, 2))


def test_weights_of_others_carry_no_description(tmp_path):
    save_file({"weight": torch.ones(2, 3), "bias": torch.ones(2)}, tmp_path / "linear.safetensors")
    layer = nn.Linear(3, 2)
    assert load_weights(tmp_path / "linear.safetensors", layer) == {}
    assert torch.equal(layer.weight, torch.ones(2, 3))
    with pytest.raises(UserError, match="another model \\(unnamed\\)"):
        load_weights(tmp_path / "linear.safetensors", nn.Linear(4, 2))


def test_full_disk_leaves_the_earlier_weights(saved, tmp_path):
    model, path = saved
    before = path.read_bytes()
    assert len(before) > 50_000
    with small_disk(), pytest.raises(UserError, match=f"cannot write {path}.*make room"):
        save_weights(path, model, ABOUT)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_writing_that_fails_midway_leaves_the_earlier_weights(saved, tmp_path, monkeypatch):
    model, path = saved
    before = path.read_bytes()

    def half(state, target, metadata):
        Path(target).write_bytes(before[:1000])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "save_file", half)
    with pytest.raises(UserError, match="No space left on device"):
        save_weights(path, model, ABOUT)
    with pytest.raises(UserError, match="No space left on device"):
        save_weights(tmp_path / "first.safetensors", model, ABOUT)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


# States


def trained(steps=3, seed=0):
    """An accelerator with a model and an optimiser that have made some steps."""
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    torch.manual_seed(seed)
    model = nn.Linear(100, 100)
    model, optimiser = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    for _ in range(steps):
        accelerator.backward(model(torch.randn(2, 100)).square().mean())
        optimiser.step()
        optimiser.zero_grad()
    return accelerator, model, optimiser


def test_state_holds_all_that_training_needs(tmp_path):
    accelerator, model, optimiser = trained()
    save_state(accelerator, tmp_path, {"step": 3, "seconds": 1.5}, keep=2)
    expected = torch.rand(4)
    accelerator, other, others = trained(steps=0, seed=1)
    assert load_state(accelerator, tmp_path) == {"step": 3, "seconds": 1.5}
    assert torch.equal(torch.rand(4), expected)  # the random numbers go on, too
    assert torch.equal(other.weight, model.weight)
    moments = [o.state_dict()["state"][0]["exp_avg_sq"] for o in (optimiser, others)]
    assert moments[0].any()
    assert torch.equal(*moments)


def test_no_state_is_none(tmp_path):
    accelerator, _, _ = trained(0)
    assert load_state(accelerator, tmp_path) is None
    assert load_state(accelerator, tmp_path / "absent") is None


def test_the_newest_whole_state_counts(tmp_path):
    accelerator, _, _ = trained()
    for step in (8, 9, 10, 11):
        save_state(accelerator, tmp_path, {"step": step}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010", "step-00000011"]
    (tmp_path / "step-00000012.half-written").mkdir()
    (tmp_path / "notes").mkdir()
    assert load_state(accelerator, tmp_path) == {"step": 11}
    # What was left of an interrupted attempt is written over.
    (tmp_path / "step-00000012.half-written" / "junk").write_text("junk")
    save_state(accelerator, tmp_path, {"step": 12}, keep=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes", "step-00000012"]
    assert "junk" not in {p.name for p in (tmp_path / "step-00000012").iterdir()}


def test_full_disk_leaves_the_earlier_state(tmp_path):
    accelerator, model, _ = trained()
    save_state(accelerator, tmp_path, {"step": 3}, keep=2)
    weight = model.weight.detach().clone()
    with small_disk(), pytest.raises(UserError, match=r"cannot write the checkpoint .*step-00000004.*make room"):
        save_state(accelerator, tmp_path, {"step": 4}, keep=2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000003"]
    accelerator, other, _ = trained(0, seed=1)
    assert load_state(accelerator, tmp_path) == {"step": 3}
    assert torch.equal(other.weight, weight)


@pytest.mark.parametrize("where", ["state", "description"])
def test_writing_that_fails_midway_leaves_the_earlier_state(tmp_path, monkeypatch, where):
    accelerator, _, _ = trained()
    save_state(accelerator, tmp_path, {"step": 3}, keep=2)

    def half(folder, **options):
        Path(folder, "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(path, value):
        raise UserError(f"cannot write {path} (No space left on device)")

    if where == "state":
        monkeypatch.setattr(accelerator, "save_state", half)
    else:
        monkeypatch.setattr(checkpoint, "write_json", refuse)
    with pytest.raises(UserError, match="No space left on device"):
        save_state(accelerator, tmp_path, {"step": 4}, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000003"]
    assert load_state(accelerator, tmp_path) == {"step": 3}


def test_broken_states_are_named(tmp_path):
    accelerator, _, _ = trained()
    save_state(accelerator, tmp_path, {"step": 3}, keep=2)
    folder = tmp_path / "step-00000003"
    names = {p.name for p in folder.iterdir()}
    assert {"model.safetensors", "optimizer.bin", "state.json"} <= names
    for name in sorted(names):
        whole = (folder / name).read_bytes()
        for content in (b"", b"garbage that is no file of this kind", whole[: len(whole) // 2]):
            (folder / name).write_bytes(content)
            with pytest.raises(UserError, match=str(folder)) as error:
                load_state(accelerator, tmp_path)
            assert "\n" not in str(error.value), name
        (folder / name).unlink()
        with pytest.raises(UserError, match=str(folder)):
            load_state(accelerator, tmp_path)
        (folder / name).write_bytes(whole)
    assert load_state(accelerator, tmp_path) == {"step": 3}


def flip(path, rng):
    """Change one bit of a file; returns its whole contents."""
    whole = path.read_bytes()
    position, bit = int(rng.integers(len(whole))), int(rng.integers(8))
    path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :])
    return whole


@pytest.mark.parametrize("flips", [20, pytest.param(100, marks=pytest.mark.fuzz)])
def test_a_flipped_bit_is_never_read(tmp_path, capsys, flips):
    """The state before is taken and said; where there is none, it is refused."""
    accelerator, model, _ = trained()
    save_state(accelerator, tmp_path, {"step": 3}, keep=2)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    save_state(accelerator, tmp_path, {"step": 4}, keep=2)
    only = tmp_path / "only"
    shutil.copytree(tmp_path / "step-00000004", only / "step-00000004")
    rng = np.random.default_rng(0)
    names = sorted(p.name for p in (only / "step-00000004").iterdir())
    for name in (names * flips)[:flips]:
        whole = flip(tmp_path / "step-00000004" / name, rng)
        (only / "step-00000004" / name).write_bytes((tmp_path / "step-00000004" / name).read_bytes())
        assert load_state(accelerator, tmp_path) == {"step": 3}
        said = "step-00000004 is damaged (its SHA256SUMS says so): going on from step-00000003\n"
        assert capsys.readouterr().out.endswith(said)
        assert torch.equal(model.weight, before)
        with pytest.raises(UserError, match=r"step-00000004 cannot be read .* no whole one before it"):
            load_state(accelerator, only)
        for folder in (tmp_path, only):
            (folder / "step-00000004" / name).write_bytes(whole)
    assert load_state(accelerator, tmp_path) == {"step": 4}
    assert {"model.safetensors", "optimizer.bin", "state.json", "SHA256SUMS"} <= set(names)


def test_state_of_another_model_is_named(tmp_path):
    accelerator, _, _ = trained()
    save_state(accelerator, tmp_path, {"step": 3}, keep=2)
    accelerator.free_memory()
    model = nn.Linear(5, 5)
    accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    with pytest.raises(UserError, match="step-00000003 cannot be read") as error:
        load_state(accelerator, tmp_path)
    assert "\n" not in str(error.value)


def test_another_number_of_processes_is_named(tmp_path):
    accelerator, _, _ = trained()
    save_state(accelerator, tmp_path, {"step": 3}, keep=2)
    path = tmp_path / "step-00000003" / "state.json"
    path.write_text(path.read_text().replace('"processes": 1', '"processes": 2'))
    sums = (f"{sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in sorted(path.parent.iterdir()) if p.suffix)
    (path.parent / "SHA256SUMS").write_text("".join(sums))
    with pytest.raises(UserError, match="was written by 2 processes and 1 would go on with it"):
        load_state(accelerator, tmp_path)


def test_a_kill_while_an_old_state_is_deleted_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    accelerator, _, _ = trained()
    save_state(accelerator, tmp_path, {"step": 3}, keep=1)
    real = shutil.rmtree

    def killed(path, **options):
        if Path(path).exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save_state(accelerator, tmp_path, {"step": 4}, keep=1)
    monkeypatch.setattr(checkpoint.shutil, "rmtree", real)
    assert load_state(accelerator, tmp_path) == {"step": 4}
    assert [p.name for p in tmp_path.iterdir() if p.name[-4:].isdigit()] == ["step-00000004"]
    checkpoint.remove_half_written(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000004"]
