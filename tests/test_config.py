import dataclasses
import json
from collections.abc import Mapping

import pytest

from vlp_lib.config import Profile, to_dict
from vlp_lib.errors import UserError, unknown
from vlp_lib.profiles import PROFILES, profile
from vlp_lib.settings import override, parse_parameter
from vlp_lib.variants import VARIANTS


def test_profiles_by_name():
    assert list(PROFILES) == ["smoke", "lesson", "tiny", "photos", "gpu", "paper"]
    assert all(profile(name) is PROFILES[name] and PROFILES[name].name == name for name in PROFILES)
    with pytest.raises(UserError, match=r"unknown profile 'tinny': did you mean 'tiny'\? known are smoke, lesson"):
        profile("tinny")


def test_nothing_near_is_no_suggestion():
    error = unknown("profile", "xyzzy", ["smoke", "tiny"])
    assert str(error) == "unknown profile 'xyzzy': known are smoke, tiny"


def test_variants_are_the_rows_of_table_ii_and_the_region_model():
    assert len(VARIANTS) == 8
    assert {v.vision for v in VARIANTS.values()} == {"vit", "resnet", "region"}
    assert [v.name for v in VARIANTS.values()] == list(VARIANTS)


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_can_be_computed(name):
    """What the model's and the data's shapes need of each other."""
    chosen = profile(name)
    model, training = chosen.model, chosen.training
    assert model.hidden % model.heads == 0
    assert model.vit.width % model.vit.heads == 0
    assert model.image_size % model.vit.patch == 0
    assert training.batch_size % training.accumulation == 0
    json.dumps(to_dict(chosen))


def test_paper_profile_is_the_papers():
    chosen = profile("paper")
    assert (chosen.model.image_size, chosen.model.vit.layers, chosen.model.vit.patch) == (384, 9, 32)
    assert (chosen.model.cross_layers, chosen.model.hidden) == (5, 768)
    assert chosen.model.losses == {}
    assert chosen.model.resnet.layers == (3, 4, 6, 3)
    assert chosen.data.resize == (0.8, 1.2)
    assert (chosen.data.flip, chosen.data.mlm_probability) == (0.5, 0.15)
    assert (chosen.training.epochs, chosen.training.steps) == (15, 0)


# Single settings


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training.steps", 10),
        ("training.learning_rate", 0.5),
        ("training.learning_rate", 1),
        ("model.vit.layers", 3),
        ("model.resnet.layers", (2, 1)),
        ("data.resize", (0.5, 2)),
        ("data.mlm_replacement", "random"),
        ("data.mlm_on_mismatched", True),
        ("model.tokenizer", "bert-base-uncased"),
        ("name", "mine"),
    ],
)
def test_a_setting_is_replaced_and_no_other(path, value):
    before = profile("smoke")
    after = override(before, {path: value})
    assert isinstance(after, Profile)
    old, new = to_dict(before), to_dict(after)
    *folders, field = path.split(".")
    for folder in folders:
        old, new = old[folder], new[folder]
    found, kind = new.pop(field), type(old.pop(field))
    assert found == value
    # Whole numbers become floats where floats are meant: written differently, a setting is the same.
    assert isinstance(found, kind)
    assert new == old
    assert profile("smoke") is before


def test_several_settings_at_once():
    after = override(profile("smoke"), {"training.steps": 3, "training.keep": 5, "model.dropout": 0.3})
    assert (after.training.steps, after.training.keep, after.model.dropout) == (3, 5, 0.3)
    assert override(after, {}) == after


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("training.stpes", r"unknown setting 'training\.stpes': 'stpes': did you mean 'steps'\?"),
        ("trainig.steps", r"unknown setting 'trainig\.steps': 'trainig': did you mean 'training'\?"),
        ("steps", "unknown setting 'steps': 'steps': "),
        ("model.vit.depth", r"unknown setting 'model\.vit\.depth': 'depth'.*known are width, layers"),
        ("", "unknown setting ''"),
        ("training.steps.more", r"setting 'training\.steps\.more' names no single value: 'steps' has no fields"),
        ("model.vit", r"setting 'model\.vit' names no single value: 'vit' has width, layers"),
    ],
)
def test_an_unknown_setting_is_named(path, message):
    with pytest.raises(UserError, match=message):
        override(profile("smoke"), {path: 3})


@pytest.mark.parametrize(
    ("path", "value", "kind"),
    [
        ("training.steps", "many", "int"),
        ("training.steps", 1.5, "int"),
        ("training.steps", True, "int"),
        ("training.learning_rate", "1e-3x", "float"),
        ("training.learning_rate", None, "float"),
        ("model.tokenizer", 5, "str"),
        ("data.mlm_on_mismatched", 1, "bool"),
        ("data.mlm_replacement", "zeros", r"Literal\['zero', 'random'\]"),
        ("model.visual_loss_at", "both", "Literal"),
        ("training.precision", "fp16", "Literal"),
        ("data.resize", (0.8, 1.2, 1.4), "tuple"),
        ("data.resize", "(0.8, 1.2)", "tuple"),
        ("model.resnet.layers", (1, "2"), "tuple"),
        ("model.resnet.layers", 3, "tuple"),
    ],
)
def test_a_value_of_another_kind_is_refused(path, value, kind):
    with pytest.raises(UserError, match=rf"setting '{path}' is .*: it must be {kind}.*, such as "):
        override(profile("smoke"), {path: value})


def test_every_setting_takes_its_own_value():
    """The types that are written down are those of the values."""

    def leaves(value, prefix=""):
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            if dataclasses.is_dataclass(inner):
                yield from leaves(inner, f"{prefix}{field.name}.")
            elif isinstance(inner, Mapping):  # settings of losses, of which a profile changes none
                assert not inner
            else:
                yield f"{prefix}{field.name}", inner

    for chosen in PROFILES.values():
        settings = dict(leaves(chosen))
        assert len(settings) > 50
        assert override(chosen, settings) == chosen


# As they are written


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seed=3", 3),
        ("rate=1e-3", 1e-3),
        ("restart=true", True),
        ("restart=false", False),
        ("restart=False", False),
        ("nothing=None", None),
        ("variant=segl+0.5*ssul", "segl+0.5*ssul"),
        ("data_root=", ""),
        ("data.text_lengths=[12, 16]", [12, 16]),
        ("data_root=/a/b=c d", "/a/b=c d"),
    ],
)
def test_parameters_become_what_they_look_like(text, value):
    name, found = parse_parameter(text)
    assert name == text.partition("=")[0]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["seed", "", "=3"])
def test_what_is_no_parameter_is_named(text):
    with pytest.raises(UserError, match=f"'{text}' is no parameter: write name=value"):
        parse_parameter(text)


def test_a_broken_list_is_refused():
    with pytest.raises(UserError, match=r"is no list: write it as data\.text_lengths=\[1,2\]"):
        parse_parameter("data.text_lengths=[12,")
