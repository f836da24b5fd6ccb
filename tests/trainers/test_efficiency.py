import copy

import pytest
import torch
from timm.models.resnet import ResNet

from vlp_lib.batches.sample import Pictures
from vlp_lib.config import TrainingConfig
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.models.vision import TimmStream
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.trainers import efficiency
from vlp_lib.trainers.efficiency import checkpoint_activations, compile_blocks, prepare_model, recomputed_blocks
from vlp_lib.variants import parse_variant

SIZES = Vocabularies(words=40, segmentation=6, detector=10, attributes=4)
NAMES = ("segl", "segl_resnet", "spl_small", "region")


@pytest.fixture
def make_model(small_model):
    def make(name, dropout=0.1):
        torch.manual_seed(0)
        config = copy.copy(small_model)
        object.__setattr__(config, "dropout", dropout)
        return PretrainingModel(VLPModel(config, parse_variant(name), SIZES)).train()

    return make


def step(model, batch):
    """Loss and gradients, with the same dropout each time."""
    torch.manual_seed(1)
    model.zero_grad()
    loss = model(batch)["loss"]
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_gives_the_same_gradients(make_model, make_batch, name):
    batch = make_batch(lengths=(9, 5, 7, 6, 8, 4), detections=(3, 0, 4))
    plain, thrifty = make_model(name), make_model(name)
    checkpoint_activations(thrifty)
    (loss, expected), (again, found) = step(plain, batch), step(thrifty, batch)
    assert torch.equal(loss, again)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-6, rtol=1e-5, msg=key)
    assert plain.state_dict().keys() == thrifty.state_dict().keys()


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_keeps_less(make_model, make_batch, name):
    batch = make_batch(detections=(3, 2, 4))

    def kept(model):
        sizes = []

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(batch)
        return sum(sizes)

    plain, thrifty = make_model(name), make_model(name)
    checkpoint_activations(thrifty)
    assert kept(thrifty) < 0.7 * kept(plain)


@pytest.mark.parametrize("name", ["spl_small"])
def test_compiled_blocks_compute_the_same_under_the_same_names(make_model, make_batch, name):
    batch = make_batch(lengths=(9, 5, 7, 6, 8, 4), detections=(3, 0, 4))
    plain, compiled = make_model(name, 0.0), make_model(name, 0.0)
    assert compile_blocks(compiled, backend="eager") >= 4
    (loss, expected), (again, found) = step(plain, batch), step(compiled, batch)
    torch.testing.assert_close(again, loss)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-6, rtol=1e-5, msg=key)
    assert plain.state_dict().keys() == compiled.state_dict().keys()


def test_blocks_of_one_kind_are_compiled_once(make_model, make_batch):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model = make_model("segl", 0.0)
    compile_blocks(model, backend=backend)
    step(model, make_batch())
    first = len(graphs)
    step(model, make_batch(seed=1))
    assert len(graphs) == first  # the shapes are the same
    assert first < sum(1 for _ in recomputed_blocks(model)) + 2
    with torch.inference_mode(), efficiency.evaluation_kernels(TrainingConfig(compile=True)):
        model.eval()(make_batch(lengths=(3, 4, 5)))
    assert len(graphs) == first  # validation runs the plain code


def test_a_gpu_gets_the_resnet_channels_last(make_model):
    model = make_model("segl_resnet")
    names = model.state_dict().keys()
    prepare_model(model, TrainingConfig(), torch.device("cuda"))
    (resnet,) = (part for part in model.modules() if isinstance(part, ResNet))
    kernels = [p for p in resnet.parameters() if p.ndim == 4 and p.shape[-1] > 1]
    assert kernels
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    assert model.state_dict().keys() == names


def test_settings_of_the_process_are_put_back():
    before = torch.get_float32_matmul_precision()
    with efficiency.training_kernels(TrainingConfig(), torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before
    with efficiency.training_kernels(TrainingConfig(), torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_timm_backbone_set_up_for_a_cpu_computes_the_same(small_model, precision):
    """Memory layout and the depthwise convolutions in float32 change nothing but the rounding of bf16."""
    torch.manual_seed(0)
    plain = TimmStream(small_model, "tf_efficientnet_lite0", pretrained=False).eval()
    prepared = copy.deepcopy(plain)
    prepare_model(prepared, TrainingConfig(), torch.device("cpu"))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    def gradients(stream, bf16):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = stream(Pictures(images)).tokens.float().square().mean()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in stream.parameters() if p.grad is not None])

    expected, found = gradients(plain, False), gradients(prepared, precision == "bf16")
    nearness = torch.nn.functional.cosine_similarity(expected, found, dim=0)
    assert nearness > (0.999999 if precision == "float32" else 0.99)
    assert plain.state_dict().keys() == prepared.state_dict().keys()
