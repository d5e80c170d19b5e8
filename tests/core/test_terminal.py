"""What is printed: data steers no terminal, forges no line; a reader that has gone ends nothing."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from seva_exp.core.errors import InputError, StageError
from seva_exp.core.printable import as_cell, cut, one_line, printable, tell
from seva_exp.core.records import ImageRef, Pair
from seva_exp.core.terminal import command, exit_code
from seva_exp.report import console
from seva_exp.runs.events import PairExample

from ..hostile import ALL, BIDI, TERMINAL, steering

ANY = st.text(st.characters() | st.sampled_from("\x1b\x07\x00\x9b\u202e\u2066\ud83d\udcff"))


# The same texts at every run, however long a slow machine takes for one.
@settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANY)
def test_whatever_it_is_nothing_of_it_is_obeyed(text):
    assert steering(printable(text)) == []
    assert printable(printable(text)) == printable(text)
    assert "\n" not in one_line(text)
    if not steering(text):
        assert printable(text).replace("\\u2066", "\u2066") or not text


@pytest.mark.parametrize("text", ["Bär, 二つ, עברית, 👩‍👩‍👧", "two\nlines\tand a tab"])
def test_what_is_text_stays(text):
    assert printable(text) == text


def test_controls_are_symbols_and_bytes_of_a_name_escapes():
    assert printable("\x1b[31m\x07\x00\x7f") == "␛[31m␇␀␡"
    assert printable("\udcff\ud83d\u202e\x85") == "\\xff\\ud83d\\u202e\\x85"
    assert one_line("bad\nseva_exp: all good.png") == "bad␊seva_exp: all good.png"


def test_a_picture_in_base64_is_cut(capsys):
    word = "QUJD" * 90_000
    assert len(cut(f"x {word} y")) < 200 and "360,000 characters" in cut(word)
    tell(f"row 3: {word}\nseva_exp: forged")
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("seva_exp: row 3: QUJD") and len(first) < 200
    assert second == "  seva_exp: forged", "no line of data begins as ours do"


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(text):
    assert as_cell(text) == f"'{text}"


@pytest.mark.parametrize(
    "cell", ["-0.3", "+5", "1e-5", "-1,200.5", "-12%", -0.3, 7, None, "a=b", ""]
)
def test_numbers_and_plain_texts_stay_cells(cell):
    assert as_cell(cell) == cell


def test_colours_are_ours_alone(monkeypatch, capsys):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    console.say(f"{console.paint('green', 'better')} \x1b[31mdata")
    assert capsys.readouterr().out == "\x1b[32mbetter\x1b[0m ␛[31mdata\n"


@pytest.mark.parametrize("text", [t for t in ALL if len(t) < 100])
def test_an_example_and_a_table_show_it(capsys, tmp_path, text):
    pair = Pair(text, ImageRef("a", "b"), text, text, (text,), ("moco",), (), ())
    console.say(console.example_text(PairExample(pair, tmp_path / "none", {})))
    console.say(console.table(("metric", "n"), [(text, "1")]))
    said = capsys.readouterr().out
    assert steering(said) == []
    assert not [line for line in said.splitlines() if line.startswith("seva_exp:")]


SAYING = """
import json, logging, sys, traceback, warnings
from seva_exp.core.terminal import settle_streams
settle_streams()
for text in json.loads(sys.argv[1]):
    print(text)
    sys.stderr.write(text)
    warnings.warn(text)
    logging.getLogger("x").warning("%s", text)
    try:
        raise ValueError(text)
    except ValueError:
        traceback.print_exc()
raise SystemExit(text)
"""


def test_a_process_says_nothing_that_steers_whoever_speaks():
    """Prints, warnings, logging, tracebacks, a process's last word; a rank's log is written so."""
    command = [sys.executable, "-c", SAYING, json.dumps([*TERMINAL, *BIDI])]
    done = subprocess.run(command, capture_output=True, timeout=240)
    for said in (done.stdout, done.stderr):
        assert "red" in said.decode() and steering(said.decode()) == []


COMMANDS = [
    ["seva_exp", "--help"],
    ["seva_exp", "--cfg", "job"],
    ["seva_exp.options"],
    ["seva_exp.data", "check"],
    ["seva_exp.compare", "--help"],
    ["seva_exp.export", "--help"],
    ["seva_exp.dashboard", "--help"],
    ["seva_exp.lmms_eval", "--help"],
    ["seva_exp.runs", "--help"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_reader_that_has_gone_ends_a_command_quietly(tmp_path, words):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_of_the_output_is_told_once_and_ends_nothing():
    text = (
        "import seva_exp.core.terminal as t; t.settle_streams(); [print('x' * 9999) for _ in 'ab']"
    )
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", text]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert done.stderr.count("<stdout>: No space left on device; what follows is not written") == 1


def test_a_name_that_this_locale_cannot_read_is_told_before_work(tmp_path):
    Image.new("RGB", (72, 72), "red").save(tmp_path / "ü.png")
    words = ["+aug=moco", "data=folder", f"data.path={tmp_path}", "stop_after=samples"]
    narrow = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "seva_exp", *words, "dry_run=true", "tracker=none"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | narrow, capture_output=True)
    assert done.returncode == 2 and b"Set PYTHONUTF8=1" in done.stderr, done.stderr


def test_names_of_files_forge_no_line(cli, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = [text.replace("/", "_") for text in TERMINAL if "\x00" not in text]
    for number, name in enumerate(names):
        Image.new("RGB", (72, 72), (number * 9, 0, 0)).save(folder / f"{name}.png")
    (folder / "broken\nseva_exp: no picture\x1b[2J.png").write_text("no picture")
    words = ["data=folder", "data.path=pictures", "tracker=none"]
    done = cli("+aug=moco", *words, "stop_after=samples")
    assert done.returncode == 0, done.stderr
    assert "left out: broken␊seva_exp: no picture␛[2J.png: not an image" in done.stdout
    assert steering(done.stdout + done.stderr) == []
    assert not [line for line in done.stdout.splitlines() if line.startswith("seva_exp: ")]
    pages = [file for file in tmp_path.rglob("*.html")]
    assert pages and all(steering(page.read_text()) == [] for page in pages)


def test_a_folder_whose_name_is_no_text_holds_runs(tmp_path):
    folder = os.fsencode(tmp_path) + b"/d\xff"
    os.mkdir(folder)
    words = ["+aug=moco", "data.samples=4", "stop_after=samples", "tracker=none"]
    for narrow in ({}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        command = [sys.executable, "-m", "seva_exp", *words]
        done = subprocess.run(command, cwd=folder, env=os.environ | narrow, capture_output=True)
        assert done.returncode == 0, done.stderr
    reports = [f for f in os.listdir(folder + b"/runs") if f.startswith(b"2")]
    assert len(reports) == 2
    for run in reports:
        with open(folder + b"/runs/" + run + b"/report.json", encoding="utf-8") as file:
            assert os.fsencode(json.load(file)["dir"]).startswith(os.fsencode(tmp_path) + b"/d\xff")


@pytest.mark.parametrize(
    ("raised", "code", "text"),
    [
        (InputError("RUN: no such run."), 2, "seva_exp: RUN: no such run."),
        (StageError("align: the disk is full."), 1, "seva_exp: align: the disk is full."),
        (KeyboardInterrupt(), 130, "seva_exp: stopped here"),
    ],
)
def test_a_command_s_work_ends_with_a_code_and_one_line(capsys, raised, code, text):
    def work():
        raise raised

    assert exit_code(work, lambda: "stopped here") == code
    assert capsys.readouterr().err.strip() == text
    assert (exit_code(lambda: None), exit_code(lambda: 3)) == (0, 3)
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [(KeyboardInterrupt(), 130, ""), (InputError("a: b"), 2, "seva_exp: a: b\n")],
)
def test_a_command_ends_in_words_whatever_it_does_not_tell_itself(monkeypatch, error, code, said):
    def main() -> int:
        raise error

    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.StringIO())
    with pytest.raises(SystemExit) as end:
        command(main)
    assert (end.value.code, sys.stderr.getvalue()) == (code, said)
