"""What a tracker must be able to do; everything else is the listener's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seva_exp.core.records import TRACKED_ID
from seva_exp.core.spec import Json
from seva_exp.tracking.content import Gallery, StageFile, Table


@dataclass(frozen=True)
class TrackedRun:
    """A run as a tracker files it. ``key`` is the run's; equal work goes on in the same one."""

    key: str
    name: str
    group: str | None
    job_type: str
    tags: tuple[str, ...]
    config: Json
    dir: Path


class Sink(ABC):
    """One run in one tracker. Whatever it raises ends the tracking, never the run."""

    label: str
    """What a person calls the tracker."""
    fresh: bool = False
    """Set by ``open``: the tracker holds nothing of this run yet, whatever was sent before."""
    url: str = ""
    """Set by ``open``: where a browser finds the run, on a server that keeps it."""

    def run_id(self, key: str) -> str:
        """The id of the run with this key."""
        return key[:TRACKED_ID]

    @abstractmethod
    def target(self) -> Json:
        """The tracker's address; steps sent elsewhere count as not sent."""

    def refused(self) -> str | None:
        """Why nothing is to be tracked; None when it is."""
        return None

    @abstractmethod
    def open(self, run: TrackedRun) -> str:
        """Begin, or go on; returns how, for a person."""

    @property
    @abstractmethod
    def place(self) -> str:
        """The folder or file that holds the run on this machine; empty when a server does."""

    @abstractmethod
    def hint(self, places: Sequence[str]) -> str:
        """The next command for a person whose run's files lie in ``places``."""

    @abstractmethod
    def axis(self, stage: str) -> None:
        """Numbers named ``<stage>/...`` are drawn over ``<stage>/step``."""

    @abstractmethod
    def log(self, values: Mapping[str, float], row: int, step: int) -> int:
        """Numbers of one training step, as row ``row`` of the run's history at the earliest.
        Returns the row taken."""

    @abstractmethod
    def summarise(self, values: Json) -> None:
        """Values of the whole run: numbers, truths, texts."""

    @abstractmethod
    def describe(self, environment: Json) -> None:
        """Log the machine and environment, beside the config."""

    @abstractmethod
    def show(self, table: Table | None, galleries: Gallery, row: int) -> int:
        """The table of scores and the pictures, as row ``row`` at the earliest; the row taken."""

    @abstractmethod
    def keep(self, made: Sequence[StageFile]) -> None:
        """Files that the run made or took from an earlier one."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """The run has ended."""
