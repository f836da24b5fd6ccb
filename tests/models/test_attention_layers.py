import pytest
import torch
from torch import nn

from vlp_lib.models.attention import Attention, AttentionBlock, FeedForwardBlock


@pytest.fixture
def streams():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 16, generator=generator)
    context = torch.randn(2, 6, 16, generator=generator)
    mask = torch.tensor([[True] * 6, [True, False, True, True, False, False]])
    return x, context, mask


@pytest.fixture
def attention():
    torch.manual_seed(1)
    return Attention(16, 4, dropout=0.3).eval()


@pytest.mark.parametrize("masked", [False, True])
def test_fused_and_explicit_attention_agree(attention, streams, masked):
    x, context, mask = streams
    mask = mask if masked else None
    fused, nothing = attention(x, context, mask)
    explicit, weights = attention(x, context, mask, need_weights=True)
    assert nothing is None
    assert weights.shape == (2, 4, 4, 6)
    torch.testing.assert_close(fused, explicit, atol=1e-6, rtol=0)


def test_attention_is_torchs_own(attention, streams):
    x, context, mask = streams
    reference = nn.MultiheadAttention(16, 4, batch_first=True)
    layers = (attention.query, attention.key, attention.value)
    reference.in_proj_weight.data = torch.cat([layer.weight for layer in layers])
    reference.in_proj_bias.data = torch.cat([layer.bias for layer in layers])
    nn.init.eye_(reference.out_proj.weight)
    nn.init.zeros_(reference.out_proj.bias)
    expected, shares = reference(x, context, context, key_padding_mask=~mask, average_attn_weights=False)
    found, weights = attention(x, context, mask, need_weights=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(weights, shares, atol=1e-5, rtol=0)


@pytest.mark.parametrize("need_weights", [False, True])
def test_what_is_masked_changes_nothing(attention, streams, need_weights):
    x, context, mask = streams
    changed = torch.where(mask[..., None], context, 1e4)
    assert not torch.equal(changed, context)
    before, _ = attention(x, context, mask, need_weights)
    after, _ = attention(x, changed, mask, need_weights)
    assert torch.equal(before, after)


@pytest.mark.parametrize("need_weights", [False, True])
def test_dropout_belongs_to_training(attention, streams, need_weights):
    x, context, _ = streams
    assert torch.equal(attention(x, context, None, need_weights)[0], attention(x, context, None, need_weights)[0])
    attention.train()
    assert not torch.equal(attention(x, context, None, need_weights)[0], attention(x, context, None, need_weights)[0])


def test_blocks_add_before_they_normalise(streams):
    x, context, mask = streams
    torch.manual_seed(2)
    block, forward = AttentionBlock(16, 4, 0.0), FeedForwardBlock(16, 0.0)
    for layer in (block.dense, forward.narrow):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    # With nothing added, both are the layer normalisation of their input.
    expected = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True, correction=0)
    torch.testing.assert_close(block(x, context, mask)[0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(forward(x), expected, atol=1e-5, rtol=0)
    assert forward.widen.out_features == 64
