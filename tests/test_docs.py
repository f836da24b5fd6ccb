"""The documents say what is there: pages, commands, settings, files, tests and counts of lines."""

import argparse
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import torch
from contexts import context

from vlp_lib import catalogue, cli
from vlp_lib.config import flatten, to_dict
from vlp_lib.losses import base
from vlp_lib.models.vision import VisionFeatures
from vlp_lib.profiles import PROFILES
from vlp_lib.study_file import read_study
from vlp_lib.variants import parse_variant

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "results/README.md"])
HISTORY = "CHANGELOG.md"
"""The page that names what is no more."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _blocks(page: Path, language: str) -> list[str]:
    return [body for found, body in _FENCE.findall(_text(page)) if found == language]


def _inline(page: Path) -> list[str]:
    """The code in running text and tables."""
    return _CODE.findall(_FENCE.sub("", _text(page)))


def _arguments(words: list[str]) -> list[str] | None:
    """What `vlp` is given by a command of a shell; None for another program."""
    if "vlp_lib.cli" in words:
        return words[words.index("vlp_lib.cli") + 1 :]
    names = [i for i, word in enumerate(words) if word in ("vlp", ".venv/bin/vlp")]
    return words[names[0] + 1 :] if names and all("=" in word for word in words[: names[0]]) else None


COMMANDS = [
    pytest.param(arguments, id=f"{page.name}: {shlex.join(arguments)}")
    for page in PAGES
    for block in _blocks(page, "sh")
    for line in block.replace("\\\n", " ").splitlines()
    if (arguments := _arguments(shlex.split(line, comments=True))) is not None
]


class _ParsedError(Exception):
    """Carries the options of a command that is not to be run."""


@pytest.fixture
def parse(monkeypatch):
    """Parses a command as `vlp` does, and stops there."""
    original = argparse.ArgumentParser.parse_args

    def stop(self, *arguments, **named):
        raise _ParsedError(original(self, *arguments, **named))

    def parse_command(arguments: list[str]) -> argparse.Namespace:
        with pytest.raises(_ParsedError) as parsed:
            cli.main(arguments)
        return parsed.value.args[0]

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    return parse_command


def _settings() -> set[str]:
    """All that `--set` takes; the example of CONTRIBUTING.md is known while it is tested."""
    names = set(flatten(to_dict(PROFILES["paper"]))) | {"losses.edges.power"}
    return names | {f"losses.{name}.{setting}" for name, e in catalogue.losses().items() for setting in e.settings}


def test_the_readme_is_one_page():
    assert len(_text(ROOT / "README.md").split()) <= 950


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", _text(page))):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", _text(file), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles]
            assert anchor in anchors, f"{page.name} links to {target}"


def test_there_are_commands():
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("arguments", COMMANDS)
def test_commands_are_what_vlp_takes(arguments, parse):
    options = parse(arguments)
    for setting in getattr(options, "set", []):
        assert setting.partition("=")[0] in _settings()


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != HISTORY], ids=lambda page: page.name)
def test_commands_named_in_the_text_are_there(page, capsys):
    for code in _inline(page):
        words = code.replace("…", "").split()
        if words[:1] != ["vlp"] or len(words) == 1:
            continue
        names = [word for word in words[1:] if re.fullmatch(r"[a-z0-9]+", word)][:2]
        for depth in (2, 1):  # the second word may be a value
            with pytest.raises(SystemExit) as end:
                cli.main([*names[:depth], "--help"])
            if end.value.code == 0:
                break
        assert end.value.code == 0, f"{page.name}: {code}"
        said = capsys.readouterr().out
        assert all(word in said for word in words if word.startswith("--")), f"{page.name}: {code}"


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != HISTORY], ids=lambda page: page.name)
def test_settings_named_in_the_text_are_there(page):
    sections = {name.partition(".")[0] for name in _settings() if "." in name}
    for code in _inline(page):
        for name in re.findall(r"(?:--set )?\b(\w+(?:\.\w+)+)\b", code):
            section, end = name.partition(".")[0], name.rpartition(".")[2]
            if "/" in code or section not in sections or end in ("json", "npz", "safetensors", "py", "md"):
                continue
            assert name in _settings() or any(known.startswith(f"{name}.") for known in _settings()), code


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != HISTORY], ids=lambda page: page.name)
def test_files_named_in_the_text_are_there(page):
    for code in _inline(page):
        name, _, test = code.partition("::")
        if re.match(r"(vlp_lib|tests|notebooks|docs)/", name):
            assert list(ROOT.glob(name.rstrip("/"))), f"{page.name} names {name}"
        if test:
            assert f"def {test}(" in _text(ROOT / name), f"{page.name} names {code}"


def _lines(room: str) -> int:
    """The lines of a room's Python files, to a hundred."""
    pattern = room if room.endswith(".py") else f"{room}**/*.py"
    return round(sum(len(_text(file).splitlines()) for file in ROOT.glob(pattern)), -2)


def test_the_table_of_rooms_is_current():
    """Within 200 lines or a tenth, so that only what matters to a reader asks for a new number."""
    rows = re.findall(r"^\| `(vlp_lib/\S*)` \| ([\d,]+) \|", _text(ROOT / "docs/architecture.md"), re.MULTILINE)
    said = {room: int(lines.replace(",", "")) for room, lines in rows}
    rooms = {f"vlp_lib/{init.parent.name}/" for init in ROOT.glob("vlp_lib/*/__init__.py")} | {"vlp_lib/*.py"}
    assert set(said) == rooms
    there = {room: _lines(room) for room in said}
    moved = {room: f"{there[room]:,}" for room in said if abs(said[room] - there[room]) > max(200, said[room] // 10)}
    assert not moved, f"docs/architecture.md: write {moved}"


def test_the_layers_are_those_of_the_contract():
    """The rooms, from the highest layer down."""
    contracts = tomllib.loads(_text(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    rooms = {init.parent.name for init in ROOT.glob("vlp_lib/*/__init__.py")}
    layers = [rooms & set(re.findall(r"vlp_lib\.(\w+)", layer)) for layer in contracts[0]["layers"]]
    drawn = next(block for block in _blocks(ROOT / "docs/architecture.md", "") if "trainers" in block)
    assert [found for line in drawn.splitlines() if (found := rooms & set(line.split()))] == [x for x in layers if x]


@pytest.mark.usefixtures("forget_plugins")
def test_the_example_of_a_loss_runs(tmp_path, make_batch):
    file = tmp_path / "my_loss.py"
    file.write_text(next(block for block in _blocks(ROOT / "CONTRIBUTING.md", "python") if "@visual_loss" in block))
    assert catalogue.add_plugin(file) == ["edges"]
    for variant in ("edges", "segl+0.5*edges", "edges@resnet"):
        weights = dict(parse_variant(variant).losses)
        mix = base.MixedVisualLoss(context(), weights, {"edges": {"power": 2.0}})
        features = VisionFeatures(torch.randn(3, 16, 8), (4, 4))
        output = mix(features, features, make_batch())
        output.loss.backward()
        assert output.loss.isfinite() and {"edges", "edges_mean"} <= output.parts.keys()
        assert all(parameter.grad is not None for parameter in mix.parameters())


def test_the_example_of_a_study_is_read(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(next(iter(_blocks(ROOT / "docs/running.md", "toml"))))
    assert [(run.name, run.seed) for run in read_study(file, "tiny", "", [2])] == [
        ("majority", 2), ("few", 0), ("few", 1)
    ]  # fmt: skip


def test_the_errors_of_the_troubleshooting_page_are_the_kits():
    said = "".join(_text(file) for file in ROOT.glob("vlp_lib/**/*.py"))
    table = _text(ROOT / "docs/troubleshooting.md").partition("| it says |")[2].partition("\n## ")[0]
    quoted = [code for row in table.splitlines()[2:] for code in _CODE.findall(row.split("|")[1] if row else "")]
    assert len(quoted) > 10
    assert not [words for words in quoted if words not in said]


def test_the_citation_is_of_this_version():
    version = tomllib.loads(_text(ROOT / "pyproject.toml"))["project"]["version"]
    assert f"\nversion: {version}\n" in _text(ROOT / "CITATION.cff")


def test_every_profile_has_its_recipe():
    page = _text(ROOT / "docs/running.md")
    assert all(f"| `{name}` |" in page for name in PROFILES)
