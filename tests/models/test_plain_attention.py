import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from vlp_lib.models import plain_attention as module
from vlp_lib.models.attention import Attention
from vlp_lib.models.plain_attention import PlainAttention, plain_attention


def streams(queries, keys, dtype=torch.float32):
    generator = torch.Generator().manual_seed(queries * 100 + keys)
    shapes = ((2, 3, queries, 8), (2, 3, keys, 8), (2, 3, keys, 8))
    return [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes]


def mask_of(kind, keys):
    readable = torch.rand(2, 1, 1, keys, generator=torch.Generator().manual_seed(keys)) < 0.7
    readable[..., 0] = True
    return {"none": None, "bool": readable, "float": torch.zeros(readable.shape).masked_fill(~readable, -1e4)}[kind]


@settings(max_examples=30, deadline=None)
@given(
    queries=st.integers(1, 9),
    keys=st.integers(1, 9),
    kind=st.sampled_from(["none", "bool", "float"]),
    scale=st.sampled_from([None, 0.3]),
)
def test_it_is_torchs_attention_with_its_gradients(queries, keys, kind, scale):
    ours, theirs = streams(queries, keys), streams(queries, keys)
    mask = mask_of(kind, keys)
    found = plain_attention(*ours, attn_mask=mask, scale=scale)
    with sdpa_kernel(SDPBackend.MATH):
        expected = F.scaled_dot_product_attention(*theirs, attn_mask=mask, scale=scale)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    found.square().sum().backward()
    expected.square().sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=0)


def test_bf16_stays_near_float32():
    inputs = streams(6, 7)
    expected = plain_attention(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = plain_attention(*(x.bfloat16() for x in inputs))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0)


def test_dropout_removes_weights():
    query, key, value = streams(4, 5)
    torch.manual_seed(0)
    assert not torch.equal(plain_attention(query, key, value, dropout_p=0.5), plain_attention(query, key, value))
    assert not plain_attention(query, key, value, dropout_p=1.0).any()


def test_causal_attention_is_refused():
    with pytest.raises(NotImplementedError, match="causal"):
        plain_attention(*streams(3, 3), is_causal=True)


def test_the_context_computes_every_models_attention(monkeypatch):
    """Inside the context torch's own kernels are not called, outside they are."""
    calls = []

    def counted(*args, **kwargs):
        calls.append(1)
        return plain_attention(*args, **kwargs)

    monkeypatch.setattr(module, "plain_attention", counted)
    torch.manual_seed(0)
    attention, x = Attention(16, 4, dropout=0.0), torch.randn(2, 5, 16)
    expected, _ = attention(x, x)
    assert not calls
    with PlainAttention():
        found, _ = attention(x, x)
    assert len(calls) == 1
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
