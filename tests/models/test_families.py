"""Every family that conf/model names is asked as its own processor asks it: transformers' own
classes and processors, tiny random weights (tests/models/families.py)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image, ImageChops, ImageOps, ImageStat
from transformers import AutoImageProcessor

from seva_exp.augment import DiffusionNoise
from seva_exp.core.errors import InputError
from seva_exp.core.interfaces import EncodedImage, Reply, Request
from seva_exp.core.randomness import torch_rng
from seva_exp.decoding import engine, joining
from seva_exp.models import HubModel
from seva_exp.models.family import Family
from seva_exp.models.pixels import batch_pixels
from seva_exp.models.vlm import Vlm, load

from .asking import BROKEN, MACHINE, PROMPTS, SHAPES, SIZES, published, shown
from .families import FAMILIES, draw, each_family

CONF = Path(__file__).parents[2] / "conf" / "model"
NAMED = {
    "gemma3_4b": "gemma3",
    "idefics3_8b": "idefics3",
    "internvl3_8b": "internvl3",
    "llava15_13b": "llava15",
    "llava15_7b": "llava15",
    "llava16_mistral_7b": "llava16_mistral",
    "llava16_vicuna_7b": "llava16_vicuna",
    "llava_onevision_7b": "llava_onevision",
    "paligemma2_3b": "paligemma2",
    "qwen25_vl_3b": "qwen25_vl",
    "qwen25_vl_7b": "qwen25_vl",
    "qwen3_vl_2b": "qwen3_vl",
    "qwen3_vl_4b": "qwen3_vl",
    "qwen3_vl_8b": "qwen3_vl",
    "smolvlm2": "smolvlm2",
}
TILED = ["idefics3", "llava16_mistral", "llava16_vicuna", "llava_onevision", "smolvlm2"]
TYPES = {
    "gemma3": ["token_type_ids"],
    "paligemma2": ["token_type_ids"],
    "qwen25_vl": ["mm_token_type_ids"],
    "qwen3_vl": ["mm_token_type_ids"],
}
QWENS = ["qwen25_vl", "qwen3_vl"]


def answer_alone(vlm: Vlm, picture: Image.Image, prompt: str, tokens: int) -> list[int]:
    inputs = published(vlm, picture, prompt)
    out = vlm.model.generate(**inputs, do_sample=False, max_new_tokens=tokens)
    return out[0, inputs["input_ids"].shape[1] :].tolist()


def requests(tokens: int = 8) -> list[Request]:
    """Pictures of several shapes, one of them asked twice."""
    asked = [(0, 0), (1, 0), (2, 1), (0, 2), (3, 0)]
    return [
        Request(f"r{i}", f"p{s}", partial(draw, *SIZES[s], s), PROMPTS[p], tokens)
        for i, (s, p) in enumerate(asked)
    ]


def replies_of(vlm: Vlm, asked: list[Request]) -> list[Reply]:
    """In the order of the requests."""
    found = {r.id: r for some in engine.Engine(vlm, 8).run(asked) for r in some}
    return [found[request.id] for request in asked]


@pytest.mark.parametrize("file", NAMED)
def test_conf_asks_as_tested_here(file: str) -> None:
    model = HubModel(**yaml.safe_load((CONF / f"{file}.yaml").read_text(encoding="utf-8")))
    family = FAMILIES[NAMED[file]]
    assert (model.system_prompt, model.pad_to_square) == (
        family.system_prompt,
        family.pad_to_square,
    )
    named = {path.stem for path in CONF.glob("*.yaml") if "kind: hub" in path.read_text()}
    assert named == set(NAMED)


@each_family
def test_loads_the_real_processor_with_pil_pixels(name, vlm_of, tmp_path, monkeypatch) -> None:
    wanted = []
    from_pretrained = AutoImageProcessor.from_pretrained
    monkeypatch.setattr(
        AutoImageProcessor,
        "from_pretrained",
        lambda *a, **k: wanted.append(k["backend"]) or from_pretrained(*a, **k),
    )
    vlm = vlm_of(name)
    assert wanted == ["pil"]  # asked for, not merely found for want of torchvision
    kind = type(vlm.processor)
    assert kind.__name__ == FAMILIES[name].processor
    assert any(base.__module__.startswith("transformers.models.") for base in kind.__mro__)
    assert type(vlm.processor.image_processor).__name__.endswith("Pil")
    # The newer layout, in which processor_config.json holds all, gives the same.
    vlm.model.save_pretrained(tmp_path)
    vlm.processor.save_pretrained(tmp_path)
    again = load(vlm.spec.model_copy(update={"path": str(tmp_path)}), MACHINE)
    picture = draw(60, 30)
    first, second = (v.encode(v.encode_image(picture), "What?") for v in (vlm, again))
    assert first.ids == second.ids
    assert torch.equal(first.image.pixels["pixel_values"], second.image.pixels["pixel_values"])


@each_family
def test_encoding_equals_the_processors(name, vlm_of) -> None:
    vlm = vlm_of(name)
    for turn, size in enumerate(SHAPES):
        picture = draw(*size, turn)
        image = vlm.encode_image(picture)
        for prompt in (*PROMPTS, BROKEN):
            expected = dict(published(vlm, picture, prompt))
            encoded = vlm.encode(image, prompt)
            assert list(encoded.ids) == expected.pop("input_ids")[0].tolist()
            types = {key: list(value) for key, value in encoded.types.items()}
            assert types == {
                key: expected.pop(key)[0].tolist() for key in [*expected] if "token_type" in key
            }
            del expected["attention_mask"]
            assert expected.keys() == image.pixels.keys()
            assert all(torch.equal(expected[key], image.pixels[key]) for key in expected)
    assert [*image.types] == TYPES.get(name, [])
    if vlm.processor.tokenizer.bos_token:
        assert encoded.ids.count(vlm.processor.tokenizer.bos_token_id) == 1


@each_family
def test_an_answer_ends_as_the_template_ends_it(name, vlm_of) -> None:
    vlm = vlm_of(name)
    tokens = vlm.processor.tokenizer
    ends = FAMILIES[name].ends or (tokens.eos_token,)
    assert vlm.eos_ids == set(tokens.convert_tokens_to_ids(ends))
    prompt = tokens.decode(vlm.encode(vlm.encode_image(draw(60, 30)), "What?").ids)
    ids = vlm.answer_ids("What?", "A red square.")
    assert tokens.decode(ids).lstrip() == f"A red square.{ends[0]}"
    blank = "" if prompt.endswith("\n") else " "
    assert tokens.decode(ids)[: len(blank) + 1] == f"{blank}A"
    assert vlm.decode(ids) == "A red square."


@each_family
def test_a_system_prompt_is_asked_or_refused(name, spec_of) -> None:
    asked = spec_of(name).model_copy(update={"system_prompt": "Be brief."})
    if name == "paligemma2":
        with pytest.raises(InputError, match=r"model\.system_prompt='Be brief\.'.*no system turn"):
            load(asked, MACHINE)
        return
    vlm = load(asked, MACHINE)
    picture = draw(60, 30)
    ids = vlm.encode(vlm.encode_image(picture), "What?").ids
    assert list(ids) == published(vlm, picture, "What?")["input_ids"][0].tolist()
    text = vlm.processor.tokenizer.decode(ids)
    assert text.count("Be brief.") == 1 and "You are a helpful" not in text


@each_family
def test_a_picture_may_be_padded_to_a_square(name, spec_of) -> None:
    vlm = load(spec_of(name).model_copy(update={"pad_to_square": True}), MACHINE)
    for size in SIZES:
        expected = published(vlm, draw(*size), "What?")
        encoded = vlm.encode(vlm.encode_image(draw(*size)), "What?")
        assert list(encoded.ids) == expected["input_ids"][0].tolist()
        assert torch.equal(encoded.image.pixels["pixel_values"], expected["pixel_values"])


@each_family
def test_one_batch_answers_as_one_by_one(name, vlm_of, monkeypatch) -> None:
    vlm, batch = vlm_of(name), requests()
    expected = [answer_alone(vlm, request.load(), request.prompt, 8) for request in batch]
    same_prompt = [tuple(expected[i]) for i in (0, 1, 4)]
    assert len(set(same_prompt)) > 1  # the picture matters
    seen, features = [], joining.features_of
    monkeypatch.setattr(
        joining, "features_of", lambda vlm, images: seen.extend(images) or features(vlm, images)
    )
    replies = replies_of(vlm, batch)
    assert [list(reply.tokens) for reply in replies] == expected
    assert len(seen) == 4  # each picture once
    monkeypatch.setattr(engine, "unproven", lambda vlm: "of the test")
    assert replies_of(vlm, batch) == replies


@each_family
def test_an_answer_that_ends_early_ends_alike_in_a_batch(name, vlm_of) -> None:
    vlm, batch = vlm_of(name), requests()
    long = [answer_alone(vlm, request.load(), request.prompt, 8) for request in batch]
    stop = long[0][2]
    vlm.model.generation_config.eos_token_id = [*vlm.eos_ids, stop]
    replies = replies_of(vlm, batch)
    for reply, tokens in zip(replies, long, strict=True):
        cut = tokens[: tokens.index(stop) + 1] if stop in tokens else tokens
        assert (list(reply.tokens), reply.stop) == (cut, "eos" if stop in tokens else "length")
    assert len({len(reply.tokens) for reply in replies}) > 1


@each_family
def test_no_answer_holds_an_image_token(name, vlm_of) -> None:
    vlm = vlm_of(name)
    [reply] = replies_of(vlm, requests(1)[:1])
    words = vlm.model.get_output_embeddings().weight.data
    words[vlm.image_token_id] = 2 * words[reply.tokens[0]]  # the likeliest by far
    [again] = replies_of(vlm, requests(8)[:1])
    assert again.tokens[0] == reply.tokens[0] and vlm.image_token_id not in again.tokens


def noised(vlm: Vlm, image: EncodedImage, step: int = 500) -> EncodedImage:
    noise = DiffusionNoise(step=step)
    return vlm.map_pixels(image, lambda values: noise(values, torch_rng(0, "noise", "a")))


@each_family
def test_noise_reaches_every_image_value_and_nothing_else(name, vlm_of) -> None:
    vlm = vlm_of(name)
    image = vlm.encode_image(draw(*SIZES[0]))
    untouched = {key: value.clone() for key, value in image.pixels.items()}
    changed = noised(vlm, image)
    assert all(torch.equal(image.pixels[key], untouched[key]) for key in untouched)
    assert (changed.placeholders, changed.types) == (image.placeholders, image.types)
    before, after = untouched.pop("pixel_values"), changed.pixels["pixel_values"]
    assert all(torch.equal(changed.pixels[key], untouched[key]) for key in untouched)
    assert changed.pixels.keys() == {"pixel_values", *untouched}
    signal, strength = DiffusionNoise(step=500).coefficients()
    eps = (after - signal * before) / strength
    assert abs(eps.mean()) < 0.08 and abs(eps.std() - 1) < 0.08
    if name in QWENS:
        patches = after.reshape(len(after), 3, 2, 8, 8)
        assert torch.equal(patches[:, :, 0], patches[:, :, 1])
        eps = eps.reshape(len(after), 3, 2, -1)[:, :, 0]
    assert len(eps.unique()) > 0.99 * eps.numel()


@pytest.mark.parametrize("name", ["llava15", "llava16_mistral", "qwen3_vl"])
def test_a_family_that_is_not_known_is_shown_pictures_by_their_shape(name, vlm_of, monkeypatch):
    vlm = vlm_of(name)
    image = vlm.encode_image(draw(*SIZES[0]))
    known = noised(vlm, image).pixels["pixel_values"], vlm.to_picture(image).tobytes()
    monkeypatch.setattr(vlm, "_family", Family())
    assert torch.equal(noised(vlm, image).pixels["pixel_values"], known[0])
    assert vlm.to_picture(image).tobytes() == known[1]


@pytest.mark.parametrize("name", TILED)
def test_noise_leaves_padding_at_zero(name, vlm_of) -> None:
    vlm = vlm_of(name)
    small, large = (vlm.encode_image(draw(*size)) for size in ((48, 24), (48, 48)))
    tiles = small.pixels["pixel_values"].shape[1]
    both = batch_pixels([small.pixels, large.pixels])
    padded = {key: value[:1].clone() for key, value in both.items()}
    assert padded["pixel_values"].shape[1] > tiles
    if "pixel_attention_mask" in padded:
        padded["pixel_attention_mask"][:, 0, -3:] = 0
        padded["pixel_values"][:, 0, :, -3:] = 0.0
    values = noised(vlm, EncodedImage(padded, small.placeholders)).pixels["pixel_values"]
    assert not values[:, tiles:].any()
    if "pixel_attention_mask" in padded:
        assert not values[:, 0, :, -3:].any()
        values = values[:, :, :, :-3]
    assert values[:, :tiles].ne(0).all()


def distance(one: Image.Image, other: Image.Image) -> float:
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


@each_family
def test_the_picture_comes_back(name, vlm_of) -> None:
    vlm = vlm_of(name)
    for size in SHAPES:
        picture = draw(*size)
        image = vlm.encode_image(picture)
        seen = vlm.to_picture(image)
        expected = shown(vlm, picture).resize(seen.size, vlm.processor.image_processor.resample)
        near = distance(seen, expected)
        assert near < 5.5  # the Idefics line resizes twice
        assert distance(seen, ImageOps.mirror(expected)) > 5 * near
        assert distance(seen, ImageOps.flip(expected)) > 5 * near
        assert near < distance(vlm.to_picture(noised(vlm, image, 300)), expected)
        assert distance(vlm.to_picture(noised(vlm, image, 999)), expected) > 40
