"""A source that is stopped anywhere goes on there: the same samples, no picture read twice."""

import json

import pytest
from PIL import Image

from seva_exp.core.records import Sample
from seva_exp.core.store import Journal, read_journal
from seva_exp.data import (
    CocoData,
    FolderData,
    HfData,
    JsonlData,
    ParquetData,
    ShapesData,
    WebdatasetData,
    kept,
)
from seva_exp.data.kept import Kept

from .test_hf import saved
from .test_llava_665k import ocr, source, text
from .test_packed import encoded, sha256, write

BROKEN = {3, 7}


def pictures(folder, count=12):
    """Some are broken, and two are the same."""
    folder.mkdir(exist_ok=True)
    for n in range(count):
        content = b"none" if n in BROKEN else encoded(min(n, count - 2))
        (folder / f"{n:02d}.png").write_bytes(content)
    return folder


def rows(folder, **fields):
    pictures(folder)
    lines = [json.dumps({"image": f"{n:02d}.png", "question": f"q{n}"}) for n in range(12)]
    (folder / "rows.jsonl").write_text("\n".join([*lines[:9], "{", *lines[9:]]))
    return JsonlData(path=str(folder / "rows.jsonl"), on_error="skip", **fields)


def packed(kind, folder, **fields):
    ending = {ParquetData: "parquet", WebdatasetData: "tar"}[kind]
    folder.mkdir()
    for name, numbers in (("a", range(5)), ("b", range(5, 12)), ("c", range(12, 14))):
        contents = [b"none" if n in BROKEN else encoded(n) for n in numbers]
        write(ending.replace("tar", "webdataset"), folder / f"{name}.{ending}", numbers, contents)
    return kind(path=str(folder), on_error="skip", **fields)


def listed(folder):
    pictures(folder)
    names = [f"{n:02d}.png" for n in (5, 3, 11, 10, 5, 1, 0)]
    (folder / "names").write_text("\n".join(names))
    return CocoData(path=str(folder), names=str(folder / "names"), on_error="skip")


def llava(folder):
    folder.mkdir()
    asked = [*map(ocr, range(6)), *map(text, range(6))]
    data = source(folder, asked, ocr_images=3, text_images=4, on_error="skip")
    for number in range(0, 6, 2):
        (folder / f"ocr_vqa/images/{number:03d}.jpg").write_bytes(b"none")
    return data


SOURCES = {
    "folder": lambda at: FolderData(path=str(pictures(at))),
    "folder, drawn": lambda at: FolderData(path=str(pictures(at)), samples=5),
    "coco": listed,
    "jsonl": rows,
    "jsonl, drawn": lambda at: rows(at, samples=7),
    "hf": lambda at: HfData(path=str(saved(at, [encoded(n) for n in range(9)]))),
    "hf, drawn": lambda at: HfData(path=str(saved(at, [encoded(n) for n in range(9)])), samples=4),
    "llava_665k": llava,
    "shapes": lambda at: ShapesData(samples=9),
    "parquet": lambda at: packed(ParquetData, at),
    "parquet, drawn": lambda at: packed(ParquetData, at, samples=4),
    "webdataset": lambda at: packed(WebdatasetData, at),
    "webdataset, drawn": lambda at: packed(WebdatasetData, at, samples=4),
}
SEED = 5
"""With it some of what is drawn first is broken, so that spares are tried."""


class Stop(BaseException):
    pass


@pytest.fixture
def opened(monkeypatch):
    """Counts the pictures that are opened."""
    count, real = [0], Image.open

    def counting(*args, **options):
        count[0] += 1
        return real(*args, **options)

    monkeypatch.setattr(Image, "open", counting)
    return count


def read(data, folder, log=None, batches=None, monkeypatch=None):
    """All that the source gives; stopped after so many batches where they are given."""
    real, done = Journal.append, [0]

    def append(self, batch):
        real(self, batch)
        done[0] += 1
        if done[0] == batches:
            raise Stop

    if batches:
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", append)
            with pytest.raises(Stop):
                list(data.read(SEED, folder, sha256, kept=Kept(log)))
        return None
    return list(data.read(SEED, folder, sha256, kept=Kept(log) if log else None))


@pytest.mark.parametrize("name", SOURCES)
def test_it_goes_on_wherever_it_was_stopped(name, tmp_path, monkeypatch, opened):
    monkeypatch.setattr(kept, "BATCH", 2)
    data = SOURCES[name](tmp_path / "in")
    (tmp_path / "log").mkdir()
    journal = tmp_path / "log" / kept.FILE
    once = read(data, tmp_path / "work")
    assert len(once) >= 6
    opened[0] = 0
    assert read(data, tmp_path / "work", tmp_path / "log") == once
    needed, batches = opened[0], journal.read_bytes().count(b"\n")
    assert batches >= 2
    for stop in range(1, batches + 1):
        journal.unlink()
        opened[0] = 0
        read(data, tmp_path / "work", tmp_path / "log", stop, monkeypatch)
        before = opened[0]
        assert read(data, tmp_path / "work", tmp_path / "log") == once
        assert opened[0] <= needed, "a picture was read twice"
        assert before == needed or opened[0] > before
        whole = list(read_journal(journal))
        assert [row["n"] for row in whole] == list(range(len(whole)))


@pytest.mark.parametrize("name", SOURCES)
def test_how_many_there_will_be_is_estimated_without_opening_a_picture(name, tmp_path, opened):
    data = SOURCES[name](tmp_path / "in")
    opened[0] = 0
    estimate = data.estimate()
    assert opened[0] == 0
    made = [one for one in read(data, tmp_path / "work") if isinstance(one, Sample)]
    assert len(made) <= estimate <= len(made) + 6


def test_one_stop_after_another_loses_a_batch_each_at_most(tmp_path, monkeypatch, opened):
    monkeypatch.setattr(kept, "BATCH", 2)
    data = SOURCES["parquet"](tmp_path / "in")
    once = read(data, tmp_path)
    opened[0] = 0
    for _ in range(5):
        read(data, tmp_path, tmp_path, 1, monkeypatch)
    assert read(data, tmp_path, tmp_path) == once
    assert opened[0] == len(once)


@pytest.mark.parametrize("line", [0, 1, 3])
def test_what_stands_behind_a_damaged_line_is_made_again(
    tmp_path, monkeypatch, opened, line, capfd
):
    monkeypatch.setattr(kept, "BATCH", 2)
    data = SOURCES["webdataset"](tmp_path / "in")
    once = read(data, tmp_path)
    journal = tmp_path / kept.FILE
    read(data, tmp_path, tmp_path, 5, monkeypatch)
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line][:30] + b"?" + lines[line][31:]
    journal.write_bytes(b"".join(lines))
    read(data, tmp_path, tmp_path, 1, monkeypatch)
    opened[0] = 0
    assert read(data, tmp_path, tmp_path) == once
    assert f"line {line + 1}: is damaged" in capfd.readouterr().err
    assert 0 < opened[0] <= len(once) - 2 * line, "of what is before it nothing is lost"


def test_of_finished_files_nothing_is_read(tmp_path, monkeypatch):
    """A shard that is done may be anything: it is not looked into."""
    monkeypatch.setattr(kept, "BATCH", 1)
    for name in ("parquet", "webdataset"):
        data = SOURCES[name](tmp_path / name)
        (tmp_path / f"{name}.log").mkdir()
        read(data, tmp_path, tmp_path / f"{name}.log", 9, monkeypatch)  # five, the end, three
        asked = []
        real = type(data)._rows

        def rows_of(self, file, where, wanted, after, asked=asked, real=real):
            for row in real(self, file, where, wanted, after):
                asked.append((file[0], row.number))
                yield row

        monkeypatch.setattr(type(data), "_rows", rows_of)
        read(data, tmp_path, tmp_path / f"{name}.log")
        assert asked == [*(("b", n) for n in range(4, 8)), ("c", 1), ("c", 2)]


def test_what_is_held_of_an_earlier_attempt_is_one_result(tmp_path, monkeypatch):
    import tracemalloc

    data = ShapesData(samples=1)
    sample = next(data.read(0, tmp_path, sha256))
    peaks = []
    for count in (3 * kept.BATCH, 30 * kept.BATCH):
        (tmp_path / f"{count}").mkdir()
        log = Kept(tmp_path / f"{count}")
        for _ in range(count):
            log(lambda: sample)
        tracemalloc.start()
        log = Kept(tmp_path / f"{count}")
        for _ in range(count):
            assert log(lambda: None) == sample
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
