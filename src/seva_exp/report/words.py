"""``words.html``: what each word of base's and aligned model's answers rests on, as one
self-contained page; parts of it stand in ``report.html``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from seva_exp.core.files import write_whole
from seva_exp.core.printable import one_line
from seva_exp.core.records import ALIGNED, BASE
from seva_exp.core.spec import Json
from seva_exp.grounding.rows import (
    Agreeing,
    ExplainedAnswer,
    ExplainedSample,
    Grounding,
    Status,
    Word,
    WordMap,
)
from seva_exp.report import significance as said
from seva_exp.report.gallery import picture
from seva_exp.report.pages import asset, template
from seva_exp.report.word_maps import WIDTH, Drawing, trio
from seva_exp.runs.events import Explained
from seva_exp.stages.artifacts import ExplainArtifact

PAGE = "words.html"
FIRST = 3
"""Samples that ``report.html`` shows."""
ORDER: tuple[Status, ...] = ("fixed", "broken", "unchanged")
STEPS = (0.25, 1.0, 3.0)
"""Shades of a word: from these multiples of ``explain.rests`` nats of |g| on."""
LITTLE = 0.02
"""Share of g below which no cell of a map decides the word."""
WHO = {"base": "The base model", "aligned": "The aligned model", "both": "Both models"}
METHODS = {
    "occlusion": "occlusion",
    "activation": "TAM (activation)",
    "relative_attention": "relative attention (not a cause)",
}
TITLES = {
    "on_picture": "words that rest on the picture, %",
    "g": "mean g of a word, nats",
    "g_view": "mean g against {view}, nats",
    "agreement": "answers agree under weak views, %",
}


def write_words(folder: Path, name: str, explained: Sequence[Explained]) -> Path:
    """Writes the page of a run named ``name`` into its folder; returns the file. Everything that a
    model or a user wrote is escaped."""
    file = folder / PAGE
    write_whole(file, render(name, explained))
    return file


def render(name: str, explained: Sequence[Explained]) -> str:
    """The page's text."""
    benchmarks = [_benchmark(number, one) for number, one in enumerate(explained)]
    return template("report/words.html").render(
        name=name,
        benchmarks=benchmarks,
        sheet=asset("report/words.css"),
        script=asset("report/words.js"),
        said=said,
        width=WIDTH,
    )


def excerpt(explained: Sequence[Explained]) -> Json | None:
    """What ``report.html`` tells of it: the metrics of each benchmark, and of all few samples; None
    where nothing was explained."""
    if not explained:
        return None
    benchmarks = [_benchmark(number, one, FIRST) for number, one in enumerate(explained)]
    cards = [card for one in benchmarks for _, some in one["kinds"] for card in some]
    return {
        "benchmarks": benchmarks,
        "cards": cards[:FIRST],
        "sheet": asset("report/words.css"),
        "width": WIDTH,
    }


def line(explained: Sequence[Explained]) -> str:
    """The same in a line: ``48 % of words rest on the picture, aligned 51 %; ...``."""
    return "; ".join(filter(None, map(_line, explained)))


def _line(explained: Explained) -> str:
    scores = ExplainArtifact(explained.artifact).scores()
    values = {(one.metric, one.model): one.value for one in scores}
    if not values:
        return ""
    base, aligned = ((values["on_picture", m], values["g", m]) for m in (BASE, ALIGNED))
    return (
        f"{explained.benchmark}: {base[0]:.0f} % of words rest on the picture, aligned "
        f"{aligned[0]:.0f} %, mean g {nats(base[1])} and {nats(aligned[1])} nats"
    )


def _benchmark(number: int, explained: Explained, most: int | None = None) -> Json:
    made = ExplainArtifact(explained.artifact)
    samples = list(made.samples())
    by_status = {kind: [one for one in samples if one.status == kind] for kind in ORDER}
    if most:
        by_status = few(by_status, most)
    pictures = made.pictures()
    cards = _Cards(number, explained, pictures)
    return {
        "name": explained.benchmark,
        "anchor": f"words-{number}",
        "rests": said.number(explained.rests, 2).rstrip("0").rstrip("."),
        "steps": [nats(one * explained.rests) for one in STEPS],
        "view": explained.view,
        "protocol": next((one.protocol for one in made.scores()), ""),
        "metrics": _metrics(made, explained),
        "total": len(samples),
        "kinds": [(kind, [cards.card(one) for one in by_status[kind]]) for kind in ORDER],
    }


def few(by_status: dict[Status, list[ExplainedSample]], most: int) -> dict[Status, list[Any]]:
    """At most ``most`` in all: from each status in turn the sample of which the models' readings
    differ most."""
    left = {kind: sorted(some, key=_moved) for kind, some in by_status.items()}
    taken: dict[Status, list[ExplainedSample]] = {kind: [] for kind in by_status}
    while any(left.values()) and sum(map(len, taken.values())) < most:
        for kind, some in left.items():
            if some and sum(map(len, taken.values())) < most:
                taken[kind].append(some.pop())
    return taken


def _moved(sample: ExplainedSample) -> tuple[float, int]:
    words = [word for answer in sample.answers for word in answer.words]
    return max((abs(one.aligned.g - one.base.g) for one in words), default=0.0), len(words)


def _metrics(made: ExplainArtifact, explained: Explained) -> list[Json]:
    deltas = {one.metric: one for one in made.deltas()}
    scores: dict[str, dict[str, Any]] = {}
    for one in made.scores():
        scores.setdefault(one.metric, {})[one.model] = one
    found = []
    for metric, models in scores.items():
        delta = deltas.get(metric)
        digits = max(said.decimals(one.low, one.high) for one in models.values())
        found.append(
            {
                "title": TITLES.get(metric, metric).format(view=explained.view),
                "models": [models.get(BASE), models.get(ALIGNED)],
                "digits": digits,
                "delta_digits": max(digits, said.decimals(delta.low, delta.high)) if delta else 1,
                "delta": delta,
                "verdict": said.verdict(delta) if delta else "",
                "p": said.p_value(delta.p) if delta else "",
            }
        )
    return found


class _Cards:
    """The cards of one benchmark's samples."""

    def __init__(
        self, number: int, explained: Explained, pictures: dict[str, tuple[Path, Path | None]]
    ) -> None:
        self._number, self._explained, self._pictures = number, explained, pictures
        self._rests = explained.rests
        self._made = 0

    def card(self, sample: ExplainedSample) -> Json:
        """All that the page shows of a sample."""
        anchor = f"w{self._number}-{self._made}"
        self._made += 1
        files = self._pictures.get(sample.id, (None, None))
        clean, worse = (picture(one) for one in files)
        height = WIDTH * clean["height"] / clean["width"] if clean else WIDTH
        return {
            "anchor": anchor,
            "id": sample.id,
            "type": sample.type,
            "status": sample.status,
            "question": sample.question,
            "target": sample.target,
            "clean": clean,
            "worse": worse,
            "view": self._explained.view,
            "height": round(height, 2),
            "agreement": _agreement(sample),
            "answers": [
                self._answer(f"{anchor}-{i}", sample, one, height)
                for i, one in enumerate(sample.answers)
            ],
        }

    def _answer(
        self, anchor: str, sample: ExplainedSample, answer: ExplainedAnswer, height: float
    ) -> Json:
        return {
            "anchor": anchor,
            "who": WHO[answer.by],
            "score": _score(answer.score),
            "asked": answer.prompt if answer.prompt != sample.question else "",
            "text": one_line(answer.text),
            "columns": [
                (title, pieces(answer, [shade(g(word), self._rests) for word in answer.words]))
                for title, g in (
                    ("Base", lambda word: word.base.g),
                    ("Aligned", lambda word: word.aligned.g),
                    ("Change", lambda word: word.aligned.g - word.base.g),
                )
            ],
            "words": [
                {"told": self._told(answer, i), "mapped": any(one.word == i for one in answer.maps)}
                for i in range(len(answer.words))
            ],
            "chosen": chosen(answer),
            "rows": [self._row(answer, one, height) for one in in_order(answer)],
            "numbers": self._numbers(answer),
        }

    def _row(self, answer: ExplainedAnswer, found: WordMap, height: float) -> Json:
        drawn = trio(found, height)
        word = answer.words[found.word]
        return {
            "word": found.word,
            "text": one_line(word.text),
            "told": self._told(answer, found.word),
            "method": METHODS[found.method],
            "panels": [
                ("Base", drawn.base, _note(drawn.base, drawn.shared)),
                ("Aligned", drawn.aligned, _note(drawn.aligned, drawn.shared)),
                ("Change", drawn.change, _note(drawn.change, drawn.shared, change=True)),
            ],
        }

    def _told(self, answer: ExplainedAnswer, number: int) -> str:
        word = answer.words[number]
        before, after = word.base, word.aligned
        parts = [
            f"g {nats(before.g)} under base, {nats(after.g)} under aligned "
            f"({nats(after.g - before.g, sign=True)}) nats: {self._verdicts(before, after)}",
            f"log p {nats(before.logp)} and {nats(after.logp)}",
        ]
        if before.g_view is not None and after.g_view is not None:
            view = one_line(self._explained.view)
            parts.append(f"g against {view} {nats(before.g_view)} and {nats(after.g_view)}")
        found = next((one for one in answer.maps if one.word == number), None)
        if found and found.method == "occlusion":
            parts += spread_out(found, max(before.g, after.g))
        return " · ".join(parts)

    def _verdicts(self, before: Grounding, after: Grounding) -> str:
        was, now = (verdict(one.g, self._rests) for one in (before, after))
        return was if was == now else f"{was}, then {now}"

    def _numbers(self, answer: ExplainedAnswer) -> list[Json]:
        words = [word for word in answer.words if word.is_word]
        if not words:
            return []
        rest = [sum(one.g > self._rests for one in some) for some in _readings(words)]
        mean = [sum(one.g for one in some) / len(words) for some in _readings(words)]
        of = len(words)
        return [
            {
                "title": "Rest on the picture",
                "values": [f"{n} of {of} {'word' if of == 1 else 'words'}" for n in rest],
                "change": said.number(rest[1] - rest[0], 0, sign=True),
            },
            {
                "title": "Mean g",
                "values": [f"{nats(one)} nats" for one in mean],
                "change": nats(mean[1] - mean[0], sign=True),
            },
        ]


def _note(drawn: Drawing, shared: bool, change: bool = False) -> str:
    if not shared:
        return "of the two beside" if change else "on its own scale"
    told = nats(drawn.strongest, sign=change)
    return "no change" if change and told == "0" else f"strongest {told} nats"


def _readings(words: Iterable[Word]) -> tuple[list[Grounding], list[Grounding]]:
    some = list(words)
    return [one.base for one in some], [one.aligned for one in some]


def _agreement(sample: ExplainedSample) -> Json | None:
    if sample.agreement is None:
        return None

    def told(one: Agreeing) -> str:
        return f"{one.equal} of {one.asked} agree"

    both = sample.agreement
    return {"base": told(both.base), "aligned": told(both.aligned)}


def chosen(answer: ExplainedAnswer) -> int:
    """The word that is shown first: the one that loses most where one part is hidden; without maps
    of occlusion the one of largest |g| that has a map, or of all words where none has."""
    decided = {
        one.word: max((*one.base, *one.aligned), default=0.0)
        for one in answer.maps
        if one.method == "occlusion"
    }
    if decided:
        return max(sorted(decided), key=lambda number: decided[number])
    mapped = {one.word for one in answer.maps} or set(range(len(answer.words)))

    def weight(number: int) -> float:
        word = answer.words[number]
        return max(abs(word.base.g), abs(word.aligned.g))

    return max(sorted(mapped), key=weight, default=0)


def in_order(answer: ExplainedAnswer) -> list[WordMap]:
    """Its maps, those of the chosen word first."""
    first = chosen(answer)
    return sorted(answer.maps, key=lambda one: one.word != first)


def _score(score: float | None) -> str:
    if score is None:
        return "not judged"
    return {0.0: "wrong", 1.0: "right"}.get(score) or f"score {score:.2g}"


def pieces(answer: ExplainedAnswer, shades: Sequence[str]) -> list[Json]:
    """The answer's text in order: its words with their number and shade, and what stands between
    them (``word`` is None)."""
    found: list[Json] = []
    at = 0
    for number, (word, one) in enumerate(zip(answer.words, shades, strict=True)):
        if word.start > at:
            found.append({"text": answer.text[at : word.start], "word": None})
        found.append({"text": answer.text[word.start : word.end], "word": number, "shade": one})
        at = word.end
    if at < len(answer.text):
        found.append({"text": answer.text[at:], "word": None})
    return found


def shade(g: float, rests: float) -> str:
    """``more-1`` to ``more-3`` by ``STEPS``, below zero ``less-1`` to ``less-3``; empty: none."""
    step = sum(abs(g) >= one * rests for one in STEPS)
    return "" if not step else f"{'more' if g > 0 else 'less'}-{step}"


def verdict(g: float, rests: float) -> str:
    """What a word's g says, in words."""
    if g > rests:
        return "rests on the picture"
    if g <= -STEPS[0] * rests:
        return "said in spite of the picture"
    return "leans on the picture" if g >= STEPS[0] * rests else "said whatever the picture"


def spread_out(found: WordMap, g: float) -> list[str]:
    """A note on a map whose every cell is little of the word's g: others tell the same."""
    largest = max((*found.base, *found.aligned), default=0.0)
    if g <= 0 or largest >= LITTLE * g:
        return []
    return [f"no part alone decides it: hiding one takes {nats(max(0.0, largest))} nats at most"]


def nats(value: float, *, sign: bool = False) -> str:
    """Two decimals, or of a small value its first digit, to the fourth decimal."""
    size = abs(value)
    digits = 2 if size >= 0.095 else 3 if size >= 0.0095 else 4
    return said.number(value, digits if size >= 0.00005 else 0, sign=sign)
