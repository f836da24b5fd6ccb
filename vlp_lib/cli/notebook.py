"""`vlp run`: one notebook, with checked parameters, its lines as they come, and a failure in one sentence."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlp_lib.cli.options import Commands, check_words, declare
from vlp_lib.errors import UserError, reason, unknown
from vlp_lib.io import read_json, read_text, write_text
from vlp_lib.provenance import peak_memory
from vlp_lib.ranges import fits
from vlp_lib.run import project_root, results_root, split_settings
from vlp_lib.settings import parse_parameter

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager

_SOLUTION = re.compile(r"^# %% exercise (\d+)$(.*?)(?=^# %%|\Z)", re.MULTILINE | re.DOTALL)


def add(commands: Commands) -> None:
    """Declare the command."""
    about = "execute one notebook with checked parameters, a lesson's exercises solved"
    run = declare(commands, "run", lambda given: execute(given.notebook, given.output, given.parameter), about)
    run.add_argument("notebook", type=Path, help="e.g. notebooks/10_pretrain.ipynb")
    run.add_argument("output", type=Path, help="the executed copy")
    run.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE", help="e.g. variant=segl")


def defaults(notebook: Path) -> dict[str, Any]:
    """What the notebook's parameters cell assigns, read without executing anything.

    Raises UserError for a missing file and one that is no notebook.
    """
    if not notebook.is_file():
        raise UserError(f"no notebook {notebook}: notebooks lie in {project_root() / 'notebooks'}")
    try:
        for cell in read_json(notebook)["cells"]:
            if "parameters" in cell["metadata"].get("tags", ()):
                lines = ast.parse("".join(cell["source"])).body
                return {line.targets[0].id: ast.literal_eval(line.value) for line in lines}  # type: ignore[attr-defined]
    except (UserError, KeyError, TypeError, AttributeError, ValueError, SyntaxError) as error:
        raise UserError(f"{notebook} is no notebook that can be executed ({error}): fetch it again") from error
    return {}


def parameters(notebook: Path, given: Sequence[str]) -> dict[str, Any]:
    """The parameters `name=value` as values of the kinds that the notebook's parameters cell has.

    Names, kinds, and what names a profile, a variant, a task or a file are checked before a kernel starts. Paths are
    from where the user stands. Raises UserError for what does not fit.
    """
    known, values = defaults(notebook), dict[str, Any]()
    for text in given:
        name, value = parse_parameter(text)
        if name not in known:
            raise unknown(f"parameter of {notebook.name}:", name, known)
        default = known[name]
        if isinstance(default, str):
            value = text.partition("=")[2]
        elif not fits(value, type(default)):
            kind = type(default).__name__
            raise UserError(
                f"parameter {name!r} of {notebook.name} is {value!r}: it must be {kind}, such as {default!r}"
            )
        values[name] = value
    for name in ("plugin", "data_root"):
        if values.get(name):
            values[name] = str(Path(values[name]).expanduser().resolve())
    check_words(values, split_settings(values.get("settings", "")))
    return values


def solved(notebook: Path) -> dict[str, Any]:
    """A notebook with its exercises filled in, each by its part of solutions/<name>.py beside it, where that is there.

    The n-th cell tagged "exercise" takes what stands under "# %% exercise n". Raises UserError where one is missing.
    """
    content: dict[str, Any] = read_json(notebook)
    exercises = [cell for cell in content["cells"] if "exercise" in cell["metadata"].get("tags", ())]
    file = notebook.parent / "solutions" / f"{notebook.stem}.py"
    if not exercises or not file.is_file():
        return content
    parts = {int(number): text for number, text in _SOLUTION.findall(read_text(file))}
    for number, cell in enumerate(exercises, 1):
        if number not in parts:
            raise UserError(f"{file} has no part '# %% exercise {number}': write it")
        cell["source"] = parts[number].strip()
    return content


class _Lines:
    """The lines of a notebook on the terminal, each behind the name of its stage: in the graph several run at once."""

    def __init__(self, name: str) -> None:
        self._name, self._rest = name, ""

    def write(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(str.strip, lines):
            print(f"{self._name}  {line}", flush=True)

    def flush(self) -> None:
        pass


def without_iri_grammar() -> None:
    """Let jsonschema check no IRIs: a notebook has none, and their grammar takes longer to load than all else."""
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def execute(
    notebook: Path, output: Path, given: Sequence[str] = (), manager: type[AsyncKernelManager] | None = None
) -> None:
    """Execute a notebook with parameters `name=value` and keep the executed copy; what it prints is shown as it comes.

    A lesson's exercises are solved in the copy. `manager` starts the kernel, Jupyter's own if None.

    Raises UserError for a missing notebook, a parameter that does not fit, and an error inside of the notebook, whose
    last line it carries; the executed copy has the whole traceback.
    """
    values = parameters(notebook, given)
    without_iri_grammar()
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    output.parent.mkdir(parents=True, exist_ok=True)
    source, content = notebook, solved(notebook)
    if content != read_json(notebook):
        write_text(output, json.dumps(content))
        source = output
    os.environ.setdefault("IPYTHONDIR", str(quiet_ipython()))
    begun = time.monotonic()
    try:
        papermill.execute_notebook(
            *(str(path).replace("{", "{{").replace("}", "}}") for path in (source, output)),  # it formats its paths
            parameters=values,
            kernel_name="python3",
            progress_bar=False,
            stdout_file=_Lines(output.stem),
            cwd=str(notebook.parent),
            autosave_cell_every=0,
            **({} if manager is None else {"kernel_manager_class": manager}),
        )
    except PapermillExecutionError as error:
        said = error.evalue if error.ename == "UserError" else f"{error.ename}: {error.evalue}"
        raise UserError(f"{notebook.name}: {said} (executed so far: {output})") from error
    except DeadKernelError as error:
        raise UserError(
            f"{notebook.name}: its kernel died, most likely for want of memory: close other programs or choose a "
            f"smaller profile (executed so far: {output})"
        ) from error
    except OSError as error:
        raise UserError(f"cannot write {output} ({error}): make room or choose another folder") from error
    except Exception as error:  # papermill and nbformat have one for every kind of damage
        raise UserError(f"{notebook} is no notebook that can be executed ({reason(error)}): fetch it again") from error

    shown = "  ".join(f"{name}={value}" for name, value in values.items() if value != "")
    peak = peak_memory(children=True)
    memory = "" if peak is None else f", at most {peak:.2f} GiB"
    print(f"done  {notebook.stem}  {shown}  {time.monotonic() - begun:.0f} s{memory}", flush=True)


def quiet_ipython() -> Path:
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
