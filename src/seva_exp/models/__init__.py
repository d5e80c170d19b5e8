"""Vision-language models: specs of where they come from, and one adapter for every family."""

from typing import Annotated

from pydantic import Field

from seva_exp.core.spec import Spec
from seva_exp.models.spec import HubModel, TinyModel

MODELS: dict[str, type[Spec]] = {"hub": HubModel, "tiny": TinyModel}
AnyModel = Annotated[HubModel | TinyModel, Field(discriminator="kind")]

__all__ = ["MODELS", "AnyModel", "HubModel", "TinyModel"]
