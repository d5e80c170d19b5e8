"""Whether a model's answers to a question agree under weak views: asked, and counted. The same
views, and the same score of the answers, as of the pairs' (``preferences/ambiguity.py``)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

from PIL.Image import Image

from seva_exp.core.interfaces import ModelSource, Placement, Request, VisionLanguageModel
from seva_exp.core.records import AnswerGroup, ImageRef, Sample
from seva_exp.core.texts import normalised
from seva_exp.decoding import HfGeneration
from seva_exp.decoding.engines import engine_of
from seva_exp.grounding.pieces import Piece
from seva_exp.grounding.rows import Agreeing
from seva_exp.inputs.views import View
from seva_exp.preferences.ambiguity import WEAK, Ambiguity


def answers_under_weak_views(
    vlm: VisionLanguageModel,
    source: ModelSource,
    ambiguity: Ambiguity,
    placement: Placement,
    pieces: Sequence[Piece],
    which: str,
    seed: int,
) -> dict[str, list[str]]:
    """By question: what the loaded model (``which``: base or aligned) says to it under each weak
    view, greedily, as it answers a benchmark."""
    found: dict[str, list[str]] = {piece.id: [] for piece in pieces}
    for name, source_of_view in sorted(ambiguity.views.items()):
        view = View(f"{WEAK}{name}", source_of_view, seed)
        generation = HfGeneration().changed(source_of_view.decoding())
        engine = engine_of(generation, source, lambda: vlm, placement, view)
        for replies in engine.run([_request(piece, which, view) for piece in pieces]):
            for reply in replies:
                found[reply.id].append(reply.text)
    return found


def _request(piece: Piece, which: str, view: View) -> Request:
    question = piece.question
    assert question.load, "pieces have a picture"
    load = partial(_shown, question.load, view, piece.id)
    prompt = piece.own(which).prompt  # behind its description, where there is one
    return Request(piece.id, piece.id, load, prompt, question.max_new_tokens)


def _shown(load: Callable[[], Image], view: View, id: str) -> Image:
    return view.image(load(), id)


def agreeing(ambiguity: Ambiguity, own: str, others: Sequence[str]) -> Agreeing:
    """Of a model's own answer and those under weak views."""
    texts = (own, *others)
    different = Counter(texts)
    no_sample = Sample("", ImageRef("", ""), "")
    group = AnswerGroup(no_sample, tuple(different), (), tuple(different.values()))
    values = dict(zip(different, ambiguity.score.values(group), strict=True))
    scores = [value for text in texts if (value := values[text]) is not None]
    classes = Counter(map(normalised, texts))
    shares = [count / len(texts) for count in classes.values()]
    return Agreeing(
        asked=len(texts),
        equal=classes[normalised(own)],
        agreement=round(fmean(scores), 6) if scores else 1.0,
        entropy=round(-sum(share * math.log(share) for share in shares) + 0.0, 6),
    )
