"""A view: how the model is asked. The clean one changes nothing; a negative one applies an
augmentation to the image, its pixels or the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seva_exp.interfaces import EncodedImage, VisionLanguageModel
from seva_exp.randomness import python_rng, torch_rng

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class View:
    """``name`` in this run, the augmentation (None: clean) and the run's seed."""

    name: str
    augmentation: Any
    seed: int

    @property
    def _space(self) -> str:
        return self.augmentation.space if self.augmentation else ""

    @property
    def _purpose(self) -> str:
        return f"view/{self.augmentation.kind}"

    def image(self, image: Image, sample_id: str) -> Image:
        """The picture as this view shows it to the processor."""
        if self._space != "image":
            return image
        return self.augmentation(image, python_rng(self.seed, self._purpose, sample_id))

    def prompt(self, prompt: str, sample_id: str) -> str:
        """The prompt as this view asks it."""
        if self._space != "prompt":
            return prompt
        return self.augmentation(prompt, python_rng(self.seed, self._purpose, sample_id))

    def pixels(self, vlm: VisionLanguageModel, image: EncodedImage, sample_id: str) -> EncodedImage:
        """The normalised pixel values as this view changes them."""
        if self._space != "pixels":
            return image
        rng = torch_rng(self.seed, self._purpose, sample_id)
        return vlm.map_pixels(image, lambda values: self.augmentation(values, rng))
