"""AMBER's counting beside its authors' script, for perf/official.py.

The script is run as it is on one description, or on many yes-or-no answers, and its printed
numbers are compared with those that its arithmetic (a little more than the count in each
denominator, one decimal) makes of our counts. It needs nltk and spaCy to find nouns and alike
words; here both sides are given the same two stand-ins, so that what is compared is the rule
between them: which noun covers which object, what is made up, and the table of the class no.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seva_exp.benchmarks.amber import ATTRIBUTES, YES_NO, asked_yes_or_no, scored
from seva_exp.benchmarks.amber_objects import AmberLists
from seva_exp.benchmarks.question import Scored
from seva_exp.benchmarks.yes_no import first_word

FILES = tuple(
    f"AMBER/{name}"
    for name in ("inference.py", "data/relation.json", "data/safe_words.txt", "data/metrics.txt")
)
GUARD = 0.001
"""What the script has in every denominator beside the count."""
OFFICIAL_TYPES = {
    "existence": "discriminative-hallucination",
    "relation": "relation",
    **{name: f"discriminative-attribute-{name}" for name in ("state", "number", "action")},
}
Printed = list[float]


def alike(one: str, other: str) -> bool:
    """Stands in for the cosine of two words: their first three letters agree."""
    return one[:3] == other[:3]


class Script:
    """``inference.py``, run on rows of ours."""

    def __init__(self, root: Path, taken: Callable[..., dict[str, Any]]) -> None:
        folder = root / "AMBER"
        self.files = {
            name: (folder / "data" / name).read_text(encoding="utf-8")
            for name in ("relation.json", "safe_words.txt", "metrics.txt")
        }
        args = argparse.Namespace(
            metrics="metrics.txt", word_association="relation.json", safe_words="safe_words.txt",
            inference_data="rows", annotation="truths", evaluation_type="", similarity_score=0.8,
        )  # fmt: skip
        known = {"json": json, "tqdm": lambda rows: rows, "open": self._open, "args": args}
        known["extract_nouns"] = str.split
        known["check_synonyms_word"] = lambda one, other, least: alike(one, other)
        self._main = taken(folder / "inference.py", "main", "init", **known)["main"]
        self._args = args

    def _open(self, name: str, *args: Any, **fields: Any) -> io.StringIO:
        return io.StringIO(self.files[name])

    def printed(self, part: str, rows: list[dict], truths: list[dict]) -> Printed:
        """The numbers that it prints, in order."""
        self.files |= {"rows": json.dumps(rows), "truths": json.dumps(truths)}
        self._args.evaluation_type = part
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self._main(self._args)
        return [float(number) for number in re.findall(r":\s+(-?[\d.]+)", out.getvalue())]


def lists(script: Script) -> AmberLists:
    """The official lists."""
    safe = frozenset(script.files["safe_words.txt"].splitlines())
    return AmberLists(json.loads(script.files["relation.json"]), safe)


def share(above: float, below: float, guard: float = GUARD) -> float:
    """In percent, as the script has it."""
    return round(above / (below + guard) * 100, 1)


def total(mine: list[Scored], name: str) -> float:
    """The sum of one of our counts."""
    return sum(one.counts[name] for one in mine)


def table(split: str, mine: list[Scored]) -> Printed:
    """Accuracy, precision, recall and F1 that the script prints of our counts."""
    guard = GUARD * (len(ATTRIBUTES) if split == "attribute" else 1)
    precision = share(total(mine, "rightly_no"), total(mine, "said_no"), guard) / 100
    recall = share(total(mine, "rightly_no"), total(mine, "truly_no"), guard) / 100
    least = 0.001 if split == "existence" else 0.0001
    f1 = round(2 * precision * recall / (precision + recall + least) * 100, 1)
    right = share(total(mine, "correct"), len(mine), guard)
    return [right, round(precision * 100, 1), round(recall * 100, 1), f1]


def describing(taken: Callable[..., dict[str, Any]], root: Path) -> Callable[[str], Any]:
    """A description's nouns against drawn objects."""
    script = Script(root, taken)
    known = lists(script)
    words = sorted(known.related)

    def both(text: str) -> tuple[Printed, Printed]:
        rng = random.Random(text)
        there, imagined = (rng.choices(words, k=rng.randint(1, 6)) for _ in range(2))
        truth = {"id": 1, "type": "generative", "truth": there, "hallu": imagined}
        theirs = script.printed("g", [{"id": 1, "response": text}], [truth])
        details = {"lists": known, "there": there, "imagined": imagined}
        mine = scored(lambda _, said: said.split(), alike, first_word, text, "", details).counts
        return [
            share(mine["wrong"], mine["mentions"]),
            share(mine["found"], mine["present"]),
            round(100 - (1 - mine["any_wrong"]) / (1 + GUARD) * 100, 1),
            share(mine["cog"], mine["imagined"]),
        ], theirs

    return both


def answering(taken: Callable[..., dict[str, Any]], root: Path) -> Callable[[str], Any]:
    """Each word of a text as an answer to a question of each type, many times over."""
    script = Script(root, taken)

    def both(text: str) -> tuple[Printed, Printed]:
        rng = random.Random(text)
        rows: list[dict] = []
        truths: list[dict] = []
        mine: dict[str, list[Scored]] = {type_: [] for type_ in YES_NO}
        said = [(answer, truth) for answer in text.split() for truth in ("yes", "no")]
        for type_ in YES_NO:
            for answer, truth in rng.choices(said, k=30):
                one = asked_yes_or_no(first_word, answer, truth)
                id = len(rows) + 1
                rows.append({"id": id, "response": one.extracted.capitalize()})
                truths.append({"id": id, "type": OFFICIAL_TYPES[type_], "truth": truth})
                mine[type_].append(one)
        every = [one for some in mine.values() for one in some]
        found = table("all", every) + table("existence", mine["existence"])
        found += table("attribute", [one for name in ATTRIBUTES for one in mine[name]])
        for name in (*ATTRIBUTES, "relation"):
            found += table(name, mine[name])
        return found, script.printed("d", rows, truths)

    return both


def noun_drawer(root: Path) -> Callable[[random.Random], str]:
    """Texts of nouns of the official lists, and of some that are none of them."""
    file = root / FILES[1]
    related = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"dog": []}
    words = sorted({*related, *(word for some in related.values() for word in some)})
    return lambda rng: " ".join(
        rng.choices([*words, "photo", "Sky", "scene"], k=rng.randint(0, 12))
    )


def answers(rng: random.Random) -> str:
    """Some answers, a word each."""
    said = ("Yes", "No", "yes.", "NO", "No,", "(yes)", "Not", "maybe", "nothing", "eyes")
    return " ".join(rng.choices(said, k=rng.randint(1, 6)))
