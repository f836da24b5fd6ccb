import errno
import gzip
import json
import os
import subprocess
import tracemalloc

import pytest
import torch

from vlp_lib import io, provenance
from vlp_lib.errors import UserError


def test_writing_is_whole_or_nothing(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    io.write_text(path, "first – äöü")
    assert path.read_text(encoding="utf-8") == "first – äöü"
    assert path.stat().st_mode & 0o777 == 0o644

    def fail(target):
        target.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UserError, match=rf"cannot write {path} .*No space left on device.*make room"):
        io.write_atomically(path, fail)
    assert path.read_text(encoding="utf-8") == "first – äöü"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_mistake_while_writing_leaves_nothing_either(tmp_path):
    def fail(target):
        target.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        io.write_atomically(tmp_path / "file.txt", fail)
    assert list(tmp_path.iterdir()) == []


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file.txt"
    io.write_text(path, "old")
    reader = path.open()  # as somebody who has just begun to read

    def write(target):
        assert target.parent == path.parent  # on the same disk
        target.write_text("new")
        assert path.read_text() == "old"

    io.write_atomically(path, write)
    assert path.read_text() == "new"
    assert reader.read() == "old"
    reader.close()


def test_what_killed_writers_left_is_removed(tmp_path):
    io.write_text(tmp_path / "model.safetensors", "kept")
    (tmp_path / ".hidden").write_text("kept")
    (tmp_path / ".run.json.abcd1234").write_text("half")
    (tmp_path / "sub").mkdir()
    io.remove_temporaries(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "model.safetensors", "sub"]
    # The name is what the writer really uses.
    seen = []
    io.write_atomically(tmp_path / "a.txt", lambda path: (seen.append(path), path.write_text("x")))
    (tmp_path / seen[0].name).write_text("half")
    io.remove_temporaries(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "a.txt", "model.safetensors", "sub"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=f"cannot write {tmp_path / 'file' / 'run.json'}"):
        io.write_json(tmp_path / "file" / "run.json", {})


def test_json_and_lines_come_back(tmp_path):
    value = {"a": [1, 2.5, None, True], "b": {"ü": "–"}, "tiny": 1e-300}
    io.write_json(tmp_path / "a.json", value)
    assert io.read_json(tmp_path / "a.json") == value
    rows = [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 1 / 3}]
    io.write_lines(tmp_path / "b.jsonl", rows)
    assert io.read_lines(tmp_path / "b.jsonl") == rows
    assert io.read_lines(tmp_path / "absent.jsonl") == []
    io.write_lines(tmp_path / "b.jsonl", [])
    assert io.read_lines(tmp_path / "b.jsonl") == []


def test_broken_files_are_named(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(UserError, match=f"no such file: {path}"):
        io.read_json(path)
    for content in (b"{", b"", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path} is not (JSON|UTF-8 text)"):
            io.read_json(path)
    path.write_text('{"step": 1}\n{"step": 2\n')
    with pytest.raises(UserError, match=f"{path}, line 2 is not JSON"):
        io.read_lines(path)
    path.write_bytes(b'{"step": "\xff"}\n')
    with pytest.raises(UserError, match=f"{path}.* is not"):
        io.read_lines(path)


def test_git_state_of_a_checkout_and_outside_of_one(tmp_path):
    assert provenance.git_state(tmp_path) == {"commit": None, "dirty": None}

    def git(*words):
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "first")
    clean = provenance.git_state(tmp_path)
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert provenance.git_state(tmp_path) == {"commit": clean["commit"], "dirty": True}


def test_git_state_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_state(tmp_path) == {"commit": None, "dirty": None}


def test_run_record_says_what_made_it(tmp_path):
    layer = torch.nn.Linear(3, 2)
    begun = provenance.now()
    io.write_json(tmp_path / provenance.CODE, {"modules": {}, "changed": []})
    provenance.write_run(tmp_path, {"stage": "pretrain", "seed": 3}, layer, begun, 1.26)
    facts = json.loads((tmp_path / "run.json").read_text())
    assert (facts["stage"], facts["seed"], facts["parameters"], facts["seconds"]) == ("pretrain", 3, 8, 1.3)
    assert (facts["device"], facts["threads"]) == ("cpu", torch.get_num_threads())
    assert facts["started"] == begun
    assert begun.endswith("+00:00")
    assert set(facts["versions"]) >= {"torch", "timm", "transformers", "accelerate", "vlp-lib"}
    assert {"commit", "dirty", "python", "system", "peak_memory_gib"} <= set(facts)


@pytest.mark.parametrize("unit", [b" ", b"[{}],"])
def test_a_gzip_bomb_is_refused_before_it_unfolds(tmp_path, unit):
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(unit * (64 * 2**20 // len(unit)), 1))
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    for read in (io.read_json, io.read_text, lambda path: list(io.placed_lines(path, "a file"))):
        with pytest.raises(UserError, match=r"a\.json\.gz unfolds to more than"):
            read(path)
    assert tracemalloc.get_traced_memory()[1] < 2**27
    tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [b"[" * 200_000, b'{"a":' * 200_000, b"9" * 5_000, b"\xff\xfe[", b"\xed\xa0\x80", b'"\x00', b"nan", b"{'a': 1}"],
)
def test_what_is_no_json_is_one_sentence(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path}"):
        io.read_json(path)
    with pytest.raises(UserError, match=rf"{path}"):
        list(io.placed_lines(path, "a file"))


def test_a_folder_and_what_may_not_be_read_are_one_sentence(tmp_path):
    (tmp_path / "a.json").mkdir()
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "b.json").chmod(0)
    for name in ("a.json", *(["b.json"] if os.geteuid() else []), "\0.json", "x" * 300):
        with pytest.raises(UserError, match=r"cannot read|is not UTF-8|no such file"):
            io.read_json(tmp_path / name)
