"""A loaded model in the middle of a conversation about one picture."""

from __future__ import annotations

from typing import Any

from seva_exp.models.vlm import Vlm


class Talk(Vlm):
    """The same model: what it is asked stands behind the earlier questions and its own answers, in
    its chat template. The picture is in the first turn."""

    def __init__(self, vlm: Vlm, turns: tuple[tuple[str, str], ...]) -> None:
        self._turns = turns
        super().__init__(vlm.model, vlm.processor, vlm.spec)

    def _chat_text(self, prompt: str) -> str:
        messages: list[dict[str, Any]] = []
        if self.spec.system_prompt:
            messages.append(_turn("system", self.spec.system_prompt))
        for question, answer in self._turns:
            messages += [_turn("user", question), _turn("assistant", answer)]
        messages.append(_turn("user", prompt))
        first = next(one for one in messages if one["role"] == "user")
        first["content"].insert(0, {"type": "image"})
        return self.processor.apply_chat_template(messages, add_generation_prompt=True)


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}
