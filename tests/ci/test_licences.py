"""The page of licences lists what the lock lists."""

import pytest
from licences import PAGE, ROOT, licence, locked, renewed, rows

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_the_page_has_the_packages_and_versions_of_the_lock():
    listed = rows(PAGE.read_text(encoding="utf-8"))
    assert {name: versions for name, (versions, _) in listed.items()} == {
        name: ", ".join(versions) for name, versions in locked(LOCK).items()
    }, "run `make licences`"
    unknown = [name for name, (_, said) in listed.items() if said == "not known"]
    assert unknown == ["conda-inject", "cuda-toolkit"]  # which say nothing of it


def test_a_licence_is_what_the_package_says():
    assert "BSD" in licence("numpy")
    assert "Apache" in licence("timm")


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_what_is_not_installed_keeps_its_licence(version):
    page = "before\n\n| package | version | licence |\n|---|---|---|\n| no-such | 1.0 | MIT |\n| gone | 1.0 | MIT |\n"
    new = renewed(page, f"no-such=={version} \\\n    --hash=sha256:00\nno-other==3.1 ; sys_platform == 'x' \\\n")
    assert new.startswith("before\n\n| package |")
    assert rows(new) == {"no-other": ("3.1", "not known"), "no-such": (version, "MIT")}
