"""What a stage is: a function from a spec and input artifacts to one artifact folder. Its key is
the hash of (stage, version, spec, inputs' keys).

A stage's ``version`` is raised when its results change; a test pins it with the digest of the code
that decides them (``closure``).
"""

from __future__ import annotations

import gc
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from seva_exp.benchmarks.judge_answers import Estimate
from seva_exp.core.digests import FileDigests
from seva_exp.core.interfaces import Placement, Progress
from seva_exp.core.machine import Machine, resolve_device
from seva_exp.core.main_memory import free_bytes
from seva_exp.core.records import Delta, Score
from seva_exp.core.spec import Json, digest
from seva_exp.core.store import Store
from seva_exp.models import AnyModel
from seva_exp.stages.artifacts import AdapterArtifact, Artifact
from seva_exp.stages.loaded import LoadedModel
from seva_exp.stages.shown import Answered, Explained, PairExample
from seva_exp.training.spec import Training
from seva_exp.vllm.running import Running, started

if TYPE_CHECKING:
    from seva_exp.models.vlm import Vlm


Inputs = Mapping[str, Path]
"""Where the artifacts of a stage's inputs lie, by the inputs' names."""
CACHE_SHARE = 0.25
"""Of the free main memory, what pictures' features may take."""


class Worker(Protocol):
    """One that does its part of a job: a process, or an actor of Ray."""

    @property
    def running(self) -> bool: ...

    @property
    def failed(self) -> bool: ...

    @property
    def number(self) -> int:
        """Its rank, or place among the crew."""
        ...

    @property
    def said_why(self) -> bool:
        """Whether it failed with an error that it wrote down; else it died."""
        ...

    def ending(self) -> str:
        """How it died, and the last that it said."""
        ...


class Crew(Protocol):
    """Those who do a stage's work where that is not this process alone."""

    @property
    def trains(self) -> bool:
        """Whether they train, too; else they only share out what is done piece by piece."""
        ...

    @property
    def elsewhere(self) -> bool:
        """Whether some are on other machines. The work goes on without one that dies; else it
        ends."""
        ...

    def start(self, scratch: Path, together: bool, stack: ExitStack) -> Sequence[Worker]:
        """Have all do the job that lies in ``scratch`` (``together``: it is a training), until they
        are done or the ``stack`` is closed."""
        ...

    def rest(self) -> None:
        """Give back what they hold (GPUs) until they are wanted again."""
        ...


@dataclass
class StageContext:
    """The context that stages work in: nothing here changes a result."""

    machine: Machine
    digests: FileDigests
    progress: Progress
    log: Callable[[str, int, Json], None]
    warn: Callable[[str], None] = lambda text: None
    note: Callable[[str], None] = lambda text: None
    rank: int = 0
    """Which of the ``ranks`` processes this is that do one stage's work."""
    ranks: int = 1
    neighbours: int = 1
    """Those of them that are on this machine."""
    crew: Crew | None = None
    run_folder: Path | None = None
    """The run's folder, for what servers say; none: a temporary one."""
    loaded: LoadedModel = field(default_factory=LoadedModel)
    """The model, which stages in a row load once."""
    _vllm: tuple[str, Running] | None = None
    _features: dict[str, Any] = field(default_factory=dict)

    def model(self, spec: AnyModel, adapter: Path | None = None) -> Vlm:
        """The loaded model; one is kept, so that stages in a row load it once."""
        if not self.loaded.holds(spec, adapter):
            if self.crew:
                self.crew.rest()
            self._forget()
        if self.loaded.adapter != adapter:
            self._features.clear()  # an adapter may hold a projector
        return self.loaded.get(spec, self.machine, adapter, self.warn)

    def keep_base(self) -> None:
        """From here on adapters are put beside the base model's weights, and taken off again."""
        if not self.loaded.keeps_base:
            self.release()
            self.loaded = LoadedModel(keeps_base=True)

    def kept_in(self, other: StageContext) -> StageContext:
        """``other``, with the model that is loaded here."""
        return replace(other, loaded=self.loaded, _features=self._features)

    def several(self, together: bool = False) -> bool:
        """Whether there are several processes for a stage's work; ``together``: for a training."""
        crew = self.crew is not None and (self.crew.trains or not together)
        return self.machine.processes > 1 or crew

    def vllm(self, spec: AnyModel, adapter: Path | None = None) -> Running:
        """The running vLLM with this model; one is kept, so that stages in a row start it once."""
        name = digest([spec.to_json(), str(adapter)])
        if self._vllm is None or self._vllm[0] != name:
            self.end_vllm()
            folder = self.run_folder or Path(tempfile.mkdtemp(prefix="seva_exp-vllm-"))
            log = folder / "vllm.log"
            self.note(f"vLLM starts (what it says: {log})")
            found = started(spec, adapter, self.machine, self.digests, log, self.warn)
            self._vllm = (name, found)
        return self._vllm[1]

    @property
    def engine(self) -> Json:
        """For a summary: the package that has answered, where that is vLLM."""
        return {"engine": str(self._vllm[1].found)} if self._vllm else {}

    def end_vllm(self) -> None:
        """End vLLM, if it runs: what follows needs the device for itself."""
        if self._vllm:
            self._vllm[1].server.end()
            self._vllm = None

    def release(self, rest: bool = False) -> None:
        """Forget the loaded model (training changes it in place), end vLLM, and give their memory
        back. A trainer, its callbacks and its accelerator refer to each other: without a collection
        they would keep the model. The caller must not hold the model any more. ``rest``: the crew's
        models, too."""
        if rest and self.crew:
            self.crew.rest()
        self.end_vllm()
        self._forget()

    def _forget(self) -> None:
        if not self.loaded.forget() and not self._features:
            return
        self._features = {}
        free_memory()

    def placement(
        self, work: Path, model: AnyModel | None = None, adapter: Path | None = None
    ) -> Placement:
        """The machine's numbers for a stage that works in ``work``, and asks ``model`` with
        ``adapter``."""
        machine = self.machine

        return Placement(
            device=str(resolve_device(machine)),
            batch_size=machine.batch_size,
            train_batch_size=machine.train_batch_size,
            gradient_checkpointing=machine.gradient_checkpointing,
            progress=self.progress,
            work=work,
            checkpoint_minutes=machine.checkpoint_minutes,
            generation_tokens=machine.generation_tokens,
            neighbours=self.neighbours,
            cuda_graphs=machine.cuda_graphs,
            vision_cache=vision_cache(machine) // self.neighbours,
            features=self._features,
            warn=self.warn,
            note=self.note,
            server=machine.server,
            vllm=partial(self.vllm, model, adapter) if model else None,
        )


def vision_cache(machine: Machine) -> int:
    """Bytes of pictures' features that training may keep."""
    limit = machine.vision_cache
    return int(CACHE_SHARE * free_bytes()) if limit is None else int(limit * 2**30)


def free_memory() -> None:
    """Collect what only cycles refer to, and hand the GPU memory that torch keeps for later back,
    so that another process can have it."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Stage(ABC):
    """Base of the stages. What a stage is stands in its class: others ask for that, never for the
    class itself."""

    name: ClassVar[str]
    """Folder in the store, and the first part of the label."""
    version: ClassVar[int]
    """Raised when the same spec gives another result."""
    makes: ClassVar[type[Artifact]]
    """The kind of its artifact, which reads it: ``stage.makes(path)``."""
    needs_model: ClassVar[bool] = False
    """Whether it loads the experiment's model."""
    trains: ClassVar[bool] = False
    """Whether it changes the model: its artifact is an adapter."""
    scores_pairs: ClassVar[bool] = False
    """Whether it looks at pairs with the model, as ``dpo`` says."""
    measures: ClassVar[bool] = False
    """Whether there are scores, or differences of them, when it is done."""
    judges: ClassVar[bool] = False
    """Whether it asks a judge about the answers of its input ``of``, whose scores it replaces."""
    shared: ClassVar[bool] = False
    """Whether several processes share its work."""
    batch_field: ClassVar[str] = "batch_size"
    """The field of the machine to lower when memory runs out."""

    @property
    def asks_vllm(self) -> bool:
        """Whether the run's own vLLM answers in place of a model that is loaded here."""
        return False

    @property
    def label(self) -> str:
        """Name in a run, such as ``answers.clean``; unique in it."""
        return self.name

    def is_called(self, name: str) -> bool:
        """Whether a person who says ``name`` means it: its label, or whole first words of it."""
        return f"{self.label}.".startswith(f"{name}.")

    @property
    def inputs(self) -> Mapping[str, Stage]:
        """The stages whose artifacts this one reads, by the names that ``run`` knows them by; their
        order is part of the key."""
        return {}

    @property
    def prepared_as(self) -> str:
        """Equal for stages of which one is prepared for all: they need the same."""
        return self.name

    def prepare(self, machine: Machine) -> None:  # noqa: B027 (most need nothing)
        """Make sure, before any work starts, that what it needs beside the model can be had. Raises
        InputError."""

    def nothing_to_do(self, summaries: Mapping[str, Json]) -> str:
        """Why there is no work for it, by its inputs' summaries; empty where there is."""
        return ""

    def sample_estimate(self) -> int | None:
        """About how many samples there will be, found quickly, of the stage that makes them."""
        return None

    def question_estimate(self) -> tuple[int, int] | None:
        """How many questions a model is asked, and how many tokens its answers may have together;
        None where it answers none of a benchmark's."""
        return None

    def judge_estimate(self, store: Store, renewed: Collection[str] = ()) -> Estimate | None:
        """The calls that a judge would get (a paid service, mostly) beside what ``store`` has; None
        where none is asked. The artifacts with keys in ``renewed`` will be replaced."""
        return None

    def scores(self, path: Path) -> list[Score]:
        """The scores of its artifact in ``path``, under this run's names; none where it scores
        nothing."""
        return []

    def deltas(self, path: Path) -> list[Delta]:
        """The differences of its artifact in ``path``, under this run's names."""
        return []

    def examples(self, path_of: Callable[[Stage], Path], most: int) -> list[PairExample]:
        """Pairs to look at, where it makes them."""
        return []

    def answered(self, path_of: Callable[[Stage], Path]) -> Answered | None:
        """Base's and final model's predictions, where the stage compares them."""
        return None

    def explained(self, path_of: Callable[[Stage], Path]) -> Explained | None:
        """What the words of base's and final model's answers rest on, where the stage tells it."""
        return None

    @abstractmethod
    def spec(self) -> Json:
        """Everything that the result depends on, besides the inputs."""

    @cached_property
    def key(self) -> str:
        """The content address: equal work has an equal key."""
        return digest(
            {
                "stage": self.name,
                "version": self.version,
                "spec": self.spec(),
                "inputs": [stage.key for stage in self.inputs.values()],
            }
        )

    @abstractmethod
    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        """Fill ``work`` and return the summary for the manifest."""


class Trained(Stage):
    """Base of the stages that train the model."""

    makes: ClassVar[type[AdapterArtifact]] = AdapterArtifact
    needs_model: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    shared: ClassVar[bool] = True
    batch_field: ClassVar[str] = "train_batch_size"

    @property
    @abstractmethod
    def lora(self) -> Training:
        """What the adapter's shape is from."""
