"""One adapter for every family: a transformers model with its own processor."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from seva_exp.core.errors import InputError, StageError, UnusableText
from seva_exp.core.interfaces import Encoded, EncodedImage
from seva_exp.core.machine import Machine, resolve_device, resolve_dtype
from seva_exp.core.printable import ends
from seva_exp.core.runtime import hush
from seva_exp.models.adapter import check_adapter, merge_adapter
from seva_exp.models.families import Family, families, family_of
from seva_exp.models.padding import padded
from seva_exp.models.pixels import batch_pixels
from seva_exp.models.processor import load_processor
from seva_exp.models.spec import HubModel, TinyModel
from seva_exp.models.transfer import put
from seva_exp.models.weights import load_weights

_TEXT_KEYS = ("input_ids", "attention_mask", "labels")


class Vlm:
    """A loaded vision-language model. Implements ``interfaces.VisionLanguageModel``."""

    def __init__(self, model: Any, processor: Any, spec: HubModel | TinyModel) -> None:
        self.model = model.eval()
        self.processor = processor
        self.spec = spec
        self._family = family_of(model.config)
        self.end_id = self._end()
        self._clean_generation_config()

    def _end(self) -> int:
        """What a whole answer ends in."""
        tokenizer = self.processor.tokenizer
        if token := self._family.end_token(self.processor):
            return tokenizer.convert_tokens_to_ids(token)
        ids = self.model.generation_config.eos_token_id
        known = ids if isinstance(ids, list) else [ids]
        end = tokenizer.eos_token_id
        return end if end in known or known == [None] else min(known)

    def _clean_generation_config(self) -> None:
        """Keep the special ids only: a hub model's sampling defaults must not leak into ours. No
        answer may hold an image token: in training the model would look for its picture."""
        from transformers import GenerationConfig

        old = self.model.generation_config
        tokenizer = self.processor.tokenizer
        known = old.eos_token_id if isinstance(old.eos_token_id, list) else [old.eos_token_id]
        ends = {*known, tokenizer.eos_token_id, self.end_id} - {None}
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else old.pad_token_id
        self.model.generation_config = GenerationConfig(
            bos_token_id=old.bos_token_id,
            eos_token_id=sorted(ends),
            pad_token_id=self.end_id if pad is None else pad,
            suppress_tokens=[self.image_token_id],
        )

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def pad_id(self) -> int:
        return self.model.generation_config.pad_token_id

    @property
    def eos_ids(self) -> frozenset[int]:
        ids = self.model.generation_config.eos_token_id
        return frozenset(ids if isinstance(ids, list) else [ids])

    @cached_property
    def longest_token(self) -> int:
        """Characters of the vocabulary's longest token."""
        return max(map(len, self.processor.tokenizer.get_vocab()))

    def _chat_text(self, prompt: str) -> str:
        """The prompt as the processor takes it, one image before the text."""
        return self._family.chat_text(self.processor, self.spec.system_prompt, prompt)

    def chat(self, prompt: str) -> str:
        """The prompt in the model's own words, as it is tokenised, one image token in it."""
        return self._family.written(self.processor, self._chat_text(prompt))

    def _text_options(self, text: str) -> dict[str, bool]:
        """Many templates write the begin-of-sequence token themselves: never add it twice."""
        bos = self.processor.tokenizer.bos_token
        return {"add_special_tokens": not (bos and text.startswith(bos))}

    def encode_image(self, image: Image.Image) -> EncodedImage:
        """Run the processor on one picture; learn which ids stand for it in a prompt."""
        text = self._chat_text("?")
        square = self.spec.pad_to_square
        picture = padded(image, self.processor.image_processor.image_mean) if square else image
        out = self.processor(
            text=[text], images=[picture], return_tensors="pt", **self._text_options(text)
        )
        ids = out["input_ids"][0].tolist()
        start, end = _expanded(self._tokenize(self.chat("?")), ids, self.image_token_id)
        rest = {key: value for key, value in out.items() if key not in _TEXT_KEYS}
        types = {
            key: tuple(rest.pop(key)[0, start:end].tolist())
            for key in ("token_type_ids", "mm_token_type_ids")
            if key in rest
        }
        return EncodedImage(pixels=rest, placeholders=tuple(ids[start:end]), types=types)

    def _tokenize(self, text: str) -> list[int]:
        return self.processor.tokenizer(text, **self._text_options(text))["input_ids"]

    def encode(self, image: EncodedImage, prompt: str) -> Encoded:
        """Prompt ids with the image's placeholders put in. Equal to the processor's own output."""
        ids = self._tokenize(self.chat(prompt))
        token = self.image_token_id
        if ids.count(token) != 1:
            raise UnusableText(
                "image_token",
                f"The prompt {ends(repr(prompt))} gives {ids.count(token)} image placeholders "
                "instead of 1; does it hold the model's image token?",
            )
        at = ids.index(token)
        around = len(ids) - 1 - at
        types = {key: (0,) * at + values + (0,) * around for key, values in image.types.items()}
        return Encoded((*ids[:at], *image.placeholders, *ids[at + 1 :]), image, types)

    def encode_text(self, prompt: str) -> Encoded:
        """Ids of the prompt without a picture. Equal to the tokenizer's own output."""
        text = self._family.text_alone(self.processor, self.spec.system_prompt, prompt)
        ids = tuple(self._tokenize(text))
        both_ways = self._family.attention.sees_both_ways != "none"  # tells prompt and answer apart
        types = {"token_type_ids": (0,) * len(ids)} if both_ways else {}
        return Encoded(ids, EncodedImage({}, ()), types)

    @property
    def image_token_id(self) -> int:
        """The id that becomes an image's features."""
        token = self._family.image_token(self.processor)
        return self.processor.tokenizer.convert_tokens_to_ids(token)

    def answer_ids(self, prompt: str, text: str) -> tuple[int, ...]:
        """A text as the model would have generated it in answer to ``prompt``: its ids, end of
        sequence included. Tokenised behind the prompt, since a word's first token may hold the
        blank before it."""
        prompt_text = self.chat(prompt)
        before = self._tokenize(prompt_text)
        answer = text if prompt_text[-1:].isspace() or not text else f" {text}"
        ids = self._tokenize(prompt_text + answer)
        if ids[: len(before)] != before:
            raise UnusableText(
                "tokens",
                f"{ends(repr(text))} cannot be tokenised apart from its prompt "
                f"{ends(repr(prompt))}.",
            )
        ids = ids[len(before) :]
        if self.image_token_id in ids:
            raise UnusableText(
                "image_token", f"The answer {ends(repr(text))} holds the model's image token."
            )
        return (*ids, self.end_id)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of generated ids, special tokens and outer blanks removed."""
        return self.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    def image_inputs(
        self, images: Sequence[EncodedImage], device: torch.device | None = None
    ) -> dict[str, Any]:
        """What the model takes for these images (repeats allowed): in its number format, on
        ``device`` (none: the model's)."""
        own = device or self.device
        return batch_pixels(
            [
                {key: self._place(value, own) for key, value in image.pixels.items()}
                for image in images
            ]
        )

    def _place(self, value: torch.Tensor, device: torch.device) -> torch.Tensor:
        dtype = self.model.dtype if value.is_floating_point() else value.dtype
        return put(value, device, dtype)

    def map_pixels(
        self, image: EncodedImage, change: Callable[[torch.Tensor], torch.Tensor]
    ) -> EncodedImage:
        """Change the normalised image values and nothing else (pixel-space views)."""
        images = self.processor.image_processor
        pixels = self._family.pixels.changed(image.pixels, change, images)
        return EncodedImage(pixels, image.placeholders, image.types)

    def to_picture(self, image: EncodedImage) -> Image.Image:
        """What the model sees, denormalised, as a picture (the tile that shows all of it)."""
        processor = self.processor.image_processor
        values = self._family.pixels.whole_picture(image.pixels, processor)
        mean = torch.tensor(processor.image_mean)[:, None, None]
        std = torch.tensor(processor.image_std)[:, None, None]
        shown = ((values * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
        return Image.fromarray(shown.permute(1, 2, 0).numpy())

    def language_modules(self) -> list[str]:
        """Full names of every linear layer of the language model: not the vision tower, not the
        projector, not the LM head. LoRA goes there and nowhere else."""
        decoder = set(self.model.get_decoder().modules())
        return [
            name
            for name, module in self.model.named_modules()
            if isinstance(module, torch.nn.Linear) and module in decoder
        ]

    def projector_modules(self) -> list[str]:
        """Full names of what stands between vision tower and language model (LLaVA's
        ``multi_modal_projector``). Raises StageError where there is nothing of its family's
        names."""
        known = re.compile(_anywhere(self._family.vision.projector))
        names = [name for name, _ in self.model.named_modules() if known.fullmatch(name)]
        if not names:
            raise StageError(
                "train_projector=true: no projector is known in this model "
                f"({type(self.model).__name__}). Set train_projector=false."
            )
        return names


def load(
    spec: HubModel | TinyModel,
    machine: Machine,
    adapter: Path | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> Vlm:
    """Load a model with its processor, and a LoRA adapter on top: merged, or beside the weights
    where rounding would lose too much of it (``warn`` is told; models/adapter.py). Over weights of
    4 bits it is always beside them, in float32."""
    hush()
    if machine.threads:
        torch.set_num_threads(machine.threads)
    device = resolve_device(machine)
    dtype = resolve_dtype(machine, device)
    processor = load_processor(spec)
    if spec.quantization and device.type != "cuda":
        raise InputError(
            f"model.quantization={spec.quantization}: machine.device={device} cannot compute with "
            "it. Take machine.device=cuda, or model.quantization=null."
        )
    model = load_weights(spec, dtype=dtype, **_placement(spec, device, dtype))
    if spec.quantization:
        return Vlm(_over_four_bits(model, adapter), processor, spec)
    model = model.to(device)
    if adapter is not None:
        outcome = merge_adapter(model, adapter)
        if outcome.beside:
            warn(outcome.rounding_note(dtype))
    return Vlm(model, processor, spec)


@dataclass
class Weightless:
    """A model's configs: what ``Vlm`` needs to put questions and to read ids."""

    config: Any
    generation_config: Any

    def eval(self) -> Weightless:
        return self


def without_weights(spec: HubModel | TinyModel) -> Vlm:
    """A model that another process computes: it encodes and decodes, and knows special ids."""
    from transformers import AutoConfig, GenerationConfig

    where = spec.location()
    config = AutoConfig.from_pretrained(where, revision=spec.revision)
    try:
        generation = GenerationConfig.from_pretrained(where, revision=spec.revision)
    except OSError:  # it has none
        generation = GenerationConfig.from_model_config(config)
    return Vlm(Weightless(config, generation), load_processor(spec), spec)


def _placement(
    spec: HubModel | TinyModel, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """How weights come to a GPU: from the files straight to it, one by one, where those of 4 bits
    are made. Several processes on one machine then need no main memory for copies of the model."""
    if device.type != "cuda":
        return {}
    options: dict[str, Any] = {"device_map": {"": device}}
    return options | ({"quantization_config": four_bits(dtype)} if spec.quantization else {})


def _over_four_bits(model: Any, adapter: Path | None) -> Any:
    if adapter is None:
        return model
    from peft import PeftModel

    check_adapter(adapter, model)
    return PeftModel.from_pretrained(model, str(adapter)).get_base_model()


def four_bits(dtype: torch.dtype) -> Any:
    """QLoRA's quantization (arXiv 2305.14314): NF4, its constants quantized too."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[_whole()],  # also read for 4 bits
    )


def _whole() -> str:
    """What is not quantized, of any family: all but the language model's layers. The LM head's
    weight is read as it is by TRL's fused head; a projector may be trained."""
    parts = [family.vision for family in (Family(), *families().values())]
    names = [name for part in parts for name in (*part.towers, part.projector)]
    return _anywhere("|".join(dict.fromkeys([*names, "lm_head"])))


def _anywhere(names: str) -> str:
    """The names, in any module."""
    return rf"(.*\.)?({names})"


def _expanded(short: list[int], long: list[int], token: int) -> tuple[int, int]:
    """``long`` is ``short`` with the one id ``token`` replaced by a run: its bounds in ``long``."""
    if short.count(token) != 1:
        raise StageError("This model's chat template does not place exactly one image.")
    start = short.index(token)
    end = len(long) - (len(short) - 1 - start)
    if short[:start] != long[:start] or short[start + 1 :] != long[end:]:
        raise StageError("This processor changes more of a prompt than its image placeholder.")
    return start, end
