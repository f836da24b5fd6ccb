import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizerFast

from vlp_lib.batches import tokenizer as tokenizer_module
from vlp_lib.batches.tokenizer import SPECIAL, load_tokenizer, train_tokenizer
from vlp_lib.errors import UserError

SENTENCES = (
    "A man with a red helmet on a small moped on a dirt road.",
    "Two women, both wearing hats, are sitting at the café's table!",
    "it's 12:30 p.m. -- the naïve übermensch doesn't wait...",
    "A STOP sign (bent) & a fire-hydrant; price: $3.50 #1",
    "一只狗 runs with 猫",
    "unbelievably  spaced\tand\nbroken   words",
    "a zebra's stripes are un-photographable emoji 😀 here",
    "",
    "x" * 120,
)
WORDS = (
    "a man with red helmet on small mo ##ped dirt road two women both wearing hat ##s are sitting at the cafe ' s "
    "table it 12 : 30 p . m - na ##ive u ##ber ##men ##sch does ##n t wait stop sign ( bent ) & fire hydra ##nt ; "
    "price $ 3 50 # 1 runs un ##believ ##ably spaced and broken words zebra stripes photo ##graph ##able here , !"
)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """A vocab.txt as BERT's: special tokens, some never used, letters, words and continuations."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    special = "[PAD] [unused0] [UNK] [CLS] [SEP] [MASK] 狗"
    tokens = [*special.split(), *letters, *(f"##{c}" for c in letters[:20]), *WORDS.split()]
    path = tmp_path_factory.mktemp("bert") / "vocab.txt"
    path.write_text("\n".join(dict.fromkeys(tokens)) + "\n", encoding="utf-8")
    return path


def transformers_tokenizer(vocabulary):
    tokens = vocabulary.read_text(encoding="utf-8").splitlines()
    return BertTokenizerFast(vocab={token: i for i, token in enumerate(tokens)}, do_lower_case=True)


def legacy_tokenizer(vocabulary):
    """Transformers' own WordPiece in Python, which knows nothing of the tokenizers library."""
    module = pytest.importorskip("transformers.models.bert.tokenization_bert_legacy")
    return module.BertTokenizerLegacy(str(vocabulary), do_lower_case=True)


@pytest.mark.parametrize("reference", [transformers_tokenizer, legacy_tokenizer])
def test_tokens_are_transformers_own(vocabulary, reference):
    theirs, ours = reference(vocabulary), load_tokenizer(str(vocabulary), 512)
    assert len(ours) == len(vocabulary.read_text(encoding="utf-8").splitlines())
    known = 0
    for sentence in SENTENCES:
        expected = theirs(sentence)["input_ids"]
        assert ours.encode(sentence)[0].tolist() == expected
        known += sum(i != 2 for i in expected)
    assert known > 100  # not all unknown


@pytest.mark.parametrize("reference", [transformers_tokenizer, legacy_tokenizer])
def test_real_captions_are_tokenized_as_by_transformers(vocabulary, shared_data, reference):
    captions = json.loads((shared_data / "coco/annotations/captions_train2017.json").read_text())["annotations"]
    theirs, ours = reference(vocabulary), load_tokenizer(str(vocabulary), 512)
    assert len(captions) > 100
    for caption in captions:
        assert ours.encode(caption["caption"])[0].tolist() == theirs(caption["caption"])["input_ids"]


def test_a_folder_and_a_tokenizer_json_are_read_alike(vocabulary, tmp_path):
    ours = load_tokenizer(str(vocabulary), 512)
    ours.save(tmp_path / "tokenizer.json")
    for source in (vocabulary.parent, tmp_path, tmp_path / "tokenizer.json"):
        again = load_tokenizer(str(source), 512)
        assert all(again.encode(s)[0].tolist() == ours.encode(s)[0].tolist() for s in SENTENCES)
    assert ours.mask_id == 5
    assert ours.token(ours.mask_id) == "[MASK]"


def test_windows_line_ends_change_nothing(vocabulary, tmp_path):
    other = tmp_path / "vocab.txt"
    other.write_bytes(vocabulary.read_bytes().replace(b"\n", b"\r\n"))
    ours, theirs = load_tokenizer(str(other), 64), load_tokenizer(str(vocabulary), 64)
    assert ours.encode(SENTENCES[0])[0].tolist() == theirs.encode(SENTENCES[0])[0].tolist()


def test_padding_of_a_tokenizer_json_is_off(vocabulary, tmp_path):
    """Sentence encoders on the hub come with padding to a fixed length, which would pass for words here."""
    ours = load_tokenizer(str(vocabulary), 64)
    padded = load_tokenizer(str(vocabulary), 64)
    padded.engine.enable_padding(length=128)
    padded.save(tmp_path / "tokenizer.json")
    again = load_tokenizer(str(tmp_path / "tokenizer.json"), 64)
    assert again.encode(SENTENCES[0])[0].tolist() == ours.encode(SENTENCES[0])[0].tolist()


# Words


def test_pieces_know_their_word(vocabulary):
    tokenizer = load_tokenizer(str(vocabulary), 64)
    ids, words = tokenizer.encode("two mopeds, unbelievably.")
    tokens = [tokenizer.token(i) for i in ids]
    assert tokens == ["[CLS]", "two", "mo", "##ped", "##s", ",", "un", "##believ", "##ably", ".", "[SEP]"]
    assert words.tolist() == [-1, 0, 1, 1, 1, 2, 3, 3, 3, 4, -1]


def test_empty_text_is_two_special_tokens(vocabulary):
    ids, words = load_tokenizer(str(vocabulary), 64).encode("")
    assert (ids.tolist(), words.tolist()) == ([3, 4], [-1, -1])
    assert ids.dtype == words.dtype == np.int64


@pytest.mark.parametrize("length", [4, 9, 64])
def test_long_texts_are_cut_between_the_special_tokens(vocabulary, length):
    whole = load_tokenizer(str(vocabulary), 512).encode(SENTENCES[0])[0].tolist()
    ids, words = load_tokenizer(str(vocabulary), length).encode(SENTENCES[0])
    assert ids.tolist() == (whole if len(whole) <= length else [*whole[: length - 1], 4])
    assert len(words) == len(ids)


def test_candidates_are_all_but_the_special_tokens(vocabulary):
    tokenizer = load_tokenizer(str(vocabulary), 64)
    special = {tokenizer.engine.token_to_id(name) for name in SPECIAL}
    assert special == {0, 2, 3, 4, 5}
    assert set(tokenizer.candidates().tolist()) == set(range(len(tokenizer))) - special


# Training


def test_trained_vocabulary_holds_frequent_words_and_every_letter():
    texts = ["A red ball", "a red box.", "Blue BALL", "a rare word"]
    tokenizer = train_tokenizer(texts, 32)
    tokens = [tokenizer.token(i) for i in range(len(tokenizer))]
    assert tokens[:5] == list(SPECIAL)
    # "a" occurs three times but is a letter; of the words, "ball" and "red" occur twice.
    assert tokens[-2:] == ["ball", "red"]
    letters = sorted(set("aredballboxbluerareword."))
    assert tokens[5:-2] == letters + [f"##{letter}" for letter in letters]
    unknown = tokenizer.engine.token_to_id("[UNK]")
    for text in ("a red ball", "dear bear", "box. ball"):
        assert unknown not in tokenizer.encode(text)[0]
    assert unknown in tokenizer.encode("zebra")[0]


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(alphabet="abc de,é", max_size=20), min_size=1, max_size=8))
def test_no_word_of_the_training_texts_is_unknown(texts):
    tokenizer = train_tokenizer(texts, 64)
    unknown = tokenizer.engine.token_to_id("[UNK]")
    for text in texts:
        ids, words = tokenizer.encode(text)
        assert unknown not in ids
        assert len(ids) == len(words)
    shuffled = train_tokenizer(sorted(texts, reverse=True), 64)
    assert shuffled.engine.to_str() == tokenizer.engine.to_str()


def test_trained_vocabulary_can_be_limited():
    texts = [f"word{i} word{i}" for i in range(50)]
    assert len(train_tokenizer(texts, 32)) > 60
    assert len(train_tokenizer(texts, 32, size=40)) == 40


def test_training_is_the_same_in_every_process():
    program = (
        "import sys; from vlp_lib.batches.tokenizer import train_tokenizer\n"
        "texts = [f'the {a} {b} thing number {i % 7}' for i, (a, b) in enumerate((x, y) for x in 'abcdef' for y in "
        "('red', 'green', 'über', 'cafe'))]\n"
        "print(train_tokenizer(texts, 32).engine.to_str())"
    )
    one, other = (
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    )
    assert len(one) > 500
    assert one == other


# What a user may do wrong


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[PAD]\n[UNK]\n[CLS]\n[SEP]\nword\n", r"lacks \[MASK\]"),
        ("word\nother\n", r"lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\]"),
        ("[UNK]\n[CLS]\n[SEP]\n[MASK]\n[PAD]\n", r"does not begin with \[PAD\]"),
        ("", "lacks"),
    ],
)
def test_a_wrong_vocabulary_is_named(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        load_tokenizer(str(path), 32)
    assert str(path) in str(error.value)


def test_a_broken_tokenizer_is_named(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(UserError, match=r"cannot load the tokenizer .*tokenizer"):
        load_tokenizer(str(tmp_path / "tokenizer.json"), 32)
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot load the tokenizer .*vocab\.txt"):
        load_tokenizer(str(tmp_path / "vocab.txt"), 32)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty has neither tokenizer\.json nor vocab\.txt"):
        load_tokenizer(str(tmp_path / "empty"), 32)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"cannot load the tokenizer .*absent") as error:
        load_tokenizer(str(tmp_path / "absent" / "vocab.txt"), 32)
    assert "\n" not in str(error.value)


def test_lengths_are_those_of_the_encodings(monkeypatch):
    monkeypatch.setattr(tokenizer_module, "_AT_ONCE", 2)
    texts = ["a dog", "", "two dogs and a dog run over the field", "dog", "a dog"]
    trained = train_tokenizer(texts, 8)
    assert trained.lengths(texts).tolist() == [len(trained.encode(text)[0]) for text in texts]
    assert trained.lengths(texts).max() == 8
    assert trained.lengths([]).shape == (0,)
