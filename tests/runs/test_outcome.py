"""What a run's folder asks its stages for: what they are, never their class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seva_exp.runs.folder import _pairs
from seva_exp.stages import Stage
from seva_exp.stages.artifacts import Artifact, PairArtifact


class Ranked(PairArtifact):
    """Preferences of another kind."""


@dataclass(frozen=True)
class Novel(Stage):
    """A stage that is not here yet."""

    name: ClassVar[str] = "novel"

    def spec(self):
        return {}

    def run(self, work, inputs, context):
        return {}


def making(kind: type[Artifact]) -> Stage:
    return type("Made", (Novel,), {"makes": kind})()


def test_a_kind_of_artifact_that_derives_from_one_counts_as_it():
    ranked, other = making(Ranked), making(Artifact)
    assert _pairs([other, ranked]) is ranked
