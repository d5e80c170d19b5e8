"""LLaVA-1.5 in its true sizes, without values, through this package's own classes: what loading,
generation, reference, training and evaluation hold on a GPU, compute there and wait for.

Imports come late: torch must not be there before the fake GPU is.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from .graphs import Graph
from .ledger import Work
from .meta import MetaDevice

QUESTION, ANSWER = 60, 150
"""Tokens of a question and of an answer, where nothing else is said."""

WHOLE: dict[str, list[Any]] = {f"{n}_keys": [] for n in ("missing", "unexpected", "mismatched")}
"""What transformers tells of weights that are all there."""


@dataclass(frozen=True)
class Size:
    """Of the language model; LLaVA-1.5's vision tower (CLIP ViT-L/14-336) is the same for all."""

    width: int
    layers: int
    middle: int
    heads: int
    tower_layers: int = 24


SIZES = {
    "7b": Size(4096, 32, 11008, 32),
    "13b": Size(5120, 40, 13824, 40),
    "7b, 2 layers": Size(4096, 2, 11008, 32, tower_layers=2),
}


def config(size: Size) -> Any:
    """The model's, as published but for the number of layers."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            image_size=336,
            patch_size=14,
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=size.tower_layers,
            num_attention_heads=16,
        ),
        text_config=LlamaConfig(
            vocab_size=32064,
            hidden_size=size.width,
            intermediate_size=size.middle,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            max_position_embeddings=4096,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_index=4,
        image_seq_length=576,
    )


@dataclass
class Shapes:
    """A model of this size on a device that is running. ``context`` loads and releases it as stages
    do."""

    gpu: MetaDevice
    size: Size
    work: Path
    warned: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        from seva_exp import Machine
        from seva_exp.core.digests import FileDigests
        from seva_exp.core.progress import progress
        from seva_exp.models import HubModel
        from seva_exp.stages import StageContext

        self.spec = HubModel(path="shapes")
        self.context = StageContext(
            Machine(device="cuda", dtype="bfloat16", train_batch_size=4, vision_cache=1.0),
            FileDigests(self.work),
            partial(progress, "off"),
            lambda *_: None,
            self.warned.append,
        )

    @contextmanager
    def loadable(self) -> Iterator[None]:
        """The package's ``load`` finds a model of this size, which no file holds, and training
        leaves none behind."""
        from transformers import AutoModelForImageTextToText

        from seva_exp.models import vlm
        from seva_exp.training import driver

        with ExitStack() as stack:
            for owner, name, value in (
                (
                    AutoModelForImageTextToText,
                    "from_pretrained",
                    lambda *_, **__: (self._made(), WHOLE),
                ),
                (vlm, "load_processor", lambda _: processor()),
                (driver, "save_adapter", lambda *_: None),
            ):
                stack.enter_context(patch.object(owner, name, value))
            yield

    def _made(self) -> Any:
        import torch
        from transformers import LlavaForConditionalGeneration
        from transformers.initialization import no_init_weights

        with torch.device("cuda"), no_init_weights(), self.gpu.ledger.kind("weights"):
            made = LlavaForConditionalGeneration._from_config(
                config(self.size), dtype=torch.bfloat16
            )
        self.gpu.settle(made)
        return made

    def model(self, adapter: Path | None = None) -> Any:
        """Loaded, as a stage has it; no answer of it ends before its longest."""
        with self.gpu.ledger.kind("weights"):
            vlm = self.context.model(self.spec, adapter)
        vlm.model.generation_config.eos_token_id = 10**6
        return vlm

    def placement(self, micro: int, checkpointing: bool) -> Any:
        made = self.context.placement(self.work)
        return replace(made, train_batch_size=micro, gradient_checkpointing=checkpointing)

    # What stages do

    def generated(
        self, rows: int, answer: int, asked: int | None = None, adapter: Path | None = None
    ) -> Generated:
        """``asked`` questions on as many pictures (none: one a row), answers of ``answer``
        tokens."""
        from seva_exp.core.interfaces import Request
        from seva_exp.decoding.engine import Engine

        draw = random.Random(0)
        requests = [
            Request(f"{i}", f"{i}", partial(noise, i), words(draw, draw.randint(30, 70)), answer)
            for i in range(asked or rows)
        ]
        found = Generated()
        with self.gpu.ledger.stretch() as work, found.watching(self.gpu):
            engine = Engine(self.model(adapter), rows, graphs="auto", warn=self.warned.append)
            for _ in engine.run(requests):
                pass
        found.peak = work.peak
        return found

    def scored(self, count: int) -> Work:
        """The reference of so many preferences: its one pass, after the packed sequence was
        compared with plain rows."""
        from seva_exp.training import reference
        from seva_exp.training.preferences import PairSet

        rows, real, found = preferences(count), reference.scored, []

        def scored(*given: Any) -> Any:
            with self.gpu.ledger.stretch() as work:
                out = real(*given)
            found.append(work)
            return out

        place = replace(self.placement(count, False), work=self.work / f"reference-{count}")
        place.work.mkdir()
        with (
            patch.object(reference, "scored", scored),
            patch.object(reference, "preferences_of", lambda *_: rows),
            patch.object(reference, "usable", lambda _, pairs: (list(pairs), [])),
        ):
            reference.score_reference(self.model(), PairSet(rows, self.work), "auto", place)
        return found[-1]

    def trained(
        self,
        rank: int,
        micro: int,
        checkpointing: bool,
        *,
        answer: int = ANSWER,
        fast: str = "auto",
        parts: int = 2,
        steps: int = 1,
    ) -> Trained:
        """Optimizer steps of DPO, of ``parts`` micro-batches each. From the second on AdamW's
        moments lie beside a micro-step."""
        from seva_exp.training import DpoTraining
        from seva_exp.training.dpo import trainer_for
        from seva_exp.training.driver import TrainingJob, run
        from seva_exp.training.steps import StepLog

        spec = DpoTraining(lora_rank=rank, lora_alpha=2 * rank, batch_size=micro * parts, fast=fast)
        rows = preferences(micro * parts * steps, answer)
        place = self.placement(micro, checkpointing)
        ledger, before = self.gpu.ledger, self.gpu.ledger.live
        vlm = self.model()
        weights = ledger.live
        with ledger.stretch() as made, ledger.kind("adapter"):
            job = TrainingJob(vlm, spec, place, 0, "base", lambda *_: None)
            trainer = trainer_for(job, rows)
        trained = [p for p in trainer.model.parameters() if p.requires_grad]
        found = Trained(
            weights=weights - before,
            adapter=sum(p.numel() * p.element_size() for p in trained),
            said=trainer.forward.description,
            made=made,
        )
        found.watch(trainer, self.gpu)
        try:
            run(trainer, StepLog("align", "dpo", lambda *_: None), "align", steps, place)
        finally:
            trainer.forward.close()
        return found


@dataclass
class Pass:
    """A forward pass of generation that takes rows in, or the ``steps`` of a decoding until the
    host looks."""

    kind: str
    rows: int
    steps: int
    played: int
    work: Work


@dataclass
class Generated:
    passes: list[Pass] = field(default_factory=list)
    budget: int = 0
    """Tokens of keys and values that may be held."""
    peak: int = 0
    _written: list[int] = field(default_factory=list)

    @contextmanager
    def watching(self, gpu: MetaDevice) -> Iterator[None]:
        from seva_exp.decoding.choosing import Chooser
        from seva_exp.decoding.scheduler import Scheduler

        def watched(name: str) -> Any:
            real = getattr(Scheduler, name)

            def call(loop: Any, *given: Any) -> None:
                rows, played = len(loop._rows), Graph.played
                with gpu.ledger.stretch() as work:
                    real(loop, *given)
                self.budget = loop._budget.tokens
                played = Graph.played - played
                self.passes.append(Pass(name, rows, self._written[-1], played, work))

            return patch.object(Scheduler, name, call)

        def write(chooser: Any, rows: Any, found: Any) -> None:
            self._written.append(len(found))
            real_write(chooser, rows, found)

        real_write = Chooser.write
        with watched("_decode"), watched("_prefill"), patch.object(Chooser, "write", write):
            yield

    def of(self, kind: str) -> list[Pass]:
        """``_decode`` or ``_prefill``."""
        return [one for one in self.passes if one.kind == kind]

    @property
    def kernels(self) -> int:
        """Of a decode step like most."""
        counts = sorted(one.work.kernels // one.steps for one in self.of("_decode"))
        return counts[len(counts) // 2]

    @property
    def rows(self) -> int:
        """Most that ran at once."""
        return max(one.rows for one in self.passes)


@dataclass
class Trained:
    weights: int
    adapter: int
    said: str
    made: Work
    """Of the trainer; the first batch is compared with plain rows then."""
    micro_steps: list[Work] = field(default_factory=list)
    optimizer_step: Work = field(default_factory=Work)

    def watch(self, trainer: Any, gpu: MetaDevice) -> None:
        """Each micro-step, and the optimizer's."""
        real, found = trainer.training_step, self

        def step(*given: Any, **options: Any) -> Any:
            with gpu.ledger.stretch() as work:
                out = real(*given, **options)
            found.micro_steps.append(work)
            return out

        trainer.training_step = step
        trainer.add_callback(_optimizer_watch(self, gpu))

    @property
    def peak(self) -> int:
        """Of the micro-steps."""
        return max(work.peak for work in self.micro_steps)


def _optimizer_watch(found: Trained, gpu: MetaDevice) -> Any:
    """A callback that counts the optimizer's step."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            self.stack = ExitStack()
            found.optimizer_step = self.stack.enter_context(gpu.ledger.stretch())
            self.stack.enter_context(gpu.ledger.kind("optimizer"))

        def on_optimizer_step(self, *_: Any, **__: Any) -> None:
            self.stack.close()

    return Watch()


# What goes in


def processor() -> Any:
    """LLaVA-1.5's, over made-up words (perf/dpo_cases.py)."""
    import dpo_cases

    return dpo_cases.processor()


def noise(number: int) -> Any:
    """A picture of the usual size."""
    import dpo_cases

    return dpo_cases.noise(number)


def words(draw: random.Random, count: int) -> str:
    """A question of ``count`` tokens."""
    return " ".join(f"w{draw.randrange(100, 32000)}" for _ in range(count))


def preferences(count: int, answer: int = ANSWER) -> list[Any]:
    """Questions on pictures with two answers each, and their reference."""
    from seva_exp.training.collate import Preference, ReferenceLogps

    draw = random.Random(0)

    def ids() -> tuple[int, ...]:
        return tuple(draw.randrange(100, 32000) for _ in range(answer))

    return [
        Preference(
            f"s{i}",
            words(draw, QUESTION),
            partial(noise, i),
            ids(),
            (ids(),),
            reference=ReferenceLogps(0.0, (0.0,)),
        )
        for i in range(count)
    ]


def adapter_of(vlm: Any, rank: int, folder: Path) -> Path:
    """An adapter of zeros for a model, as training would leave it: its file is sparse, and takes
    no room."""
    from peft import LoraConfig

    names = vlm.language_modules()
    folder.mkdir(parents=True)
    LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names).save_pretrained(str(folder))
    shapes: dict[str, Sequence[int]] = {}
    for name in names:
        layer = vlm.model.get_submodule(name)
        shapes[f"base_model.model.{name}.lora_A.weight"] = (rank, layer.in_features)
        shapes[f"base_model.model.{name}.lora_B.weight"] = (layer.out_features, rank)
    end, header = 0, {}
    for key, shape in shapes.items():
        size = 4 * shape[0] * shape[1]
        header[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return folder
