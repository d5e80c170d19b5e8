"""An adapter that another run or another program has trained, as an artifact of the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import ClassVar

from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import InputError
from seva_exp.core.machine import Machine
from seva_exp.core.spec import Json
from seva_exp.models import AnyModel
from seva_exp.models.adapter_files import AdapterFiles
from seva_exp.stages.base import Inputs, Stage, StageContext, Trained
from seva_exp.training.spec import Training


@dataclass(frozen=True)
class ExternalAdapter(Trained):
    """A LoRA adapter from elsewhere: ``adapter/``, as a training leaves it. Names of layers as
    transformers 4 had them become today's. That the model has these layers, in these shapes, is
    looked at before any of its weights are read."""

    name: ClassVar[str] = "external_adapter"
    version: ClassVar[int] = 1
    needs_model: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    model: AnyModel
    files: AdapterFiles
    digests: FileDigests = field(compare=False)
    where: str = field(default="method.adapter", compare=False)
    """What a person is told it is wrong with."""

    @property
    def lora(self) -> Training:
        return Training(lora_rank=self.files.rank, lora_alpha=max(1, round(self.files.alpha)))

    @property
    def inputs(self) -> Mapping[str, Stage]:
        return {}

    @property
    def prepared_as(self) -> str:
        return f"{self.name} {self.key}"

    def prepare(self, machine: Machine) -> None:
        self._layers()

    def spec(self) -> Json:
        return {
            "model": self.model.identity(self.digests),
            "adapter": self.files.identity(self.digests),
        }

    def _layers(self) -> dict[str, str]:
        """Names of the adapter's tensors, and what they are called by today. Raises InputError."""
        from seva_exp.models.external_adapter import names_in_model

        try:
            return names_in_model(self.files, self.model)
        except InputError as error:
            raise InputError(f"{self.where}={self.files.folder}: {error}") from None

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        from seva_exp.models.external_adapter import write_adapter

        theirs, ours = (PurePath(one).name for one in (self.files.base, self.model.location()))
        if theirs and theirs.lower() != ours.lower():
            context.warn(
                f"{self.label}: this adapter says that it was trained on {self.files.base}; the "
                f"base model is {self.model.location()}. Its layers fit; whether the weights are "
                "the same only you can tell."
            )
        folder = self.makes(work).adapter
        found = write_adapter(self.files, self._layers(), folder, self.model.location())
        self.makes(work).file.touch()  # no step was logged
        base = {"base_model": self.files.base} if self.files.base else {}
        return {"rank": self.files.rank, "alpha": self.files.alpha, **found, **base}
