"""From clean answers to pictures that the model finds itself, and the answers to these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from seva_exp.augment.adversarial import Adversarial, file_of
from seva_exp.core.files import whole_file
from seva_exp.core.randomness import torch_rng
from seva_exp.core.records import Answer, Sample
from seva_exp.core.spec import Json, canonical
from seva_exp.inputs.images import load_image
from seva_exp.preferences.answers import Asker
from seva_exp.preferences.selection import usable
from seva_exp.stages.artifacts import Artifact
from seva_exp.stages.base import Inputs, Stage, StageContext
from seva_exp.stages.per_sample import PerSample, Work
from seva_exp.stages.preferences import Answers


class AttackArtifact(Artifact):
    """Of ``attacks``: changes of pictures in ``deltas/``, a line for each: log p of the chosen
    answer per token, ``before`` and ``after``."""

    main: ClassVar[str] = "attacks.jsonl"


@dataclass(frozen=True)
class Attacks(PerSample):
    """Against each clean answer a change of its picture, found by the model that gave it:
    ``attacks.jsonl`` and ``deltas/``. A sample without an answer has none."""

    name: ClassVar[str] = "attacks"
    version: ClassVar[int] = 1
    makes: ClassVar[type[AttackArtifact]] = AttackArtifact
    unit: ClassVar[str] = "picture"
    clean: Answers
    view: str
    source: Adversarial
    seed: int
    suffix: str = ""

    @property
    def label(self) -> str:
        return f"{self.name}.{self.view}{self.suffix}"

    @property
    def inputs(self) -> Mapping[str, Stage]:
        before = {"adapter": self.clean.adapter} if self.clean.adapter else {}
        return {"samples": self.clean.samples, "clean": self.clean, **before}

    def spec(self) -> Json:
        model = self.clean.model.identity(self.clean.samples.digests)
        return {"model": model, "source": self.source.keyed(), "seed": self.seed}

    def todo(self, inputs: Inputs) -> Iterator[tuple[str, Any]]:
        samples = self.clean.asked(self.clean.samples.makes(inputs["samples"]))
        answers = self.clean.makes(inputs["clean"]).answers()
        for sample, answer in zip(samples, answers, strict=True):
            if usable(answer):
                yield sample.id, (sample, answer)

    @contextmanager
    def working(
        self, work: Path, inputs: Inputs, context: StageContext, left: Sequence[Any]
    ) -> Iterator[Work]:
        root = self.clean.samples.data.image_root(inputs["samples"])
        attack = self._attack(inputs, context)
        yield lambda some: [
            self._one(attack, sample, answer, root, work) for sample, answer in some
        ]

    def gathered(
        self, work: Path, pieces: Sequence[Any], rows: Sequence[Mapping[str, Any]]
    ) -> Json:
        with whole_file(self.makes(work).file) as file:
            file.write("".join(canonical(row) + "\n" for row in rows).encode())
        means = {
            name: round(fmean(row[name] for row in rows), 6) if rows else 0.0
            for name in ("before", "after")
        }
        return {"pictures": len(rows), **means}

    def _attack(self, inputs: Inputs, context: StageContext) -> Any:
        from seva_exp.training.attack import Attack

        before = self.clean.adapter
        adapter = before.makes(inputs["adapter"]).adapter if before else None
        source = self.source
        vlm = context.model(self.clean.model, adapter)
        return Attack(vlm, source.eps, source.steps, source.step_size)

    def _one(self, attack: Any, sample: Sample, answer: Answer, root: Path, work: Path) -> Json:
        """One picture's change, written."""
        import numpy

        vlm = attack.vlm
        image = vlm.encode_image(load_image(root, sample.image))
        ids = answer.tokens or vlm.answer_ids(answer.asked, answer.text)
        rng = torch_rng(self.seed, f"attack/{self.source.stream}", sample.id)
        found = attack(image, answer.asked, ids, rng)
        place = work / file_of(sample.id)
        place.parent.mkdir(exist_ok=True)
        with whole_file(place) as file:
            numpy.savez_compressed(file, delta=found.delta.numpy(), std=attack.std.numpy())
        return {"sample_id": sample.id, "before": found.before, "after": found.after}


@dataclass(frozen=True)
class AttackedAnswers(Answers):
    """The answers to the pictures that ``attacks`` has found: ``answers.jsonl``."""

    name: ClassVar[str] = "attacked_answers"
    version: ClassVar[int] = 1
    attacks: Attacks | None = None

    @property
    def inputs(self) -> Mapping[str, Stage]:
        assert self.attacks
        return {**super().inputs, "attacks": self.attacks}

    def _asker(self, work: Path, inputs: Inputs, context: StageContext) -> Asker:
        asker = super()._asker(work, inputs, context)
        asker.view = replace(asker.view, kept=inputs["attacks"])
        return asker
