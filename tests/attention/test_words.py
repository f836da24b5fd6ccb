"""Where the words of a caption look."""

import numpy as np
import pytest

from vlp_lib.attention.words import WordLook, longest_words, unknown_words, words_of
from vlp_lib.batches.tokenizer import train_tokenizer
from vlp_lib.figures.attention_maps import draw_captions


def test_words_have_the_places_of_all_their_tokens():
    tokenizer = train_tokenizer(["a dog and a cat"] * 2, 40)
    assert words_of(tokenizer, "a dog and a xo") == [("a", [1, 4]), ("dog", [2]), ("and", [3]), ("[UNK]", [5])]
    pieces = train_tokenizer(["a dog and a cat", "do", "g"], 40)
    assert dict(words_of(pieces, "a dog"))["dog"] == [2, 3, 4]  # seen once: its letters


def test_words_that_a_vocabulary_lacks_are_named_as_they_were_written():
    tokenizer = train_tokenizer(["a ball and a dog", "a ball and a dog", "o n l q"], 40)
    assert unknown_words(tokenizer, "a ball and a Dog") == []
    assert unknown_words(tokenizer, "a Balloon and two dogs, ball") == ["Balloon", "two", "dogs", ","]


def test_the_longest_words_are_chosen_in_the_order_of_the_sentence():
    words = ["a", "man", "on", "the", "kickstand", "of", "a", "bicycle"]
    assert longest_words(words, 3) == ["man", "kickstand", "bicycle"]


@pytest.mark.parametrize("counts", [(2,), (1, 3)])
def test_a_row_an_image_and_a_column_a_word(counts):
    image = np.zeros((4, 4, 3))
    looks = [WordLook("a cat", image, {f"w{i}": np.full((4, 4), 1.0 + i) for i in range(n)}) for n in counts]
    figure, data = draw_captions(looks)
    assert len([axes for axes in figure.axes if axes.images]) == sum(1 + n for n in counts)
    assert data["most attended"].tolist() == [1.0 + i for n in counts for i in range(n)]
