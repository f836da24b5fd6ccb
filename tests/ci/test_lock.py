import re
import subprocess
import sys
from importlib import metadata

from lock import ROOT, missing, without_gpu

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_a_lock_without_a_gpu_has_no_package_of_one():
    kept = [line.split("==")[0] for line in without_gpu(LOCK).splitlines() if line[:1].isalpha()]
    assert not [name for name in kept if name.startswith(("nvidia", "cuda", "triton"))]
    every = [line.split("==")[0] for line in LOCK.splitlines() if line[:1].isalpha()]
    assert {"torch", "torchvision", "numpy"} <= set(kept)
    assert {name.split("-")[0] for name in set(every) - set(kept)} == {"nvidia", "cuda", "triton"}


def test_every_package_of_the_lock_has_its_hashes():
    for lock in (LOCK, without_gpu(LOCK)):
        entries = re.split(r"(?m)^(?=\w)", lock)[1:]
        assert len(entries) > 180
        assert not [entry for entry in entries if not re.fullmatch(
            r"[\w.-]+==[\w.]+( ; [^\\\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n(    #.*\n)*", entry
        )]  # fmt: skip


def test_what_an_environment_lacks_is_named(tmp_path):
    version = metadata.version("packaging")
    other = "packaging==0.1\nno-such-package==1.0\nno-such-windows==1.0 ; sys_platform == 'other'\nnvidia-x==1\n"
    hashes = "    --hash=sha256:00 \\\n    --hash=sha256:01\n"
    assert missing(f"# lines\npackaging=={version} \\\n{hashes}    # via\n{other}", tmp_path) == [
        "packaging==0.1", "no-such-package==1.0", "vlp-lib",
    ]  # fmt: skip


def test_a_local_version_is_the_version(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "2.11.0+cpu")
    assert missing("torch==2.11.0", tmp_path) == ["vlp-lib"]
    assert missing("torch==2.11.1", tmp_path) == ["torch==2.11.1", "vlp-lib"]


def test_the_makefiles_command_needs_nothing_installed(tmp_path):
    command = [sys.executable, "-I", "-S", str(ROOT / ".ci/lock.py")]
    done = subprocess.run([*command, "--cpu"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == without_gpu(LOCK).strip()
    assert subprocess.run(command, check=False, cwd=tmp_path).returncode == 1  # an environment without anything
