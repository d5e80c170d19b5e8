"""Scores of log-probabilities, each beside a loop over tokens in float64, written out from its
formula, on the embedded model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from seva_exp import Machine
from seva_exp.augment import BadPrompt, DiffusionNoise
from seva_exp.core.digests import file_sha256
from seva_exp.core.interfaces import Placement
from seva_exp.core.progress import progress
from seva_exp.core.records import AnswerGroup, Sample
from seva_exp.data import ShapesData
from seva_exp.inputs.images import load_image
from seva_exp.inputs.views import View
from seva_exp.models import TinyModel
from seva_exp.models.vlm import load
from seva_exp.scores import ImplicitReward, MeanLogprob, VisualPmi
from seva_exp.scores.base import Desk

TEXTS = [
    ("The image shows a red star.", "The image shows a blue ring and a cross.", "yes"),
    ("red", "no"),
    ("two",),
]


@dataclass
class Case:
    """Groups on the embedded world, and the model in float64."""

    groups: list[AnswerGroup]
    root: Path
    desk: Desk

    def logprob(self, group, text, *, picture=None, prompt=None, model=None) -> float:
        """Mean over the tokens of log p, one forward pass a token. ``picture``: encoded; None: none
        at all."""
        vlm = load(TinyModel(), Machine(device="cpu"))
        net = (model or vlm.model).double()
        asked = prompt or group.sample.prompt
        kwargs = {}
        if picture is None:
            ids = vlm.processor.tokenizer(
                vlm.chat(asked).replace(" <image>", ""), add_special_tokens=False
            )["input_ids"]
            assert vlm.image_token_id not in ids
        else:
            ids = list(vlm.encode(picture, asked).ids)
            kwargs["pixel_values"] = picture.pixels["pixel_values"].double()
        total, answer = 0.0, self.tokens(vlm, group, text)
        for token in answer:
            with torch.no_grad():
                logits = net(input_ids=torch.tensor([ids]), **kwargs).logits[0, -1]
            total += torch.log_softmax(logits, -1)[token].item()
            ids.append(token)
        return total / len(answer)

    @staticmethod
    def tokens(vlm, group, text):
        return group.tokens[group.texts.index(text)] or vlm.answer_ids(group.sample.prompt, text)


@pytest.fixture
def case(tmp_path) -> Case:
    made = ShapesData(samples=3).build(0, tmp_path, file_sha256)
    vlm = load(TinyModel(), Machine(device="cpu"))
    groups = []
    for sample, texts in zip(made.samples, TEXTS, strict=True):
        tokens = [vlm.answer_ids(sample.prompt, text) for text in texts]
        tokens[-1] = ()  # its text alone is known
        groups.append(AnswerGroup(sample, texts, tuple(tokens), (1,) * len(texts)))
    root = tmp_path / "images"
    placement = Placement("cpu", 4, 4, False, lambda *words: progress("off", *words), tmp_path)
    samples: list[Sample] = made.samples
    where = Desk(
        TinyModel(), lambda: load(TinyModel(), Machine(device="cpu")), lambda: None, root,
        lambda: iter(samples), placement, "scores.x", 0,
    )  # fmt: skip
    return Case(groups, root, where)


def clean(case, group):
    vlm = load(TinyModel(), Machine(device="cpu"))
    return vlm.encode_image(load_image(case.root, group.sample.image))


def scored(score, case, **fields):
    """In batches of two, so that more than one is made."""
    where = replace(case.desk, **fields)
    with score.scorer(where, case.groups) as scorer:
        return scorer(case.groups[:2]) + scorer(case.groups[2:])


def check(case, found, expected):
    for group, values in zip(case.groups, found, strict=True):
        wanted = [expected(group, text) for text in group.texts]
        assert values == pytest.approx(wanted, abs=2e-5), group.sample.id


@pytest.mark.parametrize("fast", ["on", "off"])
def test_mean_logprob(case, fast):
    found = scored(MeanLogprob(), case, fast=fast)
    check(case, found, lambda g, text: case.logprob(g, text, picture=clean(case, g)))


@pytest.mark.parametrize("fast", ["on", "off"])
def test_visual_pmi_without_a_picture(case, fast):
    def expected(group, text):
        seen = case.logprob(group, text, picture=clean(case, group))
        return seen - case.logprob(group, text)

    check(case, scored(VisualPmi(), case, fast=fast), expected)


def test_visual_pmi_against_noise_and_against_a_bad_prompt(case):
    def expected(view):
        vlm = load(TinyModel(), Machine(device="cpu"))

        def one(group, text):
            picture, id = clean(case, group), group.sample.id
            other = view.pixels(vlm, picture, id)
            prompt = view.prompt(group.sample.prompt, id)
            assert (prompt != group.sample.prompt) or (other is not picture)
            seen = case.logprob(group, text, picture=picture)
            return seen - case.logprob(group, text, picture=other, prompt=prompt)

        return one

    for name, augmentation in (
        ("noise", DiffusionNoise(step=700)), ("bad", BadPrompt(prompts="tiny")),
    ):  # fmt: skip
        view = View(name, augmentation, 0)
        found = scored(VisualPmi(view=name), case, view=view)
        check(case, found, expected(view))


def test_implicit_reward(case, tmp_path):
    """A random adapter is the policy; the model is the reference again where it is taken away."""
    vlm = load(TinyModel(), Machine(device="cpu"))
    torch.manual_seed(0)
    names = [name for name in vlm.language_modules() if "q_proj" in name or "down_proj" in name]
    policy = get_peft_model(vlm.model, LoraConfig(r=4, lora_alpha=8, target_modules=names))
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    adapter = tmp_path / "adapter"
    policy.save_pretrained(adapter)

    def reward(group, text, picture):
        own = case.logprob(group, text, picture=picture, model=policy)
        return 0.1 * (own - case.logprob(group, text, picture=picture))

    def expected(group, text):
        r_v, r_t = reward(group, text, clean(case, group)), reward(group, text, None)
        return r_v - 0.7 * max(0.0, r_t - r_v)

    found = scored(ImplicitReward(), case, start=adapter)
    check(case, found, expected)
    spread = [value for values in found for value in values]
    assert max(spread) - min(spread) > 1e-3, "the adapter does something"


def test_an_answer_that_is_none_to_this_model_has_no_score(case):
    group = case.groups[0]
    broken = replace(group, texts=(group.texts[0], "<image>"), tokens=(group.tokens[0], ()))
    case.groups = [replace(broken, counts=(1, 1))]
    with MeanLogprob().scorer(case.desk, case.groups) as scorer:
        [(one, other)] = scorer(case.groups)
    assert one is not None and other is None


def test_the_model_is_left_as_it_was(case):
    vlm = load(TinyModel(), Machine(device="cpu"))
    before = dict(vlm.model.__dict__), vlm.model.config._attn_implementation
    with VisualPmi().scorer(replace(case.desk, load_base=lambda: vlm), case.groups) as scorer:
        first = scorer(case.groups)
        assert scorer(case.groups) == first
    assert vlm.model.__dict__.keys() == before[0].keys()
    assert vlm.model.config._attn_implementation == before[1]
