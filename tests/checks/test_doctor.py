from dataclasses import replace
from importlib import metadata

import pytest
from made_runs import pretrained

from vlp_lib import cli
from vlp_lib.bench.budget import GIB, Budget, Need, estimate, report
from vlp_lib.checks import doctor
from vlp_lib.errors import UserError
from vlp_lib.io import read_json
from vlp_lib.profiles import profile
from vlp_lib.variants import parse_variant

SMOKE = ("doctor", "--profile", "smoke")

pytestmark = pytest.mark.usefixtures("results")


def test_the_command_checks_and_estimates(capsys, results):
    assert cli.main([*SMOKE, "--gpu-memory", "2", "--set", "training.precision=float32"]) == 0
    said = capsys.readouterr().out
    for words in ("packages", "ok  device", "ok  results", "fits into 2 GiB as it is", "samples/s", "470 V100-hours"):
        assert words in said
    assert f"time for {12 * 16:,} samples" in said
    assert not list(results.iterdir())  # nothing was drawn or left


def test_what_does_not_fit_is_given_a_setting(capsys):
    """An eighth of a GiB holds the weights of the smoke model but not a batch of a thousand."""
    many = ("--set", "training.batch_size=1024", "--set", "training.precision=float32", "--gpu-memory", str(1 / 8))
    assert cli.main([*SMOKE, *many]) == 0
    said = capsys.readouterr().out
    assert "does not fit into 0 GiB as it is; with --set training.accumulation=" in said
    setting = said.partition("with --set ")[2].split()[0]
    assert cli.main([*SMOKE, *many, "--set", setting]) == 0
    assert "fits into 0 GiB as it is" in capsys.readouterr().out


def test_a_batch_that_cannot_be_shared_out(capsys):
    assert cli.main([*SMOKE, "--gpus", "3"]) == 2
    assert "batch_size 16 cannot be shared out to 3 GPUs" in capsys.readouterr().err


def test_packages_are_checked(monkeypatch):
    checks = {check.name: check for check in doctor.check_packages()}
    assert {"torch", "pillow", "timm"} <= checks.keys()
    assert all(check.fine for check in checks.values())
    assert "pytest" not in checks  # what only developers need
    monkeypatch.setattr(metadata, "requires", lambda _: ["torch<2", "nosuchpackage>=1", "scipy"])
    monkeypatch.setattr(doctor, "_import", lambda name: "ImportError: libgfortran is missing")
    old, missing, broken = doctor.check_packages()
    assert "needed is <2" in old.said
    assert missing.said == "missing: pip install 'nosuchpackage>=1'"
    assert "libgfortran" in broken.said
    assert not (old.fine or missing.fine or broken.fine)


def test_a_checkout_that_is_not_installed_is_said_to_be(monkeypatch):
    monkeypatch.setattr(doctor, "_PACKAGE", "no-such-kit")
    [check] = doctor.check_packages()
    assert (check.name, check.fine) == ("no-such-kit", False)
    assert "pip install -e ." in check.said


def test_disk_and_folder_are_checked(tmp_path):
    assert all(check.fine for check in doctor.check_machine(tmp_path, 1))
    full = doctor.check_machine(tmp_path, 10**18)[-1]
    assert (full.name, full.fine) == ("results", False)
    (tmp_path / "file").write_text("")
    blocked = doctor.check_machine(tmp_path / "file" / "results", 1)[-1]
    assert not blocked.fine
    assert "VLP_RESULTS" in blocked.said


def test_time_follows_from_the_parts():
    """By hand: 1 TFLOP a sample at 100 TFLOP/s is 100 samples a second, and a measured step of half that pace 50 %."""
    need = Need(GIB, GIB, 0, GIB)
    found = Budget(1, 2, need, need, 4 * GIB, 10**12, 1e14, 50.0, 360_000)
    chosen = replace(profile("smoke"), training=replace(profile("smoke").training, batch_size=8))
    said = report(found, chosen, parse_variant("segl"))
    best, measured = (line.split() for line in said.splitlines() if "samples/s  " in line)
    assert best[-4:-2] == ["200.0", "samples/s"]
    assert measured[-4:-2] == ["100.0", "samples/s"]
    assert "at 50% of it, measured" in said
    assert (best[-2:], measured[-2:]) == (["30.0", "min"], ["1.0", "h"])
    assert "1.0 h" in said
    assert "does not fit into 4 GiB: take a GPU with more memory" in said


def test_checkpoints_on_disk(small_profile, tiny_corpus, results):
    training = replace(small_profile.training, steps=2, evaluations=1, checkpoints=2, keep=2)
    folder, _ = pretrained(replace(small_profile, training=training), "naive_vit", tiny_corpus)
    files = [*folder.glob("*.safetensors"), *folder.glob("checkpoints/*/*")]
    used = sum(path.stat().st_size for path in files)
    parameters = read_json(folder / "run.json")["parameters"]
    assert used < doctor.checkpoint_bytes(parameters, 2) < 2 * used


def test_no_gpus_is_an_error():
    with pytest.raises(UserError, match="shared out to 0 GPUs"):
        estimate(profile("smoke"), parse_variant("segl"), 1, 0, None)
