import pytest

from vlp_lib.cli import graph, main


@pytest.fixture
def snakefile(tmp_path, monkeypatch):
    """The Snakefile, which a test writes, of a checkout in place of ours."""
    root = tmp_path / "checkout"
    (root / "notebooks").mkdir(parents=True)
    monkeypatch.setattr(graph, "project_root", lambda: root)
    return root / "notebooks" / "Snakefile"


@pytest.fixture
def write_notebook():
    """Writes a notebook with a cell of code, behind one of parameters where there are some."""
    nbformat = pytest.importorskip("nbformat")

    def write(path, code, parameters=""):
        new = nbformat.v4.new_code_cell
        cells = [new(parameters, metadata={"tags": ["parameters"]})] if parameters else []
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=[*cells, new(code)], metadata=kernel), path)
        return path

    return write


@pytest.fixture
def refused(capsys):
    """Gives a command that ends with one sentence; the sentence."""

    def run(*words):
        capsys.readouterr()
        status = main([str(word) for word in words])
        shown = capsys.readouterr()
        assert status == 2
        assert "Traceback" not in shown.out + shown.err
        assert shown.err.startswith("vlp: ") and shown.err.count("\n") == 1, shown.err
        return shown.err.strip()

    return run
