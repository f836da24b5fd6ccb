"""All the training text of a corpus, for a vocabulary that serves pretraining and every downstream task."""

from __future__ import annotations

import json
from collections.abc import Iterator

from vlp_lib.corpora.corpus import Corpus
from vlp_lib.io import read_json


def training_texts(corpus: Corpus) -> Iterator[str]:
    """Captions, VQA questions, NLVR2 sentences and VCR texts of the training splits, whichever the corpus has."""
    for record in corpus.split("train"):
        yield from record.captions
    for path in sorted(corpus.root.glob("vqav2/*_train2014_questions.json")):
        yield from (question["question"] for question in read_json(path)["questions"])
    for path in sorted(corpus.root.glob("nlvr2/data/train.json")):
        with path.open(encoding="utf-8") as lines:
            yield from (json.loads(line)["sentence"] for line in lines)
    for path in sorted(corpus.root.glob("vcr/train.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                item = json.loads(line)
                for tokens in (item["question"], *item["answer_choices"], *item["rationale_choices"]):
                    yield " ".join(token for token in tokens if isinstance(token, str))
