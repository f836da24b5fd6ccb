import gzip
import json
import math
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlp_lib.batches.augment import View, may_flip, show_detections, show_image, show_label_map
from vlp_lib.batches.pairs import PairDataset, PairKey, TrainingOrder, load_batches, validation_keys
from vlp_lib.batches.sample import NO_MATCHED_TOKEN
from vlp_lib.config import DataConfig
from vlp_lib.corpora.records import IGNORED
from vlp_lib.errors import UserError
from vlp_lib.profiles import profile
from vlp_lib.trainers.pretrain import PretrainingTask, make_tokenizer
from vlp_lib.variants import parse_variant


@pytest.fixture(scope="module")
def tokenizer(small_profile, tiny_corpus):
    return make_tokenizer(small_profile, tiny_corpus)


@pytest.fixture(scope="module")
def open_pairs(small_profile, tiny_corpus, tokenizer):
    def make(split="train", corpus=tiny_corpus, label_maps=True, max_detections=6, **data):
        config = replace(DataConfig(), **data)
        return PairDataset(corpus, split, tokenizer, small_profile.model, config, label_maps, max_detections)

    return make


def assert_same(first, second):
    for field in fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b), field.name
        elif field.name == "texts":
            for own, other in zip(a, b, strict=True):
                assert_same(own, other)
        elif field.name == "detections" and a is not None:
            assert all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
        else:
            assert a == b, field.name


def record_of(pairs, key):
    return pairs.records[pairs.image_of_pair[key.pair]]


def texts_of(pairs):
    """Every caption of the split by its tokens."""
    return {tuple(pairs.tokenizer.encode(c)[0].tolist()): c for r in pairs.records for c in r.captions}


def keys_of(pairs, count=60, seed=0):
    """Keys as a training run has them."""
    return [key for part in TrainingOrder(len(pairs), 12, count // 12, seed) for key in part]


# Matches


def test_each_image_meets_its_own_sentence_and_another(open_pairs):
    pairs = open_pairs(label_maps=False, max_detections=0)
    texts = texts_of(pairs)
    for key in keys_of(pairs, 240):
        sample = pairs[key]
        own, other = (texts[tuple(text.clean_ids.tolist())] for text in sample.texts)
        assert [text.matched for text in sample.texts] == [True, False]
        assert own == pairs.caption(key.pair)
        assert other not in record_of(pairs, key).captions
        assert sample.image_id == record_of(pairs, key).image_id


def test_one_sentence_an_image_is_mismatched_half_of_the_times(open_pairs):
    both = open_pairs(label_maps=False, max_detections=0, flip=0.0)
    one = open_pairs(label_maps=False, max_detections=0, flip=0.0, pairing="one")
    matched = []
    for key in keys_of(both, 600):
        sample = one[key]
        (text,) = sample.texts
        matched.append(text.matched)
        # It is the same sentence with the same mask, and the same view, as where both are shown.
        expected = both[key]
        assert torch.equal(text.input_ids, expected.texts[0 if text.matched else 1].input_ids)
        assert torch.equal(sample.image, expected.image)
    assert 0.44 < np.mean(matched) < 0.56  # three standard deviations


def test_a_batchs_sentences_are_seen_on_both_sides(open_pairs):
    """Or the words alone would say something about the match."""
    pairs = open_pairs(label_maps=False, max_detections=0)
    same = total = 0
    for part in TrainingOrder(len(pairs), 12, 10, seed=0):
        samples = [pairs[key] for key in part]
        own = sorted(tuple(s.texts[0].input_ids.tolist()) for s in samples)
        other = sorted(tuple(s.texts[1].input_ids.tolist()) for s in samples)
        total += len(own)
        same += len(set(own) & set(other))
    # All but those whose neighbour's sentence reads like their own.
    assert same / total > 0.9


def test_a_neighbour_of_the_same_image_is_replaced(open_pairs):
    pairs = open_pairs(label_maps=False, max_detections=0)
    assert pairs.image_of_pair[3] == pairs.image_of_pair[0]
    texts = texts_of(pairs)
    drawn = [texts[tuple(pairs[PairKey(0, seed, 3, 1)].texts[1].clean_ids.tolist())] for seed in range(300)]
    assert not set(drawn) & set(pairs.records[0].captions)
    assert len(set(drawn)) > 70  # of the 23 other images' 115


def test_the_same_words_are_no_mismatch(open_pairs, tiny_corpus):
    """Two images may be described alike: such a sentence, however written, does not tell them apart."""
    train = tiny_corpus.split("train")[:3]
    captions = (("A dog runs.",), ("a dog runs",), ("two red boxes",))
    records = tuple(replace(r, captions=c, caption_ids=(0,)) for r, c in zip(train, captions, strict=True))
    pairs = open_pairs(corpus=replace(tiny_corpus, records=records), label_maps=False, max_detections=0)
    wanted = pairs.tokenizer.encode("two red boxes")[0].tolist()
    for seed in range(20):
        assert pairs[PairKey(0, seed, 1, seed)].texts[1].clean_ids.tolist() == wanted


def test_corpus_that_can_have_no_mismatch_is_refused(open_pairs, tiny_corpus):
    train = tiny_corpus.split("train")[:3]
    alike = tuple(replace(r, captions=("a dog",), caption_ids=(0,)) for r in train)
    pairs = open_pairs(corpus=replace(tiny_corpus, records=alike), label_maps=False)
    with pytest.raises(UserError, match=f"{tiny_corpus.root}: its images share their captions"):
        pairs[PairKey(0, 0, 1, 0)]
    with pytest.raises(UserError, match="1 captioned images in its split 'train', too few"):
        open_pairs(corpus=replace(tiny_corpus, records=train[:1]))


def test_words_are_predicted_on_matched_pairs_only(open_pairs):
    plain, lxmert = (open_pairs(label_maps=False, mlm_on_mismatched=on) for on in (False, True))
    for key in keys_of(plain, 24):
        for text, counted in zip(plain[key].texts, lxmert[key].texts, strict=True):
            assert (text.mlm_labels != NO_MATCHED_TOKEN).any() == text.matched
            assert (counted.mlm_labels != NO_MATCHED_TOKEN).any()
            assert torch.equal(text.input_ids, counted.input_ids)


def test_masked_and_whole_sentences_differ_where_words_are_hidden(open_pairs):
    pairs = open_pairs(label_maps=False, mlm_probability=0.5)
    changes = 0
    for key in keys_of(pairs, 36):
        text = pairs[key].texts[0]
        chosen = text.mlm_labels != NO_MATCHED_TOKEN
        assert torch.equal(text.mlm_labels[chosen], text.clean_ids[chosen])
        assert torch.equal(text.input_ids[~chosen], text.clean_ids[~chosen])
        changes += int((text.input_ids != text.clean_ids).sum())
    assert changes > 60


# Reproducibility


def test_a_sample_depends_on_its_key_alone(open_pairs):
    first, second = open_pairs(), open_pairs()
    keys = keys_of(first, 12)
    forward = [first[key] for key in keys]
    np.random.seed(0)
    torch.manual_seed(0)
    for key, sample in reversed(list(zip(keys, forward, strict=True))):
        assert_same(second[key], sample)
    key = keys[0]
    assert not torch.equal(first[key._replace(seed=1)].image, first[key._replace(seed=2)].image)


@pytest.mark.parametrize("mlm_on_mismatched", [False, True])
def test_what_pairs_share_changes_no_sample(open_pairs, mlm_on_mismatched):
    pairs = open_pairs(mlm_on_mismatched=mlm_on_mismatched)
    keys = keys_of(pairs, 24)
    for key, sample in zip(keys, pairs.__getitems__(keys), strict=True):
        assert_same(pairs[key], sample)


@pytest.mark.parametrize("order", ["training", "validation"])
def test_workers_change_nothing(open_pairs, order):
    pairs = open_pairs()
    validation = validation_keys(pairs, 20)
    parts = [validation[i : i + 6] for i in range(0, 20, 6)]
    keys = TrainingOrder(len(pairs), 6, 4, seed=3) if order == "training" else parts
    alone, together = list(load_batches(pairs, keys, 0)), list(load_batches(pairs, keys, 2))
    assert len(alone) == len(together) == 4
    for a, b in zip(alone, together, strict=True):
        assert_same(a, b)


def test_loading_leaves_torchs_random_numbers_alone(open_pairs):
    """Or a resumed run, which loads once more, would drop out other activations."""
    pairs = open_pairs(label_maps=False)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    for workers in (0, 1):
        next(load_batches(pairs, TrainingOrder(len(pairs), 2, 2, seed=3), workers))
    assert torch.equal(torch.rand(3), expected)


@pytest.fixture
def damaged(tiny_corpus, tmp_path):
    """The corpus with so many of its first training images broken, and their files."""

    def make(count):
        training = tiny_corpus.split("train")
        broken = [tmp_path / record.path.name for record in training[:count]]
        for record, path in zip(training, broken, strict=False):
            path.write_bytes(record.path.read_bytes()[:100])
        records = [replace(record, path=path) for record, path in zip(training[:count], broken, strict=True)]
        return replace(tiny_corpus, records=(*records, *training[count:])), [str(path) for path in broken]

    return make


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_one_sentence_in_validation(open_pairs, damaged, workers):
    corpus, (broken,) = damaged(1)
    pairs = open_pairs(corpus=corpus, label_maps=False)
    with pytest.raises(UserError, match=f"^{broken} is truncated or not an image") as error:
        list(load_batches(pairs, [[PairKey(0, 0, 60, 0, augment=False)]], workers))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_in_training_another_pair_stands_in_for_a_broken_image(open_pairs, damaged, workers):
    """Which one depends on the sample's seed alone, and its own sentence comes with it."""
    whole, (corpus, broken) = open_pairs(label_maps=False), damaged(3)
    pairs = open_pairs(corpus=corpus, label_maps=False)
    keys = [PairKey(pair, seed, 60, 7) for pair in (0, 9, 14) for seed in range(4)] + [PairKey(80, 1, 60, 7)]
    (batch,) = load_batches(pairs, [keys], workers)
    (again,) = load_batches(pairs, [keys], 0)
    assert torch.equal(batch.images, again.images)
    assert set(batch.unreadable) == set(broken)
    assert len(batch.unreadable) >= 12  # a pair that stands in may be broken, too
    hurt = {record.image_id for record in pairs.records[:3]}
    assert hurt.isdisjoint(batch.image_ids.tolist())
    assert len(set(batch.image_ids[:4].tolist())) > 1
    assert torch.equal(batch.images[12], next(load_batches(whole, [keys[12:]], 0)).images[0])
    texts, captions = texts_of(whole), {record.image_id: record.captions for record in pairs.records}
    for key in keys:
        sample = pairs[key]
        assert texts[tuple(sample.texts[0].clean_ids.tolist())] in captions[sample.image_id]


def test_a_disk_that_gives_nothing_is_an_error(open_pairs, damaged):
    corpus, _ = damaged(24)
    with pytest.raises(UserError, match="is truncated or not an image"):
        open_pairs(corpus=corpus, label_maps=False)[PairKey(0, 0, 60, 0)]


# Validation


def test_validation_pairs_are_every_runs(small_profile, tiny_corpus, tokenizer):
    tasks = [
        PretrainingTask(tiny_corpus, tokenizer, small_profile, parse_variant(name), seed, 3)
        for name, seed in (("naive_vit", 0), ("segl", 1), ("spl_small", 2), ("region", 2**31))
    ]
    keys = tasks[0].validation
    assert all(task.validation == keys for task in tasks)
    assert not any(key.augment for key in keys)
    assert len({key.pair for key in keys}) == len({key.seed for key in keys}) == 16
    assert {key.other for key in keys} == {key.pair for key in keys}
    batches = list(load_batches(tasks[0].val, [keys], 0))
    assert batches[0].matched.tolist() == [1] * 16 + [0] * 16  # every image with its own and another sentence
    # And they are made into the same images and sentences, whatever else the variant decodes.
    for key in keys[:4]:
        shown = [task.val[key] for task in tasks]
        for other in shown[1:]:
            assert_same(replace(other, label_map=None, detections=None), shown[0])


def test_validation_shows_the_whole_image(open_pairs, tiny_corpus):
    pairs = open_pairs("val")
    for key in validation_keys(pairs, 5):
        record = record_of(pairs, key)
        stored = np.asarray(tiny_corpus.read_image(record))
        assert np.array_equal(pairs[key].image.numpy().transpose(1, 2, 0), stored)
        assert np.array_equal(pairs[key].label_map.numpy(), tiny_corpus.read_label_map(record))


def test_a_small_split_gives_all_its_pairs(open_pairs):
    pairs = open_pairs("val")
    keys = validation_keys(pairs, 10_000)
    assert sorted(key.pair for key in keys) == list(range(60))
    # Asked for fewer, it gives the first of these (the last one's neighbour is then the first).
    fewer = validation_keys(pairs, 16)
    assert fewer[:15] == keys[:15]
    assert fewer[15].other == fewer[0].pair


# Views


def mirror_of(pairs, key):
    """The sample's image, label map and boxes, plain and mirrored, of the whole image."""
    record = record_of(pairs, key)
    image, labels = pairs.corpus.read_image(record), pairs.corpus.read_label_map(record)
    found = pairs.corpus.read_detections(record, 6, 0.2)
    return [
        (
            show_image(image, view, 32).transpose(2, 0, 1),
            np.full((32, 32), IGNORED, np.uint8) if labels is None else show_label_map(labels, view, 32),
            show_detections(found, view).boxes,
        )
        for view in (View(), View(flip=True))
    ]


@pytest.mark.parametrize("pairing", ["both", "one"])
def test_mirrored_only_where_each_of_its_sentences_allows(open_pairs, pairing):
    pairs = open_pairs(flip=1.0, resize=(1.0, 1.0), pairing=pairing)
    texts = texts_of(pairs)
    seen = set()
    for key in keys_of(pairs):
        sample = pairs[key]
        allowed = all(may_flip(texts[tuple(text.clean_ids.tolist())]) for text in sample.texts)
        image, labels, boxes = mirror_of(pairs, key)[allowed]
        assert np.array_equal(sample.image.numpy(), image)
        assert np.array_equal(sample.label_map.numpy(), labels)
        np.testing.assert_allclose(sample.detections.boxes, boxes, atol=1e-6)
        seen.add(allowed)
    assert seen == {True, False}


class OneTokenEach:
    """A tokenizer to which each sentence is one token, so that a sample says which sentences it holds."""

    mask_id = 4

    def __init__(self, sentences):
        self.sentences = sentences
        self.number = {sentence: number for number, sentence in enumerate(sentences)}

    def candidates(self):
        return np.arange(5)

    def encode(self, sentence):
        return np.array([self.number[sentence]]), np.array([0])


@pytest.mark.parametrize("pairing", ["both", "one"])
@pytest.mark.parametrize("captions", ["embedded", "COCO"])
def test_mirror_and_keywords_say_nothing_about_the_match(
    tiny_corpus, small_model, monkeypatch, request, pairing, captions
):
    """Where a sentence has a keyword nothing is mirrored; where it has none, as many matched as mismatched images."""
    corpus = tiny_corpus
    if captions == "COCO":
        image = tiny_corpus.split("train")[0]
        path = request.getfixturevalue("shared_data") / "coco/annotations/captions_val2017_full.json.gz"
        of_images = {}
        for row in json.loads(gzip.decompress(path.read_bytes()))["annotations"]:
            of_images.setdefault(row["image_id"], []).append(row["caption"].strip())
        corpus = replace(tiny_corpus, records=tuple(replace(image, captions=tuple(c)) for c in of_images.values()))
    sentences = OneTokenEach(sorted({c for record in corpus.split("train") for c in record.captions}))
    monkeypatch.setattr(
        "vlp_lib.batches.pairs.show_image", lambda image, view, size: np.full((1, 1, 3), view.flip, np.uint8)
    )
    pairs = PairDataset(corpus, "train", sentences, small_model, DataConfig(pairing=pairing))
    table = Counter()
    for part in TrainingOrder(len(pairs), 24, 150, seed=0):
        for sample in map(pairs.__getitem__, part):
            for text in sample.texts:
                allowed = may_flip(sentences.sentences[int(text.clean_ids[0])])
                table[allowed, text.matched, bool(sample.image.any())] += 1
    for matched in (True, False):
        assert table[False, matched, True] == 0
        assert table[False, matched, False] > 50
    count = {matched: table[True, matched, True] + table[True, matched, False] for matched in (True, False)}
    share = {matched: table[True, matched, True] / count[matched] for matched in (True, False)}
    assert min(share.values()) > 0.3
    # Three standard deviations; where both sentences are shown, a batch's are the same ones on both sides.
    noise = 3 * math.sqrt(0.25 / count[True] + 0.25 / count[False])
    assert abs(share[True] - share[False]) < (noise if pairing == "one" else 0.005)


def test_never_mirrored_without_flip(open_pairs):
    pairs = open_pairs(flip=0.0, resize=(1.0, 1.0))
    for key in keys_of(pairs, 24):
        assert np.array_equal(pairs[key].image.numpy(), mirror_of(pairs, key)[0][0])


def test_images_without_a_map_have_ignored_pixels(open_pairs, tiny_corpus):
    pairs = open_pairs()
    has = [tiny_corpus.has_label_map(pairs.records[i]) for i in pairs.image_of_pair]
    assert set(has) == {True, False}
    for key in keys_of(pairs):
        labels = pairs[key].label_map
        assert bool((labels != IGNORED).any()) == has[key.pair]


def test_detections_keep_to_threshold_and_number(open_pairs):
    few = open_pairs(max_detections=2)
    none = open_pairs(detector_threshold=1.0)
    all_of_them = open_pairs(detector_threshold=0.0, max_detections=16)
    keys = [key._replace(augment=False) for key in keys_of(few)]
    assert {len(few[key].detections.labels) for key in keys} == {2}
    assert {len(none[key].detections.labels) for key in keys} == {0}
    assert min(float(all_of_them[key].detections.scores.min()) for key in keys) < 0.2
    assert min(float(open_pairs()[key].detections.scores.min()) for key in keys) >= 0.2
    assert open_pairs(max_detections=0)[keys[0]].detections is None
    assert open_pairs(label_maps=False)[keys[0]].label_map is None


# Order


@settings(max_examples=60, deadline=None)
@given(pairs=st.integers(1, 40), batch=st.integers(1, 17), steps=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
def test_each_epoch_visits_each_pair_once(pairs, batch, steps, seed):
    order = TrainingOrder(pairs, batch, steps, seed)
    parts = list(order)
    assert len(parts) == len(order) == steps
    assert all(len(part) == batch for part in parts)
    keys = [key for part in parts for key in part]
    assert len({key.seed for key in keys}) == len(keys)
    for part in parts:  # the sentences change places within a batch, each with its seed
        assert sorted((key.other, key.other_seed) for key in part) == sorted((key.pair, key.seed) for key in part)
        assert len(part) == 1 or all((key.other, key.other_seed) != (key.pair, key.seed) for key in part)
    for epoch in range(0, len(keys) // pairs):
        assert sorted(key.pair for key in keys[epoch * pairs : (epoch + 1) * pairs]) == list(range(pairs))
    assert all(key.augment for key in keys)


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=40),
    alike=st.booleans(),
    share=st.integers(1, 5),
    world=st.integers(1, 3),
    accumulation=st.integers(1, 3),
    start=st.integers(0, 6),
)
def test_order_is_resumed_and_divided_without_loss(lengths, alike, share, world, accumulation, start):
    """In the order of the seed alone and in batches of like lengths."""

    def order(*place):
        return TrainingOrder(len(lengths), batch, 6, 5, *place, lengths=np.array(lengths) if alike else None)

    batch = share * world * accumulation
    whole = list(order())
    resumed = order(start)
    assert list(resumed) == whole[start:]
    assert len(resumed) == 6 - start
    ranks = [list(order(start, rank, world, accumulation)) for rank in range(world)]
    assert {len(parts) for parts in ranks} == {(6 - start) * accumulation}
    for i, step in enumerate(whole[start:]):
        parts = [ranks[rank][i * accumulation + part] for part in range(accumulation) for rank in range(world)]
        assert all(len(part) == share for part in parts)
        assert [key for part in parts for key in part] == step


def test_order_is_shuffled_by_its_seed():
    orders = [[key.pair for part in TrainingOrder(100, 10, 20, seed) for key in part] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][:100] != orders[0][100:] != list(range(100))


# Batches of like lengths


def test_without_lengths_the_order_is_the_permutation():
    given_pairs = [key.pair for part in TrainingOrder(10, 4, 5, 7) for key in part]
    epochs = [np.random.default_rng((7, epoch)).permutation(10).tolist() for epoch in (0, 1)]
    assert given_pairs == epochs[0] + epochs[1]


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([8, 16, 24, 40]), min_size=1, max_size=60),
    batch=st.integers(1, 17),
    steps=st.integers(1, 14),
    seed=st.integers(0, 2**32 - 1),
)
def test_batches_of_like_lengths(lengths, batch, steps, seed):
    pairs = len(lengths)
    steps_of = np.array(lengths)
    order = TrainingOrder(pairs, batch, steps, seed, lengths=steps_of)
    parts = list(order)
    assert all(len(part) == batch for part in parts)
    # What a step trains on depends on seed and step alone, in whatever order it is asked.
    for step in range(steps - 1, -1, -1):
        assert TrainingOrder(pairs, batch, steps, seed, lengths=steps_of).step(step) == parts[step]
    seen = [key.pair for part in parts for key in part]
    for epoch in range(len(seen) // pairs):
        assert sorted(seen[epoch * pairs : (epoch + 1) * pairs]) == list(range(pairs))
    # Within an epoch a batch is mixed only where one length ends and the next begins.
    for epoch in range(-(-len(seen) // pairs)):
        within = [p for i, p in enumerate(parts) if i * batch // pairs == ((i + 1) * batch - 1) // pairs == epoch]
        mixed = sum(len({lengths[key.pair] for key in part}) > 1 for part in within)
        assert mixed <= len(set(lengths)) - 1


def test_batches_of_like_lengths_are_shuffled():
    lengths = np.repeat([8, 16], 500)
    means = [lengths[[key.pair for key in part]].mean() for part in TrainingOrder(1000, 50, 20, 0, lengths=lengths)]
    assert sorted(means) != means != sorted(means, reverse=True)
    assert set(means) == {8.0, 16.0}


def test_lengths_are_what_sentences_are_padded_to(open_pairs):
    pairs = open_pairs(text_lengths=(8, 11, 24), label_maps=False, max_detections=0)
    tokens = [len(pairs.tokenizer.encode(pairs.caption(pair))[0]) for pair in range(len(pairs))]
    assert pairs.lengths.tolist() == [next(n for n in (8, 11, 24) if n >= count) for count in tokens]
    assert len(set(pairs.lengths.tolist())) > 1
    order = TrainingOrder(len(pairs), 12, 20, seed=3, lengths=pairs.lengths)
    widths = {batch.input_ids.shape[1] for batch in load_batches(pairs, order, 0)}
    assert widths <= {8, 11, 24}
    assert len(widths) > 1
    assert open_pairs().lengths is None


def test_the_profiles_lengths_hold_the_longest_text():
    for name in ("tiny", "gpu", "paper"):
        chosen = profile(name)
        assert chosen.data.text_lengths[-1] >= chosen.model.max_text_length
        assert list(chosen.data.text_lengths) == sorted(set(chosen.data.text_lengths))
    assert profile("smoke").data == DataConfig()
