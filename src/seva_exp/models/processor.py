"""A checkpoint's own processor, made ready to ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seva_exp.core.errors import InputError
from seva_exp.models.families import Family, family_of
from seva_exp.models.transformers_private import takes_videos, without_videos

if TYPE_CHECKING:
    from seva_exp.models.spec import HubModel, TinyModel


def load_processor(spec: HubModel | TinyModel) -> Any:
    """The processor of ``spec``, settled as its family needs it. Raises InputError where it cannot
    ask what ``spec`` wants."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(spec.location(), revision=spec.revision)
    try:
        processor = _from_files(spec, config)
    except ImportError as error:  # for example SmolVLM's, which wants num2words
        raise InputError(
            f"model.path={spec.location()}: its processor needs a package that is not installed: "
            f"{' '.join(str(error).split())}"
        ) from None
    family = family_of(config)
    if family.needs_template and not processor.chat_template:
        raise InputError(
            f"model.path={spec.location()}: it has no chat template, so it cannot be asked. "
            "Take the instruct or chat version of this model."
        )
    family.settle(processor, config)
    if spec.max_pixels:
        family.limit(processor, spec.max_pixels)
    if spec.system_prompt:
        _check_system_prompt(family, processor, spec.system_prompt)
    return processor


def _check_system_prompt(family: Family, processor: Any, system: str) -> None:
    """Templates without a system turn raise an error of their own, or leave it out."""
    from jinja2 import TemplateError

    try:
        text = family.chat_text(processor, system, "?")
    except TemplateError as error:
        text = str(error)
    if system.strip() not in text:
        raise InputError(
            f"model.system_prompt={system!r}: prompts of this model have no system turn. Take "
            "model.system_prompt=null."
        )


def _from_files(spec: HubModel | TinyModel, config: Any) -> Any:
    """The processor on the PIL backend, so that pixels are the same with and without
    torchvision."""
    from transformers import AutoProcessor

    where, options = spec.location(), {"revision": spec.revision}
    if kind := takes_videos(config):
        return without_videos(kind, where, **options)
    return AutoProcessor.from_pretrained(where, backend="pil", **options)
