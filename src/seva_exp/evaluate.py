"""``python -m seva_exp.evaluate adapters=[A,B] benchmark=NAME``: any adapters on one base model.

Each of them is a run of ``method=adapter`` (a sweep: checked before the first begins, resumable, a
comparison page at its end). The base model is loaded once: an adapter is put beside its weights,
never merged, and taken off again; what the store has of the base model's answers is not asked.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence

from seva_exp.core.arguments import command_parser
from seva_exp.core.errors import InputError
from seva_exp.core.printable import tell
from seva_exp.core.terminal import settle_streams
from seva_exp.stages.loaded import LoadedModel

ABOUT = """Any adapters on one base model, side by side:

  python -m seva_exp.evaluate adapters=[runs/latest,path/to/lora,org/lora] benchmark=pope [WORDS]

An adapter is a finished run's folder, a LoRA's folder in PEFT's layout or its hub id; the folder of
a whole checkpoint can stand among them. WORDS are those of python -m seva_exp: model=llava15_7b
benchmark=hallucination_suite dry_run=true ..."""


def as_sweep(words: Sequence[str]) -> list[str]:
    """The words of the sweep that ``words`` ask for. Raises InputError."""
    given = [word for word in words if word.startswith("adapters=")]
    rest = [word for word in words if not word.startswith("adapters=")]
    if len(given) != 1:
        raise InputError("adapters: give them once: adapters=[runs/latest,path/to/lora].")
    for word in rest:
        if word.startswith(("method=", "method.adapter=", "+aug=")):
            raise InputError(f"{word}: nothing is trained here; leave it out.")
    flags = [word for word in rest if word not in ("-m", "--multirun")]
    adapters = ",".join(_quoted(one) for one in _names(given[0].partition("=")[2]))
    return ["-m", "method=adapter", f"method.adapter={adapters}", *flags]


def _names(text: str) -> list[str]:
    """Of a list such as ``[a,'b, c']``, or one name."""
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    names = next(csv.reader([inner], quotechar="'", skipinitialspace=True, strict=True), [])
    if not all(names) or not names or {"[", "]"} & {*"".join(names)}:
        raise InputError(
            f"adapters={text}: names of folders or hub ids are needed: "
            "adapters=[runs/latest,path/to/lora]; one with a comma stands in single quotes."
        )
    return names


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def main() -> None:
    """The command line; exit codes as ``python -m seva_exp``'s."""
    settle_streams()
    words = sys.argv[1:]
    parser = command_parser("evaluate", ABOUT, laid_out=True)
    parser.usage = f"{parser.prog} adapters=[A,B] benchmark=NAME [WORDS]"
    parser.parse_known_args(words)  # --help and --version; all else is Hydra's
    if not words:
        parser.print_help()
        sys.exit(2)
    try:
        sys.argv[1:] = as_sweep(words)
    except InputError as error:
        tell(str(error))
        sys.exit(2)
    from seva_exp.command.cli import main as run_command

    run_command(LoadedModel(keeps_base=True))


if __name__ == "__main__":
    main()
