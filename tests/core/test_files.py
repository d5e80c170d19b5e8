"""Files that others read are there when all of them is."""

from __future__ import annotations

import os
from multiprocessing import get_context
from pathlib import Path

import pytest

from seva_exp.core.files import whole_file, write_whole

SOURCE = Path(__file__).parents[2] / "src" / "seva_exp"


def test_a_write_that_stops_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.json"
    write_whole(file, "é\n")
    with pytest.raises(KeyboardInterrupt), whole_file(file) as out:
        out.write(b"half")
        assert file.read_bytes() == "é\n".encode()
        raise KeyboardInterrupt
    assert file.read_text(encoding="utf-8") == "é\n"
    write_whole(file, "new")  # over what was left
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert file.read_text() == "new"


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    file, flushed = tmp_path / "a", []

    def flush(number: int) -> None:
        assert not file.exists()
        flushed.append(os.fstat(number).st_size)

    monkeypatch.setattr(os, "fsync", flush)
    write_whole(file, "12345")
    assert flushed == [5] and file.exists()


def _many(file: Path, letter: str) -> None:
    for _ in range(50):
        write_whole(file, letter * 10_000, shared=True)


def test_several_processes_may_write_one_file(tmp_path):
    file = tmp_path / "a"
    processes = [get_context("spawn").Process(target=_many, args=(file, x)) for x in "ab"]
    for one in processes:
        one.start()
    for one in processes:
        one.join()
        assert one.exitcode == 0
    assert file.read_text() in ("a" * 10_000, "b" * 10_000)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


FLUSHES = {
    "core/files.py",
    "core/store.py",  # the journal, which is appended to
    "training/checkpoints.py",  # files that the Trainer wrote
}


def test_there_is_one_way_to_write_a_whole_file():
    texts = {f.relative_to(SOURCE).as_posix(): f.read_text() for f in SOURCE.rglob("*.py")}
    assert {name for name, text in texts.items() if "os.fsync(" in text} == FLUSHES
    assert [name for name, text in texts.items() if "temporary.write" in text] == []
