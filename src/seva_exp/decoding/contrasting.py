"""What stands beside the rows of contrastive decoding: the same questions asked worse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL.Image import Image

from seva_exp.core.interfaces import EncodedImage, Request, VisionLanguageModel
from seva_exp.decoding.contrast import Contrast
from seva_exp.decoding.rows import Contrasted
from seva_exp.inputs.views import View


@dataclass(frozen=True)
class Beside:
    """``view``: how the questions are asked again, of what they show already; None: without a
    picture. What it draws for a picture depends on the picture alone, so that all questions on it
    share one; what it draws for a prompt on the request."""

    view: View | None

    def __call__(
        self,
        vlm: VisionLanguageModel,
        requests: Sequence[Request],
        picture: Image | None,
        image: EncodedImage | None,
        encode: Callable[[Image], EncodedImage],
    ) -> Contrasted:
        """For some requests on one ``picture``, which ``image`` has encoded as they show it. Where
        they have none, only what the view does to a prompt tells the two rows apart."""
        view = self.view
        if view is None:
            return Contrasted(None, [one.prompt for one in requests])
        key = requests[0].image_key
        if picture is not None and image is not None and view.changes_pictures:
            changed = view.image(picture, key)
            again = image if changed is picture else encode(changed)
            image = view.pixels(vlm, again, key)
        return Contrasted(image, [view.prompt(one.prompt, one.id) for one in requests])


def beside(contrast: Contrast, view: View | None) -> Beside | None:
    """What stands beside each row; None where nothing does."""
    return Beside(view) if contrast.paired else None
