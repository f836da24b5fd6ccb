"""Models in the hub's format: what is saved comes back bit for bit, and the card says what the run's record says."""

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers
from made_runs import pretrained, run_of
from PIL import Image
from safetensors.torch import load_file, save_file

from vlp_lib import cli
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.errors import UserError
from vlp_lib.hub.model import FILES, export, from_pretrained
from vlp_lib.io import read_json, read_lines, write_json
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.profiles import profile
from vlp_lib.settings import override
from vlp_lib.tasks import open_task
from vlp_lib.tasks.common import collate
from vlp_lib.tasks.retrieval import gallery_of, score_matrix
from vlp_lib.trainers.finetune import finetune, load_finetuned
from vlp_lib.trainers.trained import restore_pretrained
from vlp_lib.variants import VARIANTS

SEGL = VARIANTS["segl"]


@pytest.fixture(scope="module")
def scale(small_profile):
    settings = {"training.steps": 2, "training.evaluations": 2, "training.checkpoints": 0}
    settings |= {"downstream.vqa.steps": 1, "downstream.vqa.evaluations": 1, "downstream.vqa.precision": "float32"}
    return override(small_profile, settings)


@pytest.fixture(scope="module")
def runs(scale, tiny_corpus, shared_results):
    """A pretraining and its finetuning on VQA; nobody writes into them."""
    pretrained(scale, "segl", tiny_corpus, 4)
    run = run_of(scale, "finetune-vqa", "segl", 4).at("finetune-vqa")
    finetune(run, "vqa", tiny_corpus)
    return run


@pytest.fixture(scope="module")
def exported(runs, tmp_path_factory):
    return export(runs.folder("pretrain"), tmp_path_factory.mktemp("exported") / "segl")


def pictures(corpus: Corpus):
    records = corpus.split("test")[:3]
    return [corpus.read_image(record) for record in records], [record.captions[0] for record in records]


def test_the_folder_is_the_hubs(exported, runs):
    assert {p.name for p in exported.iterdir()} == set(FILES) - {"answers.json"}
    assert {p.name for p in export(runs.folder("finetune-vqa"), exported.parent / "vqa").iterdir()} == set(FILES)
    saved, trained = (load_file(folder / "model.safetensors") for folder in (exported, runs.folder("pretrain")))
    assert saved.keys() == trained.keys()
    assert all(torch.equal(saved[name], trained[name]) for name in trained)


def test_matching_is_bit_equal_and_that_of_retrieval(scale, tiny_corpus, exported, runs):
    images, sentences = pictures(tiny_corpus)
    scores = from_pretrained(exported).match(images, sentences)
    assert torch.equal(scores, from_pretrained(runs.folder("pretrain")).match(images, sentences))
    model, tokenizer = restore_pretrained(runs, tiny_corpus)
    gallery = gallery_of(tiny_corpus, 3)
    matrix = score_matrix(model, tiny_corpus, gallery, tokenizer, scale.model.image_size)
    places = [gallery.captions.index(sentence) for sentence in sentences]
    expected = 1 / (1 + np.exp(-matrix[range(3), places]))
    assert scores.numpy() == pytest.approx(expected, abs=1e-5)
    assert len(set(scores.tolist())) == 3


def test_answers_are_bit_equal_and_the_finetuned_models(scale, tiny_corpus, exported, runs):
    model = from_pretrained(export(runs.folder("finetune-vqa"), exported.parent / "vqa"))
    own, encoder = load_finetuned(runs, "vqa", tiny_corpus)
    test = open_task("vqa", tiny_corpus, encoder, scale.downstream).test
    items = [test.example(i, np.zeros(len(test), int)) for i in range(3)]
    images = [Image.open(item.pictures[0]) for item in items]
    logits = model.logits([[image] for image in images], [[item.text] for item in items])
    with torch.inference_mode():
        assert torch.equal(logits, own(collate([test[i] for i in range(3)])))
    assert list(model.answers) == read_json(runs.folder("finetune-vqa") / "answers.json")
    assert model.answer(images[1], items[1].text) == model.answers[int(logits[1].argmax())]


def test_saved_again_it_is_the_same(exported, tmp_path):
    again = from_pretrained(exported).save_pretrained(tmp_path / "again")
    for name in sorted(p.name for p in exported.iterdir()):
        assert (again / name).read_bytes() == (exported / name).read_bytes(), name


def test_a_fresh_process_loads_it_from_a_folder_and_from_the_hubs_cache(tiny_corpus, exported, tmp_path):
    """As one who has nothing but the kit; the hub's own library finds the name in its cache and asks no network."""
    images, sentences = pictures(tiny_corpus)
    expected = from_pretrained(exported).match(images[:1], sentences[:1])
    images[0].save(tmp_path / "photo.png")
    cache = tmp_path / "cache" / "models--someone--segl"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")
    shutil.copytree(exported, cache / "snapshots" / "0123456789abcdef0123456789abcdef01234567")
    code = (
        "from PIL import Image\n"
        "from vlp_lib.hub import from_pretrained\n"
        f"photo, sentence = Image.open({str(tmp_path / 'photo.png')!r}), {sentences[0]!r}\n"
        f"for name in ({str(exported)!r}, 'someone/segl'):\n"
        "    print(from_pretrained(name).match([photo], [sentence]).tolist())\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1",
                   "CUDA_VISIBLE_DEVICES": "", "PATH": ""}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False,
                          cwd=Path(__file__).parents[2])  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [expected.tolist()] * 2


# The card


def table_of(card, after):
    """The rows of the first table after a heading."""
    text = card[card.index(after) :]
    rows = {}
    for line in text[text.index("| ---") :].splitlines()[1:]:
        if not line.startswith("|"):
            break
        name, value = (cell.strip() for cell in line.strip("|").split("|"))
        rows[name] = value
    return rows


def number(text):
    return float(text.replace(",", ""))


def test_the_card_has_the_runs_numbers(exported, runs):
    card = (exported / "README.md").read_text()
    run, rows = read_json(runs.folder("pretrain") / "run.json"), read_lines(runs.folder("pretrain") / "metrics.jsonl")
    best = sorted(rows, key=lambda row: row["val_loss"] - row.get("val_visual", 0.0))[0]
    facts = table_of(card, "## How it was made")
    assert number(facts["parameters"]) == sum(v.numel() for v in load_file(exported / "model.safetensors").values())
    assert (facts["seed"], facts["steps"], facts["batch size"]) == ("4", "2", "8")
    assert facts["corpus fingerprint (SHA-256)"] == run["corpus"]
    assert "**synthetic data**" in facts["corpus"]
    assert number(facts["weights kept: lowest validation loss, of step"]) == best["step"]
    shown = table_of(card, "## Validation at step")
    assert shown.keys() == {name for name in best if name.startswith("val_")}
    for name, value in shown.items():
        assert number(value) == pytest.approx(best[name], rel=1e-5), name
    versions = table_of(card, "## Made with")
    assert all(versions[name] == version for name, version in run["versions"].items())
    assert versions["commit"] == str(run["commit"])


def test_the_card_of_a_finetuned_model_has_its_official_scores(exported, runs):
    card = (export(runs.folder("finetune-vqa"), exported.parent / "vqa") / "README.md").read_text()
    run = read_json(runs.folder("finetune-vqa") / "run.json")
    scores = table_of(card, "## Official scores")
    assert number(scores["val.overall"]) == pytest.approx(run["val"]["overall"], rel=1e-5)
    assert number(scores["test.overall"]) == pytest.approx(run["test"]["overall"], rel=1e-5)
    assert "pipeline_tag: visual-question-answering" in card


def test_the_cards_command_makes_the_same_model(exported, capsys, tmp_path, monkeypatch):
    """All settings that differ from the profile stand in the command, and the command line takes them."""
    card = (exported / "README.md").read_text()
    (line,) = re.findall(r"^vlp (pretrain .*)$", card, re.MULTILINE)
    words = shlex.split(line)
    assert words[words.index("--seed") + 1] == "4" and words[words.index("--variant") + 1] == "segl"
    given = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    assert {"training.steps=2", "training.precision=float32"} < set(given)
    assert given == read_json(exported / "config.json")["settings"]
    made = {}
    monkeypatch.setattr("vlp_lib.trainers.pretrain.pretrain", lambda run, *_, **__: made.setdefault("is", run.config))
    monkeypatch.setattr("vlp_lib.workspace.open_run_corpus", lambda run: None)
    assert cli.main(words) == 0
    config = read_json(exported / "config.json")
    assert dataclasses.asdict(made["is"].training) == config["training"]
    assert made["is"].model.vit.patch == config["model"]["vit"]["patch"] == 8


def test_real_data_is_said_to_be_real(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "real")
    write_json(tmp_path / "real" / "run.json", read_json(exported / "run.json") | {"synthetic": False})
    card = (from_pretrained(tmp_path / "real").save_pretrained(tmp_path / "again") / "README.md").read_text()
    assert "synthetic" not in card and "--data-root DATA" in card and "real images" in card


# What goes wrong


@pytest.fixture
def copy(exported, tmp_path):
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "run.json", "metrics.jsonl"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(UserError, match=re.escape(name)):
        from_pretrained(copy).save_pretrained(copy.parent / "again")


def test_another_architecture_is_refused_by_the_names_of_its_tensors(copy):
    config = read_json(copy / "config.json")
    write_json(copy / "config.json", config | {"variant": "spl_small"})
    message = (
        r"at vlp\.visual_loss\.losses\.segl\.classify\.bias it has \(\d+,\), this model nothing \(also .*and \d+ more"
    )
    with pytest.raises(UserError, match=message):
        from_pretrained(copy)
    state = load_file(copy / "model.safetensors")
    write_json(copy / "config.json", config)
    del state["itm_head.classify.bias"], state["mlm_head.bias"]
    save_file(state, copy / "model.safetensors")
    with pytest.raises(UserError, match=r"at itm_head\.classify\.bias it has nothing.*\(also mlm_head\.bias\)"):
        from_pretrained(copy)


def test_values_that_are_not_finite_are_refused(copy):
    state = load_file(copy / "model.safetensors")
    state["vlp.pooler.dense.bias"][1] = torch.nan
    save_file(state, copy / "model.safetensors")
    with pytest.raises(UserError, match=r"not finite in vlp\.pooler\.dense\.bias"):
        from_pretrained(copy)


def test_folders_of_other_programs_are_refused(copy):
    write_json(copy / "config.json", {"model_type": "bert", "hidden_size": 768})
    with pytest.raises(UserError, match="describes no model of this kit"):
        from_pretrained(copy)


@pytest.mark.parametrize("change", [{"hiden": 3}, {"hidden": "wide"}, {"vit": 3}])
def test_settings_that_this_version_does_not_know_are_refused(copy, change):
    config = read_json(copy / "config.json")
    write_json(copy / "config.json", config | {"model": config["model"] | change})
    with pytest.raises(
        UserError, match=r"config\.json describes a model that this version cannot build .*named in run"
    ):
        from_pretrained(copy)


def test_names_that_nobody_knows_are_refused(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("someone/absent", "/no/such/folder", "a b"):
        with pytest.raises(UserError, match=re.escape(repr(name))) as error:
            from_pretrained(name)
        assert "\n" not in str(error.value)


def test_runs_that_cannot_be_exported(runs, tmp_path, capsys):
    with pytest.raises(UserError, match="is the run's own folder"):
        export(runs.folder("pretrain"), runs.folder("pretrain"))
    assert cli.main(["export", str(tmp_path / "absent"), str(tmp_path / "out")]) == 2
    assert "no run folder" in capsys.readouterr().err
    unfinished = Path(shutil.copytree(runs.folder("pretrain"), tmp_path / "unfinished"))
    (unfinished / "run.json").unlink()
    with pytest.raises(UserError, match=r"has no run\.json: run its stage to the end"):
        export(unfinished, tmp_path / "out")


def test_what_a_model_cannot_do_is_said(tiny_corpus, exported, runs):
    images, sentences = pictures(tiny_corpus)
    pretrained, finetuned = from_pretrained(exported), from_pretrained(runs.folder("finetune-vqa"))
    with pytest.raises(UserError, match="no matching head"):
        finetuned.match(images, sentences)
    with pytest.raises(UserError, match="3 images and 1 sentences"):
        pretrained.match(images, sentences[:1])
    with pytest.raises(UserError, match="no task's head"):
        pretrained.logits([images], [sentences])
    with pytest.raises(UserError, match="answers no questions"):
        pretrained.answer(images[0], "what?")
    with pytest.raises(UserError, match="item 0 has 2 images and 1 texts"):
        finetuned.logits([images[:2]], [["what?"]])


# Nothing is fetched for a model that a checkpoint fills


def test_restoring_the_papers_model_fetches_no_weights(small_model, tmp_path, monkeypatch, exported):
    def refuse(*_, **__):
        raise AssertionError("weights were asked for")

    monkeypatch.setattr(timm, "create_model", refuse)
    monkeypatch.setattr(transformers.BertModel, "from_pretrained", refuse)
    named = override(small_model, {"vit.pretrained": "vit_base_patch32_384", "resnet.pretrained": "resnet50",
                                   "language_pretrained": "bert-base-uncased"})  # fmt: skip
    for name in ("segl", "segl_resnet"):
        model = VLPModel(named, VARIANTS[name], Vocabularies(40, 6, 10, 4), pretrained=False)
        paper = profile("paper").model.vit.pretrained if name == "segl" else "resnet50"
        known = timm.get_pretrained_cfg(paper)
        assert model.vision.normalise.mean.flatten().tolist() == pytest.approx(known.mean)
    config = read_json(exported / "config.json")
    config["model"] = dataclasses.asdict(named)
    copy = Path(shutil.copytree(exported, tmp_path / "paper"))
    write_json(copy / "config.json", config)
    restored = from_pretrained(copy)
    assert isinstance(restored.network, PretrainingModel)
    assert restored.network.vlp.vision.normalise.mean.flatten().tolist() == pytest.approx(
        timm.get_pretrained_cfg("vit_base_patch32_384").mean
    )


def test_folders_of_this_machine_stay_out_of_what_is_shared(copy, tmp_path):
    config = read_json(copy / "config.json")
    config["model"]["language_pretrained"] = "/home/someone/bert"
    config["settings"].append("model.language_pretrained=/home/someone/bert")
    config["model"]["vit"]["pretrained"] = str(tmp_path)
    write_json(tmp_path / "config.json", {"pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.25, 0.5]}})
    config["model"]["resnet"]["pretrained"] = "resnet50"
    write_json(copy / "config.json", config)
    shared = from_pretrained(copy).save_pretrained(tmp_path / "shared")
    model = read_json(shared / "config.json")["model"]
    assert model["language_pretrained"] == "local/bert"
    assert "--set model.language_pretrained=local/bert" in (shared / "README.md").read_text()
    assert model["vit"]["pretrained"] == f"local/{tmp_path.name}"
    assert (model["vit"]["mean"], model["vit"]["std"]) == ([0.5, 0.4, 0.3], [0.5, 0.25, 0.5])
    scale = from_pretrained(shared).network.vlp.vision.normalise
    assert (scale.mean.flatten().tolist(), scale.std.flatten().tolist()) == (
        pytest.approx([0.5, 0.4, 0.3]),
        [0.5, 0.25, 0.5],
    )
    assert model["resnet"]["pretrained"] == "resnet50"
    assert not any(str(tmp_path) in p.read_text() for p in shared.iterdir() if p.suffix != ".safetensors")


@pytest.mark.parametrize("place", ["run", "checkout", "another run"])
def test_an_export_writes_over_nothing_but_an_earlier_export(runs, exported, tmp_path, place):
    target = tmp_path / "target"
    if place == "another run":
        shutil.copytree(runs.folder("finetune-vqa"), target)
    else:
        target.mkdir()
        (target / "README.md").write_text("the project's own")
        (target / "setup.py").write_text("a program")
    if place == "run":
        target = runs.folder("pretrain")
    before = {file: file.read_bytes() for file in target.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match="give another"):
        export(runs.folder("pretrain"), target)
    assert {file: file.read_bytes() for file in target.rglob("*") if file.is_file()} == before


def test_an_export_may_be_written_anew(runs, tmp_path):
    export(runs.folder("finetune-vqa"), tmp_path / "model")
    (tmp_path / "model" / ".gitattributes").write_text("*.safetensors filter=lfs")
    assert export(runs.folder("finetune-vqa"), tmp_path / "model") == tmp_path / "model"


# A stranger's folder


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("vocabularies.words", 10**9),
        ("vocabularies.words", -1),
        ("vocabularies.words", "many"),
        ("model.language_layers", 10**9),
        ("model.vit.layers", 10**9),
        ("model.resnet.layers", [10**9]),
        ("model.hidden", 10**8),
        ("model.hidden", 0),
        ("model.heads", 0),
        ("model.max_text_length", 10**10),
        ("model.image_size", 10**9),
        ("model.vit.patch", 0),
        ("model.vit.width", -8),
        ("plugins", [1]),
        ("model", 3),
        ("vocabularies", {}),
        ("stage", None),
    ],
)
def test_an_absurd_configuration_is_refused_before_a_model_is_made(copy, path, value):
    config = read_json(copy / "config.json")
    *place, name = path.split(".")
    inner = config
    for part in place:
        inner = inner[part]
    inner[name] = value
    write_json(copy / "config.json", config)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"cannot build|holds another model than config\.json describes"):
        from_pretrained(copy)
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.int8, torch.bool, torch.int64])
def test_quantised_weights_are_refused(copy, kind):
    state = load_file(copy / "model.safetensors")
    name = next(name for name, value in state.items() if value.is_floating_point())
    save_file(state | {name: state[name].to(kind)}, copy / "model.safetensors")
    with pytest.raises(UserError, match=rf"{name} as .*give weights that are not quantised"):
        from_pretrained(copy)
