"""Whether this Python's environment has what requirements.lock lists, and the lock for machines without a GPU.

The Makefile runs this file by its path, before anything is installed:

    python .ci/lock.py           # exit status 0 where the environment has everything, this checkout too
    python .ci/lock.py --cpu     # the lock without the packages that only a GPU needs
"""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_GPU_ONLY = re.compile(r"(nvidia|cuda)-|triton==")


def without_gpu(lock: str) -> str:
    """The lock's text without NVIDIA's packages and Triton, several GB that a CPU's torch does not read."""
    return "".join(entry for entry in re.split(r"(?m)^(?=\w)", lock) if not _GPU_ONLY.match(entry))


def missing(lock: str, root: Path = ROOT) -> list[str]:
    """The lines of the lock that the environment lacks, and "vlp-lib" where it is not installed from `root`.

    A local version such as 2.11.0+cpu counts as 2.11.0, and packages that only a GPU needs are not asked for.
    """
    from packaging.requirements import Requirement  # where it is not installed, the lock is not either

    # A line of a package, before its hashes and the comment that says what asked for it.
    lines = [line.rstrip(" \\") for line in without_gpu(lock).splitlines() if line and line[0] not in " #"]
    wanted = [wish for wish in map(Requirement, lines) if wish.marker is None or wish.marker.evaluate()]
    absent = [str(wish) for wish in wanted if not wish.specifier.contains(_version(wish.name), prereleases=True)]
    return absent if _origin() == root.as_uri() else [*absent, "vlp-lib"]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "0"


def _origin() -> str:
    """The folder that vlp-lib was installed from, as pip notes it; "" where it is not installed."""
    try:
        return str(json.loads(metadata.distribution("vlp-lib").read_text("direct_url.json") or "{}").get("url", ""))
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    if "--cpu" in sys.argv:
        print(without_gpu(text))
    else:
        try:
            sys.exit(bool(missing(text)))
        except ImportError:
            sys.exit(1)
