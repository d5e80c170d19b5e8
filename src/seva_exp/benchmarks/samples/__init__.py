"""Small benchmarks of every kind in their official formats, made of the embedded world: for tests,
and for a newcomer without a download. The embedded model can answer them as they are
(``protocol=tiny``)."""

from __future__ import annotations

from pathlib import Path

from seva_exp.benchmarks.samples import (
    choices,
    described,
    hallucination,
    judged,
    looking,
    short,
    yes_no,
)
from seva_exp.benchmarks.samples.cases import ScenePicture, cases
from seva_exp.core.errors import InputError

PICTURES = 12


def make_samples(root: Path) -> None:
    """Write one of each kind below ``root``, which is made; the same on every machine. Raises
    InputError where something lies there."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise InputError(f"{root}: is not empty. Give a new folder for the samples.")
    except OSError as error:
        raise InputError(f"{root}: cannot be written to ({error.strerror}).") from error
    plain, carded = cases(PICTURES), cases(PICTURES, with_text=True)
    for write in (yes_no.pope, yes_no.mme, described.chair, short.gqa, short.chartqa):
        write(root, plain)
    for write in (choices.mmbench, choices.seed, choices.scienceqa, choices.mathvista):
        write(root, plain)
    for write in (judged.mmvet, judged.llava_bench, judged.shr):
        write(root, plain)
    for write in (looking.hallusionbench, looking.naturalbench, looking.mmstar):
        write(root, plain)
    for write in (looking.mmvp, looking.cv_bench, looking.mmhal):
        write(root, plain)
    for write in (hallucination.amber, hallucination.object_halbench, hallucination.pope_variants):
        write(root, plain)
    short.textvqa(root, carded)
