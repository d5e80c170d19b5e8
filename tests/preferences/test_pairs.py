"""Answers become pairs: every sample and every negative answer is accounted for."""

import random
from collections import Counter

import pytest

from seva_exp.core.records import Answer, Drop, ImageRef, Pair, Sample
from seva_exp.preferences.filters import (
    DownSampleFilter,
    EmptyFilter,
    EqualFilter,
    EqualNormalisedFilter,
    LengthRatioFilter,
    SimilarityFilter,
    UnfinishedFilter,
)
from seva_exp.preferences.pairs import Tally, grouped, make_pairs


def sample(id):
    return Sample(id, ImageRef(f"{id}.png", id), f"What is {id}?")


def answer(id, text, stop="eos", view="x"):
    return Answer(id, view, "asked", text, tuple(range(len(text.split()) + 1)), stop)


EQUAL = [EqualFilter()]


def made(texts, filters=EQUAL, **options):
    """``texts``: sample id -> {view: text}, the clean view's among them; ids are made samples."""
    views = sorted({view for row in texts.values() for view in row} - {"clean"})
    clean = [answer(id, row["clean"]) for id, row in texts.items()]
    negatives = {
        view: [answer(id, row[view]) for id, row in texts.items() if view in row] for view in views
    }
    return paired([sample(id) for id in texts], clean, negatives, filters, 0, **options)


def paired(samples, clean, negatives, filters, seed, newlines="keep"):
    """(pairs, drops, the stage's summary)."""

    def groups():
        return grouped(samples, clean, negatives)

    tally, results = Tally(negatives), []
    for one in make_pairs(groups, filters, seed, newlines):
        tally.add(one)
        results.append(one.result)
    pairs, drops = ([r for r in results if isinstance(r, kind)] for kind in (Pair, Drop))
    return pairs, drops, tally.summary()


def test_each_negative_is_judged_on_its_own():
    pairs, drops, summary = made(
        {
            "one": {"clean": "a cat", "v": "a dog", "w": "a cat"},
            "two": {"clean": "a cat", "v": "a cat", "w": "a cat"},
            "three": {"clean": "a cat", "v": "a cow", "w": "a hen"},
        }
    )
    assert [(p.sample_id, p.views, p.rejected) for p in pairs] == [
        ("one", ("v",), ("a dog",)),
        ("three", ("v", "w"), ("a cow", "a hen")),
    ]
    assert [(d.sample_id, d.reason, d.detail) for d in drops] == [("two", "equal", "a cat")]
    assert summary == {
        "sampled": 3,
        "kept": 2,
        "dropped": {"equal": 1},
        "kept_by_view": {"v": 2, "w": 1},
        "removed_by_view": {"v": {"equal": 1}, "w": {"equal": 2}},
    }


def test_a_pair_holds_the_sample_and_what_was_generated():
    ([pair], _, _) = made({"one": {"clean": "a cat", "v": "no big dog"}})
    assert (pair.prompt, pair.image) == ("What is one?", ImageRef("one.png", "one"))
    assert (pair.chosen, pair.chosen_tokens) == ("a cat", (0, 1, 2))
    assert pair.rejected_tokens == ((0, 1, 2, 3),)


def test_the_first_views_reason_stands_for_the_sample_and_the_detail_tells_all():
    texts = {"one": {"clean": "a cat", "v": "", "w": "a cat"}}
    _, [drop], summary = made(texts, [EqualFilter(), EmptyFilter()])
    assert drop.reason == "empty"
    assert drop.detail == "v: empty (rejected); w: equal (a cat)"
    assert summary["removed_by_view"] == {"v": {"empty": 1}, "w": {"equal": 1}}


def test_filters_run_in_the_lists_order():
    texts = {f"{i}": {"clean": "a", "v": "a" if i % 2 else "b"} for i in range(20)}
    first, last = [EqualFilter(), DownSampleFilter(count=6)], DownSampleFilter(count=6)
    pairs, drops, _ = made(texts, first)
    assert len(pairs) == 6
    assert Counter(d.reason for d in drops) == {"equal": 10, "down_sample": 4}
    pairs, drops, _ = made(texts, [last, EqualFilter()])
    assert len(pairs) < 6
    assert Counter(d.reason for d in drops)["down_sample"] == 14


def test_a_view_may_have_answered_some_samples_only():
    texts = {
        "one": {"clean": "a", "v": "b"},
        "two": {"clean": "a", "w": "b"},
        "three": {"clean": "a", "w": "a"},
    }
    pairs, drops, summary = made(texts)
    assert [(p.sample_id, p.views) for p in pairs] == [("one", ("v",)), ("two", ("w",))]
    assert [d.sample_id for d in drops] == ["three"]
    assert summary["removed_by_view"] == {"v": {}, "w": {"equal": 1}}


def test_a_sample_that_no_view_answered_is_a_programmers_error():
    with pytest.raises(AssertionError, match="no negative view answered sample two"):
        made({"one": {"clean": "a", "v": "b"}, "two": {"clean": "a"}})


def test_newlines_are_deleted_behind_the_filters_and_such_tokens_are_not_trained_on():
    texts = {
        "one": {"clean": "red\ncat", "v": "redcat", "w": "dog"},
        "two": {"clean": "cat", "v": "red\ndog", "w": "dog"},
    }
    pairs, _, _ = made(texts)
    assert (pairs[0].chosen, pairs[0].views) == ("red\ncat", ("v", "w"))
    assert pairs[0].chosen_tokens
    pairs, _, summary = made(texts, newlines="delete")
    assert summary["removed_by_view"] == {"v": {}, "w": {}}, "judged as they were said"
    one, two = pairs
    assert (one.chosen, one.chosen_tokens, one.views) == ("redcat", (), ("v", "w"))
    assert one.rejected_tokens == ((0, 1), (0, 1))
    assert two.chosen_tokens == (0, 1)
    assert (two.rejected, two.rejected_tokens) == (("reddog", "dog"), ((), (0, 1)))


def test_tokens_are_counted_as_generated_where_newlines_are_deleted():
    texts = {"one": {"clean": "a\nb\nc\nd", "v": "x"}}
    _, [drop], _ = made(texts, [LengthRatioFilter(max=2, unit="tokens")], newlines="delete")
    assert drop.detail == "chosen 5 tokens, rejected 2"


KINDS = [
    lambda rng: EqualFilter(),
    lambda rng: EqualNormalisedFilter(),
    lambda rng: SimilarityFilter(min=rng.randrange(50), max=rng.randrange(50, 101)),
    lambda rng: LengthRatioFilter(max=1 + 3 * rng.random(), unit=rng.choice(["words", "tokens"])),
    lambda rng: UnfinishedFilter(which=rng.choice(["chosen", "rejected", "any"])),
    lambda rng: EmptyFilter(which=rng.choice(["chosen", "rejected", "any"])),
    lambda rng: DownSampleFilter(count=rng.randrange(1, 12), prefix=rng.choice(["", "a/"])),
]
WORDS = ["cat", "Cat", "the cat", "dog\n", "", "a big dog", "cow.", "one two three four five"]


def random_input(rng):
    samples = [sample(f"{rng.choice('ab')}/{i}") for i in range(rng.randrange(0, 15))]
    views = rng.sample("pqrs", rng.randrange(1, 5))

    def said(id):
        return answer(id, rng.choice(WORDS), rng.choice(["eos", "eos", "length"]))

    clean = [said(s.id) for s in samples]
    negatives = {view: [] for view in views}
    for s in samples:
        for view in rng.sample(views, rng.randrange(1, len(views) + 1)):
            negatives[view].append(said(s.id))
    filters = [rng.choice(KINDS)(rng) for _ in range(rng.randrange(0, 5))]
    return samples, clean, negatives, filters, rng.randrange(3), rng.choice(["keep", "delete"])


@pytest.mark.parametrize("number", range(300))
def test_nothing_is_lost_and_the_samples_order_does_not_matter(number):
    rng = random.Random(number)
    samples, clean, negatives, *rest = random_input(rng)
    pairs, drops, told = paired(samples, clean, negatives, *rest)
    assert sorted(x.sample_id for x in [*pairs, *drops]) == sorted(s.id for s in samples)
    assert told["kept"] + sum(told["dropped"].values()) == told["sampled"] == len(samples)
    removed = told["removed_by_view"]
    assert list(removed) == list(told["kept_by_view"]) == list(negatives)
    for view, answers in negatives.items():
        assert told["kept_by_view"][view] + sum(removed[view].values()) == len(answers)
    assert all(len(p.views) == len(p.rejected) == len(p.rejected_tokens) > 0 for p in pairs)
    order = {id: i for i, id in enumerate(rng.sample([s.id for s in samples], len(samples)))}
    others = paired(
        sorted(samples, key=lambda s: order[s.id]),
        sorted(clean, key=lambda a: order[a.sample_id]),
        {v: sorted(said, key=lambda a: order[a.sample_id]) for v, said in negatives.items()},
        *rest,
    )
    assert sorted(others[0], key=lambda p: p.sample_id) == sorted(pairs, key=lambda p: p.sample_id)
    assert others[2] == told


def test_answers_in_another_order_make_no_pairs():
    samples, said = [sample("one"), sample("two")], [answer("two", "a"), answer("one", "a")]
    with pytest.raises(AssertionError, match="did not answer sample one in its turn"):
        paired(samples, said, {"v": said}, EQUAL, 0)
    right = [answer("one", "b"), answer("two", "b")]
    with pytest.raises(AssertionError, match="no negative view answered sample one"):
        paired(samples, right, {"v": said}, EQUAL, 0)
    with pytest.raises(AssertionError, match="answers to no sample"):
        paired(samples, right, {"v": [*right, answer("three", "c")]}, EQUAL, 0)


@pytest.mark.parametrize("number", range(60))
def test_where_one_sample_is_missing_no_other_pair_is_lost(number):
    rng = random.Random(number)
    samples, clean, negatives, *rest = random_input(rng)
    before = {p.sample_id: p for p in paired(samples, clean, negatives, *rest)[0]}
    for gone in samples:
        left = [s for s in samples if s.id != gone.id]
        best = [a for a in clean if a.sample_id != gone.id]
        others = {v: [a for a in n if a.sample_id != gone.id] for v, n in negatives.items()}
        now = {p.sample_id: p for p in paired(left, best, others, *rest)[0]}
        assert all(now[id] == pair for id, pair in before.items() if id != gone.id)
