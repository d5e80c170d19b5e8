"""SeVa's random perspective."""

from __future__ import annotations

import random
from typing import Literal

from PIL import Image
from pydantic import Field

from seva_exp.augment.base import ImageAugmentation

Point = tuple[int, int]


class RandomPerspective(ImageAugmentation):
    """The picture as seen from a random side: its corners move inwards, what is outside is black.

    Parameters of SeVa's released code, first version; torchvision's RandomPerspective.
    """

    kind: Literal["random_perspective"] = "random_perspective"
    distortion: float = Field(
        0.6, ge=0, le=1, description="how far corners move, share of the half side; SeVa: 0.6"
    )

    def corners(self, rng: random.Random, width: int, height: int) -> list[Point]:
        """Where the corners go, in pixels: top left, top right, bottom right, bottom left."""
        x = int(self.distortion * (width // 2))
        y = int(self.distortion * (height // 2))
        draw = rng.randint
        return [
            (draw(0, x), draw(0, y)),
            (width - 1 - draw(0, x), draw(0, y)),
            (width - 1 - draw(0, x), height - 1 - draw(0, y)),
            (draw(0, x), height - 1 - draw(0, y)),
        ]

    def __call__(self, x: Image.Image, rng: random.Random) -> Image.Image:
        """RGB of any size in, RGB of the same size out (bilinear)."""
        import numpy as np
        import torch
        from kornia.geometry.transform import get_perspective_transform, warp_perspective
        from kornia.utils import image_to_tensor, tensor_to_image

        def points(values: list[Point]) -> torch.Tensor:
            return torch.tensor([values], dtype=torch.float32)

        width, height = x.size
        start = [(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)]
        end = self.corners(rng, width, height)
        pixels = image_to_tensor(np.array(x), keepdim=False).float()
        matrix = get_perspective_transform(points(start), points(end))
        warped = warp_perspective(pixels, matrix, (height, width), align_corners=True)
        rounded = warped.round().clamp(0, 255).to(torch.uint8)
        return Image.fromarray(tensor_to_image(rounded, force_contiguous=True))
