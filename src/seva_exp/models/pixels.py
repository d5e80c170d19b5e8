"""Where the image values lie in each family's processor output, so that only they are changed.

Shape legend: T tiles, H W pixels, N patches, C channels, F temporal copies, P patch side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from seva_exp.core.interfaces import Pixels

PIXEL_KEY = "pixel_values"
_CHANNELS = 3


def map_pixel_values(
    pixels: Pixels,
    change: Callable[[torch.Tensor], torch.Tensor],
    temporal_copies: int = 1,
) -> Pixels:
    """A copy of one image's processor output with ``change`` applied to its image values.

    Layouts: [1, 3, H, W] LLaVA and Gemma; [T, 3, H, W] InternVL tiles; [1, T, 3, H, W] LLaVA-NeXT
    and Idefics3 tiles, where padding tiles and masked pixels stay zero; [N, C*F*P*P] Qwen-VL
    patches, whose F temporal copies get the same values.
    """
    values = pixels[PIXEL_KEY]
    if values.ndim == 2:
        changed = _map_patches(values, change, temporal_copies)
    elif values.ndim == 5:
        changed = _map_tiles(values, change, pixels.get("pixel_attention_mask"))
    else:
        changed = change(values.float())
    return {**pixels, PIXEL_KEY: changed.to(values.dtype)}


def _map_patches(
    values: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor], copies: int
) -> torch.Tensor:
    """[N, C*F*P*P] -> the same; F copies of a still picture stay equal."""
    blocks = values.float().reshape(values.shape[0], _CHANNELS, copies, -1)
    changed = change(blocks[:, :, :1].contiguous())
    return changed.expand_as(blocks).reshape(values.shape)


def _map_tiles(
    values: torch.Tensor,
    change: Callable[[torch.Tensor], torch.Tensor],
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """[1, T, 3, H, W] -> the same; an all-zero tile is padding (a real picture's normalised values
    are never all exactly zero) and, with ``mask`` [1, T, H, W], pixels outside it stay zero."""
    changed = change(values.float())
    keep = values.flatten(2).any(dim=2)[:, :, None, None, None].expand_as(values)
    if mask is not None:
        keep = keep & mask[:, :, None].bool()
    return torch.where(keep, changed, values.float())


def batch_pixels(items: list[Pixels]) -> Pixels:
    """One batch of several images' outputs: joined along the first dimension, trailing dimensions
    (number of tiles, tile size) padded with zeros where they differ."""
    return {key: _join([item[key] for item in items]) for key in items[0]}


def _join(tensors: list[torch.Tensor]) -> torch.Tensor:
    shape = [max(sizes) for sizes in zip(*(t.shape[1:] for t in tensors), strict=True)]
    return torch.cat([_pad(tensor, shape) for tensor in tensors])


def _pad(tensor: torch.Tensor, shape: list[int]) -> torch.Tensor:
    missing = [want - have for want, have in zip(shape, tensor.shape[1:], strict=True)]
    if not any(missing):
        return tensor
    widths = [width for amount in reversed(missing) for width in (0, amount)]
    return torch.nn.functional.pad(tensor, widths)


def whole_view(
    pixels: Pixels, temporal_copies: int = 1, merge: int = 2, whole: int = 0
) -> torch.Tensor:
    """[3, H, W] of what the model saw, for a person to look at: the picture, or the tile that shows
    all of it, number ``whole``. Qwen's patches are put back in place (blocks of ``merge`` x
    ``merge`` patches)."""
    values = pixels[PIXEL_KEY].float()
    if values.ndim == 2:
        grid = pixels["image_grid_thw"][0].tolist()
        return _unpatch(values, grid, temporal_copies, merge)
    return values.flatten(0, -4)[whole]


def _unpatch(values: torch.Tensor, grid: list[int], copies: int, merge: int) -> torch.Tensor:
    _, rows, columns = grid
    side = int((values.shape[1] / (_CHANNELS * copies)) ** 0.5)
    blocks = values.reshape(
        rows // merge, columns // merge, merge, merge, _CHANNELS, copies, side, side
    )
    still = blocks[:, :, :, :, :, 0].permute(4, 0, 2, 5, 1, 3, 6)
    return still.reshape(_CHANNELS, rows * side, columns * side)
