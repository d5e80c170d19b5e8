"""The view that a contrast looks at: one of the run's, or a kind of view with its default
numbers."""

from __future__ import annotations

from collections.abc import Mapping

from seva_exp.augment import AUGMENTATIONS, AnySource, Augmentation, ImageAugmentation
from seva_exp.core.errors import suggest
from seva_exp.decoding import Contrast, HfGeneration
from seva_exp.decoding.spec import Generation
from seva_exp.stages.contrast import contrast_of

FIELD = "generation.contrast.view"


def paired_contrast(generation: Generation) -> Contrast | None:
    """The contrast, where it has something stand beside each row."""
    contrast = contrast_of(generation)
    return contrast if contrast and contrast.paired else None


def source_of(generation: Generation, aug: Mapping[str, AnySource]) -> AnySource | None:
    """The view; None where there is no contrast, and for the question without a picture. Raises
    ValueError for a name that stands for no view."""
    contrast = paired_contrast(generation)
    name = contrast.looks_at if contrast else None
    if name is None:
        return None
    source = aug.get(name)
    if source is None and name in AUGMENTATIONS:
        source = AUGMENTATIONS[name].model_validate({})
    if source is None:
        known = {*aug, *AUGMENTATIONS}
        raise ValueError(f"{FIELD}={name}: no such view.{suggest(name, known)}")
    if not isinstance(source, Augmentation):
        raise ValueError(
            f"{FIELD}={name}: kind={source.kind} is no view: it asks the same question, or none. "
            "Take one that worsens picture or prompt, or null: no picture."
        )
    if isinstance(source, ImageAugmentation) and source.partners:
        raise ValueError(
            f"{FIELD}={name}: kind={source.kind} takes other pictures of the data, and a "
            "benchmark's picture has none beside it. Take another view."
        )
    return source


def contrasted_evaluation(generation: Generation) -> HfGeneration | None:
    """How the benchmarks' questions are asked; None: as ever, greedily and without a contrast."""
    contrast = contrast_of(generation)
    if contrast is None or "evaluate" not in contrast.at:
        return None
    return HfGeneration(temperature=contrast.temperature, contrast=contrast)


def check_source(generation: Generation, aug: Mapping[str, AnySource]) -> None:
    """What is wrong outside the view's spec (a file). Raises InputError."""
    source, contrast = source_of(generation, aug), paired_contrast(generation)
    if source and contrast and contrast.looks_at not in aug:
        source.check(FIELD)
