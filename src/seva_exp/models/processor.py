"""A checkpoint's own processor, made ready to ask."""

from __future__ import annotations

from typing import Any

from seva_exp.core.errors import InputError
from seva_exp.core.printable import ends, error_text
from seva_exp.models.checkpoint import Checkpoint
from seva_exp.models.families import Family, family_of
from seva_exp.models.template import template_fault
from seva_exp.models.transformers_private import takes_videos, without_videos


def load_processor(spec: Checkpoint) -> Any:
    """The processor of ``spec``, settled as its family needs it. Raises InputError where it cannot
    ask what ``spec`` wants."""
    where = f"model.path={spec.location()}"
    try:
        config = _config(spec, where)
        processor = _from_files(spec, config)
    except InputError:
        raise
    except ImportError as error:  # for example SmolVLM's, which wants num2words
        raise InputError(
            f"{where}: its processor needs a package that is not installed: {error_text(error)}"
        ) from None
    except Exception as error:  # foreign files raise errors of many types
        problem = error_text(error, kind=isinstance(error, LookupError))
        raise InputError(
            f"{where}: its config, tokenizer or processor cannot be read: {problem}. Get its files "
            "again"
        ) from error
    family = family_of(config)
    if family.needs_template and not processor.chat_template:
        raise InputError(
            f"{where}: it has no chat template, so it cannot be asked. "
            "Take the instruct or chat version of this model."
        )
    family.settle(processor, config)
    if family.needs_template and not spec.ours:
        _check_template(family, processor, where)
    if spec.max_pixels:
        family.limit(processor, spec.max_pixels)
    if spec.system_prompt:
        _check_system_prompt(family, processor, spec.system_prompt)
    return processor


def _config(spec: Checkpoint, where: str) -> Any:
    """The model's config. Raises InputError for a model without pictures."""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(
        spec.location(), revision=spec.revision, trust_remote_code=False
    )
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise InputError(
            f"{where}: a model of kind {config.model_type!r} takes no pictures with questions. "
            "Take a vision-language model (docs/add_a_model.md)."
        )
    return config


def _check_template(family: Family, processor: Any, where: str) -> None:
    """Raises InputError where a question cannot be put, or without its picture."""
    templates = processor.chat_template
    for template in templates.values() if isinstance(templates, dict) else [templates]:
        if fault := template_fault(str(template)):
            raise InputError(f"{where}: its chat template {fault}.")
    try:
        asked = family.chat_text(processor, None, "?")
        token = family.image_token(processor)
    except Exception as error:  # of the template, or of a processor that lacks a part
        problem = error_text(error)
        raise InputError(f"{where}: it cannot be asked: {problem}") from error
    if "?" not in asked or family.written(processor, asked).count(token) != 1:
        raise InputError(
            f"{where}: its chat template does not place one picture and the question: it makes "
            f"{ends(asked)!r} of {token!r} and '?'."
        )


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


def _from_files(spec: Checkpoint, config: Any) -> Any:
    """The processor on the PIL backend, so that pixels are the same with and without
    torchvision."""
    from transformers import AutoProcessor

    where, options = spec.location(), {"revision": spec.revision, "trust_remote_code": False}
    if kind := takes_videos(config):
        return without_videos(kind, where, **options)
    return AutoProcessor.from_pretrained(where, backend="pil", **options)
