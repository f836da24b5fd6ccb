"""Settings that make no sense are one sentence, before anything is drawn, read or trained."""

import dataclasses
import re

import pytest

from vlp_lib import cli
from vlp_lib.config import CorpusConfig, TrainingConfig
from vlp_lib.errors import UserError
from vlp_lib.profiles import PROFILES
from vlp_lib.ranges import Checked, _ranges

_WORDS = """
data.flip=5 data.flip=-0.1 data.flip=nan data.resize=[-1,1] data.resize=[1.2,0.8] data.resize=[0,1] data.resize=[1]
data.resize=[0.5,1000] data.mlm_probability=7 data.mlm_probability=-1 data.mlm_probability=inf data.workers=-1
data.workers=100000 data.detector_threshold=2 data.allow_corrupt=-0.5 data.allow_corrupt=1.5 data.text_lengths=[0]
data.text_lengths=[40,20] data.text_lengths=[-3,64] data.text_lengths=[8] data.pairing=none data.mlm_replacement=all
training.steps=-5 training.steps=99999999999 training.epochs=0 training.epochs=-1 training.epochs=nan
training.batch_size=0 training.batch_size=-8 training.accumulation=0 training.accumulation=3 training.learning_rate=0
training.learning_rate=-1e-3 training.learning_rate=nan training.learning_rate=inf training.weight_decay=-1
training.weight_decay=1e9 training.warmup=1.5 training.warmup=-0.1 training.decay=2 training.decay=-1 training.clip=0
training.clip=-1 training.clip=inf training.evaluations=0 training.evaluations=-1 training.validation_images=0
training.checkpoints=nan training.checkpoints=-2 training.keep=0 training.keep=-1 training.mlm_weight=-1
training.itm_weight=nan training.precision=fp8 model.image_size=0 model.image_size=-32 model.image_size=4
model.image_size=1000000 model.hidden=0 model.hidden=-32 model.hidden=33 model.heads=0 model.heads=5
model.language_layers=0 model.language_layers=-1 model.cross_layers=0 model.cross_layers=100000 model.sharpness=0
model.sharpness=-2 model.sharpness=nan model.dropout=1 model.dropout=-0.1 model.dropout=5 model.max_text_length=0
model.max_text_length=2 model.vit.width=0 model.vit.width=31 model.vit.heads=7 model.vit.layers=-1 model.vit.patch=0
model.vit.patch=64 model.vit.mean=[0.5] model.vit.mean=[5,5,5] model.vit.std=[0,0,0] model.resnet.layers=[]
model.resnet.layers=[0,1] model.resnet.layers=[1,1,1] model.resnet.channels=[16] model.resnet.channels=[-1,32]
model.resnet.output_stride=7 model.region.max_regions=0 model.region.feature_size=-1 downstream.image_size=0
downstream.minimum_answers=0 downstream.text_length=1 downstream.vcr_text_length=-1 downstream.allow_missing=2
downstream.scored=-1 downstream.vqa.steps=-1 downstream.nlvr2.learning_rate=0 downstream.vcr.batch_size=0
downstream.vqa.accumulation=7 retrieval.images=0 retrieval.fold=-1 retrieval.block=0 retrieval.image_size=-1
speed.seconds=0 corpus.train_images=0 corpus.train_images=-4 corpus.val_images=0 corpus.nlvr_pairs=[1,2]
corpus.nlvr_pairs=[1,2,-1] corpus.things=[0,1] corpus.things=[3,2] corpus.large=[24,60] corpus.small=[16,14]
corpus.named=2 corpus.typical=-1 corpus.skew=-1 corpus.maps=1.5 corpus.sentences=[0,5] corpus.detector_noise=100
corpus.seed=-1
"""
BAD = _WORDS.split()


@pytest.mark.parametrize("setting", BAD)
def test_a_bad_setting_is_one_sentence_before_any_work(setting, results, capsys):
    assert cli.main(["pretrain", "--profile", "smoke", "--variant", "segl", "--set", setting]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith("vlp: ")
    assert setting.partition("=")[0] in shown.err
    assert not results.exists()


def test_there_are_eighty_of_them():
    assert len(set(BAD)) >= 80


@pytest.mark.parametrize(
    "words",
    [
        ["pretrain", "--variant", "segl", "--seed", "-1"],
        ["pretrain", "--variant", "segl", "--seed", "4294967296"],
        ["reproduce", "--seeds", "0 -1"],
        ["run", "notebooks/10_pretrain.ipynb", "out.ipynb", "-p", "seed=-1"],
    ],
)
def test_a_bad_seed_is_one_sentence_before_any_work(words, results, capsys):
    assert cli.main(words) == 2
    assert capsys.readouterr().err.startswith("vlp: seed is ")
    assert not results.exists()


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("ssul", "probability", 7),
        ("ssul", "probability", -0.1),
        ("ssul", "patch", -8),
        ("segl", "resnet_scale", 0),
        ("segl", "resnet_scale", -2),
        ("spl_small", "queries_per_cell", 0.0),
        ("spl_large", "no_object_weight", -1.0),
        ("spl_small", "no_object_weight", float("nan")),
    ],
)
def test_a_bad_setting_of_a_loss_is_one_sentence_before_any_work(name, setting, value, results, capsys):
    words = ["--profile", "smoke", "--variant", name, "--set", f"losses.{name}.{setting}={value}"]
    assert cli.main(["pretrain", *words]) == 2
    assert re.fullmatch(rf"vlp: setting 'losses\.{name}\.{setting}' is .*: it must be .*\n", capsys.readouterr().err)
    assert not results.exists()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("losses.ssul.patch=4", r"losses\.ssul\.patch is set and this variant has no loss 'ssul': leave it out"),
        ("losses.segl.resnet_scale=0", r"setting 'losses\.segl\.resnet_scale' is 0: it must be at least 1 .*"),
        ("losses.segl.downsampling=mean", r"setting 'losses\.segl\.downsampling' is 'mean': it must be like 'nearest'"),
    ],
)
def test_so_are_those_of_the_graph_and_of_notebooks(setting, said, results, tmp_path, capsys):
    (tmp_path / "runs.toml").write_text(f'[[run]]\nvariant = "segl"\nname = "odd"\nsettings = "{setting}"\n')
    for words in (
        ["reproduce", "--profile", "smoke", "--runs", str(tmp_path / "runs.toml")],
        ["run", "notebooks/10_pretrain.ipynb", "out.ipynb", "-p", "variant=segl", "-p", f"settings={setting}"],
    ):
        assert cli.main(words) == 2
        assert re.fullmatch(rf"vlp: {said}\n", capsys.readouterr().err)
    assert not results.exists()


def test_a_configuration_that_is_made_by_hand_is_checked_too():
    with pytest.raises(UserError, match=r"setting 'TrainingConfig\.warmup' is 2: it must be at least 0 and at most 1$"):
        TrainingConfig(warmup=2)
    with pytest.raises(UserError, match=r"setting 'CorpusConfig\.things' is \(0, 2\): it must be 2 .*ascending$"):
        CorpusConfig(things=(0, 2))


def test_every_number_of_a_configuration_has_its_range():
    def classes(config):
        yield type(config)
        for field in dataclasses.fields(config):
            if dataclasses.is_dataclass(inner := getattr(config, field.name)):
                yield from classes(inner)

    found = {one for chosen in PROFILES.values() for one in classes(chosen)} - {type(PROFILES["smoke"])}
    assert all(issubclass(one, Checked) for one in found)
    bare = [
        f"{one.__name__}.{field.name}"
        for one in found
        for field in dataclasses.fields(one)
        if isinstance(field.default, int | float | tuple)
        and not isinstance(field.default, bool)
        and field.name not in _ranges(one)
    ]
    assert bare == ["ResNetConfig.output_stride"]  # one of four
