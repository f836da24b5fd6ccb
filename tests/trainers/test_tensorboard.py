import sys
from types import ModuleType

import pytest
from made_runs import pretrained

from vlp_lib.errors import UserError
from vlp_lib.trainers import loop


class Recorder:
    """Stands in for torch's writer, which needs a package of its own."""

    made: list["Recorder"] = []  # noqa: RUF012

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, [], False
        Recorder.made.append(self)

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def flush(self):
        pass

    def close(self):
        self.closed = True


@pytest.fixture
def recorder(monkeypatch):
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Recorder
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    Recorder.made = []
    return Recorder.made


def test_every_row_of_the_metrics_is_there(small_profile, tiny_corpus, results, recorder):
    folder, rows = pretrained(small_profile, "segl", tiny_corpus, tensorboard=True)
    (writer,) = recorder
    assert writer.closed
    assert writer.folder == str(folder / "tensorboard")
    found = {(name, step): value for name, value, step in writer.scalars}
    for row in rows:
        for name in row.keys() - {"step", "samples"}:
            assert found[name.replace("_", "/", 1), row["step"]] == row[name]
    assert ("val/itm", 6) in found
    # A finished run that is asked for TensorBoard once more writes its rows again, in place of the old ones.
    pretrained(small_profile, "segl", tiny_corpus, tensorboard=True)
    assert recorder[1].purge_step == 0
    assert sorted(map(str, recorder[1].scalars)) == sorted(map(str, writer.scalars))


def test_without_the_package_it_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="TensorBoard is not installed: install it with `pip install tensorboard`"):
        loop._scalar_writer(tmp_path)
