"""What an error says, as it stands in a message of ours."""

from __future__ import annotations

import pytest

from seva_exp.core.printable import LONGEST_ERROR, error_text

CASES = [
    (ValueError("no\n   such  thing. "), {}, "no such thing"),
    (ValueError("one\ntwo"), {"first_line": True}, "one"),
    (ValueError("\n one.\ntwo"), {"first_line": True}, "one"),
    (ValueError("\x1b[2Jx"), {"kind": True}, "ValueError: ␛[2Jx"),
    (KeyError(), {}, "KeyError"),
    (KeyError(), {"kind": True}, "KeyError"),
]


@pytest.mark.parametrize(("error", "how", "want"), CASES)
def test_an_error_is_one_line_that_can_be_printed(error, how, want):
    assert error_text(error, **how) == want


def test_both_ends_of_a_long_error_are_told():
    text = error_text(ValueError("first " + "word " * LONGEST_ERROR + "last"))
    assert text.startswith("first")
    assert text.endswith("last")
    assert len(text) < LONGEST_ERROR
