import accelerate
import pytest
import torch
from made_runs import run_of

from vlp_lib.errors import UserError
from vlp_lib.io import read_lines
from vlp_lib.trainers.launch import pretrain_from_notebook
from vlp_lib.trainers.pretrain import pretrain


@pytest.fixture
def arguments(small_profile, tiny_corpus, results):
    return run_of(small_profile, "pretrain", "naive_vit"), tiny_corpus


def test_one_process_is_this_one(arguments):
    assert pretrain_from_notebook(1, *arguments) == read_lines(arguments[0].folder("pretrain") / "metrics.jsonl")


def test_several_are_left_to_the_launcher(arguments, monkeypatch):
    launched = []

    def launcher(function, args, num_processes):
        launched.append((function, num_processes))
        function(*args)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(accelerate, "notebook_launcher", launcher)
    assert pretrain_from_notebook(4, *arguments) == read_lines(arguments[0].folder("pretrain") / "metrics.jsonl")
    assert launched == [(pretrain, 4)]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(UserError, match="restart its kernel"):
        pretrain_from_notebook(4, *arguments)


@pytest.mark.parametrize("processes", [0, 5])
def test_more_than_there_are(arguments, monkeypatch, processes):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(UserError, match=f"processes is {processes} and this machine has 4 GPUs"):
        pretrain_from_notebook(processes, *arguments)
