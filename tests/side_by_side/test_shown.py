"""Two answers beside each other: what differs, marks, widths."""

from __future__ import annotations

import pytest

from seva_exp.side_by_side.asker import BothAnswers
from seva_exp.side_by_side.shown import columns, different, side_by_side

EOS = ("eos", "eos")


def test_words_that_only_one_answer_has_are_marked(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = side_by_side(BothAnswers("a.jpg", "a red cube", "a blue cube", EOS))
    assert said.splitlines() == [
        "base                                     aligned",
        "a [-red-] cube                           a {+blue+} cube",
    ]
    assert "(the same)" in side_by_side(BothAnswers("a.jpg", "two", "two", EOS))


def test_a_repeated_word_is_matched_in_its_place():
    base, aligned = different("a cat and a dog", "a cat and a dog and a bird")
    assert not any(differs for _, differs in base)
    assert [word for word, differs in aligned if differs] == ["and", "a", "bird"]


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize(
    "text",
    ["word " * 80, "x" * 300, "许多字。" * 40, "one\n\ntwo\n" * 9, "", "\x1b[31mred\x1b[0m " * 20],
)
def test_no_line_is_wider_than_the_terminal(monkeypatch, width, text):
    monkeypatch.setenv("COLUMNS", str(width))
    said = side_by_side(BothAnswers("a.jpg", text, "another answer " * 30, EOS))
    assert max(map(columns, said.splitlines())) <= min(width, 120)
    assert "\x1b" not in said


def test_an_answer_that_is_not_whole_is_told():
    said = side_by_side(BothAnswers("a.jpg", "so far", "", ("length", "too_long")))
    assert "(base: cut at max_new_tokens)" in said
    assert "(aligned: the model's context is full)" in said
    assert "(empty)" in said
