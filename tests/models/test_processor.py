"""What single checkpoints lack or add is put right, or refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import transformers
from transformers import AutoProcessor

from seva_exp.core.errors import InputError
from seva_exp.models import HubModel
from seva_exp.models.vlm import load

from .asking import MACHINE, published
from .families import FAMILIES, draw

QWENS = ["qwen25_vl", "qwen3_vl"]


def changed(spec: HubModel, folder: Path, **changes: object) -> HubModel:
    """A copy of the checkpoint, asked otherwise."""
    shutil.copytree(spec.path, folder)
    return spec.model_copy(update={"path": str(folder), **changes})


def test_a_missing_package_is_named(spec_of, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.smolvlm import processing_smolvlm

    spec = spec_of("smolvlm2")
    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with pytest.raises(InputError, match=r"model\.path=.*pip install num2words"):
        load(spec, MACHINE)


def test_a_model_without_chat_template_is_refused(spec_of, tmp_path: Path) -> None:
    spec = changed(spec_of("llava15"), tmp_path / "base", system_prompt=None)
    (tmp_path / "base" / "chat_template.json").unlink()
    with pytest.raises(InputError, match=r"model\.path=.*no chat template"):
        load(spec, MACHINE)


def test_a_template_that_refuses_a_system_turn_is_named(spec_of, tmp_path) -> None:
    spec = changed(spec_of("llava15"), tmp_path / "copy", system_prompt="Be brief.")
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    template = {"chat_template": refusing + FAMILIES["llava15"].template}
    (tmp_path / "copy" / "chat_template.json").write_text(json.dumps(template), encoding="utf-8")
    with pytest.raises(InputError, match=r"model\.system_prompt='Be brief\.'.*no system turn"):
        load(spec, MACHINE)


def test_paligemma_is_asked_as_its_card_asks_it(vlm_of) -> None:
    vlm = vlm_of("paligemma2")
    ids = vlm.encode(vlm.encode_image(draw(60, 30)), "answer en What?").ids
    text = vlm.processor.tokenizer.decode(ids)
    assert text == "<image>" * 16 + "<bos>answer en What?\n"


def test_a_fine_tuned_paligemma_may_have_a_chat_template(spec_of, tmp_path) -> None:
    spec = changed(spec_of("paligemma2"), tmp_path / "copy")
    template = "{% for m in messages %}<image>{{ m['content'][1]['text'] }} said{% endfor %}"
    values = json.dumps({"chat_template": template})
    (tmp_path / "copy" / "chat_template.json").write_text(values, encoding="utf-8")
    vlm = load(spec, MACHINE)
    ids = vlm.encode(vlm.encode_image(draw(60, 30)), "What?").ids
    assert vlm.processor.tokenizer.decode(ids) == "<image>" * 16 + "<bos>What? said\n"


@pytest.mark.parametrize("name", ["llava15", "llava16_mistral", "llava16_vicuna"])
def test_older_llavas_have_no_processor_config(name, spec_of, vlm_of, tmp_path) -> None:
    spec = changed(spec_of(name), tmp_path / "copy")
    (tmp_path / "copy" / "processor_config.json").unlink()
    old, new = load(spec, MACHINE), vlm_of(name)
    picture = draw(60, 30)
    assert old.encode_image(picture).placeholders == new.encode_image(picture).placeholders


@pytest.mark.parametrize("name", ["qwen25_vl", "qwen3_vl", "internvl3", "smolvlm2"])
def test_a_processor_that_takes_videos_still_has_to_be_put_together(name, spec_of, vlm_of) -> None:
    """When this fails, transformers has mended AutoProcessor: models/transformers_private.py can
    go."""
    with pytest.raises((ImportError, TypeError, ValueError)):
        AutoProcessor.from_pretrained(spec_of(name).path, backend="pil")
    ours = type(vlm_of(name).processor)
    assert issubclass(ours, getattr(transformers, ours.__name__))


@pytest.mark.parametrize("name", QWENS)
def test_a_bound_on_pixels_bounds_the_tokens(name, spec_of, vlm_of) -> None:
    wide = draw(150, 90)
    free = vlm_of(name).encode_image(wide)
    bound = load(spec_of(name).model_copy(update={"max_pixels": 32 * 48}), MACHINE)
    image = bound.encode_image(wide)
    assert len(image.placeholders) <= 32 * 48 // 16**2 < len(free.placeholders)
    assert bound.to_picture(image).size == (48, 16)
    small = draw(32, 32)
    assert bound.encode_image(small).placeholders == vlm_of(name).encode_image(small).placeholders
    with pytest.raises(InputError, match=r"model\.max_pixels=100: .*Take at least 1024"):
        load(spec_of(name).model_copy(update={"max_pixels": 100}), MACHINE)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in QWENS])
def test_a_bound_on_pixels_is_refused_where_it_means_nothing(name, spec_of) -> None:
    with pytest.raises(InputError, match=r"model\.max_pixels=4096: .*only Qwen-VL"):
        load(spec_of(name).model_copy(update={"max_pixels": 4096}), MACHINE)


def test_a_template_that_writes_the_first_token_does_not_double_it(spec_of, tmp_path) -> None:
    spec = changed(spec_of("llava16_mistral"), tmp_path / "copy")  # its tokenizer writes one too
    template = {"chat_template": "{{ bos_token }}" + FAMILIES["llava16_mistral"].template}
    (tmp_path / "copy" / "chat_template.json").write_text(json.dumps(template), encoding="utf-8")
    vlm = load(spec, MACHINE)
    ids = vlm.encode(vlm.encode_image(draw(60, 30)), "What?").ids
    assert list(ids) == published(vlm, draw(60, 30), "What?")["input_ids"][0].tolist()
    assert ids.count(vlm.processor.tokenizer.bos_token_id) == 1
