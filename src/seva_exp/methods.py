"""The methods: which views are asked, how negatives are picked, how often it goes round. Both
papers' methods are one recipe and differ only here. No heavy import."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, field_validator

from seva_exp.core.errors import InputError, suggest
from seva_exp.core.spec import BY_KIND, Spec, by_kind
from seva_exp.decoding.spec import Newlines
from seva_exp.inputs.prompts import PromptSet, described_template, load_prompts
from seva_exp.inputs.views import PromptDraw, ViewDraw

Against = Literal["previous", "base"]


class Method(Spec):
    """Base of the methods."""

    kind: str
    negatives: Literal["all", "one"] = "all"
    """``all``: every negative view (or other source of rejected answers) answers every sample, and
    each answer that is left is a rejected one. ``one``: one view is drawn for each sample by
    ``weights``, and only it is asked."""
    weights: dict[str, float] = Field(default_factory=dict)
    """With ``negatives=one``: how often each view is drawn, relative to the others; a view that is
    not named has 1, one with 0 is not asked."""
    rounds: int = Field(1, ge=1)
    """How often to generate, align and measure; each round asks the model that the round before
    has aligned (iterative DPO)."""
    reference: Against = "previous"
    """From round 2 on: the reference of DPO is the model as the round began (``previous``), or the
    unaligned one (``base``)."""
    newlines: Newlines = "keep"
    """What becomes of line breaks in the answers of a pair, behind the filters: ``delete`` takes
    them out without a blank in their place, as SeVa's released code does."""

    @field_validator("weights")
    @classmethod
    def _positive(cls, weights: dict[str, float]) -> dict[str, float]:
        for view, weight in weights.items():
            if weight < 0:
                raise ValueError(f"the weight of {view} is {weight}, it must be 0 or more")
        return weights

    def check(self, views: Collection[str], known: Collection[str]) -> None:
        """Raises InputError for a weight of no view. A view that was taken out of the config
        (``~aug.NAME``, NAME is ``known``) may keep its weight."""
        if views and not self.active_views(views):
            raise InputError("method.weights: every view has the weight 0; none would be asked.")
        for name in self.weights:
            if name not in views and name not in known:
                raise InputError(f"method.weights.{name}: no such view.{suggest(name, views)}")

    def active_views(self, views: Collection[str]) -> list[str]:
        """The views whose weight is not 0, sorted."""
        if self.negatives == "all":
            return sorted(views)
        return sorted(view for view in views if self.weights.get(view, 1.0))

    def draw(self, views: Collection[str]) -> ViewDraw | None:
        """How a sample's one negative view is drawn; None when all are asked."""
        if self.negatives == "all":
            return None
        return ViewDraw(
            tuple((view, self.weights.get(view, 1.0)) for view in self.active_views(views))
        )

    @property
    def careful(self) -> PromptDraw | None:
        """How the clean view asks, where it asks another question than the sample's."""
        return None

    @property
    def plain(self) -> PromptDraw | None:
        """The prompts that replace every sample's question, and are trained on."""
        return None


class SevaMethod(Method):
    """SeVa (Zhu et al. 2024): prefer the answer to the clean image over the answer to an augmented
    one; the question is the sample's own."""

    kind: Literal["seva"] = "seva"


class SticMethod(Method):
    """STIC (Deng et al. 2024), stage 1 (algorithm 1): prefer the description that a careful prompt
    gives over one from a bad prompt or a corrupted image; train on a plain prompt. And what its
    stage 2 (algorithm 2, ``sft=stic``) asks the aligned model for."""

    kind: Literal["stic"] = "stic"
    prompts: str = Field("stic", min_length=1)
    """The prompt set: a packaged one (stic, tiny) or a file of your own."""
    negatives: Literal["all", "one"] = "one"
    """``one``: one view is drawn for each sample (STIC); ``all``: every view gives a rejected
    description."""
    description: Literal["plain", "careful"] = "plain"
    """Stage 2: the prompts that ask for the descriptions (STIC: the plain ones)."""
    infusion: str = "Image description: {description} {question}"
    """Stage 2: how a description and the original instruction make one prompt (STIC, section 4)."""

    @field_validator("infusion")
    @classmethod
    def _placeholders(cls, text: str) -> str:
        return described_template(text)

    def check(self, views: Collection[str], known: Collection[str]) -> None:
        """Reads the prompt set as well."""
        super().check(views, known)
        load_prompts(self.prompts, "method.prompts")

    @property
    def prompt_set(self) -> PromptSet:
        """The set's texts: they, and not its name, decide the results."""
        return load_prompts(self.prompts, "method.prompts")

    @property
    def careful(self) -> PromptDraw:
        return PromptDraw("prompt/careful", self.prompt_set.careful)

    @property
    def plain(self) -> PromptDraw:
        return PromptDraw("prompt/plain", self.prompt_set.plain)

    @property
    def describe(self) -> PromptDraw:
        """How stage 2 asks for the description of an instruction's image."""
        return PromptDraw("prompt/describe", getattr(self.prompt_set, self.description))


_Union = SevaMethod | SticMethod

AnyMethod = Annotated[_Union, BY_KIND]
"""The field type of a config that holds a method."""
METHODS: dict[str, type[Method]] = by_kind(_Union)
"""kind -> class."""
