"""What whoever loads a finished run's model needs of it: that it trained, and is what it was."""

from __future__ import annotations

import argparse
import os

from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import InputError
from seva_exp.core.machine import Machine, resolve_device
from seva_exp.inputs.user_paths import existing_folder
from seva_exp.runs.links import followed
from seva_exp.runs.listing import run_folder
from seva_exp.runs.reader import FinishedRun


def read_trained(text: str) -> FinishedRun:
    """Raises InputError where the folder holds no finished run, where that run trained nothing,
    and where its base model or its adapter are no longer what they were."""
    link = run_folder(text)
    folder = followed(link) if link.is_file() else existing_folder("RUN", os.fspath(link))
    run = FinishedRun.read(folder)
    model = run.model()
    if run.trained is None:
        raise InputError(f"RUN={folder}: this run trained nothing, so it has no aligned model.")
    manifest = run.manifest(run.trained.name)
    if manifest is None:
        raise InputError(
            f"RUN={folder}: the adapter of {run.trained.name} is not whole any more "
            f"({run.adapter}). {run.again}"
        )
    model.check()
    digests = FileDigests(run.store.root)
    if manifest.spec["model"] != model.identity(digests):
        raise InputError(
            f"RUN={folder}: the base model at {model.location()} is no longer the one that this "
            "run trained on (its files differ). Run it again."
        )
    digests.save()
    return run


def device_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``machine_of`` reads."""
    parser.add_argument("--device", default="auto", help="as machine.device")
    parser.add_argument("--dtype", default="auto", help="as machine.dtype")


def machine_of(device: str, dtype: str) -> Machine:
    """The machine of a command's ``--device`` and ``--dtype``. Raises InputError."""
    from pydantic import ValidationError

    try:
        machine = Machine.model_validate({"device": device, "dtype": dtype})
    except ValidationError as error:
        fault = error.errors()[0]
        raise InputError(f"--{fault['loc'][0]} {fault['input']}: {fault['msg']}.") from None
    resolve_device(machine)
    return machine
