"""W&B's environment variables: what of them is meant, and which it would refuse."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import ValidationError

from seva_exp.core.printable import one_line
from seva_exp.tracking.spec import (
    ENTITY,
    GROUP_LENGTH,
    PROJECT,
    PROJECT_LENGTH,
    TAG_LENGTH,
    WandbTracker,
)

OURS = {
    *("WANDB_MODE", "WANDB_BASE_URL", "WANDB_API_KEY", "WANDB_DISABLED"),  # wandb_mode reads them
    *("WANDB_PROJECT", "WANDB_TAGS"),  # read here
}
"""Variables that are looked at by us; the others are W&B's to read."""
LENGTHS = {"WANDB_RUN_GROUP": GROUP_LENGTH, "WANDB_NAME": GROUP_LENGTH}
"""Most characters that the host takes; wandb itself does not look."""


def project_of(tracker: WandbTracker) -> str:
    """``tracker.project``, else $WANDB_PROJECT where that can be a project, else our name."""
    said = os.environ.get("WANDB_PROJECT", "")
    usable = len(said) <= PROJECT_LENGTH and PROJECT.search(said)
    return tracker.project or (said if usable else "seva_exp")


def tags_of(tags: tuple[str, ...]) -> tuple[str, ...]:
    """A run's tags, with those of $WANDB_TAGS that can be tags."""
    said = _said_tags(os.environ)
    return tuple(dict.fromkeys([*tags, *(tag for tag in said if len(tag) <= TAG_LENGTH)]))


def _said_tags(environment: Mapping[str, str]) -> list[str]:
    tags = (tag.strip() for tag in environment.get("WANDB_TAGS", "").split(","))
    return [tag for tag in tags if tag]


def refused(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that W&B will not take -> why."""
    import wandb

    found = {}
    for name, value in sorted(environment.items()):
        if not name.startswith("WANDB_") or name in OURS:
            continue
        if len(value) > LENGTHS.get(name, len(value)):
            found[name] = f"at most {LENGTHS[name]} characters"
            continue
        try:
            wandb.Settings().update_from_env_vars({name: value})
        except ValidationError as error:
            found[name] = error.errors()[0]["msg"]
        except Exception as error:  # whatever a check of wandb's raises
            found[name] = str(error)
    said = environment.get("WANDB_PROJECT", "")
    if said and project_of(WandbTracker()) != said:
        found["WANDB_PROJECT"] = f"at most {PROJECT_LENGTH} characters, none of /\\#?%:"
    if any(len(tag) > TAG_LENGTH for tag in _said_tags(environment)):
        found["WANDB_TAGS"] = f"a tag has at most {TAG_LENGTH} characters; the shorter ones are"
    if (entity := environment.get("WANDB_ENTITY")) and not ENTITY.search(entity):
        found["WANDB_ENTITY"] = "a user's or team's name has letters, digits and any of _.- alone"
    return {name: one_line(why) for name, why in found.items()}
