from dataclasses import replace

import pytest
import torch
from contexts import SIZES
from torch import nn

from vlp_lib.bench.budget import CONVOLUTIONS, GIB, RESERVE, Need, Probe, matrix_rate, plan, saved_for_backward
from vlp_lib.bench.made_up import fill
from vlp_lib.profiles import profile
from vlp_lib.trainers.loop import make_optimiser
from vlp_lib.variants import parse_variant

CPU = torch.device("cpu")


def probe(profile, name="segl", size=64):
    model = replace(profile.model, image_size=size)
    return Probe(replace(profile, model=model), parse_variant(name), SIZES, CPU)


def test_saved_bytes_by_hand():
    """Of a two-layer perceptron: its input, and the hidden units once, though two operations keep them."""
    model = nn.Sequential(nn.Linear(10, 20, bias=False), nn.ReLU(), nn.Linear(20, 3, bias=False))
    x = torch.randn(7, 10)
    assert saved_for_backward(lambda: model(x).sum(), model) == (4 * (7 * 10 + 7 * 20), 0)


@pytest.mark.parametrize("name", ["naive_vit", "segl", "spl_small", "segl_resnet", "region"])
def test_two_images_foretell_eight(small_profile, name):
    ready = probe(small_profile, name)
    (need, _), found = ready.needs(), ready.saved(ready.model, 8)[0]
    assert need.fixed + 8 * need.per_image == pytest.approx(found, rel=0.05)


def test_weights_and_moments_are_what_torch_holds(small_profile):
    ready = probe(small_profile)
    need, _ = ready.needs()
    optimiser = make_optimiser(ready.model, small_profile.training)
    ready.loss(ready.model, ready.batch(2)).backward()
    optimiser.step()
    tensors = [t for state in optimiser.state.values() for t in state.values()]
    weights = 4 * sum(p.numel() for p in ready.model.parameters())
    gradients = sum(p.grad.numel() * 4 for p in ready.model.parameters() if p.grad is not None)
    moments = sum(t.numel() * t.element_size() for t in tensors)
    assert need.total(0) - need.fixed == pytest.approx(weights + gradients + moments, rel=1e-3)  # and counts of steps


def test_checkpointing_needs_less(small_profile):
    plain, checkpointed = probe(small_profile).needs()
    assert checkpointed.per_image < 0.7 * plain.per_image
    assert checkpointed[:2] == plain[:2]


def test_operations_of_a_matrix_product():
    """The counter's unit: 2·m·k·n forward, and twice that backward."""
    a, b = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        (a @ b).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 3 * 5 * 7


def test_a_depthwise_convolution_counts_as_its_matrix_products_do():
    """Of each channel's own kernel: torch's count of the gradients is as of one kernel for all channels."""
    layer, x = nn.Conv2d(6, 6, 3, padding=1, groups=6), torch.randn(2, 6, 5, 5, requires_grad=True)
    with torch.utils.flop_counter.FlopCounterMode(display=False, custom_mapping=CONVOLUTIONS) as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * (2 * 6 * 5 * 5) * 9


def test_a_full_convolution_counts_as_torch_counts_it():
    layer, x = nn.Conv2d(6, 4, 3, stride=2), torch.randn(2, 6, 9, 9, requires_grad=True)
    counts = []
    for mapping in ({}, CONVOLUTIONS):
        with torch.utils.flop_counter.FlopCounterMode(display=False, custom_mapping=mapping) as counter:
            layer(x).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_what_flows_through_a_probe_keeps_its_size():
    """Subnormal numbers take a CPU many times as long; 16 blocks with frozen statistics make them of small weights."""
    photos = profile("photos")
    small = replace(photos, model=replace(photos.model, image_size=64))
    ready = Probe(small, parse_variant("naive", photos.model.vision), SIZES, CPU)
    sizes = []
    for part in ready.model.vlp.vision.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda _, __, out: sizes.append(float(out.detach().float().std())))
    ready.loss(ready.model, ready.batch(2))
    assert len(sizes) > 40 and min(sizes) > 1e-6


def test_a_parameter_without_dimensions_is_filled():
    part = nn.Module()
    part.temperature = nn.Parameter(torch.empty((), device="meta"))
    assert torch.isfinite(fill(part, CPU).temperature)


def test_operations_are_those_of_the_weights_and_more(small_profile):
    ready = probe(small_profile, "naive_vit")
    parameters = sum(p.numel() for p in ready.model.vlp.vision.parameters() if p.ndim > 1)
    assert ready.operations() > 6 * 64 * parameters * 0.5  # 64 tokens go through the vision stream alone


def test_measured_rates_are_rates(small_profile):
    assert 1e8 < matrix_rate(CPU, torch.float32, 0.05) < 1e14
    assert 0 < probe(small_profile).step_seconds(2, 2) < 60


NEED = Need(weights=GIB, trained=GIB, fixed=0, per_image=GIB)
THRIFTY = NEED._replace(per_image=GIB // 4)


@pytest.mark.parametrize(
    ("memory", "processes", "expected"),
    [
        (68 / (1 - RESERVE), 1, (1, False)),
        (67.9 / (1 - RESERVE), 1, (2, False)),
        (36 / (1 - RESERVE), 2, (2, False)),  # and a copy of the gradients
        (37 / (1 - RESERVE), 2, (1, False)),
        (5 / (1 - RESERVE), 1, (64, False)),
        (4.6 / (1 - RESERVE), 1, (32, True)),
        (4.1, 1, None),
    ],
)
def test_plan(memory, processes, expected):
    found = plan(NEED, THRIFTY, 64, processes, memory * GIB + 1)
    assert (found and found[:2]) == expected
    if found:
        parts, checkpointing, total = found
        assert total == (THRIFTY if checkpointing else NEED).total(64 // processes // parts, processes)
        assert total <= (1 - RESERVE) * (memory * GIB + 1)
