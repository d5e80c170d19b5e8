"""SHR, the sentence-level hallucination ratio (Zhao et al. 2023, arXiv:2311.16839): a judge
compares each sentence of a description with what people wrote of the picture's regions (Visual
Genome).

The official prompt is part of its authors' code (github.com/opendatalab/HA-DPO); the one here is
our own. A picture whose verdicts do not fit its sentences, which the official script leaves out, is
asked about again, and at last counted as unjudged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal

from seva_exp.benchmarks.base import Metric, Question, ratio
from seva_exp.benchmarks.files import BenchmarkFiles, FileRow, indexed
from seva_exp.benchmarks.guards import Guards
from seva_exp.benchmarks.judging import OWN, Judging, Messages
from seva_exp.benchmarks.official import Item, Official, Rule
from seva_exp.benchmarks.question import Scored
from seva_exp.core.records import Prediction
from seva_exp.core.spec import Json

HALLUCINATION, CORRECT, CANNOT_JUDGE = "hallucination", "correct", "cannot judge"
LABELS = (HALLUCINATION, CORRECT, CANNOT_JUDGE)
GRAMS = (1, 2, 3, 4)
OWN_PROMPT = """\
Below is what people wrote of a picture: its regions, each with its box [x1, y1, x2, y2] in pixels \
(boxes that overlap much may show one thing), and facts that are certain. Then come numbered \
sentences of a description of the same picture.

Regions:
{regions}

Facts:
{facts}

Sentences:
{sentences}

Judge every sentence by regions and facts alone. "hallucination": something in it contradicts them \
or cannot be in such a picture. "correct": they bear it out. "cannot judge": they say nothing of \
it, as of a mood or a style.
Reply with one line a sentence and nothing else: its number, a full stop, one of these three \
labels, a colon, the reason in a few words."""
_UNCOUNTED = str.maketrans("", "", ".:\n?,")
"""What the official script takes out of a text before it counts n-grams."""
_NUMBERED = re.compile(r"\s*(\d{1,9})\s*[.):]\s*(.*)")


def sentences(text: str) -> list[str]:
    """The sentences of a description that are judged, as the official script has them: what stands
    between full stops, without those that an earlier one is equal to or contains."""
    kept: list[str] = []
    for sentence in filter(None, map(str.strip, text.split("."))):
        if not any(sentence in earlier for earlier in kept):
            kept.append(sentence)
    return kept


def distinct(text: str, n: int) -> float | None:
    """The share of different n-grams among all of a text (case counts; ``. : ? ,`` and line breaks
    do not): what the official script prints as repetition. None where there is no n-gram, where it
    fails."""
    words = text.translate(_UNCOUNTED).split()
    grams = list(zip(*(words[i:] for i in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else None


def repetition(text: str, n: int) -> float:
    """The share of n-grams that have stood before in the text: one minus ``distinct``; 0 where
    there is no n-gram."""
    share = distinct(text, n)
    return 0.0 if share is None else 1 - share


def read_labels(reply: str, n: int) -> list[str] | None:
    """One label for each of ``n`` sentences, told by number, each once; lines without a number are
    passed over."""
    found: dict[int, str] = {}
    for line in reply.splitlines():
        numbered = _NUMBERED.match(line.replace("*", ""))
        if not numbered:
            continue
        verdict = numbered[2].lower().lstrip("\"'[( ")
        label = next((one for one in LABELS if re.match(rf"{one}\b", verdict)), None)
        number = int(numbered[1])
        if label is None or number in found:
            return None
        found[number] = label
    return [found[i] for i in range(1, n + 1)] if set(found) == set(range(1, n + 1)) else None


def described(text: str, target: str, details: Json) -> Scored:
    """Without a sentence there is nothing to judge, and nothing made up; else a judge has to
    say."""
    return scored(text, []) if not sentences(text) else Scored("", None, {})


def scored(text: str, labels: Sequence[str]) -> Scored:
    """Hallucinated sentences among all (those that cannot be judged are among them); words are
    those of the judged sentences."""
    wrong = sum(label == HALLUCINATION for label in labels)
    counts = {
        "asked": 1.0,
        "sentences": float(len(labels)),
        "hallucinated": float(wrong),
        "cannot_judge": float(sum(label == CANNOT_JUDGE for label in labels)),
        "words": float(sum(len(sentence.split(" ")) for sentence in sentences(text))),
        **{f"repetition_{n}": repetition(text, n) for n in GRAMS},
    }
    return Scored(", ".join(labels), 1 - wrong / max(1, len(labels)), counts)


def read(reply: str, question: Question, prediction: Prediction) -> Scored | None:
    """The reply as a verdict."""
    labels = read_labels(reply, len(sentences(prediction.text)))
    return None if labels is None else scored(prediction.text, labels)


def messages(material: Json, question: Question, prediction: Prediction) -> Messages | None:
    """The question of ``OWN_PROMPT``; None where there is no sentence."""
    plain = (" ".join(sentence.split()) for sentence in sentences(prediction.text))
    numbered = [f"{i}. {one}" for i, one in enumerate(plain, 1)]
    if not numbered:
        return None
    known = material["pictures"][question.id]
    facts = "\n".join(known["facts"]) or "(none)"
    values = {"regions": "\n".join(known["regions"]), "facts": facts}
    return (("user", OWN_PROMPT.format(**values, sentences="\n".join(numbered))),)


class ShrBenchmark(Official):
    """Hallucinated sentences of all, with length and repetition: a model that says less, or the
    same again, makes up less."""

    layout = (
        ("shr/val_images_final.json",),
        ("vg/image_data.json", "VG/image_data.json"),
        ("vg/region_descriptions.json", "VG/region_descriptions.json"),
        ("shr/shr_factual_part1.jsonl",),
        ("shr/shr_factual_part2.jsonl",),
        ("vg", "VG"),
    )
    source = (
        "huggingface.co/datasets/juliozhao/SHR; Visual Genome (homes.cs.washington.edu/~ranjay/"
        "visualgenome): image_data.json, region_descriptions.json, VG_100K/, VG_100K_2/"
    )
    rules: ClassVar[Mapping[str, Rule]] = {"judged": described}
    placeholders = ()
    needs_judge = True

    guards: ClassVar[Guards] = {"shr": ("sentences", "words")}
    kind: Literal["shr"] = "shr"

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        paths = indexed(source.list(self.layout[1]), "image_id")
        pictures = source.folder(self.layout[5])
        for row in source.list(self.layout[0]):
            id = row.text("image_id")
            if id not in paths:
                row.refuse(f"image_data.json has no picture {id!r}")
            name = "/".join(paths[id].text("url").split("/")[-2:])
            yield Item(row, id, name, "describe", {}, "", pictures.picture(row, name))

    def _own(self, source: BenchmarkFiles) -> Judging:
        wanted = {row.text("image_id"): row for row in source.list(self.layout[0])}
        regions: dict[str, list[str]] = {}
        for row in source.list(self.layout[2]):
            for region in row.objects("regions"):
                id = str(region.get("image_id"))
                if id in wanted:
                    regions.setdefault(id, []).append(_region(row, region))
        facts: dict[str, Sequence[str]] = {}
        for row in (row for part in self.layout[3:5] for row in source.lines(part)):
            for id in row.values:
                facts[id] = row.texts(id)
        for id, row in wanted.items():
            if id not in regions:
                row.refuse(f"region_descriptions.json has no regions of picture {id!r}")
        known = {id: {"regions": regions[id], "facts": facts.get(id, ())} for id in wanted}
        material = {"prompt": OWN_PROMPT, "pictures": known}
        return Judging(OWN, 0.7, 800, material, partial(messages, material), read)

    judgings: ClassVar = {OWN: _own}

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """SHR, the sentences that cannot be judged, sentences and words a picture, repetition."""
        part = (("describe",),)
        return [
            Metric("all", "shr", ratio("hallucinated", "sentences"), part, "lower"),
            Metric("all", "cannot_judge", ratio("cannot_judge", "sentences"), part, "neutral"),
            Metric("all", "sentences", ratio("sentences", scale=1.0), part, "neutral", share=False),
            Metric("all", "words", ratio("words", scale=1.0), part, "neutral", share=False),
            *(
                Metric("all", f"repetition_{n}", ratio(f"repetition_{n}"), part, "lower")
                for n in GRAMS
            ),
        ]


def _region(row: FileRow, region: Json) -> str:
    """Box and phrase of one region."""
    try:
        x, y = int(region["x"]), int(region["y"])
        box = [x, y, x + int(region["width"]), y + int(region["height"])]
        return f"{box}: {str(region['phrase']).strip()}"
    except (KeyError, TypeError, ValueError):
        row.refuse("field 'regions': x, y, width, height, phrase are needed of each")
