"""What an augmentation is: a spec that can be called with its input and a random generator."""

from __future__ import annotations

import random
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from seva_exp.core.spec import Json, Spec

if TYPE_CHECKING:
    import torch
    from PIL import Image

Space = Literal["image", "pixels", "prompt"]


class Augmentation(Spec):
    """A negative view: a worse way to ask. ``space`` says what it changes.

    The given generator is the only source of randomness, and the input is never changed in place.
    """

    space: ClassVar[Space]
    kind: str

    def check(self, where: str) -> None:
        """Raises InputError for what is wrong outside the spec (a file, say); quick. ``where``
        (such as ``aug.mild``) names the view in the error."""

    def identity(self) -> Json:
        """All that decides the view's result: the fields, and the contents of files behind them.
        Never a path of this machine."""
        return self.to_json()


class ImageAugmentation(Augmentation):
    """Changes the picture before the model's processor.

    A view that needs other pictures of the data set declares how many (``partners``) and is called
    as ``view(x, rng, *pictures)``; they are never the sample's own.
    """

    space: ClassVar[Space] = "image"
    partners: ClassVar[int] = 0

    @abstractmethod
    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        """An RGB picture in, an RGB picture out."""


class PixelAugmentation(Augmentation):
    """Changes the normalised pixel values after the model's processor."""

    space: ClassVar[Space] = "pixels"
    image_twin: ClassVar[str]
    """Kind of the view that does about the same to the picture, for a model that is not here."""

    @abstractmethod
    def __call__(self, x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """``x``: float32, any shape; ``rng``: on the CPU. Gives the same shape."""


class PromptAugmentation(Augmentation):
    """Changes the text of the question."""

    space: ClassVar[Space] = "prompt"

    @abstractmethod
    def __call__(self, x: str, rng: random.Random) -> str:
        """A prompt in, a prompt out."""
