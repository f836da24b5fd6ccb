"""The packages of requirements.lock with their licences, as their own metadata says: `make licences`.

    python .ci/licences.py      # writes the table of docs/licences.md anew

What is not installed (packages of other systems and Python versions) keeps the licence that the page has for it.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/licences.md"
_HEAD = "| package | version | licence |\n|---|---|---|\n"
_UNKNOWN = "not known"


def locked(lock: str) -> dict[str, list[str]]:
    """The versions of each package of a lock; several where Python versions have one each."""
    versions: dict[str, list[str]] = {}
    for name, version in re.findall(r"(?m)^([\w.-]+)==([\w.]+)", lock):
        versions.setdefault(name, []).append(version)
    return versions


def licence(name: str) -> str:
    """What an installed package says: its SPDX expression, its classifiers, or the first line of its licence.

    Raises importlib.metadata.PackageNotFoundError.
    """
    package = metadata.distribution(name)
    about = package.metadata
    classifiers = [c.split(" :: ")[-1] for c in about.get_all("Classifier", []) if c.startswith("License :: OSI")]
    files = [f"{folder}{file}" for file in about.get_all("License-File", []) for folder in ("licenses/", "")]
    texts = [*about.get_all("License", []), *map(package.read_text, files)]
    lines = [text.strip().partition("\n")[0] for text in texts if text]
    said = [*about.get_all("License-Expression", []), ", ".join(classifiers), *lines]
    return next(filter(None, said), _UNKNOWN)


def rows(page: str) -> dict[str, tuple[str, str]]:
    """Versions and licence by package, of the page's table."""
    cells = re.findall(r"(?m)^\| (.+) \| (.+) \| (.+) \|$", page.partition(_HEAD)[2])
    return {name: (versions, said) for name, versions, said in cells}


def renewed(page: str, lock: str) -> str:
    """The page with its table, which is its end, made anew from the lock and what is installed."""
    before = rows(page)
    lines = []
    for name, versions in sorted(locked(lock).items()):
        try:
            said = licence(name)
        except metadata.PackageNotFoundError:
            said = before.get(name, ("", _UNKNOWN))[1]
        lines.append(f"| {name} | {', '.join(versions)} | {said} |\n")
    return page.partition(_HEAD)[0] + _HEAD + "".join(lines)


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(renewed(text, (ROOT / "requirements.lock").read_text(encoding="utf-8")), encoding="utf-8")
