"""What ``method=adapter`` measures: a finished run's adapter, a LoRA in a folder or on the hub, or
a whole checkpoint. Found and looked at by files alone."""

from __future__ import annotations

import re
from pathlib import Path

from seva_exp.core.errors import InputError, nearest
from seva_exp.core.printable import error_text
from seva_exp.methods import AdapterMethod
from seva_exp.models import AnyModel, HubModel
from seva_exp.models.adapter_files import CONFIG, WEIGHTS, AdapterFiles, is_adapter, read_adapter
from seva_exp.runs.links import followed
from seva_exp.runs.listing import CONFIG as CONFIG_OF_RUN
from seva_exp.runs.reader import FinishedRun

FIELD = "method.adapter"


def trained_elsewhere(method: AdapterMethod, model: AnyModel) -> AdapterFiles | HubModel:
    """A LoRA's files, or the model of a whole checkpoint, asked as ``model`` is. Raises InputError
    for what is neither, and for a run of another base model."""
    where = f"{FIELD}={method.adapter}"
    folder = Path(method.adapter).expanduser()
    if folder.is_file():
        folder = followed(folder)
    if not folder.is_dir():
        return read_adapter(_from_hub(method, folder), where)
    if (folder / "report.json").is_file():
        return read_adapter(_of_run(folder, model, where), where)
    if is_adapter(folder):
        return read_adapter(folder, where)
    if (folder / "config.json").is_file():
        return _checkpoint(folder, model, where)
    if (meant := _measured_by(folder)) and meant != method.adapter:
        return trained_elsewhere(method.model_copy(update={"adapter": meant}), model)
    raise InputError(
        f"{where}: this folder holds no finished run (report.json), no LoRA adapter ({CONFIG}) and "
        "no checkpoint (config.json)."
    )


def _measured_by(folder: Path) -> str | None:
    """What an evaluation measures that has not ended: ``runs/latest`` leads to it when its command
    is given again."""
    import yaml

    try:
        method = yaml.safe_load((folder / CONFIG_OF_RUN).read_text(encoding="utf-8"))["method"]
        return str(method["adapter"]) if method["kind"] == "adapter" else None
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return None


def _of_run(folder: Path, model: AnyModel, where: str) -> Path:
    run = FinishedRun.read(folder)
    if run.trained is None or run.adapter is None:
        raise InputError(f"{where}: this run trained nothing.")
    if not run.adapter.is_dir():
        raise InputError(f"{where}: its adapter is gone ({run.adapter}). {run.again}")
    theirs = run.model()
    if theirs != model and theirs.location() != model.location():
        raise InputError(
            f"{where}: this run's base model is {theirs.location()}, not {model.location()}. Give "
            "the same model."
        )
    return run.adapter


def _checkpoint(folder: Path, model: AnyModel, where: str) -> HubModel:
    """Asked with the system prompt, padding and pixel bound of ``model``."""
    asked = {
        name: getattr(model, name)
        for name in ("system_prompt", "pad_to_square", "quantization", "max_pixels")
    }
    found = HubModel(path=str(folder), **asked)
    try:
        found.check()
    except InputError as error:
        raise InputError(str(error).replace(f"model.path={folder}", where, 1)) from None
    return found


def _from_hub(method: AdapterMethod, folder: Path) -> Path:
    """The folder of the local cache that holds the hub's adapter, fetched if need be."""
    where = f"{FIELD}={method.adapter}"
    if folder.is_file():
        raise InputError(f"{where}: this is a file; its folder is needed ('{folder.parent}').")
    siblings = [one.name for one in folder.parent.iterdir()] if folder.parent.is_dir() else []
    near = nearest(folder.name, siblings)
    if near or not re.fullmatch(r"[\w.-]+/[\w.-]+", method.adapter):
        hint = f" Did you mean '{folder.parent / near}'?" if near else ""
        raise InputError(f"{where}: no such folder, nor a hub id like 'organisation/name'.{hint}")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        for name in (CONFIG, WEIGHTS):
            file = huggingface_hub.hf_hub_download(method.adapter, name, revision=method.revision)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise InputError(
            f"{where} (revision {method.revision}): its {name} is neither in the local cache nor "
            f"to be had from the hub ({error_text(error, first_line=True)}). Download it where "
            "there is a network (`hf download ID`); a whole checkpoint is given as a folder."
        ) from None
    return Path(file).parent
