"""Executing notebooks with papermill: typo-proof parameters, and a failure in one sentence."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlp_lib.errors import UserError, unknown
from vlp_lib.io import write_text
from vlp_lib.provenance import peak_memory
from vlp_lib.run import project_root, results_root

_WORDS = {"true": True, "false": False, "none": None}


def parse_parameter(text: str) -> tuple[str, Any]:
    """`name=value` as papermill's -p reads it: numbers, true, false and none become such, everything else is text.

    Beside that, "[12, 16]" is a list, for the settings that are tuples.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"{text!r} is no parameter: write name=value")
    if value.lower() in _WORDS:
        return name, _WORDS[value.lower()]
    for number in (int, float):
        try:
            return name, number(value)
        except ValueError:
            continue
    if value.startswith("["):
        try:
            return name, json.loads(value)
        except ValueError as error:
            raise UserError(f"{text!r} is no list: write it as {name}=[1,2]") from error
    return name, value


def execute(notebook: Path, output: Path, parameters: dict[str, Any]) -> None:
    """Execute a notebook with parameters and keep the executed copy.

    Raises UserError for a missing notebook, an unknown parameter (papermill only warns) and an error inside of the
    notebook, whose last line it carries.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    if not notebook.is_file():
        raise UserError(f"no notebook {notebook}: notebooks lie in {project_root() / 'notebooks'}")
    try:
        known = papermill.inspect_notebook(str(notebook))
    except Exception as error:  # papermill and nbformat have one for every kind of damage
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{notebook} is no notebook that can be executed ({reason}): fetch it again") from error
    for name in parameters:
        if name not in known:
            raise unknown(f"parameter of {notebook.name}:", name, known)
    output.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("IPYTHONDIR", str(_quiet_ipython()))
    begun = time.monotonic()
    try:
        papermill.execute_notebook(
            str(notebook),
            str(output),
            parameters=parameters,
            kernel_name="python3",
            progress_bar=False,
            log_output=False,
            cwd=str(notebook.parent),
            autosave_cell_every=0,
        )
    except PapermillExecutionError as error:
        reason = error.evalue if error.ename == "UserError" else f"{error.ename}: {error.evalue}"
        raise UserError(f"{notebook.name}: {reason} (executed so far: {output})") from error
    except DeadKernelError as error:
        raise UserError(
            f"{notebook.name}: its kernel died, most likely for want of memory: close other programs or choose a "
            f"smaller profile (executed so far: {output})"
        ) from error

    given = "  ".join(f"{name}={value}" for name, value in parameters.items() if value != "")
    peak = peak_memory(resource.RUSAGE_CHILDREN)
    print(f"done  {notebook.stem}  {given}  {time.monotonic() - begun:.0f} s, at most {peak:.2f} GiB", flush=True)


def _quiet_ipython() -> Path:
    """A folder for IPython's settings and history beside the results.

    In the home folder several kernels at once would wait for each other's lock on the history; and a kernel that only
    this machine reaches need not warn that its connection is not encrypted, nor that it was interrupted when it was
    told to end: an error in a cell is raised here, not logged there.
    """
    folder = results_root() / ".ipython"
    settings = folder / "profile_default" / "ipython_kernel_config.py"
    if not settings.exists():
        write_text(settings, "c = get_config()\nc.IPKernelApp.log_level = 50\nc.HistoryManager.enabled = False\n")
    return folder


def run_graph(
    profile: str,
    seeds: Sequence[int],
    data_root: str,
    variants: Sequence[str],
    tasks: Sequence[str],
    cores: int | None,
    targets: Sequence[str] = (),
    extra: Sequence[str] = (),
    workflow_profile: Path | None = None,
) -> None:
    """Run the graph of notebooks (notebooks/Snakefile) up to `targets` (all figures and tables by default).

    Stages whose parameters, code and inputs are unchanged are skipped; an interrupted graph goes on where it stopped.
    What does not need a stage that failed is still run.

    Args:
        tasks: of vqa, nlvr2, vcr and retrieval, what follows each pretraining.
        cores: that the stages may use; None leaves that to the workflow profile.
        workflow_profile: a folder with Snakemake's config.yaml that says where stages run, such as a cluster's.

    Raises UserError where a stage failed; its own sentence has been printed by then, or stands in the cluster's log.
    """
    root = project_root()
    snakefile = root / "notebooks" / "Snakefile"
    if not snakefile.is_file():
        raise UserError(f"no {snakefile}: run this in a checkout of the project")
    if workflow_profile is not None and not (workflow_profile / "config.yaml").is_file():
        raise UserError(f"{workflow_profile} has no config.yaml: give a folder such as notebooks/cluster/slurm")
    folder = results_root()
    folder.mkdir(parents=True, exist_ok=True)
    where = ["--workflow-profile", str(workflow_profile.resolve())] if workflow_profile is not None else []
    where += ["--cores", str(cores)] if cores is not None else []
    command = [
        sys.executable, "-m", "snakemake", *targets,
        "--snakefile", str(snakefile), "--directory", str(folder), *where,
        "--rerun-incomplete", "--keep-incomplete", "--nolock", "--keep-going", "--quiet", "all",
        *extra,
        "--config", f"profile={profile}", f"seeds={' '.join(map(str, seeds))}", f"data_root={data_root}",
        f"variants={' '.join(variants)}", f"tasks={' '.join(tasks)}",
    ]  # fmt: skip
    # Batches come in many shapes, and oneDNN keeps the kernels of the last 1,024 of them: 200 MB for nothing.
    environment = {
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
        **os.environ,
        "VLP_RESULTS": str(folder),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    begun = time.monotonic()
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        stands = "above" if workflow_profile is None else f"above or in a log under {folder / '.snakemake'}"
        raise UserError(f"a stage failed: its error stands {stands}; mend it and run the same command again to go on")
    print(f"all done in {(time.monotonic() - begun) / 60:.1f} minutes")
