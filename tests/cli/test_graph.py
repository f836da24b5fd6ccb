import json
import os
import re
import subprocess
import sys

import pytest

from vlp_lib.cli import graph
from vlp_lib.cli.graph import run_graph, time_report
from vlp_lib.errors import UserError

pytestmark = pytest.mark.usefixtures("results")


def test_graph_is_handed_its_settings(snakefile, tmp_path):
    pytest.importorskip("snakemake")
    snakefile.write_text(
        "import json, os\nfrom pathlib import Path\n"
        "Path('seen.json').write_text(json.dumps({**config, 'results': os.environ['VLP_RESULTS']}))\n"
        "rule all:\n    shell: 'true'\n"
    )
    run_graph("smoke", [0, 2], "", ["segl", "segl+0.5*ssul"], ["vqa", "retrieval"], cores=1)
    seen = json.loads((tmp_path / "results" / "seen.json").read_text())
    assert (seen["profile"], str(seen["seeds"]), seen["variants"]) == ("smoke", "0 2", "segl segl+0.5*ssul")
    assert seen["tasks"] == "vqa retrieval"
    assert not seen["data_root"]
    assert seen["results"] == str(tmp_path / "results")


def test_the_sentences_of_stages_are_the_last_word(snakefile, capfd):
    pytest.importorskip("snakemake")
    snakefile.write_text(
        "rule all:\n    input: 'one', 'two'\n"
        "rule one:\n    output: 'one'\n    priority: 1\n    shell: 'echo line; echo vlp: draw it first >&2; exit 2'\n"
        "rule two:\n    output: 'two'\n    shell: 'echo vlp: no space >&2; exit 2'\n"
    )
    with pytest.raises(UserError, match="2 stages failed, the first: draw it first; mend it and run the same command"):
        run_graph("smoke", [0], "", ["segl"], [], cores=1)
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("line\n", "vlp: draw it first\nvlp: no space\n")


RULE = "rule all:\n    output: 'x'\n    shell: {!r}\n"


@pytest.mark.parametrize(
    ("text", "until", "reason"),
    [
        ("rule all:\n    input: 'nowhere'\n", [], "MissingInputException in rule all .*nowhere"),
        (RULE.format("touch x"), ["nonsense"], "MissingRuleException: No rule to produce nonsense"),
        (RULE.format("echo > /proc/nowhere"), [], "CalledProcessError .*/proc/nowhere"),
        (RULE.format("kill -9 $$"), [], "died with <Signals.SIGKILL: 9>"),
        (RULE.format("kill -9 $PPID; sleep 9"), [], "Snakemake was ended by SIGKILL, by hand or for want of memory"),
        pytest.param(
            "rule all:\n    output 'x'\n",
            [],
            "SyntaxError: Colon expected after keyword output",
            marks=pytest.mark.fuzz,
        ),
        pytest.param(
            "import no_such_module\n",
            [],
            "ModuleNotFoundError in file .*No module named 'no_such_module'",
            marks=pytest.mark.fuzz,
        ),
    ],
)
def test_snakemakes_own_reason_is_not_swallowed(snakefile, text, until, reason):
    pytest.importorskip("snakemake")
    snakefile.write_text(text)
    with pytest.raises(UserError, match=rf"^a stage failed: [^\n]*{reason}[^\n]*; mend it and run the same command"):
        run_graph("smoke", [0], "", ["segl"], [], 1, until)


def test_a_folder_that_cannot_be_written_is_named(snakefile, tmp_path, monkeypatch):
    snakefile.write_text(RULE.format("touch x"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("VLP_RESULTS", str(tmp_path / "file"))
    with pytest.raises(
        UserError, match=r"cannot write .*file/\.smoke\.lock .*: choose another folder with VLP_RESULTS"
    ):
        run_graph("smoke", [0], "", ["segl"], [], 1)


def test_what_needs_no_failed_stage_is_still_run(snakefile, tmp_path):
    pytest.importorskip("snakemake")
    snakefile.write_text(
        "rule all:\n    input: 'bad', 'good'\n"
        "rule bad:\n    output: 'bad'\n    priority: 1\n    shell: 'exit 3'\n"
        "rule good:\n    output: 'good'\n    shell: 'touch {output}'\n"
    )
    with pytest.raises(UserError, match=r"^a stage failed: .*exit status 3.*; mend it and run the same command"):
        run_graph("smoke", [0], "", ["segl"], [], cores=1)
    assert (tmp_path / "results" / "good").is_file()


def test_outside_of_a_checkout_there_is_no_graph(tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "project_root", lambda: tmp_path)
    with pytest.raises(UserError, match="Snakefile: run this in a checkout"):
        run_graph("smoke", [0], "", ["segl"], [], cores=1)


def test_the_projects_graph_can_be_planned(capfd):
    pytest.importorskip("snakemake")
    plan = ["--dry-run", "--quiet", "rules"]
    run_graph("smoke", [0], "", ["region", "segl"], ["retrieval"], 1, extra=plan)
    retrieval = capfd.readouterr().out
    runs = ["region", "naive_vit", "segl"]
    run_graph("smoke", [0], "", runs, ["vqa", "nlvr2", "vcr"], 1, extra=plan, of_ours=["nlvr2"])
    tasks = capfd.readouterr().out

    def count(rule, planned):
        stages = re.search(rf"^{rule} +(\d+)", planned, re.MULTILINE)
        return int(stages[1]) if stages else 0

    once = dict.fromkeys(("tour", "convergence", "tables", "claims", "index"), 1)
    for rule, wanted in {"pretrain_one": 2, "retrieval_one": 2, "finetune_one": 0, "attention_one": 0, **once}.items():
        assert count(rule, retrieval) == wanted, rule
    # VQA of all three, VCR of those that see pixels, NLVR2 of SEGL alone.
    for rule, wanted in {"pretrain_one": 3, "retrieval_one": 0, "finetune_one": 6, "attention_one": 3, **once}.items():
        assert count(rule, tasks) == wanted, rule


def test_where_the_time_went_is_summed_over_the_new_copies(tmp_path):
    """Two minutes of which 12 s were imports and 6 s the kernel's start; a copy of an earlier time does not count."""

    def cell(source, seconds, kind="code"):
        return {"cell_type": kind, "source": [source], "metadata": {"papermill": {"duration": seconds}}}

    cells = [
        cell("import nothing", 0.0, "markdown"),
        cell("seed = 0", 0.0),
        cell("import torch", 12.0),
        cell("run()", 102.0),
    ]
    copy = json.dumps({"cells": cells, "metadata": {"papermill": {"duration": 120.0}}})
    for name in ("00_corpus", "10_pretrain-segl-seed0", "10_pretrain-segl-seed1"):
        (tmp_path / f"{name}.ipynb").write_text(copy)
    os.utime(tmp_path / "00_corpus.ipynb", (1000, 1000))
    _, pretraining, together = time_report(tmp_path, 2000)
    assert pretraining.split() == ["10_pretrain", "2", "4.0", "0.6"]
    assert together.split() == ["all", "2", "4.0", "0.6"]
    assert time_report(tmp_path / "absent", 0) == []


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A disk of 2 MB for the results, which can be made larger."""
    results = tmp_path / "results"
    results.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(results)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk is made by root on Linux")
    yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(results)], check=True)
    subprocess.run(["umount", "--lazy", str(results)], check=True)


FILLS = {
    "what is written": "write_text(Path('made'), 'x' * 4_000_000)",
    "beside what is written": (
        "with contextlib.suppress(OSError), Path('made').open('wb') as file:\n"
        "    for _ in range(4_000): file.write(bytes(1000)); file.flush()"
    ),
}

ONCE, *OTHERS = FILLS


@pytest.mark.parametrize("how", [ONCE, *(pytest.param(how, marks=pytest.mark.fuzz) for how in OTHERS)])
def test_a_full_disk_is_the_last_word_and_loses_nothing(snakefile, write_notebook, disk, tmp_path, how):
    pytest.importorskip("snakemake")
    code = "import contextlib, os\nfrom pathlib import Path\nfrom vlp_lib.io import write_text\n"
    code += f"os.chdir({str(tmp_path / 'results')!r})\nwrite_text(Path('before'), 'kept')\n{FILLS[how]}"
    write_notebook(snakefile.parent / "fill.ipynb", code)
    command = f"{sys.executable} -m vlp_lib.cli run .kit/notebooks/fill.ipynb out.ipynb"
    snakefile.write_text(f"rule all:\n    output: touch('done')\n    shell: '{command}'\n")
    with pytest.raises(UserError, match=r"^a stage failed: .*No space left on device.*; mend it and run the same"):
        run_graph("smoke", [0], "", ["segl"], [], cores=1)
    assert (tmp_path / "results/before").read_text() == "kept"
    disk()
    run_graph("smoke", [0], "", ["segl"], [], cores=1)
    assert (tmp_path / "results/done").is_file()
    assert (tmp_path / "results/made").stat().st_size == 4_000_000
