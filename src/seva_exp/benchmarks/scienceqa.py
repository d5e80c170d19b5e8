"""ScienceQA-IMG (Lu et al. 2022, arXiv:2209.09513): the test questions that have a picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from seva_exp.benchmarks.choices import Choices
from seva_exp.benchmarks.files import BenchmarkFiles
from seva_exp.benchmarks.letters import lettered
from seva_exp.benchmarks.official import Item
from seva_exp.core.errors import InputError
from seva_exp.core.printable import ends


class ScienceqaBenchmark(Choices):
    """Accuracy over the questions with a picture, and by subject."""

    layout = (
        ("scienceqa/problems.json",),
        ("scienceqa/pid_splits.json",),
        ("scienceqa/images/test", "scienceqa/test"),
    )
    tables = ("scienceqa/ScienceQA_TEST.tsv", "ScienceQA_TEST.tsv")
    table_type = "subject"
    source = "github.com/lupantech/ScienceQA"
    tells_unparsed = True

    kind: Literal["scienceqa"] = "scienceqa"

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        problems = dict(source.by_key(self.layout[0]))
        file, splits = source.json(self.layout[1])
        pictures = source.folder(self.layout[2])
        names = splits.get("test") if isinstance(splits, dict) else None
        if not isinstance(names, list):
            raise InputError(f"{file}: the list 'test' is missing.")
        for pid in names:
            if not isinstance(pid, str) or pid not in problems:
                named = ends(repr(pid))
                raise InputError(f"{file}: 'test' names {named}, which problems.json has not.")
            row = problems[pid]
            if not row.maybe("image"):
                continue
            options = lettered(list(row.texts("choices")))
            answer = row.value("answer")
            if type(answer) is not int or not 0 <= answer < len(options):
                row.refuse(f"field 'answer': {answer!r} is no place in the list of choices")
            yield self.choice(
                row,
                id=pid,
                group=pid,
                type=row.maybe("subject") or "all",
                hint=row.maybe("hint"),
                options=options,
                answer=list(options)[answer],
                picture=pictures.picture(row, f"{pid}/{row.text('image')}"),
            )
