"""The paper's architecture at its full size: counted anew by formula and by other libraries' models, and run once."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn

from vlp_lib import cli
from vlp_lib.bench.architecture import describe
from vlp_lib.bench.made_up import SIZES
from vlp_lib.errors import UserError
from vlp_lib.models.model import PretrainingModel, VLPModel, visual_loss_of
from vlp_lib.models.vision import ResNetStream
from vlp_lib.profiles import profile
from vlp_lib.variants import VARIANTS

CONFIG = profile("paper").model
H, WORDS, SEGMENTATION, DETECTOR = 768, 30_522, 172, 1_601

# Of width 768, by formula.
LINEAR, NORM = H * H + H, 2 * H
ATTENTION = 4 * LINEAR + NORM
FEED_FORWARD = (H * 4 * H + 4 * H) + (4 * H * H + H) + NORM
LANGUAGE = (WORDS + 512 + 2) * H + NORM + 9 * (ATTENTION + FEED_FORWARD)
CROSS = 5 * (2 * ATTENTION + FEED_FORWARD) + 4 * (ATTENTION + FEED_FORWARD)  # the last layer updates no vision
HEADS = LINEAR + (LINEAR + NORM + WORDS) + (2 * H + 2)
DECODER = 2 * ATTENTION + FEED_FORWARD


def count(module):
    return sum(p.numel() for p in module.parameters())


def classifier(classes):
    return H * classes + classes


@pytest.fixture(scope="module")
def sizes():
    return {name: describe(CONFIG, variant) for name, variant in VARIANTS.items()}


def test_language_cross_modality_and_heads_are_the_same_for_all(sizes):
    for size in sizes.values():
        assert size.parameters["language"] == LANGUAGE
        assert size.parameters["cross_modality"] == CROSS
        assert size.parameters["heads"] == HEADS
        assert size.total == sum(size.parameters.values())


def test_the_formulas_agree_with_transformers():
    with torch.device("meta"):
        bert = transformers.BertModel(transformers.BertConfig(), add_pooling_layer=False)
        lxmert = transformers.LxmertModel(transformers.LxmertConfig()).encoder.x_layers
    assert count(bert) - 3 * count(bert.encoder.layer[0]) == LANGUAGE
    # LXMERT's last layer has the vision branch that nothing reads here.
    assert count(lxmert) - ATTENTION - FEED_FORWARD == CROSS


def test_vision_is_nine_layers_of_vit_b_32_or_resnet_50(sizes):
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch32_384", num_classes=0)
        resnet = torchvision.models.resnet50()
    nine = count(vit) - 3 * count(vit.blocks[0]) - 2 * H  # no class token, no place for it
    convolutions = sum(count(m) for m in resnet.modules() if isinstance(m, nn.Conv2d))
    projected = convolutions + (2048 * H + H) + NORM + 144 * H
    for name, variant in VARIANTS.items():
        expected = {"vit": nine, "resnet": projected}.get(variant.vision)
        if expected:
            assert sizes[name].parameters["vision"] == expected
    embedded = (1_600 + 401) * H + (5 * H + H) + (2048 * H + H) + NORM
    assert sizes["region"].parameters["vision"] == embedded


@pytest.mark.parametrize(
    ("name", "in_training", "read_at_inference"),
    [
        ("region", 0, 0),
        ("naive_vit", 0, 0),
        ("naive_resnet", 0, 0),
        ("ssul", classifier(3), 0),
        ("segl", classifier(SEGMENTATION), 0),
        ("segl_resnet", classifier(SEGMENTATION), 0),
        ("spl_small", 36 * H + DECODER + classifier(DETECTOR), 36 * H + DECODER),
        ("spl_large", 100 * H + DECODER + classifier(DETECTOR), 100 * H + DECODER),
    ],
)
def test_visual_losses_cost_what_their_formulas_say(sizes, name, in_training, read_at_inference):
    size = sizes[name]
    assert size.parameters["visual_loss"] == in_training
    pooler = LINEAR
    assert size.at_inference == LANGUAGE + size.parameters["vision"] + CROSS + pooler + read_at_inference


def test_visual_tokens_are_the_papers(sizes):
    for name in ("naive_vit", "ssul", "segl"):
        assert sizes[name].tokens == {384: 144, 600: 324, 800: 625}
    for name in ("naive_resnet", "segl_resnet"):
        assert sizes[name].tokens == {384: 144, 600: 361, 800: 625}
    assert set(sizes["spl_small"].tokens.values()) == {36}
    assert set(sizes["spl_large"].tokens.values()) == {100}
    assert set(sizes["region"].tokens.values()) == {36}


def test_the_command_prints_and_writes_the_table(tmp_path, capsys):
    assert cli.main(["model", "--profile", "smoke", "--variant", "segl", "--image-sizes", "32 64", "--out",
                     str(tmp_path)]) == 0  # fmt: skip
    shown = capsys.readouterr().out
    head, row = (tmp_path / "architecture.csv").read_text().splitlines()
    values = dict(zip(head.split(","), row.split(","), strict=True))
    assert (values["variant"], values["tokens_32"], values["tokens_64"]) == ("segl", "16", "64")
    parts = ("language", "vision", "cross_modality", "visual_loss", "heads")
    assert int(values["total"]) == sum(int(values[part]) for part in parts)
    assert values["total"] in shown and "profile smoke" in (tmp_path / "architecture.md").read_text()


def test_sizes_without_a_patch_are_refused():
    with pytest.raises(UserError, match="no patch of 32 px"):
        describe(CONFIG, VARIANTS["segl"], (16,))
    with pytest.raises(UserError, match="image size 0"):
        describe(CONFIG, VARIANTS["region"], (384, 0))


# One step and one inference with real numbers


@pytest.fixture(scope="module")
def full_size():
    """One naive model of the paper's size (1 GB); tests put their own vision branch into it."""
    torch.manual_seed(0)
    with torch.device("meta"):
        model = PretrainingModel(VLPModel(replace(CONFIG, dropout=0.0), VARIANTS["naive_vit"], SIZES, pretrained=False))
    model.to_empty(device="cpu")
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.uniform_(-0.03, 0.03)
    # What to_empty leaves without values although no checkpoint holds it.
    bert = model.vlp.language.bert.embeddings
    bert.position_ids.copy_(torch.arange(bert.position_ids.shape[-1])[None])
    bert.token_type_ids.zero_()
    for buffer, values in (("mean", (0.5, 0.5, 0.5)), ("std", (0.5, 0.5, 0.5))):
        getattr(model.vlp.vision.normalise, buffer).copy_(torch.tensor(values)[:, None, None])
    return model


@contextmanager
def variant_of(model, name):
    """The model with another variant's vision branch and loss, everything else shared."""
    variant, vit = VARIANTS[name], model.vlp.vision
    if variant.vision == "resnet":
        model.vlp.vision = ResNetStream(model.vlp.config, pretrained=False)
    model.vlp.visual_loss = visual_loss_of(model.vlp.config, variant, SIZES, model.vlp.vision)
    try:
        yield model
    finally:
        model.vlp.vision = vit


# Both backbones, a loss on the grid and one with tokens of its own.
@pytest.mark.parametrize("name", ["segl_resnet", "spl_large"])
def test_one_training_step_at_384(full_size, make_batch, name):
    batch = make_batch(lengths=(9, 5), detections=(36,), image_size=384, words=WORDS, segmentation=171, detector=1_600)
    with variant_of(full_size, name) as model:
        assert count(model) == describe(CONFIG, VARIANTS[name], (384,)).total
        # Plain gradient descent: AdamW would double the memory for nothing that is asked here.
        optimiser = torch.optim.SGD(model.train().parameters(), lr=1e-3)
        losses = model(model.vlp.visual_loss.corrupt(batch))
        losses["loss"].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        before = model.itm_head.classify.weight.clone()
        optimiser.step()
        optimiser.zero_grad()
        assert not torch.equal(model.itm_head.classify.weight, before)
    names = {loss for loss, _ in VARIANTS[name].losses}
    assert losses.keys() - {"itm_logits"} == {"mlm", "itm", "loss"} | names | ({"visual"} if names else set())


@pytest.mark.parametrize(("size", "tokens"), [(600, 324), (800, 625)])
def test_one_inference(full_size, make_batch, size, tokens):
    batch = make_batch(lengths=(9,), detections=(0,), image_size=size, words=WORDS)
    with variant_of(full_size, "segl") as model, torch.inference_mode():
        output = model.eval().vlp(batch)
    assert output.tokens.tokens.shape == (1, tokens, H)
    assert output.pooled.shape == (1, H) and output.pooled.isfinite().all()
