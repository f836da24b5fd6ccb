"""Every gradient as its loss says, in the precision, on the threads and for the odd batches that users have."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from contexts import SIZES, context

from vlp_lib.batches.collate import collate
from vlp_lib.batches.pairs import PairDataset, PairKey
from vlp_lib.batches.sample import NO_MATCHED_TOKEN
from vlp_lib.config import DataConfig
from vlp_lib.corpora.records import IGNORED, NO_DETECTIONS
from vlp_lib.losses.base import MixedVisualLoss
from vlp_lib.losses.itm import itm_loss
from vlp_lib.losses.mlm import mlm_loss
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.models.vision import VisionFeatures
from vlp_lib.tasks.downstream import task_loss
from vlp_lib.trainers.pretrain import make_tokenizer, vocabularies
from vlp_lib.variants import VARIANTS, parse_variant

NAMES = (*VARIANTS, "segl+0.5*ssul", "ssul+2*spl_small")
SOME = {"lengths": (9, 5, 7), "detections": (3, 0, 4)}


def build(config, name, sizes=SIZES):
    torch.manual_seed(0)
    return PretrainingModel(VLPModel(config, parse_variant(name), sizes, pretrained=False))


def in_float64(batch):
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    kept = {k: v.double() for k, v in values.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    return replace(batch, **kept)


def losses_and_gradients(model, batch):
    """The scalars of a training step, and all gradients in one vector."""
    model.zero_grad()
    losses = model(model.vlp.visual_loss.corrupt(batch))
    losses["loss"].backward()
    gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
    return {name: value.detach() for name, value in losses.items() if value.ndim == 0}, gradients


# Gradients, each number moved by itself


def normal(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


@pytest.mark.parametrize(
    ("loss", "shape", "targets"),
    [
        (itm_loss, (5, 2), torch.tensor([0, 1, 1, 0, 1])),
        (mlm_loss, (4, 9), torch.tensor([8, 0, 3, 3])),
        (task_loss, (3, 4), torch.tensor([3, 0, 1])),
        (task_loss, (2, 5), torch.tensor([[0.0, 0.3, 1.0, 0.6, 0.0], [0.9, 0.0, 0.0, 0.0, 0.3]]).double()),
    ],
    ids=["itm", "mlm", "classes", "soft answers"],
)
def test_gradients_of_losses_on_logits(loss, shape, targets):
    assert loss(normal(*shape), targets).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda logits: loss(logits, targets), normal(*shape))


@pytest.mark.parametrize(
    ("name", "settings", "convolutional"),
    [
        ("ssul", {}, False),
        ("ssul", {"patch": 4, "probability": 0.5}, False),
        ("segl", {}, False),
        ("segl", {"downsampling": "majority"}, False),
        ("segl", {}, True),
        ("spl_small", {}, False),
        ("spl_large", {"no_object_weight": 0.5}, False),
    ],
)
def test_gradients_of_visual_losses(make_batch, name, settings, convolutional):
    """To the features of the vision stream; of SPL through its decoder."""
    torch.manual_seed(0)
    loss = MixedVisualLoss(context(convolutional=convolutional), {name: 1.0}, {name: settings}).double()
    batch = loss.corrupt(in_float64(make_batch(**SOME)))

    def of_features(tokens):
        features = VisionFeatures(tokens, (4, 4))
        return loss(features, loss.tokens(features), batch).loss

    assert torch.autograd.gradcheck(of_features, normal(3, 16, 8))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_through_the_model(small_model, make_batch, name):
    """Of all losses and all parameters at once, along three random directions."""
    model = build(small_model, name).eval().double()
    batch = model.vlp.visual_loss.corrupt(in_float64(make_batch(**SOME)))
    parameters = {key: p.detach() for key, p in model.named_parameters()}
    directions = [{key: torch.randn_like(p) for key, p in parameters.items()} for _ in range(3)]

    def moved(steps):
        at = {
            key: p + sum(step * way[key] for step, way in zip(steps, directions, strict=True))
            for key, p in parameters.items()
        }
        return torch.func.functional_call(model, at, (batch,))["loss"]

    here = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    # A step so small that it seldom crosses the kink of a ReLU.
    assert torch.autograd.gradcheck(moved, here, eps=1e-7, atol=1e-6, rtol=1e-5)


# Precision and threads


@pytest.mark.parametrize("name", NAMES)
def test_bf16_is_float32_within_the_published_bounds(small_model, make_batch, name):
    """docs/guarantees.md: losses within 1 %, all gradients together within 10 % of their length."""
    model = build(small_model, name)
    batch = make_batch(**SOME)
    exact, gradients = losses_and_gradients(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, found = losses_and_gradients(model, batch)
    assert all(value.dtype == torch.float32 for value in rounded.values())
    for key, value in exact.items():
        torch.testing.assert_close(rounded[key], value, rtol=0.01, atol=0, msg=key)
    assert (found - gradients).norm() < 0.1 * gradients.norm()


@pytest.mark.parametrize("name", NAMES)
def test_two_threads_compute_what_one_does(small_model, make_batch, name):
    """docs/guarantees.md: losses within a millionth, gradients within a hundred thousandth of their length."""
    model = build(small_model, name)
    batch = make_batch(lengths=(9, 5, 7, 6) * 8, detections=(3, 0, 4, 2) * 8)
    before, found = torch.get_num_threads(), {}
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found[threads] = losses_and_gradients(model, batch)
    finally:
        torch.set_num_threads(before)
    (one, gradients), (two, again) = found[1], found[2]
    torch.testing.assert_close(two, one, rtol=1e-6, atol=0)
    assert (again - gradients).norm() <= 1e-5 * gradients.norm()


# Odd batches


@pytest.fixture(scope="module")
def usual(small_model, tiny_corpus, small_profile):
    """The pairs of a corpus; one image has no words and one five hundred."""
    first, second, *rest = tiny_corpus.split("train")
    words = first.captions[0].split()
    texts = {0: "", 1: " ".join(words * -(-500 // len(words)))}
    odd = [replace(r, captions=(texts[i],), caption_ids=(0,)) for i, r in enumerate((first, second))]
    corpus = replace(tiny_corpus, records=(*odd, *rest))
    tokenizer = make_tokenizer(small_profile, tiny_corpus)
    return PairDataset(corpus, "train", tokenizer, small_model, DataConfig(), label_maps=True, max_detections=4)


EMPTY, LONG, PLAIN = 0, 1, 2  # pairs


def sample_of(pairs, case):
    pair = {"empty caption": EMPTY, "caption of 500 words": LONG}.get(case, PLAIN)
    sample = pairs[PairKey(pair, seed=1, other=9, other_seed=2)]
    if case == "one caption":
        return replace(sample, texts=sample.texts[:1])
    if case == "no label map":
        return replace(sample, label_map=torch.full_like(sample.label_map, IGNORED))
    if case == "no detection":
        return replace(sample, detections=NO_DETECTIONS)
    if case == "no masked word":
        texts = [replace(t, mlm_labels=torch.full_like(t.mlm_labels, NO_MATCHED_TOKEN)) for t in sample.texts]
        return replace(sample, texts=tuple(texts))
    return sample


CASES = ("one image", "one caption", "empty caption", "caption of 500 words", "no label map", "no detection")
CASES = (*CASES, "no masked word")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_an_odd_image_alone_and_in_company(small_model, tiny_corpus, usual, name, case):
    """Finite, with a gradient that is no other image's; what has nothing to be measured on is 0."""
    model = build(small_model, name, vocabularies(tiny_corpus, usual.tokenizer))
    odd, plain = sample_of(usual, case), sample_of(usual, "one image")
    losses, gradients = losses_and_gradients(model, collate([odd]))
    assert all(torch.isfinite(value) for value in losses.values())
    assert 0 < gradients.norm() < 1e3  # finite, too
    nothing = {"empty caption": "mlm", "no masked word": "mlm", "no label map": "segl"}.get(case)
    assert nothing not in losses or losses[nothing] == 0

    def scores(*samples):
        with torch.no_grad():
            return model(model.vlp.visual_loss.corrupt(collate(list(samples))))["itm_logits"]

    company = replace(plain, texts=plain.texts[: len(odd.texts)])
    torch.testing.assert_close(scores(odd, company)[::2], scores(odd), atol=1e-5, rtol=0)


def test_of_500_words_as_many_are_read_as_fit(small_model, usual):
    text = sample_of(usual, "caption of 500 words").texts[0]
    words = usual.caption(LONG).split()
    assert len(words) >= 500
    assert len(text.clean_ids) == small_model.max_text_length
    cut = " ".join(words[: small_model.max_text_length])
    assert np.array_equal(text.clean_ids, usual.tokenizer.encode(cut)[0])
