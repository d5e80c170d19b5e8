"""MM-Vet (Yu et al. 2023, arXiv:2308.02490): open questions, each answer scored 0.0 to 1.0 by a
judge who is shown examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal

from seva_exp.benchmarks.base import Metric, Question, Scored, ratio
from seva_exp.benchmarks.files import BenchmarkFiles, FileRow, Picture, columns
from seva_exp.benchmarks.judging import OWN, Judging, Messages
from seva_exp.benchmarks.official import Item, Official, Rule, judged
from seva_exp.core.records import Prediction

CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")
EXAMPLES = ("mmvet/judge_prompt.txt", "mm-vet/judge_prompt.txt")
"""The official judge's instruction and its table of examples, a row each."""
SOURCE_OF_EXAMPLES = (
    "what `prompt` holds in the official mm-vet_evaluator.ipynb, as a text file; or take "
    "judge.own_prompts=true"
)
OWN_PROMPT = """\
You grade an answer to a question about a picture that you cannot see.

Question: {question}
Right answer: {target}
Given answer: {answer}

<AND> in the right answer joins parts that are all needed; <OR> joins parts of which one is enough.
How right is the given answer? 1.0: all of it is there and nothing contradicts it; 0.0: nothing is;
else the share that is there, in tenths. Reply with this one number and nothing else."""
score = ratio("score", "judged")
"""The mean of the judge's scores x 100."""


def read_score(reply: str) -> float | None:
    """The number from 0 to 1, in whichever way Python reads one, that the reply begins with, up to
    the first blank (the official rule; NaN, which that lets through, is none)."""
    try:
        found = float(reply.split(" ")[0])
    except ValueError:
        return None
    return found + 0.0 if 0 <= found <= 1 else None


def read(reply: str, question: Question, prediction: Prediction) -> Scored | None:
    """The reply as a verdict."""
    found = read_score(reply)
    if found is None:
        return None
    return Scored(f"{found:g}", found, {"judged": 1.0, "score": found})


def messages(examples: str, question: Question, prediction: Prediction) -> Messages:
    """The examples, and the answer as the table's last row, without its score."""
    row = (_bare(question), _spaced(question.target), prediction.text, "")
    return (("user", f"{examples}\n\n{' | '.join(row)}"),)


def own_messages(question: Question, prediction: Prediction) -> Messages:
    """The question of ``OWN_PROMPT``."""
    values = {"question": _bare(question), "target": _spaced(question.target)}
    return (("user", OWN_PROMPT.format(**values, answer=prediction.text)),)


def _bare(question: Question) -> str:
    """The official question, without what a protocol adds to it."""
    text: str = question.details["question"]
    return text


def _spaced(target: str) -> str:
    return target.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")


class MmvetBenchmark(Official):
    """Scores of all, by capability and by combination of capabilities."""

    layout = (("mmvet/mm-vet.json", "mm-vet/mm-vet.json"), ("mmvet/images", "mm-vet/images"))
    judge_files = (EXAMPLES,)
    tables = ("mmvet/MMVet.tsv", "MMVet.tsv")
    source = "github.com/yuweihao/MM-Vet (mm-vet.zip; the judge's prompt: docs/benchmarks.md)"
    rules: ClassVar[Mapping[str, Rule]] = {"judged": judged}
    needs_judge = True

    kind: Literal["mmvet"] = "mmvet"

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        pictures = source.folder(self.layout[1])
        for id, row in source.by_key(self.layout[0]):
            image = row.text("imagename")
            needed = row.texts("capability")
            yield self._item(row, id, needed, image, pictures.picture(row, image))

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        for row in source.table(self.tables):
            columns(row, ("index", "image", "question", "answer", "category"))
            needed = [part.strip() for part in row.text("category").split(",")]
            yield self._item(row, row.text("index"), needed, row.shown.sha256, row.shown)

    def _item(
        self, row: FileRow, id: str, needed: Sequence[str], group: str, picture: Picture
    ) -> Item:
        for one in needed:
            if one not in CAPABILITIES:
                row.refuse(f"the capability {one!r} is none of {', '.join(CAPABILITIES)}")
        if not needed:
            row.refuse("no capability: one at least is needed")
        combination = "_".join(one for one in CAPABILITIES if one in needed)
        question = row.text("question")
        details = {"question": question}
        texts = {"question": question}
        return Item(row, id, group, combination, texts, row.text("answer"), picture, details)

    def _official(self, source: BenchmarkFiles) -> Judging:
        path, examples = source.text(EXAMPLES, SOURCE_OF_EXAMPLES)
        last = examples.rpartition("\n")[2].split(" | ")
        if len(last) != 4 or read_score(last[3]) is None:
            FileRow(path, "the last line", {}).refuse(
                "an example is needed: question | ground truth | prediction | score from 0 to 1"
            )
        return Judging(
            "official", 0.0, 3, {"examples": examples}, partial(messages, examples), read
        )

    def _own(self, source: BenchmarkFiles) -> Judging:
        return Judging(OWN, 0.0, 8, {"prompt": OWN_PROMPT}, own_messages, read)

    judgings: ClassVar = {"official": _official, OWN: _own}

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """All, by capability, by combination."""
        by_capability = {
            one: tuple(type_ for type_ in types if one in type_.split("_")) for one in CAPABILITIES
        }
        combinations = types if len(types) > 1 else []
        return [
            Metric("all", "score", score, (tuple(types),)),
            *(Metric(one, "score", score, (part,)) for one, part in by_capability.items() if part),
            *(Metric(f"only_{type_}", "score", score, ((type_,),)) for type_ in combinations),
        ]
