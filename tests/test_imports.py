"""The library on machines that have no notebook tools (a GPU server, a cluster) or are no Unix."""

import json
import os
import subprocess
import sys

HIDE = """
import builtins

genuine = builtins.__import__

def without_unix(name, globals=None, *rest, **named):
    # Other packages have code of their own for each system.
    if name in {"resource", "fcntl", "pwd"} and (globals or {}).get("__name__", "").startswith("vlp_lib"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return genuine(name, globals, *rest, **named)

builtins.__import__ = without_unix
"""

SCRIPT = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"papermill", "nbformat", "nbclient", "IPython", "ipykernel", "ipywidgets",
                                      "jupyterlab", "snakemake", "pycocotools"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
{HIDE}
import vlp_lib

names = [module.name for module in pkgutil.walk_packages(vlp_lib.__path__, "vlp_lib.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_every_module_imports_without_notebook_packages():
    done = subprocess.run([sys.executable, "-c", SCRIPT.replace("{HIDE}", HIDE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


ELSEWHERE = """
import os, sys
{HIDE}
if __name__ == "__main__":
    del os.fork
    import torch.multiprocessing
    torch.multiprocessing.set_start_method("spawn")
    from vlp_lib.cli import main
    sys.exit(main(sys.argv[1:]))
"""


def test_pretrains_without_fork_and_without_the_modules_of_unix(tmp_path):
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE.replace("{HIDE}", HIDE))
    command = ["pretrain", "--profile", "smoke", "--variant", "segl", "--set", "data.workers=1"]
    command += ["--set", "training.steps=2", "--set", "training.evaluations=1"]
    results = {**os.environ, "VLP_RESULTS": str(tmp_path / "results")}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "elsewhere.py"), *command], capture_output=True, text=True, env=results
    )
    assert done.returncode == 0, done.stderr
    [record] = (tmp_path / "results").rglob("run.json")
    assert json.loads(record.read_text())["peak_memory_gib"] is None
