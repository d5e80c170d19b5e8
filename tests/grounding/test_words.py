"""Words of an answer, and which tokens each is made of."""

from __future__ import annotations

from seva_exp.core.texts import REPLACEMENT
from seva_exp.grounding.cells import cells_of
from seva_exp.grounding.words import spans_of, words_of


def decoder(parts: list[bytes]):
    """A tokenizer's ``decode``, as ``Vlm`` has it: outer blanks off, half characters replaced."""

    def decode(tokens):
        return b"".join(parts[i] for i in tokens).decode(errors="replace").strip()

    return decode


def spans(text: str, parts: list[bytes]):
    return {s.text: s.tokens for s in spans_of(text, range(len(parts)), decoder(parts))}


def test_words_keep_what_joins_them():
    assert [w.text for w in words_of("It's 1.5 well-known, isn\u2019t it?")] == [
        *("It's", "1.5", "well-known", ",", "isn\u2019t", "it", "?"),
    ]
    assert [w.text for w in words_of("\u7ea2\u8272 circle")] == ["\u7ea2", "\u8272", "circle"]
    for word in words_of("A red circle."):
        assert word.text == "A red circle."[word.start : word.end]


def test_a_word_has_its_tokens_and_blanks_before_it():
    parts = [b" a", b" ci", b"rc", b"le", b" ", b"red", b"."]
    assert spans("a circle red.", parts) == {
        "a": (0,),
        "circle": (1, 2, 3),
        "red": (4, 5),
        ".": (6,),
    }


def test_a_token_over_two_words_is_of_the_one_with_most_of_it():
    assert spans("red, it", [b" red,", b" it"]) == {"red": (0,), "it": (1,)}


def test_half_a_character_waits_for_the_other():
    both = "\u7ea2".encode()
    assert spans("a \u7ea2", [b" a", b" ", both[:2], both[2:]]) == {"a": (0,), "\u7ea2": (1, 2, 3)}
    assert REPLACEMENT in decoder([both[:2]])([0])


def test_cells_are_tokens_where_they_are_few_and_else_blocks_of_all():
    few = cells_of(6, 6, 3)
    assert few.grid == (6, 6)
    assert few.tokens == tuple((i,) for i in range(36))
    many = cells_of(24, 24, 6)
    assert many.grid == (6, 6)
    assert {len(own) for own in many.tokens} == {16}
    assert many.tokens[1][:5] == (4, 5, 6, 7, 28)
    uneven = cells_of(10, 23, 6)
    assert sorted(i for own in uneven.tokens for i in own) == list(range(230))
