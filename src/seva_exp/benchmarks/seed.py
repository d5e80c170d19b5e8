"""SEED-Bench (Li et al. 2023, arXiv:2307.16125): the questions on images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

from seva_exp.benchmarks.base import Metric
from seva_exp.benchmarks.choices import Choices
from seva_exp.benchmarks.files import BenchmarkFiles
from seva_exp.benchmarks.official import Item, accuracies
from seva_exp.core.errors import InputError

LETTERS = "abcd"


class SeedBenchmark(Choices):
    """Accuracy over the image questions, and by question type; videos are left out."""

    layout = (("seed/SEED-Bench.json",), ("seed/SEED-Bench-image",))
    tables = ("seed/SEEDBench_IMG.tsv", "SEEDBench_IMG.tsv")
    table_type = "category"
    source = "huggingface.co/datasets/AILab-CVC/SEED-Bench"

    kind: Literal["seed"] = "seed"

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        pictures = source.folder(self.layout[1])
        file, content = source.json(self.layout[0])
        types = content.get("question_type") if isinstance(content, dict) else None
        if not isinstance(types, dict):
            raise InputError(f"{file}: the object 'question_type' is missing.")
        names = {str(number): name for name, number in types.items()}
        seen: Counter[str] = Counter()  # the official file has two questions of the id 49914
        for row in source.in_list(self.layout[0], "questions"):
            if row.one_of("data_type", ("image", "video")) == "video":
                continue
            image = row.text("data_id")
            id = row.text("question_id")
            seen[id] += 1
            yield self.choice(
                row,
                id=id if seen[id] == 1 else f"{id}#{seen[id]}",
                group=image,
                type=names[row.one_of("question_type_id", names)],
                hint="",
                options={letter.upper(): row.text(f"choice_{letter}") for letter in LETTERS},
                answer=row.text("answer").strip(),
                picture=pictures.picture(row, image),
            )

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """All, and by question type."""
        return accuracies(types, unparsed=True)
