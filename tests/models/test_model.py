import math
from dataclasses import fields, replace

import pytest
import torch
from contexts import SIZES, part_of

from vlp_lib.batches.sample import Batch
from vlp_lib.errors import UserError
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.profiles import profile
from vlp_lib.variants import VARIANTS, parse_variant

MIXES = ("segl+0.5*ssul", "ssul+2*spl_small", "segl+ssul@resnet")
NAMES = (*VARIANTS, *MIXES)


def build(config, name, **options):
    torch.manual_seed(0)
    return PretrainingModel(VLPModel(config, parse_variant(name), SIZES), **options)


def corrupted(model, batch):
    return model.vlp.visual_loss.corrupt(batch)


ONE = {"lengths": (9, 5, 7), "detections": (3, 0, 5)}
BOTH = {"lengths": (9, 5, 7, 6, 8, 4), "detections": (3, 0, 5)}  # two texts an image


def alone(batch, i):
    """Image i and its texts as they would be collated by themselves, without the others' padding; and which texts."""
    row = part_of(batch, slice(i, i + 1))
    words, boxes = int(row.attention_mask.sum(1).max()), max(1, int((row.labels >= 0).sum()))
    of_words = ("input_ids", "clean_ids", "attention_mask", "mlm_labels")
    cut = {name: getattr(row, name)[:, :words] for name in of_words}
    cut |= {name: getattr(row, name)[:, :boxes] for name in ("labels", "attributes", "scores", "boxes")}
    return replace(row, **cut), list(range(i, len(batch.input_ids), len(batch)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [ONE, BOTH], ids=["one", "both"])
def test_a_batch_is_its_images_one_by_one(small_model, make_batch, name, shape):
    model = build(small_model, name).eval()
    batch = make_batch(**shape)
    close = {"atol": 1e-5, "rtol": 0}
    with torch.no_grad():
        together = model.vlp(corrupted(model, batch))
        scores = model(corrupted(model, batch))["itm_logits"]
        assert len(scores) == len(shape["lengths"])
        for i in range(len(batch)):
            row, texts = alone(batch, i)
            single = model.vlp(corrupted(model, row))
            tokens = single.tokens.tokens.shape[1]
            torch.testing.assert_close(single.tokens.tokens[0], together.tokens.tokens[i, :tokens], **close)
            torch.testing.assert_close(model(corrupted(model, row))["itm_logits"], scores[texts], **close)
            torch.testing.assert_close(single.pooled, together.pooled[texts], **close)
            torch.testing.assert_close(single.vision, together.vision[texts, :tokens], **close)
            for k, text in enumerate(texts):
                words = int(batch.attention_mask[text].sum())
                torch.testing.assert_close(single.language[k, :words], together.language[text, :words], **close)


@pytest.mark.parametrize("name", ["naive_vit", "spl_small", "region"])
def test_two_texts_an_image_are_two_pairs(small_model, make_batch, name):
    """That both encoders run once for two pairs changes nothing but the time."""
    model = build(small_model, name).eval()
    both = make_batch(**BOTH)
    repeated = {}
    for field in fields(Batch):
        value = getattr(both, field.name)
        by_text = field.name in ("input_ids", "clean_ids", "attention_mask", "mlm_labels", "matched")
        if field.name != "image_of_text" and isinstance(value, torch.Tensor):
            repeated[field.name] = value if by_text else torch.cat([value, value])
    found, expected = model(both), model(Batch(**repeated))
    for key in ("itm_logits", "itm", "mlm"):
        torch.testing.assert_close(found[key], expected[key], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["segl", "spl_small", "region"])
def test_a_sentence_of_two_pairs_is_read_once(small_model, make_batch, name):
    """Losses and gradients are those of a language stream that reads every text."""
    model = build(small_model, name).train()
    each = make_batch(**BOTH)
    read = torch.tensor([0, 1, 2, 1, 2, 0])
    each = replace(each, **{name: getattr(each, name)[read] for name in ("input_ids", "clean_ids", "attention_mask")})
    lengths = []
    model.vlp.language.register_forward_hook(lambda _, given, __: lengths.append(len(given[0])))

    def losses_and_gradients(batch):
        losses = model(batch)
        losses["loss"].backward()
        gradients = [p.grad for p in model.parameters()]
        model.zero_grad()
        return losses, gradients

    expected = losses_and_gradients(each)
    found = losses_and_gradients(replace(each, sentences=read[[0, 1, 2]], sentence_of_text=read))
    assert lengths == [6, 3]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "place"),
    [(name, "vision") for name in NAMES] + [(name, "cross") for name in NAMES if "spl" not in name],
)
def test_every_parameter_learns(small_model, make_batch, name, place):
    """Without exception: a parameter without a gradient stops distributed training."""
    model = build(replace(small_model, visual_loss_at=place, shared_cross_attention=place == "vision"), name).train()
    losses = model(corrupted(model, make_batch(**BOTH)))
    for key, value in losses.items():
        assert torch.isfinite(value).all(), key
    losses["loss"].backward()
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad, key
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        # Attention does not feel the keys' bias (it adds the same to a whole row); all else must feel the loss.
        assert parameter.grad.any() or key.endswith("key.bias"), key


@pytest.mark.parametrize(
    ("name", "tokens", "grid"),
    [
        ("naive_vit", 16, (4, 4)),
        ("ssul", 16, (4, 4)),
        ("segl", 16, (4, 4)),
        ("naive_resnet", 16, (4, 4)),
        ("spl_small", 4, None),
        ("spl_large", 11, None),
        ("ssul+2*spl_small", 4, None),
        ("region", 5, None),
    ],
)
def test_what_the_cross_modality_encoder_reads(small_model, make_batch, name, tokens, grid):
    model = build(small_model, name).eval()
    batch = make_batch()
    output = model.vlp(batch)
    assert output.tokens.tokens.shape == (3, tokens, 32)
    assert output.tokens.grid == grid
    assert output.features.grid == (None if name == "region" else (4, 4))
    assert output.pooled.shape == (3, 32)
    assert output.language.shape == (3, 9, 32)
    assert output.attention == []


def test_losses_are_added_with_their_weights(small_model, make_batch):
    model = build(small_model, "segl+0.5*ssul", mlm_weight=0.25, itm_weight=3.0).eval()
    losses = model(corrupted(model, make_batch()))
    assert set(losses) == {"mlm", "itm", "segl", "ssul", "visual", "loss", "itm_logits"}
    torch.testing.assert_close(losses["visual"], losses["segl"] + 0.5 * losses["ssul"])
    torch.testing.assert_close(losses["loss"], 0.25 * losses["mlm"] + 3 * losses["itm"] + losses["visual"])


def test_naive_model_has_no_visual_loss(small_model, make_batch):
    losses = build(small_model, "naive_vit")(make_batch())
    assert set(losses) == {"mlm", "itm", "loss", "itm_logits"}
    torch.testing.assert_close(losses["loss"], losses["mlm"] + losses["itm"])


@pytest.mark.parametrize("name", ["ssul", "segl", "segl_resnet"])
@pytest.mark.parametrize("shape", [ONE, BOTH], ids=["one", "both"])
def test_visual_loss_after_the_cross_modality_encoder(small_model, make_batch, name, shape):
    """It reads the image beside its own sentence, which is its first."""
    model = build(replace(small_model, visual_loss_at="cross"), name).eval()
    batch = corrupted(model, make_batch(**shape))
    losses, output = model(batch), model.vlp(batch)
    assert output.vision.shape == (len(shape["lengths"]), 16, 32)
    own = output.vision[:3]
    assert not torch.allclose(own, output.features.tokens, atol=1e-2)
    after = output.features._replace(tokens=own)
    torch.testing.assert_close(losses["visual"], model.vlp.visual_loss(after, output.tokens, batch).loss)
    before = model.vlp.visual_loss(output.features, output.tokens, batch).loss
    assert not torch.allclose(losses["visual"], before, atol=1e-4)
    # There the words can help to see: the loss of the image depends on the sentence.
    other = replace(batch, input_ids=batch.input_ids.flip(0), attention_mask=batch.attention_mask.flip(0))
    assert not torch.allclose(model(other)["visual"], losses["visual"], atol=1e-5)


@pytest.mark.parametrize("name", ["ssul", "segl", "segl_resnet", "spl_small"])
def test_visual_loss_at_the_vision_encoder_sees_no_words(small_model, make_batch, name):
    model = build(small_model, name).eval()
    batch = corrupted(model, make_batch())
    other = replace(batch, input_ids=batch.input_ids.flip(0), attention_mask=batch.attention_mask.flip(0))
    assert torch.equal(model(other)["visual"], model(batch)["visual"])
    assert not torch.equal(model(other)["itm"], model(batch)["itm"])


def test_set_prediction_after_the_cross_modality_encoder_is_refused(small_model):
    with pytest.raises(UserError, match=r"model\.visual_loss_at to 'vision'"):
        build(replace(small_model, visual_loss_at="cross"), "spl_small")


@pytest.mark.parametrize("name", ["segl", "region"])
def test_asking_for_attention_changes_nothing(small_model, make_batch, name):
    model = build(small_model, name).eval()
    batch = make_batch()
    plain, shown = model.vlp(batch), model.vlp(batch, need_weights=True)
    torch.testing.assert_close(plain.pooled, shown.pooled, atol=1e-6, rtol=0)
    assert len(shown.attention) == small_model.cross_layers
    count = shown.tokens.tokens.shape[1]
    last = shown.attention[-1].to_vision
    assert last.shape == (3, 2, 9, count)
    torch.testing.assert_close(last.sum(-1), torch.ones(3, 2, 9))
    if name == "region":
        assert (last.transpose(1, 3)[~shown.tokens.mask] == 0).all()


def test_streams_can_be_encoded_apart_and_joined(small_model, make_batch):
    model = build(small_model, "spl_small").eval()
    batch = make_batch()
    _, tokens = model.vlp.encode_vision(batch)
    pooled, _, _, _ = model.vlp.join(model.vlp.encode_language(batch), batch.attention_mask, tokens)
    assert torch.equal(pooled, model.vlp(batch).pooled)


@pytest.mark.parametrize("name", NAMES)
def test_matching_begins_at_chance(small_model, make_batch, name):
    model = build(small_model, name).eval()
    batch = make_batch(lengths=(6, 9, 7, 8) * 16, detections=(2, 0, 4, 3) * 16)
    with torch.no_grad():
        assert abs(float(model(corrupted(model, batch))["itm"]) - math.log(2)) < 0.1


# The paper's own size


PAPER = Vocabularies(words=30_522, segmentation=171, detector=1600, attributes=400)
C, V = 768, 30_522


@pytest.fixture(scope="module")
def paper_model():
    config = profile("paper").model
    return replace(
        config,
        language_pretrained="",
        tokenizer="",
        vit=replace(config.vit, pretrained=""),
        resnet=replace(config.resnet, pretrained=""),
    )


def parameters(name):
    """Trainable parameters of the paper's architecture, from its description."""
    dense = C * C + C  # a linear layer C → C
    norm = 2 * C
    attention = 4 * dense + norm
    feed_forward = 8 * C * C + 5 * C + norm
    transformer = attention + feed_forward
    language = (V + 512 + 2) * C + norm + 9 * transformer
    cross = 4 * (3 * attention + 2 * feed_forward) + 2 * attention + feed_forward  # the last without vision branch
    heads = dense + (dense + norm + V) + (2 * C + 2)
    vision = {
        "vit": 3 * 32 * 32 * C + C + 144 * C + 9 * transformer + norm,
        # ResNet-50 has 25,557,032 parameters, 2,049,000 of them its classifier's and 53,120 its (frozen) norms'.
        "resnet": 25_557_032 - 2_049_000 - 53_120 + 2048 * C + C + norm + 144 * C,
        "region": (1600 + 401 + 5 + 2048) * C + 2 * C + norm,
    }
    spl = 2 * attention + feed_forward + 1601 * (C + 1)
    loss = {"ssul": 3 * (C + 1), "segl": 172 * (C + 1), "spl_small": spl + 36 * C, "spl_large": spl + 100 * C}
    variant = VARIANTS[name]
    return language + cross + heads + vision[variant.vision] + sum(loss[n] for n, _ in variant.losses)


@pytest.mark.parametrize(
    ("name", "tokens", "finetuning_tokens"),
    [
        ("region", None, None),
        ("naive_vit", 144, 324),
        ("naive_resnet", 144, 361),
        ("ssul", 144, 324),
        ("segl", 144, 324),
        ("segl_resnet", 144, 361),
        ("spl_small", 36, 36),
        ("spl_large", 100, 100),
    ],
)
def test_the_papers_size_has_the_papers_parameters_and_tokens(paper_model, make_batch, name, tokens, finetuning_tokens):
    with torch.device("meta"):
        model = PretrainingModel(VLPModel(paper_model, VARIANTS[name], PAPER))
        assert sum(p.numel() for p in model.parameters()) == parameters(name)
        for size, count in ((384, tokens), (600, finetuning_tokens)):
            if count is not None:
                small = make_batch(lengths=(5,), detections=(0,), image_size=8)
                batch = replace(small, images=torch.zeros(1, 3, size, size))
                assert model.vlp.encode_vision(batch)[1].tokens.shape == (1, count, 768)


def test_the_papers_size_computes_and_begins_at_chance(paper_model, make_batch):
    torch.manual_seed(0)
    config = replace(paper_model, dropout=0.0)
    model = PretrainingModel(VLPModel(config, VARIANTS["segl"], PAPER)).eval()
    batch = make_batch(lengths=(12, 8, 10, 9), detections=(0,) * 4, image_size=384, words=V, segmentation=171)
    with torch.no_grad():
        losses = model(batch)
    assert abs(float(losses["itm"]) - math.log(2)) < 0.1
    assert abs(float(losses["mlm"]) - math.log(V)) < 1
    assert abs(float(losses["segl"]) - math.log(172)) < 1
