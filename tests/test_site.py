"""`make site` without the execution of the lessons: every page is built without a warning, and shows what it should."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

for package in ("sphinx", "myst_nb", "sphinx_book_theme"):
    pytest.importorskip(package)
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    given = {**os.environ, "EXECUTE": "off", "REPOSITORY": "https://github.com/someone/kit"}
    command = [sys.executable, "-m", "sphinx", "-c", "docs", "-q", "-W", "--keep-going", ".", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=given)
    assert done.returncode == 0, done.stderr
    return out


def text(site, name):
    return (site / name).read_text(encoding="utf-8")


def test_equations_need_no_network(site):
    page = text(site, "notebooks/03_segl.html")
    assert page.count("<math") >= 5 and 'src="http' not in page


def test_links_lead_to_pages_and_into_the_results(site):
    start = text(site, "README.html")
    for target in re.findall(r'href="((?!https?:|#|mailto:)[^"#?]+)', start):
        assert (site / target).exists(), target
    assert 'href="docs/running.html#use-a-trained-model-share-it"' in start
    assert 'href="results/reference/tiny/index.html#convergence"' in start
    assert (site / "results/reference/tiny/figures/figure_1.png").is_file()


def test_a_notebook_opens_in_colab_and_fetches_the_kit_there(site):
    where = "https://colab.research.google.com/github/someone/kit/blob/gh-pages/_sources/notebooks/03_segl.ipynb"
    assert where in text(site, "notebooks/03_segl.html")
    assert "git clone --quiet --depth 1 https://github.com/someone/kit" in text(
        site, "_sources/notebooks/03_segl.ipynb"
    )


def test_pictures_of_documents_have_words(site):
    for page in [site / "README.html", *site.glob("docs/*.html")]:
        for image in re.findall(r"<img [^>]*>", page.read_text(encoding="utf-8")):
            assert re.search(r'alt="[^"]{10,}', image), f"{page.name}: {image}"
