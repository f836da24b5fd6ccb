"""A wrong word is answered with the nearest known one, before anything that takes long is imported."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vlp_lib.cli import _parser
from vlp_lib.cli.graph import targets
from vlp_lib.cli.notebook import defaults

ROOT = Path(__file__).parents[2]
NOTEBOOK = str(ROOT / "notebooks" / "10_pretrain.ipynb")
FINETUNING = str(ROOT / "notebooks" / "11_finetune.ipynb")

CASES = [
    (["pretrian"], "unknown command 'pretrian': did you mean 'pretrain'?"),
    (["--hepl"], "unknown option '--hepl': did you mean '--help'?"),
    (["pretrain", "--varient", "segl"], "unknown option '--varient': did you mean '--variant'?"),
    (["pretrain", "--variant=segl", "--profil=tiny"], "unknown option '--profil': did you mean '--profile'?"),
    (["data", "chek"], "unknown action 'chek': did you mean 'check'?"),
    (["evaluate", "vqq"], "unknown task 'vqq': did you mean 'vqa'?"),
    (["bench", "--onyl", "mlm_head"], "unknown option '--onyl': did you mean '--only'?"),
    (["pretrain", "--variant", "sgel"], "unknown variant 'sgel': did you mean 'segl'?"),
    (["model", "--variant", "sgel"], "unknown variant 'sgel': did you mean 'segl'?"),
    (["doctor", "--profile", "papr"], "unknown profile 'papr': did you mean 'paper'?"),
    (["finetune", "--variant", "segl", "--task", "vqq"], "unknown task 'vqq': did you mean 'vqa'?"),
    (["finetune", "--variant", "segl", "--task", "vqa", "--set", "downstream.image=3"], "did you mean 'image_size'?"),
    (["pretrain", "--variant", "segl", "--set", "training.stpes=3"], "did you mean 'steps'?"),
    (["pretrain", "--variant", "segl", "--set", "training.steps=a"], "it must be int"),
    (["pretrain", "--variant", "segl", "--data-root", "absent"], "absent is no folder"),
    (["reproduce", "--until", "pretrian"], "unknown stage 'pretrian': did you mean 'pretrain'?"),
    (["reproduce", "--tasks", "vqa vcrr"], "unknown task 'vcrr': did you mean 'vcr'?"),
    (["reproduce", "--variants", "sgel"], "unknown variant 'sgel': did you mean 'segl'?"),
    (["run", NOTEBOOK, "out", "-p", "varient=segl"], "'varient': did you mean 'variant'?"),
    (["run", NOTEBOOK, "out", "-p", "variant=sgel"], "unknown variant 'sgel': did you mean 'segl'?"),
    (["run", NOTEBOOK, "out", "-p", "profile=tinny"], "unknown profile 'tinny': did you mean 'tiny'?"),
    (["run", NOTEBOOK, "out", "-p", "seed=one"], "'seed' of 10_pretrain.ipynb is 'one': it must be int, such as 0"),
    (["run", NOTEBOOK, "out", "-p", "data_root=absent"], "absent is no folder"),
    (["run", FINETUNING, "out", "-p", "task=vqq"], "unknown task 'vqq': did you mean 'vqa'?"),
    (["run", "absent.ipynb", "out"], "no notebook absent.ipynb"),
]  # fmt: skip

SCRIPT = """
import contextlib, io, json, sys
from vlp_lib.cli import main

def answer(words):
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(shown):
        try:
            status = main(words)
        except SystemExit as ended:
            status = ended.code
    heavy = {"torch", "transformers", "pandas", "papermill", "snakemake", "timm", "matplotlib", "numpy"}
    return [status, shown.getvalue(), sorted(heavy & set(sys.modules))]

print(json.dumps([answer(words) for words in json.loads(sys.argv[1])]))
"""


def answers(cases, tmp_path):
    command = [sys.executable, "-c", SCRIPT, json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    return json.loads(done.stdout)


def test_wrong_words_are_answered_before_heavy_imports(tmp_path):
    for (words, expected), (status, shown, heavy) in zip(
        CASES, answers([words for words, _ in CASES], tmp_path), strict=True
    ):
        assert expected in shown.strip().splitlines()[-1], words
        assert "Traceback" not in shown
        assert (status, heavy) == (2, []), words
    assert not list(tmp_path.iterdir())


def test_help_lists_every_command_on_a_line(tmp_path):
    [(status, shown, heavy)] = answers([["--help"]], tmp_path)
    assert (status, heavy) == (0, [])
    lines = re.findall(r"^    (\w+) +\S", shown, re.MULTILINE)
    assert lines == [
        "reproduce", "run", "lessons", "demo", "pretrain", "finetune", "evaluate", "data", "bench", "model",
        "doctor", "index", "publish", "export", "pack",
    ]  # fmt: skip


def test_notebooks_commands_make_and_the_graph_mean_the_same_profile():
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        lesson = notebook.name[:2] in ("01", "02", "03", "04", "05", "06", "07", "09")
        assert defaults(notebook)["profile"] == ("lesson" if lesson else "tiny"), notebook
    for words in (["reproduce"], ["pretrain", "--variant", "segl"], ["finetune", "--variant", "segl", "--task", "vqa"]):
        assert _parser().parse_args(words).profile == "tiny"
    assert re.search(r"^PROFILE \?= tiny$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert 'config.get("profile", "tiny")' in (ROOT / "notebooks" / "Snakefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", ["vlp_lib", "notebooks", "docs", "README.md", "Makefile"])
def test_every_stage_that_a_text_names_is_there(folder):
    path = ROOT / folder
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.suffix in (".py", ".md", ".ipynb")]
    for file in files:
        text = re.sub(r'"\s*f?"', "", file.read_text(encoding="utf-8"))
        for name in re.findall(r"--until[ =](\w+)", text):
            assert name in targets(), file
