"""What a person reads in a terminal or a log file."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest

from seva_exp.core.printable import ends
from seva_exp.core.progress import progress
from seva_exp.core.records import (
    Delta,
    Finding,
    ImageRef,
    Pair,
    PairCounts,
    Report,
    Score,
    StageResult,
)
from seva_exp.report.console import Console, clip, example_text, pair_line, score_table
from seva_exp.runs.events import Outcome, PairExample, Plan


def score(model: str, value: float, better: str = "higher") -> Score:
    return Score(model, "b", "all", "accuracy", value, value - 1, value + 1, 50, "p1", better)


@pytest.mark.parametrize(
    ("value", "p", "better", "word"),
    [
        (2.0, 0.01, "higher", "better"),
        (-2.0, 0.01, "higher", "worse"),
        (-2.0, 0.01, "lower", "better"),
        (2.0, 0.01, "neutral", "changed"),
        (2.0, 0.2, "higher", "n.s."),
    ],
)
def test_a_row_tells_base_aligned_delta_and_verdict(value, p, better, word):
    scores = [score("base", 50, better), score("aligned", 50 + value, better)]
    delta = Delta("b", "all", "accuracy", value, value - 1, value + 1, p, better)
    text = score_table(scores, [delta])
    row = text.splitlines()[-1]
    assert "50.0" in row
    assert f"{50 + value:.1f}" in row
    assert f"{value:+.1f} [{value - 1:+.1f}, {value + 1:+.1f}]" in row
    assert row.endswith(word)
    assert "p1" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_a_small_change_of_nats_is_not_shown_as_none():
    scores = [score("base", 2.173), score("aligned", 2.186)]
    delta = Delta("b", "all", "accuracy", 0.013, 0.005, 0.018, 0.002, "neutral")
    row = score_table(scores, [delta]).splitlines()[-1]
    assert "2.173" in row and "2.186" in row and "+0.013 [+0.005, +0.018]" in row


def test_a_gain_at_a_price_says_which():
    scores = [score("base", 50, "lower"), score("aligned", 40, "lower")]
    delta = Delta("b", "all", "accuracy", -10, -11, -9, 0.01, "lower", price=("recall", "words"))
    *_, row, note = score_table(scores, [delta]).splitlines()
    assert row.endswith("better*")
    assert note == "  better*: at the price of recall and words"


def test_a_table_fits_80_columns_whatever_its_names_and_values():
    long = {"split": "adversarial_with_a_long_name", "metric": "exact_match_of_everything"}
    scores = [replace(score(model, 99.9), **long, n=123456) for model in ("base", "aligned")]
    delta = Delta("b", long["split"], long["metric"], -10, -11, -9, 0.01, "higher", price=("x",))
    text = score_table(scores, [delta])
    assert max(map(len, text.splitlines())) <= 80
    assert "adversarial" in text, text


def test_a_stage_s_line_is_broken_between_its_facts(capsys):
    facts = {f"a_fact_of_{word}": 12345.678 for word in ("one", "two", "three", "four", "five")}
    Console().stage_finished(StageResult("align", "k", False, 4.1), facts)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 80
    assert all(line.endswith((",", ")")) for line in lines), lines
    told = " ".join(line.strip() for line in lines)
    assert all(f"{name.replace('_', ' ')} 1.235e+04" in told for name in facts)


def test_no_text_is_cut_within_a_word():
    assert clip("one two three four", 10) == "one two…"
    assert clip("x" * 30, 10) == f"{'x' * 9}…"
    words = " ".join(["alphabet"] * 100)
    head, _, tail = ends(words).partition("…")
    assert {*head.split(), *tail.partition("…")[2].split()} == {"alphabet"}


def test_what_must_be_known_of_the_numbers_is_told_last(capsys, tmp_path):
    one = Finding("align", "adapter_unchanged", "training changed nothing", True)
    two = Finding("evaluate.aligned.b", "empty_answers", "3 of 9 answers are empty")
    report = Report("k", "n", 0, str(tmp_path), (), None, (score("base", 51),), findings=(one, two))
    Console().finished(Outcome(Plan("k", "n", 0, {}, (), (), tmp_path), report))
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert lines[-3:-1] == [
        "warning: align: training changed nothing; there is no result",
        "warning: evaluate.aligned.b: 3 of 9 answers are empty",
    ]
    assert lines[-1].startswith("report: ")


def test_samples_that_are_left_out_and_what_was_changed_in_answers_are_named(capsys):
    Console().stage_finished(
        StageResult("answers.clean", "k", False, 1.0),
        {"answers": 9, "empty": 2, "too_long": 1, "left_out": ["s4: too_long (no room)"],
         "remarks": ["s2: what was no text"]},
    )  # fmt: skip
    assert capsys.readouterr().out.splitlines() == [
        "answers.clean: 1.0 s  (answers 9, empty 2, too long 1)",
        "  left out: s4: too_long (no room)",
        "  s2: what was no text",
    ]


def test_scores_without_a_second_model_are_shown_alone():
    assert "51.5" in score_table([score("base", 51.5)], [])


def test_how_many_pairs_were_kept_and_why_others_were_dropped():
    report = Report("k", "n", 0, ".", (), PairCounts(10, 7, {"equal": 2, "empty": 1}))
    assert pair_line(report) == "pairs: 7 of 10 kept (70 %); dropped: 2 equal, 1 empty"


def test_the_longest_rows_are_named(capsys):
    result = StageResult("reference", "0" * 20, False, 1.0)
    metrics = {"tokens_longest": 91, "context": 512, "longest_rows": {"s4": 91, "s2": 87}}
    console = Console()
    console.stage_finished(result, metrics)
    told = capsys.readouterr().out.splitlines()
    console.stage_finished(replace(result, name="align"), metrics)
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert told[1:] == ["  longest rows in tokens: s4 91, s2 87 (context: 512)"]


def test_an_example_shows_both_answers_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    pair = Pair(
        "s1",
        ImageRef("a.png", "0"),
        "What?\nNow",
        "a red star " * 8,
        ("",),
        ("moco",),
        (1,),
        ((2,),),
    )
    text = example_text(PairExample(pair, tmp_path / "a.png", {}))
    assert "s1  What? Now" in text
    assert re.search(r"chosen \(clean\) +rejected \(moco\)", text)
    assert "(empty)" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_a_log_file_gets_no_bar(capsys):
    with progress("auto", "work", 1000, "answer") as meter:
        for _ in range(1000):
            meter.update(1)
    out = capsys.readouterr()
    assert out.out + out.err == ""


def test_a_log_file_gets_a_line_now_and_then_with_rate_and_time_left(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("seva_exp.core.progress.time.monotonic", lambda: now[0])
    with progress("lines", "answers", 100, "answer") as meter:
        for _ in range(100):
            now[0] += 1
            meter.update(1)
    lines = capsys.readouterr().err.splitlines()
    assert 4 <= len(lines) <= 7
    assert lines[0] == "  answers: 15/100 answer, 1.0/s, 85 s left"


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with progress("auto", "work", 10, "answer") as meter:
        meter.update(5)
    assert "work" in terminal.getvalue()


def test_what_a_person_should_know_is_a_warning(capsys):
    Console().warned("the disk is nearly full")
    assert capsys.readouterr().out == "warning: the disk is nearly full\n"
