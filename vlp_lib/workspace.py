"""What a notebook or command starts from: a profile, its corpus (drawn if need be) and its folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlp_lib.config import Profile, profile
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.corpora.synthetic import CorpusSpec, synthesize
from vlp_lib.distributed import is_main, main_first
from vlp_lib.run import Layout


@dataclass(frozen=True)
class Workspace:
    """A profile on a corpus."""

    profile: Profile
    corpus: Corpus
    layout: Layout


def draw_corpus(chosen: Profile, root: Path) -> str:
    """Draw the profile's embedded corpus at `root` unless it is there; returns its fingerprint."""
    size = chosen.corpus
    return synthesize(
        root,
        CorpusSpec(
            seed=size.seed,
            image_size=chosen.model.image_size,
            train_images=size.train_images,
            val_images=size.val_images,
            test_images=size.test_images,
            nlvr_pairs=size.nlvr_pairs,
            vcr_images=size.vcr_images,
        ),
    )


def open_workspace(profile_name: str, data_root: str = "") -> Workspace:
    """The profile, its folders, and the corpus at `data_root`, or the embedded one, which is drawn on first use.

    Prints how many images, captions, label maps and detections were read, and what was skipped.
    """
    chosen = profile(profile_name)
    layout = Layout(profile_name, data_root)
    if not data_root:
        with main_first():
            draw_corpus(chosen, layout.corpus)
    corpus = open_corpus(layout.corpus)
    if is_main():
        print(corpus.report)
    return Workspace(chosen, corpus, layout)
