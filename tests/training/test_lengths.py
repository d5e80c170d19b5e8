"""All lengths are known before training; a row that does not fit is refused, by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from seva_exp import StageError
from seva_exp.core.records import ImageRef
from seva_exp.inputs.images import image_size, load_image
from seva_exp.training import DpoTraining
from seva_exp.training.align import align
from seva_exp.training.collate import PreferenceCollator
from seva_exp.training.finetune import fine_tune
from seva_exp.training.lengths import check_lengths, lengths
from seva_exp.training.preferences import PairSet
from seva_exp.training.reference import read_reference, score_reference

from .test_finetune import RECIPE, samples
from .test_preferences import pair_of
from .tools import job, picture, placement, preferences, tiny


@pytest.fixture(scope="module")
def vlm():
    return tiny()


def test_lengths_are_those_of_the_batches(vlm):
    rows = preferences(vlm, 6, rejected=(1, 3))
    for row, found in zip(rows, lengths(vlm, rows), strict=True):
        batch = PreferenceCollator(vlm, [row])([{"row": 0}])
        assert found.total == batch["attention_mask"].sum(dim=1).max()
        assert found.image == (batch["input_ids"][0] == vlm.image_token_id).sum() == 36
        assert found.answer == batch["completion_mask"].sum(dim=1).max()


def test_the_summary_has_the_longest_rows(vlm):
    rows = preferences(vlm, 6)
    rows[4] = replace(rows[4], rejected=((5,) * 100,))
    summary = check_lengths(vlm, rows, "align")
    totals = sorted(found.total for found in lengths(vlm, rows))
    assert summary["tokens_longest"] == totals[-1] > 100
    assert summary["tokens_mean"] == pytest.approx(sum(totals) / 6, abs=0.05)
    assert summary["tokens_p95"] == totals[-1]
    assert summary["context"] == 512
    assert list(summary["longest_rows"].values()) == totals[:0:-1]
    assert next(iter(summary["longest_rows"])) == "s4"
    twenty = [replace(rows[0], id=f"r{i}") for i in range(19)] + [rows[4]]
    assert check_lengths(vlm, twenty, "align")["tokens_p95"] < 100


def test_one_picture_of_each_size_is_processed_and_no_other_is_decoded(vlm, monkeypatch):
    decoded: Counter[str] = Counter()

    def load(name: str):
        decoded[name] += 1
        return picture(0).resize((60, 72)) if name in "ab" else picture(0)

    def row(name: str):
        size = (60, 72) if name in "ab" else (72, 72)
        [one] = preferences(vlm, 1)
        return replace(one, id=name, load=partial(load, name), size=lambda: size)

    monkeypatch.setattr(vlm.model, "forward", None)  # the vision tower, or any other part
    assert len(list(lengths(vlm, [row(name) for name in "abcd"]))) == 4
    assert decoded == {"a": 1, "c": 1}


def test_a_row_that_just_fits_is_taken_and_a_longer_one_refused(vlm):
    rows = preferences(vlm, 3)
    [found] = lengths(vlm, rows[1:2])
    for spare, fits in ((0, True), (1, False)):
        ids = (5,) * (512 - found.prompt + spare)
        longer = [rows[0], replace(rows[1], rejected=(ids,)), replace(rows[2], chosen=ids * 2)]
        if fits:
            assert check_lengths(vlm, longer[:2], "align")["tokens_longest"] == 512
            continue
        with pytest.raises(StageError, match=r"align: 2 of 3 rows .* 512 tokens: s1 \(36 image"):
            check_lengths(vlm, longer, "align")


def test_what_does_not_fit_is_left_out_by_name_and_the_rest_is_trained_on(tmp_path):
    made = samples(saved(tmp_path), 2)
    long = replace(made[1], response="a red star " * 300)
    summary = fine_tune(job(tiny(), RECIPE, placement(tmp_path / "sft")), [made[0], long], tmp_path)
    assert (summary["samples"], summary["dropped"]) == (1, {"too_long": 1})
    [line] = summary["left_out"]
    assert line.startswith("s1: too_long (36 image + ")
    pairs = [pair_of(made[0]), replace(pair_of(made[1]), chosen="a red star " * 300)]
    place = placement(tmp_path / "reference")
    summary = score_reference(tiny(), PairSet(pairs, tmp_path), "auto", place)
    assert (summary["preferences"], summary["dropped"]) == (1, {"too_long": 1})
    assert summary["tokens_longest"] < 512
    assert list(read_reference(place.work)) == ["s0"]


def test_alignment_refuses_what_the_reference_stage_would_have_left_out(vlm, tmp_path):
    made = samples(saved(tmp_path), 2)
    pairs = [pair_of(made[0]), replace(pair_of(made[1]), chosen="a red star " * 300)]
    place = placement(tmp_path / "work")
    with pytest.raises(StageError, match=r"align: 1 of 2 rows.*: s1 "):
        align(job(vlm, DpoTraining(), place), PairSet(pairs, tmp_path))
    with pytest.raises(StageError, match=r"reference: 1 of 1 rows.*: s1 "):
        score_reference(vlm, PairSet(pairs[1:], tmp_path), "auto", place)
    assert not list(place.work.iterdir())


def test_an_answer_that_spells_out_the_image_token_is_left_out_by_name(tmp_path):
    """A server's: its text is all that is known of it."""
    made = samples(saved(tmp_path), 2)
    for one, side in (("chosen", "<image> red"), ("rejected", ("The tag is <image>.",))):
        pairs = [pair_of(made[0]), replace(pair_of(made[1]), **{one: side})]
        place = placement(tmp_path / one)
        summary = score_reference(tiny(), PairSet(pairs, tmp_path), "auto", place)
        assert (summary["preferences"], summary["dropped"]) == (1, {"image_token": 1})
        [line] = summary["left_out"]
        assert line.startswith("s1: image_token (The answer ")
        assert list(read_reference(place.work)) == ["s0"]
    with pytest.raises(StageError, match=r"reference: no answer can be trained on.*image token"):
        score_reference(tiny(), PairSet(pairs[1:], tmp_path), "auto", place)
    sft = [made[0], replace(made[1], response="an <image>")]
    done = fine_tune(job(tiny(), RECIPE, placement(tmp_path / "sft")), sft, tmp_path)
    assert (done["samples"], done["dropped"]) == (1, {"image_token": 1})


def test_a_view_s_picture_may_be_longer_than_the_clean_one(vlm, monkeypatch):
    """A processor that makes tokens by size: 36 for a clean picture, 500 for the view's."""
    real = vlm.encode_image

    def by_size(image):
        encoded = real(image)
        return replace(encoded, placeholders=encoded.placeholders[:1] * (image.size[0] // 2))

    monkeypatch.setattr(vlm, "encode_image", by_size)
    [row] = preferences(vlm, 1)
    row = replace(row, images=(lambda: vlm.encode_image(picture(0).resize((1000, 72))),))
    [alone] = lengths(vlm, [replace(row, images=())])
    [found] = lengths(vlm, [row])
    assert found.image == 500
    assert found.total == alone.prompt + 464 + len(row.chosen)
    with pytest.raises(StageError, match=r"reference: 1 of 1 rows.*: s0 \(500 image"):
        check_lengths(vlm, [row], "reference")


def test_views_are_not_made_where_all_pictures_have_one_length(vlm):
    [row] = preferences(vlm, 1, views=(2,))
    unmade = replace(row, images=(lambda: pytest.fail("made"),))
    assert list(lengths(vlm, [unmade])) == list(lengths(vlm, [row]))


def saved(root: Path) -> Path:
    for i in range(2):
        picture(i).save(root / f"{i}.png")
    return root


def test_the_size_is_the_upright_picture_s(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 20), "red").save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (40, 20), "red").save(tmp_path / "plain.png")
    from seva_exp.core.digests import FileDigests

    digests = FileDigests(tmp_path)
    for name, size in (("turned.jpg", (20, 40)), ("plain.png", (40, 20))):
        ref = ImageRef(name, digests(tmp_path / name))
        assert image_size(tmp_path, ref) == load_image(tmp_path, ref).size == size
    with pytest.raises(StageError, match="vanished"):
        image_size(tmp_path, ImageRef("gone.png", "0"))
