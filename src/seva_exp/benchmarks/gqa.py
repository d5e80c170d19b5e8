"""GQA (Hudson and Manning 2019, arXiv:1902.09506): testdev balanced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from string import punctuation
from typing import ClassVar, Literal

from seva_exp.benchmarks.files import BenchmarkFiles, columns
from seva_exp.benchmarks.official import Item, Official, Rule, Scored, right_or_wrong
from seva_exp.core.spec import Json

_PUNCTUATION = str.maketrans("", "", punctuation)


def without_stop(text: str) -> str:
    """The form that ``exact`` compares."""
    return text.strip().rstrip(".").lower()


def exact(text: str, target: str, details: Json) -> Scored:
    """LLaVA-1.5 (convert_gqa_for_eval.py) and the official eval.py: full stops at the end dropped,
    lower case, equal."""
    answer = without_stop(text)
    return right_or_wrong(answer, answer == target)


def ignoring_punctuation(text: str, target: str, details: Json) -> Scored:
    """lmms-eval: equal but for case and ASCII punctuation."""
    answer, wanted = (one.lower().translate(_PUNCTUATION) for one in (text.strip(), target))
    return right_or_wrong(answer, answer == wanted)


def stripped(text: str, target: str, details: Json) -> Scored:
    """VLMEvalKit: equal but for case and outer blanks."""
    answer = text.strip().lower()
    return right_or_wrong(answer, answer == target.strip().lower())


class GqaBenchmark(Official):
    """Accuracy over all questions, and by their structure."""

    layout = (("gqa/testdev_balanced_questions.json",), ("gqa/images", "gqa/data/images"))
    tables = ("gqa/GQA_TestDev_Balanced.tsv", "GQA_TestDev_Balanced.tsv")
    source = "cs.stanford.edu/people/dorarad/gqa (questions 1.2, images)"
    rules: ClassVar[Mapping[str, Rule]] = {
        "exact": exact,
        "ignoring_punctuation": ignoring_punctuation,
        "stripped": stripped,
    }

    kind: Literal["gqa"] = "gqa"

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        pictures = source.folder(self.layout[1])
        for name, row in source.by_key(self.layout[0]):
            image = row.text("imageId")
            types = row.values.get("types")
            structure = types.get("structural") if isinstance(types, dict) else None
            yield Item(
                row,
                id=name,
                group=image,
                type=str(structure or "all"),
                texts={"question": row.text("question")},
                target=row.text("answer"),
                picture=pictures.picture(row, f"{image}.jpg"),
            )

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        for row in source.table(self.tables):
            columns(row, ("index", "image", "question", "answer"))
            yield Item(
                row,
                id=row.text("index"),
                group=row.shown.sha256,
                type="all",
                texts={"question": row.text("question")},
                target=row.text("answer"),
                picture=row.shown,
            )
