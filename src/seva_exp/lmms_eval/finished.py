"""A finished run, as far as a second opinion needs it: the model, the adapter, our scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import InputError
from seva_exp.core.records import Report, StageResult
from seva_exp.core.store import Manifest, Store
from seva_exp.inputs.user_paths import existing_folder
from seva_exp.models import AnyModel
from seva_exp.runs.folder import artifact_of, read_folder
from seva_exp.stages import STAGES


@dataclass(frozen=True)
class Finished:
    """A run's folder with what it says."""

    folder: Path
    report: Report
    model: AnyModel
    """The base."""
    store: Store
    trained: Manifest
    """Of the last adapter's artifact."""

    @property
    def adapter(self) -> Path:
        """The aligned model's adapter, in PEFT's layout."""
        return self.store.path(self.trained.stage, self.trained.key) / "adapter"


def read_finished(text: str) -> Finished:
    """Raises InputError where the folder holds no finished run, where that run trained nothing,
    and where its base model or its adapter are no longer what they were."""
    folder = existing_folder("RUN", text)
    report, model = _read(folder)
    kinds = [kind.name for kind in STAGES.values() if kind.trains]
    trained = [stage for stage in report.stages if stage.kind in kinds]
    if not trained:
        raise InputError(f"RUN={folder}: this run trained nothing, so it has no aligned model.")
    store, manifest = _artifact(folder, trained[-1])
    model.check()
    digests = FileDigests(store.root)
    if manifest.spec["model"] != model.identity(digests):
        raise InputError(
            f"RUN={folder}: the base model at {model.location()} is no longer the one that this "
            "run trained on (its files differ). Run it again."
        )
    digests.save()
    return Finished(folder, report, model, store, manifest)


def _read(folder: Path) -> tuple[Report, AnyModel]:
    report, config = read_folder(folder)
    adapter: TypeAdapter[AnyModel] = TypeAdapter(AnyModel)
    try:
        return report, adapter.validate_python(config.get("model"))
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise InputError(f"RUN={folder}: holds no finished run (model: {why}).") from None


def _artifact(folder: Path, stage: StageResult) -> tuple[Store, Manifest]:
    """The store, and the manifest of the stage's artifact in it, whole."""
    path = artifact_of(folder, stage.name)
    store = Store(path.parents[1])
    manifest = store.find(path.parent.name, stage.key)
    if manifest is None:
        raise InputError(
            f"RUN={folder}: the adapter of {stage.name} is not whole any more ({path}). Run it "
            f"again{_command(folder)}."
        )
    return store, manifest


def _command(folder: Path) -> str:
    file = folder / "overrides.txt"
    return f": {file.read_text(encoding='utf-8').strip()}" if file.is_file() else ""
