"""Where the image values lie in a processor's output, so that only they are changed.

Shape legend: T tiles, H W pixels, N patches, C channels, F temporal copies, P patch side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from seva_exp.core.interfaces import Pixels

if TYPE_CHECKING:  # an estimate of memory asks families, and loads no torch
    import torch

PIXEL_KEY = "pixel_values"
_CHANNELS = 3
Change = Callable[["torch.Tensor"], "torch.Tensor"]


class PixelLayout(Protocol):
    """How a family's processor lays one picture out. ``images``: its image processor."""

    def changed(self, pixels: Pixels, change: Change, images: Any) -> Pixels:
        """A copy with ``change`` applied to the image values and to nothing else."""
        ...

    def whole_picture(self, pixels: Pixels, images: Any) -> torch.Tensor:
        """[3, H, W] of what the model saw, for a person to look at: the picture, or the tile that
        shows all of it."""
        ...


@dataclass(frozen=True)
class Tiles:
    """Pictures as they are, [1, 3, H, W], or tiles of them, [T, 3, H, W]; [1, T, 3, H, W] where
    padding tiles (all zero, as a real picture's normalised values never are) and, with
    ``pixel_attention_mask`` [1, T, H, W], pixels outside it stay zero. ``whole``: number of the
    tile that shows all of the picture."""

    whole: int = 0

    def changed(self, pixels: Pixels, change: Change, images: Any) -> Pixels:
        import torch

        values = pixels[PIXEL_KEY]
        after = change(values.float())
        if values.ndim == 5:
            keep = values.flatten(2).any(dim=2)[:, :, None, None, None].expand_as(values)
            if (mask := pixels.get("pixel_attention_mask")) is not None:
                keep = keep & mask[:, :, None].bool()
            after = torch.where(keep, after, values.float())
        return {**pixels, PIXEL_KEY: after.to(values.dtype)}

    def whole_picture(self, pixels: Pixels, images: Any) -> torch.Tensor:
        return pixels[PIXEL_KEY].float().flatten(0, -4)[self.whole]


@dataclass(frozen=True)
class Patches:
    """Qwen-VL's patches [N, C*F*P*P], F copies of a still picture, which stay equal; they lie in
    blocks of neighbours that are merged."""

    def changed(self, pixels: Pixels, change: Change, images: Any) -> Pixels:
        values = pixels[PIXEL_KEY]
        blocks = values.float().reshape(values.shape[0], _CHANNELS, _copies(images), -1)
        after = change(blocks[:, :, :1].contiguous()).expand_as(blocks).reshape(values.shape)
        return {**pixels, PIXEL_KEY: after.to(values.dtype)}

    def whole_picture(self, pixels: Pixels, images: Any) -> torch.Tensor:
        values, copies = pixels[PIXEL_KEY].float(), _copies(images)
        merge = getattr(images, "merge_size", None) or 1
        _, rows, columns = pixels["image_grid_thw"][0].tolist()
        side = int((values.shape[1] / (_CHANNELS * copies)) ** 0.5)
        blocks = values.reshape(
            rows // merge, columns // merge, merge, merge, _CHANNELS, copies, side, side
        )
        still = blocks[:, :, :, :, :, 0].permute(4, 0, 2, 5, 1, 3, 6)
        return still.reshape(_CHANNELS, rows * side, columns * side)


@dataclass(frozen=True)
class ByShape:
    """Of a family of which nothing is known: a table is patches, all else tiles."""

    def changed(self, pixels: Pixels, change: Change, images: Any) -> Pixels:
        return _layout_of(pixels).changed(pixels, change, images)

    def whole_picture(self, pixels: Pixels, images: Any) -> torch.Tensor:
        return _layout_of(pixels).whole_picture(pixels, images)


def _layout_of(pixels: Pixels) -> PixelLayout:
    return Patches() if pixels[PIXEL_KEY].ndim == 2 else Tiles()


def _copies(images: Any) -> int:
    """F; of a processor that does not name it 1."""
    return getattr(images, "temporal_patch_size", None) or 1


def batch_pixels(items: list[Pixels]) -> Pixels:
    """One batch of several images' outputs: joined along the first dimension, trailing dimensions
    (number of tiles, tile size) padded with zeros where they differ."""
    return {key: _join([item[key] for item in items]) for key in items[0]}


def _join(tensors: list[torch.Tensor]) -> torch.Tensor:
    import torch

    shape = [max(sizes) for sizes in zip(*(t.shape[1:] for t in tensors), strict=True)]
    return torch.cat([_pad(tensor, shape) for tensor in tensors])


def _pad(tensor: torch.Tensor, shape: list[int]) -> torch.Tensor:
    import torch

    missing = [want - have for want, have in zip(shape, tensor.shape[1:], strict=True)]
    if not any(missing):
        return tensor
    widths = [width for amount in reversed(missing) for width in (0, amount)]
    return torch.nn.functional.pad(tensor, widths)
