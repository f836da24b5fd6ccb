import pytest
import torch
from contexts import context

from vlp_lib import catalogue
from vlp_lib.errors import UserError
from vlp_lib.losses.base import MixedVisualLoss, VisualLoss
from vlp_lib.losses.segl import SEGL
from vlp_lib.losses.spl import SPL
from vlp_lib.losses.ssul import SSUL
from vlp_lib.models.vision import VisionFeatures
from vlp_lib.variants import VARIANTS, parse_variant


@pytest.fixture
def features():
    return VisionFeatures(torch.randn(3, 16, 8, generator=torch.Generator().manual_seed(0)), (4, 4))


def test_weighted_sum_is_the_sum_of_its_parts(features, make_batch):
    torch.manual_seed(0)
    weights = {"segl": 1.0, "ssul": 0.5, "spl_small": 2.0}
    mix = MixedVisualLoss(context(), weights, {"ssul": {"probability": 0.3}})
    parts = dict(mix.losses.items())
    batch = mix.corrupt(make_batch())
    assert "ssul_hidden" in batch.extras
    tokens = mix.tokens(features)
    assert torch.equal(tokens.tokens, parts["spl_small"].tokens(features).tokens)
    output = mix(features, tokens, batch)
    own = {name: loss(features, tokens, batch) for name, loss in parts.items()}
    expected = own["segl"].loss + 0.5 * own["ssul"].loss + 2.0 * own["spl_small"].loss
    torch.testing.assert_close(output.loss, expected)
    for name, part in own.items():
        assert torch.equal(output.parts[name], part.loss.detach())
        assert {f"{name}_{drawn}" for drawn in part.drawings} < set(output.drawings)
    assert all(not value.requires_grad for value in output.drawings.values())


def test_empty_mix_is_no_visual_loss(features, make_batch):
    mix = MixedVisualLoss(context(), {})
    batch = make_batch()
    assert mix.corrupt(batch) is batch
    assert mix.tokens(features) is features
    assert mix(features, features, batch).loss.item() == 0
    assert list(mix.parameters()) == []


def test_neutral_loss_changes_nothing(features, make_batch):
    class Neutral(VisualLoss):
        pass

    batch = make_batch()
    assert Neutral(context()).corrupt(batch) is batch
    assert Neutral(context()).tokens(features) is features
    with pytest.raises(TypeError, match="Neutral does not say what its loss is"):
        Neutral(context())(features, features, batch)


def test_every_named_loss_can_be_built():
    mixes = {name: MixedVisualLoss(context(), {name: 1.0}) for name in catalogue.losses()}
    kinds = {name: type(mix.losses[name]) for name, mix in mixes.items()}
    assert kinds == {"ssul": SSUL, "segl": SEGL, "spl_small": SPL, "spl_large": SPL}
    assert [len(mixes[name].losses[name].queries) for name in ("spl_small", "spl_large")] == [4, 11]
    assert {name for name, mix in mixes.items() if mix.needs.label_maps} == {"segl"}
    assert {name: mix.needs.detections for name, mix in mixes.items() if mix.replaces_tokens} == {
        "spl_small": 4,
        "spl_large": 11,
    }


def test_the_papers_numbers_of_queries():
    """Section IV-A4: 36 and 100 at 144 cells; and the same shares of smaller grids."""
    for side, expected in ((12, (36, 100)), (6, (9, 25)), (4, (4, 11))):
        made = [MixedVisualLoss(context(grid=(side, side)), {name: 1.0}) for name in ("spl_small", "spl_large")]
        assert tuple(mix.needs.detections for mix in made) == expected


# Settings


def test_settings_are_defaults_presets_and_what_is_given():
    mix = MixedVisualLoss(context(), {"spl_large": 1.0}, {"spl_large": {"no_object_weight": 0.2}})
    assert mix.settings == {"spl_large": {"queries_per_cell": 100 / 144, "no_object_weight": 0.2}}


def test_a_setting_of_another_kind_or_of_an_absent_loss_is_refused():
    with pytest.raises(UserError, match=r"losses\.segl\.downsampling' is 'median': it must be like 'nearest'"):
        MixedVisualLoss(context(), {"segl": 1.0}, {"segl": {"downsampling": "median"}})
    with pytest.raises(UserError, match=r"losses\.ssul\.patch is set and this variant has no loss 'ssul'"):
        MixedVisualLoss(context(), {"segl": 1.0}, {"ssul": {"patch": 4}})


# Names of variants


@pytest.mark.parametrize("name", VARIANTS)
def test_table_ii_by_name(name):
    assert parse_variant(name) == VARIANTS[name]


@pytest.mark.parametrize(
    ("name", "vision", "losses"),
    [
        ("naive", "timm:resnet18", {}),
        ("segl", "timm:resnet18", {"segl": 1.0}),
        ("segl+0.5*ssul", "timm:resnet18", {"segl": 1.0, "ssul": 0.5}),
        ("segl@vit", "vit", {"segl": 1.0}),
        ("naive_vit", "vit", {}),
        ("segl_resnet", "resnet", {"segl": 1.0}),
        ("region", "region", {}),
        ("naive@timm:vit_tiny_patch16_224", "timm:vit_tiny_patch16_224", {}),
    ],
)
def test_a_profiles_own_backbone_stands_where_the_name_tells_none(name, vision, losses):
    variant = parse_variant(name, "timm:resnet18")
    assert (variant.name, variant.vision, dict(variant.losses)) == (name, vision, losses)


@pytest.mark.parametrize(
    ("name", "vision", "losses"),
    [
        ("segl+ssul", "vit", {"segl": 1.0, "ssul": 1.0}),
        ("segl+0.5*ssul", "vit", {"segl": 1.0, "ssul": 0.5}),
        (".25*segl + 2.*spl_large", "vit", {"segl": 0.25, "spl_large": 2.0}),
        ("segl+ssul@resnet", "resnet", {"segl": 1.0, "ssul": 1.0}),
        ("ssul@resnet", "resnet", {"ssul": 1.0}),
        ("segl@vit", "vit", {"segl": 1.0}),
        ("3*segl", "vit", {"segl": 3.0}),
        ("0*segl+ssul", "vit", {"segl": 0.0, "ssul": 1.0}),
    ],
)
def test_mixes(name, vision, losses):
    variant = parse_variant(name)
    assert (variant.name, variant.vision, dict(variant.losses)) == (name, vision, losses)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("segel", r"unknown variant 'segel': did you mean 'segl'\?"),
        ("naive_vitt", r"did you mean 'naive_vit'\?"),
        ("segl+susl", r"unknown visual loss in variant 'segl\+susl': 'susl': did you mean 'ssul'\?"),
        ("segl+naive_vit", r"unknown visual loss in variant .*'naive_vit'.*known are segl, spl_small, spl_large, ssul"),
        ("segl+", r"unknown visual loss in variant 'segl\+': ''"),
        ("-1*segl+ssul", r"'-1\*segl'"),
        ("segl*0.5+ssul", r"'segl\*0.5': did you mean 'segl'\?"),
        ("segl@resnett", r"unknown backbone 'resnett': did you mean 'resnet'\?"),
        ("segl+ssul@region", "unknown backbone 'region'"),
        ("segl@timm:", "unknown backbone 'timm:'"),
        ("segl@timm:../vit", r"unknown backbone 'timm:\.\./vit'"),
        ("segl+segl", "names the loss 'segl' twice"),
        ("spl_small+spl_large", "two losses that make the cross-modality encoder's input"),
        ("", "unknown variant ''"),
    ],
)
def test_wrong_names_are_named(name, message):
    with pytest.raises(UserError, match=message):
        parse_variant(name)
