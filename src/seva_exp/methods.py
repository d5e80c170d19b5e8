"""The methods: which views are asked, how negatives are picked, how often it goes round. Both
papers' methods are one recipe and differ only here. No heavy import."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from seva_exp.core.errors import InputError, suggest
from seva_exp.core.records import Mix, Select
from seva_exp.core.spec import BY_KIND, Spec, by_kind
from seva_exp.core.texts import Split
from seva_exp.decoding.spec import Newlines
from seva_exp.inputs.prompts import PromptSet, described_template, load_prompts
from seva_exp.inputs.views import PromptDraw, ViewDraw
from seva_exp.scores import AnyScore

Against = Literal["previous", "base"]


class Curriculum(Spec):
    """What differs from round to round, with ``method.rounds`` of 2 or more."""

    data: Literal["same", "new"] = "same"
    """``same``: each round asks all samples. ``new``: of R rounds each asks a part of its own, the
    R-th parts of the samples in their order."""
    replay: float = Field(0.0, ge=0, le=1)
    """With ``data=new``: the share of each earlier round's pairs that a round trains on again."""
    views: Literal["all", "weak_to_strong"] = "all"
    """``all``: each round asks all views. ``weak_to_strong``: each asks one, the weakest in the
    first round and the strongest in the last."""
    stop: str | None = None
    """BENCHMARK/SPLIT/METRIC, of a benchmark with ``split=selection``: no further round after one
    that made it not significantly better than the model before it; none: all rounds are done."""

    @property
    def measure(self) -> tuple[str, str, str] | None:
        """Benchmark, split and metric of ``stop``."""
        benchmark, split, metric = (self.stop or "").split("/") if self.stop else ("", "", "")
        return (benchmark, split, metric) if self.stop else None

    @field_validator("stop")
    @classmethod
    def _three_names(cls, stop: str | None) -> str | None:
        if stop is not None and stop.count("/") != 2:
            raise ValueError("give BENCHMARK/SPLIT/METRIC, as shapes/pope/accuracy")
        return stop


class Method(Spec):
    """Base of the methods."""

    needs_views: ClassVar[bool] = True
    """Whether there is nothing to reject without a negative view (or another source)."""
    pairs: ClassVar[bool] = True
    """Whether pairs are made, and a model is aligned on them."""
    kind: str
    negatives: Literal["all", "one", "hardest"] = "all"
    """``all``: every negative view (or other source of rejected answers) answers every sample, and
    each answer that is left is a rejected one. ``one``: one view is drawn for each sample by
    ``weights``, and only it is asked. ``hardest``: every view answers, and of the answers that are
    left the one is rejected whose tokens are likeliest with the clean picture."""
    weights: dict[str, float] = Field(default_factory=dict)
    """With ``negatives=one``: how often each view is drawn, relative to the others; a view that is
    not named has 1, one with 0 is not asked."""
    rounds: int = Field(1, ge=1)
    """How often to generate, align and measure; each round asks the model that the round before
    has aligned (iterative DPO)."""
    reference: Against = "previous"
    """From round 2 on: the reference of DPO is the model as the round began (``previous``), or the
    unaligned one (``base``)."""
    curriculum: Curriculum = Curriculum()
    """What differs from round to round."""
    newlines: Newlines = "keep"
    """What becomes of line breaks in the answers of a pair, behind the filters: ``delete`` takes
    them out without a blank in their place, as SeVa's released code does."""
    prompts: str | None = Field(None, min_length=1)
    """Descriptions alone: each sample's question is replaced by a plain prompt of this set, a
    packaged one (stic, tiny) or a file of your own. None: the samples' own questions."""

    @field_validator("weights")
    @classmethod
    def _positive(cls, weights: dict[str, float]) -> dict[str, float]:
        for view, weight in weights.items():
            if weight < 0:
                raise ValueError(f"the weight of {view} is {weight}, it must be 0 or more")
        return weights

    def check(self, views: Collection[str], known: Collection[str]) -> None:
        """Raises InputError for a weight of no view. A view that was taken out of the config
        (``~aug.NAME``, NAME is ``known``) may keep its weight. Reads the prompt set as well."""
        if views and not self.active_views(views):
            raise InputError("method.weights: every view has the weight 0; none would be asked.")
        for name in self.weights:
            if name not in views and name not in known:
                raise InputError(f"method.weights.{name}: no such view.{suggest(name, views)}")
        if self.prompts:
            load_prompts(self.prompts, "method.prompts")

    def active_views(self, views: Collection[str]) -> list[str]:
        """The views whose weight is not 0, sorted."""
        if self.negatives != "one":
            return sorted(views)
        return sorted(view for view in views if self.weights.get(view, 1.0))

    def draw(self, views: Collection[str]) -> ViewDraw | None:
        """How a sample's one negative view is drawn; None when all are asked."""
        if self.negatives != "one":
            return None
        return ViewDraw(
            tuple((view, self.weights.get(view, 1.0)) for view in self.active_views(views))
        )

    def words(self, views: Collection[str]) -> list[str]:
        """What a run that is given no name is called by: the method and its views."""
        return [self.kind, "+".join(self.active_views(views))]

    @property
    def careful(self) -> PromptDraw | None:
        """How the clean view asks, where it asks another question than the sample's."""
        return None

    @property
    def plain(self) -> PromptDraw | None:
        """The prompts that replace every sample's question, and are trained on."""
        if not self.prompts:
            return None
        return PromptDraw("prompt/plain", load_prompts(self.prompts, "method.prompts").plain)


class SevaMethod(Method):
    """SeVa (Zhu et al. 2024): prefer the answer to the clean image over the answer to an augmented
    one; the question is the sample's own."""

    kind: Literal["seva"] = "seva"

    def words(self, views: Collection[str]) -> list[str]:
        hardest = ["hardest"] if self.negatives == "hardest" else []
        return [*super().words(views)[1:], *hardest]


class SticMethod(Method):
    """STIC (Deng et al. 2024), stage 1 (algorithm 1): prefer the description that a careful prompt
    gives over one from a bad prompt or a corrupted image; train on a plain prompt. And what its
    stage 2 (algorithm 2, ``sft=stic``) asks the aligned model for."""

    kind: Literal["stic"] = "stic"
    prompts: str = Field("stic", min_length=1)
    """The prompt set: a packaged one (stic, tiny) or a file of your own."""
    negatives: Literal["all", "one", "hardest"] = "one"
    """``one``: one view is drawn for each sample (STIC); ``all``: every view gives a rejected
    description; ``hardest``: of these the likeliest with the clean picture."""
    description: Literal["plain", "careful"] = "plain"
    """Stage 2: the prompts that ask for the descriptions (STIC: the plain ones)."""
    infusion: str = "Image description: {description} {question}"
    """Stage 2: how a description and the original instruction make one prompt (STIC, section 4)."""

    @field_validator("infusion")
    @classmethod
    def _placeholders(cls, text: str) -> str:
        return described_template(text)

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


class ScoringMethod(Method):
    """Base of the methods that choose by scores of what the model says. Negative views are no
    source of rejected answers here."""

    needs_views: ClassVar[bool] = False
    scores: dict[str, AnyScore] = Field(default_factory=dict)
    """By name: what each candidate is scored by (``+score=NAME``)."""

    @field_validator("negatives")
    @classmethod
    def _no_view_is_drawn(cls, which: str) -> str:
        if which != "all":
            raise ValueError("no view is drawn, since candidates are rejected; leave it at all")
        return which

    def check(self, views: Collection[str], known: Collection[str]) -> None:
        """Looks at the scores' files as well."""
        super().check(views, known)
        for name, score in self.scores.items():
            if not score.lacking(f"method.scores.{name}"):
                score.check(f"method.scores.{name}")

    def words(self, views: Collection[str]) -> list[str]:
        return [word for word in (self.kind, "+".join(sorted(self.scores)), *sorted(views)) if word]

    def scores_of(self, number: int) -> dict[str, AnyScore]:
        """The scores of round ``number`` (from 1), by name, sorted."""
        return {name: s for name, s in sorted(self.scores.items()) if s.in_round(number)}


class BestOfKMethod(ScoringMethod):
    """Best of K: the model answers the clean question several times, sampled; each candidate gets
    a score, and one of a high score is preferred over one of a low score. Negative views are no
    source of rejected answers here: a score or a loss looks at them, or they add candidates."""

    kind: Literal["best_of_k"] = "best_of_k"
    candidates: int = Field(5, ge=2)
    """K: how often the clean question is answered for each sample (IRIS: 5; RLAIF-V: 10). Candidate
    n is that of ``+aug=another_candidate`` with ``number=n``."""
    temperature: float = Field(0.7, gt=0)
    """At which candidates are sampled (IRIS: 0.7)."""
    clean: bool = False
    """Whether the clean answer, decoded as ``generation`` says, is a candidate too."""
    ask_views: bool = False
    """Whether each view of ``aug`` adds its answer to the candidates."""
    scores: dict[str, AnyScore] = Field(default_factory=dict)
    """By name: what each candidate is scored by (``+score=NAME``); several are mixed."""
    mix: Mix = "sum"
    """Of several scores: the weighted ``sum`` of the values, or of their ``ranks`` among a sample's
    different answers (0 for the worst, 1 for the best), so that their scales do not matter."""
    select: Select = "best_worst"
    """``best_worst``: the best over the worst. ``margin``: the best over the best of those that are
    at least ``gap`` below it. ``majority``: what most candidates say, but for case, punctuation and
    articles, over what the fewest say."""
    gap: float = Field(0.0, ge=0)
    """A sample whose two answers are nearer than this in score is left out (``majority``: in share
    of the votes)."""

    @model_validator(mode="after")
    def _a_margin_has_a_gap(self) -> BestOfKMethod:
        if self.select == "margin" and not self.gap:
            raise ValueError(
                "select=margin takes what is at least method.gap below the best, and gap=0. Set "
                "method.gap above 0, or take select=best_worst"
            )
        return self


class SentinelMethod(ScoringMethod):
    """SENTINEL (arXiv:2507.12455): where a clean answer first says something wrong, prefer a right
    sentence of the model's own over that one, behind the same words (C-DPO: these are a part of the
    prompt, no loss is taken of them). What is wrong the ``scores`` say, each about a sentence; they
    must agree."""

    kind: Literal["sentinel"] = "sentinel"
    scores: dict[str, AnyScore] = Field(default_factory=dict)
    """By name: who says whether a sentence is right (``+score=chair``, ``judge``). Where they do
    not agree the sentence is uncertain, and not used (SENTINEL: two detectors)."""
    candidates: int = Field(5, ge=1)
    """How often the model goes on behind the context, sampled, for a right sentence."""
    temperature: float = Field(0.7, gt=0)
    """At which it does."""
    split: Split = "sentences"
    """What is preferred: sentences, or clauses (for answers of one sentence)."""
    max_new_tokens: int = Field(64, ge=1)
    """Of a sampled sentence; one that does not end by then is not used."""

    @field_validator("newlines")
    @classmethod
    def _tokens_are_kept(cls, newlines: Newlines) -> Newlines:
        if newlines != "keep":
            raise ValueError(
                "sentences go on behind tokens as they were generated; leave it at keep"
            )
        return newlines


class AdapterMethod(Method):
    """No training: the base model and one that was trained elsewhere are measured side by side."""

    needs_views: ClassVar[bool] = False
    pairs: ClassVar[bool] = False
    kind: Literal["adapter"] = "adapter"
    adapter: str = Field(min_length=1)
    """What was trained: the folder of a finished run, a LoRA adapter's folder in PEFT's layout, a
    hub id of one (``organisation/name``), or the folder of a whole checkpoint."""
    revision: str = "main"
    """Branch, tag or commit of a hub id. A commit makes the run repeatable for ever."""

    @field_validator("adapter")
    @classmethod
    def _where_it_lies_now(cls, adapter: str) -> str:
        """A link such as ``runs/latest`` leads elsewhere as soon as a run has begun."""
        folder = Path(adapter).expanduser()
        return str(folder.resolve()) if folder.is_dir() else adapter

    @model_validator(mode="after")
    def _measured_once(self) -> AdapterMethod:
        if self.rounds > 1:
            raise ValueError(f"rounds={self.rounds}: nothing is trained, so there is one round")
        return self

    def words(self, views: Collection[str]) -> list[str]:
        name = re.sub(r"^\d{4}(-\d\d){2}_\d\d(-\d\d){2}_", "", Path(self.adapter).name)  # a run's
        return [re.sub(r"[^\w.+=-]+", "-", name, flags=re.ASCII) or self.kind]


_Union = SevaMethod | SticMethod | BestOfKMethod | SentinelMethod | AdapterMethod

AnyMethod = Annotated[_Union, BY_KIND]
"""The field type of a config that holds a method."""
METHODS: dict[str, type[Method]] = by_kind(_Union)
"""kind -> class."""
