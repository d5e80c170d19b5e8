"""A view that mixes pictures: which other picture a sample gets."""

import random
from collections import Counter

import pytest

from seva_exp import Experiment, Machine, Options, StageError
from seva_exp.augment import Blend, Moco
from seva_exp.core.records import Answer, ImageRef, Sample, read_jsonl
from seva_exp.data import FolderData
from seva_exp.experiment import run
from seva_exp.inputs.images import open_image
from seva_exp.inputs.views import PartnerPictures, View
from seva_exp.world import UNBIASED, draw, sample_scene

SAMPLES = [Sample(f"id{i}", ImageRef(f"{i}.png", f"sha{i * 7 % 100}"), "?") for i in range(40)]


def partners(samples, view=None):
    view, pictures = view or View("blend", Blend(), seed=0), PartnerPictures(samples)
    return {sample.id: view.partners(sample, pictures)[0].sha256 for sample in samples}


def test_a_partner_is_another_picture():
    for seed in range(20):
        found = partners(SAMPLES, View("blend", Blend(), seed))
        assert all(found[sample.id] != sample.image.sha256 for sample in SAMPLES)


def test_a_picture_with_two_questions_is_not_its_own_partner():
    twice = [
        Sample(f"b{s.id}", ImageRef(f"copy/{s.image.path}", s.image.sha256), "!") for s in SAMPLES
    ]
    for samples in (SAMPLES[:2] + twice[:2], SAMPLES + twice):
        found = partners(samples)
        assert all(found[sample.id] != sample.image.sha256 for sample in samples)


def test_partners_do_not_depend_on_the_samples_order_or_on_global_state():
    shuffled = random.Random(3).sample(SAMPLES, len(SAMPLES))
    random.seed(1)
    assert partners(shuffled) == partners(SAMPLES)


def test_partners_depend_on_the_seed_and_the_sample():
    first, other = partners(SAMPLES), partners(SAMPLES, View("blend", Blend(), seed=1))
    assert sum(first[id] != other[id] for id in first) > 30
    assert partners(SAMPLES, View("second", Blend(share_max=0.4), seed=0)) == first


def test_every_other_picture_is_as_likely():
    counts = Counter()
    for seed in range(300):
        view = View("blend", Blend(), seed)
        counts[view.partners(SAMPLES[0], PartnerPictures(SAMPLES[:5]))[0].sha256] += 1
    assert set(counts) == {sample.image.sha256 for sample in SAMPLES[1:5]}
    assert min(counts.values()) > 75 - 30


def test_other_views_take_no_partner():
    for augmentation in (None, Moco()):
        view = View("x", augmentation, seed=0)
        assert view.partners(SAMPLES[0], PartnerPictures(SAMPLES[:1])) == []


def folder_of(tmp_path, number):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(number):
        draw(sample_scene(random.Random(i), UNBIASED)).save(folder / f"{i}.png")
    return folder


def answers(folder, tmp_path, **changes):
    experiment = Experiment(aug={"blend": Blend()}, data=FolderData(path=str(folder)))
    machine = Machine(
        store=str(tmp_path / "store"), runs=str(tmp_path / "runs"), progress="off", **changes
    )
    return run(experiment, machine, Options(stop_after="answers.blend"))


def test_a_single_picture_is_a_clear_error(tmp_path):
    with pytest.raises(StageError, match=r"answers\.blend: .*1 other picture.*has 1 different"):
        answers(folder_of(tmp_path, 1), tmp_path)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_stage_shows_each_sample_with_its_partner(tmp_path, batch_size):
    folder = folder_of(tmp_path, 3)
    report = answers(folder, tmp_path, batch_size=batch_size)
    stage = tmp_path / "runs" / "latest" / "answers.blend"
    assert len(list(read_jsonl(stage / "answers.jsonl", Answer))) == 3
    samples = list(read_jsonl(tmp_path / "runs/latest/samples/samples.jsonl", Sample))
    view = View("blend", Blend(), report.seed)
    for i, sample in enumerate(samples):
        (partner,) = view.partners(sample, PartnerPictures(samples))
        pictures = [open_image(folder / image.path) for image in (sample.image, partner)]
        shown = open_image(stage / "previews" / f"{i:03d}.png")
        assert shown.tobytes() == view.image(pictures[0], sample.id, pictures[1:]).tobytes()
