"""Inference time and cost: what is measured, in which order and how often; never how long it took."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from vlp_lib.bench import speed
from vlp_lib.bench.architecture import Architecture, count, describe
from vlp_lib.bench.contenders import MINIATURE, contenders
from vlp_lib.bench.made_up import SIZES
from vlp_lib.bench.region_detector import DetectorConfig, Proposals, bottom_up_like, stock_detector
from vlp_lib.config import ModelConfig
from vlp_lib.errors import UserError
from vlp_lib.io import read_json
from vlp_lib.models.model import VLPModel
from vlp_lib.profiles import profile
from vlp_lib.variants import VARIANTS

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def miniatures():
    return {one.name: one for one in contenders(MINIATURE, 64, CPU)}


def test_every_contender_is_there(miniatures):
    ours = [name for name in VARIANTS if name != "region"]
    assert list(miniatures) == [*ours, "region_bottom_up", "region_stock", "vilt", "lxmert", "visual_bert"]
    assert Counter(one.kind for one in miniatures.values()) == {"ours": 7, "pipeline": 2, "peer": 3}
    assert "given" in miniatures["lxmert"].note


@torch.inference_mode()
def test_stages_follow_each_other(miniatures):
    for one in miniatures.values():
        state = None
        for stage in one.stages.values():
            state = stage(state)
        pooled = state if isinstance(state, torch.Tensor) else state[-1 if one.name == "lxmert" else 1]
        assert pooled.shape[0] == 1
        assert torch.isfinite(pooled).all()


def test_visual_tokens(miniatures):
    tokens = {name: one.visual_tokens for name, one in miniatures.items()}
    assert tokens["naive_vit"] == tokens["ssul"] == tokens["segl"] == tokens["naive_resnet"] == 4
    assert (tokens["spl_small"], tokens["spl_large"], tokens["region_bottom_up"]) == (36, 100, 8)
    # N for SPL whatever the size, as in the paper, whose others have 324 at 600 px.
    names = ("naive_vit", "naive_resnet", "spl_small", "spl_large")
    papers = [describe(ModelConfig(), VARIANTS[name], (600,)).tokens[600] for name in names]
    assert papers == [324, 19 * 19, 36, 100]


def test_heads_of_losses_are_no_parameters_at_inference(miniatures):
    count = {name: one.parameters for name, one in miniatures.items()}
    assert count["naive_vit"] == count["ssul"] == count["segl"] < count["spl_small"]
    assert count["naive_resnet"] == count["segl_resnet"]


def test_summary():
    runs = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]) / 1000
    found = speed.summary(runs, ["vision", "cross"], rounds=6)
    assert (found["median_ms"], found["runs"], found["stages_ms"]) == (7.0, 3, {"vision": 3.0, "cross": 4.0})
    assert (found["p5_ms"], found["p95_ms"]) == pytest.approx((3.4, 10.6))
    assert found["times_ms"] == [3.0, None, 7.0, None, 11.0, None]


def test_bench_speed_writes_its_record(tmp_path):
    smoke = profile("smoke")
    rows = speed.bench_speed(smoke, 64, 2, 1, tmp_path)
    written = read_json(tmp_path / "latency.json")
    assert written["rows"] == rows
    assert (written["architecture"], written["random_weights"], written["batch"]) == ("miniature", True, 1)
    for row in rows:
        assert (row["random_weights"], row["threads"], row["device"] != "") == (True, torch.get_num_threads(), True)
        assert 0 < row["p5_ms"] <= row["median_ms"] <= row["p95_ms"]
    stages = {row["name"]: list(row["stages_ms"]) for row in rows}
    assert stages["segl"] == ["vision", "language", "cross"]
    assert stages["region_bottom_up"] == ["detector", "selection", "vision", "language", "cross"]


@pytest.mark.parametrize(("size", "runs", "text"), [(20, 2, "image_size is 20"), (64, 0, "runs is 0")])
def test_bench_speed_refuses(tmp_path, size, runs, text):
    with pytest.raises(UserError, match=text):
        speed.bench_speed(profile("smoke"), size, runs, 1, tmp_path)


def proposals(scores):
    """Three boxes, of which the first two overlap."""
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [0.0, 10.0, 10.0, 20.0]])
    return Proposals(torch.arange(3.0)[:, None], boxes, torch.tensor(scores), (20, 10))


def test_selection_within_each_class():
    detector = bottom_up_like(DetectorConfig(layers=(1, 1, 1, 1), classes=2, proposals=5, regions=2), 64)
    # The second box is suppressed in class 0 by the first, but is the best of class 1.
    found = detector.select(proposals([[0.9, 0.0], [0.8, 0.7], [0.1, 0.2]]))
    assert found.features[0, :, 0].tolist() == [0.0, 1.0]
    assert found.labels[0].tolist() == [0, 1]
    assert found.scores[0].tolist() == pytest.approx([0.9, 0.7])
    assert found.boxes[0, 1].tolist() == pytest.approx([0.0, 0.0, 1.0, 0.45])


def test_selection_whatever_the_class():
    detector = stock_detector(2, 64)
    found = detector.select(proposals([[0.9, 0.0], [0.8, 0.7], [0.1, 0.2]]))
    assert found.features[0, :, 0].tolist() == [0.0, 2.0]


def test_detector_hands_on_as_many_boxes_as_a_trained_one():
    torch.manual_seed(0)
    detector = bottom_up_like(DetectorConfig(layers=(1, 1, 2, 1), classes=3, proposals=30, regions=12), 128)
    with torch.inference_mode():
        found = detector.propose(torch.rand(1, 3, 128, 128))
        regions = detector.select(found)
    assert found.features.shape == (30, 2048)
    assert found.scores.shape == (30, 3)
    assert regions.boxes.shape == (1, 12, 4)
    assert ((regions.boxes >= 0) & (regions.boxes <= 1)).all()


def test_cost(tiny_corpus, small_profile, tmp_path):
    rows = {row["variant"]: row for row in speed.bench_cost(small_profile, tiny_corpus, 1, tmp_path)}
    assert list(rows) == list(speed.METHODS)
    assert rows["naive_vit"]["extra_parameters"] == 0
    assert rows["segl"]["extra_parameters"] == 768 * 172 + 172  # one 1×1 convolution to 172 classes
    assert rows["segl"]["extra_parameters_at_inference"] == rows["ssul"]["extra_parameters_at_inference"] == 0
    assert rows["spl_small"]["extra_parameters_at_inference"] > 0
    assert rows["spl_large"]["tokens"] == {"384": 100, "600": 100}
    assert rows["naive_vit"]["tokens"] == {"384": 144, "600": 324}
    with_map = np.mean([tiny_corpus.has_label_map(r) for r in tiny_corpus.split("train")])
    assert rows["segl"]["extra_data_share"] == pytest.approx(with_map, abs=1e-4)
    assert all(row["step_ms"] > 0 and row["note"] == "" for row in rows.values())
    assert read_json(tmp_path / "cost.json")["rows"] == list(rows.values())


def test_cost_says_which_targets_are_missing(tiny_corpus, small_profile, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "describe", lambda *_: Architecture("", {"visual_loss": 0}, 0, {384: 0, 600: 0}))
    bare = dataclasses.replace(tiny_corpus, detections=None)
    rows = {row["variant"]: row for row in speed.bench_cost(small_profile, bare, 1, tmp_path)}
    assert rows["spl_small"]["step_ms"] is None
    assert "has none" in rows["spl_small"]["note"]


def test_parts_shared_to_save_memory_make_the_whole_model(miniatures):
    config = dataclasses.replace(MINIATURE.model, image_size=64)
    heads = {"segl": "classify", "spl_large": "classify", "segl_resnet": "classify"}
    for name, head in heads.items():
        with torch.device("meta"):
            whole = VLPModel(config, VARIANTS[name], SIZES)
            whole.visual_loss = VLPModel(MINIATURE.model, VARIANTS[name], SIZES).visual_loss
        unused = sum(count(getattr(loss, head)) for loss in whole.visual_loss.losses.values())
        assert miniatures[name].parameters == count(whole) - unused
