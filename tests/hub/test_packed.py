"""Packed weights say almost what the run's own say, and broken ones are refused in one sentence."""

import re

import pytest
import torch
from made_runs import pretrained, run_of
from safetensors.torch import load_file, save_file

from vlp_lib import cli
from vlp_lib.errors import UserError
from vlp_lib.hub import packed
from vlp_lib.hub.model import from_pretrained
from vlp_lib.hub.packed import pack, ready_model, ready_models, unpack
from vlp_lib.io import read_json, read_lines
from vlp_lib.run import Run
from vlp_lib.trainers.pretrain import PretrainingTask


@pytest.fixture(scope="module")
def run(small_profile, tiny_corpus, shared_results):
    """A pretraining; nobody writes into it."""
    pretrained(small_profile, "segl", tiny_corpus, 4)
    return run_of(small_profile, "pretrain", "segl", 4)


@pytest.fixture(scope="module")
def file(run, tmp_path_factory):
    return pack(run.folder("pretrain"), tmp_path_factory.mktemp("packed") / "pretrain-segl.safetensors")


def test_the_validation_losses_move_by_less_than_two_hundredths(run, file, small_profile, tiny_corpus):
    own, again = from_pretrained(run.folder("pretrain")), unpack(file)
    task = PretrainingTask(tiny_corpus, own.tokenizer, small_profile, own.variant, 0, 1)
    with torch.inference_mode():
        before, after = (task.evaluate(model.network, torch.device("cpu")) for model in (own, again))
    assert before.keys() == after.keys()
    assert after != before, "eight bits a number lose something"
    assert {name: abs(after[name] - before[name]) < 0.02 for name in before} == dict.fromkeys(before, True)


def test_no_number_moves_by_more_than_half_a_step_of_its_row(run, file):
    own, again = load_file(run.folder("pretrain") / "model.safetensors"), unpack(file).network.state_dict()
    assert own.keys() == again.keys()
    for name, value in own.items():
        step = value.abs().flatten(1).amax(1) / 127 if value.ndim > 1 else torch.zeros(len(value))
        moved = (again[name] - value).abs().reshape(len(value), -1).amax(1)
        assert (moved <= 0.5001 * step + 1e-7).all(), name


def test_the_file_is_a_third_of_the_runs_and_holds_its_record(run, file):
    folder = run.folder("pretrain")
    tensors = sum(value.numel() * value.element_size() for value in load_file(file).values())
    assert tensors < 0.33 * sum(value.numel() * 4 for value in load_file(folder / "model.safetensors").values())
    record = unpack(file).record
    assert record.run == read_json(folder / "run.json") and list(record.rows) == read_lines(folder / "metrics.jsonl")


def test_the_command_says_how_large_it_is(run, tmp_path, capsys):
    target = tmp_path / "out.safetensors"
    assert cli.main(["pack", str(run.folder("pretrain")), str(target)]) == 0
    assert f"{target.stat().st_size:,} bytes" in capsys.readouterr().out


def test_ones_own_run_comes_first_and_then_what_comes_with_the_kit(run, file, monkeypatch, capsys):
    monkeypatch.setattr(packed, "shipped", lambda stage, name: file.with_name(f"{stage}-{name}.safetensors"))
    ready_model(run)
    assert "trained by you" in capsys.readouterr().out
    other = run_of(run.config, "pretrain", "segl", 5)
    ready_model(other)
    assert "come with the kit (profile smoke, seed 4" in capsys.readouterr().out
    # Beside a run that is not finished even one's own is not taken: the two would not have learned from the same words.
    assert len(ready_models(run, other)) == 2
    assert capsys.readouterr().out.count("come with the kit") == 2
    with pytest.raises(UserError, match="no naive_vit comes with the kit: run `vlp pretrain --variant naive_vit"):
        ready_model(run_of(run.config, "pretrain", "naive_vit", 5))


def broken(file, target, change):
    """A copy of a packed file with its tensors or its header changed."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        header = dict(opened.metadata())
    tensors = load_file(file)
    change(tensors, header)
    save_file(tensors, target, metadata=header)
    return target


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors, header: header.pop("config.json"), "is no packed model (its header has no config.json)"),
        (lambda tensors, header: tensors.pop("itm_head.classify.weight/scale"), "no scale for itm_head.classify"),
        (lambda tensors, header: tensors.pop("itm_head.classify.bias"), "at itm_head.classify.bias it has nothing"),
        (lambda tensors, header: tensors["mlm_head.dense.weight/scale"].fill_(float("nan")), "not finite"),
    ],
)  # fmt: skip
def test_what_is_broken_is_named(file, tmp_path, change, said):
    target = broken(file, tmp_path / "broken.safetensors", change)
    with pytest.raises(UserError, match=re.escape(said)) as refused:
        unpack(target)
    assert str(target) in str(refused.value)


def test_a_file_that_was_cut_short_is_refused(file, tmp_path):
    (tmp_path / "short.safetensors").write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"short\.safetensors is no readable weights file"):
        unpack(tmp_path / "short.safetensors")


def test_what_comes_with_the_kit_can_be_read():
    files = sorted(packed.shipped("pretrain", "segl").parent.glob("*.safetensors"))
    assert packed.shipped("pretrain", "segl") in files
    for file in files:
        assert file.stat().st_size < 3_000_000
        model = unpack(file)
        assert file.stem == f"{model.record.run['stage']}-{model.record.run['name']}"


def test_the_kits_model_of_vqa_is_for_its_own_profile_only(capsys):
    model, tokenizer = packed.shipped_vqa(Run("tiny", "segl"))
    assert model.pairs == 1 and len(tokenizer) == len(model.vlp.language.word_embedding)
    assert "come with the kit" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no finished finetune-vqa in .*knows the answers of the profile tiny only"):
        packed.shipped_vqa(Run("smoke", "segl"))
