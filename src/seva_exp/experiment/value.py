"""An experiment as data: what is computed."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, model_validator

from seva_exp.augment import SOURCES, AnySource, Augmentation, PixelAugmentation, Rewrite
from seva_exp.benchmarks import AnyBenchmark, Judge, ShapesBenchmark
from seva_exp.core.errors import InputError, suggest
from seva_exp.core.records import CLEAN
from seva_exp.core.spec import Json, Spec
from seva_exp.data import AnyData, InstructData, ShapesData, ShapesInstructData
from seva_exp.decoding import AnyGeneration, HfGeneration, VllmGeneration
from seva_exp.decoding.contrast import Place
from seva_exp.experiment.contrast import check_source, paired_contrast, source_of
from seva_exp.experiment.fitting import (
    check_agreement,
    check_curriculum,
    check_explained,
    check_given,
    check_hardest,
    check_learned,
    check_names,
    check_order,
    check_untrained,
)
from seva_exp.experiment.sentences import sentence_fault
from seva_exp.grounding.spec import Explain
from seva_exp.methods import (
    AnyMethod,
    ScoringMethod,
    SevaMethod,
    SticMethod,
)
from seva_exp.models import AnyModel, TinyModel
from seva_exp.preferences import AnyFilter, EqualFilter, LengthRatioFilter
from seva_exp.preferences.ambiguity import Ambiguity
from seva_exp.scores import SCORES, AnyScore
from seva_exp.training import DpoTraining, SftTraining
from seva_exp.training.loss import NEEDS
from seva_exp.vllm.command import RANKS, no_features, room_for

TAKEN = {CLEAN, "instructions"}
"""Names of answers that are no negative view's."""
CONTRASTED: tuple[Place, Place] = ("clean", "views")
"""Where a contrast may be of pairs' answers."""
CANDIDATE = "candidate_"
"""How those of ``method=best_of_k`` begin, a number behind it."""


def _no_pixels(name: str, augmentation: PixelAugmentation, where: str) -> str:
    return (
        f"aug.{name}: kind={augmentation.kind} changes pixels behind the model's processor, where "
        f"{where}. Take its twin on the picture itself, +aug={augmentation.image_twin} (another "
        "view, with a key of its own), or generation=hf."
    )


def _shapes() -> dict[str, AnyBenchmark]:
    return {"shapes": ShapesBenchmark()}


class Experiment(Spec):
    """An experiment: what is computed. Equal experiments have equal keys, on any machine."""

    seed: int = Field(0, ge=0)
    """Every random choice draws from (seed, purpose, sample id)."""
    method: AnyMethod = SevaMethod()
    aug: dict[str, AnySource] = Field(default_factory=dict)
    """Sources of rejected answers by name: negative views, mostly."""
    model: AnyModel = TinyModel()
    data: AnyData = ShapesData()
    instructions: AnyData | None = None
    """STIC's stage 2: instruction data with responses."""
    generation: AnyGeneration = HfGeneration(max_new_tokens=48)
    filters: tuple[AnyFilter, ...] = (EqualFilter(),)
    """Which pairs are left out, by one rule after the other."""
    ambiguity: Ambiguity | None = None
    """Whether answers under weak views agree; none: nothing is asked under such."""
    dpo: DpoTraining = DpoTraining()
    sft: SftTraining | None = None
    """STIC's stage 2: how the aligned model is fine-tuned on infused instructions; none: not."""
    benchmark: dict[str, AnyBenchmark] = Field(default_factory=_shapes)
    """Benchmarks by name; empty means that nothing is measured."""
    judge: Judge | None = None
    """Who reads answers that no rule can; none: nobody."""
    explain: Explain | None = None
    """Whether, and how, it is shown what the words of base's and aligned model's answers rest on;
    none: not."""
    left_out: tuple[str, ...] = ()
    """Benchmarks of a suite that need a judge, where there is none."""

    @model_validator(mode="after")
    def _can_be_measured(self) -> Experiment:
        for group, names in (("aug", self.aug), ("benchmark", self.benchmark)):
            for name in names:
                if not re.fullmatch(r"[\w-]+", name, re.ASCII):
                    raise ValueError(f"{group}.{name}: a name has letters, digits, '_', '-' only.")
        judged = [name for name, one in self.benchmark.items() if one.needs_judge]
        if judged and self.judge is None:
            raise ValueError(
                f"benchmark.{judged[0]}: a judge scores its answers, and judge=none. Add "
                "judge=openai or judge=server (docs/benchmarks.md), or leave it out."
            )
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        if not self.method.pairs:
            check_untrained(self.method, self.aug, self.sft is not None, self.benchmark)
            return self
        if self.data.gives_pairs:
            check_given(self.method, self.aug, self.ambiguity, self.dpo, self.sft is not None)
            return self
        if not self.aug and self.method.needs_views:
            known = ", ".join(sorted(SOURCES))
            raise ValueError(
                f"aug: method={self.method.kind} needs a negative view, and none is given. "
                f"Add +aug=NAME. Known: {known}."
            )
        for name in TAKEN & self.aug.keys():
            raise ValueError(f"aug.{name}: this name is taken by a view of our own; use another.")
        active = self.method.active_views(self.aug)
        for need, who in self.dpo.needs.items():
            if not any(need in self.aug[name].gives for name in active):
                loss = who in self.dpo.terms
                where = f"dpo.loss: its term '{who}'" if loss else f"dpo.weights: kind={who}"
                there = ", ".join(active) or "none"
                raise ValueError(
                    f"{where} needs {NEEDS[need]}, and no source of rejected answers has that "
                    f"(aug: {there}). Add one, or take "
                    f"{'another loss' if loss else 'other weights'}."
                )
        if self.dpo.ordered:
            check_order(self.method, {name: self.aug[name] for name in active}, self.dpo.ordered)
        if self.sft is not None and not isinstance(self.method, SticMethod):
            raise ValueError(
                f"sft: stage 2 is STIC's, and method={self.method.kind} does not describe images. "
                "Take method=stic, or leave sft out."
            )
        instructions = self.instruction_data()
        if instructions and not instructions.responds:
            raise ValueError(
                f"instructions: kind={instructions.kind} gives no responses to learn from. Take "
                "data@instructions=instruct, or hf with instructions.response_field."
            )
        return self

    @model_validator(mode="after")
    def _sources_fit(self) -> Experiment:
        """The sources of rejected answers have what filters and decoding ask of them."""
        sources = {name: self.aug[name] for name in self.method.active_views(self.aug)}
        texts = [f"aug.{name}" for name, source in sources.items() if not source.asks]
        texts += ["data=pairs"] if self.data.gives_pairs else []
        if not self.generation.own_model:
            texts.append(f"generation={self.generation.kind}")
        for number, rule in enumerate(self.filters):
            if texts and isinstance(rule, LengthRatioFilter) and rule.unit == "tokens":
                raise ValueError(
                    f"filters.{number}.unit=tokens: {texts[0]} tells no tokens. Take unit=words."
                )
        for name, source in sources.items():
            greedy = not self.generation.changed(source.decoding()).seeded
            if source.careful and greedy and not self._contrast_tells_apart:
                raise ValueError(
                    f"aug.{name}: kind={source.kind} samples another answer; at temperature 0 "
                    f"there is one. Set aug.{name}.temperature or generation.temperature above 0."
                )
            if isinstance(source, Rewrite) and not self.generation.in_process:
                raise ValueError(
                    f"aug.{name}: kind={source.kind} has the answer rewritten by the model that is "
                    f"loaded here, and generation={self.generation.kind} has another answer. Take "
                    "generation=hf."
                )
        return self

    @property
    def _contrast_tells_apart(self) -> bool:
        """Whether a clean answer and another candidate differ by a contrast."""
        clean, other = map(self.generation.contrasted_at, CONTRASTED)
        return clean != other

    @model_validator(mode="after")
    def _candidates_fit(self) -> Experiment:
        """Each score has what it looks at, each round has a score, and each view is looked at."""
        method = self.method
        if not isinstance(method, ScoringMethod):
            return self
        called = f"method={method.kind}"
        if not method.scores:
            known = ", ".join(sorted(SCORES))
            raise ValueError(
                f"method.scores: {called} chooses by a score, and none is given. Add "
                f"+score=NAME with NAME one of: {known}."
            )
        if self.dpo.crossed:
            raise ValueError(
                "dpo: its loss or weights look at a rejected answer with the worsened picture that "
                f"it was given to, and the candidates of {called} were all given to the "
                "clean one. Take others."
            )
        for name, score in method.scores.items():
            if fault := self._fault_of(score):
                raise ValueError(f"method.scores.{name}{fault}")
        for number in range(1, method.rounds + 1):
            if not method.scores_of(number):
                raise ValueError(
                    f"method.scores: none is asked in round {number}. Give one with since={number} "
                    "or less and no until."
                )
        for name, source in self.aug.items():
            if name.startswith(CANDIDATE):
                raise ValueError(f"aug.{name}: candidates are called so; take another name.")
            if not isinstance(source, Augmentation):
                raise ValueError(
                    f"aug.{name}: kind={source.kind} is no view, and {called} rejects its "
                    f"own candidates alone. Take it out with ~aug.{name}."
                )
            contrast = paired_contrast(self.generation)
            looked = {score.looks_at for score in method.scores.values()}
            looked |= {contrast.looks_at} if contrast else set()
            seen = source.gives & self.dpo.needs.keys()
            if not (getattr(method, "ask_views", False) or name in looked or seen):
                raise ValueError(
                    f"aug.{name}: nothing looks at it. Name it in a score "
                    f"(method.scores.visual_pmi.view={name}), let it answer too "
                    "(method.ask_views=true), take a loss that looks at pictures, or leave it out."
                )
        return self

    @model_validator(mode="after")
    def _sentences_fit(self) -> Experiment:
        """What ``method=sentinel`` asks of judges, decoding and weights."""
        if fault := sentence_fault(self.method, self.generation, self.dpo):
            raise ValueError(fault)
        return self

    def _fault_of(self, score: AnyScore) -> str:
        """What is wrong with a score here, behind its field's name; empty if nothing is."""
        if score.since > self.method.rounds:
            return f".since={score.since}: there are {self.method.rounds} rounds (method.rounds)."
        if score.needs_policy and score.since == 1:
            return (
                ".since=1: in round 1 the policy is the reference, and the difference of their "
                "log-probabilities is 0 for every answer. Take since=2 with method.rounds=2 or "
                "more, and another score with until=1 for round 1 (method=iris does)."
            )
        if (view := score.looks_at) and view not in self.aug:
            return f".view={view}: no such view in aug.{suggest(view, self.aug)} Add +aug={view}."
        if score.needs_judge and self.judge is None:
            return ".by=judge: judge=none. Add judge=openai or judge=server, or take by=self."
        if score.needs_truth and not self.data.knows_truth:
            return (
                f".path: must be set (FILE.jsonl with the objects of each picture), since data "
                f"(kind={self.data.kind}) does not know what is on its pictures."
            )
        if score.needs_model and not self.generation.in_process:
            return (
                f": kind={score.kind} asks the model that is loaded here, and generation="
                f"{self.generation.kind} has another answer. Take generation=hf."
            )
        return ""

    @model_validator(mode="after")
    def _generation_fits(self) -> Experiment:
        """A model that is not loaded here sees pictures and text; a server's is never aligned."""
        source_of(self.generation, self.aug)
        generation = f"generation={self.generation.kind}"
        for name, augmentation in self.aug.items():
            if not self.generation.own_model and isinstance(augmentation, PixelAugmentation):
                raise ValueError(_no_pixels(name, augmentation, f"{generation} does not reach"))
        field = "sft" if self.sft else f"method.rounds={self.method.rounds}"
        asks_aligned = self.method.rounds > 1 or self.sft is not None
        if asks_aligned and not self.generation.own_model:
            raise ValueError(
                f"{field}: asks the model that this run has aligned, and {generation} asks "
                f"another. {'Leave sft out' if self.sft else 'Take method.rounds=1'}, or take "
                "generation=hf."
            )
        if isinstance(self.generation, VllmGeneration) and (
            asks_aligned or self.generation.evaluate
        ):
            self._adapter_fits_vllm("hf" if asks_aligned else "hf or generation.evaluate=false")
        return self

    def _adapter_fits_vllm(self, instead: str) -> None:
        """vLLM takes adapters of the language model, up to a rank."""
        for field, training in (("dpo", self.dpo), ("sft", self.sft)):
            if training is None:
                continue
            if training.train_projector:
                fault = f"{field}.train_projector=true: vLLM takes no adapter of the projector"
            elif room_for(training.lora_rank) is None:
                fault = f"{field}.lora_rank={training.lora_rank}: vLLM has room for {RANKS[-1]}"
            else:
                continue
            raise ValueError(
                f"{fault}, and generation=vllm asks the aligned model. Take generation={instead}."
            )

    @model_validator(mode="after")
    def _agreement_fits(self) -> Experiment:
        """Answers under weak views are asked where something looks at their agreement."""
        check_agreement(self.ambiguity, self.filters, self.dpo, self.generation)
        check_explained(self.explain, self.benchmark)
        check_names(self.ambiguity, self.aug, self.method)
        check_hardest(self.method, self.aug, self.generation)
        check_learned(self.ambiguity, self.aug, self.dpo, self.generation)
        check_curriculum(self.method, self.aug, self.dpo, self.benchmark)
        return self

    @property
    def title(self) -> str:
        """The name of a run that is given none: method, views, and what is done beside them."""
        given = ["pairs"] if self.method.pairs and self.data.gives_pairs else None
        words = given or self.method.words(self.aug)
        words += ["sft"] if self.sft else []
        words += [f"rounds={self.method.rounds}"] if self.method.rounds > 1 else []
        described = any(one.describe_and_respond for one in self.benchmark.values())
        words += ["dar"] if described else []
        return "_".join(words)

    def instruction_data(self) -> AnyData | None:
        """The instruction data of stage 2; None where there is no such stage. Where nothing at all
        is given, it is the embedded world's own, if ``data`` is the embedded world's too."""
        if self.sft is None:
            return None
        chosen = self.instructions or InstructData()
        own = chosen == InstructData() and isinstance(self.data, ShapesData)
        return ShapesInstructData() if own else chosen

    @property
    def judging(self) -> Judge | None:
        """The judge, where a benchmark or a score has something for it."""
        scores = self.method.scores.values() if isinstance(self.method, ScoringMethod) else ()
        asked = [one.judged for one in self.benchmark.values()]
        asked += [one.needs_judge for one in scores]
        return self.judge if any(asked) else None

    def lacking(self, data_root: Path | None = None) -> list[str]:
        """What must still be given before work can start, each with its field. ``data_root`` is
        where official benchmarks lie."""
        instructions, method = self.instruction_data(), self.method
        scores = method.scores.items() if isinstance(method, ScoringMethod) else ()
        found = [
            self.data.lacking("data") if method.pairs else None,
            instructions.lacking("instructions") if instructions else None,
            *(score.lacking(f"method.scores.{name}") for name, score in scores),
            *(benchmark.lacking(data_root) for benchmark in self.benchmark.values()),
        ]
        return list(dict.fromkeys(one for one in found if one))

    def check_views(self) -> None:
        """The method and its negative views. Raises InputError."""
        self.method.check(self.aug, SOURCES)
        check_source(self.generation, self.aug)
        for number, rule in enumerate(self.filters):
            rule.check(f"filters.{number}")
        for name, augmentation in self.aug.items():
            augmentation.check(f"aug.{name}")
            if not isinstance(augmentation, PixelAugmentation):
                continue
            if isinstance(self.generation, VllmGeneration) and (why := no_features(self.model)):
                raise InputError(_no_pixels(name, augmentation, why))

    @property
    def external_inputs(self) -> list[Json]:
        """The fields of data, model, benchmarks and judge, which ``check_external_inputs`` looks
        at."""
        fields = self.to_json()
        return [
            fields[name] for name in ("data", "instructions", "sft", "model", "benchmark", "judge")
        ]

    def check_external_inputs(self, data_root: Path | None = None) -> None:
        """Check data, model, benchmarks and judge. Raises InputError."""
        if self.method.pairs and not self.data.lacking():
            self.data.check("data")
        instructions = self.instruction_data()
        if instructions and not instructions.lacking():
            instructions.check("instructions")
        self.model.check()
        faults = []
        for benchmark in self.benchmark.values():
            try:
                if not benchmark.lacking(data_root):
                    benchmark.check(data_root)
                    if self.judge:
                        benchmark.judging(data_root, self.judge.own_prompts)
            except InputError as error:  # all of a suite's missing files at once
                faults.append(str(error))
        if faults:
            raise InputError("\n".join(faults))
