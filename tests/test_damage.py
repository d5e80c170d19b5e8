"""Damage to what the store holds, of the same size: it is seen before it is used, named, set aside,
and made again; and readers that cannot make it again say how."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from seva_exp import InputError
from seva_exp.compare.files import write_comparison
from seva_exp.core.digests import FileDigests
from seva_exp.core.manifest import read_manifest
from seva_exp.core.store import Store
from seva_exp.experiment import run
from seva_exp.runs import export
from seva_exp.runs.__main__ import main as runs
from seva_exp.runs.events import Listener
from seva_exp.runs.reader import FinishedRun
from seva_exp.training.reference import FILE as REFERENCE

from .slow import slow_but
from .test_end_to_end import cached, machine, small


class Ears(Listener):
    """What a run warns of."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def warned(self, text: str) -> None:
        self.heard.append(text)


def go(folder: Path, **options):
    """The report, and what was warned of."""
    from seva_exp import Options

    ears = Ears()
    report = run(small(), machine(folder, progress="off"), Options(**options), listeners=[ears])
    return report, ears.heard


def flip(file: Path, at: float = 0.5) -> None:
    """One bit, in the middle of the file; its size stays."""
    content = bytearray(file.read_bytes())
    content[int(len(content) * at)] ^= 1
    file.write_bytes(content)


def artifact(report, label: str) -> Path:
    return (Path(report.dir) / label).resolve()


def contents(report) -> dict[str, bytes]:
    """All that the stages made, but what depends on time."""
    return {
        f"{stage.name}/{file.relative_to(artifact(report, stage.name))}": file.read_bytes()
        for stage in report.stages
        for file in artifact(report, stage.name).rglob("*")
        if file.is_file() and file.name not in ("manifest.json", "throughput.jsonl")
    }


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A whole run with a store of its own, and what it made."""
    folder = tmp_path_factory.mktemp("damage")
    report, heard = go(folder)
    assert heard == []
    return folder, report, contents(report)


@pytest.fixture
def copy(first, tmp_path):
    """The whole run's store and runs, to be damaged."""
    shutil.copytree(first[0], tmp_path / "copy", symlinks=True)
    report, heard = go(tmp_path / "copy")
    assert heard == [] and all(cached(report).values())
    return tmp_path / "copy", report


DAMAGED = [
    "samples/samples.jsonl",
    "answers.clean/answers.jsonl",
    "answers.diffusion_noise/previews/index.json",
    "answers.diffusion_noise/previews/000.png",
    "pairs/pairs.jsonl",
    f"reference/{REFERENCE}",
    "align/adapter/adapter_model.safetensors",
    "align/metrics.jsonl",
    "evaluate.base.shapes/predictions.jsonl",
    "evaluate.aligned.shapes/scores.jsonl",
    "compare.shapes/deltas.jsonl",
    "pairs/manifest.json",
]


@pytest.mark.parametrize(
    "name",
    DAMAGED[::2] + [pytest.param(name, marks=pytest.mark.slow) for name in DAMAGED[1::2]],
)
def test_a_changed_bit_is_told_and_made_again(first, copy, name, capsys):
    folder, report = copy
    file = Path(report.dir) / name
    label, _, inside = name.partition("/")
    place = artifact(report, label)
    if inside == "manifest.json":  # where its number of pairs stands
        file.write_text(
            re.sub(r'"kept": (\d)', lambda m: f'"kept": {9 - int(m[1])}', file.read_text())
        )
    else:
        flip(file)
    assert runs(["verify", "--store", str(folder / "store")]) == 1
    assert inside in capsys.readouterr().out
    again, heard = go(folder)
    assert [line.partition(":")[0] for line in heard] == [label]
    assert f"{inside} is damaged" in heard[0] and "recomputed" in heard[0]
    assert [name for name, there in cached(again).items() if not there] == [label]
    assert contents(again) == first[2]
    assert (again.scores, again.deltas, again.pairs) == (
        first[1].scores, first[1].deltas, first[1].pairs
    )  # fmt: skip
    (aside,) = place.parent.glob(f"{place.name}.damaged-*")
    assert aside.is_dir()
    assert runs(["verify", "--store", str(folder / "store")]) == 0
    assert str(aside) in capsys.readouterr().out


def test_a_stage_that_is_made_reads_no_damaged_input(first, copy):
    """Four bytes of the adapter, then ``force=[evaluate.aligned]``: "chair_s 35.0 -> 0.0"."""
    folder, report = copy
    file = Path(report.dir) / "adapter" / "adapter_model.safetensors"
    with file.open("r+b") as weights:
        weights.seek(-100, 2)
        weights.write(b"\x7f" * 4)
    again, heard = go(folder, force=("evaluate.aligned",))
    assert [line.partition(":")[0] for line in heard] == ["align"]
    assert again.scores == first[1].scores
    assert contents(again) == first[2]


def test_large_files_are_read_where_a_stage_reads_them(copy, monkeypatch):
    monkeypatch.setattr("seva_exp.core.manifest.LARGE", 1000)
    folder, report = copy
    flip(Path(report.dir) / "adapter" / "adapter_model.safetensors")
    _, heard = go(folder)
    assert heard == [], "nobody reads it"
    again, heard = go(folder, force=("evaluate.aligned",))
    assert [line.partition(":")[0] for line in heard] == ["align"]
    assert cached(again)["align"] is False


def test_a_drawn_picture_that_is_damaged_is_drawn_again(first, copy):
    folder, report = copy
    picture = artifact(report, "samples") / "images" / "shapes-000003.png"
    flip(picture)
    assert runs(["verify", "--store", str(folder / "store")]) == 1
    again, heard = go(folder, force=("answers.clean",))
    assert [line.partition(":")[0] for line in heard] == ["samples"]
    assert "shapes-000003.png is damaged" in heard[0]
    assert contents(again) == first[2]
    picture = artifact(again, "samples") / "images" / "shapes-000003.png"
    picture.unlink()
    again, heard = go(folder, force=("reference",))
    assert [line.partition(":")[0] for line in heard] == ["samples"]
    assert contents(again) == first[2]


def test_damage_is_told_by_a_dry_run_and_nothing_moves(copy):
    folder, report = copy
    place = artifact(report, "pairs")
    flip(place / "pairs.jsonl")

    class Plans(Ears):
        def planned(self, plan) -> None:
            self.heard += plan.notes

    from seva_exp import Options

    ears = Plans()
    run(small(), machine(folder), Options(dry_run=True), listeners=[ears])
    told, foretold = ears.heard
    assert foretold.startswith("forecast, as the likest past stages took: ")
    assert told.startswith("pairs: pairs.jsonl is damaged") and "will be" in told
    assert place.is_dir() and not list(place.parent.glob("*.damaged-*"))


def test_readers_that_cannot_make_it_again_say_how(copy, tmp_path, capsys):
    _, report = copy
    for kind in ("base", "aligned"):
        flip(Path(report.dir) / f"evaluate.{kind}.shapes" / "predictions.jsonl")
    flip(Path(report.dir) / "pairs" / "pairs.jsonl")
    flip(Path(report.dir) / "answers.clean" / "answers.jsonl")
    finished = FinishedRun.read(Path(report.dir))
    for read in (
        lambda: finished.predictions("base", "shapes"),
        lambda: list(finished.pairs()),
        lambda: finished.answers("answers.clean", ["shapes-000001"]),
    ):
        with pytest.raises(InputError, match=r"is damaged .* Run it again"):
            read()
    words = [report.dir, "--format", "lmms_eval", "--out", str(tmp_path / "out")]
    assert export.main(words) == 2
    assert "predictions.jsonl is damaged" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"is damaged"):
        write_comparison([Path(report.dir)], tmp_path / "compare.html", [Path(report.dir)])
    assert runs(["verify", report.dir]) == 1
    assert capsys.readouterr().out.count("is damaged (its bytes") == 4


def test_an_artifact_from_before_there_were_digests_is_read(copy):
    folder, report = copy
    for file in (folder / "store").glob("*/*/manifest.json"):
        row = json.loads(file.read_text())
        del row["sha256"], row["own"]
        file.write_text(json.dumps(row))
    again, heard = go(folder)
    assert heard == [] and all(cached(again).values())
    assert runs(["verify", "--store", str(folder / "store")]) == 0
    pairs = Path(report.dir) / "pairs" / "pairs.jsonl"
    pairs.write_bytes(pairs.read_bytes()[:-1])
    again, heard = go(folder)
    assert [line.partition(":")[0] for line in heard] == ["pairs"], "sizes are known"


def test_a_newer_version_s_artifact_is_told_and_kept_beside(first, copy):
    folder, report = copy
    place = artifact(report, "pairs")
    row = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_text(json.dumps(row | {"compression": "zstd"}))
    again, heard = go(folder)
    (told,) = heard
    assert told.startswith("pairs: ") and "compression" in told and "a newer one made it" in told
    (aside,) = place.parent.glob("*.newer-*")
    assert json.loads((aside / "manifest.json").read_text())["compression"] == "zstd"
    assert (aside / "pairs.jsonl").read_bytes() == first[2]["pairs/pairs.jsonl"]
    assert contents(again) == first[2]
    (place / "manifest.json").write_text(json.dumps(row | {"compression": "zstd"}))
    go(folder, force=("pairs",))
    assert len(list(place.parent.glob("*.newer-*"))) == 2, "by force, too"


def test_a_manifest_whose_field_lost_its_name_is_damaged_and_not_newer(copy):
    folder, report = copy
    file = artifact(report, "pairs") / "manifest.json"
    file.write_text(file.read_text().replace('"version"', '"verzion"'))
    _, heard = go(folder)
    assert len(heard) == 1 and "damaged" in heard[0] and "newer" not in heard[0]


def test_verify_without_a_store_or_a_run_is_told(tmp_path, capsys):
    assert runs(["verify", "--store", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert runs(["verify", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


# --- our own files in unfinished work


def stopped(folder: Path, monkeypatch, stage: str, batches: int) -> Path:
    """What is left in the store by a run that ends after so many batches of a stage."""
    from seva_exp.core.store import Journal

    real, count = Journal.append, 0

    def append(self, rows):
        nonlocal count
        real(self, rows)
        count += stage in str(self.path)
        if count == batches:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", append)
        with pytest.raises(KeyboardInterrupt):
            run(small(), machine(folder, batch_size=4, train_batch_size=2, progress="off"))
    (partial,) = (folder / "store" / stage).glob("*.partial")
    return partial


LINES = [
    f"{how} of {stage}"
    for stage in ("answers", "reference", "evaluate")
    for how in ("a bit", "a letter", "emptied")
]
QUICK = ["a bit of answers", "a bit of reference", "a bit of evaluate", "emptied of answers"]


@pytest.mark.parametrize("line", slow_but(QUICK, of=LINES))
def test_a_damaged_line_of_a_journal_is_made_again(first, tmp_path, monkeypatch, capfd, line):
    how, _, stage = line.partition(" of ")
    name = "parts/journal-0.jsonl"
    shutil.copytree(first[0], tmp_path / "copy", symlinks=True)
    for later in ("answers", "pairs", "reference", "align", "evaluate", "compare"):
        if later == stage:
            shutil.rmtree(tmp_path / "copy" / "store" / later)
    journal = stopped(tmp_path / "copy", monkeypatch, stage, 3) / name
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    middle = lines[1]
    lines[1] = {
        "a bit": middle[:40] + bytes([middle[40] ^ 1]) + middle[41:],
        "a letter": middle.replace(b"e", b"a", 3),
        "emptied": b"\n",
    }[how]
    assert lines[1] != middle
    journal.write_bytes(b"".join(lines))
    report, _ = go(tmp_path / "copy")
    assert contents(report) == first[2]
    assert f"{name}, line 2: is damaged" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("view", "name", "how"),
    [
        (1, "parts/index.jsonl", flip),
        (1, "parts/000000.jsonl", flip),
        (2, "previews/index.json", lambda file: file.write_text("")),
        (2, "previews/001.png", flip),
    ],
)
def test_damaged_parts_of_answers_are_made_again(
    first, tmp_path, monkeypatch, capfd, view, name, how
):
    """Stopped when all is answered, and before it is put together."""
    from seva_exp.preferences.shards import Shards

    real, count = Shards.merge, 0

    def stop(self, target):
        nonlocal count
        count += 1
        if count == view:
            raise KeyboardInterrupt
        real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Shards, "merge", stop)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path)
    (partial,) = (tmp_path / "store" / "answers").glob("*.partial")
    how(partial / name)
    report, _ = go(tmp_path, stop_after="pairs")
    expected = {k: v for k, v in first[2].items() if k.startswith(("samples", "answers", "pairs"))}
    assert contents(report) == expected
    assert "is damaged" in capfd.readouterr().err


def test_kept_digests_that_are_damaged_are_read_again(tmp_path):
    import sqlite3

    (tmp_path / "a").write_text("one")
    digests = FileDigests(tmp_path)
    value = digests(tmp_path / "a")
    digests.save()
    with sqlite3.connect(tmp_path / "digests.sqlite") as database:
        (kept,) = database.execute("SELECT sha256 FROM digests").fetchone()
        changed = ("0" if kept[0] != "0" else "1") + kept[1:]
        database.execute("UPDATE digests SET sha256 = ?", (changed,))
    database.close()
    assert FileDigests(tmp_path)(tmp_path / "a") == value
    with sqlite3.connect(tmp_path / "digests.sqlite") as database:
        database.execute("UPDATE digests SET sha256 = ?", (kept.split()[0],))
    database.close()
    assert FileDigests(tmp_path)(tmp_path / "a") == value, "as an earlier version kept it"


def test_a_manifest_says_what_it_is(first):
    found = read_manifest(artifact(first[1], "align"))
    assert "adapter/adapter_model.safetensors" in found.sha256
    assert set(found.sha256) == set(found.files)
    assert Store(first[0] / "store").find("align", found.key) == found
