"""Which tracker, and what it is told beside the run itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from seva_exp.core.spec import BY_KIND, Spec, by_kind


class NoTracker(Spec):
    """No tracker: nothing is sent, and the run's folder holds every number already."""

    kind: Literal["none"] = "none"


class Tracked(Spec):
    """The options of every tracker."""

    project: str = Field("seva_exp", min_length=1)
    """Project that the runs are filed under."""
    group: str | None = None
    """Name under which runs are grouped; none: the sweep's name, where there is one."""
    tags: tuple[str, ...] = ()
    """Tags beside those of the run's own method, views and model."""


class WandbTracker(Tracked):
    """Mirror a run to Weights & Biases, or to files that ``wandb sync`` uploads later."""

    kind: Literal["wandb"] = "wandb"
    entity: str | None = None
    """W&B user or team; none takes the account's own (or $WANDB_ENTITY)."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """``auto``: what $WANDB_MODE says, else online when a key is found and the host answers."""
    artifacts: bool = True
    """Whether the pairs and the adapter are logged as artifacts: uploaded, once per content."""


class TrackioTracker(Tracked):
    """Mirror a run to trackio, a dashboard over SQLite files on this machine ($TRACKIO_DIR)."""

    kind: Literal["trackio"] = "trackio"


_Union = NoTracker | WandbTracker | TrackioTracker

AnyTracker = Annotated[_Union, BY_KIND]
"""The field type of a config that holds a tracker."""
TRACKERS: dict[str, type[Spec]] = by_kind(_Union)
"""kind -> class."""


def in_sweep(tracker: AnyTracker, sweep: str) -> AnyTracker:
    """The tracker of one run of a sweep: its group is the sweep, where none was given."""
    if isinstance(tracker, NoTracker) or tracker.group is not None:
        return tracker
    return tracker.model_copy(update={"group": sweep[:GROUP_LENGTH]})


GROUP_LENGTH = 128
"""Characters in a group's name; W&B takes no more."""
