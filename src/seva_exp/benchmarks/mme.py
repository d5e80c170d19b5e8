"""MME (Fu et al. 2023, arXiv:2306.13394): two yes-or-no questions a picture, 14 categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from seva_exp.benchmarks.base import Metric, Totals
from seva_exp.benchmarks.files import BenchmarkFiles, FileRow, Picture, columns
from seva_exp.benchmarks.official import Item, Official, Rule, Scored, right_or_wrong
from seva_exp.benchmarks.yes_no import beginning, beginning_or_initial, exact, one_of_both
from seva_exp.core.errors import InputError
from seva_exp.core.spec import Json

if TYPE_CHECKING:
    import numpy as np

PERCEPTION = (
    "existence", "count", "position", "color", "posters",
    "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = (
    "commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning",
)  # fmt: skip
SUFFIX = "Please answer yes or no."
"""How the official questions end; LLaVA-1.5 and lmms-eval put their own instruction there."""


def scored(read: Callable[[str], str], text: str, target: str, details: Json) -> Scored:
    """Right, wrong, or neither yes nor no."""
    answer = read(text)
    return right_or_wrong(answer, answer == target, bool(answer))


def score(sums: Totals) -> np.ndarray:
    """accuracy + accuracy+: right answers, and pictures both of whose answers are right, each in
    percent (at most 200)."""
    return 100 * (sums("correct") / sums("asked") + sums.whole("correct") / sums.groups())


class MmeBenchmark(Official):
    """A category's score is accuracy + accuracy+; perception adds up 10 categories, cognition 4.
    A sum needs all of its categories."""

    layout = (("mme/MME_Benchmark_release_version", "MME_Benchmark_release_version"),)
    tables = ("mme/MME.tsv", "MME.tsv")
    source = "github.com/BradyFU/Awesome-Multimodal-Large-Language-Models, branch Evaluation"
    rules: ClassVar[Mapping[str, Rule]] = {
        "beginning": partial(scored, beginning),
        "beginning_or_initial": partial(scored, beginning_or_initial),
        "exact": partial(scored, exact),
        "one_of_both": partial(scored, one_of_both),
    }
    placeholders = ("question", "full_question")

    kind: Literal["mme"] = "mme"

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        for category in (*PERCEPTION, *COGNITION):
            names = [f"{base}/{category}" for base in self.layout[0]]
            if not (folder := source.find(names)):
                continue
            deep = source.find([f"{name}/questions_answers_YN" for name in names])
            texts = deep or folder
            pictures = source.folder([f"{name}/images" for name in names] if deep else names)
            stems = pictures.by_stem()
            if not (files := sorted(texts.glob("*.txt"))):
                raise InputError(
                    f"{texts}: holds no .txt, so the category {category} has no questions. Get the "
                    "folder again, or take it away."
                )
            for file in files:
                for number, row in enumerate(source.tabbed(file, ("question", "answer")), 1):
                    if file.stem not in stems:
                        row.refuse(f"missing picture: no {file.stem}.* in {str(pictures.path)!r}")
                    image = pictures.picture(row, stems[file.stem])
                    group = f"{category}/{file.stem}"
                    yield self._item(row, f"{group}/{number}", group, category, image)

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        for row in source.table(self.tables):
            columns(row, ("index", "image", "question", "answer", "category"))
            category = row.one_of("category", (*PERCEPTION, *COGNITION))
            group = f"{category}/{row.maybe('image_path') or row.shown.sha256}"
            yield self._item(row, row.text("index"), group, category, row.shown)

    def _item(self, row: FileRow, id: str, group: str, category: str, picture: Picture) -> Item:
        question = row.text("question")
        texts = {
            "full_question": question,
            "question": question.strip().removesuffix(SUFFIX).strip(),
        }
        answer = row.one_of("answer", ("Yes", "No", "yes", "no")).lower()
        return Item(row, id, group, category, texts, answer, picture)

    def table_row(self, item: Item) -> Json:
        """VLMEvalKit tells pictures by their path and writes Yes and No."""
        row = {"image_path": item.group, **super().table_row(item)}
        return row | {"answer": item.target.capitalize()}

    def verify(self, items: Sequence[Item]) -> None:
        """Every picture has its two questions."""
        questions = Counter(item.group for item in items)
        for item in items:
            if questions[item.group] != 2:
                raise InputError(
                    f"{item.row.file}: {item.row.place}: the picture {item.group!r} has "
                    f"{questions[item.group]} questions, MME has 2 each."
                )

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """The two sums, then each category."""
        sums = [
            Metric(split, "score", score, tuple((name,) for name in names), total=True, share=False)
            for split, names in (("perception", PERCEPTION), ("cognition", COGNITION))
        ]
        known = [name for name in (*PERCEPTION, *COGNITION) if name in types]
        return sums + [Metric(name, "score", score, ((name,),), share=False) for name in known]
