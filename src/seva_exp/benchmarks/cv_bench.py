"""CV-Bench (Tong et al. 2024, Cambrian-1, arXiv:2406.16860): counting and places in the plane,
depth and distance in space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from seva_exp.benchmarks.base import Metric, accuracy
from seva_exp.benchmarks.choices import TABLE_COLUMNS, Choices
from seva_exp.benchmarks.files import BenchmarkFiles, FileRow, Picture, columns
from seva_exp.benchmarks.letters import lettered
from seva_exp.benchmarks.official import UNPARSED, Item
from seva_exp.core.spec import Json

SOURCES = {"2D": ("ADE20K", "COCO"), "3D": ("Omni3D",)}
BETWEEN = ": "


class CvBenchBenchmark(Choices):
    """2D is the mean of its two sources' accuracies, 3D its source's, and all the mean of both (the
    data card's formula). Both files are needed."""

    layout = (
        ("cv_bench/test_2d.jsonl", "CV-Bench/test_2d.jsonl"),
        ("cv_bench/test_3d.jsonl", "CV-Bench/test_3d.jsonl"),
        ("cv_bench/img", "CV-Bench/img"),
    )
    tables = ("cv_bench/CV-Bench-2D.tsv", "CV-Bench-2D.tsv")
    source = (
        "huggingface.co/datasets/nyu-visionx/CV-Bench (test_2d.jsonl, test_3d.jsonl, img/), or "
        "both CV-Bench-2D.tsv and CV-Bench-3D.tsv"
    )
    placeholders = (*Choices.placeholders, "prompt")

    kind: Literal["cv_bench"] = "cv_bench"

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        pictures = source.folder(self.layout[2])
        for dimension, file in zip(SOURCES, self.layout, strict=False):
            for row in source.lines(file):
                image = row.picture("filename")
                choices = list(row.texts("choices"))
                if len(choices) < 2:
                    row.refuse("field 'choices': two at least are needed")
                picture, task = pictures.picture(row, image), row.text("task")
                options, id = lettered(choices), row.text("idx")
                yield self._item(row, dimension, id, image, task, options, picture)

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        for dimension in SOURCES:
            for row in source.table([name.replace("2D", dimension) for name in self.tables]):
                columns(row, (*TABLE_COLUMNS, "source"))
                task = row.maybe("task") or row.maybe("category") or "all"
                id, options = f"{dimension}-{row.text('index')}", self.table_options(row)
                picture = row.shown
                yield self._item(row, dimension, id, picture.sha256, task, options, picture)

    def _item(
        self,
        row: FileRow,
        dimension: str,
        id: str,
        group: str,
        task: str,
        options: dict[str, str],
        picture: Picture,
    ) -> Item:
        found = self.choice(
            row,
            id=id,
            group=group,
            type=f"{row.one_of('source', SOURCES[dimension])}{BETWEEN}{task}",
            hint="",
            options=options,
            answer=row.text("answer").strip().strip("()"),
            picture=picture,
        )
        needed = "prompt" in self.rules_of_protocol.placeholders()
        prompt = row.text("prompt") if needed else row.maybe("prompt")
        return replace(found, texts=found.texts | {"prompt": prompt})

    def table_row(self, item: Item) -> Json:
        """VLMEvalKit scores both dimensions apart, 2D by source."""
        name, _, task = item.type.partition(BETWEEN)
        dimension = next(one for one, names in SOURCES.items() if name in names)
        own = {"split": dimension, "source": name, "task": task, "prompt": item.texts["prompt"]}
        return own | super().table_row(item)

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """All, both dimensions, sources, tasks."""
        of_source: dict[str, tuple[str, ...]] = {}
        of_task: dict[str, tuple[str, ...]] = {}
        for type_ in types:
            name, _, task = type_.partition(BETWEEN)
            of_source[name] = (*of_source.get(name, ()), type_)
            of_task[task] = (*of_task.get(task, ()), type_)
        parts = {
            dimension: tuple(of_source[name] for name in names)
            for dimension, names in SOURCES.items()
            if all(name in of_source for name in names)
        }
        found = []
        if len(parts) == len(SOURCES):  # 3D twice: it weighs as much as both sources of 2D
            both = (*parts["2D"], *parts["3D"], *parts["3D"])
            found.append(Metric("all", "accuracy", accuracy, both))
        found += [Metric(name, "accuracy", accuracy, some) for name, some in parts.items()]
        for one in (of_source, of_task):
            found += [Metric(name, "accuracy", accuracy, (some,)) for name, some in one.items()]
        return [*found, Metric("all", "unparsed", UNPARSED, (tuple(types),), "lower")]
