"""Pairs to the preferences that are trained on; samples to the examples that are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from seva_exp.core.errors import StageError
from seva_exp.core.interfaces import EncodedImage, VisionLanguageModel
from seva_exp.core.records import ImageRef, Pair, Sample
from seva_exp.inputs.images import image_size, load_image
from seva_exp.inputs.views import PartnerPictures, View
from seva_exp.training.collate import FinetuneExample, Preference, ReferenceLogps


@dataclass(frozen=True)
class PairSet:
    """Pairs, and what a training looks at beside them. Pictures lie below ``root``. ``views`` (by
    the names in the pairs) are the negative views whose pictures the loss looks at; none: at none.
    ``samples`` are those that views draw partners from. ``references``, if there are any, are the
    pairs', in their order."""

    pairs: Sequence[Pair]
    root: Path
    views: Mapping[str, View] | None = None
    samples: Iterable[Sample] = ()
    references: Sequence[ReferenceLogps] = ()


def preferences_of(
    vlm: VisionLanguageModel, pair_set: PairSet, repeat: int = 1
) -> list[Preference]:
    """One preference per pair, listed ``repeat`` times. With views, each preference can make the
    pictures that its negative views showed; raises StageError where none shows one. The samples
    are gone through only where a view takes partners from them."""
    pairs, root, views = pair_set.pairs, pair_set.root, pair_set.views
    mixes = any(view.mixes for view in (views or {}).values())
    pictures = PartnerPictures(pair_set.samples if mixes else ())
    known: Sequence[ReferenceLogps | None] = pair_set.references or [None] * len(pairs)
    shown = {name: view for name, view in (views or {}).items() if changes_picture(view)}
    names = [tuple(name for name in pair.views if name in shown) for pair in pairs]
    once = [
        Preference(
            id=pair.sample_id,
            prompt=pair.prompt,
            load=partial(load_image, root, pair.image),
            chosen=pair.chosen_tokens or vlm.answer_ids(pair.prompt, pair.chosen),
            rejected=tuple(
                ids or vlm.answer_ids(pair.prompt, text)
                for ids, text in zip(pair.rejected_tokens, pair.rejected, strict=True)
            ),
            images=tuple(partial(shown_image, vlm, shown[n], pair, root, pictures) for n in own),
            image_views=own,
            size=partial(image_size, root, pair.image),
            reference=reference,
            sample_id=pair.sample_id,
            picture_id=pair.image.sha256,
        )
        for pair, own, reference in zip(pairs, names, known, strict=True)
    ]
    if views is not None and not any(preference.images for preference in once):
        raise StageError(
            "dpo.loss: the loss 'image' needs a negative view that changes the picture, and none "
            f"of {', '.join(sorted(views))} does. Add one with +aug=NAME, or take another loss."
        )
    return [_copy(p, number) for number in range(1, repeat + 1) for p in once]


def _copy(preference: Preference, number: int) -> Preference:
    return replace(preference, id=f"{preference.id}#{number}") if number > 1 else preference


def changes_picture(view: View) -> bool:
    """Whether the view shows another picture than the clean one (a prompt-space view does not)."""
    return view.augmentation is not None and view.augmentation.space != "prompt"


def shown_image(
    vlm: VisionLanguageModel, view: View, pair: Pair, root: Path, pictures: PartnerPictures
) -> EncodedImage:
    """The picture that ``view`` showed the model for this pair when the rejected answer was
    generated, made anew from the view's seed."""
    sample = Sample(pair.sample_id, pair.image, pair.prompt)
    refs: list[ImageRef] = [pair.image, *view.partners(sample, pictures)]
    encoded = vlm.encode_image(view.picture(root, refs, pair.sample_id))
    return view.pixels(vlm, encoded, pair.sample_id)


def examples_of(
    vlm: VisionLanguageModel, samples: Sequence[Sample], root: Path
) -> list[FinetuneExample]:
    """One example per sample. Raises StageError where a sample has no response."""
    for sample in samples:
        if not sample.response:
            raise StageError(f"sample {sample.id}: it has no response to learn from.")
    return [
        FinetuneExample(
            id=sample.id,
            prompt=sample.prompt,
            load=partial(load_image, root, sample.image),
            response=vlm.answer_ids(sample.prompt, sample.response),
            size=partial(image_size, root, sample.image),
        )
        for sample in samples
    ]
