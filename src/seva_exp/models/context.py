"""A model's context: how long it is, and whether a question fits into it."""

from __future__ import annotations

from seva_exp.core.interfaces import Encoded, EncodedImage, VisionLanguageModel


def context_of(vlm: VisionLanguageModel) -> int | None:
    """Positions that the language model was made for; None where its config does not say."""
    return getattr(vlm.model.config.get_text_config(), "max_position_embeddings", None)


def encoded_within(
    vlm: VisionLanguageModel, image: EncodedImage | None, prompt: str
) -> Encoded | None:
    """The prompt's ids with the picture's placeholders (none where there is no picture); None where
    they leave no room in the model's context for one token of an answer. A text that has more
    characters than so many tokens can stand for is not tokenised."""
    context = context_of(vlm)
    if context is not None and len(prompt) > context * vlm.longest_token:
        return None
    found = vlm.encode(image, prompt) if image else vlm.encode_text(prompt)
    if context is None:
        return found
    return found if len(found.ids) < context else None


def answer_limit(vlm: VisionLanguageModel, encoded: Encoded, max_new_tokens: int) -> int:
    """The most tokens that an answer to this prompt may have: ``max_new_tokens``, or what the
    context has room for."""
    context = context_of(vlm)
    return max_new_tokens if context is None else min(max_new_tokens, context - len(encoded.ids))
