"""Whether a run fits its device, told before it begins; what to change where it does not; and
batch sizes that fit (``machine.fit``). All by one estimate (``memory.py``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from seva_exp.core.device_memory import GIB, Device, device_of
from seva_exp.core.digests import FileDigests
from seva_exp.core.machine import Machine
from seva_exp.experiment.graph import graph
from seva_exp.experiment.memory import ANSWER, QUESTION, Need, Setting, needs
from seva_exp.experiment.value import Experiment
from seva_exp.models import HubModel
from seva_exp.models.footprint import Footprint, footprint_of
from seva_exp.stages import Stage

ROOM, SURE = 0.95, 1.05
"""Of a device's memory: what is advised and chosen for, and beyond what a run is refused."""
FEW = 4
"""Preferences at once below which recomputing activations gains more than it costs."""
LEAST_RANK = 8
WAYS = (2, 4, 8)
"""Processes that share the optimizer's states."""
Changed = dict[str, object]
"""Fields with new values."""


@dataclass(frozen=True)
class Fit:
    """The model stages of an experiment on a machine. ``only``: labels of those that are looked at;
    None: all. ``planned``: it may be meant for another machine."""

    experiment: Experiment
    machine: Machine
    only: frozenset[str] | None = None
    planned: bool = False
    stages: tuple[Stage, ...] = ()
    """The experiment's, where there is a graph of it already."""

    @cached_property
    def sizes(self) -> tuple[Footprint | None, str]:
        """Of the model, and where they are from."""
        return footprint_of(self.experiment.model)

    @cached_property
    def device(self) -> Device:
        """Whose memory it is."""
        return device_of(self.machine, self.planned)

    @cached_property
    def needs(self) -> list[Need]:
        """Empty where the model's sizes are not known."""
        return self._needs()[0]

    def _needs(self, most: int = ANSWER) -> tuple[list[Need], list[str]]:
        """And the labels of the stages of which it is not known."""
        model = self.sizes[0]
        if model is None:
            return [], []
        quantized = self.experiment.model.quantization is not None
        setting = Setting(model, self.machine, self.device, quantized, most=most)
        return needs(self._stages, setting)

    @cached_property
    def _all(self) -> tuple[Stage, ...]:
        """The experiment's."""
        return self.stages or tuple(graph(self.experiment, FileDigests(self.machine.store_root())))

    @property
    def _stages(self) -> list[Stage]:
        return [one for one in self._all if self.only is None or one.label in self.only]

    @property
    def too_large(self) -> list[Need]:
        """Stages that do not fit."""
        return [need for need in self.needs if need.bytes > SURE * self.device.bytes]

    @property
    def most(self) -> float:
        """Bytes that the largest stage needs."""
        return max((need.bytes for need in self.needs), default=0.0)

    # For people

    def lines(self) -> Iterator[str]:
        """A line for each model stage (equal ones together), and one that says of what."""
        model, source = self.sizes
        if model is None:
            yield f"memory: not estimated, since {source}"
            return
        known, unknown = self._needs()
        if unknown:
            yield f"memory of {', '.join(unknown)}: not estimated"
        if not known:
            return
        yield (
            f"memory, of {self.device.name}; questions of {QUESTION} tokens, answers of {ANSWER} at"
            f" most, {model.image_tokens} of a picture; sizes of the model: {source}"
        )
        alike: dict[tuple[str, float, str], list[Need]] = {}
        for need in known:
            alike.setdefault((need.name, need.bytes, need.at), []).append(need)
        for some in alike.values():
            more = f" and {len(some) - 1} more" if len(some) > 1 else ""
            yield f"  {some[0].label}{more}: {_described(some[0])}{self._verdict(some[0])}"

    def _verdict(self, need: Need) -> str:
        if need in self.too_large:
            return ": DOES NOT FIT"
        return ": may not fit" if need.bytes > self.device.bytes else ""

    def fault(self) -> str:
        """Why it cannot run, and what to change; empty if it can."""
        if not self.too_large:
            return ""
        worst = max(self.too_large, key=lambda need: need.bytes)
        others = [need.label for need in self.too_large if need is not worst]
        also = f" (nor do {', '.join(others[:3])}{' ...' * (len(others) > 3)})" if others else ""
        ways = [f"{words} ({most / GIB:.1f} GiB)" for words, most in self.changes()]
        advice = (
            f"What fits: {'; or '.join(ways)}."
            if ways
            else "Nothing that is known here makes it fit: take a smaller model or more memory."
        )
        return (
            f"{worst.label}: {_described(worst)} of {self.device.name}, so it does not fit{also}. "
            f"{advice}"
        )

    # What to change

    def changes(self) -> Iterator[tuple[str, float]]:
        """Overrides with which everything fits, and the most that is needed then: first what
        changes no result, then the least change of each kind that does."""
        for kind in (self._batches, self._processes, self._ranks, self._bits):
            found = next(kind(), None)
            if found:
                yield found
                if kind == self._batches:
                    return

    def _batches(self) -> Iterator[tuple[str, float]]:
        for machine in self._smaller:
            yield from self._tried(machine=machine)

    def _processes(self) -> Iterator[tuple[str, float]]:
        """Fewer copies in main memory, or more GPUs that share the optimizer's states."""
        if not self.device.numbers.gpu:
            for count in range(self.device.shared - 1, 0, -1):
                yield from self._tried(machine={"processes": count})
        elif not self.machine.accelerate and not self.experiment.model.quantization:
            for count in WAYS:
                for machine in self._smaller:
                    several = {"processes": count, "accelerate": "zero2"}
                    yield from self._tried(machine=several | machine)

    def _ranks(self) -> Iterator[tuple[str, float]]:
        """Another result."""
        dpo = self.experiment.dpo
        rank = dpo.lora_rank // 2
        while rank >= LEAST_RANK:
            alpha = max(1, dpo.lora_alpha * rank // dpo.lora_rank)
            for machine in self._smaller:
                yield from self._tried({"lora_rank": rank, "lora_alpha": alpha}, machine)
            rank //= 2

    def _bits(self) -> Iterator[tuple[str, float]]:
        """Another result; with a lower rank too where that alone is not enough."""
        model = self.experiment.model
        if not isinstance(model, HubModel) or not self.device.numbers.gpu or model.quantization:
            return
        quantized = model.model_copy(update={"quantization": "nf4"})
        experiment = self.experiment.model_copy(update={"model": quantized})
        four = replace(self, experiment=experiment, stages=())
        for words, most in (*four._batches(), *four._ranks()):
            yield f"model.quantization=nf4 {words}".strip(), most

    @property
    def _smaller(self) -> Iterator[Changed]:
        """Of the machine."""
        for size, checkpointing in smaller(self.machine):
            yield {"train_batch_size": size, "gradient_checkpointing": checkpointing}

    def _tried(
        self, dpo: Changed | None = None, machine: Changed | None = None
    ) -> Iterator[tuple[str, float]]:
        """The overrides and the most that is needed, if everything fits then."""
        dpo, machine = dpo or {}, machine or {}
        changed = replace(self, machine=self.machine.model_copy(update=machine), stages=self._all)
        if dpo:
            trained = self.experiment.dpo.model_copy(update=dpo)
            experiment = self.experiment.model_copy(update={"dpo": trained})
            changed = replace(changed, experiment=experiment, stages=())
        if changed.most > ROOM * self.device.bytes:
            return
        words = [f"dpo.{name}={value}" for name, value in dpo.items()]
        for name, value in machine.items():
            if getattr(self.machine, name) != value:
                words.append(f"machine.{name}={str(value).lower()}")
        yield " ".join(words), changed.most

    # Batch sizes that fit

    def fitted(self) -> Fit:
        """With ``machine.fit``: with the largest batch sizes, up to those given, with which the run
        fits, also where all answers are as long as they may be. As it is where none do, and where
        the model's sizes are not known."""
        if not self.machine.fit or not self.needs:
            return self
        room = ROOM * self.device.free
        for size, checkpointing in smaller(self.machine):
            chosen: Changed = {"train_batch_size": size, "gradient_checkpointing": checkpointing}
            machine = self.machine.model_copy(update=chosen)
            tried = replace(self, machine=machine, stages=self._all)
            found, _ = tried._needs(most=self.experiment.generation.max_new_tokens)
            if max(need.bytes for need in found) <= room:
                break
        if rows := [need.rows for need in found if need.rows]:
            machine = machine.model_copy(update={"batch_size": max(rows)})
        return replace(self, machine=machine, stages=self._all)


def smaller(machine: Machine) -> Iterator[tuple[int, bool]]:
    """``train_batch_size`` and ``gradient_checkpointing``, the fastest first: with activations
    recomputed only where too few rows would be left without."""
    sizes = [machine.train_batch_size]
    while sizes[-1] > 1:
        sizes.append(1 << (sizes[-1] - 1).bit_length() - 1)
    few = min(FEW, machine.train_batch_size)
    if not machine.gradient_checkpointing:
        yield from ((size, False) for size in sizes if size >= few)
    yield from ((size, True) for size in sizes)


def _described(need: Need) -> str:
    text = f"needs {need.bytes / GIB:.1f} GiB"
    if need.takes <= need.bytes:
        text += f" at {need.at}"
    text += f" ({need.parts})" if need.parts else ""
    return text + (f"; {need.at} take {need.takes / GIB:.1f}" if need.takes > need.bytes else "")
