import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Tests compare bits and counts that are the CPU's; CUDA_VISIBLE_DEVICES=0 lets them see a GPU all the same.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Workers share the cores: one thread each, and each of what they start. torch reads it when it is imported.
os.environ.update({"OMP_NUM_THREADS": "1"} if "PYTEST_XDIST_WORKER" in os.environ else {})

import numpy as np
import pytest
import torch

from vlp_lib import catalogue
from vlp_lib.batches.sample import NO_MATCHED_TOKEN, Batch
from vlp_lib.cli.notebook import without_iri_grammar
from vlp_lib.config import ModelConfig, Profile, RegionConfig, ResNetConfig, TrainingConfig, ViTConfig
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.corpora.records import IGNORED
from vlp_lib.corpora.synthetic import CorpusSpec, synthesize
from vlp_lib.losses import base
from vlp_lib.profiles import profile

pytest_plugins = ["official"]
without_iri_grammar()

# Longest first: so no worker is left alone with one of these in the end.
SLOW = ("test_notebooks", "test_graph", "test_chain", "test_survival", "test_graph_ends", "test_pretrain",
        "test_imports", "test_graph_names", "test_fuzz", "test_demo", "test_distributed", "test_warm", "test_plugins",
        "test_architecture", "test_ablation_bench", "test_hub", "test_fetch")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real files in the official formats; it is no part of the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("VLP_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real data needed: {folder} is missing (VLP_SHARED_DATA names another folder)")
    return folder


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A test's own folder of results."""
    monkeypatch.setenv("VLP_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture(scope="module")
def shared_results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of results for all tests of a module."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLP_RESULTS", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """An embedded corpus of 24 training images; nobody writes into its folder."""
    root = tmp_path_factory.mktemp("tiny") / "corpus"
    spec = CorpusSpec(
        image_size=32, train_images=24, val_images=12, test_images=12, nlvr_pairs=(4, 2, 2), vcr_images=(4, 2, 2)
    )
    synthesize(root, spec)
    return open_corpus(root)


@pytest.fixture(scope="session")
def small_model() -> ModelConfig:
    """A model that computes in milliseconds, independent of the profiles."""
    return ModelConfig(
        image_size=32,
        hidden=32,
        heads=2,
        language_layers=2,
        cross_layers=2,
        dropout=0.0,
        max_text_length=24,
        vit=ViTConfig(width=32, layers=2, heads=2, patch=8),
        resnet=ResNetConfig(block="basic", layers=(1, 1), channels=(16, 32), output_stride=8, norm="group"),
        region=RegionConfig(max_regions=8),
    )


@pytest.fixture(scope="session")
def small_profile(small_model: ModelConfig) -> Profile:
    """The smoke profile with the small model and few steps, in float32 on every machine."""
    schedule = {"steps": 6, "evaluations": 3, "validation_images": 16, "checkpoints": 3}
    training = TrainingConfig(batch_size=8, learning_rate=1e-3, precision="float32", **schedule)
    return dataclasses.replace(profile("smoke"), model=small_model, training=training)


def _pad(rows: list[np.ndarray], value: float, width: int) -> torch.Tensor:
    padded = np.full((len(rows), width, *rows[0].shape[1:]), value, dtype=rows[0].dtype)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return torch.from_numpy(padded)


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    """Makes random batches whose rows differ in their number of words and of detections.

    With more texts than images, text i is joined with image i modulo the number of images.
    """

    def make(
        lengths: tuple[int, ...] = (9, 5, 7),
        detections: tuple[int, ...] = (3, 0, 5),
        image_size: int = 32,
        words: int = 40,
        segmentation: int = 6,
        detector: int = 10,
        attributes: int = 4,
        features: int = 0,
        seed: int = 0,
    ) -> Batch:
        rng = np.random.default_rng(seed)
        count, texts = len(detections), torch.arange(len(lengths))
        alone = len(texts) == count
        clean = [rng.integers(5, words, n) for n in lengths]
        ids, labels = [], []
        for row in clean:
            hidden = np.arange(len(row)) % 3 == 1
            ids.append(np.where(hidden, 4, row))
            labels.append(np.where(hidden, row, NO_MATCHED_TOKEN))
        length, width = max(lengths), max(1, *detections)
        corners = [np.sort(rng.random((n, 2, 2)).astype(np.float32), axis=1).reshape(n, 4) for n in detections]
        maps = rng.integers(0, segmentation, (count, image_size, image_size))
        maps[rng.random(maps.shape) < 0.2] = IGNORED
        return Batch(
            images=torch.from_numpy(rng.random((count, 3, image_size, image_size), dtype=np.float32)),
            input_ids=_pad(ids, 0, length),
            clean_ids=_pad(clean, 0, length),
            attention_mask=_pad([np.ones(n, bool) for n in lengths], False, length),
            mlm_labels=_pad(labels, NO_MATCHED_TOKEN, length),
            matched=texts % 2 if alone else (texts < count).long(),
            image_of_text=None if alone else texts % count,
            seeds=torch.from_numpy(rng.integers(2**62, size=count)),
            image_ids=torch.arange(count),
            label_maps=torch.from_numpy(maps),
            labels=_pad([rng.integers(0, detector, n) for n in detections], -1, width),
            attributes=_pad([rng.integers(-1, attributes, n) for n in detections], -1, width),
            scores=_pad([np.sort(rng.random(n, dtype=np.float32))[::-1] for n in detections], 0.0, width),
            boxes=_pad(corners, 0.0, width),
            features=_pad([rng.random((n, features), dtype=np.float32) for n in detections], 0.0, width)
            if features
            else None,
        )

    return make


@pytest.fixture
def forget_plugins() -> Iterator[None]:
    """What a test makes known of losses is unknown to the next."""
    plugins, classes = dict(catalogue._PLUGINS), dict(base._CLASSES)
    yield
    # The kit's own are imported once in a process, and stay.
    classes |= {name: made for name, made in base._CLASSES.items() if name in catalogue._built_in()}
    for kept, before in ((catalogue._PLUGINS, plugins), (base._CLASSES, classes)):
        kept.clear()
        kept.update(before)
