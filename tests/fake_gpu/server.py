"""``python -m fake_gpu.server GUARD``: a process that has torch, a fake GPU and this package
imported, and forks for each case that it is asked for.

Imports take eight seconds, a fork none; and what a case patches or trains dies with its process. A
line of standard input asks: the case (a function of cases.py), its arguments, and a folder for
``result.json`` and ``output.txt``. The reply is the exit code.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import traceback
from pathlib import Path

from .install import install

HEAVY = ("trl", "peft", "transformers.models.llava.modeling_llava", "tokenizers", "fake_gpu.cases")
HEAVY += tuple(
    f"seva_exp.{name}"
    for name in ("training.dpo", "training.finetune", "training.reference", "decoding.engine")
)


def main(guard: Path) -> None:
    """Serve until standard input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries say when they are imported is no reply
    from seva_exp.core.runtime import settle

    settle()
    install(guard)
    for name in HEAVY:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a case's collections look at its own objects only
    for line in sys.stdin:
        asked = json.loads(line)
        if (pid := os.fork()) == 0:
            _do(asked["case"], asked["arguments"], Path(asked["folder"]))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=replies, flush=True)


def _do(case: str, arguments: dict[str, object], folder: Path) -> None:
    """In the forked process, which ends here."""
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)
    code = 0
    try:
        found = getattr(importlib.import_module("fake_gpu.cases"), case)(**arguments)
        (folder / "result.json").write_text(json.dumps(found), encoding="utf-8")
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
