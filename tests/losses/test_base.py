import pytest
import torch

from vlp_lib.config import VARIANTS, VISUAL_LOSSES, Variant, parse_variant
from vlp_lib.errors import UserError
from vlp_lib.losses.base import MixedVisualLoss, VisualLoss
from vlp_lib.losses.segl import SEGL
from vlp_lib.losses.spl import SPL
from vlp_lib.losses.ssul import SSUL
from vlp_lib.models.model import Vocabularies, build_visual_loss
from vlp_lib.models.vision import VisionFeatures


@pytest.fixture
def features():
    return VisionFeatures(torch.randn(3, 16, 8, generator=torch.Generator().manual_seed(0)), (4, 4))


def test_weighted_sum_is_the_sum_of_its_parts(features, make_batch):
    torch.manual_seed(0)
    parts = {"segl": SEGL(8, 6), "ssul": SSUL(8, 8, 0.3), "spl_small": SPL(8, 2, 0.0, 5, 10)}
    mix = MixedVisualLoss(parts, {"segl": 1.0, "ssul": 0.5, "spl_small": 2.0})
    batch = mix.corrupt(make_batch())
    assert batch.hidden_patches is not None
    tokens = mix.tokens(features)
    assert torch.equal(tokens.tokens, parts["spl_small"].tokens(features).tokens)
    output = mix(features, tokens, batch)
    own = {name: loss(features, tokens, batch) for name, loss in parts.items()}
    expected = own["segl"].loss + 0.5 * own["ssul"].loss + 2.0 * own["spl_small"].loss
    torch.testing.assert_close(output.loss, expected)
    for name, part in own.items():
        assert torch.equal(output.drawings[name], part.loss.detach())
        assert set(part.drawings) < set(output.drawings)
    assert all(not value.requires_grad for value in output.drawings.values())


def test_empty_mix_is_no_visual_loss(features, make_batch):
    mix = MixedVisualLoss({}, {})
    batch = make_batch()
    assert mix.corrupt(batch) is batch
    assert mix.tokens(features) is features
    assert mix(features, features, batch).loss.item() == 0
    assert list(mix.parameters()) == []


def test_neutral_loss_changes_nothing(features, make_batch):
    class Neutral(VisualLoss):
        pass

    batch = make_batch()
    assert Neutral().corrupt(batch) is batch
    assert Neutral().tokens(features) is features
    with pytest.raises(TypeError, match="Neutral does not say what its loss is"):
        Neutral()(features, features, batch)


def test_every_named_loss_can_be_built(small_model):
    sizes = Vocabularies(words=9, segmentation=6, detector=10, attributes=4)
    built = {
        name: build_visual_loss(small_model, Variant(name, "vit", ((name, 1.0),)), sizes).losses[name]
        for name in VISUAL_LOSSES
    }
    assert [type(built[name]) for name in ("ssul", "segl", "spl_small", "spl_large")] == [SSUL, SEGL, SPL, SPL]
    assert [len(built[name].queries) for name in ("spl_small", "spl_large")] == [4, 9]


# Names of variants


@pytest.mark.parametrize("name", VARIANTS)
def test_table_ii_by_name(name):
    assert parse_variant(name) is VARIANTS[name]


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
        ("segl+naive_vit", r"unknown visual loss in variant .*'naive_vit'.*known are ssul, segl, spl_small, spl_large"),
        ("segl+", r"unknown visual loss in variant 'segl\+': ''"),
        ("-1*segl+ssul", r"'-1\*segl'"),
        ("segl*0.5+ssul", r"'segl\*0.5': did you mean 'segl'\?"),
        ("segl@resnett", r"unknown backbone 'resnett': did you mean 'resnet'\?"),
        ("segl+ssul@region", "unknown backbone 'region'"),
        ("segl+segl", "names the loss 'segl' twice"),
        ("spl_small+spl_large", "two set predictions"),
        ("", "unknown variant ''"),
    ],
)
def test_wrong_names_are_named(name, message):
    with pytest.raises(UserError, match=message):
        parse_variant(name)
