"""Broken pictures end a run where they are too many; exact duplicates are counted."""

import pytest

from seva_exp.core.errors import InputError
from seva_exp.core.records import Drop, ImageRef, Sample
from seva_exp.core.spec import canonical
from seva_exp.data import CocoData, FolderData, InstructData, JsonlData, ShapesData
from seva_exp.data.counts import JUDGED_FROM, Counts


def sample(n, picture=None, prompt="What?"):
    return Sample(f"s{n}", ImageRef(f"{n}.png", picture or f"{n:064x}"), prompt)


def counted(data, samples, *drops):
    counts = Counts(data, "data")
    for n in range(samples):
        counts.add(sample(n))
    for drop in drops:
        counts.add(drop)
    return counts.summary()


BROKEN = Drop("x.jpg", "truncated or damaged", "cut")


@pytest.mark.parametrize("data", [FolderData(path="f"), JsonlData(path="f", on_error="skip")])
def test_a_share_above_the_bound_ends_the_run_and_names_one(data):
    assert counted(data, 99, BROKEN)["unusable"] == {BROKEN.reason: 1}
    with pytest.raises(InputError) as caught:
        counted(data, 98, BROKEN)
    said = str(caught.value)
    assert said.startswith("data.max_broken=0.01: 1 of 99 pictures or rows of 'f' cannot be used")
    assert "x.jpg: truncated or damaged (cut)" in said and said.endswith("data.max_broken=0.02.")
    strict = data.model_copy(update={"max_broken": 0.0})
    with pytest.raises(InputError, match="max_broken=0:"):
        counted(strict, 10_000, BROKEN)
    assert counted(data.model_copy(update={"max_broken": 0.5}), 1, BROKEN)["samples"] == 1


def test_what_the_message_proposes_is_enough():
    for broken in range(1, 60):
        drops = [BROKEN] * broken
        with pytest.raises(InputError) as caught:
            counted(FolderData(path="f"), 41, *drops)
        share = float(str(caught.value).rpartition("=")[2].rstrip("."))
        counted(FolderData(path="f", max_broken=share), 41, *drops)


def test_what_is_no_fault_is_not_in_the_share():
    cases = (
        (FolderData(path="f"), "not an image"),
        (FolderData(path="f", samples=3), "not drawn"),
        (CocoData(path="f"), "not an image"),
        (CocoData(path="f", names="n"), "duplicate name"),
        (InstructData(path="f"), "no picture"),
        (ShapesData(), "any"),
    )
    for data, reason in cases:
        assert counted(data, 1, *[Drop("a", reason)] * 9)["samples"] == 1
    with pytest.raises(InputError):
        counted(CocoData(path="f", names="n", on_error="skip"), 1, Drop("a", "not an image"))


def test_it_is_judged_while_pictures_are_read():
    counts = Counts(FolderData(path="f"), "instructions")
    for n in range(JUDGED_FROM - 30):
        counts.add(sample(n))
    with pytest.raises(InputError, match=r"instructions\.max_broken.*: 30 of 1000 "):
        for _ in range(99):
            counts.add(BROKEN)


def test_the_bound_is_in_no_key(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    keys = {
        canonical(data.identity(lambda path: "0"))
        for share in (0.01, 0.5)
        for data in (
            FolderData(path=str(tmp_path), max_broken=share),
            FolderData(max_broken=share),
        )
    }
    assert len(keys) == 2 and not any("max_broken" in key for key in keys)


def test_exact_duplicates_are_counted_by_picture_and_question():
    counts = Counts(ShapesData(), "data")
    for n, (picture, prompt) in enumerate(["aA", "aB", "bA", "aA", "aA", "bA"]):
        counts.add(sample(n, picture * 64, prompt))
    assert counts.summary()["exact_duplicates"] == 3
    assert "exact_duplicates" not in counted(ShapesData(), 5)
