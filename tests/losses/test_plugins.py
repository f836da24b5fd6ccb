"""A visual loss from outside the kit, through everything, with no other file touched."""

import hashlib
import json

import nbformat
import pytest
from contexts import context
from made_runs import pretrained, run_of
from nbclient import NotebookClient

from vlp_lib import catalogue, cli
from vlp_lib.bench.speed import bench_cost
from vlp_lib.errors import UserError
from vlp_lib.hub import export, from_pretrained
from vlp_lib.losses import base
from vlp_lib.losses.base import MixedVisualLoss
from vlp_lib.profiles import profile
from vlp_lib.settings import override
from vlp_lib.study.runs import read_runs
from vlp_lib.trainers.finetune import finetune
from vlp_lib.trainers.zero_shot import retrieve
from vlp_lib.variants import parse_variant

EDGES = '''
import torch
import torch.nn.functional as F
from torch import nn

from vlp_lib.losses import Context, VisualLoss, VisualOutput, visual_loss


@visual_loss("edges")
class Edges(VisualLoss):
    """How much brightness changes within each cell."""

    def __init__(self, context: Context, *, power: float = 1.0) -> None:
        super().__init__(context)
        self.power = power
        self.predict = nn.Conv2d(context.hidden, 1, kernel_size=1)

    def forward(self, features, tokens, batch):
        grey = batch.images.mean(1, keepdim=True)
        change = (grey[..., 1:, 1:] - grey[..., :-1, :-1]).abs() ** self.power
        target = F.adaptive_avg_pool2d(change, features.grid)
        predicted = self.predict(features.map()).float()
        loss = F.mse_loss(predicted, target)
        return VisualOutput(loss, parts={"mean": target.mean()}, drawings={"target": target})
'''


pytestmark = pytest.mark.usefixtures("forget_plugins")


@pytest.fixture
def edges(tmp_path):
    file = tmp_path / "my_loss.py"
    file.write_text(EDGES)
    return file


def test_a_file_makes_its_losses_known_without_being_run(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(EDGES + "\nraise SystemExit\n")
    assert catalogue.add_plugin(file) == ["edges"]
    assert catalogue.loss("edges").settings == ("power",)
    assert parse_variant("edges").losses == (("edges", 1.0),)
    assert parse_variant("segl+0.5*edges@resnet").losses == (("segl", 1.0), ("edges", 0.5))


def test_settings_of_a_plugin_are_checked_by_name(edges):
    catalogue.add_plugin(edges)
    assert override(profile("smoke"), {"losses.edges.power": 2.0}).model.losses == {"edges.power": 2.0}
    with pytest.raises(UserError, match=r"'losses\.edges\.powr': 'powr': did you mean 'power'\?"):
        override(profile("smoke"), {"losses.edges.powr": 2.0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read the plug-in .*No such file"),
        ("def (", "is not Python, line 1"),
        ("x = 1", "has no class under @visual_loss"),
        (EDGES.replace('"edges"', '"segl"'), "there is a visual loss 'segl' in the kit already"),
    ],
)
def test_files_that_are_no_plugins_are_named(tmp_path, text, message):
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=message):
        catalogue.add_plugin(file)


def test_a_plugin_that_fails_is_named(edges):
    edges.write_text(EDGES + "\n1 / 0\n")
    catalogue.add_plugin(edges)
    with pytest.raises(UserError, match=rf"the plug-in {edges} fails when it is run \(ZeroDivisionError"):
        MixedVisualLoss(context(), {"edges": 1.0})


def test_a_class_of_a_cell_is_a_loss_and_its_text_is_kept(tmp_path, monkeypatch):
    """In a real kernel, in which the cell is run twice and its loss is then pretrained in a mix."""
    monkeypatch.setenv("VLP_RESULTS", str(tmp_path))
    train = """
from vlp_lib.run import Run
from vlp_lib.trainers.pretrain import pretrain
from vlp_lib.workspace import open_run_corpus

settings = "training.steps=2 training.evaluations=1 corpus.train_images=16 corpus.val_images=8 corpus.test_images=2"
settings += " losses.edges.power=2 corpus.nlvr_pairs=[0,0,0] corpus.vcr_images=[0,0,0]"
run = Run("smoke", "edges+0.5*segl", 0, name="mine", settings=tuple(settings.split()))
rows = pretrain(run, open_run_corpus(run))
assert {"val_edges", "val_edges_mean", "val_segl"} <= rows[-1].keys()
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in (EDGES, EDGES, train)])
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    (record,) = tmp_path.rglob("run.json")
    kept = json.loads(record.read_text())["plugins"]["edges"]
    text = (record.parent / kept["file"]).read_text()
    assert text.strip() == EDGES.strip() and kept["sha256"] == hashlib.sha256(text.encode()).hexdigest()


def test_a_plugin_goes_through_everything(edges, small_profile, tiny_corpus, tmp_path, results):
    """Pretraining, a mix, another backbone, finetuning, retrieval, curves and export."""
    catalogue.add_plugin(edges)
    chosen = override(small_profile, {"losses.edges.power": 2.0, "retrieval.images": 4})
    folders = {}
    for name in ("edges", "segl+0.5*edges", "edges@resnet"):
        folders[name], rows = pretrained(chosen, name, tiny_corpus)
        assert {"val_edges", "val_edges_mean", "train_edges"} <= rows[-1].keys()
    sha256 = hashlib.sha256(EDGES.encode()).hexdigest()
    run = json.loads((folders["edges"] / "run.json").read_text())
    assert run["plugins"] == {"edges": {"file": "plugins/my_loss.py", "sha256": sha256}}
    assert (folders["edges"] / "plugins" / "my_loss.py").read_text() == EDGES
    done = finetune(run_of(chosen, "finetune-vqa", "edges"), "vqa", tiny_corpus)
    assert "val" in done.scores
    assert retrieve(run_of(chosen, "retrieval", "edges"), tiny_corpus).scores.shape[0] == 4
    assert set(read_runs(results / "smoke", "pretrain")["variant"]) == set(folders)

    exported = export(folders["edges"], tmp_path / "exported")
    card = (exported / "README.md").read_text()
    assert sha256 in card and "--plugin plugins/my_loss.py" in card and "losses.edges.power=2.0" in card
    catalogue._PLUGINS.clear()
    base._CLASSES.pop("edges")
    with pytest.raises(UserError, match=r"visual loss 'edges' that is not the kit's: read the program in .*plugins"):
        from_pretrained(exported)
    again = from_pretrained(exported, plugin=exported / "plugins" / "my_loss.py")
    assert again.network.vlp.visual_loss.settings == {"edges": {"power": 2.0}}


def test_another_file_under_the_same_name_is_refused(edges, small_profile, tiny_corpus, results):
    catalogue.add_plugin(edges)
    pretrained(small_profile, "edges", tiny_corpus)
    edges.write_text(EDGES.replace("mse_loss", "l1_loss"))
    catalogue.add_plugin(edges)
    base._CLASSES.pop("edges")
    with pytest.raises(UserError, match=r"plugins\.edges ="):
        pretrained(small_profile, "edges", tiny_corpus)


def test_the_command_line_takes_a_plugin(edges, capsys):
    assert cli.main(["doctor", "--profile", "smoke", "--variant", "edges"]) == 2
    assert "unknown variant 'edges'" in capsys.readouterr().err
    assert cli.main(["doctor", "--profile", "smoke", "--variant", "edges", "--plugin", str(edges)]) == 0
    assert "smoke, edges:" in capsys.readouterr().out


def test_benchmarks_measure_it(edges, tiny_corpus, small_profile, tmp_path):
    catalogue.add_plugin(edges)
    naive, own = bench_cost(small_profile, tiny_corpus, 1, tmp_path, ("naive_vit", "edges"))
    assert naive["extra_parameters"] == 0
    assert own["extra_parameters"] == 768 + 1  # a 1×1 convolution to one number a cell
    assert (own["extra_parameters_at_inference"], own["extra_data"], own["note"]) == (0, "none", "")
    assert own["step_ratio"] > 0
