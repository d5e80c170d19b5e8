"""A view: how the model is asked. The clean one changes nothing; a negative one applies an
augmentation to the image, its pixels or the prompt, or asks the same again."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image

from seva_exp.core.errors import ChangedFile, StageError
from seva_exp.core.interfaces import EncodedImage, VisionLanguageModel
from seva_exp.core.randomness import python_rng, torch_rng
from seva_exp.core.records import ImageRef, Sample
from seva_exp.core.spec import Json
from seva_exp.inputs.images import load_image


class PartnerPictures:
    """The different pictures of a data set, of which some views draw partners: two texts each.
    Equal sets give equal partners, in whatever order the samples come."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        paths = {sample.image.sha256: sample.image.path for sample in samples}
        self._contents = sorted(paths)
        self._paths = [paths[sha256] for sha256 in self._contents]

    def __len__(self) -> int:
        return len(self._contents)

    def others(self, own: ImageRef, count: int, seed: int, purpose: str, id: str) -> list[ImageRef]:
        """``count`` different pictures, drawn by (seed, purpose, id); none is ``own``."""
        drawn = python_rng(seed, purpose, id).sample(range(len(self) - 1), count)
        skipped = bisect_left(self._contents, own.sha256)
        places = (i + (i >= skipped) for i in drawn)
        return [ImageRef(self._paths[i], self._contents[i]) for i in places]


@dataclass(frozen=True)
class PromptDraw:
    """Questions of which each sample gets one, drawn by (seed, ``purpose``, sample id)."""

    purpose: str
    texts: tuple[str, ...]

    def __call__(self, seed: int, sample_id: str) -> str:
        """This sample's question."""
        return python_rng(seed, self.purpose, sample_id).choice(self.texts)

    def to_json(self) -> Json:
        return {"purpose": self.purpose, "texts": list(self.texts)}


@dataclass(frozen=True)
class ViewDraw:
    """Which of several negative views a sample gets, by (name, weight)."""

    views: tuple[tuple[str, float], ...]

    def __call__(self, seed: int, sample_id: str) -> str:
        """This sample's view."""
        names, weights = zip(*self.views, strict=True)
        return python_rng(seed, "negative", sample_id).choices(names, weights)[0]

    def to_json(self) -> Json:
        return dict(self.views)


@dataclass(frozen=True)
class View:
    """``name`` in this run, the source of rejected answers (mostly an augmentation; None: clean)
    and the run's seed; ``asking`` takes the place of the samples' own questions."""

    name: str
    augmentation: Any
    seed: int
    asking: PromptDraw | None = None
    kept: Path | None = None
    """Where the changes of pictures lie that the model has found, for a view that is so made."""

    @property
    def _space(self) -> str:
        return self.augmentation.space if self.augmentation else ""

    @property
    def changes_pictures(self) -> bool:
        """Whether the model sees another picture than the sample's."""
        augmentation = self.augmentation
        return bool(augmentation) and ("images" in augmentation.gives or augmentation.learned)

    @property
    def _purpose(self) -> str:
        return f"view/{self.augmentation.kind}"

    @property
    def _partners(self) -> int:
        return self.augmentation.partners if self._space == "image" else 0

    @property
    def mixes(self) -> bool:
        """Whether the view takes other pictures of the data set."""
        return self._partners > 0

    def partners(self, sample: Sample, pictures: PartnerPictures) -> list[ImageRef]:
        """The other pictures that ``image`` takes for this sample; mostly none."""
        count = self._partners
        if not count:
            return []
        if count >= len(pictures):
            raise StageError(
                f"answers.{self.name}: this view takes {count} other picture(s) of the data for "
                f"each sample, and the data has {len(pictures)} different in all. Add pictures."
            )
        purpose = f"partner/{self.augmentation.kind}"
        return pictures.others(sample.image, count, self.seed, purpose, sample.id)

    def image(self, image: Image, sample_id: str, partners: Sequence[Image] = ()) -> Image:
        """The picture as this view shows it to the processor."""
        if self._space != "image":
            return image
        return self.augmentation(image, python_rng(self.seed, self._purpose, sample_id), *partners)

    def picture(self, root: Path, images: Sequence[ImageRef], sample_id: str) -> Image:
        """``image`` of files below ``root``: the sample's own is the first, partners follow. Raises
        StageError with the file and the sample where one is not what it was."""
        try:
            own, *partners = [load_image(root, ref) for ref in images]
        except ChangedFile as error:
            raise ChangedFile(f"sample {sample_id}: {error}", error.path) from error
        except StageError as error:
            raise StageError(f"sample {sample_id}: {error}") from error
        return self.image(own, sample_id, partners)

    def prompt(self, prompt: str, sample_id: str) -> str:
        """The prompt as this view asks it."""
        if self.asking:
            return self.asking(self.seed, sample_id)
        if self._space != "prompt":
            return prompt
        return self.augmentation(prompt, python_rng(self.seed, self._purpose, sample_id))

    def pixels(self, vlm: VisionLanguageModel, image: EncodedImage, sample_id: str) -> EncodedImage:
        """The normalised pixel values as this view changes them."""
        if self._space != "pixels":
            return image
        if self.augmentation.learned:
            assert self.kept, "pictures that the model finds are found before"
            return vlm.map_pixels(image, self.augmentation.change(self.kept, sample_id))
        rng = torch_rng(self.seed, self._purpose, sample_id)
        return vlm.map_pixels(image, lambda values: self.augmentation(values, rng))
