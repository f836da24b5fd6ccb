"""`vlp reproduce`: the graph of notebooks, run by Snakemake."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlp_lib import paper
from vlp_lib.cli.options import SCALE, Commands, check_losses, declare, numbers
from vlp_lib.cli.stage import PLACE
from vlp_lib.config import TASKS, check_task
from vlp_lib.distributed import held
from vlp_lib.errors import UserError, unknown
from vlp_lib.io import read_json, writable, write_json
from vlp_lib.run import Layout, Run, project_root, results_root
from vlp_lib.study_file import read_study, require_different
from vlp_lib.variants import default_variants

STAGES = (*TASKS, "retrieval")
"""What `--tasks` takes: all that can follow a pretraining."""

_OF_OURS = tuple(task for task in TASKS if task != "vqa")
"""What the paper reports of its own model alone (table IV): unless asked for, no other run has it."""


def add(commands: Commands) -> None:
    """Declare the command."""
    reproduce = declare(commands, "reproduce", _reproduce, "run the graph of notebooks: every table and figure", *SCALE)
    reproduce.add_argument("--seeds", default="0 1 2", help="seeds, separated by spaces (default: %(default)s)")
    reproduce.add_argument("--variants", default="", help="separated by spaces (default: the paper's; --runs: none)")
    table = "a table of named runs (TOML); --variants adds to it"
    reproduce.add_argument("--runs", type=Path, metavar="FILE", help=table)
    tasks = "of vqa, nlvr2, vcr, retrieval ('' for none); default: those that the data has, nlvr2 and vcr of segl alone"
    reproduce.add_argument("--tasks", help=tasks)
    reproduce.add_argument("--cores", type=int, help="stages at once (default: all cores)")
    where = "where stages run: e.g. a cluster's profile"
    reproduce.add_argument("--workflow-profile", type=Path, metavar="FOLDER", help=where)
    reproduce.add_argument("--until", default="", help="stop after this stage, e.g. pretrain")


def _reproduce(options: argparse.Namespace) -> None:
    seeds = numbers(options.seeds, "seeds")
    asked = None if options.tasks is None else [check_task(name, STAGES) for name in options.tasks.split()]
    if options.until and options.until not in targets():
        raise unknown("stage", options.until, targets())
    tasks = _tasks(options.data_root) if asked is None else asked
    if asked is None and (few := [task for task in tasks if task in _OF_OURS]):
        print(f"{' and '.join(few)}: of {paper.OURS} alone, as in table IV; --tasks gives them to every run")
    variants = options.variants.split() or ([] if options.runs else default_variants(options.chosen.model.vision))
    # The graph reads them again; here what is wrong with them is one sentence.
    runs = [Run(options.profile, name, seed, options.data_root) for name in variants for seed in seeds]
    runs += read_study(options.runs, options.profile, options.data_root, seeds) if options.runs else []
    for run in runs:
        run.require_packages()
        check_losses(run.chosen, run.config.model)
    require_different(runs, f"--variants and {options.runs}" if options.runs else "--variants or --seeds")
    cores = options.cores or (None if options.workflow_profile else os.cpu_count() or 1)
    run_graph(
        options.profile, seeds, options.data_root, variants, tasks, cores, options.until.split(),
        workflow_profile=options.workflow_profile, runs=options.runs, plugin=options.plugin,
        of_ours=_OF_OURS if asked is None else (),
    )  # fmt: skip


def _tasks(data_root: str) -> list[str]:
    """The tasks that the data has; says which are left out."""
    if not data_root:
        return list(STAGES)
    from vlp_lib.corpora.opening import open_corpus
    from vlp_lib.tasks import tasks_of

    there = tasks_of(open_corpus(Path(data_root)))
    if left := [name for name in STAGES if name not in there]:
        print(f"{data_root} has no data for {', '.join(left)}: left out of the graph")
    return there


def _snakefile() -> Path:
    path = project_root() / "notebooks" / "Snakefile"
    if not path.is_file():
        raise UserError(f"no {path}: run this in a checkout of the project")
    return path


def targets() -> list[str]:
    """The stages that `--until` takes: the rules of the Snakefile without wildcards."""
    rules = re.findall(r"^rule (\w+):", _snakefile().read_text(encoding="utf-8"), re.MULTILINE)
    return [name for name in rules if not name.endswith("_one")]


def run_graph(
    profile: str,
    seeds: Sequence[int],
    data_root: str,
    variants: Sequence[str],
    tasks: Sequence[str],
    cores: int | None,
    until: Sequence[str] = (),
    extra: Sequence[str] = (),
    workflow_profile: Path | None = None,
    runs: Path | None = None,
    plugin: Path | None = None,
    of_ours: Sequence[str] = (),
) -> None:
    """Run the graph of notebooks (notebooks/Snakefile) up to `until` (all figures and tables by default).

    Stages whose parameters, code and inputs are unchanged are skipped; an interrupted graph goes on where it stopped.
    What does not need a stage that failed is still run.

    Args:
        tasks: of vqa, nlvr2, vcr and retrieval, what follows each pretraining.
        cores: that the stages may use; None leaves that to the workflow profile.
        workflow_profile: a folder with Snakemake's config.yaml that says where stages run, such as a cluster's.
        runs: a file of named runs (`vlp_lib.study_file`) beside the variants.
        plugin: a Python file with the visual losses that variants name.
        of_ours: of the tasks, those that only the paper's own model (`paper.OURS`) has.

    Raises UserError with the sentence of the first stage that failed, or with Snakemake's own reason.
    """
    root = _snakefile().parents[1]
    if workflow_profile is not None and not (workflow_profile / "config.yaml").is_file():
        raise UserError(f"{workflow_profile} has no config.yaml: give a folder such as notebooks/cluster/slurm")
    folder, layout = results_root(), Layout(profile, data_root)
    asked = {
        "profile": profile,
        "seeds": " ".join(map(str, seeds)),
        "data_root": data_root,
        "variants": " ".join(variants),
        "tasks": " ".join(tasks),
        "of_ours": " ".join(of_ours),
        "runs": str(runs.resolve()) if runs else "",
        "plugin": str(plugin.resolve()) if plugin else "",
    }
    where = ["--workflow-profile", str(workflow_profile.resolve())] if workflow_profile is not None else []
    where += ["--cores", str(cores)] if cores is not None else []
    # Snakemake reads braces, colons and quotes in paths as its own: it is given none but these, relative to `folder`.
    settings, kit = f"{layout.root.name}/graph.json", ".kit"
    command = [
        sys.executable, "-m", "vlp_lib.cli.tied", *until,
        "--snakefile", f"{kit}/notebooks/Snakefile", "--configfile", settings, *where,
        "--rerun-incomplete", "--keep-incomplete", "--nolock", "--keep-going",
        "--quiet", "host", "progress", "reason", "rules",
        *extra,
    ]  # fmt: skip
    environment = {
        **os.environ,
        "VLP_RESULTS": str(folder),
        PLACE: f"{layout.root.name}/.warm" if workflow_profile is None and can_fork() else "",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    begun, since = time.monotonic(), time.time()
    with held(layout.root):
        layout.claim()
        write_json(folder / settings, asked)
        _point_to(folder / kit, root)
        status, sentences, rest = _watched(command, folder, environment, 0 if workflow_profile is None else 30)
    if status:
        why = sentences[0] if sentences else _reason(status, rest)
        many = "a stage failed" if len(sentences) < 2 else f"{len(sentences)} stages failed, the first"
        logs = f" (logs: {folder / '.snakemake'})" if workflow_profile is not None else ""
        raise UserError(f"{many}: {why}{logs}; mend it and run the same command again to go on")
    print(f"all done in {(time.monotonic() - begun) / 60:.1f} minutes")
    print(*time_report(layout.root / "notebooks", since), sep="\n")


def can_fork() -> bool:
    """Whether a process that has imported torch may be forked: tried on Linux, where nothing speaks of a GPU."""
    gpus = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/nvmap", "/dev/dxg", "/dev/kfd")
    return sys.platform == "linux" and not any(map(os.path.exists, gpus))


def time_report(executed: Path, since: float) -> list[str]:
    """Where the time went: a line for each kind of stage of which copies were written below `executed` after `since`.

    What papermill noted is summed: start-up is all until the parameters are read and the first cell with an import has
    ended, with the corpus that this cell may open or draw.
    """

    def seconds(part: dict[str, Any]) -> float:
        return part["metadata"].get("papermill", {}).get("duration") or 0.0

    spent: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(path for path in executed.rglob("*.ipynb") if path.stat().st_mtime >= since):
        content = read_json(path)
        code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
        imports = next((seconds(cell) for cell in code if "import " in "".join(cell["source"])), 0.0)
        whole, of_cells = seconds(content), sum(map(seconds, content["cells"]))
        spent.setdefault(path.stem.partition("-")[0], []).append((whole, whole - of_cells + imports))
    if not spent:
        return []
    rows = {name: (len(took), *(sum(parts) / 60 for parts in zip(*took, strict=True))) for name, took in spent.items()}
    rows["all"] = tuple(map(sum, zip(*rows.values(), strict=True)))
    head = f"{'minutes of stages, of which several run at once':<50}{'stages':>8}{'minutes':>9}{'start-up':>10}"
    return [head, *(f"{name:<50}{n:>8}{whole:>9.1f}{start:>10.1f}" for name, (n, whole, start) in rows.items())]


def _point_to(link: Path, target: Path) -> None:
    """Make `link` lead to `target`, whatever it led to before."""
    if link.is_symlink() and link.readlink() == target:
        return
    with writable(link):
        link.unlink(missing_ok=True)
        link.symlink_to(target, target_is_directory=True)


def _watched(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], patience: float
) -> tuple[int, list[str], list[str]]:
    """Run Snakemake in a folder and end all that it started, however this process or Snakemake ends.

    Stages print to stdout as they go; on stderr stand their sentences, among much that Snakemake says to itself.

    Interrupted, it gets `patience` seconds to take its jobs out of a cluster's queue. Returns its exit status, the
    sentences of the stages that failed, and its own last lines.
    """
    sentences, rest = list[str](), deque[str](maxlen=200)

    def read(lines: Iterable[str]) -> None:
        for line in lines:
            if line.startswith("vlp: "):
                sentences.append(line.removeprefix("vlp: ").strip())
                print(line, end="", file=sys.stderr, flush=True)
            else:
                rest.append(line.strip())

    with (
        interrupted_by(signal.SIGTERM, signal.SIGHUP),
        subprocess.Popen(
            command, cwd=folder, env=environment, start_new_session=True,
            stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        ) as graph,
    ):  # fmt: skip
        reader = threading.Thread(target=read, args=(graph.stderr or (),))
        reader.start()
        try:
            graph.wait()
        except KeyboardInterrupt:
            graph.send_signal(signal.SIGINT if patience else signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                graph.wait(patience)
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(graph.pid, signal.SIGKILL)
            reader.join()
    return graph.returncode, sentences, list(rest)


@contextlib.contextmanager
def interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    """These signals end the block as Ctrl-C does; one that is ignored stays so, as nohup's of a closed terminal."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {one: signal.getsignal(one) for one in signals}
    for one, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(one, interrupt)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _reason(status: int, lines: Sequence[str]) -> str:
    """Why Snakemake itself stopped: what it says from its first exception on, without its last words."""
    if status < 0:
        return f"Snakemake was ended by {signal.Signals(-status).name}, by hand or for want of memory"
    start = next((i for i, line in enumerate(lines) if re.match(r"\w+(Exception|Error)\b", line)), 0)
    last = ("Exiting because", "During handling of")
    end = next((i for i, line in enumerate(lines) if i > start and line.startswith(last)), len(lines))
    return " ".join(line for line in lines[start:end] if line) or "Snakemake said nothing"
