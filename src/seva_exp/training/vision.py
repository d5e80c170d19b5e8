"""The frozen vision tower, run once per picture: its features are kept, up to a number of bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch

from seva_exp.core.interfaces import EncodedImage, VisionLanguageModel
from seva_exp.models.vision import joined, moved, tensors, tower_apart, wanted
from seva_exp.training.collate import Preference
from seva_exp.training.precision import full_precision

ID_BYTES = 40
"""Of a placeholder id kept as a Python number."""


Kept = tuple[EncodedImage, Any, int]
"""A picture without its values, what was computed of it, and its size in bytes."""


@dataclass(frozen=True)
class VisionInput:
    """``key`` names it; ``image`` is as the processor made it, without pixels if the features of
    ``key`` were kept already."""

    key: str
    image: EncodedImage


class FeatureCache:
    """Features by picture. The first pictures that fit into ``budget`` bytes are kept for good:
    an epoch asks for each once, so that throwing one out for another gains nothing.

    They are kept in main memory, also of a model on a GPU.

    With ``projects`` (the projector is trained) it is the tower's output that is kept, and the
    projector runs each time. Where tower and projector are one module (Qwen-VL) nothing is kept
    then.
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        budget: int,
        projects: bool = False,
        kept: dict[str, Kept] | None = None,
    ) -> None:
        self.kept: dict[str, Kept] = {} if kept is None else kept
        """By picture; given, it is another stage's, of the same tower and projector."""
        self._vlm = vlm
        self._inner = vlm.model.base_model
        self._budget = budget - sum(size for _, _, size in self.kept.values())
        self._projects = projects
        self._tower_name = tower_apart(vlm)
        self._tower = getattr(self._inner, self._tower_name) if self._tower_name else None

    def picture(self, preference: Preference, view: int | None = None) -> VisionInput:
        """The clean picture, or that of negative view number ``view``."""
        key = preference.picture
        if view is not None:
            key = f"{preference.sample}/{preference.image_views[view]}"
        if key in self.kept:
            return VisionInput(key, self.kept[key][0])
        if view is None:
            return VisionInput(key, preference.picture_for(self._vlm))
        return VisionInput(key, preference.images[view]())

    def features(self, pictures: Sequence[VisionInput]) -> Any:
        """All pictures' features as one output of ``get_image_features``, in order."""
        images = {picture.key: picture for picture in pictures}
        if self._projects and self._tower is None:
            found = {key: self._project(picture.image) for key, picture in images.items()}
        else:
            kept = {key: self._see(picture) for key, picture in images.items()}
            found = kept
            if self._projects:
                found = {k: self._project(images[k].image, tower) for k, tower in kept.items()}
        return joined([found[picture.key] for picture in pictures])

    def _see(self, picture: VisionInput) -> Any:
        """What is kept of a picture. Computed alone, so that it depends on no batch, as generation
        does, and without gradients: the tower is frozen, and checkpointing would otherwise go back
        through it."""
        if picture.key in self.kept:
            return moved(self.kept[picture.key][1], self._vlm.device)
        seen: list[Any] = []
        hook = None
        if self._projects:
            assert self._tower is not None
            hook = self._tower.register_forward_hook(lambda *call: seen.append(copy(call[-1])))
        frozen = nullcontext() if self._projects else full_precision(self._vlm.device)
        try:
            with torch.no_grad(), frozen:
                out = self._project(picture.image)
        finally:
            if hook is not None:
                hook.remove()
        part = seen[0] if self._projects else out
        self._keep(picture, part)
        return part

    def _project(self, image: EncodedImage, tower: Any = None) -> Any:
        """``get_image_features``; with ``tower`` the tower's output is given and not computed."""
        inputs = self._vlm.image_inputs([image])
        with self._standing_in(tower) if tower is not None else nullcontext():
            return wanted(self._inner.get_image_features(**inputs, return_dict=True))

    @contextmanager
    def _standing_in(self, output: Any) -> Iterator[None]:
        """The model's tower gives ``output`` until the end of the block. Each family's way from the
        tower to the projector is in its ``get_image_features`` alone."""
        name, tower = self._tower_name, self._tower
        setattr(self._inner, name, KeptTower(tower, output))
        try:
            yield
        finally:
            setattr(self._inner, name, tower)

    def _keep(self, picture: VisionInput, part: Any) -> None:
        image = picture.image
        size = sum(t.numel() * t.element_size() for t in tensors(part))
        size += ID_BYTES * len(image.placeholders) * (1 + len(image.types))
        if size <= self._budget:
            self._budget -= size
            hollow = {name: _hollow(value) for name, value in image.pixels.items()}
            self.kept[picture.key] = (replace(image, pixels=hollow), moved(part, "cpu"), size)


class KeptTower(torch.nn.Module):
    """In place of a vision tower: gives an output that was computed before. All else that is asked
    of it (config, number format) is the tower's."""

    def __init__(self, tower: Any, output: Any) -> None:
        super().__init__()
        self._kept = (tower, output)  # in a tuple: the tower is no part of this module

    def forward(self, *_: Any, **__: Any) -> Any:
        return copy(self._kept[1])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kept[0], name)


def _hollow(pixels: torch.Tensor) -> torch.Tensor:
    """Of the same shape, without the values (sizes and grids stay): only the tower reads them."""
    small = pixels.ndim < 3 and not pixels.is_floating_point()
    return pixels if small else torch.ones((), dtype=pixels.dtype).expand(pixels.shape)
