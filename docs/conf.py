"""Sphinx's settings for `make site`: the documents, the lessons with their outputs and the results as static pages.

The sources are the checkout's own files, as GitHub shows them. Nothing is fetched: equations become MathML.
"""

import json
import os
import shutil
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes

from vlp_lib.cli.lessons import for_colab

ROOT = Path(__file__).resolve().parents[1]
RESULTS, REFERENCE = "results/reference", "results/reference/tiny"
STAGES = "00_corpus 10_pretrain-segl-seed0 11_finetune-vqa-segl-seed0 12_retrieval-segl-seed0 13_speed "
STAGES += "14_attention-segl-seed0 16_tables 17_claims 20_convergence"

project = "The vision language pretraining kit"
author = copyright = "The vlp-lib contributors"
extensions = ["myst_nb"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "results/README.md", "notebooks/0[0-9]_*.ipynb"]
include_patterns += [f"{REFERENCE}/notebooks/{stage}.ipynb" for stage in STAGES.split()]
exclude_patterns = [".*", "notebooks/00_corpus.ipynb", "results/[!rR]*", "tests", "vlp_lib", "build"]
templates_path: list[str] = []

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# Lessons are executed once; the stages were, when the results were made. What trains for long is shown as it is.
nb_execution_mode = os.environ.get("EXECUTE", "cache")
nb_execution_excludepatterns = ["tiny/notebooks/*", "notebooks/0[7-9]_*"]  # matched from the right
nb_execution_cache_path = str(ROOT / "results" / "site" / "executed")
nb_execution_timeout = -1
nb_execution_raise_on_error = True
nb_merge_streams = True

html_theme = "sphinx_book_theme"
html_title = project
html_show_copyright = False
html_math_renderer = "mathml"
html_theme_options = {"use_download_button": True, "home_page_in_toc": True, "navbar_persistent": []}
REPOSITORY = os.environ.get("REPOSITORY", "")
if REPOSITORY:
    # GitHub Pages serves the built site from its own branch; the notebooks in it fetch the kit where they run.
    html_theme_options |= {"repository_url": REPOSITORY, "repository_branch": "gh-pages", "use_repository_button": True}
    html_theme_options |= {
        "path_to_docs": "_sources",
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }

CONTENTS = """
```{toctree}
:hidden:
:caption: Lessons
:glob:
notebooks/*
```
```{toctree}
:hidden:
:caption: The stages of the paper
:glob:
results/reference/tiny/notebooks/*
```
```{toctree}
:hidden:
:caption: Documents
:glob:
docs/*
CONTRIBUTING
CHANGELOG
results/README
```
"""


def add_contents(app, name, source):
    """The README is the first page; the table of contents, which GitHub does not need, stands below it."""
    if name == root_doc:
        source[0] += CONTENTS


def point_to_results(app, doctree):
    """Links to what is no page: results lead to their page, which is copied; a folder of the code is only named."""
    here = (ROOT / app.env.docname).parent
    for link in [*doctree.findall(addnodes.download_reference), *doctree.findall(addnodes.pending_xref)]:
        target = link["reftarget"].partition("#")[0]
        path = ((ROOT if link.get("refdomain") == "doc" else here) / target).resolve()
        if path.is_relative_to(ROOT / RESULTS) and not path.is_relative_to(ROOT / REFERENCE / "notebooks"):
            page = ROOT / REFERENCE / "index.html"
            path, anchor = (page, f"#{path.stem}") if path.parent.name in ("tables", "figures") else (path, "")
            path = path if path.suffix else path.with_suffix(".md") if path.with_suffix(".md").is_file() else page
            link.replace_self(nodes.reference("", "", *link.children, refuri=os.path.relpath(path, here) + anchor))
        elif path.is_dir():
            link.replace_self(link.children)


def describe_figures(app, doctree):
    """A picture that a cell has drawn has no words of its own: it is called by the section it stands in."""
    for image in doctree.findall(nodes.image):
        section = image
        while section is not None and not isinstance(section, nodes.section):
            section = section.parent
        if section is not None:
            image.setdefault("alt", f"{section[0].astext()}: what the code above draws")


def copy_results(app, error):
    """The page of results with its figures and tables; and notebooks to take along fetch the kit in Google Colab."""
    if error is None and app.builder.name == "html":
        for notebook in Path(app.outdir, "_sources").rglob("*.ipynb") if REPOSITORY else ():
            notebook.write_text(json.dumps(for_colab(json.loads(notebook.read_text()), REPOSITORY)))
        leave = shutil.ignore_patterns("*seed*", "weights", "*.txt", "finetune-*", "pretrain", "retrieval")
        shutil.copytree(ROOT / RESULTS, Path(app.outdir) / RESULTS, dirs_exist_ok=True, ignore=leave)


def show_math(translator, node):
    """An equation as MathML, which browsers draw themselves."""
    block = isinstance(node, nodes.math_block)
    equation = tex2mathml(node.astext().replace(r"\log ", r"\log\, "), as_block=block)
    translator.body.append(f"<div style='overflow-x:auto;margin:1em 0'>{equation}</div>" if block else equation)
    raise nodes.SkipNode


def setup(app):
    """What Sphinx calls."""
    app.add_html_math_renderer("mathml", (show_math, None), (show_math, None))
    app.connect("source-read", add_contents)
    app.connect("doctree-read", point_to_results)
    app.connect("doctree-read", describe_figures)
    app.connect("build-finished", copy_results)
