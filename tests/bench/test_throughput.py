from dataclasses import replace

import pandas as pd
import pytest

from vlp_lib import cli
from vlp_lib.bench import budget
from vlp_lib.bench.step import PARTS
from vlp_lib.bench.throughput import bench_train, forecast, is_full_size
from vlp_lib.config import ModelConfig, parse_variant, profile
from vlp_lib.errors import UserError
from vlp_lib.io import read_json


def test_the_command_measures_a_small_size(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VLP_RESULTS", str(tmp_path))
    few = ("--steps", "2", "--warmup", "1", "--set", "training.batch_size=4", "--set", "training.accumulation=2")
    assert cli.main(["bench", "train", "--profile", "smoke", *few]) == 0
    facts = read_json(tmp_path / "smoke/bench/train.json")
    assert [row["variant"] for row in facts["rows"]] == ["naive_vit", "segl", "spl_large"]
    for row in facts["rows"]:
        assert row["step_ms"] == pytest.approx(sum(row[f"{name}_ms"] for name in PARTS), rel=0.02)
        assert row["samples_per_second"] == pytest.approx(4000 / row["step_ms"], rel=0.01)
        assert row["tflops"] == pytest.approx(
            row["gflop_per_sample"] * row["samples_per_second"] / 1000, rel=0.1, abs=1e-3
        )
        assert 0 < row["share"] < 1
        assert row["forecast_hours"] is row["target_met"] is None  # a miniature says nothing about the paper
    assert (facts["paper_hours"], facts["target"]["hours"]) == (470, 12)
    table = pd.read_csv(tmp_path / "smoke/bench/train.csv")
    assert table.samples_per_second.tolist() == [row["samples_per_second"] for row in facts["rows"]]
    said = capsys.readouterr().out
    assert "A miniature" in said
    assert "| segl |" in said


def test_the_forecast_is_the_papers_arithmetic():
    paper = profile("paper")
    assert budget.samples(paper, budget.PAPER_PAIRS) == 75_000_000
    assert budget.hours(75_000_000, budget.TARGET_RATE) == pytest.approx(11.9, abs=0.01)
    assert budget.samples(profile("tiny"), 1) == profile("tiny").training.steps * 32
    assert is_full_size(ModelConfig())
    assert is_full_size(paper.model)
    assert not is_full_size(replace(paper.model, image_size=64))
    assert not is_full_size(profile("tiny").model)


@pytest.mark.parametrize(("pace", "expected"), [(1_750.0, "| 11.9 | yes |"), (1_700.0, "| 12.25 | no |")])
def test_the_aim_is_answered(pace, expected):
    hours = budget.hours(75_000_000, pace)
    row = {"variant": "segl", "forecast_hours": round(hours, 2)}
    row["target_met"] = hours <= budget.TARGET_HOURS and pace >= budget.TARGET_RATE
    said = forecast([row])
    assert expected in said
    assert "took 470 V100-hours" in said


def test_no_steps_are_an_error(tiny_corpus, small_profile, tmp_path):
    with pytest.raises(UserError, match="steps is 0"):
        bench_train(small_profile, (parse_variant("segl"),), tiny_corpus, 0, 1, tmp_path)
