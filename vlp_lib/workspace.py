"""What a notebook or command starts from: the corpus of a run, drawn if need be."""

from __future__ import annotations

from pathlib import Path

from vlp_lib.config import Profile
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.corpora.synthetic import CorpusSpec, synthesize
from vlp_lib.distributed import is_main, main_first
from vlp_lib.run import Run, corpus_settings


def draw_corpus(chosen: Profile, root: Path) -> str:
    """Draw the embedded corpus of these settings at `root` unless it is there; returns its fingerprint."""
    return synthesize(root, CorpusSpec(**corpus_settings(chosen)))


def open_run_corpus(run: Run) -> Corpus:
    """The corpus that a run's settings ask for: at its `data_root`, or the embedded one, which is drawn on first use.

    Prints how many images, captions, label maps and detections were read, and what was skipped.
    """
    with main_first():
        if not run.data_root:
            draw_corpus(run.config, run.corpus)
        elif run.corpus.is_dir() and is_main():
            run.layout.claim()
    corpus = open_corpus(run.corpus)
    if is_main():
        print(corpus.report)
    return corpus
