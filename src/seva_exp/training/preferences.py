"""Pairs to the preferences that are trained on; samples to the examples that are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from seva_exp.core.errors import StageError, UnusableText
from seva_exp.core.interfaces import EncodedImage, VisionLanguageModel
from seva_exp.core.printable import ends
from seva_exp.core.records import Drop, ImageRef, Pair, Sample
from seva_exp.inputs.images import image_size, load_image
from seva_exp.inputs.views import PartnerPictures, View
from seva_exp.training.collate import (
    AnswerWeights,
    FinetuneExample,
    Preference,
    ReferenceLogps,
)


@dataclass(frozen=True)
class PairSet:
    """Pairs, and what a training looks at beside them. Pictures lie below ``root``. ``views`` (by
    the names in the pairs) are the negative views whose pictures the loss looks at; none: at none.
    They are shown to the pairs that have an answer of theirs; with ``every_view`` to each pair.
    ``samples`` are those that views draw partners from. ``references`` and ``weights``, if there
    are any, are the pairs', in their order. ``crossed``: the rejected answers are looked at with
    the views' pictures too."""

    pairs: Sequence[Pair]
    root: Path
    views: Mapping[str, View] | None = None
    samples: Iterable[Sample] = ()
    references: Sequence[ReferenceLogps] = ()
    crossed: bool = False
    weights: Sequence[AnswerWeights] = ()
    every_view: bool = False


def preferences_of(
    vlm: VisionLanguageModel, pair_set: PairSet, repeat: int = 1
) -> list[Preference]:
    """One preference per pair, listed ``repeat`` times. With views, each preference can make the
    pictures that its negative views showed; raises StageError where none shows one. The samples
    are gone through only where a view takes partners from them."""
    pairs, root, views = pair_set.pairs, pair_set.root, pair_set.views
    mixes = any(view.mixes for view in (views or {}).values())
    pictures = PartnerPictures(pair_set.samples if mixes else ())
    nothing = [None] * len(pairs)
    known: Sequence[ReferenceLogps | None] = pair_set.references or nothing
    weighed: Sequence[AnswerWeights | None] = pair_set.weights or nothing
    shown = {name: view for name, view in (views or {}).items() if view.changes_pictures}
    everywhere = pair_set.every_view
    names = [
        tuple(n for n in (shown if everywhere else pair.views) if n in shown) for pair in pairs
    ]
    once = [
        Preference(
            id=pair.sample_id,
            prompt=pair.prompt,
            load=partial(load_image, root, pair.image),
            chosen=answer_ids(vlm, pair, pair.chosen, pair.chosen_tokens),
            rejected=tuple(
                answer_ids(vlm, pair, text, ids)
                for ids, text in zip(pair.rejected_tokens, pair.rejected, strict=True)
            ),
            images=tuple(
                partial(shown_image, vlm, shown[n], sample_of(pair), root, pictures) for n in own
            ),
            image_views=own,
            image_rejected=tuple(0 if everywhere else pair.views.index(name) for name in own),
            strengths=_strengths(shown[name] for name in own),
            crossed=pair_set.crossed,
            size=partial(image_size, root, pair.image),
            reference=reference,
            weights=weights,
            agreement=pair.agreement,
            sample_id=pair.sample_id,
            picture_id=pair.image.sha256,
            context=context_ids(vlm, pair),
        )
        for pair, own, reference, weights in zip(pairs, names, known, weighed, strict=True)
    ]
    if views is not None and not any(preference.images for preference in once):
        raise StageError(
            "dpo: loss or weights look at pictures of negative views, and no pair has an answer of "
            "a view that changes the picture. Add one with +aug=NAME, or take others."
        )
    return [_copy(p, number) for number in range(1, repeat + 1) for p in once]


def _strengths(views: Iterable[View]) -> tuple[float, ...]:
    """The views' strengths; none where one has none."""
    found = [view.augmentation.strength for view in views]
    return () if None in found else tuple(found)


def context_ids(vlm: VisionLanguageModel, pair: Pair) -> tuple[int, ...]:
    """Those of a pair's context: as they were generated, or of its text, without an end."""
    if pair.context_tokens or not pair.context:
        return pair.context_tokens
    return vlm.answer_ids(pair.prompt, pair.context)[:-1]


def answer_ids(
    vlm: VisionLanguageModel, pair: Pair, text: str, ids: tuple[int, ...]
) -> tuple[int, ...]:
    """Those of an answer of ``pair``: as they were generated, or of its text, tokenised behind
    prompt and context. Raises UnusableText where that cannot be."""
    if ids:
        return ids
    before = context_ids(vlm, pair)
    found = vlm.answer_ids(pair.prompt, pair.context + text)
    if found[: len(before)] != before:
        raise UnusableText(
            "tokens",
            f"{ends(repr(text))} cannot be tokenised apart from its context "
            f"{ends(repr(pair.context))}.",
        )
    return found[len(before) :]


def usable(vlm: VisionLanguageModel, pairs: Iterable[Pair]) -> tuple[list[Pair], list[Drop]]:
    """The pairs whose answers can be trained on, the others as drops: a text that was never ids
    (a server's) may hold what this model takes for a picture."""
    kept, dropped = [], []
    for pair in pairs:
        said = zip(
            (pair.chosen, *pair.rejected), (pair.chosen_tokens, *pair.rejected_tokens), strict=True
        )
        try:
            for text, ids in said:
                answer_ids(vlm, pair, text, ids)
            kept.append(pair)
        except UnusableText as error:
            dropped.append(Drop(pair.sample_id, error.reason, str(error)))
    return kept, dropped


def _copy(preference: Preference, number: int) -> Preference:
    return replace(preference, id=f"{preference.id}#{number}") if number > 1 else preference


def shown_image(
    vlm: VisionLanguageModel, view: View, sample: Sample, root: Path, pictures: PartnerPictures
) -> EncodedImage:
    """The picture that ``view`` showed the model for this sample when the rejected answer was
    generated, made anew from the view's seed."""
    refs: list[ImageRef] = [sample.image, *view.partners(sample, pictures)]
    encoded = vlm.encode_image(view.picture(root, refs, sample.id))
    return view.pixels(vlm, encoded, sample.id)


def sample_of(pair: Pair) -> Sample:
    """The sample that a pair was made of."""
    return Sample(pair.sample_id, pair.image, pair.prompt)


def examples_of(
    vlm: VisionLanguageModel, samples: Sequence[Sample], root: Path
) -> tuple[list[FinetuneExample], list[Drop]]:
    """One example per sample, and as drops those whose response cannot be trained on. Raises
    StageError where a sample has no response."""
    found, dropped = [], []
    for sample in samples:
        if not sample.response:
            raise StageError(f"sample {sample.id}: it has no response to learn from.")
        try:
            response = vlm.answer_ids(sample.prompt, sample.response)
        except UnusableText as error:
            dropped.append(Drop(sample.id, error.reason, str(error)))
            continue
        load = partial(load_image, root, sample.image)
        size = partial(image_size, root, sample.image)
        found.append(FinetuneExample(sample.id, sample.prompt, load, response, size))
    return found, dropped
