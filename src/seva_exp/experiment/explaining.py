"""How ``explain`` fits into an experiment."""

from __future__ import annotations

from seva_exp.augment import AnySource, Augmentation, ImageAugmentation
from seva_exp.experiment.value import Experiment
from seva_exp.methods import AdapterMethod


def worse_view(experiment: Experiment) -> tuple[str, AnySource | None]:
    """The run's negative view that a benchmark's picture can be shown in, by its name: the first
    that changes the picture by itself (takes no others of the data, is not found by the model); ""
    and None where there is none."""
    method = experiment.method
    if isinstance(method, AdapterMethod):
        return "", None
    for name in method.active_views(experiment.aug):
        source = experiment.aug[name]
        if not isinstance(source, Augmentation) or source.learned or "images" not in source.gives:
            continue
        if isinstance(source, ImageAugmentation) and source.partners:
            continue
        return name, source
    return "", None
