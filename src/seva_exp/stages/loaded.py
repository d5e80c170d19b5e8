"""The model that is loaded: one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seva_exp.core.errors import InputError, StageError
from seva_exp.core.machine import Machine
from seva_exp.core.spec import digest
from seva_exp.models import AnyModel

if TYPE_CHECKING:
    from seva_exp.models.vlm import Vlm


@dataclass
class LoadedModel:
    """One model is kept, so that stages in a row load it once. ``keeps_base``: adapters are put
    beside its weights and taken off again, so that many of them are asked for one loading of the
    base model (weights of 4 bits are loaded anew for each)."""

    keeps_base: bool = False
    adapter: Path | None = None
    """The adapter that it was last asked with."""
    _name: str = ""
    _vlm: Vlm | None = None
    _attached: Any = None

    def holds(self, spec: AnyModel, adapter: Path | None) -> bool:
        """Whether ``get`` would load nothing."""
        return self._vlm is not None and self._name == self._called(spec, adapter)

    def get(
        self,
        spec: AnyModel,
        machine: Machine,
        adapter: Path | None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> Vlm:
        """The model with the adapter, or without one. Raises InputError and StageError."""
        beside = self._beside(spec)
        if not self.holds(spec, adapter):
            self.forget()
            self._vlm = load_model(spec, machine, None if beside else adapter, warn)
            self._name = self._called(spec, adapter)
        assert self._vlm is not None
        if beside and adapter != self.adapter:
            self._put(self._vlm, adapter)
        self.adapter = adapter
        return self._vlm

    def _put(self, vlm: Vlm, adapter: Path | None) -> None:
        from seva_exp.models.adapter import attach_adapter

        if self._attached is not None:
            self._attached.detach()
            self._attached = self.adapter = None
        if adapter is not None:
            self._attached = attach_adapter(vlm.model, adapter)

    def _beside(self, spec: AnyModel) -> bool:
        return self.keeps_base and not spec.quantization

    def _called(self, spec: AnyModel, adapter: Path | None) -> str:
        return digest([spec.to_json(), None if self._beside(spec) else str(adapter)])

    def forget(self) -> bool:
        """Nothing is loaded any more; whether something was."""
        held = self._vlm is not None
        self._name, self._vlm, self.adapter, self._attached = "", None, None, None
        return held


def load_model(
    spec: AnyModel,
    machine: Machine,
    adapter: Path | None,
    warn: Callable[[str], None] = lambda text: None,
) -> Vlm:
    """Load a model; what the libraries say of a failure becomes one error."""
    from seva_exp.models.vlm import load

    try:
        return load(spec, machine, adapter, warn)
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, InputError):
            raise
        raise StageError(f"model {spec.location()}: cannot be loaded: {error}") from error
