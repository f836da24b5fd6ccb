"""All the training text of a corpus, for a vocabulary that serves pretraining and every downstream task."""

from __future__ import annotations

from collections.abc import Iterator

from vlp_lib.corpora.corpus import Corpus
from vlp_lib.io import find_file, placed_lines, read_entries

_LINES = "the official JSON lines"


def training_texts(corpus: Corpus) -> Iterator[str]:
    """Captions, VQA questions, NLVR2 sentences and VCR texts of the training splits, whichever the corpus has.

    The tasks' files may be gzipped, as for their readers.
    """
    for record in corpus.split("train"):
        yield from record.captions
    if path := find_file(corpus.root / "vqav2", "v2_OpenEnded_mscoco_train2014_questions.json"):
        yield from (entry["question"] for entry in read_entries(path, "questions", "the official questions file"))
    if path := find_file(corpus.root / "nlvr2/data", "train.json"):
        yield from (entry["sentence"] for _, entry in placed_lines(path, _LINES))
    if path := find_file(corpus.root / "vcr", "train.jsonl"):
        for _, item in placed_lines(path, _LINES):
            for tokens in (item["question"], *item["answer_choices"], *item["rationale_choices"]):
                yield " ".join(token for token in tokens if isinstance(token, str))
