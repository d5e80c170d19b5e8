"""Projected gradient steps on a picture's pixels against an answer (PGD, arXiv:1706.06083, eq. of
section 2; AdPO, arXiv:2504.01735, on vision-language models).

Shape legend: X the shape of a picture's normalised values, three channels third from the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seva_exp.core.errors import StageError
from seva_exp.core.interfaces import EncodedImage, VisionLanguageModel
from seva_exp.models.transfer import put


@dataclass(frozen=True)
class Attacked:
    """``delta`` X int8, in 1/255; log p of the answer per token, ``before`` and ``after``."""

    delta: Tensor
    before: float
    after: float


@dataclass(frozen=True)
class Attack:
    """``steps`` of ``step_size`` within ``eps``, both in whole 1/255."""

    vlm: VisionLanguageModel
    eps: int
    steps: int
    step_size: int

    def __call__(
        self, image: EncodedImage, prompt: str, answer: tuple[int, ...], rng: torch.Generator
    ) -> Attacked:
        """From a start drawn in the bound; of the pictures on the way the one at which the answer
        is least likely. ``rng`` is on the CPU. Weights get no gradient."""
        self.vlm.model.requires_grad_(False).eval()
        # There before any gradient is taken: a copy to a GPU has none (``put`` pins memory).
        pixels = {name: put(value, self.vlm.device) for name, value in image.pixels.items()}
        image = replace(image, pixels=pixels)
        low, high = self._bounds(image)
        start = torch.randint(-self.eps, self.eps + 1, low.shape, generator=rng)
        delta = start.float().clamp(low, high)
        before, _ = self._logprob(image, prompt, answer, torch.zeros_like(delta))
        best, after = torch.zeros_like(delta), before
        for step in range(self.steps + 1):
            value, gradient = self._logprob(image, prompt, answer, delta)
            if value < after:
                best, after = delta, value
            if step < self.steps:
                delta = (delta - self.step_size * gradient.sign()).clamp(low, high)
        return Attacked(best.to(torch.int8), before, after)

    @property
    def std(self) -> Tensor:
        """[3]: what the processor divides by."""
        return self._of_processor("image_std")

    def _of_processor(self, name: str) -> Tensor:
        values = getattr(self.vlm.processor.image_processor, name, None)
        if values is None or len(values) != 3:
            raise StageError(
                f"adversarial: the model's processor tells no {name} of three channels, so that "
                "1/255 of a picture is not known. Take another view."
            )
        return torch.tensor(values, dtype=torch.float32)

    def _bounds(self, image: EncodedImage) -> tuple[Tensor, Tensor]:
        """X: least and largest whole d, in the bound and with values of a picture, 0 to 255."""
        seen: list[Tensor] = []

        def look(values: Tensor) -> Tensor:
            seen.append(values)
            return values

        self.vlm.map_pixels(image, look)
        mean, std = self._of_processor("image_mean")[:, None, None], self.std[:, None, None]
        shown = ((seen[0].cpu() * std + mean) * 255).clamp(0, 255)
        # A hundredth of a step: 255 that float32 has as 254.99998 is 255.
        low = (-shown - 0.01).ceil().clamp(-self.eps, 0)
        high = (255 - shown + 0.01).floor().clamp(0, self.eps)
        return low, high

    def _logprob(
        self, image: EncodedImage, prompt: str, answer: tuple[int, ...], delta: Tensor
    ) -> tuple[float, Tensor]:
        """Mean log p of the answer's tokens with ``delta`` on the picture, and its gradient X."""
        leaf = delta.clone().requires_grad_(True)
        change = leaf / (255 * self.std[:, None, None])
        shown = self.vlm.map_pixels(image, lambda values: values + change.to(values.device))
        encoded = self.vlm.encode(shown, prompt)
        length, device = len(answer), self.vlm.device
        types = {
            name: torch.tensor([ids + (0,) * length], device=device)
            for name, ids in encoded.types.items()
        }
        inputs = self.vlm.image_inputs([encoded.image]) | types
        ids = torch.tensor([encoded.ids + answer], device=device)
        with torch.enable_grad():
            logits = self.vlm.model(input_ids=ids, **inputs).logits[0, -length - 1 : -1]
            said = logits.float().log_softmax(-1)
            value = said.gather(1, ids[0, -length:, None]).mean()
            [gradient] = torch.autograd.grad(value, leaf)
        return value.item(), gradient
