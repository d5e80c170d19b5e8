"""The labels of a run's stages, made and read: a stage's name, what it is about, its round."""

from __future__ import annotations


def kind_of(label: str) -> str:
    """``evaluate`` of ``evaluate.base.shapes``: the stage's name. (The samples of STIC's stage 2
    are labelled ``instructions``.)"""
    return label.partition(".")[0]


def about_model(kind: str, model: str, benchmark: str) -> str:
    """``evaluate.base.shapes``."""
    return f"{kind}.{model}.{benchmark}"


def model_and_benchmark(label: str) -> tuple[str, str]:
    """What ``about_model`` was made of."""
    _, model, benchmark = label.split(".", 2)
    return model, benchmark


def view_and_round(label: str) -> tuple[str, str]:
    """Of ``answers.moco.round2``; a run of one round has none."""
    _, view, *later = label.split(".")
    return view, ".".join(later)


def of_same_round(kind: str, label: str) -> str:
    """The stage of this kind in the round of another one: ``pairs.round2`` for ``align.round2``."""
    return f"{kind}{label.removeprefix(kind_of(label))}"
