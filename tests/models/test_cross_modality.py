import numpy as np
import pytest
import torch
from transformers import LxmertConfig
from transformers.models.lxmert.modeling_lxmert import LxmertXLayer

from vlp_lib.models.cross_modality import CrossAttentionMaps, CrossModalityEncoder, CrossModalityLayer, relative_entropy
from vlp_lib.models.model import sharpen

HIDDEN, HEADS = 24, 3


@pytest.fixture
def streams():
    generator = torch.Generator().manual_seed(0)
    language = torch.randn(2, 5, HIDDEN, generator=generator)
    vision = torch.randn(2, 7, HIDDEN, generator=generator)
    language_mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    vision_mask = torch.tensor([[True] * 4 + [False] * 3, [True] * 7])
    return language, vision, language_mask, vision_mask


def copied(source: LxmertXLayer, target: CrossModalityLayer) -> CrossModalityLayer:
    """The layer with LXMERT's weights; every one of both is used exactly once."""
    renamed = {}
    for ours, attention, output in (
        ("cross_attention", "visual_attention.att", "visual_attention.output"),
        ("language_attention", "lang_self_att.self", "lang_self_att.output"),
        ("vision_attention", "visn_self_att.self", "visn_self_att.output"),
    ):
        renamed |= {f"{attention}.{part}": f"{ours}.attention.{part}" for part in ("query", "key", "value")}
        renamed |= {f"{output}.dense": f"{ours}.dense", f"{output}.LayerNorm": f"{ours}.norm"}
    for ours, theirs in (("language_feed_forward", "lang"), ("vision_feed_forward", "visn")):
        renamed |= {
            f"{theirs}_inter.dense": f"{ours}.widen",
            f"{theirs}_output.dense": f"{ours}.narrow",
            f"{theirs}_output.LayerNorm": f"{ours}.norm",
        }
    state = {}
    for name, value in source.state_dict().items():
        module, _, kind = name.rpartition(".")
        state[f"{renamed[module]}.{kind}"] = value
    target.load_state_dict(state, strict=True)
    return target


def lxmert_layer() -> LxmertXLayer:
    config = LxmertConfig(
        hidden_size=HIDDEN, num_attention_heads=HEADS, intermediate_size=4 * HIDDEN, hidden_act="gelu"
    )
    torch.manual_seed(3)
    layer = LxmertXLayer(config).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_layer_is_lxmerts(streams, masked, need_weights):
    language, vision, language_mask, vision_mask = streams
    if not masked:
        language_mask, vision_mask = torch.ones_like(language_mask), None
    reference = lxmert_layer()
    layer = copied(reference, CrossModalityLayer(HIDDEN, HEADS, 0.1, shared=True, updates_vision=True)).eval()

    def additive(mask):
        return None if mask is None else torch.zeros(mask.shape).masked_fill(~mask, -1e9)[:, None, None]

    words, regions, to_vision = reference(
        language, additive(language_mask), vision, additive(vision_mask), output_attentions=True
    )
    own_words, own_regions, maps = layer(language, vision, language_mask, vision_mask, need_weights)
    torch.testing.assert_close(own_words, words, atol=1e-5, rtol=0)
    torch.testing.assert_close(own_regions, regions, atol=1e-5, rtol=0)
    assert (maps is not None) == need_weights
    if maps is not None:
        torch.testing.assert_close(maps.to_vision, to_vision, atol=1e-5, rtol=0)


def test_both_directions_are_distributions_over_what_is_readable(streams):
    language, vision, language_mask, vision_mask = streams
    layer = copied(lxmert_layer(), CrossModalityLayer(HIDDEN, HEADS, 0.0)).eval()
    _, _, maps = layer(language, vision, language_mask, vision_mask, True)
    assert maps.to_vision.shape == (2, HEADS, 5, 7)
    assert maps.to_language.shape == (2, HEADS, 7, 5)
    for weights, mask in ((maps.to_vision, vision_mask), (maps.to_language, language_mask)):
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        unreadable = ~mask[:, None, None].expand_as(weights)
        assert unreadable.any()
        assert (weights[unreadable] == 0).all()


def test_separate_directions_have_their_own_weights(streams):
    shared = CrossModalityLayer(HIDDEN, HEADS, 0.0, shared=True).eval()
    separate = CrossModalityLayer(HIDDEN, HEADS, 0.0, shared=False).eval()
    state = shared.state_dict()
    missing = separate.load_state_dict(state, strict=False).missing_keys
    assert missing
    assert all(name.startswith("vision_cross_attention.") for name in missing)
    words, regions, _ = shared(*streams)
    own_words, own_regions, _ = separate(*streams)
    assert torch.equal(words, own_words)
    assert not torch.allclose(regions, own_regions, atol=1e-3)
    # With the same weights in both directions it is the shared layer again.
    separate.vision_cross_attention.load_state_dict(separate.cross_attention.state_dict())
    assert torch.equal(separate(*streams)[1], regions)


def test_layer_that_updates_no_vision_has_no_vision_branch(streams):
    language, vision, language_mask, vision_mask = streams
    full = CrossModalityLayer(HIDDEN, HEADS, 0.0).eval()
    half = CrossModalityLayer(HIDDEN, HEADS, 0.0, updates_vision=False).eval()
    assert not [name for name, _ in half.named_parameters() if name.startswith("vision")]
    half.load_state_dict({k: v for k, v in full.state_dict().items() if not k.startswith("vision")}, strict=True)
    words, same, maps = half(language, vision, language_mask, vision_mask, True)
    assert torch.equal(words, full(language, vision, language_mask, vision_mask, True)[0])
    assert same is vision
    assert maps.to_language is None


@pytest.mark.parametrize("vision_output", [False, True])
def test_encoder_is_its_layers_in_turn(streams, vision_output):
    language, vision, language_mask, vision_mask = streams
    torch.manual_seed(4)
    encoder = CrossModalityEncoder(3, HIDDEN, HEADS, 0.0, vision_output=vision_output).eval()
    assert [layer.updates_vision for layer in encoder.layers] == [True, True, vision_output]
    words, regions, maps = encoder(language, vision, language_mask, vision_mask, need_weights=True)
    assert len(maps) == 3
    assert encoder(language, vision, language_mask, vision_mask)[2] == []
    for layer in encoder.layers:
        language, vision, _ = layer(language, vision, language_mask, vision_mask)
    torch.testing.assert_close(words, language, atol=1e-6, rtol=0)
    torch.testing.assert_close(regions, vision, atol=1e-6, rtol=0)


def test_relative_entropy_against_scipy():
    from scipy.stats import entropy

    attention = [torch.rand(2, 3, 4, 5).softmax(-1) for _ in range(2)]
    words = torch.tensor([[True, True, True, False], [True, True, False, False]])
    tokens = torch.tensor([[True] * 5, [True, True, True, False, False]])
    attention = [a * tokens[:, None, None] / (a * tokens[:, None, None]).sum(-1, keepdim=True) for a in attention]
    found = relative_entropy([CrossAttentionMaps(a, None) for a in attention], words, tokens)
    each = [
        np.mean([entropy(a[b, head, word].numpy()) for a in attention for head in range(3)]) / np.log(n)
        for b, n in ((0, 5), (1, 3))
        for word in range(int(words[b].sum()))
    ]
    assert float(found) == pytest.approx(np.mean(each), rel=1e-5)
    even = torch.full((1, 1, 2, 9), 1 / 9)
    one = torch.zeros(1, 1, 2, 9).index_fill(-1, torch.tensor(3), 1.0)
    read = torch.ones(1, 2, dtype=torch.bool)
    assert float(relative_entropy([CrossAttentionMaps(even, None)], read)) == pytest.approx(1)
    assert float(relative_entropy([CrossAttentionMaps(one, None)], read)) == 0


def test_sharpness_multiplies_the_logits_of_cross_attention_and_nothing_else():
    plain, sharp = (CrossModalityLayer(8, 2, 0.0) for _ in range(2))
    sharp.load_state_dict(plain.state_dict())
    sharpen(sharp, 3.0)
    changed = {name for name, value in sharp.state_dict().items() if not torch.equal(value, plain.state_dict()[name])}
    assert changed == {"cross_attention.attention.query.weight", "cross_attention.attention.key.weight"}
    x, context = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    for layer in (plain, sharp):
        for part in (layer.cross_attention.attention.query, layer.cross_attention.attention.key):
            torch.nn.init.zeros_(part.bias)
    (_, before), (_, after) = (layer.cross_attention(x, context, need_weights=True) for layer in (plain, sharp))
    torch.testing.assert_close(after, (9 * before.log()).softmax(-1))
