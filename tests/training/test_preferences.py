"""From stored pairs to what is trained on: tokens, copies, the pictures of negative views."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from seva_exp import StageError
from seva_exp.augment import BadPrompt, Blend, DiffusionNoise, Moco
from seva_exp.core.digests import FileDigests
from seva_exp.core.interfaces import Request
from seva_exp.core.records import ImageRef, Pair, Sample
from seva_exp.decoding import HfGeneration
from seva_exp.decoding.engine import Engine
from seva_exp.decoding.engines import engine_of
from seva_exp.inputs.images import load_image
from seva_exp.inputs.views import View
from seva_exp.models import TinyModel
from seva_exp.preferences.answers import Asker
from seva_exp.training import DpoTraining
from seva_exp.training.align import align
from seva_exp.training.collate import PreferenceCollator
from seva_exp.training.preferences import PairSet, preferences_of

from .tools import CHOSEN, QUESTIONS, REJECTED, job, picture, placement, tiny

VIEWS = {
    "blend": View("blend", Blend(), 3),
    "moco": View("moco", Moco(), 3),
    "noise": View("noise", DiffusionNoise(step=500), 3),
    "prompt": View("prompt", BadPrompt(prompts="tiny"), 3),
}


def samples(root: Path, n: int) -> list[Sample]:
    root.mkdir(exist_ok=True)
    digests = FileDigests(root)
    made = []
    for i in range(n):
        picture(i).save(root / f"{i}.png")
        ref = ImageRef(f"{i}.png", digests(root / f"{i}.png"))
        made.append(Sample(f"s{i}", ref, QUESTIONS[i % 3]))
    return made


def pair_of(sample: Sample, views: tuple[str, ...] = ("moco",), tokens=()) -> Pair:
    rejected = tuple(REJECTED[: len(views)])
    empty = tuple(() for _ in views)
    return Pair(sample.id, sample.image, sample.prompt, CHOSEN[0], rejected, views, tokens, empty)


def shown(vlm, request, view, work):
    """The pixel values that generation gave to the vision tower."""
    values = []
    tower = vlm.model.base_model.vision_tower
    hook = tower.register_forward_pre_hook(lambda *call: values.append(call[1][0]))
    asked = HfGeneration(max_new_tokens=1)
    engine = engine_of(asked, TinyModel(), lambda: vlm, placement(work), view)
    list(engine.run([request]))
    hook.remove()
    return values[0][0]


def test_the_pictures_in_training_are_those_that_generation_showed(tmp_path):
    """Not only alike: the same values, of image-space views (with partners) and pixel-space ones,
    though training sees fewer samples, in another order."""
    vlm, made = tiny(), samples(tmp_path, 5)
    kept = [made[3], made[1]]
    pairs = [pair_of(sample, ("blend", "moco", "noise", "prompt")) for sample in kept]
    rows = preferences_of(vlm, PairSet(pairs, tmp_path, VIEWS, made[::-1]))
    batch = PreferenceCollator(vlm, rows)([{"row": 0}, {"row": 1}])
    assert batch["view_owner"].tolist() == [0, 0, 0, 1, 1, 1]
    seen = batch["pixel_values"][-6:]
    clean = batch["pixel_values"][:2]
    for index, (sample, name) in enumerate(
        [(s, n) for s in kept for n in ("blend", "moco", "noise")]
    ):
        view = VIEWS[name]
        asker = Asker(
            TinyModel(),
            lambda: vlm,
            lambda: iter(made),
            tmp_path,
            view,
            HfGeneration(max_new_tokens=1),
            None,
        )
        assert torch.equal(seen[index], shown(vlm, asker.request(sample), view, tmp_path)), name
        assert not torch.equal(seen[index], clean[index // 3])


def test_an_image_loss_without_a_picture_is_refused(tmp_path):
    [sample] = samples(tmp_path, 1)
    with pytest.raises(StageError, match=r"no pair has an answer of a view that changes the pic"):
        preferences_of(tiny(), PairSet([pair_of(sample, ("prompt",))], tmp_path, VIEWS))


def test_changed_text_is_tokenised_as_the_model_would_have_said_it(tmp_path):
    """What the model really generated, decoded and tokenised again, gives the generated ids."""
    vlm = tiny()
    [sample] = samples(tmp_path, 1)
    requests = [
        Request(f"r{i}", f"p{i}", partial(picture, i), QUESTIONS[i % 3], 64) for i in range(6)
    ]
    replies = {reply.id: reply for some in Engine(vlm, 6).run(requests) for reply in some}
    assert {reply.stop for reply in replies.values()} == {"eos"}
    for request in requests:
        reply = replies[request.id]
        assert vlm.answer_ids(request.prompt, reply.text) == reply.tokens
    pair = pair_of(sample, ("moco", "noise"), tokens=(5, 6, 7))
    [row] = preferences_of(vlm, PairSet([pair], tmp_path))
    assert row.chosen == (5, 6, 7)
    assert [vlm.decode(ids) for ids in row.rejected] == REJECTED[:2]
    assert all(ids[-1] in vlm.eos_ids and ids.count(ids[-1]) == 1 for ids in row.rejected)
    with pytest.raises(StageError, match="image token"):
        vlm.answer_ids("What?", "a <image> b")


def test_a_preference_is_listed_as_often_as_asked(tmp_path):
    vlm, made = tiny(), samples(tmp_path, 2)
    pairs = [pair_of(sample) for sample in made]
    rows = preferences_of(vlm, PairSet(pairs, tmp_path), repeat=3)
    assert [row.id for row in rows] == ["s0", "s1", "s0#2", "s1#2", "s0#3", "s1#3"]
    assert [row.chosen for row in rows[:2]] * 3 == [row.chosen for row in rows]


def test_the_align_stage_with_every_kind_of_view(tmp_path):
    vlm, made = tiny(), samples(tmp_path / "pictures", 4)
    pairs = [pair_of(sample, ("blend", "noise", "prompt")) for sample in made]
    spec = DpoTraining(loss={"sigmoid": 1, "image": 1, "anchor": 1}, batch_size=4, repeat=2)
    place = placement(tmp_path / "work")
    summary = align(job(vlm, spec, place), PairSet(pairs, tmp_path / "pictures", VIEWS, made))
    assert summary["preferences"] == 8 and summary["rejected"] == 24 and summary["steps"] == 2
    assert len((tmp_path / "work" / "metrics.jsonl").read_text().splitlines()) == 2
    assert {p.name for p in (tmp_path / "work").iterdir()} == {
        "adapter",
        "metrics.jsonl",
        "throughput.jsonl",
    }
    assert load_image(tmp_path / "pictures", made[0].image).size == picture(0).size
