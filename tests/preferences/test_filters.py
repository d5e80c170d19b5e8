"""Each filter: what it removes and keeps, the word it gives as reason, its form in a config."""

import random

import pytest
from pydantic import ValidationError

from seva_exp.core.records import Answer
from seva_exp.core.spec import Spec
from seva_exp.preferences.filters import (
    FILTERS,
    AnyFilter,
    Candidate,
    DownSampleFilter,
    EmptyFilter,
    EqualFilter,
    EqualNormalisedFilter,
    LengthRatioFilter,
    SimilarityFilter,
    UnfinishedFilter,
    normalised,
)


def answer(text, tokens=1, stop="eos", id="a", view="v"):
    return Answer(id, view, "?", text, tuple(range(tokens)), stop)


def reason(filter, chosen, rejected):
    """The word, or None where the pair is kept."""
    first, second = (x if isinstance(x, Answer) else answer(x) for x in (chosen, rejected))
    one = Candidate("a", "v", first, second)
    removal = filter.rule_for(lambda: iter([one]), 0)(one)
    return removal and removal.reason


def test_equal_is_exact():
    assert reason(EqualFilter(), "A cat.", "A cat.") == "equal"
    assert reason(EqualFilter(), "A cat.", "a cat.") is None
    assert reason(EqualFilter(), "A cat.", "A cat. ") is None


@pytest.mark.parametrize(
    ("chosen", "rejected", "same"),
    [
        ("The cat sat.", "a CAT,\n sat", True),
        ("Straße", "STRASSE", True),
        ("cafe\u0301", "café", True),
        ("２ cats", "2 cats", True),
        ("well-known", "well known", True),
        ("A cat", "A dog", False),
        ("3.5", "35", False),
        ("A.", "An", False),
        ("A.", "", False),
        ("anthem", "them", False),
    ],
)
def test_equal_normalised(chosen, rejected, same):
    expected = "equal_normalised" if same else None
    assert reason(EqualNormalisedFilter(), chosen, rejected) == expected
    assert reason(EqualNormalisedFilter(), rejected, chosen) == expected


def test_normalising_twice_changes_nothing():
    for text in ("The A.", "", "...", "It's 3.5, the Ǆ", "a"):
        assert normalised(normalised(text)) == normalised(text)


def test_similarity_tells_too_different_from_too_similar():
    both = SimilarityFilter(min=20, max=90)
    assert reason(both, "abc", "xyz") == "too_different"
    assert reason(both, "a red cat", "a red cat") == "too_similar"
    assert reason(both, "a red cat", "a red dog") is None
    assert reason(SimilarityFilter(max=90), "abc", "xyz") is None
    assert reason(SimilarityFilter(min=20), "abc", "abc") is None


def test_similarity_keeps_its_bounds():
    # "abcd" to "abce": 3 of 4 characters in common, 2 * 3 / 8.
    assert reason(SimilarityFilter(min=75, max=75), "abcd", "abce") is None
    assert reason(SimilarityFilter(min=75.01), "abcd", "abce") == "too_different"
    assert reason(SimilarityFilter(max=74.99), "abcd", "abce") == "too_similar"


def test_length_ratio_counts_words_either_way_and_keeps_its_bound():
    assert reason(LengthRatioFilter(max=3), "one", "one two three") is None
    assert reason(LengthRatioFilter(max=2.9), "one", "one two three") == "length_ratio"
    assert reason(LengthRatioFilter(max=2.9), "one two three", "one") == "length_ratio"
    assert reason(LengthRatioFilter(max=1), "", "") is None
    assert reason(LengthRatioFilter(max=100), "", "one") == "length_ratio"


def test_length_ratio_counts_tokens_where_asked():
    long, short = answer("one", tokens=9), answer("one two three", tokens=3)
    assert reason(LengthRatioFilter(max=2, unit="tokens"), long, short) == "length_ratio"
    assert reason(LengthRatioFilter(max=3, unit="tokens"), long, short) is None
    assert reason(LengthRatioFilter(max=2), long, short) == "length_ratio"


@pytest.mark.parametrize(
    ("cls", "bad", "word"),
    [
        (UnfinishedFilter, answer("text", stop="length"), "unfinished"),
        (EmptyFilter, answer(" \n"), "empty"),
    ],
)
def test_the_side_that_is_looked_at(cls, bad, word):
    good = answer("good")
    said = {
        which: [
            reason(cls(which=which), *pair) for pair in ((bad, good), (good, bad), (good, good))
        ]
        for which in ("chosen", "rejected", "any")
    }
    assert said == {
        "chosen": [word, None, None],
        "rejected": [None, word, None],
        "any": [word, word, None],
    }
    assert cls().which == "any"


IDS = [f"{folder}/{i}" for folder in ("ocr", "text") for i in range(30)]


def kept(filter, ids, seed=0, views=("v",)):
    rows = [Candidate(id, view, answer("c"), answer("r")) for id in ids for view in views]
    judge = filter.rule_for(lambda: iter(rows), seed)
    removals = [judge(row) for row in rows]
    assert {r.reason for r in removals if r} <= {"down_sample"}
    return [row.sample_id for row, removal in zip(rows, removals, strict=True) if removal is None]


def test_down_sample_keeps_so_many_samples_with_all_their_views():
    found = kept(DownSampleFilter(count=10), IDS, views=("v", "w"))
    assert len(found) == 20
    assert len(set(found)) == 10
    assert kept(DownSampleFilter(count=100), IDS) == IDS


def test_down_sample_draws_by_seed_and_not_by_order():
    filter = DownSampleFilter(count=10)
    first = set(kept(filter, IDS))
    assert set(kept(filter, random.Random(1).sample(IDS, len(IDS)))) == first
    assert set(kept(filter, IDS, seed=1)) != first
    assert {id.split("/")[0] for id in first} == {"ocr", "text"}


def test_down_sample_without_one_sample_keeps_all_others():
    filter = DownSampleFilter(count=10)
    first = set(kept(filter, IDS))
    for gone in IDS:
        now = set(kept(filter, [id for id in IDS if id != gone]))
        assert first - {gone} <= now
        assert len(now - first) == (gone in first)


def test_down_sample_with_a_prefix_leaves_the_others_alone():
    found = kept(DownSampleFilter(count=4, prefix="ocr/"), IDS)
    assert sum(id.startswith("ocr/") for id in found) == 4
    assert sum(id.startswith("text/") for id in found) == 30


class Holder(Spec):
    filters: tuple[AnyFilter, ...]


def read(text):
    return Holder.model_validate_json(f'{{"filters": {text}}}').filters


def test_a_bare_name_is_a_kind_with_its_defaults():
    text = '["equal", {"kind": "length_ratio", "max": 3}, "empty"]'
    assert read(text) == (EqualFilter(), LengthRatioFilter(max=3.0), EmptyFilter())
    assert Holder(filters=("equal",)) == Holder(filters=(EqualFilter(),))
    again = Holder.model_validate_json(Holder(filters=read(text)).model_dump_json())
    assert again.filters == read(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('["equall"]', "Did you mean 'equal'"),
        ('[{"kind": "lenght_ratio", "max": 3}]', "Did you mean 'length_ratio'"),
        ('[{"kind": "length_ratio", "maxx": 3}]', "Did you mean 'max'"),
        ('[{"max": 3}]', "no such filter"),
        ('["length_ratio"]', "Field required"),
        ('["similarity"]', "set one of them"),
        ('[{"kind": "similarity", "min": 60, "max": 50}]', "above max"),
        ('[{"kind": "similarity", "max": 101}]', "less than or equal to 100"),
        ('[{"kind": "length_ratio", "max": 0.5}]', "greater than or equal to 1"),
        ('[{"kind": "down_sample", "count": 0}]', "greater than or equal to 1"),
        ('[{"kind": "empty", "which": "both"}]', "'chosen', 'rejected' or 'any'"),
        ("[3]", "should be an object"),
    ],
)
def test_a_mistake_is_refused_and_named(text, said):
    with pytest.raises(ValidationError, match=said):
        read(text)


def test_only_down_sample_depends_on_the_seed():
    assert {kind for kind, cls in FILTERS.items() if cls.seeded} == {"down_sample"}
