import pytest
import torch

from vlp_lib.models.heads import MLMHead


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65])
def test_masked_positions_are_filled_up_and_nothing_changes(rows):
    """Logits and gradients are those of the plain formula, in float64."""
    torch.manual_seed(0)
    head, embedding = MLMHead(8, 11).double(), torch.randn(11, 8, dtype=torch.float64, requires_grad=True)
    features = torch.randn(rows, 8, dtype=torch.float64, requires_grad=True)
    plain = head(features, embedding)
    inputs = (features, embedding, *head.parameters())
    expected = torch.autograd.grad(plain.square().sum(), inputs)
    filled = head.of_masked(features, embedding)
    torch.testing.assert_close(filled, plain)
    torch.testing.assert_close(torch.autograd.grad(filled.square().sum(), inputs), expected)
