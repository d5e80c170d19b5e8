"""What ``--help`` tells before the config: what people change most, the other commands, the
groups."""

from __future__ import annotations

from seva_exp.core.paths import config_dir, options_of, sweeps_dir
from seva_exp.core.printable import COLUMNS, columns

COMMANDS = {
    "ask": "a question about a picture, base and aligned side by side",
    "compare": "runs side by side: what differs, scores with significance",
    "dashboard": "a W&B workspace and report over a project's runs",
    "data": "the benchmarks' official files; small samples of each",
    "evaluate": "any adapters on one base model, each with its difference to it",
    "explain": "what each word of a finished run's answers rests on",
    "export": "a run's predictions and pairs as other tools' files",
    "lmms_eval": "a benchmark once more by lmms-eval's own code",
    "options": "every option as Markdown, or as a JSON schema for editors",
    "published": "published numbers beside those of a run",
    "runs": "list, show, compare keys of, clean and watch runs",
    "ship": "the aligned model as a folder or on the hub, with a card",
    "vllm": "vLLM in an environment of its own, for generation=vllm",
}
"""The other commands, ``python -m seva_exp.NAME``, each with what it does."""
CHANGED_MOST = {
    "+aug=NAME": "the negative view; '+aug=[A,B]': two of them",
    "method=NAME": "seva, stic, best_of_k ...",
    "model=NAME model.path=ID": "the model, and other weights of its family",
    "data=folder data.path=DIR": "the pictures and questions",
    "data.samples=N": "how many of them",
    "dpo.beta=0.1": "strength of the pull to the reference model",
    "dpo.learning_rate=1e-4": "also dpo.epochs, .batch_size, .lora_rank, .loss",
    "benchmark=NAME": "what is measured; '[A,B]': two, none: nothing",
    "seed=0": "every random choice; -m seed=0,1,2: three runs",
    "machine=NAME": "gpu_24gb ...; machine.device, .processes, .runs",
}
"""What people change most, and how it is written."""
EXAMPLES = {
    "+aug=diffusion_noise": "all, on the embedded model",
    "+aug=moco dry_run=true": "the plan only",
    "-m +aug=moco,simclr seed=0,1": "a sweep: four runs",
    "-cn seva_beta": "a ready-made sweep",
    "experiment=seva_7b_paper": "a paper's preset",
}
INNER = ("fit",)
"""Folders of ``conf/`` that are chosen by the config itself, never by a person."""


def help_text() -> str:
    """The part of ``--help`` before the config."""
    return "\n".join(
        [
            "seva_exp: vision-language models that align themselves (SeVa, STIC and what came",
            "after), as one resumable pipeline.",
            "",
            *_two_columns({f"python -m seva_exp {w}": said for w, said in EXAMPLES.items()}, 48),
            "",
            "What is changed most (any field of the config below: FIELD=VALUE):",
            *_two_columns(CHANGED_MOST, 25),
            "",
            "Other commands, python -m seva_exp.NAME (each with --help, --version):",
            *_two_columns(COMMANDS, 10),
            "",
            "Config groups (GROUP=NAME; +aug=NAME and +score=NAME add one):",
            *_groups(),
            "",
        ]
    )


def _two_columns(rows: dict[str, str], width: int) -> list[str]:
    """Where the left one is wider than ``width``, the right one stands below it."""
    lines = []
    for left, right in rows.items():
        wide = len(left) > width or width + len(right) + 4 > COLUMNS
        lines += [f"  {left}", f"      {right}"] if wide else [f"  {left:{width}}  {right}"]
    return lines


def _groups() -> list[str]:
    """Each group of ``conf/`` with its names, and the sweeps."""
    folders = sorted(path for path in config_dir().rglob("*") if path.is_dir())
    lines = []
    for folder in folders:
        group = folder.relative_to(config_dir()).as_posix()
        names = options_of(group)
        if folder.name not in INNER and names:
            lines += [f"{group}:", *(f"  {line}" for line in columns(names))]
    names = sorted(file.stem for file in sweeps_dir().glob("*.yaml"))
    return [*lines, "sweeps (-cn NAME):", *(f"  {line}" for line in columns(names))]
