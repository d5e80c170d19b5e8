"""Vision-language models: specs of where they come from, and one adapter for every family."""

from typing import Annotated

from seva_exp.core.spec import BY_KIND, Spec, by_kind
from seva_exp.models.spec import HubModel, TinyModel

_Union = HubModel | TinyModel

AnyModel = Annotated[_Union, BY_KIND]
"""The field type of a config that holds a model."""
MODELS: dict[str, type[Spec]] = by_kind(_Union)
"""kind -> class."""
