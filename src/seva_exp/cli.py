"""The command line: the only file that imports hydra. It composes, overrides, sweeps, launches;
what a config means is decided in ``config.py``.

Exit codes: 0 done; 2 bad config or input; 1 a stage failed; 130 interrupted.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

from seva_exp.errors import InputError, StageError, nearest, suggest
from seva_exp.paths import config_dir, sweeps_dir

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
WITH_VALUE = (
    "-cn", "--config-name", "-cd", "--config-dir", "-cp", "--config-path", "-p", "--package",
    "-c", "--cfg", "--experimental-rerun",
)  # fmt: skip
"""Hydra's flags that take the next word as their value."""


def main() -> NoReturn:
    """Entry point of ``python -m seva_exp`` and ``seva-exp``."""
    # Hydra would print a stack trace's remains and exit with 1; its errors are told below.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a narrow encoding must not end a run
    import hydra

    sys.argv[1:] = arguments(sys.argv[1:])
    codes = [DONE]
    start = hydra.main(config_path=str(config_dir()), config_name="config", version_base="1.3")
    try:
        start(lambda config: codes.append(_job(config)))()
    except BaseException as error:
        sys.exit(_exit_code(error, started=len(codes) > 1))
    sys.exit(max(codes))


def arguments(words: list[str]) -> list[str]:
    """The command line as Hydra wants it: flags first (argparse takes overrides in one stretch
    only), ``~`` in values as a shell would expand it, sweeps/ on the search path."""
    flags: list[str] = []
    overrides: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in WITH_VALUE:
            flags += [word, next(rest, "")]
        elif word.startswith("-"):
            flags.append(word)
        else:
            home = re.match(r"([\w.@/+]+=)(~(?:/.*)?)$", word, re.DOTALL)
            overrides.append(home[1] + os.path.expanduser(home[2]) if home else word)
    named = any(flag.split("=")[0] in ("--config-dir", "-cd") for flag in flags)
    if not named and sweeps_dir().is_dir():
        flags += ["--config-dir", str(sweeps_dir())]
    return [*flags, *overrides]


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM (a scheduler's time limit) ends a run as Ctrl-C does: the store stays usable."""
    raise KeyboardInterrupt


def _job(config: Any) -> int:
    """One run of the composed config; its exit code. Hydra would keep a failed job's error until
    the whole sweep has run, so it is told here, at once."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from seva_exp.api import run
    from seva_exp.config import parse

    settings = HydraConfig.get()
    overrides = list(settings.overrides.task)
    if settings.job.config_name not in (None, "config"):
        overrides = ["-cn", settings.job.config_name, *overrides]
    sweeping = settings.mode is not None and settings.mode.name == "MULTIRUN"
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
        wanted = parse(values)
        options = wanted.options
        if sweeping and options.name is None:
            name = sweep_name(wanted.experiment.title, overrides, swept_keys(settings))
            options = options.model_copy(update={"name": name})
        run(
            wanted.experiment,
            wanted.machine,
            options,
            tracker=wanted.tracker,
            overrides=overrides,
        )
    except (InputError, StageError) as error:
        _tell(f"[{' '.join(overrides)}] {error}" if sweeping else str(error))
        return BAD_INPUT if isinstance(error, InputError) else FAILED
    return DONE


def swept_keys(settings: Any) -> set[str]:
    """The fields that a sweep varies: those with several values on the command line, and those of
    its file."""
    several = (word.partition("=") for word in sys.argv[1:] if re.search(r"=.*[,(]", word))
    return {key for key, _, _ in several} | set(settings.sweeper.get("params") or {})


def sweep_name(title: str, overrides: list[str], swept: set[str]) -> str:
    """What tells one run of a sweep from another: its title and the fields that vary, e.g.
    ``diffusion_noise_step=300_beta=0.1``."""
    words = [title]
    for override in overrides:
        key, _, value = override.partition("=")
        if key in swept and not key.startswith("+"):
            words.append(f"{key.rsplit('.', 1)[-1]}={value}")
    return re.sub(r"[^\w.+=-]+", "-", "_".join(words), flags=re.ASCII)[:100]


def _tell(message: str) -> None:
    print(f"seva_exp: {message}", file=sys.stderr, flush=True)


def _exit_code(error: BaseException, started: bool) -> int:
    """Tell an error in one line, without a stack trace where the user can mend it. What Hydra
    raises before a job has ``started`` is about the command line."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if isinstance(error, KeyboardInterrupt):
        _tell("interrupted; what was finished is in the store, the same command goes on from it")
        return INTERRUPTED
    if isinstance(error, HydraException | OmegaConfBaseException):
        _tell(_explain(error))
        return BAD_INPUT
    if isinstance(error, ValueError | TypeError) and not started:
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
    if found := re.search(r"Cannot find primary config '([^']+)'", text):
        names = sorted(file.stem for file in sweeps_dir().glob("*.yaml"))
        return f"-cn {found[1]}: no such sweep.{suggest(found[1], names)}"
    if found := re.search(r"Multiple values for (\w+)", text):
        return f"{found[1]}: is chosen already; write it without '+', several as a list: [A,B]."
    if found := re.search(r"An item is already at '([^']+)'", text):
        return f"{found[1]}: is in the config already; write it without '+'."
    if "Config group override must be" in text:
        groups = {folder.name for folder in config_dir().iterdir() if folder.is_dir()}
        keys = [word.partition("=")[0].lstrip("+") for word in sys.argv[1:]]
        named = ", ".join(key for key in keys if key in groups)
        return f"{named}: a config group takes the name of one of its configs (--help lists them)."
    if "hydra.cc/docs" in text and "grammar" in text:
        where = text.splitlines()
        return f"{where[0]}: quote values with special characters: \"field='value'\"."
    if found := re.search(r"Could not override '([^'@]+)", text):
        return _explain_key(found[1])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:3])


def _explain_key(key: str) -> str:
    """Why ``key=value`` fits nothing in the config."""
    from seva_exp.config import how_to_add, known_fields
    from seva_exp.paths import options_of

    group, *rest = key.split(".")
    fields = known_fields()
    if group in ("aug", "benchmark") and rest and rest[0] in options_of(group) and key in fields:
        return f"{key}: this {group} is not in the config. {how_to_add(group, rest[0])}"
    if key == "aug":
        return f"aug: negative views are added: write +aug=NAME.{suggest('', options_of('aug'))}"
    if key in fields and group == "instructions":
        return f"{key}: there are no instructions in the config. Add data@instructions=instruct."
    if key in fields:
        return f"{key}: the chosen {group} has no such field; another {group}=NAME has."
    match = nearest(key, fields)
    hint = f" Did you mean '{match}'?" if match else ""
    return f"{key}: no such field.{hint}"
