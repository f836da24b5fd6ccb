"""Words to WordPiece ids, as BERT (section IV-A1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as _Tokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from vlp_lib import packages
from vlp_lib.errors import UserError, reason
from vlp_lib.fetch import hub

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL = (PAD, UNK, CLS, SEP, MASK)
_AT_ONCE = 10_000
"""Texts whose encodings exist at the same time: those of five million sentences would not fit into memory."""


@dataclass(frozen=True)
class Tokenizer:
    """BERT's uncased WordPiece tokenizer around a vocabulary; `engine` is the tokenizers library's own object."""

    engine: _Tokenizer

    def __len__(self) -> int:
        return self.engine.get_vocab_size()

    @cached_property
    def mask_id(self) -> int:
        """Id of [MASK]."""
        return self.engine.get_vocab()[MASK]

    def candidates(self) -> np.ndarray:
        """Ids a random replacement may be drawn from: all but the special tokens."""
        return np.array(sorted(index for token, index in self.engine.get_vocab().items() if token not in SPECIAL))

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids [L] of [CLS] text [SEP], and for each the word that it is a piece of (−1 at special tokens)."""
        encoding = self.engine.encode(text)
        words = [-1 if word is None else word for word in encoding.word_ids]
        return np.array(encoding.ids, dtype=np.int64), np.array(words, dtype=np.int64)

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """[N] int64: tokens of each text, as `encode` gives them."""
        found = np.empty(len(texts), np.int64)
        for first in range(0, len(texts), _AT_ONCE):
            part = self.engine.encode_batch_fast(list(texts[first : first + _AT_ONCE]))
            found[first : first + len(part)] = [len(encoding) for encoding in part]
        return found

    def token(self, index: int) -> str:
        """The piece with that id."""
        return str(self.engine.id_to_token(index))

    def save(self, path: Path) -> None:
        """Write the library's own JSON."""
        self.engine.save(str(path))


def _with_bert_pipeline(engine: _Tokenizer) -> _Tokenizer:
    engine.normalizer = normalizers.BertNormalizer(lowercase=True)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    return engine


def _finish(engine: _Tokenizer, max_length: int, source: str) -> Tokenizer:
    ids = engine.get_vocab()
    if missing := [name for name in SPECIAL if name not in ids]:
        raise UserError(f"the vocabulary of {source} lacks {', '.join(missing)}: give a BERT WordPiece vocabulary")
    if ids[PAD] != 0:
        raise UserError(f"the vocabulary of {source} does not begin with {PAD}, which MLM and padding need as id 0")
    engine.post_processor = processors.BertProcessing((SEP, ids[SEP]), (CLS, ids[CLS]))
    engine.enable_truncation(max_length)
    engine.no_padding()
    return Tokenizer(engine)


def train_tokenizer(texts: Iterable[str], max_length: int, size: int = 30_522) -> Tokenizer:
    """A WordPiece vocabulary of texts: their frequent words whole, and every character, alone and as a continuation.

    Texts of more than `max_length` tokens, [CLS] and [SEP] counted, are cut. Words seen twice or more are kept, the
    most frequent first, equal counts in alphabetical order. (The tokenizers library's own WordPiece trainer orders its
    vocabulary differently in every process, which would make no two runs alike.)
    """
    pipeline = _with_bert_pipeline(_Tokenizer(models.WordPiece(unk_token=UNK)))
    counts: Counter[str] = Counter()
    for text, times in Counter(texts).items():
        for word, _ in pipeline.pre_tokenizer.pre_tokenize_str(pipeline.normalizer.normalize_str(text)):
            counts[word] += times
    letters = sorted({letter for word in counts for letter in word})
    words = sorted((w for w, n in counts.items() if n >= 2 and len(w) > 1), key=lambda w: (-counts[w], w))
    entries = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *words][:size]
    model = models.WordPiece({entry: i for i, entry in enumerate(entries)}, unk_token=UNK)
    return _finish(_with_bert_pipeline(_Tokenizer(model)), max_length, "the corpus's texts")


def load_tokenizer(source: str, max_length: int) -> Tokenizer:
    """The tokenizer of a file or folder (tokenizer.json, vocab.txt), a package, or a hub name (bert-base-uncased)."""
    path = packages.weights_file(source).parent if source.startswith(packages.PREFIX) else Path(source)
    if path.is_dir():
        found = [path / name for name in ("tokenizer.json", "vocab.txt") if (path / name).is_file()]
        if not found:
            raise UserError(f"{path} has neither tokenizer.json nor vocab.txt: give a folder with a BERT tokenizer")
        path = found[0]
    try:
        if path.suffix == ".json" and path.is_file():
            engine = _Tokenizer.from_file(str(path))
        elif path.is_file():
            vocabulary = {word: i for i, word in enumerate(path.read_text(encoding="utf-8").split("\n")) if word}
            engine = _with_bert_pipeline(_Tokenizer(models.WordPiece(vocabulary, unk_token=UNK)))
        else:
            from huggingface_hub import hf_hub_download

            with hub():
                engine = _Tokenizer.from_file(hf_hub_download(source, "tokenizer.json"))
    except Exception as error:  # the library raises bare Exception for every kind of failure
        raise UserError(
            f"cannot load the tokenizer {source!r} ({reason(error)}): give a local folder with vocab.txt, or "
            f"connect to the hub"
        ) from error
    return _finish(engine, max_length, source)
