"""An ablation as a grid of runs with names."""

import pytest

from vlp_lib.errors import UserError
from vlp_lib.profiles import profile
from vlp_lib.run import RECORD, Run
from vlp_lib.study import ablation
from vlp_lib.study.ablation import FACTORS, courses, finished, grid, numbers, on_backbone, usual
from vlp_lib.trainers.pretrain import pretrain
from vlp_lib.workspace import open_run_corpus

pytestmark = pytest.mark.usefixtures("results")


def names(*arguments, seeds=(0,)):
    return [run.name for run in grid("smoke", *arguments, seeds)]


def test_every_factor_has_a_usual_value_that_a_run_may_set():
    for name, factor in FACTORS.items():
        value = usual("lesson", name)
        assert Run("lesson", "ssul", name="x", settings=(f"{factor.setting}={value}",)).config
    assert usual("lesson", "mlm") == profile("lesson").data.mlm_probability
    assert usual("lesson", "hidden") == 0.15


@pytest.mark.parametrize(
    ("mix", "backbone", "variant"),
    [
        ("naive", "", "naive_vit"),
        ("naive", "resnet", "naive_resnet"),
        ("segl", "vit", "segl"),
        ("segl", "resnet", "segl_resnet"),
        ("segl_resnet", "vit", "segl_resnet"),
        ("naive_vit", "resnet", "naive_vit"),
        ("ssul", "resnet", "ssul@resnet"),
        ("segl+0.5*ssul", "vit", "segl+0.5*ssul"),
        ("ssul@resnet", "vit", "ssul@resnet"),
        ("region", "resnet", "region"),
    ],
)
def test_a_mix_on_a_backbone_is_called_as_the_paper_calls_it(mix, backbone, variant):
    assert on_backbone(mix, backbone, "lesson") == variant


def test_every_combination_is_a_run_and_the_baseline_has_no_name_of_its_own():
    expected = ["segl", "segl-mlm0.6", "segl_resnet", "segl_resnet-mlm0.6"]
    assert names(["segl"], ["vit", "resnet"], {"mlm": [0.15, 0.6]}) == expected
    runs = grid("smoke", ["naive"], [], {}, [4, 2])
    assert [(run.name, run.seed) for run in runs] == [("naive_vit", 4), ("naive_vit", 2)]


def test_what_a_variant_does_not_read_is_not_varied():
    values = {"maps": [0.1], "noise": [3], "hidden": [0.5]}
    assert names(["naive", "segl", "ssul", "spl_small", "region", "segl+ssul"], [], values) == [
        "naive_vit",
        "segl-maps0.1",
        "ssul-hidden0.5",
        "spl_small-noise3",
        "region-noise3",
        "segl+ssul-maps0.1-hidden0.5",
    ]


def test_settings_are_those_of_the_name():
    (run,) = grid("smoke", ["segl+0.5*ssul"], [], {"typical": [0], "hidden": [0.9]}, [0])
    assert (run.config.corpus.typical, run.config.model.losses) == (0.0, {"ssul.probability": 0.9})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["sgel"], [], {}, [0]), "did you mean 'segl'"),
        ((["segl"], ["restnet"], {}, [0]), "unknown backbone 'restnet'"),
        ((["segl"], [], {"maps": [2]}, [0]), r"corpus\.maps"),
        (([], [], {}, [0]), "nothing is to be run"),
        ((["segl"], [], {}, []), "nothing is to be run"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(arguments, message):
    with pytest.raises(UserError, match=message):
        grid("smoke", *arguments)


def test_numbers_are_numbers():
    assert numbers("0.1  5", "maps", float) == [0.1, 5.0]
    with pytest.raises(UserError, match=r"seeds: '0\.5' are no whole numbers"):
        numbers("0.5", "seeds", int)


def test_a_finished_run_is_known_by_its_settings_and_one_that_is_on_its_way_is_seen():
    plain, named = (Run("smoke", "naive", 0, settings=s) for s in ((), ("data.mlm_probability=0.5",)))
    assert courses([plain]).empty and not finished(plain)
    pretrain(plain, open_run_corpus(plain))
    assert finished(plain) and not finished(named)
    (plain.folder("pretrain") / RECORD).unlink()
    assert not finished(plain)
    seen = courses([plain])
    assert set(seen["name"]) == {"naive"} and len(seen) == 1 + plain.config.training.evaluations
    assert ablation.courses([]).empty
