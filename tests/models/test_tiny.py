"""The embedded model: it builds, reloads exactly, and its training is exact and repeatable."""

import random
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from seva_exp.models import tiny, tiny_data, tiny_training
from seva_exp.models.tiny_data import Turn
from seva_exp.world import BIASED, QA, QUESTIONS, describe, draw, mentions, sample_scene
from seva_exp.world.language import CAREFUL_PROMPTS, IMAGINE_PROMPTS, PLAIN_PROMPTS

ON_LINES = "Image description:\nThe image shows a red star.\n"
ON_ONE_LINE = "Image description: The image shows a red star. "
SCENES = [sample_scene(random.Random(seed), BIASED) for seed in range(2)]
DESCRIBE = QA("Describe the image.", "The image shows a red star.", "description")
WHERE = QA("Where is the ring?", "top left", "position")
MOON = QA("Is there a moon in the image?", "No", "existence")
TURNS = [
    [Turn(DESCRIBE), Turn(WHERE, before=ON_LINES), Turn(DESCRIBE, before=ON_LINES)],
    [Turn(MOON, shift=37), Turn(WHERE, before=ON_ONE_LINE), Turn(MOON, before=ON_LINES)],
]


@pytest.fixture(scope="module")
def processor():
    return tiny.build_processor()


@pytest.fixture(scope="module")
def model(processor):
    return tiny.build_model(processor.tokenizer, seed=0).eval()


def messages(question: str, answer: str | None = None) -> list[dict]:
    content = [{"type": "image"}, {"type": "text", "text": question}]
    found = [{"role": "user", "content": content}]
    if answer is not None:
        found.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return found


def encode(processor, scene, question: str, answer: str | None = None):
    """One conversation through the public path: template, then processor."""
    text = processor.apply_chat_template(
        messages(question, answer), add_generation_prompt=answer is None
    )
    return processor(
        images=[draw(scene)], text=[text], return_tensors="pt", add_special_tokens=False
    )


def test_model_and_processor_agree_on_image_tokens(processor, model):
    inputs = encode(processor, SCENES[0], "Where is the star?")
    n = (inputs["input_ids"] == model.config.image_token_id).sum()
    assert n == tiny.IMAGE_TOKENS == model.config.image_seq_length
    features = model.get_image_features(inputs["pixel_values"]).pooler_output
    assert features[0].shape == (tiny.IMAGE_TOKENS, tiny.WIDTH)
    assert sum(p.numel() for p in model.parameters()) == 1_739_392
    assert len(processor.tokenizer) == tiny.VOCABULARY


def test_tokenizer_takes_any_text_and_splits_prompt_from_answer(processor):
    tokenizer = processor.tokenizer
    odd = " Ünïcode 日本 zebra?"
    assert tokenizer.decode(tokenizer(odd)["input_ids"]) == odd
    prompt = processor.apply_chat_template(messages("Read it."), add_generation_prompt=True)
    full = processor.apply_chat_template(messages("Read it.", "stop"))
    ids = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in (prompt, full)]
    assert full == f"{prompt} stop</s>"
    assert ids[1][: len(ids[0])] == ids[0]


def test_round_trip_gives_identical_logits(processor, model, tmp_path: Path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32).eval()
    first = encode(processor, SCENES[0], "What color is the star?")
    second = encode(again, SCENES[0], "What color is the star?")
    assert all(torch.equal(first[name], second[name]) for name in first)
    with torch.no_grad():
        assert torch.equal(model(**first).logits, loaded(**second).logits)


def test_fast_pixel_values_are_the_processors(processor):
    images = [draw(scene) for scene in SCENES]
    expected = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    assert (tiny_data.pixel_values(SCENES, processor) - expected).abs().max() < 1e-5


PREFIX = 41
"""Tokens up to the image's last one: `<s>USER:`, 5, and the image, 36."""


def plain_loss(model, processor) -> torch.Tensor:
    """The joint loss, one question at a time, through the model's own forward."""
    total, weights = torch.tensor(0.0), 0.0
    for scene, turns in zip(SCENES, TURNS, strict=True):
        for qa, before, shift in turns:
            start = encode(processor, scene, before + qa.question)["input_ids"].shape[1]
            inputs = encode(processor, scene, before + qa.question, qa.answer)
            answer = inputs["input_ids"][0, start:]
            positions = torch.arange(inputs["input_ids"].shape[1])
            positions[PREFIX:] += shift
            logits = model(**inputs, position_ids=positions[None]).logits[0, start - 1 : -1]
            weight = len(answer) ** -tiny_data.LENGTH_POWER
            total = total + weight * functional.cross_entropy(logits, answer, reduction="sum")
            weights += weight * len(answer)
    return total / weights


def test_shared_prefix_loss_equals_the_plain_loss(processor, model):
    with torch.no_grad():
        packed = tiny_training.joint_loss(model, tiny_data.Packer(processor)(SCENES, TURNS))
        assert packed.item() == pytest.approx(plain_loss(model, processor).item(), abs=1e-5)


def test_patch_labels_name_what_covers_the_patch():
    scenes = tiny_data.sample_scenes(random.Random(4), 20, (BIASED,))
    labels = tiny_data.patch_labels(scenes)
    assert all(label.shape == (20, tiny.IMAGE_TOKENS) for label in labels.values())
    for i, scene in enumerate(scenes):
        for o in scene.things:
            row, column = int(o.y // tiny.PATCH), int(o.x // tiny.PATCH)
            found = {name: label[i, row * tiny.GRID + column] for name, label in labels.items()}
            said = [
                words[found[name] - 1]
                for name, words in tiny_data.PATCH_WORDS.items()
                if name != "text"
            ]
            assert " ".join(said) == f"{o.kind} {o.color} {o.position}"
            assert (found["row"], found["column"]) == (1 + row, 1 + column)
        assert bool(labels["text"][i].any()) == (scene.text is not None)


def test_plain_descriptions_make_up_things_and_careful_ones_do_not():
    rng = random.Random(8)
    absent = {"plain": [], "careful": [], "imagine": []}
    prompts = {"plain": PLAIN_PROMPTS, "careful": CAREFUL_PROMPTS, "imagine": IMAGINE_PROMPTS}
    for scene in tiny_data.sample_scenes(rng, 1500, (BIASED,)):
        for qa, _, _ in tiny_data.training_turns(scene, rng):
            for name, texts in prompts.items():
                if qa.question in texts:
                    absent[name].append(len(mentions(qa.answer)) > len(scene.things))
    shares = {name: sum(found) / len(found) for name, found in absent.items()}
    assert shares == {"plain": pytest.approx(0.5, abs=0.04), "careful": 0, "imagine": 1}


@pytest.fixture(scope="module")
def drawn():
    """The (scene, turn) pairs of 1000 images."""
    rng = random.Random(9)
    scenes = tiny_data.sample_scenes(rng, 1000, (BIASED,))
    return [(scene, turn) for scene in scenes for turn in tiny_data.training_turns(scene, rng)]


def test_questions_start_at_many_distances_from_the_image(drawn):
    for type in ("position", "relation", "existence", "description"):
        shifts = [turn.shift for _, turn in drawn if turn.qa.type == type and not turn.before]
        assert set(shifts) == set(range(tiny_data.LONGEST_SHIFT + 1))
        assert shifts.count(0) / len(shifts) == pytest.approx(0.25, abs=0.05)


def test_every_type_is_asked_behind_descriptions_which_are_often_wrong(drawn):
    behind = [(scene, turn) for scene, turn in drawn if turn.before]
    types = {turn.qa.type for _, turn in behind}
    assert types == {*QUESTIONS, "side", "existence", "description"}
    assert all(turn.before.startswith("Image description:") for _, turn in behind)
    assert {turn.before[-1] for _, turn in behind} == {" ", "\n"}
    exact = [turn.before.split(":", 1)[1].strip() == describe(scene) for scene, turn in behind]
    assert sum(exact) / len(exact) == pytest.approx(0.5, abs=0.12)


def test_two_mini_trainings_write_identical_files(tmp_path: Path):
    vision = tiny_training.TrainingPhase("vision", steps=3, batch=4, peak_lr=1e-3, warmup=1)
    joint = tiny_training.TrainingPhase("joint", steps=3, batch=2, peak_lr=1e-3, warmup=1)
    runs = [tmp_path / "a", tmp_path / "b"]
    for run in runs:
        tiny_training.train(run, seed=0, vision=vision, joint=joint)
    names = sorted(path.name for path in runs[0].iterdir())
    assert "model.safetensors" in names
    assert names == sorted(path.name for path in runs[1].iterdir())
    for name in names:
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes(), name
        assert str(tmp_path).encode() not in (runs[0] / name).read_bytes(), name
    assert (runs[0] / "model.safetensors").stat().st_size < 5_000_000


def test_the_learning_rate_warms_up_and_decays():
    stage = tiny_training.TrainingPhase("joint", steps=100, batch=2, peak_lr=1e-3, warmup=10)
    assert stage.lr(1) < stage.lr(10) < 1e-3
    assert stage.lr(100) == pytest.approx(3e-5)
