"""Every family that conf/model names works from load to trained adapter: transformers' own classes
and processors, tiny random weights (tests/models/families.py)."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
from functools import cache, partial
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image, ImageChops, ImageOps, ImageStat
from safetensors.torch import load_file
from transformers import AutoImageProcessor

import seva_exp
from seva_exp import Experiment, Machine
from seva_exp.augment import DiffusionNoise
from seva_exp.data import FolderData
from seva_exp.errors import InputError
from seva_exp.generation import HfGeneration, engine, loop
from seva_exp.interfaces import EncodedImage, Placement, Reply, Request
from seva_exp.models import HubModel
from seva_exp.models.pixels import batch_pixels
from seva_exp.models.vlm import Vlm, load
from seva_exp.progress import progress
from seva_exp.randomness import torch_rng
from seva_exp.training import DpoTraining
from seva_exp.training.collate import Preference
from seva_exp.training.dpo import train

from .families import FAMILIES, build, draw

MACHINE = Machine(device="cpu", dtype="float32")
SIZES = [(60, 30), (32, 32), (27, 75), (150, 90)]
PROMPTS = ["Describe the image.", "What is\nin it?  ", "日本 ünï <b>?", ""]
CONF = Path(__file__).parents[2] / "conf" / "model"
NAMED = {
    "llava15_7b": "llava15",
    "llava15_13b": "llava15",
    "llava16_mistral_7b": "llava16_mistral",
    "qwen3_vl_8b": "qwen3_vl",
    "smolvlm2": "smolvlm2",
}
each_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(autouse=True)
def numbers_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolVLM's processor insists on a package that spells numbers in video prompts."""
    if importlib.util.find_spec("num2words") is None:
        from transformers.models.smolvlm import processing_smolvlm

        monkeypatch.setattr(processing_smolvlm, "num2words", str)


@pytest.fixture(scope="module")
def spec_of(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda name: build(name, root / name))


@pytest.fixture
def vlm_of(spec_of):
    """A loaded model per family; loaded anew in each test, since training changes it."""
    return cache(lambda name: load(spec_of(name), MACHINE))


def shown(vlm: Vlm, picture: Image.Image) -> Image.Image:
    """The picture as the original code gives it to the processor."""
    if not vlm.spec.pad_to_square:
        return picture
    mean = tuple(int(255 * value) for value in vlm.processor.image_processor.image_mean)
    return ImageOps.pad(picture, (max(picture.size),) * 2, color=mean)


def published(vlm: Vlm, picture: Image.Image, prompt: str) -> dict[str, torch.Tensor]:
    """Inputs made the way a model card shows it: by the processor alone."""
    image = {"type": "image", "image": shown(vlm, picture)}
    messages = [{"role": "user", "content": [image, {"type": "text", "text": prompt}]}]
    if vlm.spec.system_prompt:
        system = {"type": "text", "text": vlm.spec.system_prompt}
        messages.insert(0, {"role": "system", "content": [system]})
    return vlm.processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


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


def test_a_missing_package_is_named(spec_of, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.smolvlm import processing_smolvlm

    spec = spec_of("smolvlm2")
    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with pytest.raises(InputError, match=r"model\.path=.*pip install num2words"):
        load(spec, MACHINE)


def test_a_model_without_chat_template_is_refused(spec_of, tmp_path: Path) -> None:
    spec = spec_of("llava15")
    shutil.copytree(spec.path, tmp_path / "base")
    (tmp_path / "base" / "chat_template.json").unlink()
    with pytest.raises(InputError, match=r"model\.path=.*no chat template"):
        load(spec.model_copy(update={"path": str(tmp_path / "base")}), MACHINE)


@each_family
def test_encoding_equals_the_processors(name, vlm_of) -> None:
    vlm = vlm_of(name)
    for turn, size in enumerate(SIZES):
        picture = draw(*size, turn)
        image = vlm.encode_image(picture)
        for prompt in PROMPTS:
            expected = published(vlm, picture, prompt)
            encoded = vlm.encode(image, prompt)
            assert list(encoded.ids) == expected.pop("input_ids")[0].tolist()
            types = {key: list(value) for key, value in encoded.types.items()}
            assert types == {
                key: expected.pop(key)[0].tolist() for key in [*expected] if "token_type" in key
            }
            del expected["attention_mask"]
            assert expected.keys() == image.pixels.keys()
            assert all(torch.equal(expected[key], image.pixels[key]) for key in expected)
    assert ("mm_token_type_ids" in image.types) == (name == "qwen3_vl")
    if vlm.processor.tokenizer.bos_token:
        assert encoded.ids.count(vlm.processor.tokenizer.bos_token_id) == 1


def test_a_template_that_writes_the_first_token_does_not_double_it(spec_of, tmp_path) -> None:
    spec = spec_of("llava16_mistral")  # its tokenizer writes one as well
    shutil.copytree(spec.path, tmp_path / "copy")
    template = {"chat_template": "{{ bos_token }}" + FAMILIES["llava16_mistral"].template}
    (tmp_path / "copy" / "chat_template.json").write_text(json.dumps(template), encoding="utf-8")
    vlm = load(spec.model_copy(update={"path": str(tmp_path / "copy")}), MACHINE)
    ids = vlm.encode(vlm.encode_image(draw(60, 30)), "What?").ids
    assert list(ids) == published(vlm, draw(60, 30), "What?")["input_ids"][0].tolist()
    assert ids.count(vlm.processor.tokenizer.bos_token_id) == 1


@each_family
def test_one_batch_answers_as_one_by_one(name, vlm_of, monkeypatch) -> None:
    vlm, batch = vlm_of(name), requests()
    expected = [answer_alone(vlm, request.load(), request.prompt, 8) for request in batch]
    same_prompt = [tuple(expected[i]) for i in (0, 1, 4)]
    assert len(set(same_prompt)) > 1  # the picture matters
    seen, features = [], loop.features_of
    monkeypatch.setattr(
        loop, "features_of", lambda vlm, images: seen.extend(images) or features(vlm, images)
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
    if name == "qwen3_vl":
        patches = after.reshape(len(after), 3, 2, 8, 8)
        assert torch.equal(patches[:, :, 0], patches[:, :, 1])
        eps = eps.reshape(len(after), 3, 2, -1)[:, :, 0]
    assert len(eps.unique()) > 0.99 * eps.numel()


@pytest.mark.parametrize("name", ["llava16_mistral", "smolvlm2"])
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
    for size in SIZES:
        picture = draw(*size)
        image = vlm.encode_image(picture)
        seen = vlm.to_picture(image)
        expected = shown(vlm, picture).resize(seen.size, Image.Resampling.BICUBIC)
        near = distance(seen, expected)
        assert near < 4
        assert distance(seen, ImageOps.mirror(expected)) > 5 * near
        assert distance(seen, ImageOps.flip(expected)) > 5 * near
        assert near < distance(vlm.to_picture(noised(vlm, image, 300)), expected)
        assert distance(vlm.to_picture(noised(vlm, image, 999)), expected) > 40


def preferences() -> list[Preference]:
    """Ids as a model could have generated them, of several lengths."""
    return [
        Preference(
            f"s{i}",
            PROMPTS[i],
            partial(draw, *SIZES[i], i),
            tuple(range(10 + i, 18 + 2 * i)),
            (tuple(range(40, 43 + i)),),
        )
        for i in range(4)
    ]


def trained(vlm: Vlm, work: Path, checkpointing: bool = False) -> tuple[Path, list[dict]]:
    placement = Placement("cpu", 4, 2, checkpointing, partial(progress, "off"), work)
    training = DpoTraining(batch_size=2, learning_rate=1e-2, warmup_ratio=0.0, lora_rank=4)
    return train(vlm, preferences(), training, placement, 0, "base", lambda step, row: None)


def logits(vlm: Vlm) -> torch.Tensor:
    with torch.inference_mode():
        return vlm.model(**published(vlm, draw(60, 30), "What?")).logits[0, -1].float()


@each_family
def test_two_steps_train_the_language_model_only(name, vlm_of, spec_of, tmp_path) -> None:
    vlm = vlm_of(name)
    allowed = set(vlm.language_modules())
    inside = [module for module in allowed if ".layers." in module]
    assert len(inside) == len(allowed) == 7 * 3
    assert not any(word in module for module in allowed for word in ("vis", "connector", "lm_head"))
    base = logits(vlm)
    folder, rows = trained(vlm, tmp_path)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5) and len(rows) == 2
    assert rows[1]["loss"] != pytest.approx(math.log(2), abs=1e-4)
    names = [*load_file(folder / "adapter_model.safetensors")]
    parts = [name.removeprefix("base_model.model.").split(".lora_") for name in names]
    assert {module for module, _ in parts} == allowed and len(parts) == 2 * len(allowed)
    vlm.model.eval()
    after = logits(load(spec_of(name), MACHINE, folder))
    assert torch.allclose(after, logits(vlm), atol=1e-4)  # what was trained is what is loaded
    assert (after - base).abs().max() > 0.05


@each_family
def test_checkpointing_and_bfloat16_train_and_answer(name, spec_of, tmp_path) -> None:
    machine = MACHINE.model_copy(update={"dtype": "bfloat16"})
    vlm = load(spec_of(name), machine)
    base = logits(vlm)
    folder, rows = trained(vlm, tmp_path, checkpointing=True)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    again = load(spec_of(name), machine, folder)
    assert (logits(again) - base).abs().max() > 0.05
    replies = replies_of(again, requests(3))
    assert all(len(reply.tokens) == 3 for reply in replies)


@each_family
def test_a_whole_run_on_a_folder_of_pictures(name, spec_of, tmp_path) -> None:
    (tmp_path / "pictures").mkdir()
    for turn in range(6):
        draw(*SIZES[turn % 4], turn).save(tmp_path / "pictures" / f"{turn}.png")
    experiment = Experiment(
        aug={"noise": DiffusionNoise(step=999)},
        model=spec_of(name),
        data=FolderData(path=str(tmp_path / "pictures")),
        generation=HfGeneration(max_new_tokens=8),
        dpo=DpoTraining(batch_size=2),
        benchmark={},
    )
    machine = MACHINE.model_copy(
        update={"runs": str(tmp_path / "runs"), "batch_size": 4, "progress": "off"}
    )
    report = seva_exp.run(experiment, machine)
    [adapter] = (tmp_path / "runs").rglob("adapter_model.safetensors")
    assert "align" in {stage.name for stage in report.stages}
    stored = load(spec_of(name), machine, adapter.parent)
    assert (logits(stored) - logits(load(spec_of(name), machine))).abs().max() > 0
    previews = sorted((tmp_path / "runs").rglob("previews/*.png"))
    assert len({path.name for path in previews}) == 6
