"""Describe and respond (STIC, Deng et al. 2024, section 5): the model describes the picture, then
answers each question with its own description before the question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from seva_exp.core.errors import nearest
from seva_exp.core.spec import Json, Spec, digest
from seva_exp.inputs.prompts import described_template, infuse


class DescribeAndRespond(Spec):
    """How the description is asked for, and how it is put before a question. The model sees the
    picture both times, as the paper has it (the released code describes without it). The defaults
    are for large models; ``\\n`` written out in a text stands for a line break, since a command
    line keeps it as two characters."""

    prompt: str = "Describe the composition of the picture and its subjects."
    """Asks for the description; the default is one of the plain prompts of the set 'stic'."""
    template: str = "Image description:\n{description}\n{question}"
    """What is sent: {description} and {question} are filled in. The paper's layout; the released
    code has a blank line before the question."""
    max_new_tokens: int = Field(1024, ge=1)
    """Longest description in tokens; 1024 in STIC's released code."""

    @field_validator("prompt", "template", mode="after")
    @classmethod
    def _line_breaks(cls, text: str) -> str:
        if not text.strip():
            raise _refusal("must not be blank")
        return text.replace("\\n", "\n")

    @field_validator("template", mode="after")
    @classmethod
    def _placeholders(cls, template: str) -> str:
        try:
            return described_template(template)
        except ValueError as error:
            raise _refusal(str(error)) from None

    def infuse(self, description: str, question: str) -> str:
        """The prompt that is sent."""
        return infuse(self.template, description, question)

    def suffix(self, default: DescribeAndRespond) -> str:
        """The suffix of a protocol's name: ``+dar``, and a digest of prompt, template and length
        where they are not the benchmark's ``default``."""
        return "+dar" if self == default else f"+dar.{digest(self.to_json())[:8]}"


class Mode(Spec):
    """How every benchmark can be asked."""

    described: ClassVar[DescribeAndRespond] = DescribeAndRespond()
    """What ``describe_and_respond: true`` stands for; a mapping changes fields of it."""
    describe_and_respond: DescribeAndRespond | None = None
    """asks each question behind the model's own description of the picture (STIC)"""
    split: Literal["all", "selection", "test"] = "all"
    """which pictures: ``selection`` is one half, to choose by; ``test`` the other, to report on"""

    @field_validator("describe_and_respond", mode="before")
    @classmethod
    def _settled(cls, value: Any) -> DescribeAndRespond | None:
        """One value for ``true`` and for its written-out default, so that their keys are equal."""
        match value:
            case None | False:
                return None
            case True:
                return cls.described
            case DescribeAndRespond():
                return value
            case dict():
                return _build({**cls.described.to_json(), **value})
        fields = ", ".join(DescribeAndRespond.model_fields)
        raise _refusal(f"must be true, false, or some of {fields}")


@dataclass(frozen=True)
class Description:
    """The model's description of one picture (a question's ``group``). ``asked`` is the prompt
    really sent, ``stop`` is ``eos`` or ``length``."""

    picture: str
    asked: str
    text: str
    stop: str


def _build(values: Json) -> DescribeAndRespond:
    """All that is wrong in one line: each field with what is the matter."""
    try:
        return DescribeAndRespond.model_validate(values)
    except ValidationError as error:
        raise _refusal("; ".join(_message(detail) for detail in error.errors())) from None


def _message(detail: Any) -> str:
    name = str(detail["loc"][0])
    if detail["type"] == "extra_forbidden":
        match = nearest(name, DescribeAndRespond.model_fields)
        return f"no field has the name '{name}'" + (f" (did you mean '{match}'?)" if match else "")
    return f"{name}: {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _refusal(message: str) -> PydanticCustomError:
    # By way of the context: braces in a message's own text would be taken for its fields.
    return PydanticCustomError("describe_and_respond", "{said}", {"said": message})
