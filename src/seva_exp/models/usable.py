"""Whether a checkpoint's folder can be a model, seen before its weights are read: its config, its
tokenizer, its processor, and the chat template, which asks about a picture."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from seva_exp.core.errors import InputError

if TYPE_CHECKING:
    from seva_exp.models.spec import HubModel, TinyModel

ASKING, LOADING = 20.0, 300.0
"""Seconds that a chat template may take for one question, and files to be read; they take
milliseconds and seconds."""
LARGEST_NUMBER = 9_999
"""In a chat template, which has no use for a larger one: ``'a' * 10**10`` would fill the memory."""
BOUNDS = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "depth", "num_attention_heads"), 2_000),
    **dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size"), 10_000_000),
}
"""Largest values of a config's fields that any model has, with room; each is 1 at least."""
LARGEST_SIDE = 20_000
"""Pixels of a side to which a processor may bring a picture."""


def check_usable(spec: HubModel | TinyModel) -> None:
    """Raises InputError naming ``model.path`` and what of the folder is at fault."""
    from transformers import AutoConfig

    where, options = spec.location(), {"revision": spec.revision}
    config = _loaded(
        spec, "config.json", lambda: AutoConfig.from_pretrained(where, **options), LOADING
    )
    for field, value, most in _out_of_bounds(config.to_dict()):
        raise _fault(spec, f"config.json: {field}={value}, and 1 to {most:,} is possible")
    _check_kind(spec, config)
    _check_asking(spec, config)


def _check_kind(spec: HubModel | TinyModel, config: Any) -> None:
    from transformers import AutoModelForImageTextToText

    if type(config) not in AutoModelForImageTextToText._model_mapping:
        kind = config.model_type
        raise _fault(
            spec,
            f"config.json: model_type {kind} is no model that is asked about pictures in this "
            "version of transformers. Take a vision-language model",
        )


def _check_asking(spec: HubModel | TinyModel, config: Any) -> None:
    """The processor, and what its chat template makes of a question."""
    from seva_exp.models.families import family_of
    from seva_exp.models.processor import load_processor

    family = family_of(config)
    silent = spec.model_copy(update={"system_prompt": None}) if spec.system_prompt else spec
    what = "tokenizer, processor or chat template"
    processor = _loaded(spec, what, lambda: load_processor(silent), LOADING)
    _check_sizes(spec, processor.image_processor)
    template = processor.chat_template
    for one in template.values() if isinstance(template, Mapping) else [template or ""]:
        _check_template(spec, one)

    def count() -> int:
        text = family.written(processor, family.chat_text(processor, None, "?"))
        token = processor.tokenizer.convert_tokens_to_ids(family.image_token(processor))
        return processor.tokenizer(text)["input_ids"].count(token)

    if (written := _loaded(spec, "chat template", count, ASKING)) != 1:
        raise _fault(
            spec,
            f"chat template: it writes {written} places for the picture of a question that has "
            "one. Take the checkpoint's own template",
        )
    if spec.system_prompt:
        _loaded(spec, "chat template", lambda: load_processor(spec), LOADING)


def _check_sizes(spec: HubModel | TinyModel, images: Any) -> None:
    for field in ("size", "crop_size"):
        sides = dict(getattr(images, field, None) or {})
        if "longest_edge" in sides and "shortest_edge" in sides:
            continue  # Qwen-VL: bounds on a picture's pixels
        for side, pixels in sides.items():
            if isinstance(pixels, int) and not 0 < pixels <= LARGEST_SIDE:
                raise _fault(
                    spec,
                    f"image processor: {field}.{side}={pixels}, and 1 to {LARGEST_SIDE:,} pixels "
                    "are possible",
                )


def _check_template(spec: HubModel | TinyModel, text: str) -> None:
    """Raises InputError where it is no template, or could fill the memory."""
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    try:
        known = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", text)  # transformers' own tag
        tree = SandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(known)
    except TemplateError as error:
        raise _fault(spec, f"chat template: {error}") from None
    numbers = (one.value for one in tree.find_all(nodes.Const) if isinstance(one.value, int))
    if tree.find(nodes.Pow) or any(abs(number) > LARGEST_NUMBER for number in numbers):
        raise _fault(
            spec, f"chat template: it computes with powers or numbers above {LARGEST_NUMBER:,}"
        )


def _loaded(spec: HubModel | TinyModel, what: str, load: Callable[[], Any], seconds: float) -> Any:
    """What ``load`` gives in good time; whatever a damaged file makes it raise names the file."""
    found: list[Any] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            found.append(load())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)  # what never ends must not be waited for
    thread.start()
    thread.join(seconds)
    if errors and isinstance(errors[0], InputError):
        raise errors[0]
    if errors:
        said = " ".join(str(errors[0]).split())[:300].rstrip(". ")
        raise _fault(spec, f"{what}: {type(errors[0]).__name__}: {said}") from errors[0]
    if not found:
        raise _fault(spec, f"{what}: not done in {seconds:.0f} seconds")
    return found[0]


def _out_of_bounds(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any, int]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _out_of_bounds(value, f"{path}{name}.")
        elif isinstance(value, int) and name in BOUNDS and not 1 <= value <= BOUNDS[name]:
            yield f"{path}{name}", value, BOUNDS[name]


def _fault(spec: HubModel | TinyModel, what: str) -> InputError:
    return InputError(f"model.path={spec.location()}: it cannot be used. {what}.")
