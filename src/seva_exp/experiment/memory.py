"""What each stage that loads the model needs of a device's memory, by the model's config alone: no
weights are read and no torch is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import singledispatch

from seva_exp.core.device_memory import GIB, Device
from seva_exp.core.machine import Machine
from seva_exp.decoding import HfGeneration
from seva_exp.decoding.memory import rows
from seva_exp.decoding.spec import Generation
from seva_exp.models.footprint import Footprint
from seva_exp.scores.logprob import LogprobScore
from seva_exp.stages import (
    Align,
    Answers,
    Continued,
    Evaluate,
    ExplainWords,
    FineTune,
    ModelScores,
    Reference,
    Rewritten,
    Stage,
    Trained,
)
from seva_exp.stages.contrast import rows_each
from seva_exp.training import memory as training
from seva_exp.training.spec import Training, cut

QUESTION, ANSWER = 60, 150
"""Tokens of a question in its template and of an answer, where nobody knows better; an answer has
no more than ``generation.max_new_tokens``."""
VERDICT = 8
"""Tokens of a model's verdict on a claim."""
SHARED_OUT = ("fsdp", "zero2", "zero3")
"""``machine.accelerate`` by name: of a config file nothing is known here."""


@dataclass(frozen=True)
class Setting:
    """What an estimate is made for: tokens of a ``question``, and an answer's at ``most``."""

    model: Footprint
    machine: Machine
    device: Device
    quantized: bool = False
    question: int = QUESTION
    most: int = ANSWER

    @property
    def weights(self) -> float:
        """Bytes of the model in its number format."""
        return self.model.weights(self.device.numbers.item, self.quantized)

    def answer(self, generation: Generation) -> int:
        """Tokens of an answer."""
        return min(generation.max_new_tokens, self.most)


@dataclass(frozen=True)
class Need:
    """Bytes of the device by ``kinds``, beside those of a ``process`` itself, of ``processes`` that
    share it; ``at``: at which batch sizes. Where more is taken if there is room, so many ``rows``
    of generation run at once."""

    label: str
    name: str
    kinds: dict[str, float]
    at: str
    process: float
    processes: int = 1
    rows: int = 0
    takes: float = 0.0

    @property
    def bytes(self) -> float:
        return self.processes * (self.process + sum(self.kinds.values()))

    @property
    def parts(self) -> str:
        """The kinds in GiB, the largest first."""
        found = sorted(self.kinds.items(), key=lambda kind: -kind[1])
        return ", ".join(f"{name} {size / GIB:.1f}" for name, size in found if size > GIB / 20)


def needs(stages: Iterable[Stage], setting: Setting) -> tuple[list[Need], list[str]]:
    """Of the stages that load the model; and the labels of those of which it is not known."""
    found = [(stage, need_of(stage, setting)) for stage in stages if stage.needs_model]
    unknown = [stage.label for stage, need in found if need is None and not _served(stage)]
    return [need for _, need in found if need], unknown


def _served(stage: Stage) -> bool:
    """Whether a server has the model."""
    return isinstance(stage, Answers) and not isinstance(stage.generation, HfGeneration)


@singledispatch
def need_of(stage: Stage, setting: Setting) -> Need | None:
    """What a stage that needs the model needs; None where it loads none here, and where that is not
    known."""
    return None


@need_of.register
def _answers(stage: Answers, setting: Setting) -> Need | None:
    if _served(stage):
        return None
    each = rows_each(stage.generation)
    return _generating(stage, setting, stage.adapter, setting.answer(stage.generation), each)


@need_of.register
def _evaluate(stage: Evaluate, setting: Setting) -> Need | None:
    each = rows_each(stage.contrasted)
    return _generating(stage, setting, stage.trained, min(ANSWER, setting.most), each)


@need_of.register
def _scores(stage: ModelScores, setting: Setting) -> Need | None:
    """All candidates of a sample behind one question, at once; or a short verdict a claim."""
    if not isinstance(stage.score, LogprobScore):
        return _generating(stage, setting, stage.adapter, min(VERDICT, setting.most))
    start, size = stage.adapter, setting.machine.train_batch_size
    rank = start.lora.lora_rank if start else 0
    answer = max(setting.answer(one.generation) for one in stage.candidates)
    lengths, more = training.Lengths(setting.question, answer), len(stage.candidates) - 1
    plain = training.plain(setting.model, size, lengths, 1 + more)
    packs = setting.model.packs and stage.fast != "off"
    batch = training.packed(setting.model, size, lengths, more, 0) if packs else plain
    whole = packs and not setting.device.numbers.half  # compared with plain rows, in float32
    passes = [batch, *([plain] if whole or stage.score.without_picture else [])]
    most = max(training.scoring(setting.model, setting.device.numbers, one, rank) for one in passes)
    kinds = {
        "weights": setting.weights,
        "adapter": training.TRAINED * _parameters(setting, start.lora) if start else 0,
        "activations": most,
    }
    device = setting.device
    return Need(
        stage.label, stage.name, kinds, f"{size} at once", device.numbers.process, device.shared
    )


@need_of.register
def _explained(stage: ExplainWords, setting: Setting) -> Need | None:
    """Pictures with a question and two answers each; and the questions asked under weak views."""
    size, device = setting.machine.train_batch_size, setting.device
    trained = stage.trained
    lengths = training.Lengths(setting.question, min(ANSWER, setting.most))
    batch = training.packed(setting.model, size, lengths)
    if not setting.model.packs or not device.numbers.half:
        batch = training.plain(setting.model, size, lengths)
    rank = trained.lora.lora_rank if trained else 0
    item = 4 if setting.quantized else device.numbers.item
    kinds = {
        "weights": setting.weights,
        "adapter": item * _parameters(setting, trained.lora) if trained else 0,
        "activations": training.scoring(setting.model, device.numbers, batch, rank),
    }
    process = device.numbers.process
    return Need(stage.label, stage.name, kinds, f"{size} at once", process, device.shared)


@need_of.register
def _continued(stage: Continued, setting: Setting) -> Need | None:
    return _generating(stage, setting, stage.adapter, setting.answer(stage.generation))


@need_of.register
def _rewritten(stage: Rewritten, setting: Setting) -> Need | None:
    """A sentence that goes on with an answer; or the answer once, as a plain row."""
    if most := getattr(stage.source, "max_new_tokens", 0):
        return _generating(stage, setting, stage.adapter, min(most, setting.most))
    size, device = setting.machine.train_batch_size, setting.device
    lengths = training.Lengths(setting.question, setting.answer(stage.clean.generation))
    batch = training.plain(setting.model, size, lengths, 1)
    most = training.scoring(setting.model, device.numbers, batch, 0)
    kinds = {"weights": setting.weights, "activations": most}
    return Need(
        stage.label, stage.name, kinds, f"{size} at once", device.numbers.process, device.shared
    )


@need_of.register
def _reference(stage: Reference, setting: Setting) -> Need | None:
    start = stage.start if stage.against == "previous" else None
    size = setting.machine.train_batch_size
    rank = start.dpo.lora_rank if start else 0
    passes = training.scoring(
        setting.model, setting.device.numbers, _preferences(stage, setting, size), rank
    )
    kinds = {
        "weights": setting.weights,
        "adapter": training.TRAINED * _parameters(setting, start.dpo) if start else 0,
        "activations": max(passes, _compared(stage, setting, size, rank)),
    }
    return Need(stage.label, stage.name, kinds, f"{size} at once", setting.device.numbers.process)


@need_of.register
def _align(stage: Align, setting: Setting) -> Need | None:
    size, _ = _cut(stage.dpo, setting.machine)
    compared = _compared(stage, setting, size, stage.dpo.lora_rank)
    batch = _preferences(stage, setting, size)
    return _training(stage, setting, stage.dpo, stage.dpo, batch, compared)


@need_of.register
def _fine_tune(stage: FineTune, setting: Setting) -> Need | None:
    """A response behind a description and a question."""
    size, _ = _cut(stage.sft, setting.machine)
    described = setting.answer(stage.infused.descriptions.generation)
    lengths = training.Lengths(setting.question + described, ANSWER)
    batch = training.plain(setting.model, size, lengths, rows=1)
    return _training(stage, setting, stage.sft, stage.align.dpo, batch)


def _generating(
    stage: Stage, setting: Setting, trained: Trained | None, answer: int, each: int = 1
) -> Need:
    """Stages that answer, with ``each`` rows an answer. In 16 bits an adapter may stay beside the
    weights (models/adapter.py); it is merged into those of 32."""
    machine, device = setting.machine, setting.device
    item = 4 if setting.quantized else device.numbers.item * device.numbers.half
    beside = item * _parameters(setting, trained.lora) if trained else 0
    process = device.numbers.process
    fixed = process + setting.weights + beside
    found = rows(
        setting.model,
        device.numbers,
        device.bytes / device.shared - fixed,
        machine.batch_size,
        question=setting.question,
        answer=answer,
        budget=machine.generation_tokens,
        each=each,
    )
    least = "one row" if each == 1 else f"{each} rows"
    kinds = {"weights": setting.weights, "adapter": beside, least: found.one}
    at = f"{found.many} of {machine.batch_size} rows at once"
    takes = device.shared * (fixed + found.bytes)
    return Need(stage.label, stage.name, kinds, at, process, device.shared, found.many, takes)


def _training(
    stage: Stage,
    setting: Setting,
    spec: Training,
    lora: Training,
    batch: training.Batch,
    compared: float = 0.0,
) -> Need | None:
    """Stages that train, an adapter of the shape that ``lora`` has. The first batch may be
    ``compared`` with plain rows, for so many bytes."""
    model, machine, numbers = setting.model, setting.machine, setting.device.numbers
    if machine.accelerate and machine.accelerate not in SHARED_OUT:
        return None
    ways, whole = machine.processes, machine.accelerate in ("fsdp", "zero3")
    size, count = _cut(spec, machine)
    trained = training.Gradients(
        _parameters(setting, lora) // (ways if whole else 1),
        lora.lora_rank,
        model.projector if spec.train_projector else 0,
        copies=int(ways > 1 and not machine.accelerate),
        shared=ways if machine.accelerate == "zero2" else 1,
    )
    kinds = training.training(
        model,
        numbers,
        batch,
        trained,
        checkpointing=machine.gradient_checkpointing,
        accumulates=count > 1,
    )
    weights = setting.weights
    if whole:  # its part of the layers, and two of them gathered
        layers = model.linear_parameters * numbers.item
        weights += 2 * layers / model.layers - layers * (1 - 1 / ways)
    moments = [
        {"weights": weights} | kinds,
        {"weights": setting.weights, "adapter": trained.bytes, "activations": compared},
    ]
    most = max(moments, key=lambda kinds: sum(kinds.values()))
    at = f"{size} at once" + ", checkpointing" * machine.gradient_checkpointing
    return Need(stage.label, stage.name, most, at, numbers.process, setting.device.shared)


def _cut(spec: Training, machine: Machine) -> tuple[int, int]:
    """Rows of a forward pass, and passes of a process in a step."""
    return cut(spec.batch_size, machine.processes, machine.train_batch_size)


def _preferences(stage: Reference | Align, setting: Setting, size: int) -> training.Batch:
    lengths, rejected, views, crossed = _sizes(stage, setting)
    if _packs(stage, setting):
        return training.packed(setting.model, size, lengths, rejected, views, crossed)
    return training.plain(setting.model, size, lengths, 1 + rejected + views + crossed)


def _compared(stage: Reference | Align, setting: Setting, size: int, rank: int) -> float:
    """The first batch on plain rows, in float32. In half precision it is done without where there
    is no room (training/forward.py)."""
    if not _packs(stage, setting) or setting.device.numbers.half:
        return 0.0
    lengths, rejected, views, crossed = _sizes(stage, setting)
    batch = training.plain(setting.model, size, lengths, 1 + rejected + views + crossed)
    return training.scoring(setting.model, setting.device.numbers, batch, rank)


def _packs(stage: Reference | Align, setting: Setting) -> bool:
    shared = setting.machine.accelerate == "zero3" and setting.machine.processes > 1
    return setting.model.packs and stage.dpo.fast != "off" and not shared


def _sizes(stage: Reference | Align, setting: Setting) -> tuple[training.Lengths, int, int, int]:
    """Lengths, rejected answers of a preference, views whose pictures the loss looks at, and
    rejected answers that it looks at with these."""
    pairs = stage.pairs
    lengths = training.Lengths(setting.question, setting.answer(pairs.clean.generation))
    seen = sum("images" in view.gives for view in pairs.shown.values())
    views = (seen if pairs.every_view else min(seen, pairs.most_rejected)) * stage.pictured
    return lengths, pairs.most_rejected, views, views * stage.crossed


def _parameters(setting: Setting, lora: Training) -> int:
    return setting.model.adapter(lora.lora_rank, lora.lora_modules)
