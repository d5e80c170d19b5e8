"""The answers stage's work: subsets of the samples, sampled answers, what a kill leaves."""

import json
import shutil
from functools import partial

import pytest

from seva_exp import Machine, StageError
from seva_exp.augment import Blend, DiffusionNoise, HorizontalFlip
from seva_exp.core.digests import FileDigests
from seva_exp.core.interfaces import Placement
from seva_exp.core.progress import progress
from seva_exp.core.records import CLEAN
from seva_exp.data import ShapesData
from seva_exp.decoding import HfGeneration
from seva_exp.inputs.views import View
from seva_exp.models import TinyModel
from seva_exp.models.vlm import load

from .stage import answer_all

SAMPLED = HfGeneration(max_new_tokens=16, temperature=0.7)
GREEDY = HfGeneration(max_new_tokens=16)


@pytest.fixture(scope="module")
def vlm():
    return load(TinyModel(), Machine(device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(samples, root of their pictures)."""
    folder = tmp_path_factory.mktemp("world")
    data = ShapesData(samples=12)
    made = data.build(0, folder, FileDigests(folder / "store"))
    return made.samples, data.image_root(folder)


class Meter:
    """Counts answers; raises after ``limit`` batches, as a kill would."""

    def __init__(self, limit=None):
        self.seen, self._limit = [], limit

    def update(self, n):
        self.seen.append(n)
        if len(self.seen) - 1 == self._limit:  # the first update tells what was there before
            raise KeyboardInterrupt


def answered(world, work, load_model, view, generation, samples=None, size=4, meter=None):
    """(sample id -> answer, summary) of one process; of the ``samples`` only."""
    place = Placement("cpu", size, size, False, partial(progress, "off"), work)
    answers, summary = answer_all(
        world, work, load_model, view, generation, place, samples, meter=meter
    )
    return {answer.sample_id: answer for answer in answers}, summary


VIEWS = [
    View(CLEAN, None, 0),
    View("mixed", Blend(), 0),
    View("noise", DiffusionNoise(step=600), 0),
]


@pytest.mark.parametrize("view", VIEWS, ids=[view.name for view in VIEWS])
@pytest.mark.parametrize("generation", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_subset_is_answered_as_in_the_whole(world, vlm, tmp_path, view, generation):
    whole, _ = answered(world, tmp_path / "whole", lambda: vlm, view, generation)
    some = world[0][1::3]
    part, summary = answered(world, tmp_path / "part", lambda: vlm, view, generation, some, size=3)
    assert part == {id: whole[id] for id in part}
    assert summary["answers"] == 4
    if view.name != CLEAN:
        rows = json.loads((tmp_path / "part" / "previews" / "index.json").read_text())
        assert [row["sample_id"] for row in rows] == [sample.id for sample in some[:3]]
        first = json.loads((tmp_path / "whole" / "previews" / "index.json").read_text())
        shared = {row["sample_id"]: row["file"] for row in first}
        for row in rows:
            if row["sample_id"] in shared:
                ours = tmp_path / "part" / "previews" / row["file"]
                theirs = tmp_path / "whole" / "previews" / shared[row["sample_id"]]
                assert ours.read_bytes() == theirs.read_bytes()


def test_no_sample_needs_no_model(world, tmp_path):
    def no_model():
        raise AssertionError("the model is loaded for nothing")

    for view in VIEWS:
        work = tmp_path / view.name
        answers, summary = answered(world, work, no_model, view, GREEDY, [])
        assert (answers, summary["answers"]) == ({}, 0)
        if view.name != CLEAN:
            assert json.loads((work / "previews" / "index.json").read_text()) == []


@pytest.mark.parametrize("harm", ["deleted", "cut"])
def test_a_picture_harmed_in_the_middle_is_named_and_restored_the_work_goes_on(
    world, vlm, tmp_path, harm
):
    whole, _ = answered(world, tmp_path / "whole", lambda: vlm, VIEWS[0], GREEDY)
    samples, pictures = world[0], tmp_path / "pictures"
    shutil.copytree(world[1], pictures)
    file = pictures / samples[8].image.path
    content = file.read_bytes()

    class Harming(Meter):
        def update(self, n):
            super().update(n)
            file.unlink(missing_ok=True)
            if harm == "cut":
                file.write_bytes(content[:60])

    def go(meter):
        ours = (samples, pictures)
        return answered(ours, tmp_path / "work", lambda: vlm, VIEWS[0], GREEDY, size=1, meter=meter)

    said = f"^sample {samples[8].id}: {file}: this picture (vanished|changed) since"
    with pytest.raises(StageError, match=said):
        go(Harming())
    file.write_bytes(content)
    again = Meter()
    assert go(again)[0] == whole
    assert again.seen == [8, 1, 1, 1, 1], "what was answered before was kept"


def texts(answers):
    return {id: answer.text for id, answer in answers.items()}


def test_two_views_draw_from_numbers_of_their_own(world, vlm, tmp_path):
    unchanged = View("flip", HorizontalFlip(probability=0.0), 0)
    open_ended = HfGeneration(max_new_tokens=16, temperature=1.5)
    clean, flip, seed = (
        texts(answered(world, tmp_path / name, lambda: vlm, view, open_ended)[0])
        for name, view in (
            ("clean", VIEWS[0]),
            ("flip", unchanged),
            ("seed", View(CLEAN, None, 1)),
        )
    )
    assert sum(clean[id] != flip[id] for id in clean) > 3
    assert sum(clean[id] != seed[id] for id in clean) > 3
    greedy = [
        texts(answered(world, tmp_path / f"greedy{i}", lambda: vlm, view, GREEDY)[0])
        for i, view in enumerate((VIEWS[0], unchanged))
    ]
    assert greedy[0] == greedy[1]


def test_one_view_by_two_names_gives_the_same_answers(world, vlm, tmp_path):
    one, two = (
        texts(answered(world, tmp_path / name, lambda: vlm, View(name, Blend(), 0), SAMPLED)[0])
        for name in ("mild", "again")
    )
    assert one == two


def test_a_killed_stage_goes_on_and_samples_the_same(world, vlm, tmp_path):
    whole, _ = answered(world, tmp_path / "whole", lambda: vlm, VIEWS[2], SAMPLED)
    with pytest.raises(KeyboardInterrupt):
        answered(world, tmp_path / "cut", lambda: vlm, VIEWS[2], SAMPLED, meter=Meter(limit=2))
    meter = Meter()
    after, _ = answered(world, tmp_path / "cut", lambda: vlm, VIEWS[2], SAMPLED, meter=meter)
    assert after == whole
    kept, *rest = meter.seen
    assert 0 < kept < 12 and kept + sum(rest) == 12
