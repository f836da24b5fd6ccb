from pathlib import Path

import pytest
import torch

from vlp_lib.bench.made_up import training_batch
from vlp_lib.errors import UserError
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.profiles import profile
from vlp_lib.run import Run, project_root
from vlp_lib.study_file import read_study, write_study


def study(tmp_path, text):
    (tmp_path / "study.toml").write_text(text)
    return read_study(tmp_path / "study.toml", "smoke", "", [0, 1])


def test_runs_of_a_file(tmp_path):
    baseline, _, named = study(
        tmp_path,
        '[[run]]\nvariant = "segl"\n[[run]]\nname = "majority"\nvariant = "segl"\nseeds = [3]\n'
        'settings = "losses.segl.downsampling=majority training.steps=5"\n',
    )
    assert (baseline.name, baseline.seed, baseline.settings) == ("segl", 0, ())
    assert (named.name, named.seed, named.config.training.steps) == ("majority", 3, 5)


@pytest.mark.usefixtures("forget_plugins")
@pytest.mark.parametrize("file", sorted((project_root() / "notebooks").glob("*.toml")), ids=lambda file: file.name)
def test_every_run_of_the_kits_own_studies_has_finite_losses(file):
    sizes = Vocabularies(words=60, segmentation=18, detector=8, attributes=4)
    for run in read_study(file, "smoke", "", [0]):
        model = PretrainingModel(VLPModel(run.config.model, run.chosen, sizes))
        batch = model.vlp.visual_loss.corrupt(training_batch(run.config, run.chosen, sizes, 2, torch.device("cpu")))
        assert torch.isfinite(model(batch)["loss"]), run.name


@pytest.mark.usefixtures("forget_plugins")
def test_what_was_written_is_read_again_with_more_seeds(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text('@visual_loss("mine")\nclass Mine(VisualLoss): ...\n')
    runs = [
        Run("smoke", "segl+0.5*ssul", 3, name="hard", settings=("losses.ssul.probability=0.5", "corpus.maps=0.2")),
        Run("smoke", "segl+0.5*ssul", 4, name="hard", settings=("losses.ssul.probability=0.5", "corpus.maps=0.2")),
        Run("smoke", "naive_vit", 3),
        Run("smoke", "mine", 3, plugin=str(plugin)),
    ]
    again = read_study(write_study(tmp_path / "a" / "study.toml", runs, "why\n\nhow"), "smoke", "", [0, 1])
    assert [(run.name, run.variant, run.settings, run.plugin) for run in again[::2]] == [
        (run.name, run.variant, run.settings, run.plugin) for run in (runs[0], *runs[2:])
    ]
    assert [run.seed for run in again] == [0, 1] * 3
    assert (tmp_path / "a" / "study.toml").read_text().startswith("# why\n#\n# how\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[run]", "is not TOML"),
        ("", r"has no \[\[run\]\]"),
        ('[[runs]]\nvariant = "segl"', "'runs': did you mean 'run'"),
        ('[[run]]\nvariannt = "segl"', "'variannt': did you mean 'variant'"),
        ('[[run]]\nname = "x"', "'x' has no variant"),
        ('[[run]]\nvariant = "sgel"', "unknown variant 'sgel'"),
        ('[[run]]\nvariant = "segl"\nseeds = "0"', r"seeds is '0': write it as in seeds = \[0, 1\]"),
        ('[[run]]\nvariant = "segl"\nseeds = [true]', "seeds is"),
        ('[[run]]\nvariant = "segl"\nsettings = "speed.seconds=3.0"', r"'speed\.seconds=3\.0' is read by no stage"),
        ('[[run]]\nvariant = "segl"\n[[run]]\nvariant = "segl"', "two runs of name 'segl' and seed 0"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        study(tmp_path, text)


@pytest.mark.usefixtures("forget_plugins")
@pytest.mark.parametrize(("name", "count"), [("plateau", 18), ("beyond", 11)])
@pytest.mark.parametrize("scale", ["lesson", "tiny"])
def test_every_run_of_the_kits_studies_is_another(name, count, scale):
    runs = read_study(Path(__file__).parents[1] / f"notebooks/{name}.toml", scale, "", [0])
    assert len({(run.variant, run.settings) for run in runs}) == len(runs) == count
    assert all(run.config != profile(scale) for run in runs if run.settings)
