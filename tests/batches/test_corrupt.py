from dataclasses import replace

import pytest
from made_runs import pretrained

from vlp_lib.batches.corrupt import CorruptImages, recorded
from vlp_lib.errors import UserError
from vlp_lib.io import read_json


def test_each_image_counts_once_over_processes_and_restarts(tmp_path, capsys):
    first, second = (CorruptImages(tmp_path, 1000, 0.003, rank) for rank in (0, 1))
    first.note(("b.jpg", "a.jpg", "a.jpg"))
    second.note(("a.jpg",))
    second.note(("c.jpg",))
    assert recorded(tmp_path) == ["a.jpg", "b.jpg", "c.jpg"]
    again = CorruptImages(tmp_path, 1000, 0.003, 0)
    again.note(("b.jpg",))
    assert recorded(tmp_path) == ["a.jpg", "b.jpg", "c.jpg"]
    assert capsys.readouterr().out.count("a.jpg cannot be read: another pair stands in for it") == 2  # a process each
    with pytest.raises(
        UserError, match=r"4 of the 1,000 training images cannot be read.*a\.jpg.*allow_corrupt is 0\.003"
    ):
        again.note(("d.jpg",))
    # The same command again ends in the same sentence.
    with pytest.raises(UserError, match="4 of the 1,000"):
        CorruptImages(tmp_path, 1000, 0.003, 0).note(("a.jpg",))


def test_nothing_is_written_of_a_whole_corpus(tmp_path):
    CorruptImages(tmp_path, 10, 0.0).note(())
    assert recorded(tmp_path) == []
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="1 of the 10"):
        CorruptImages(None, 10, 0.0).note(("a.jpg",))


def test_a_run_goes_on_without_a_corrupt_image_and_records_it(small_profile, tiny_corpus, tmp_path, results):
    """With and without worker processes, the same curve."""
    training = tiny_corpus.split("train")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    records = tuple(replace(r, path=broken) if r is training[0] else r for r in tiny_corpus.records)
    corpus = replace(tiny_corpus, records=records)
    few = replace(small_profile.training, steps=12, evaluations=1, checkpoints=0)
    rows = []
    for workers in (0, 1):
        data = replace(small_profile.data, allow_corrupt=0.1, workers=workers)
        chosen = replace(small_profile, training=few, data=data)
        folder, done = pretrained(chosen, "naive_vit", corpus, name=f"workers{workers}")
        rows.append([{k: v for k, v in row.items() if k != "seconds"} for row in done])
        assert read_json(folder / "run.json")["corrupt_images"] == [str(broken)]
    assert rows[0] == rows[1]
    strict = replace(small_profile, training=few, data=replace(small_profile.data, allow_corrupt=0.04))
    with pytest.raises(UserError, match="1 of the 24 training images"):
        pretrained(strict, "naive_vit", corpus)
