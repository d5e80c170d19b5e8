"""AMBER (Wang et al. 2023, arXiv:2311.07397): what a description makes up, and yes-or-no questions
on what is there, how it is and how it stands to others.

The files are the official ones (github.com/junyangwang0410/AMBER), or VLMEvalKit's table, which has
the yes-or-no questions alone. No judge is asked. How objects are found in a description is the
protocol's rule: ``official`` by nltk and spaCy, as the official script; ``rules`` by rules of our
own, with its lists and without its similarity of words. Both name themselves with each score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from seva_exp.benchmarks import amber_official
from seva_exp.benchmarks.amber_objects import AmberLists, Similar, described_counts
from seva_exp.benchmarks.base import Formula, Hasher, Metric, Totals, Values, accuracy, ratio
from seva_exp.benchmarks.files import BenchmarkFiles, FileRow, columns, indexed
from seva_exp.benchmarks.guards import Guards
from seva_exp.benchmarks.mentions import DESCRIBE
from seva_exp.benchmarks.official import UNPARSED, Item, Official, Rule, Scored
from seva_exp.benchmarks.yes_no import first_word, one_of_both
from seva_exp.core.spec import Json

OFFICIAL_RULE = "official"
OBJECTS_BY_RULES = "+rules"
"""In a protocol's name: descriptions are read by rules of our own."""
TYPES = {
    "generative": DESCRIBE,
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
    "discriminative-relation": "relation",
    "relation": "relation",
}
"""The official types, and what they are called here."""
ATTRIBUTES = ("state", "number", "action")
YES_NO = ("existence", *ATTRIBUTES, "relation")
DIMENSIONS = {"existence": ("existence",), "attribute": ATTRIBUTES, "relation": ("relation",)}
"""The three dimensions of the yes-or-no questions."""


def asked_yes_or_no(read: Callable[[str], str], text: str, target: str) -> Scored:
    """The counts of an answer to a yes-or-no question. "no" is the positive class: an object that
    is not there is what is looked for. What is neither is wrong, and no "no"."""
    answer = read(text)
    counts = {
        "asked": 1.0,
        "correct": float(answer == target),
        "yes": float(answer == "yes"),
        "said_no": float(answer == "no"),
        "truly_no": float(target == "no"),
        "rightly_no": float(answer == target == "no"),
        "unparsed": float(not answer),
    }
    return Scored(answer, counts["correct"], counts)


def scored(
    nouns: Callable[[AmberLists, str], list[str]],
    similar: Similar | None,
    read: Callable[[str], str],
    text: str,
    target: str,
    details: Json,
) -> Scored:
    """One answer: of a description the objects that ``nouns`` finds, of a yes-or-no question what
    ``read`` reads."""
    if "lists" not in details:
        return asked_yes_or_no(read, text, target)
    lists = details["lists"]
    found = nouns(lists, text)
    there, imagined = details["there"], details["imagined"]
    counts = described_counts(found, there, imagined, lists, text, similar)
    named = ", ".join(noun for noun in found if noun in lists.vocabulary)
    return Scored(named, 1 - counts["any_wrong"], counts)


def _tagged(lists: AmberLists, text: str) -> list[str]:
    return amber_official.nouns(text)


def precision(sums: Totals) -> Values:
    """Right among the answers no."""
    return 100 * sums("rightly_no") / sums("said_no")


def recall(sums: Totals) -> Values:
    """Answered no of what is not so."""
    return 100 * sums("rightly_no") / sums("truly_no")


def f1(sums: Totals) -> Values:
    """Of the class no: the harmonic mean of precision and recall."""
    return 200 * sums("rightly_no") / (sums("said_no") + sums("truly_no"))


def amber_score(sums: Totals) -> Values:
    """The mean of 100 - CHAIR and F1; a CHAIR without mentions is 0."""
    mentions = sums("mentions")
    made_up = 100 * sums("wrong") / (mentions + (mentions == 0))
    return (100 - made_up + f1(sums)) / 2


class AmberBenchmark(Official):
    """A description of each picture, and yes-or-no questions on it; a picture's questions are
    resampled together. A part whose text the protocol's prompt does not fill in is not asked."""

    layout = (
        ("amber/data/query/query_all.json", "amber/query/query_all.json"),
        ("amber/data/annotations.json", "amber/annotations.json"),
        ("amber/data/relation.json", "amber/relation.json"),
        ("amber/data/safe_words.txt", "amber/safe_words.txt"),
        ("amber/image", "amber/images", "amber/data/image"),
    )
    tables = ("amber/AMBER.tsv", "AMBER.tsv")
    source = "github.com/junyangwang0410/AMBER (data/, and the pictures that its README links)"
    rules: ClassVar[Mapping[str, Rule]] = {
        OFFICIAL_RULE: partial(scored, _tagged, amber_official.similar, first_word),
        "rules": partial(scored, AmberLists.nouns, None, first_word),
        "one_of_both": partial(scored, AmberLists.nouns, None, one_of_both),
    }
    placeholders = ("question", "description")
    guards: ClassVar[Guards] = {
        **dict.fromkeys(("chair", "hal", "cog"), ("cover", "words")),
        "precision": ("recall", "unparsed"),
        "recall": ("precision", "unparsed"),
    }
    kind: Literal["amber"] = "amber"

    @property
    def plain_protocol(self) -> str:
        return super().plain_protocol + self._finds_objects

    @property
    def _finds_objects(self) -> str:
        """How objects are found in descriptions, where there are any."""
        if "description" not in self.rules_of_protocol.placeholders():
            return ""
        return amber_official.suffix() if self._by_tools else OBJECTS_BY_RULES

    @property
    def _by_tools(self) -> bool:
        return self.rules_of_protocol.rule == OFFICIAL_RULE

    def check(self, root: Path | None) -> None:
        if self._by_tools:
            amber_official.check()
        super().check(root)

    def identity(self, sha256: Hasher, root: Path | None) -> Json:
        tools = {"tools": amber_official.versions()} if self._by_tools else {}
        return super().identity(sha256, root) | tools

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        pictures = source.folder(self.layout[4])
        truths = indexed(source.list(self.layout[1]), "id")
        lists = self._lists(source)
        for row in source.list(self.layout[0]):
            id = row.text("id")
            if id not in truths:
                row.refuse(f"annotations.json has no id {id!r}")
            truth, image = truths[id], row.picture("image")
            type_ = TYPES[truth.one_of("type", TYPES)]
            asks = "description" if type_ == DESCRIBE else "question"
            if asks not in self.rules_of_protocol.placeholders():
                continue
            target, details = _described(truth, lists) if type_ == DESCRIBE else _yes_no(truth)
            texts = dict.fromkeys(self.placeholders, "") | {asks: row.text("query")}
            picture = pictures.picture(row, image)
            yield Item(row, id, image, type_, texts, target, picture, details)

    def _lists(self, source: BenchmarkFiles) -> AmberLists:
        file, content = source.json(self.layout[2])
        row = FileRow(file, "the file", content if isinstance(content, dict) else {})
        if not row.values:
            row.refuse("a JSON object of lists of words by word is needed")
        for word, others in row.values.items():
            if not isinstance(others, list):
                row.refuse(f"the word {word!r}: a list of words is needed")
        found = AmberLists({word: row.texts(word) for word in row.values}, frozenset())
        return replace(found, safe=frozenset(self._safe(source, found.vocabulary)))

    def _safe(self, source: BenchmarkFiles, vocabulary: frozenset[str]) -> Iterator[str]:
        """The words of ``safe_words.txt``, each an object of the lists."""
        file, text = source.text(self.layout[3])
        for number, word in enumerate(text.split("\n"), 1):
            if word not in vocabulary:
                row = FileRow(file, f"line {number}", {})
                row.refuse(f"{word!r} is no word of relation.json" if word else "is empty")
            yield word

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        for row in source.table(self.tables):
            columns(row, ("index", "image", "question", "answer", "category"))
            category = row.one_of("category", [name for name in TYPES if TYPES[name] != DESCRIBE])
            texts = {"description": "", "question": row.text("question")}
            target = row.one_of("answer", ("yes", "no", "Yes", "No")).lower()
            picture = row.shown
            type_ = TYPES[category]
            yield Item(row, row.text("index"), picture.sha256, type_, texts, target, picture)

    def table_row(self, item: Item) -> Json:
        """With what VLMEvalKit's evaluator groups and compares by."""
        row = super().table_row(item)
        if item.row.held is not None:
            return row
        official = {short: name for name, short in reversed(TYPES.items())}
        text = item.texts["question"] or item.texts["description"]
        category = official[item.type]
        answer = item.target.capitalize() if item.type != DESCRIBE else item.target
        named = {"category": category, "image_path": item.group}
        return row | {"question": text, "answer": answer} | named

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """The AMBER score where both parts were asked, the generative four, and accuracy,
        precision, recall and F1 of the yes-or-no questions, together and by dimension."""
        described = DESCRIBE in types
        asked = tuple(name for name in YES_NO if name in types)
        found: list[Metric] = []
        if described and asked:
            found.append(Metric("all", "amber_score", amber_score, ((DESCRIBE, *asked),)))
        if described:
            found += _generative()
        if asked:
            each = _of_dimensions(asked)
            found += _table("discriminative", asked)
            found.append(Metric("discriminative", "mean_accuracy", accuracy, each))
        for split, parts in (DIMENSIONS | {name: (name,) for name in ATTRIBUTES}).items():
            if some := tuple(name for name in parts if name in asked):
                found += _table(split, some)
        return found


def _of_dimensions(asked: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The dimensions that were asked of; VLMEvalKit takes the mean of their accuracies."""
    parts = (tuple(one for one in kinds if one in asked) for kinds in DIMENSIONS.values())
    return tuple(part for part in parts if part)


def _generative() -> list[Metric]:
    def described(name: str, formula: Formula, better: Literal["higher", "lower"]) -> Metric:
        empty = 0.0 if name == "chair" else None
        return Metric("generative", name, formula, ((DESCRIBE,),), better, empty=empty)

    words = ratio("words", scale=1.0)
    return [
        described("chair", ratio("wrong", "mentions"), "lower"),
        described("cover", ratio("found", "present"), "higher"),
        described("hal", ratio("any_wrong"), "lower"),
        described("cog", ratio("cog", "imagined"), "lower"),
        Metric("generative", "words", words, ((DESCRIBE,),), "neutral", share=False),
    ]


def _table(split: str, types: tuple[str, ...]) -> list[Metric]:
    """Of the class no; precision and F1 are 0 where nothing is answered no."""
    return [
        Metric(split, "accuracy", accuracy, (types,)),
        Metric(split, "precision", precision, (types,), empty=0.0),
        Metric(split, "recall", recall, (types,), empty=0.0),
        Metric(split, "f1", f1, (types,), empty=0.0),
        Metric(split, "yes_rate", ratio("yes"), (types,), "neutral"),
        Metric(split, "unparsed", UNPARSED, (types,), "lower"),
    ]


def _described(truth: FileRow, lists: AmberLists) -> tuple[str, Json]:
    """The objects that are there, and those that people would imagine."""
    named: dict[str, tuple[str, ...]] = {}
    for field in ("truth", "hallu"):
        named[field] = truth.texts(field)
        for word in named[field]:
            if word not in lists.related:
                truth.refuse(f"field {field!r}: {word!r} is not in relation.json")
    there, imagined = named["truth"], named["hallu"]
    return ", ".join(there), {"lists": lists, "there": there, "imagined": imagined}


def _yes_no(truth: FileRow) -> tuple[str, Json]:
    return truth.one_of("truth", ("yes", "no")), {}
