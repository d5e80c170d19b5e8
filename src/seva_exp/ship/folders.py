"""A run's model in a folder of plain transformers or PEFT: weights, config, processor, model card.
The folder is there when all of it is: work is done beside it, and renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seva_exp.core.disk import free_space
from seva_exp.core.errors import InputError
from seva_exp.core.files import write_whole
from seva_exp.core.store import open_to_others
from seva_exp.models import AnyModel
from seva_exp.models.adapter_files import CONFIG, WEIGHTS
from seva_exp.models.families import family_of
from seva_exp.models.processor import load_processor
from seva_exp.runs.reader import FinishedRun
from seva_exp.vllm.weights import needs_older, rename_to_older

CARD = "README.md"
PARTIAL = ".partial-"
"""In the name of the folder beside ``out`` in which the work is done, before the process's id."""
SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number."""


@dataclass(frozen=True)
class Weights:
    """What was written: ``dtype`` of the weights, the share of a layer's change that rounding took
    at most (``lost``), and whether names were changed for vLLM."""

    dtype: str
    lost: float = 0.0
    renamed: bool = False


def check_out(out: Path) -> Path:
    """The absolute folder. Raises InputError where something is there already."""
    out = out.expanduser().absolute()
    if os.path.lexists(out) and not out.is_dir():
        raise InputError(f"--out={out}: is a file; a new or empty folder is needed.")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out={out}: is not empty. Give a new folder, or empty this one.")
    above = next(folder for folder in out.parents if folder.exists())
    if not above.is_dir():
        raise InputError(f"--out={out}: {above} is a file. Give another folder.")
    if not os.access(above, os.W_OK):
        raise InputError(f"--out={out}: {above} cannot be written to. Give another folder.")
    return out


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """An empty folder beside ``out`` that takes its place at the end. What killed processes left
    of this is removed."""
    work = out.with_name(f".{out.name}{PARTIAL}{os.getpid()}")
    work.parent.mkdir(parents=True, exist_ok=True)
    for left in out.parent.glob(f".{out.name}{PARTIAL}*"):
        pid = left.name.rpartition("-")[2]
        if left == work or (pid.isdecimal() and not _runs(int(pid))):
            shutil.rmtree(left, ignore_errors=True)
    work.mkdir()
    try:
        yield work
        if out.is_dir():
            out.rmdir()
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def check_room(folder: Path, model: AnyModel, dtype: str) -> None:
    """Raises InputError where a merged model of this size has no room. A model of the hub whose
    weights are not here yet is not known, and passes."""
    files = Path(model.location()).glob("model*.safetensors")
    numbers = sum(file.stat().st_size for file in files) / 2  # at most: of 16 bits each
    needed, free = numbers * SIZES[dtype], free_space(folder)
    if needed > free:
        raise InputError(
            f"--out={folder}: up to {needed / 2**30:.1f} GiB are needed, {free / 2**30:.1f} are "
            "free. Give a folder on another disk, or take --adapter."
        )


def computed_in(run: FinishedRun) -> str:
    """The number format in which the run trained, by the manifest of the stage that did."""
    assert run.trained
    manifest = run.manifest(run.trained.name)
    found = str(manifest.environment.get("dtype", "float32")) if manifest else "float32"
    return found if found in SIZES else "float32"


def write_merged_folder(run: FinishedRun, dtype: str | None, folder: Path) -> Weights:
    """The adapter merged into the base model: weights, config, special ids as runs take them, and
    the processor; names of weights as vLLM finds them. Without a ``dtype``: the run's own, or
    float32 where rounding to that would lose much of what was trained."""
    from seva_exp.models.adapter import LOST
    from seva_exp.models.vlm import without_weights
    from seva_exp.runs.merged import merged_model, save_checkpoint

    model, adapter = run.model(), run.adapter
    assert adapter
    kind = dtype or computed_in(run)
    merged, lost = merged_model(model, adapter, kind)
    if dtype is None and lost > LOST and kind != "float32":
        del merged
        kind = "float32"
        merged, lost = merged_model(model, adapter, kind)
    save_checkpoint(merged, model, folder)
    without_weights(model).model.generation_config.save_pretrained(str(folder))
    if renamed := needs_older(folder):
        rename_to_older(folder)
    return Weights(kind, lost, renamed)


def write_adapter_folder(run: FinishedRun, base: str, folder: Path) -> Weights:
    """The adapter as it was trained, byte for byte, its config with the ``base`` that others know,
    and the processor."""
    model, adapter = run.model(), run.adapter
    assert adapter
    load_processor(model).save_pretrained(str(folder))
    shutil.copyfile(adapter / WEIGHTS, folder / WEIGHTS)
    config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base
    if base == model.location() and model.revision != "main":
        config["revision"] = model.revision
    write_whole(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
    return Weights(_dtype_of(folder / WEIGHTS))


def _dtype_of(file: Path) -> str:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as content:
        kinds = {str(content.get_tensor(name).dtype) for name in content.keys()}  # noqa: SIM118
    return ", ".join(sorted(kind.removeprefix("torch.") for kind in kinds))


def finish(folder: Path, card: str) -> None:
    """The card, and modes as the umask gives them."""
    write_whole(folder / CARD, card)
    open_to_others(folder, folder / CARD)


def size(folder: Path) -> int:
    """Bytes of all its files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def asked_as(model: AnyModel) -> dict[str, Any]:
    """How the model is asked, for the card's example: the words ``around`` a question as the
    processor takes them, whether its tokenizer adds special tokens, the colour on which a picture
    is padded to a square."""
    from seva_exp.models.vlm import without_weights

    processor = load_processor(model)
    config = without_weights(model).model.config
    text = family_of(config).chat_text(processor, model.system_prompt, "{question}")
    bos = processor.tokenizer.bos_token
    mean = processor.image_processor.image_mean if model.pad_to_square else None
    return {
        "around": text,
        "add_special_tokens": not (bos and text.startswith(bos)),
        "square": tuple(int(255 * value) for value in mean) if mean else None,
    }
