"""What a notebook or command starts from: a profile or a run, its corpus (drawn if need be) and its folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlp_lib.config import Profile, profile
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.corpora.synthetic import CorpusSpec, synthesize
from vlp_lib.distributed import is_main, main_first
from vlp_lib.run import Layout, Run, corpus_settings


@dataclass(frozen=True)
class Workspace:
    """A profile on a corpus."""

    profile: Profile
    corpus: Corpus
    layout: Layout


def draw_corpus(chosen: Profile, root: Path) -> str:
    """Draw the embedded corpus of these settings at `root` unless it is there; returns its fingerprint."""
    return synthesize(root, CorpusSpec(**corpus_settings(chosen)))


def open_workspace(profile_name: str, data_root: str = "") -> Workspace:
    """The profile, its folders, and the corpus at `data_root`, or the embedded one, which is drawn on first use.

    Prints how many images, captions, label maps and detections were read, and what was skipped.
    """
    chosen, layout = profile(profile_name), Layout(profile_name, data_root)
    return Workspace(chosen, _open(chosen, layout), layout)


def open_run_corpus(run: Run) -> Corpus:
    """The corpus that a run's own settings ask for, as `open_workspace` opens a profile's."""
    return _open(run.config, run.layout)


def _open(chosen: Profile, layout: Layout) -> Corpus:
    root = layout.corpus(chosen)
    with main_first():
        if not layout.data_root:
            draw_corpus(chosen, root)
        elif root.is_dir() and is_main():
            layout.claim()
    corpus = open_corpus(root)
    if is_main():
        print(corpus.report)
    return corpus
