import shutil

import pytest


@pytest.fixture
def root(tiny_corpus, tmp_path):
    """A copy of the corpus that a test may damage."""
    shutil.copytree(tiny_corpus.root, tmp_path / "corpus")
    return tmp_path / "corpus"
