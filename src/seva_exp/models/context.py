"""A model's context: how long it is, whether a question fits into it, and what stands before an
answer."""

from __future__ import annotations

from dataclasses import replace

from seva_exp.core.interfaces import Encoded, EncodedImage, VisionLanguageModel
from seva_exp.models.families import family_of


def context_of(vlm: VisionLanguageModel) -> int | None:
    """Positions that the language model was made for; None where its config does not say."""
    return getattr(vlm.model.config.get_text_config(), "max_position_embeddings", None)


def behind(vlm: VisionLanguageModel, encoded: Encoded, context: tuple[int, ...]) -> Encoded:
    """A prompt with the ids that its answer begins with: they are the model's own words, so that
    they attend as an answer does."""
    if not context:
        return encoded
    kind = {"token_type_ids": family_of(vlm.model.config).attention.answer_type}
    types = {k: v + (kind.get(k, 0),) * len(context) for k, v in encoded.types.items()}
    return replace(encoded, ids=encoded.ids + context, types=types, context=len(context))


def encoded_within(
    vlm: VisionLanguageModel,
    image: EncodedImage | None,
    prompt: str,
    begun: tuple[int, ...] = (),
) -> Encoded | None:
    """The prompt's ids with the picture's placeholders (``image`` None: without a picture), and
    those that the answer has ``begun`` with; None where they leave no room in the model's context
    for one token more. A text that has more characters than so many tokens can stand for is not
    tokenised."""
    context = context_of(vlm)
    if context is not None and len(prompt) > context * vlm.longest_token:
        return None
    found = vlm.encode_text(prompt) if image is None else vlm.encode(image, prompt)
    found = behind(vlm, found, begun)
    return found if context is None or len(found.ids) < context else None


def answer_limit(vlm: VisionLanguageModel, encoded: Encoded, max_new_tokens: int) -> int:
    """The most tokens that an answer to this prompt may have: ``max_new_tokens``, or what the
    context has room for."""
    context = context_of(vlm)
    return max_new_tokens if context is None else min(max_new_tokens, context - len(encoded.ids))
