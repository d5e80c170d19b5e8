"""Before work starts: what is wrong with an experiment, lacking, or not on this machine
(``Preflight``: for a run, a dry run, and every job of a sweep); whether all that the stages still
to be done need can be had (``make_ready``, for a run alone: it fetches, asks servers, loads torch);
and what a person should know of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from seva_exp.benchmarks import Judge
from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import InputError
from seva_exp.core.machine import (
    JudgeServer,
    Machine,
    absent_cluster,
    absent_device,
    resolve_device,
)
from seva_exp.core.runtime import settle
from seva_exp.core.spec import digest
from seva_exp.core.store import Store
from seva_exp.experiment.graph import matching
from seva_exp.experiment.options import Options
from seva_exp.experiment.value import Experiment
from seva_exp.experiment.work import Work
from seva_exp.models import AnyModel
from seva_exp.runs.events import PlannedStage
from seva_exp.stages import Stage
from seva_exp.stages.processes import check_processes
from seva_exp.training import DpoTraining


@dataclass(frozen=True)
class Problems:
    """Faults and missing values that stop ``work``, each with its field."""

    work: Work
    faults: tuple[str, ...]
    """What is wrong."""
    lacking: tuple[str, ...]
    """What must still be given."""
    absent: tuple[str, ...] = ()
    """What this machine does not have, or not enough of, where work is left; another one may have.
    No key depends on it."""

    def refuse(self) -> None:
        """Raises InputError if there are any; what is wrong is told before all else."""
        if found := self.faults or (*self.lacking, *self.absent):
            raise InputError("\n".join(found))


class Preflight:
    """Looks at experiments. What several of them read from elsewhere (data, model, benchmarks) is
    looked at once."""

    def __init__(self) -> None:
        self._read: dict[str, list[str]] = {}

    def __call__(
        self,
        experiment: Experiment,
        machine: Machine,
        options: Options,
        here: bool = True,
        digests: FileDigests | None = None,
    ) -> Problems:
        """Look at all that can be known without torch, a server or the network. ``here``: it runs
        on this machine, whose device must be there, and whose memory counts where
        ``machine.memory_gb`` does not say which."""
        digests = digests or FileDigests(machine.store_root())
        work = Work(experiment, machine, options, digests, planned=options.dry_run or not here)
        root = options.data_root_path()
        key = digest([experiment.external_inputs, str(root)])
        if key not in self._read:
            self._read[key] = _faults(lambda: experiment.check_external_inputs(root))
        faults = self._read[key] + _faults(experiment.check_views)
        if not faults:
            faults = _faults(lambda: _check_names(work))
        judge = experiment.judging
        lacking = [
            *experiment.lacking(root),
            *experiment.generation.lacking(machine.server),
            *(judge.lacking(machine.judge) if judge else []),
        ]
        absent = (absent_device(machine) or absent_cluster(machine)) if here else ""
        if absent and not (faults or lacking or work.left):
            absent = ""
        if not (faults or absent) and (here or machine.memory_gb):
            absent = _misfit(work)
        return Problems(work, tuple(faults), tuple(lacking), (absent,) if absent else ())


def _faults(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except InputError as error:
        return [str(error)]
    return []


def _check_names(work: Work) -> None:
    """What there is to do, and the names of stages that are given."""
    assert work.stages
    if work.options.stop_after:
        matching("stop_after", work.options.stop_after, work.stages)
    for name in work.options.force:
        matching("force", name, work.stages)


def _misfit(work: Work) -> str:
    """What does not fit the device, of the stages that are left to do, and what to change; empty
    where all does."""
    return replace(work.fit, only=work.left).fault() if work.fit.too_large else ""


def make_ready(
    model: AnyModel,
    dpo: DpoTraining,
    machine: Machine,
    chosen: Sequence[Stage],
    rows: Sequence[PlannedStage],
) -> None:
    """Look at model, device, processes and server, as far as work is left. Raises InputError."""
    left = [stage for stage, row in zip(chosen, rows, strict=True) if not row.cached]
    if not left:
        return
    if any(stage.needs_model for stage in left):
        model.prepare()
    first: dict[str, Stage] = {}
    for stage in left:
        first.setdefault(stage.prepared_as, stage)
    for stage in first.values():
        stage.prepare(machine)
    if machine.device != "auto":
        settle()
        resolve_device(machine)
    several = machine.processes > 1 or machine.accelerate
    if several and any(stage.shared for stage in left):
        _check_processes(model, machine)
    if machine.accelerate and any(stage.trains and stage.scores_pairs for stage in left):
        _check_head(dpo, machine)
    if any(stage.scores_pairs for stage in left):
        _check_fast(dpo, model)


def _check_head(dpo: DpoTraining, machine: Machine) -> None:
    """Raises InputError where training looks at logits, and the LM head may be shared out."""
    weights = dpo.weights
    online = weights is not None and weights.logits and not weights.kept
    if dpo.diverges or online:
        what = f"dpo.loss: its term '{dpo.diverges}'" if dpo.diverges else "dpo.weights"
        raise InputError(
            f"{what} looks at logits beside the loss, and with machine.accelerate="
            f"{machine.accelerate} the LM head is not whole there. Take machine.accelerate=null."
        )


def _check_processes(model: AnyModel, machine: Machine) -> None:
    """Raises InputError where training cannot have the processes that it will ask for."""
    if machine.accelerate and model.quantization:
        raise InputError(
            f"machine.accelerate={machine.accelerate}: weights of model.quantization="
            f"{model.quantization} are not shared out. Take machine.accelerate=null: each process "
            "then has all of them."
        )
    settle()
    check_processes(machine, machine.processes * (machine.nodes or 1))


def notes(
    left_out: Sequence[str],
    judge: Judge | None,
    server: JudgeServer,
    chosen: Sequence[Stage],
    rows: Sequence[PlannedStage],
    store: Store,
) -> Iterator[str]:
    """A plan's notes for the user: benchmarks that are left out, what a judge will be
    asked."""
    if left_out:
        yield (
            f"left out, since a judge scores them and judge=none: {', '.join(left_out)} "
            "(judge=openai or judge=server, docs/benchmarks.md)"
        )
    left = {row.key for row in rows if not row.cached}
    found = [
        (stage, estimate)
        for stage in chosen
        if stage.key in left and (estimate := stage.judge_estimate(store, left))
    ]
    if not (judge and found):
        return
    sent = sum(e.tokens_sent for _, e in found)
    back = sum(e.tokens_back for _, e in found)
    most = "at most " if any(e.most for _, e in found) else ""
    each = ", ".join(f"{stage.label} {e.calls}" for stage, e in found)
    cost = server.cost(sent, back)
    yield (
        f"judge {judge.model}: {most}{sum(e.calls for _, e in found)} calls ({each}), "
        f"{most}about {sent:,} tokens sent and {back:,} back"
        + ("" if cost is None else f", cost {most}about {cost:.2f}")
    )


def _check_fast(dpo: DpoTraining, model: AnyModel) -> None:
    """Raises InputError where ``dpo.fast=on`` is given for a family that cannot have it."""
    if dpo.fast != "on":
        return
    settle()
    from transformers import AutoConfig

    from seva_exp.models.attention import unproven_family

    try:
        config = AutoConfig.from_pretrained(model.location(), revision=model.revision)
    except (OSError, ValueError):  # loading the model tells it
        return
    if why := unproven_family(config):
        raise InputError(f"dpo.fast=on: {why}. Use dpo.fast=auto or off.")
