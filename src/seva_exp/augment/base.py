"""Where rejected answers come from: a negative view, another candidate, an edit, a file. Each is a
spec; a view or an edit is called with its input and a random generator."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from PIL import Image

from seva_exp.core.plugin_source import code_of
from seva_exp.core.spec import Json, Spec

if TYPE_CHECKING:
    import torch

Space = Literal["image", "pixels", "prompt", ""]


class Source(Spec):
    """A source of rejected answers, one of the group ``aug``."""

    space: ClassVar[Space] = ""
    """What of the question it changes; empty: nothing."""
    gives: ClassVar[frozenset[str]] = frozenset()
    """What a loss may look at beside the answers (``training.loss.NEEDS``)."""
    asks: ClassVar[bool] = True
    """Whether a model gives the answers; else the source itself does (``TextSource``)."""
    careful: ClassVar[bool] = False
    """Whether the question is asked as the clean view asks it."""
    learned: ClassVar[bool] = False
    """Whether the model itself finds the picture, in a stage that looks at the clean answers."""
    kind: str

    def check(self, where: str) -> None:
        """Raises InputError for what is wrong outside the spec (a file, say); quick. ``where``
        (such as ``aug.mild``) names the source in the error."""

    def identity(self) -> Json:
        """All that decides the result: the fields, and the contents of files behind them. Never a
        path of this machine."""
        return self.to_json()

    def keyed(self) -> Json:
        """What a key holds of it: ``identity``, and the code of a class that is none of this
        package (docs/plugins.md)."""
        return self.identity() | code_of(type(self))

    @property
    def stream(self) -> str:
        """Names its random numbers. Its kind, so that two names of one source share answers."""
        return self.kind

    @property
    def strength(self) -> float | None:
        """How much the picture is changed, the more the larger, on a scale that all of this kind
        share; none where that has no order. Losses over an ordered list of pictures look at it."""
        return None

    def decoding(self) -> Json:
        """The fields of ``generation`` that are others for its answers."""
        return {}


class Augmentation(Source):
    """A negative view: a worse way to ask. ``space`` says what it changes.

    The given generator is the only source of randomness, and the input is never changed in place.
    """


class TextSource(Source):
    """Rejected answers without a model: texts, of which training makes the tokens."""

    asks: ClassVar[bool] = False
    edits: ClassVar[bool]
    """Whether it looks at the clean answers."""
    seeded: ClassVar[bool] = True
    """Whether the run's seed changes the texts."""

    def files(self) -> dict[str, Path]:
        """The files that are read, by their fields: the hashes are in the key, ``identity`` has no
        path. Raises InputError where one is not there."""
        return {}

    @abstractmethod
    def texts(self, sample_id: str, chosen: str, rng: random.Random) -> Sequence[str]:
        """The rejected answers to a sample, none or several. ``chosen`` is the clean answer, empty
        where ``edits`` is not set."""


class AnswerEdit(TextSource):
    """The clean answer, changed."""

    edits: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, x: str, rng: random.Random) -> str:
        """An answer in, a worse answer out; the same where nothing can be changed, which the filter
        ``equal`` removes."""

    def texts(self, sample_id: str, chosen: str, rng: random.Random) -> Sequence[str]:
        return (self(chosen, rng),)


class Rewrite(Source):
    """The clean answer, rewritten by the run's own model, which is loaded for it. Each kind has a
    function of ``preferences.rewriting`` that does it."""

    asks: ClassVar[bool] = False
    edits: ClassVar[bool] = True
    seeded: ClassVar[bool] = True
    """Whether the run's seed changes the answers."""

    def files(self) -> dict[str, Path]:
        """As a ``TextSource``'s; here none."""
        return {}

    @property
    def shown(self) -> Augmentation | None:
        """The negative view whose picture the model sees meanwhile; None where it sees none."""
        return None

    def in_round(self, number: int) -> Self:
        """As it is in round ``number`` (from 1)."""
        return self


class ImageAugmentation(Augmentation):
    """Changes the picture before the model's processor.

    A view that needs other pictures of the data set declares how many (``partners``) and is called
    as ``view(x, rng, *pictures)``; they are never the sample's own.
    """

    space: ClassVar[Space] = "image"
    gives: ClassVar[frozenset[str]] = frozenset({"images"})
    partners: ClassVar[int] = 0

    @abstractmethod
    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        """An RGB picture in, an RGB picture out, of the same size where nothing else is said."""


class PixelAugmentation(Augmentation):
    """Changes the normalised pixel values after the model's processor."""

    space: ClassVar[Space] = "pixels"
    gives: ClassVar[frozenset[str]] = frozenset({"images"})
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
