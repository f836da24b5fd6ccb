"""The library on machines that have no notebook tools: a GPU server, a cluster."""

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"papermill", "nbformat", "nbclient", "IPython", "ipykernel", "ipywidgets",
                                      "jupyterlab", "snakemake", "pycocotools"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import vlp_lib

names = [module.name for module in pkgutil.walk_packages(vlp_lib.__path__, "vlp_lib.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_every_module_imports_without_notebook_packages():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


def test_the_launcher_does_not_load_torch():
    script = "import sys, vlp_lib.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
