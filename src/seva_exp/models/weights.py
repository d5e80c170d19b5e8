"""A model's weights: all that it needs, no other, of the right shapes, and finite; or refused by
name. transformers draws what is missing at random, and says so in a warning."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import isfinite
from typing import Any

import torch

from seva_exp.core.errors import StageError
from seva_exp.core.printable import error_text
from seva_exp.models.checkpoint import Checkpoint

SHOWN = 3
"""Names of weights in a message; the others are counted."""
NO_WEIGHTS = ("inv_freq", "position_ids", "num_batches_tracked", "attn.masked_bias")
"""Last parts of the names of buffers that older versions stored and today's compute: they decide
nothing."""


def load_weights(spec: Checkpoint, **options: Any) -> Any:
    """``from_pretrained`` with what it tells of the weights looked at. Raises StageError where they
    are not the model's. Pickled weights are never opened, and no code of a checkpoint is run."""
    from transformers import AutoModelForImageTextToText

    where = f"model.path={spec.location()}"
    try:
        model, loaded = AutoModelForImageTextToText.from_pretrained(
            spec.location(),
            revision=spec.revision,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # told, and refused here by name
            output_loading_info=True,
            **options,
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # foreign files raise errors of many types
        problem = error_text(error)
        raise StageError(f"{where}: its weights cannot be loaded: {problem}") from error
    refuse_faults(where, _faults(loaded) | {"not finite": not_finite(model.named_parameters())})
    return model


def _faults(loaded: dict[str, Any]) -> dict[str, list[str]]:
    others = [name for name in loaded["unexpected_keys"] if not name.endswith(NO_WEIGHTS)]
    shapes = [f"{name} ({list(a)}, not {list(b)})" for name, a, b in loaded["mismatched_keys"]]
    mismatched = {name for name, *_ in loaded["mismatched_keys"]}
    missing = [name for name in loaded["missing_keys"] if name not in mismatched]
    return {"missing": missing, "of other shapes": shapes, "not this model's": others}


def not_finite(weights: Iterable[tuple[str, torch.Tensor]]) -> list[str]:
    """The names of those with a NaN or an infinity. A sum tells of both in one pass; only where it
    is not finite, as that of large numbers may be, each number is looked at."""
    named = [(name, one) for name, one in weights if one.is_floating_point() and not one.is_meta]
    places: dict[torch.device, list[int]] = {}
    for number, (_, one) in enumerate(named):
        places.setdefault(one.device, []).append(number)
    with torch.no_grad():
        suspects = []
        for numbers in places.values():  # the host waits once for each device
            sums = torch.stack([named[number][1].sum().float() for number in numbers]).tolist()
            suspects += [
                named[n] for n, one in zip(numbers, sums, strict=True) if not isfinite(one)
            ]
        return [name for name, one in suspects if not one.isfinite().all()]


def refuse_faults(where: str, faults: Mapping[str, Collection[str]]) -> None:
    """StageError if there is one: what is wrong with how many weights, and some of their names."""
    problems = [
        f"{len(names)} {what} ({', '.join(sorted(names)[:SHOWN])}{', ...' * (len(names) > SHOWN)})"
        for what, names in faults.items()
        if names
    ]
    if problems:
        raise StageError(
            f"{where}: its weights are not whole: {'; '.join(problems)}. Get the files again."
        )
