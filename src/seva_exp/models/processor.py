"""A checkpoint's own processor, made ready to ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seva_exp.core.errors import InputError
from seva_exp.models.families import Family, family_of

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
        asked = family.asked(processor, system, "?")
    except TemplateError as error:
        asked = str(error)
    if system.strip() not in asked:
        raise InputError(
            f"model.system_prompt={system!r}: prompts of this model have no system turn. Take "
            "model.system_prompt=null."
        )


def _from_files(spec: HubModel | TinyModel, config: Any) -> Any:
    """The processor on the PIL backend, so that pixels are the same with and without
    torchvision."""
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
    from transformers.video_processing_utils import BaseVideoProcessor

    where, options = spec.location(), {"revision": spec.revision}
    kind = PROCESSOR_MAPPING.get(type(config), None)
    if kind is None or "video_processor" not in kind.get_attributes():
        return AutoProcessor.from_pretrained(where, backend="pil", **options)
    # Video processors have no PIL backend: AutoProcessor fails here, with and without torchvision.
    # No video is ever shown, so an empty one takes the place.
    parts = {
        "image_processor": AutoImageProcessor.from_pretrained(where, backend="pil", **options),
        "tokenizer": AutoTokenizer.from_pretrained(where, **options),
        "video_processor": BaseVideoProcessor(num_frames=None, fps=None),
    }
    settings, _ = kind.get_processor_dict(where, **options)
    arguments = [parts[name] for name in kind.get_attributes()]
    return _any_video_processor(kind).from_args_and_dict(arguments, settings)


def _any_video_processor(kind: Any) -> Any:
    """The processor class ``kind``, not looking at the type of its video processor: transformers
    compares it with a class that it hides when torchvision is not there."""

    def check(self: Any, name: str, value: Any) -> None:
        if name != "video_processor":
            kind.check_argument_for_proper_class(self, name, value)

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})
