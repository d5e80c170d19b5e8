"""Which two of K candidates make a pair: small cases, one a row."""

from __future__ import annotations

import pytest

from seva_exp.core.interfaces import TOO_LONG
from seva_exp.core.records import Answer, ImageRef, Sample
from seva_exp.preferences.filters import Removal
from seva_exp.preferences.selection import Chosen, Selection, group_of, places_in, ranks


def answers(*texts: str) -> list[Answer]:
    """``|`` stands for one that the context had no room for."""
    return [
        Answer("s", f"candidate_{n}", "?", text, (n,), TOO_LONG if text == "|" else "eos")
        for n, text in enumerate(texts, 1)
    ]


def choose(texts, scores, weights=None, **fields) -> Chosen | Removal:
    if not isinstance(scores, dict):
        scores = {"a": scores}
    weights = weights or dict.fromkeys(scores, 1.0)
    return Selection(weights=tuple(weights.items()), **fields)(answers(*texts), scores)


MARGIN = {"how": "margin"}
VOTES = {"how": "majority"}
CASES = [
    # texts, scores, fields of the selection -> places of best and worst, or why there are none
    (["x", "y", "z"], [1, 3, 2], {}, (1, 0)),
    (["x", "y", "z"], [3, 1, 1], {}, (0, 1)),  # of equal ones the first
    (["x", "y"], [2, 2], {}, "tie"),
    (["x", "y"], [2, 1.5], {"gap": 0.6}, "small_gap"),
    (["x", "y"], [2, 1.5], {"gap": 0.5}, (0, 1)),
    (["x", "x", "x"], [1, 1, 1], {}, "one_answer"),
    (["x"], [1], {}, "one_answer"),
    (["", " ", "|"], [None, None, None], {}, "empty"),
    (["", "y"], [None, 1], {}, "one_answer"),
    (["x", "y", ""], [5, 1, None], {}, (0, 1)),
    (["x", "y", "|"], [5, 1, None], {}, (0, 1)),
    (["x", "y"], [None, 1], {}, "unscored"),
    (["x", "y"], [None, None], {}, "unscored"),
    (["x", "y", "x", "z"], [1, 2, 1, 0], {}, (1, 3)),
    (["a", "b", "c", "d"], [4, 3, 2, 1], MARGIN | {"gap": 1.5}, (0, 2)),
    (["a", "b", "c", "d"], [4, 3, 2, 1], MARGIN | {"gap": 1.0}, (0, 1)),
    (["a", "b"], [4, 3], MARGIN | {"gap": 2.0}, "small_gap"),
    (["a", "b"], [4, 4], MARGIN | {"gap": 2.0}, "tie"),
    (["Red.", "blue", "red", "the red"], [0.6, 0, 0.6, 0.7], VOTES, (3, 1)),
    (["red", "blue", "red", "blue"], [0, 0, 0, 0], VOTES, "tie"),
    (["red", "Red.", "a red"], [1, 1, 1], VOTES, "one_answer"),
    (["red", "red", "blue", "green"], [1, 1, 0.5, 0.2], VOTES, (0, 3)),
    (["red", "red", "blue"], [1, 1, 0], VOTES | {"gap": 0.5}, "small_gap"),
    (["red", "red", "blue"], [1, 1, 0], VOTES | {"gap": 0.3}, (0, 2)),
    (["red", "red", "blue", "green", "green"], [None, None, 1, 2, 2], VOTES, "tie"),
    (["red", "red", "blue", "pink"], [None, None, 1, 2], VOTES, "unscored"),
]


@pytest.mark.parametrize(("texts", "scores", "fields", "expected"), CASES)
def test_two_candidates_or_a_reason(texts, scores, fields, expected):
    found = choose(texts, scores, **fields)
    if isinstance(expected, str):
        assert isinstance(found, Removal) and found.reason == expected and found.detail
    else:
        assert isinstance(found, Chosen), found
        assert (found.best, found.worst) == expected


def test_scores_are_mixed_by_weight_or_by_rank():
    texts = ["x", "y", "z"]
    scores = {"lm": [-1.0, -2.0, -3.0], "clip": [20.0, 22.0, 21.0]}
    weights = {"lm": 0.1, "clip": 0.9}
    summed = choose(texts, scores, weights)
    expected = [0.1 * a + 0.9 * b for a, b in zip(*scores.values(), strict=True)]
    assert summed.scores == pytest.approx(expected)
    assert (summed.best, summed.worst) == (1, 0)
    ranked = choose(texts, scores, {"lm": 0.6, "clip": 0.4}, mix="ranks")
    assert ranked.scores == pytest.approx([0.6, 0.3 + 0.4, 0.2])
    assert (ranked.best, ranked.worst) == (1, 2)
    scores["lm"] = [value * 1e6 for value in scores["lm"]]
    assert choose(texts, scores, {"lm": 0.6, "clip": 0.4}, mix="ranks") == ranked


def test_an_answer_that_one_score_knows_nothing_of_is_not_chosen():
    found = choose(["x", "y", "z"], {"a": [1, 2, 3], "b": [1, 2, None]})
    assert (found.best, found.worst) == (1, 0)
    assert found.scores == (2, 4, None)


def test_equal_values_share_their_rank():
    assert ranks([5, 1, 1, 3]) == pytest.approx([1, 1 / 6, 1 / 6, 2 / 3])
    assert ranks([7]) == [0]


def test_a_group_holds_the_different_answers_that_are_any():
    sample = Sample("s", ImageRef("a", "0"), "?")
    found = answers("x", "", "y", "x", "|")
    group = group_of(sample, found)
    assert (group.texts, group.tokens, group.counts) == (("x", "y"), ((1,), (3,)), (2, 1))
    assert places_in(group, found) == [0, None, 1, 0, None]
