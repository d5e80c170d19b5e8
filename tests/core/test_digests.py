"""Hashes of files are remembered until a file changes, and nothing hangs on the memory of them."""

import hashlib
import os
import pickle
import shutil
import sqlite3

import pytest

from seva_exp.core.digests import FileDigests


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def reads(monkeypatch):
    """The files that were read, one entry a reading."""
    names, digest = [], hashlib.file_digest
    monkeypatch.setattr(
        "seva_exp.core.digests.hashlib.file_digest",
        lambda file, kind: names.append(os.path.basename(file.name)) or digest(file, kind),
    )
    return names


def remembered(root, *files):
    """The digests of ``files``, kept in ``root``."""
    digests = FileDigests(root)
    for file in files:
        digests(file)
    digests.save()


def test_a_file_is_read_once(tmp_path, reads):
    (tmp_path / "a").write_text("one")
    digests = FileDigests(tmp_path)
    assert [digests(tmp_path / "a") for _ in range(3)] == [sha256("one")] * 3
    digests.save()
    assert FileDigests(tmp_path)(tmp_path / "a") == sha256("one")
    assert reads == ["a"]


def test_a_file_that_changed_is_read_again(tmp_path):
    file = tmp_path / "a"
    file.write_text("one")
    remembered(tmp_path, file)
    file.write_text("other")
    os.utime(file, ns=(1, 1))
    assert FileDigests(tmp_path)(file) == sha256("other")


@pytest.mark.parametrize("how", ["written", "moved"])
def test_size_and_time_are_not_enough(tmp_path, how):
    """As ``cp -p``, ``rsync -t`` and archives leave it."""
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_text("one")
    other.write_text("two")
    for path in (file, other):
        os.utime(path, ns=(10**18, 10**18))
    remembered(tmp_path, file)
    if how == "written":
        shutil.copy2(other, file)
    else:
        other.replace(file)
    assert file.stat().st_mtime_ns == 10**18
    assert FileDigests(tmp_path)(file) == sha256("two")


def test_a_name_that_is_no_text(tmp_path, reads):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    try:
        with open(name, "w") as file:
            file.write("one")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    path = type(tmp_path)(name)
    remembered(tmp_path, path)
    assert FileDigests(tmp_path)(path) == sha256("one")
    assert len(reads) == 1


def not_a_database(file):
    file.write_bytes(b"no database " * 1000)


def overwritten(file):
    content = bytearray(file.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    file.write_bytes(content)


def cut_off(file):
    file.write_bytes(file.read_bytes()[:5000])


def of_other_columns(file):
    file.unlink()
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE digests (x)")
    database.close()


@pytest.mark.parametrize("damage", [not_a_database, overwritten, cut_off, of_other_columns])
@pytest.mark.parametrize("early", [True, False])
def test_a_damaged_cache_is_begun_anew(tmp_path, capfd, reads, damage, early):
    (tmp_path / "a").write_text("one")
    remembered(tmp_path, tmp_path / "a")
    digests = FileDigests(tmp_path)
    if not early:
        (tmp_path / "b").write_text("two")
        digests(tmp_path / "b")
    damage(tmp_path / "digests.sqlite")
    assert digests(tmp_path / "a") == sha256("one")
    digests.save()
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "digests.sqlite is begun anew" in error
    reads.clear()
    assert FileDigests(tmp_path)(tmp_path / ("a" if early else "b"))
    assert reads == [] and capfd.readouterr().err == ""


def test_a_cache_of_an_earlier_form_is_no_damage(tmp_path, capfd):
    (tmp_path / "a").write_text("one")
    with sqlite3.connect(tmp_path / "digests.sqlite") as database:
        database.execute("CREATE TABLE files (path TEXT PRIMARY KEY, size INTEGER)")
    database.close()
    remembered(tmp_path, tmp_path / "a")
    assert capfd.readouterr().err == ""


def test_a_cache_that_cannot_be_used_is_done_without(tmp_path, capfd):
    (tmp_path / "a").write_text("one")
    (tmp_path / "digests.sqlite").mkdir()
    digests = FileDigests(tmp_path)
    for name in ("a", "a"):
        assert digests(tmp_path / name) == sha256("one")
    digests.save()
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "digests.sqlite is not used" in error
    assert (tmp_path / "digests.sqlite").is_dir()


def test_of_many_files_few_digests_are_held(tmp_path, reads, monkeypatch):
    """The others are in the store, which a process that is started with them reads too."""
    monkeypatch.setattr("seva_exp.core.digests.HELD", 8)
    digests, files = FileDigests(tmp_path), [tmp_path / f"{i}" for i in range(30)]
    for file in files:
        file.write_text(file.name)
        assert digests(file) == sha256(file.name)
        assert len(pickle.dumps(digests)) < 500
    assert len(digests._new) == 6
    assert [digests(file) for file in files] == [sha256(file.name) for file in files]
    assert len(reads) == 30
    pickle.loads(pickle.dumps(digests))(files[0])
    assert len(reads) == 30


def test_before_a_first_run_what_was_hashed_is_kept_too(tmp_path, reads, monkeypatch):
    """A plan that is killed while it hashes loses the last files' digests alone."""
    monkeypatch.setattr("seva_exp.core.digests.HELD", 3)
    root = tmp_path / "runs" / "store"
    for name in "abcdefg":
        (tmp_path / name).write_text(name)
    digests = FileDigests(root)
    for name in "abcdefg":
        digests(tmp_path / name)
    del digests  # without save
    for name in "abcdefg":
        FileDigests(root)(tmp_path / name)
    assert reads == [*"abcdefg", "g"]
