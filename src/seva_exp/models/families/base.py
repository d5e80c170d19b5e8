"""How most families are asked and shown pictures. A family that differs overrides what differs."""

from __future__ import annotations

from typing import Any

from seva_exp.core.errors import InputError


class Family:
    """A chat template, one image token in its text that the processor expands where it stands, and
    the whole picture in the first tile. ``processor`` is always transformers' own."""

    needs_template = True
    """Without a chat template it cannot be asked."""
    whole = 0
    """Number of the tile that shows all of the picture."""

    def settle(self, processor: Any, config: Any) -> None:
        """Put right what published files leave out. Called once, before anything is encoded."""

    def limit(self, processor: Any, max_pixels: int) -> None:
        """Let the processor make pictures of more than ``max_pixels`` pixels smaller. Raises
        InputError where a picture's size is not the processor's to choose."""
        raise InputError(
            f"model.max_pixels={max_pixels}: this family shows every picture at sizes of its own; "
            "only Qwen-VL takes a bound. Take model.max_pixels=null."
        )

    def asked(self, processor: Any, system: str | None, prompt: str) -> str:
        """The text that the processor takes with one picture: the prompt in the chat template."""
        messages: list[dict[str, Any]] = []
        if system:
            messages.append({"role": "system", "content": [_text(system)]})
        messages.append({"role": "user", "content": [{"type": "image"}, _text(prompt)]})
        return processor.apply_chat_template(messages, add_generation_prompt=True)

    def written(self, processor: Any, asked: str) -> str:
        """``asked`` as the processor rewrites it before it is tokenised, with one image token
        instead of the run of them that stands for the picture."""
        return asked

    def image_token(self, processor: Any) -> str:
        """The token whose embeddings become the picture's features."""
        return getattr(processor, "image_token", None) or processor.tokenizer.image_token

    def end_token(self, processor: Any) -> str | None:
        """What ends an answer, where it is not what the checkpoint's generation config and its
        tokenizer agree on."""
        return None


def _text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}
