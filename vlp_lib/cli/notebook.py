"""`vlp run`: one notebook with papermill; typo-proof parameters, and a failure in one sentence."""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path
from typing import Any

from vlp_lib.cli.options import Commands
from vlp_lib.config import parse_parameter
from vlp_lib.errors import UserError, unknown
from vlp_lib.io import write_text
from vlp_lib.provenance import peak_memory
from vlp_lib.run import project_root, results_root


def add(commands: Commands) -> None:
    """Declare the command."""
    run = commands.add_parser("run", help="execute one notebook with checked parameters")
    run.add_argument("notebook", type=Path)
    run.add_argument("output", type=Path)
    run.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE")
    run.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    execute(options.notebook, options.output, dict(parse_parameter(text) for text in options.parameter))


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
