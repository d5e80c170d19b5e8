"""What generation, training and benchmarks need of a model: a protocol and its data.

Shape legend: L prompt tokens (image placeholders expanded).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL.Image import Image

from seva_exp.core.machine import Graphs, Server

if TYPE_CHECKING:
    import torch

Pixels = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class EncodedImage:
    """One image as its processor made it. ``pixels`` keeps the batch dimension (size 1 or the
    number of crops); ``placeholders`` are the ids that stand for it in the prompt."""

    pixels: Pixels
    placeholders: tuple[int, ...]
    types: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoded:
    """One image with one prompt: ``ids`` [L]; ``types`` e.g. token_type_ids [L]. The last
    ``context`` of them are how the answer begins, where that is given."""

    ids: tuple[int, ...]
    image: EncodedImage
    types: dict[str, tuple[int, ...]] = field(default_factory=dict)
    context: int = 0


class VisionLanguageModel(Protocol):
    """A loaded model with its processor."""

    model: Any
    processor: Any

    @property
    def device(self) -> torch.device: ...

    @property
    def pad_id(self) -> int: ...

    @property
    def image_token_id(self) -> int: ...

    @property
    def eos_ids(self) -> frozenset[int]: ...

    @property
    def longest_token(self) -> int: ...

    def encode_image(self, image: Image) -> EncodedImage: ...

    def encode(self, image: EncodedImage, prompt: str) -> Encoded: ...

    def encode_text(self, prompt: str) -> Encoded: ...

    def answer_ids(self, prompt: str, text: str) -> tuple[int, ...]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...

    def image_inputs(
        self, images: Sequence[EncodedImage], device: torch.device | None = None
    ) -> dict[str, Any]: ...

    def map_pixels(
        self, image: EncodedImage, change: Callable[[torch.Tensor], torch.Tensor]
    ) -> EncodedImage: ...

    def to_picture(self, image: EncodedImage) -> Image: ...

    def language_modules(self) -> list[str]: ...

    def projector_modules(self) -> list[str]: ...


class ModelSource(Protocol):
    """A model before it is loaded: where it comes from, and how it is prompted."""

    @property
    def system_prompt(self) -> str | None: ...

    def squared(self, image: Image) -> Image:
        """The picture as it goes to the processor: on a square, where the model is shown such."""
        ...


Progress = Callable[[str, int, str], Any]
"""``progress(label, total, unit)`` gives a context manager whose value has ``update(n)``."""


@dataclass(frozen=True)
class Request:
    """One question for the engine. ``image_key`` is equal for requests on the same picture, and of
    no other; without ``load`` there is no picture: the prompt alone is asked. ``context``: ids that
    the answer begins with, which the reply goes on behind (in this process alone)."""

    id: str
    image_key: str
    load: Callable[[], Image] | None
    prompt: str
    max_new_tokens: int
    context: tuple[int, ...] = ()


TOO_LONG = "too_long"
"""The ``stop`` of an answer for which the model's context has no room: none was made, or it ends
where the context does."""


@dataclass(frozen=True)
class Reply:
    """Generated ids (end-of-sequence included when it came; none from a server), their text,
    ``eos``, ``length`` (cut at ``max_new_tokens``) or ``TOO_LONG``; where asked for, the ids'
    log-probabilities by the model as it is (no temperature)."""

    id: str
    text: str
    tokens: tuple[int, ...]
    stop: str
    logprobs: tuple[float, ...] = ()


class AnswerEngine(Protocol):
    """An engine: what answers requests."""

    def run(self, requests: Sequence[Request]) -> Iterator[list[Reply]]:
        """Yield every request's reply, some at a time as they are finished, in any order."""
        ...


@dataclass(frozen=True)
class Placement:
    """Where a stage runs: numbers that never enter a key."""

    device: str
    batch_size: int
    train_batch_size: int
    gradient_checkpointing: bool
    progress: Progress
    work: Path
    checkpoint_minutes: float | None = None
    """How often a training stage saves a checkpoint; none: never."""
    processes: int = 1
    """Processes that train together; each has a placement of its own."""
    checkpoints: Path | None = None
    """Where the processes' checkpoints lie; none: in ``work/trainer``."""
    generation_tokens: int | None = None
    """Tokens of which generation holds keys and values at once; none: what memory allows."""
    neighbours: int = 1
    """Processes that answer side by side on this machine and share its main memory."""
    cuda_graphs: Graphs = "off"
    """Whether generation records its steps on a CUDA device."""
    vision_cache: int = 0
    """Bytes of pictures' features that training may keep."""
    features: dict[str, Any] = field(default_factory=dict)
    """Those that are kept; stages in a row with the same loaded model share them."""
    warn: Callable[[str], None] = lambda text: None
    """Takes one line that a person should read."""
    note: Callable[[str], None] = lambda text: None
    """Takes one line of what is going on."""
    server: Server | None = None
    """The server that answers, where one does."""
    vllm: Callable[[], Any] | None = None
    """Starts the vLLM that answers, if it does not run yet; gives its server and the name of what
    is asked (``vllm.running.Running``)."""
