"""The graph on a cluster: the Slurm profile against Slurm's commands played by a script that runs the jobs here."""

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from vlp_lib import cli
from vlp_lib.cli import graph
from vlp_lib.cli.graph import run_graph
from vlp_lib.errors import UserError
from vlp_lib.io import read_json

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "notebooks" / "cluster" / "slurm"

SLURM = """#!{python}
import json, os, subprocess, sys
from pathlib import Path
me, words, home = Path(sys.argv[0]).name, sys.argv[1:], Path({home!r})
if me == "sbatch":
    number = str(len(list(home.glob("*.json"))) + 1)
    value = lambda name: next((words[i + 1] for i, w in enumerate(words) if w == name), "")
    wrap = next(w for w in words if w.startswith("--wrap=")).removeprefix("--wrap=")
    log = Path(value("--output").replace("%j", number))
    log.parent.mkdir(parents=True, exist_ok=True)
    code = subprocess.run(["sh", "-c", wrap], stdout=log.open("w"), stderr=subprocess.STDOUT, check=False,
                          env=os.environ | {{"SLURM_JOB_ID": number}}).returncode
    state = "COMPLETED" if code == 0 else "FAILED"
    (home / (number + ".json")).write_text(json.dumps({{"words": words, "state": state}}))
    print(number)
elif me == "srun":
    options = [w for w in words if w.startswith("-")]
    command = words[next(i for i, w in enumerate(words) if not w.startswith("-")):]
    raise SystemExit(subprocess.call(command))
elif me == "sacct" and "--name" in words:
    for job in sorted(home.glob("*.json")):
        print(job.stem + "|" + json.loads(job.read_text())["state"])
elif me == "sinfo":
    print("all*|up|1-00:00:00|1|idle|here" if "-h" not in words else "all*")
elif me in ("sacct", "sacctmgr", "sshare"):
    print("mine")
elif me == "squeue":
    pass
"""


@pytest.fixture
def slurm(results, tmp_path, monkeypatch):
    """Slurm's commands, first in PATH; a job runs before `sbatch` returns. Gives what was submitted, in order."""
    if not (find_spec("snakemake_executor_plugin_slurm") and find_spec("snakemake")):
        pytest.skip("Snakemake's Slurm plugin is not installed: pip install -e '.[slurm]'")
    home, commands = tmp_path / "jobs", tmp_path / "bin"
    home.mkdir()
    commands.mkdir()
    for name in ("sbatch", "srun", "sacct", "squeue", "scancel", "sinfo", "scontrol", "sacctmgr", "sshare"):
        (commands / name).write_text(SLURM.format(python=sys.executable, home=str(home)))
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return lambda: [read_json(job) for job in sorted(home.glob("*.json"), key=lambda job: int(job.stem))]


AT_ONCE = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5", "--local-cores", "1")


def option(job, name):
    """The value of an option of sbatch, as two words or joined by an equals sign."""
    words = job["words"]
    joined = [word.partition("=")[2] for word in words if word.startswith(f"{name}=")]
    return joined[0] if joined else words[words.index(name) + 1]


def test_a_pretraining_goes_through_the_queue(slurm, tmp_path):
    run_graph("smoke", [0], "", ["naive_vit"], [], None, ["pretrain"], AT_ONCE, PROFILE)
    record = read_json(tmp_path / "results" / "smoke" / "pretrain" / "naive_vit" / "seed0" / "run.json")
    assert (record["profile"], record["variant"], record["seed"]) == ("smoke", "naive_vit", 0)
    corpus, pretraining = slurm()
    assert [job["state"] for job in (corpus, pretraining)] == ["COMPLETED", "COMPLETED"]
    assert (option(corpus, "--mem"), option(corpus, "-t")) == ("8000", "60")
    assert (option(pretraining, "--mem"), option(pretraining, "-t")) == ("6000", "60")
    assert option(pretraining, "--gpus") == "1"
    assert option(pretraining, "--cpus-per-task") == "9"
    assert not any("gpu" in word for word in corpus["words"] if word.startswith("--gpu"))


def test_a_job_that_the_cluster_ends_is_queued_again(slurm, snakefile, tmp_path):
    snakefile.write_text(
        "rule all:\n    output: 'done'\n    shell: 'if [ -e tried ]; then touch done; else touch tried; exit 9; fi'\n"
    )
    run_graph("smoke", [0], "", ["naive_vit"], [], None, [], AT_ONCE, PROFILE)
    assert (tmp_path / "results" / "done").is_file()
    assert [job["state"] for job in slurm()] == ["FAILED", "COMPLETED"]
    # Where docs/cluster.md sends who looks for the error.
    assert any((tmp_path / "results" / ".snakemake" / "slurm_logs").rglob("*.log"))


# Without Slurm


def test_the_profile_names_rules_that_there_are():
    yaml = pytest.importorskip("yaml")
    settings = yaml.safe_load((PROFILE / "config.yaml").read_text())
    # The commented example must be right, too.
    lines = (PROFILE / "config.yaml").read_text().splitlines()
    example = yaml.safe_load("\n".join(line.removeprefix("# ") for line in lines[lines.index("# set-resources:") :]))
    snakefile = (ROOT / "notebooks" / "Snakefile").read_text()
    rules = set(re.findall(r"^rule (\w+):", snakefile, re.MULTILINE))
    assert settings["executor"] == "slurm"
    assert settings["set-threads"].keys() | example["set-resources"].keys() <= rules
    assert max(settings["set-threads"].values()) <= settings["cores"]
    with_device = {
        block.split(":")[0] for block in re.split(r"^rule ", snakefile, flags=re.MULTILINE)[1:] if "**DEVICE" in block
    }
    assert with_device == {"pretrain_one", "finetune_one", "retrieval_one", "speed", "attention_one"}


def test_a_workflow_profile_reaches_snakemake(snakefile, results, tmp_path):
    pytest.importorskip("snakemake")
    (tmp_path / "mine").mkdir()
    snakefile.write_text(
        "rule all:\n    output: 'seen'\n    threads: 8\n    shell: 'echo {threads} {resources.mem_mb} > {output}'\n"
    )
    (tmp_path / "mine" / "config.yaml").write_text("cores: 3\ndefault-resources:\n  mem_mb: 77\n")
    run_graph("smoke", [0], "", ["segl"], [], None, workflow_profile=tmp_path / "mine")
    assert (results / "seen").read_text().split() == ["3", "77"]


def test_the_command_hands_the_profile_over(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(graph, "run_graph", lambda *given, **named: seen.update(cores=given[5], **named))
    assert cli.main(["reproduce", "--profile", "smoke", "--workflow-profile", str(tmp_path)]) == 0
    assert (seen["cores"], seen["workflow_profile"]) == (None, tmp_path)
    assert cli.main(["reproduce", "--profile", "smoke"]) == 0
    assert (seen["cores"], seen["workflow_profile"]) == (os.cpu_count(), None)


def test_a_folder_without_a_profile_is_refused(results, tmp_path):
    with pytest.raises(UserError, match=r"has no config\.yaml: give a folder such as notebooks/cluster/slurm"):
        run_graph("smoke", [0], "", ["segl"], [], None, workflow_profile=tmp_path)
    assert not results.exists()
