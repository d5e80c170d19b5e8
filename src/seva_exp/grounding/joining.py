"""Both models' readings of the same answers, put together. No heavy import."""

from __future__ import annotations

from collections.abc import Mapping

from seva_exp.core.records import ALIGNED, BASE
from seva_exp.core.spec import Json
from seva_exp.grounding.agreeing import agreeing
from seva_exp.grounding.pieces import Piece, Said
from seva_exp.grounding.rows import (
    Agreements,
    ExplainedAnswer,
    ExplainedSample,
    Grounding,
    Word,
    WordMap,
)
from seva_exp.grounding.spec import Explain, Method


def joined(piece: Piece, rows: Mapping[str, Json], how: Explain) -> ExplainedSample:
    """``rows`` by model: what each read of the piece. Words that one of two different tokenizers
    could not tell apart are left out."""
    answers = []
    for said in piece.said:
        both = {model: _of(row, said) for model, row in rows.items()}
        base, aligned = both[BASE], both[ALIGNED]
        if base and aligned:
            answers.append(_answer(piece, said, base, aligned, how))
    question = piece.question
    return ExplainedSample(
        id=piece.id,
        type=question.type,
        question=question.prompt,
        target=question.target,
        status=piece.status,
        answers=tuple(answers),
        agreement=_agreements(piece, rows, how),
    )


def _of(row: Json, said: Said) -> Json | None:
    return next((one for one in row["answers"] if one["by"] == said.by), None)


def _agreements(piece: Piece, rows: Mapping[str, Json], how: Explain) -> Agreements | None:
    if how.agreement is None:
        return None
    ask = how.agreement
    base, aligned = (
        agreeing(ask, piece.own(model).text, rows[model]["weak"]) for model in (BASE, ALIGNED)
    )
    return Agreements(base=base, aligned=aligned)


def _answer(piece: Piece, said: Said, base: Json, aligned: Json, how: Explain) -> ExplainedAnswer:
    places = {tuple(span): i for i, span in enumerate(aligned["words"])}
    pairs = [
        (i, places[tuple(span)]) for i, span in enumerate(base["words"]) if tuple(span) in places
    ]
    words = tuple(
        _word(said.text, base["words"][i], _grounding(base, i), _grounding(aligned, j))
        for i, j in pairs
    )
    shown = _weightiest(words, how.words) if piece.shown else []
    maps = [
        WordMap(
            word=number,
            method=method,
            grid=tuple(base["maps"][method]["grid"]),
            base=tuple(base["maps"][method]["values"][pairs[number][0]]),
            aligned=tuple(aligned["maps"][method]["values"][pairs[number][1]]),
        )
        for number in shown
        for method in _methods(base, aligned, how)
    ]
    return ExplainedAnswer(
        by=said.by,
        prompt=said.prompt,
        text=said.text,
        score=said.score,
        words=words,
        maps=tuple(maps),
    )


def _word(text: str, span: list[int], base: Grounding, aligned: Grounding) -> Word:
    start, end = span
    return Word(text=text[start:end], start=start, end=end, base=base, aligned=aligned)


def _grounding(answer: Json, i: int) -> Grounding:
    view = answer["g_view"]
    return Grounding(
        logp=round(answer["logp"][i], 6),
        g=answer["g"][i],
        g_view=None if view is None else view[i],
    )


def _weightiest(words: tuple[Word, ...], most: int) -> list[int]:
    """The words, no marks, of largest |g| under either model; in the answer's order."""
    weight = {i: max(abs(w.base.g), abs(w.aligned.g)) for i, w in enumerate(words) if w.is_word}
    return sorted(sorted(weight, key=lambda i: -weight[i])[:most])


def _methods(base: Json, aligned: Json, how: Explain) -> list[Method]:
    """Those of which both models have a map, of one grid."""
    found = []
    for method in how.maps:
        grids = [one["maps"][method]["grid"] for one in (base, aligned) if method in one["maps"]]
        if len(grids) == 2 and grids[0] == grids[1]:
            found.append(method)
    return found
