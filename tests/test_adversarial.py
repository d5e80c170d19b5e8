"""Pictures that the model finds itself against its own answer (+aug=adversarial), on the embedded
model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
import torch

from seva_exp import InputError, Machine, Options, run
from seva_exp.augment import Adversarial
from seva_exp.augment.adversarial import file_of
from seva_exp.command.config import parse
from seva_exp.core.digests import FileDigests
from seva_exp.core.records import Answer, Sample
from seva_exp.core.store import PARTS, Journal, Store
from seva_exp.experiment.graph import graph
from seva_exp.inputs.images import load_image
from seva_exp.inputs.views import View
from seva_exp.stages import StageContext
from seva_exp.training.attack import Attack
from seva_exp.training.collate import Preference

from .command.test_config import composed
from .test_methods import rows
from .training.tools import logprob, picture, tiny

SMALL = ["data.samples=6", "benchmark=none", "tracker=none", "+aug=adversarial"]
FEW = ["aug.adversarial.steps=3", "aug.adversarial.eps=6"]


@pytest.fixture(scope="module")
def vlm():
    return tiny()


def shown(vlm, image, delta: torch.Tensor):
    """The picture with a change in 1/255, written out."""
    std = torch.tensor(vlm.processor.image_processor.image_std)[:, None, None]
    return vlm.map_pixels(image, lambda values: values + delta.float() / (255 * std))


def plain(vlm, image, prompt: str, answer, eps: int, steps: int, size: int, rng) -> torch.Tensor:
    """PGD as in its paper, value by value bounded, on the picture in 1/255; the best on the way."""
    processor = vlm.processor.image_processor
    mean, std = (
        torch.tensor(given)[:, None, None] for given in (processor.image_mean, processor.image_std)
    )
    values = image.pixels["pixel_values"]
    bright = (values * std + mean) * 255
    d = torch.randint(-eps, eps + 1, values.shape, generator=rng).float()
    best, least = torch.zeros_like(d), None
    tried = []
    for step in range(-1, steps + 1):
        if step == 0:  # before: no change at all
            tried.append((torch.zeros_like(d), least))
        d = torch.where(bright.round() + d < 0, -bright.round(), d)
        d = torch.where(bright.round() + d > 255, 255 - bright.round(), d)
        if step < 0:
            least = logprob(vlm, Preference("a", prompt, None, answer, ()), answer, image)
            continue
        leaf = d.clone().requires_grad_(True)
        seen = vlm.map_pixels(image, lambda v, leaf=leaf: v + leaf / (255 * std))
        encoded = vlm.encode(seen, prompt)
        inputs = vlm.image_inputs([encoded.image])
        logits = vlm.model(input_ids=torch.tensor([encoded.ids + answer]), **inputs).logits[0]
        start = len(encoded.ids)
        total = sum(logits[start - 1 + t].log_softmax(-1)[token] for t, token in enumerate(answer))
        [gradient] = torch.autograd.grad(total, leaf)
        if total.item() < least:
            best, least = d, total.item()
        d = (d - size * gradient.sign()).clamp(-eps, eps)
    return best


QUESTION, TEXT = "Describe the image.", "The image shows a red star."


@pytest.mark.parametrize("eps", [1, 8])
def test_the_answer_is_less_likely_and_the_bound_is_kept_exactly(vlm, eps):
    answer = vlm.answer_ids(QUESTION, TEXT)
    image = vlm.encode_image(picture(3))
    attack = Attack(vlm, eps, 4, min(2, eps))
    found = attack(image, QUESTION, answer, torch.Generator().manual_seed(0))
    again = attack(image, QUESTION, answer, torch.Generator().manual_seed(0))
    assert torch.equal(found.delta, again.delta)
    assert found.delta.dtype == torch.int8
    assert 0 < found.delta.abs().max() <= eps
    row = Preference("a", QUESTION, None, answer, ())
    before = logprob(vlm, row, answer, image) / len(answer)
    after = logprob(vlm, row, answer, shown(vlm, image, found.delta)) / len(answer)
    assert (found.before, found.after) == pytest.approx((before, after), abs=1e-4)
    assert after < before - 0.01
    seen = shown(vlm, image, found.delta).pixels["pixel_values"]
    processor = vlm.processor.image_processor
    mean, std = (
        torch.tensor(given)[:, None, None] for given in (processor.image_mean, processor.image_std)
    )
    bright, plain_ = ((x * std + mean) * 255 for x in (seen, image.pixels["pixel_values"]))
    assert bright.min() >= -0.02 and bright.max() <= 255.02
    assert (bright - plain_).abs().max() <= eps + 1e-3
    other = attack(image, QUESTION, answer, torch.Generator().manual_seed(1))
    assert not torch.equal(found.delta, other.delta)


def test_it_is_projected_gradient_descent(vlm):
    """Against the loop above."""
    answer = vlm.answer_ids(QUESTION, TEXT)
    image = vlm.encode_image(picture(4))
    found = Attack(vlm, 5, 3, 2)(image, QUESTION, answer, torch.Generator().manual_seed(5))
    expected = plain(vlm, image, QUESTION, answer, 5, 3, 2, torch.Generator().manual_seed(5))
    same = (found.delta.float() == expected).float().mean()
    assert same > 0.999  # a gradient of nearly 0 may have another sign


def test_random_changes_of_the_same_size_do_less(vlm):
    answer = vlm.answer_ids(QUESTION, TEXT)
    image = vlm.encode_image(picture(5))
    found = Attack(vlm, 8, 4, 3)(image, QUESTION, answer, torch.Generator().manual_seed(0))
    row, rng = Preference("a", QUESTION, None, answer, ()), torch.Generator().manual_seed(1)
    for _ in range(3):
        noise = 8 * (2 * torch.randint(0, 2, found.delta.shape, generator=rng) - 1)
        assert logprob(vlm, row, answer, shown(vlm, image, noise)) / len(answer) > found.after


def test_the_pictures_found_are_those_that_are_asked_about(tmp_path, vlm):
    machine = Machine(store=str(tmp_path / "store"), runs=str(tmp_path / "runs"), progress="off")
    wanted = parse(composed(*SMALL, *FEW)).experiment
    done = run(wanted, machine, Options(stop_after="pairs"))
    root = Path(done.dir)
    lines = (root / "attacks.adversarial/attacks.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    said = {a.sample_id: a for a in rows(done, "answers.clean/answers.jsonl", Answer)}
    bad = {a.sample_id: a for a in rows(done, "answers.adversarial/answers.jsonl", Answer)}
    assert [row["sample_id"] for row in found] == [*said] and bad.keys() == said.keys()
    assert sum(row["after"] < row["before"] for row in found) >= len(found) - 1
    view = View("adversarial", Adversarial(steps=3, eps=6), 0, kept=root / "attacks.adversarial")
    for sample, row in zip(rows(done, "samples/samples.jsonl", Sample), found, strict=True):
        image = vlm.encode_image(load_image(root / "samples/images", sample.image))
        seen, answer = view.pixels(vlm, image, sample.id), said[sample.id]
        one = Preference(sample.id, sample.prompt, None, answer.tokens, ())
        value = logprob(vlm, one, answer.tokens, seen) / len(answer.tokens)
        assert value == pytest.approx(row["after"], abs=1e-4)
        other = bad[sample.id]  # greedy: its own answer's first token is the likeliest there
        encoded = vlm.encode(seen, sample.prompt)
        with torch.inference_mode():
            logits = vlm.model(
                input_ids=torch.tensor([encoded.ids]), **vlm.image_inputs([encoded.image])
            ).logits[0, -1]
        assert int(logits.argmax()) == other.tokens[0]
    _goes_on(wanted, machine, root, tmp_path)


def _goes_on(wanted, machine: Machine, root: Path, folder: Path) -> None:
    """A killed stage goes on behind its journal, to the same bytes."""
    stages = {one.label: one for one in graph(wanted, FileDigests(folder))}
    stage = stages["attacks.adversarial"]
    store = Store(machine.store_root())
    made, work = store.path(stage.name, stage.key), folder / "again"
    lines = (made / "attacks.jsonl").read_text().splitlines()
    (work / PARTS).mkdir(parents=True)
    Journal(work / PARTS, "journal-0.jsonl").append([json.loads(line) for line in lines[:5]])
    inputs = {name: store.path(one.name, one.key) for name, one in stage.inputs.items()}
    quiet = StageContext(machine, FileDigests(folder), _no_bar, lambda *_: None)
    stage.run(work, inputs, quiet)
    assert (work / "attacks.jsonl").read_bytes() == (made / "attacks.jsonl").read_bytes()
    ids = [json.loads(line)["sample_id"] for line in lines]
    assert [(work / file_of(id)).exists() for id in ids] == [False] * 5 + [True]
    last = file_of(ids[-1])
    with numpy.load(work / last) as one, numpy.load(made / last) as other:
        assert (one["delta"] == other["delta"]).all()


def _no_bar(*args):
    from seva_exp.core.progress import progress

    return progress("off", *args)


def test_a_sample_without_an_attack_keeps_its_picture(tmp_path, vlm):
    image = vlm.encode_image(picture(1))
    seen = View("v", Adversarial(), 0, kept=tmp_path).pixels(vlm, image, "none")
    assert torch.equal(seen.pixels["pixel_values"], image.pixels["pixel_values"])


REFUSED = {
    "step_size=9 is more than": ["aug.adversarial.step_size=9", "aug.adversarial.eps=4"],
    "aug.adversarial: kind=adversarial takes gradients": ["generation=server"],
    "aug.adversarial: kind=adversarial shows its picture": ["+aug@aug.moco=moco", "dpo=mdpo"],
    "ambiguity.views.a: kind=adversarial": [
        "ambiguity=weak", "+ambiguity.views.a={kind: adversarial}",
    ],
    "aug.adversarial: kind=adversarial is no view": ["method=best_of_k", "+score=agreement"],
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_what_does_not_fit_is_refused_by_name(said):
    with pytest.raises(InputError, match=said):
        parse(composed(*SMALL, *REFUSED[said]))
