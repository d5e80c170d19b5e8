"""The command line: the only file that imports hydra. It composes, overrides, sweeps, launches;
what a config means is decided in ``config.py``.

Exit codes: 0 done; 2 bad config or input; 1 a stage failed; 130 interrupted.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

from seva_exp.errors import InputError, StageError, nearest
from seva_exp.paths import config_dir, sweeps_dir

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main() -> NoReturn:
    """Entry point of ``python -m seva_exp`` and ``seva-exp``."""
    # Hydra would print a stack trace's remains and exit with 1; its errors are told below.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    signal.signal(signal.SIGTERM, _interrupt)
    import hydra

    if not {"--config-dir", "-cd"} & set(sys.argv) and sweeps_dir().is_dir():
        sys.argv += ["--config-dir", str(sweeps_dir())]
    start = hydra.main(config_path=str(config_dir()), config_name="config", version_base="1.3")
    try:
        start(_job)()
    except BaseException as error:
        sys.exit(_exit_code(error))
    sys.exit(DONE)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM (a scheduler's time limit) ends a run as Ctrl-C does: the store stays usable."""
    raise KeyboardInterrupt


def _job(config: Any) -> None:
    """One run of the composed config. Hydra keeps a failed job's error until the whole sweep has
    run, so it is told here, at once."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from seva_exp.api import run
    from seva_exp.config import parse

    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
        hydra_config = HydraConfig.get()
        overrides = list(hydra_config.overrides.task)
        name = hydra_config.job.config_name
        if name and name != "config":
            overrides = ["-cn", name, *overrides]
        wanted = parse(_without_missing(values))
        run(
            wanted.experiment,
            wanted.machine,
            wanted.options,
            tracker=wanted.tracker,
            overrides=overrides,
        )
    except (InputError, StageError) as error:
        _tell(str(error))
        raise _Told(error) from None


class _Told(Exception):
    """An error that was printed already."""

    def __init__(self, cause: InputError | StageError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _without_missing(values: Any) -> Any:
    """``???`` means that a field must be set: leave it out, so that validation names it."""
    if isinstance(values, dict):
        return {k: _without_missing(v) for k, v in values.items() if v != "???"}
    return values


def _tell(message: str) -> None:
    print(f"seva_exp: {message}", file=sys.stderr, flush=True)


def _exit_code(error: BaseException) -> int:
    """Tell an error in one line, without a stack trace where the user can mend it."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if isinstance(error, KeyboardInterrupt):
        _tell("interrupted; what was finished is in the store, the same command goes on from it")
        return INTERRUPTED
    if isinstance(error, _Told):
        return BAD_INPUT if isinstance(error.cause, InputError) else FAILED
    if isinstance(error, HydraException | OmegaConfBaseException):
        _tell(_explain(error))
        return BAD_INPUT
    import traceback

    traceback.print_exception(error)
    return FAILED


def _explain(error: Exception) -> str:
    """Hydra's message in one line, with the nearest known name."""
    from hydra.errors import MissingConfigException

    text = str(error)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        match = nearest(name, error.options)
        hint = f" Did you mean '{match}'?" if match else ""
        return f"{group}={name}: no such config.{hint} Known: {', '.join(error.options)}."
    if found := re.search(r"Could not (?:override|append to config.*?) '?([\w.@-]+)'?", text):
        return _explain_key(found[1])
    if found := re.search(r"Could not override '([^']+)'", text):
        return _explain_key(found[1])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:3])


def _explain_key(key: str) -> str:
    from seva_exp.config import known_fields
    from seva_exp.paths import options_of

    parts = key.split(".")
    if parts[0] in ("aug", "benchmark") and len(parts) > 1 and parts[1] in options_of(parts[0]):
        return f"{key}: this {parts[0]} is not in the config. Add +{parts[0]}={parts[1]}."
    if key == "aug":
        return f"aug: write +aug=NAME; negative views are added. Known: {options_of('aug')}."
    match = nearest(key, known_fields())
    hint = f" Did you mean '{match}'?" if match else ""
    return f"{key}: no such field.{hint}"
