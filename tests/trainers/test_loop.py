import copy
import dataclasses
import json
import math
from dataclasses import dataclass, replace

import pytest
import torch
from made_runs import without_time
from safetensors.torch import load_file
from torch import nn

from vlp_lib.config import TrainingConfig
from vlp_lib.errors import UserError
from vlp_lib.io import read_json, read_lines
from vlp_lib.trainers import loop

CONFIG = TrainingConfig(
    batch_size=4, learning_rate=0.05, evaluations=4, checkpoints=4, keep=2, validation_images=4, precision="float32"
)
STEPS = 12


@dataclass(frozen=True)
class Numbers:
    x: torch.Tensor
    y: torch.Tensor

    def to(self, device):
        return Numbers(self.x.to(device), self.y.to(device))


class Regression(loop.Task):
    """A task whose batches depend on the step alone; `fail_at` interrupts it before a step."""

    name = "regression"

    def __init__(self, batch_size=4, accumulation=1, fail_at=None, values=None, poison=None):
        self.batch_size, self.accumulation = batch_size, accumulation
        self.fail_at, self.values, self.poison = fail_at, iter(values or ()), poison or {}
        self.step = -1

    def batches(self, start, rank, world):
        for step in range(start, 1000):
            generator = torch.Generator().manual_seed(step)
            x = torch.randn(self.batch_size, 3, generator=generator)
            y = x.sum(1, keepdim=True)
            share = self.batch_size // self.accumulation
            for part in range(self.accumulation):
                self.step = step
                yield Numbers(x[part * share : (part + 1) * share], y[part * share : (part + 1) * share])

    def losses(self, model, batch):
        if self.step == self.fail_at:
            raise KeyboardInterrupt
        loss = (model(batch.x) - batch.y).square().mean()
        extra = torch.tensor(self.poison.get(self.step, 1.0))
        return {"other": extra, "loss": loss}

    def evaluate(self, model, device):
        x = torch.linspace(-1, 1, 12).reshape(4, 3)
        found = (model(x) - x.sum(1, keepdim=True)).square().mean().item()
        return {"val_loss": next(self.values, found), "val_found": found}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))


def run(model, folder, task=None, config=CONFIG, steps=STEPS, about=None, restart=False):
    """A run from fresh copies, as a new process would begin it."""
    loop.seed_everything(7)
    fresh = copy.deepcopy(model)
    rows = loop.fit(fresh, task or Regression(), config, steps, 7, folder, about or {"variant": "v"}, restart)
    return fresh, rows


# Schedule


def test_learning_rate_rises_and_falls_linearly():
    factors = [loop.learning_rate_factor(step, 100, 0.1) for step in range(101)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(factors) == 1.0 == factors[9]
    assert factors[10:] == pytest.approx([(100 - i) / 90 for i in range(10, 101)])
    assert factors[100] == 0
    assert min(factors[:100]) > 0


@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_learning_rate_of_short_runs_is_positive(warmup, steps):
    factors = [loop.learning_rate_factor(step, steps, warmup) for step in range(steps)]
    assert all(0 < f <= 1 for f in factors)
    assert max(factors) == 1


def test_learning_rate_reaches_the_optimiser(model, tmp_path):
    """Of a gradient that always points one way Adam's first steps are as long as the learning rate."""

    class Slope(Regression):
        def losses(self, model, batch):
            seen.append(model.weight.item())
            return {"loss": model(torch.ones(1, 1)).sum()}

        def evaluate(self, model, device):
            return {"val_loss": 0.0}

    seen = []
    slope = nn.Linear(1, 1)
    config = replace(CONFIG, learning_rate=0.01, weight_decay=0.0, warmup=0.5, clip=1e9)
    loop.fit(slope, Slope(), config, 8, 0, tmp_path, {})
    lengths = [a - b for a, b in zip(seen, [*seen[1:], slope.weight.item()], strict=True)]
    expected = [0.01 * loop.learning_rate_factor(step, 8, 0.5) for step in range(8)]
    assert lengths == pytest.approx(expected, rel=1e-3)


def test_no_decay_on_vectors(model):
    model[0].weight.requires_grad_(False)
    groups = loop.make_optimiser(model, replace(CONFIG, weight_decay=0.3)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert [[p.ndim for p in group["params"]] for group in groups] == [[2], [1, 1]]


def test_pretrained_parts_have_a_rate_of_their_own(model, tmp_path, monkeypatch):
    """At each step, warm-up and decay included, a tenth of the others'."""
    monkeypatch.setattr(type(model), "pretrained_parameters", lambda part: list(part[0].parameters()), raising=False)
    config = replace(CONFIG, learning_rate=0.5, pretrained_rate=0.1, weight_decay=0.3)
    groups = loop.make_optimiser(model, config).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    found = {(names[id(p)], group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert {entry for entry in found if entry[0].startswith("0.")} == {("0.weight", 0.05, 0.3), ("0.bias", 0.05, 0.0)}
    assert {rate for name, rate, _ in found if not name.startswith("0.")} == {0.5}
    with pytest.raises(UserError, match="pretrained_rate"):
        replace(CONFIG, pretrained_rate=0.0)


def test_gradients_are_clipped(model, tmp_path, monkeypatch):
    norms = []
    clip = torch.nn.utils.clip_grad_norm_

    def watched(parameters, most, **options):
        parameters = list(parameters)
        clip(parameters, most, **options)
        norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in parameters)))

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
    run(model, tmp_path, config=replace(CONFIG, clip=0.01))
    assert len(norms) == STEPS
    assert max(norms) <= 0.01 + 1e-6


# What is written


def test_rows_weights_and_configuration(model, tmp_path, capsys):
    _, rows = run(model, tmp_path)
    assert [row["step"] for row in rows] == [0, 3, 6, 9, 12]
    assert [row["samples"] for row in rows] == [0, 12, 24, 36, 48]
    assert read_lines(tmp_path / "metrics.jsonl") == rows
    assert set(rows[0]) == {"step", "samples", "seconds", "val_loss", "val_found"}
    assert set(rows[1]) == set(rows[0]) | {"train_loss", "train_other"}
    assert all(row["train_other"] == 1.0 for row in rows[1:])
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]
    config = read_json(tmp_path / "config.json")
    assert (config["variant"], config["steps"], config["seed"]) == ("v", STEPS, 7)
    assert config["training"] == dataclasses.asdict(CONFIG)
    assert len(read_json(tmp_path / "code.json")["modules"]["vlp_lib.trainers.loop"]) == 64
    assert "step 12/12" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.half-written"))


def test_train_losses_are_means_since_the_last_evaluation(model, tmp_path):
    task = Regression(poison={step: float(step) for step in range(12)})
    _, rows = run(model, tmp_path, task)
    assert [row["train_other"] for row in rows[1:]] == pytest.approx([1.0, 4.0, 7.0, 10.0])


def test_a_visual_loss_that_over_fits_does_not_choose_the_weights(model, tmp_path):
    """Of the losses that all variants share the last weights are the best, of all losses the second."""
    task, visual = Regression(values=[5.0, 3.0, 4.0, 6.0, 7.0]), iter([0.0, 0.0, 2.0, 5.0, 6.5])
    evaluate = task.evaluate
    task.evaluate = lambda model, device: evaluate(model, device) | {"val_visual": next(visual)}
    _, rows = run(model, tmp_path, task)
    fresh = copy.deepcopy(model)
    fresh.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert Regression().evaluate(fresh.eval(), None)["val_found"] == rows[-1]["val_found"]


def test_weights_of_the_lowest_validation_loss_are_kept(model, tmp_path):
    values = [5.0, 3.0, 4.0, 2.0, 2.5]
    _, rows = run(model, tmp_path, Regression(values=values))
    assert [row["val_loss"] for row in rows] == values
    best = load_file(tmp_path / "model.safetensors")
    fresh = copy.deepcopy(model)
    fresh.load_state_dict(best)
    assert Regression().evaluate(fresh.eval(), None)["val_found"] == rows[3]["val_found"]
    assert rows[3]["val_found"] != rows[4]["val_found"]


def test_a_validation_loss_that_is_no_number_is_never_the_lowest(model, tmp_path):
    _, rows = run(model, tmp_path, Regression(values=[5.0, 3.0, math.nan, math.nan, 4.0]))
    fresh = copy.deepcopy(model)
    fresh.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert Regression().evaluate(fresh.eval(), None)["val_found"] == rows[1]["val_found"]


def test_the_last_states_are_kept(model, tmp_path):
    run(model, tmp_path / "two")
    assert sorted(p.name for p in (tmp_path / "two/checkpoints").iterdir()) == ["step-00000009", "step-00000012"]
    run(model, tmp_path / "one", config=replace(CONFIG, keep=1, checkpoints=0))
    assert [p.name for p in (tmp_path / "one/checkpoints").iterdir()] == ["step-00000012"]


# Resuming


@pytest.mark.parametrize("fail_at", [0, 2, 3, 5, 8, 11])
@pytest.mark.parametrize("checkpoints", [4, 3, 5])
def test_resumed_run_is_bit_equal(model, tmp_path, fail_at, checkpoints):
    """With dropout, and with checkpoints that do and do not fall on evaluations."""
    config = replace(CONFIG, checkpoints=checkpoints)
    expected, expected_rows = run(model, tmp_path / "whole", config=config)
    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path / "resumed", Regression(fail_at=fail_at), config)
    assert len(read_lines(tmp_path / "resumed/metrics.jsonl")) < len(expected_rows)
    torch.rand(5)  # a new process is somewhere else in its random numbers
    found, rows = run(model, tmp_path / "resumed", config=config)
    assert without_time(rows) == without_time(expected_rows)
    assert without_time(read_lines(tmp_path / "resumed/metrics.jsonl")) == without_time(expected_rows)
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    kept, expected_kept = (load_file(tmp_path / f / "model.safetensors") for f in ("resumed", "whole"))
    assert all(torch.equal(kept[name], value) for name, value in expected_kept.items())


def test_resumed_run_remembers_its_lowest_validation_loss(model, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path, Regression(fail_at=7, values=[5.0, 1.0, 3.0]))
    kept = load_file(tmp_path / "model.safetensors")
    _, rows = run(model, tmp_path, Regression(values=[4.0, 2.0]))
    assert [row["val_loss"] for row in rows] == [5.0, 1.0, 3.0, 4.0, 2.0]
    again = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(again[name], value) for name, value in kept.items())


def test_seconds_go_on_where_they_stopped(model, tmp_path, monkeypatch):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path, Regression(fail_at=7))
    state = read_json(tmp_path / "checkpoints/step-00000006/state.json")
    assert state["seconds"] > 0
    _, rows = run(model, tmp_path)
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert rows[3]["seconds"] >= state["seconds"]


def test_finished_run_is_not_run_again(model, tmp_path):
    trained, rows = run(model, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    again, same = run(model, tmp_path, Regression(fail_at=0))
    assert same == rows
    assert all(torch.equal(again.state_dict()[k], v) for k, v in trained.state_dict().items())
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"config": replace(CONFIG, learning_rate=0.1)}, r"training\.learning_rate = 0\.05 and now it is 0\.1"),
        ({"about": {"variant": "w"}}, "variant = 'v' and now it is 'w'"),
        ({"about": {"variant": "v", "model": {"hidden": 3}}}, r"model\.hidden = None and now it is 3"),
        ({"steps": 24}, "steps = 12 and now it is 24"),
    ],
)
def test_another_configuration_is_refused_or_begun_anew(model, tmp_path, change, field, capsys):
    run(model, tmp_path)
    (tmp_path / "note.txt").write_text("of the run before")
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=f"{tmp_path} was begun with {field}"):
        run(model, tmp_path, **change)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    _, rows = run(model, tmp_path, **change, restart=True)
    assert "it lies now in" in capsys.readouterr().out
    (aside,) = tmp_path.parent.glob(f"old-*-{tmp_path.name}")
    assert (aside / "note.txt").exists() and (aside / "metrics.jsonl").read_bytes() == before
    assert not (tmp_path / "note.txt").exists()
    _, expected = run(model, tmp_path / "fresh", **change)
    assert without_time(rows) == without_time(expected)


def test_restart_goes_on_with_the_same_configuration(model, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path, Regression(fail_at=7))
    _, rows = run(model, tmp_path, Regression(fail_at=3), restart=True)  # step 3 was done before
    assert rows[-1]["step"] == STEPS


# Losses


@pytest.mark.parametrize(("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_a_loss_that_is_not_finite_is_named(model, tmp_path, value, text):
    with pytest.raises(UserError, match=f"the loss 'other' became {text} at step 6") as error:
        run(model, tmp_path, Regression(poison={5: value}))
    assert "training.learning_rate" in str(error.value)
    # No state that could be resumed from has seen it.
    assert max(p.name for p in (tmp_path / "checkpoints").iterdir()) == "step-00000003"


def test_losses_are_looked_at_before_a_state_is_written(model, tmp_path, monkeypatch):
    """On a GPU they are read every twenty steps: a state must not be newer than that look."""
    monkeypatch.setattr(loop, "_LossBook", lambda look_every: BOOK(20))
    with pytest.raises(UserError, match="at step 5"):
        run(model, tmp_path, Regression(poison={4: math.nan}))
    assert max(p.name for p in (tmp_path / "checkpoints").iterdir()) == "step-00000003"


BOOK = loop._LossBook


@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulated_parts_are_the_whole_batch(tmp_path, accumulation):
    torch.manual_seed(0)
    plain = nn.Linear(3, 1)
    expected, expected_rows = run(plain, tmp_path / "whole")
    config = replace(CONFIG, accumulation=accumulation)
    found, rows = run(plain, tmp_path / "parts", Regression(accumulation=accumulation), config)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, atol=1e-5, rtol=0)
    for row, other in zip(rows, expected_rows, strict=True):
        assert row["samples"] == other["samples"]
        assert row.get("train_loss") == pytest.approx(other.get("train_loss"), abs=1e-5)


def test_accumulated_run_is_resumed_bit_equal(model, tmp_path):
    config = replace(CONFIG, accumulation=2, checkpoints=3)
    expected, expected_rows = run(model, tmp_path / "whole", Regression(accumulation=2), config)
    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path / "resumed", Regression(accumulation=2, fail_at=6), config)
    found, rows = run(model, tmp_path / "resumed", Regression(accumulation=2), config)
    assert without_time(rows) == without_time(expected_rows)
    assert all(torch.equal(found.state_dict()[k], v) for k, v in expected.state_dict().items())


def test_evaluation_is_without_dropout_and_training_with(model, tmp_path):
    modes = []

    class Watched(Regression):
        def losses(self, model, batch):
            modes.append(("train", model.training, torch.is_inference_mode_enabled()))
            return super().losses(model, batch)

        def evaluate(self, model, device):
            modes.append(("evaluate", model.training, torch.is_inference_mode_enabled()))
            return super().evaluate(model, device)

    run(model, tmp_path, Watched())
    assert set(modes) == {("train", True, False), ("evaluate", False, True)}


# Precision


def test_precisions_follow_each_other_in_one_process(model, tmp_path):
    """A notebook's kernel may train twice."""
    types = []

    class Watched(Regression):
        def losses(self, model, batch):
            types.append((batch.x @ batch.x.T).dtype)
            return super().losses(model, batch)

    for name in ("float32", "bf16", "float32"):
        run(model, tmp_path / f"{name}{len(types)}", Watched(), replace(CONFIG, precision=name), steps=4)
    assert types == [torch.float32] * 4 + [torch.bfloat16] * 4 + [torch.float32] * 4


def test_weights_stay_in_float32_under_bf16(model, tmp_path):
    trained, _ = run(model, tmp_path, config=replace(CONFIG, precision="bf16"), steps=4)
    assert {v.dtype for v in trained.state_dict().values()} == {torch.float32}
    assert {v.dtype for v in load_file(tmp_path / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"avx512_bf16": False}, "float32"),
        ({}, "float32"),
    ],
)
def test_auto_precision_on_a_processor(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert loop.resolve_precision("auto") == expected
    assert loop.resolve_precision("float32") == "float32"
    assert loop.resolve_precision("bf16") == "bf16"
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert loop.resolve_precision("auto") == "float32"


# Settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accumulation": 0}, r"'TrainingConfig\.accumulation' is 0: it must be at least 1"),
        ({"accumulation": 3}, r"batch_size 4 cannot be divided into 3 .*multiple of 3"),
        ({"learning_rate": math.nan}, r"'TrainingConfig\.learning_rate' is nan: it must be above 0"),
    ],
)
def test_what_cannot_be_computed_is_refused(model, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        run(model, tmp_path, config=replace(CONFIG, **change))
    assert not (tmp_path / "config.json").exists()


def test_more_evaluations_than_steps(model, tmp_path):
    _, rows = run(model, tmp_path, config=replace(CONFIG, evaluations=50, checkpoints=50), steps=3)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]


def test_a_broken_metrics_file_is_named(model, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path, Regression(fail_at=7))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": ')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 4 is not JSON"):
        run(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == STEPS
