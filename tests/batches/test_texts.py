"""The texts of a vocabulary: those of the tasks, too, in the forms that their readers take."""

import gzip
import shutil

from vlp_lib.batches.texts import training_texts
from vlp_lib.corpora.opening import open_corpus


def test_gzipped_task_files_give_the_same_texts(tiny_corpus, tmp_path):
    root = tmp_path / "corpus"
    shutil.copytree(tiny_corpus.root, root)
    plain = list(training_texts(open_corpus(root)))
    for name in ("vqav2/v2_OpenEnded_mscoco_train2014_questions.json", "nlvr2/data/train.json", "vcr/train.jsonl"):
        path = root / name
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    texts = list(training_texts(open_corpus(root)))
    captions = sum(len(record.captions) for record in tiny_corpus.split("train"))
    assert texts == plain and len(texts) > captions + 72
