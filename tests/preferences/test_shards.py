"""Shards: cut from the samples alone, shared by processes, gathered after a kill; and memory that
does not grow with the number of samples."""

from __future__ import annotations

import gc
import random
import sys
from functools import partial
from pathlib import Path

import pytest

from seva_exp import Experiment, Options
from seva_exp.augment import HorizontalFlip
from seva_exp.core import records
from seva_exp.core.digests import FileDigests
from seva_exp.core.interfaces import Placement, Reply
from seva_exp.core.machine import Machine
from seva_exp.core.progress import progress
from seva_exp.core.records import (
    CLEAN,
    Answer,
    ImageRef,
    Pair,
    Sample,
    jsonl_writer,
    read_jsonl,
    to_line,
    write_jsonl,
)
from seva_exp.data import JsonlData, WebdatasetData
from seva_exp.decoding import HfGeneration
from seva_exp.experiment import run
from seva_exp.inputs.views import View
from seva_exp.models import TinyModel
from seva_exp.preferences import EqualFilter
from seva_exp.preferences.answers import Asker, answer_shards, summarize
from seva_exp.preferences.filters import DownSampleFilter
from seva_exp.preferences.pairs import Tally, grouped, make_pairs
from seva_exp.preferences.shards import LARGEST, SMALLEST, Shards, cut
from seva_exp.stages import Samples, StageContext
from seva_exp.stages.preferences import PREVIEWS
from seva_exp.world import UNBIASED, draw, sample_scene

from ..data.test_packed import encoded, write


def everyone(sample):
    return True


def written(folder: Path, count: int, together: int = 1) -> Path:
    """A file of samples, ``together`` of them on each picture."""
    file = folder / "samples.jsonl"
    ref = [ImageRef(f"{i // together}.png", f"sha{i // together}") for i in range(count)]
    write_jsonl(file, (Sample(f"s{i}", ref[i], f"What is {i}?") for i in range(count)))
    return file


@pytest.mark.parametrize("count", [0, 1, SMALLEST, 600, 5000])
@pytest.mark.parametrize("together", [1, 7, 10_000])
def test_every_sample_is_in_one_shard_with_the_others_on_its_picture(tmp_path, count, together):
    file = written(tmp_path, count, together)
    (work := tmp_path / "work").mkdir()
    shards = Shards(file, everyone, work)
    assert list(cut(file, everyone)) == shards.all
    assert [s.id for s in shards.samples()] == [f"s{i}" for i in range(count)]
    read = [shards.read(shard) for shard in shards.all]
    assert [len(found) for found in read] == [shard.samples for shard in shards.all]
    size = min(LARGEST, max(SMALLEST, count // 64))
    assert all(size <= len(found) < size + 7 or together > size for found in read[:-1])
    assert all(len(found) <= 2 * size for found in read)
    if together == 7:
        pictures = [{s.image.sha256 for s in found} for found in read]
        assert sum(map(len, pictures)) == len(set().union(*pictures))


def test_a_view_that_asks_some_has_the_same_shards(tmp_path):
    file = written(tmp_path, 1000)
    some = list(cut(file, lambda sample: sample.id.endswith("7")))
    whole = list(cut(file, everyone))
    assert [(s.offset, s.samples) for s in some] == [(s.offset, s.samples) for s in whole]
    assert sum(s.questions for s in some) == 100


def test_processes_share_the_shards_and_end_together(tmp_path):
    file = written(tmp_path, 2000)
    shards = Shards(file, everyone, tmp_path)
    left = shards.begin()[5:]
    order, rng = [], random.Random(0)
    while taken := shards.take(left, rank := rng.randrange(3), 3):
        order.append([shard.number for shard in taken])
        assert len(order) <= len(left), "none is taken twice"
        first, last = shards.read(taken[0])[0].id, shards.read(taken[-1])[-1].id
        assert shards.work_of(rank).endswith(f"from {first} to {last}")
    assert [number for numbers in order for number in numbers] == [s.number for s in left]
    assert len(order[0]) > 2, "many at once, so that the engine can fill its batches"
    assert [len(numbers) for numbers in order[-3:]] == [1, 1, 1]
    alone = Shards(file, everyone, tmp_path)
    assert alone.take(alone.begin(), 0, 1) == alone.all, "one process takes all"


class Stub:
    """An engine that answers like a model whose every word is the question's length. Killed before
    reply number ``kill``."""

    def __init__(self, kill: int | None = None) -> None:
        self.kill, self.asked = kill, 0

    def run(self, requests):
        for i in range(0, len(requests), 16):
            if self.kill is not None and self.asked >= self.kill:
                raise KeyboardInterrupt
            some = requests[i : i + 16]
            self.asked += len(some)
            yield [Reply(r.id, f"{len(r.prompt)}", tuple(range(40)), "eos") for r in reversed(some)]


def answered(file: Path, work: Path, engine: Stub, view: str = CLEAN, rank=0, ranks=1):
    """What one of several processes does; the other ones' shards are left as they are."""
    work.mkdir(exist_ok=True)
    shards = Shards(file, everyone, work)
    place = Placement("cpu", 8, 8, False, partial(progress, "off"), work)
    generation = HfGeneration()
    asker = Asker(TinyModel(), None, everyone, file.parent, View(view, None, 0), generation, place)  # type: ignore
    asker.engine = engine
    with place.progress("", 0, "") as meter:
        return shards, partial(answer_shards, shards, shards.begin(), asker, meter, rank, ranks)


def test_what_killed_processes_had_is_not_asked_again(tmp_path):
    """Three attempts, of three, two and one processes."""
    file = written(tmp_path, 1000)
    work, sent = tmp_path / "work", 0
    for ranks in (3, 2):
        for rank in range(ranks):
            engine = Stub(kill=100)
            shards, go = answered(file, work, engine, rank=rank, ranks=ranks)
            with pytest.raises(KeyboardInterrupt):
                go()
            sent += engine.asked
    engine = Stub()
    shards, go = answered(file, work, engine)
    assert len(shards.begin()) < len(shards.all)
    assert go() == 40 * engine.asked
    assert engine.asked + sent == 1000
    shards.merge(tmp_path / "answers.jsonl")
    found = [answer.sample_id for answer in read_jsonl(tmp_path / "answers.jsonl", Answer)]
    assert found == [f"s{i}" for i in range(1000)]
    assert summarize(tmp_path / "answers.jsonl", 500, 2.0) == {
        "answers": 1000,
        "mean_tokens": 40.0,
        "cut_at_max_new_tokens": 0,
        "empty": 0,
        "tokens_per_second": 250.0,
    }


def test_of_a_finished_shard_nothing_is_read_again(tmp_path):
    """Killed between a shard's file and the end of its journal; then the next ones go on."""
    shards, go = answered(written(tmp_path, 300), tmp_path / "work", Stub(kill=80))
    with pytest.raises(KeyboardInterrupt):
        go()
    first = shards.all[0]
    shards.finish(first, [])
    assert [shard.number for shard in shards.begin()] == [s.number for s in shards.all[1:]]
    assert first.number not in shards.before()
    assert sum(map(len, shards.before().values())) == 80 - first.questions
    shards.begin()
    assert sum(map(len, shards.before().values())) == 80 - first.questions, "read once, kept once"


def peak(work) -> int:
    """Most of Python's blocks that were in use beyond those before, when a record was written."""
    most = written = 0

    def looking(record: object) -> str:
        nonlocal most, written
        written += 1
        if written % 64 == 0:
            gc.collect()
            most = max(most, sys.getallocatedblocks())
        return to_line(record)

    gc.collect()
    gc.freeze()  # the collections that follow are cheap
    before = sys.getallocatedblocks()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(records, "to_line", looking)
            work()
    finally:
        gc.unfreeze()
    assert written >= 512
    return most - before


def through(folder: Path, count: int) -> dict[str, int]:
    """Samples, answers and pairs of ``count`` rows; the peak of each."""
    folder.mkdir()
    for i in range(4):
        draw(sample_scene(random.Random(i), UNBIASED)).save(folder / f"{i}.png")
    rows = ({"image": f"{i % 4}.png", "question": f"What is {i}?"} for i in range(count))
    with (folder / "rows.jsonl").open("w") as lines:
        lines.writelines(f"{row}\n".replace("'", '"') for row in rows)
    data = JsonlData(path=str(folder / "rows.jsonl"))
    digests = FileDigests(folder)
    stage = Samples(data, 0, digests)
    context = StageContext(
        Machine(device="cpu"), digests, partial(progress, "off"), lambda *_: None
    )
    found = {"samples": peak(lambda: stage.run(folder, {}, context))}
    file = folder / "samples.jsonl"
    for view in (CLEAN, "other"):
        shards, go = answered(file, folder / view, Stub(), view)
        found[view] = peak(go)
        shards.merge(folder / view / "answers.jsonl")

    def groups():
        said = {v: read_jsonl(folder / v / "answers.jsonl", Answer) for v in (CLEAN, "other")}
        return grouped(read_jsonl(file, Sample), said[CLEAN], {"other": said["other"]})

    def pair() -> None:
        tally = Tally(["other"])
        filters = [DownSampleFilter(count=50), EqualFilter()]
        with jsonl_writer(folder / "drops.jsonl") as write:
            for one in make_pairs(groups, filters, 0):
                tally.add(one)
                assert not isinstance(one.result, Pair)
                write(one.result)
        assert tally.summary()["dropped"] == {"down_sample": count - 50, "equal": 50}

    return found | {"pairs": peak(pair)}


def test_four_times_the_samples_take_no_more_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("seva_exp.preferences.shards.LARGEST", 128)
    monkeypatch.setattr("seva_exp.data.kept.BATCH", 128)
    small, large = through(tmp_path / "small", 512), through(tmp_path / "large", 2048)
    assert large.keys() == small.keys()
    for name, blocks in small.items():
        # One object that is kept of each sample would be 1536 more.
        assert large[name] < blocks + 500, (name, blocks, large[name])


def left_by(folder: Path, count: int, monkeypatch) -> tuple[list[str], int]:
    """The names of the files that a run over so many pictures leaves in the store, and the most
    that one stage had while it worked."""
    folder.mkdir()
    write("webdataset", folder / "in.tar", range(count), [encoded(n % 250) for n in range(count)])
    real, most = Shards.merge, [0]

    def merge(self, target):
        most.append(sum(1 for file in target.parent.rglob("*") if file.is_file()))
        real(self, target)

    monkeypatch.setattr(Shards, "merge", merge)
    monkeypatch.setattr("seva_exp.preferences.answers.engine_of", lambda *_: Stub())
    experiment = Experiment(
        aug={"flip": HorizontalFlip(probability=1.0)},
        data=WebdatasetData(path=str(folder / "in.tar"), question_field="txt"),
        benchmark={},
    )
    machine = Machine(store=str(folder / "store"), runs=str(folder / "runs"), progress="off")
    report = run(experiment, machine, Options(stop_after="pairs"))
    assert report.pairs.sampled == count
    files = [file for file in (folder / "store").glob("*/*/**/*") if file.is_file()]
    names = sorted("/".join(file.relative_to(folder / "store").parts[::2]) for file in files)
    assert not {"images", "parts"} & {part for file in files for part in file.parts}
    assert sum(file.suffix == ".png" for file in files) == PREVIEWS
    return names, max(most)


def test_the_store_has_no_file_for_each_sample(tmp_path, monkeypatch):
    few, at_once = left_by(tmp_path / "few", 300, monkeypatch)
    many, most = left_by(tmp_path / "many", 1500, monkeypatch)
    assert few == many
    assert most <= 1500 // SMALLEST + PREVIEWS + 8 and at_once < most
