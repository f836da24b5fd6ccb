"""The graph with data, plug-in, results and checkout in folders of any name: everything runs, and no name does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vlp_lib.closure import PACKAGE

ROOT = Path(__file__).parents[2]
NAMES = ("a b", "it's", 'say "x"', "a$(touch CANARY)b", "a;touch CANARY;b", "{name} {}", "a:b", "图像")
ROLES = ("data", "results", "checkout")
PLUGIN = """
from vlp_lib.losses import VisualLoss, VisualOutput, visual_loss


@visual_loss("nothing")
class Nothing(VisualLoss):
    def forward(self, features, tokens, batch):
        return VisualOutput(0 * features.tokens.sum())
"""
ALL_AT_ONCE = {"data": "".join(NAMES), "results": "".join(reversed(NAMES)), "checkout": " ".join(NAMES)}


@pytest.mark.parametrize(
    "names",
    [ALL_AT_ONCE, *(pytest.param({role: name}, marks=pytest.mark.fuzz) for role in ROLES for name in NAMES)],
    ids=str,
)
def test_folders_may_have_any_name(tiny_corpus, tmp_path, names):
    """The whole graph is planned, and the tour of the corpus runs; in the full counts every stage, to the page."""
    pytest.importorskip("snakemake")
    folders = {role: tmp_path / role / names.get(role, role) for role in ROLES}
    plugin = tmp_path / "plugin" / f"{names.get('data', 'plugin')}.py"
    plugin.parent.mkdir()
    plugin.write_text(PLUGIN)
    shutil.copytree(tiny_corpus.root, folders["data"])
    shutil.copytree(ROOT / "notebooks", folders["checkout"] / "notebooks")
    shutil.copytree(PACKAGE, folders["checkout"] / "vlp_lib", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "link").symlink_to(folders["checkout"])  # a colon would end an entry of PYTHONPATH
    environment = os.environ | {"VLP_RESULTS": str(folders["results"]), "PYTHONPATH": str(tmp_path / "link")}
    until = ["--until", "tour"] if names is ALL_AT_ONCE else []
    words = ["reproduce", "--profile", "smoke", "--seeds", "0", "--variants", "nothing", "--cores", "1", *until]
    words += ["--tasks", "vqa retrieval", "--data-root", str(folders["data"]), "--plugin", str(plugin)]
    program = "import sys; from pathlib import Path; from vlp_lib.cli import graph; "
    program += "graph.run_graph('smoke', [0], sys.argv[1], ['segl', 'nothing'], ['vqa', 'retrieval'], 1, "
    program += "extra=['--dry-run', '--quiet', 'rules'], plugin=Path(sys.argv[2]))"
    plan = ["-c", program, str(folders["data"]), str(plugin)]
    for command in (plan, ["-m", "vlp_lib.cli", *words]):
        done = subprocess.run(
            [sys.executable, *command], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (figure,) = folders["results"].glob("smoke-*/figures/corpus_pairs.png")
    assert figure.stat().st_size > 1000
    assert len(list(folders["results"].glob("smoke-*/index.html"))) == (not until)
    assert not list(tmp_path.rglob("CANARY*"))
