"""The licence of a base model, as its own card states it."""

from __future__ import annotations

from pathlib import Path

from seva_exp.core.spec import Json
from seva_exp.models import AnyModel

FIELDS = ("license", "license_name", "license_link")
OURS = "apache-2.0"
"""The embedded model's, which is this package's."""


def base_licence(model: AnyModel) -> Json:
    """What the base model's card says of its licence, in the words of the hub's metadata; empty
    where there is no card, or it does not say."""
    if model.ours:
        return {"license": OURS}
    folder = Path(model.location())
    if folder.is_dir():
        return card_fields(folder / "README.md")
    card = _cards_file(model.location(), model.revision)
    return card_fields(card) if card else {}


def card_fields(file: Path) -> Json:
    """Of a model card's metadata, a YAML block between two lines of ``---``."""
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
        head, _, _ = text.removeprefix("---\n").partition("\n---")
        found = yaml.safe_load(head) if text.startswith("---\n") else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    values = found if isinstance(found, dict) else {}
    return {name: values[name] for name in FIELDS if isinstance(values.get(name), str)}


def _cards_file(name: str, revision: str) -> Path | None:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(name, "README.md", revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError):
        return None
