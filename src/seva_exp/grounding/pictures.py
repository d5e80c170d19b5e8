"""What stands for no picture: the mean of a benchmark's pictures, and the mean of their features;
and pictures parts of which are hidden from the language model.

Shape legend: N image tokens of a picture, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seva_exp.core.interfaces import EncodedImage, VisionLanguageModel
from seva_exp.models.vision import tensors
from seva_exp.training.collate import Preference
from seva_exp.training.vision import FeatureCache, VisionInput

SIDE = 96
"""Pixels along a side of the mean picture: the mean of many has no finer parts."""
ROOM = 2**40
"""Bytes that features of one batch may take."""


def mean_picture(pictures: Iterable[Image.Image]) -> Image.Image:
    """The mean of pictures, each made ``SIDE`` x ``SIDE``."""
    total, count = np.zeros((SIDE, SIDE, 3)), 0
    for picture in pictures:
        small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
        total += np.asarray(small, dtype=np.float64)
        count += 1
    return Image.fromarray(np.round(total / count).astype(np.uint8))


class HidingCache(FeatureCache):
    """The features of one batch's pictures, each computed once, and of copies of them in which some
    tokens are the ``mean`` one: what is hidden, the vision tower does not see again."""

    def __init__(self, vlm: VisionLanguageModel) -> None:
        super().__init__(vlm, ROOM)
        self.mean: list[Tensor] = []
        """Per tensor of features [W]."""
        self._images: dict[str, EncodedImage] = {}
        self._hidden: dict[str, tuple[str, tuple[int, ...]]] = {}

    def show(self, key: str, image: EncodedImage) -> None:
        """A picture of the batch, under a name."""
        self._images[key] = image

    def hide(self, key: str, source: str, tokens: Sequence[int]) -> None:
        """``key`` is picture ``source`` with these of its N tokens hidden."""
        self._images[key] = self._images[source]
        self._hidden[key] = (source, tuple(tokens))

    def forget(self) -> None:
        """The next batch begins."""
        self.kept.clear()
        self._images.clear()
        self._hidden.clear()

    def learn_mean(self, images: Iterable[EncodedImage]) -> None:
        """The mean feature over the tokens of some pictures."""
        sums: list[Tensor] = []
        tokens = 0
        for image in images:
            with torch.no_grad():
                parts = [_rows(part).double() for part in tensors(self._project(image))]
            found = [part.sum(dim=0) for part in parts]
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
            tokens += len(parts[0])
        self.mean = [total / tokens for total in sums]

    def picture(self, preference: Preference, view: int | None = None) -> VisionInput:
        return VisionInput(preference.picture, self._images[preference.picture])

    def _see(self, picture: VisionInput) -> Any:
        if picture.key not in self._hidden:
            return super()._see(picture)
        source, tokens = self._hidden[picture.key]
        seen = super()._see(VisionInput(source, self._images[source]))
        means = iter(self.mean)
        return _replaced(seen, torch.tensor(tokens), means)


def _rows(part: Tensor) -> Tensor:
    """[N, W]."""
    return part.reshape(-1, part.shape[-1])


def _replaced(value: Any, tokens: Tensor, means: Any) -> Any:
    """A copy of nested outputs in which these rows of every tensor are its mean."""
    if isinstance(value, Tensor):
        made = value.clone()
        own = made.reshape(-1, made.shape[-1])
        own[tokens.to(own.device)] = next(means).to(own)
        return made if own.data_ptr() == made.data_ptr() else own.reshape(value.shape)
    if isinstance(value, Mapping):
        return type(value)(**{n: _replaced(one, tokens, means) for n, one in value.items()})
    if isinstance(value, (list, tuple)):
        return [_replaced(one, tokens, means) for one in value]
    return value
