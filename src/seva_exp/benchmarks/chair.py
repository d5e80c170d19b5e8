"""CHAIR (Rohrbach et al. 2018, arXiv:1809.02156): objects that a description makes up.

Pictures are drawn from COCO val2014. An object is there if it is annotated, or if one of the five
people who described the picture mentions it. The synonyms are the official file's. Which words of a
text are objects is a protocol's rule: ``chair`` counts as the published script does, oddities
included, ``chair_fixed`` as a reader would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from seva_exp.benchmarks.base import Metric
from seva_exp.benchmarks.coco_objects import Objects, read_synonyms
from seva_exp.benchmarks.coco_published import PublishedObjects
from seva_exp.benchmarks.files import BenchmarkFiles, Candidates, indexed
from seva_exp.benchmarks.guards import Guards
from seva_exp.benchmarks.mentions import (
    DESCRIBE,
    MENTION_GUARDS,
    mention_counts,
    mention_metrics,
)
from seva_exp.benchmarks.official import Item, Official, Rule, Scored
from seva_exp.core.errors import InputError
from seva_exp.core.randomness import python_rng
from seva_exp.core.spec import Json

READERS: dict[str, Callable[[str], Objects | PublishedObjects]] = {
    "chair": PublishedObjects.read,
    "chair_fixed": read_synonyms,
}
"""How each rule finds objects, from the text of the synonyms' file."""


def chair(text: str, target: str, details: Json) -> Scored:
    """The objects that are mentioned against those that are there."""
    mentioned = details["objects"].mentions(text)
    counts = mention_counts(mentioned, details["there"], text)
    return Scored(", ".join(mentioned), 1 - counts["any_wrong"], counts)


def objects_of(
    source: BenchmarkFiles, synonyms: Candidates, rule: str
) -> Objects | PublishedObjects:
    """The objects of a file of synonyms, as a rule finds them."""
    path, text = source.text(synonyms)
    if not text.strip(" ,\r\n"):
        raise InputError(f"{path}: holds no synonyms.")
    return READERS[rule](text)


def annotated(
    source: BenchmarkFiles, objects: Objects | PublishedObjects, layout: Sequence[Candidates]
) -> dict[str, set[str]]:
    """The objects of each picture, by its id: those of COCO's instances and those that its captions
    name. ``layout`` begins with instances, captions, synonyms."""
    instances, captions, synonyms = layout[:3]
    categories = {}
    for row in source.in_list(instances, "categories"):
        name = row.text("name")
        if name not in objects.names:
            row.refuse(f"the category {name!r} is not in {synonyms[0]}")
        categories[row.text("id")] = objects.names[name]
    there: dict[str, set[str]] = {}
    for row in source.in_list(instances, "annotations"):
        name = categories[row.one_of("category_id", categories)]
        there.setdefault(row.text("image_id"), set()).add(name)
    for row in source.in_list(captions, "annotations"):
        named = objects.mentions(row.text("caption"))
        there.setdefault(row.text("image_id"), set()).update(named)
    return there


class ChairBenchmark(Official):
    """A description of each picture. The draw is part of the protocol's name: other pictures give
    other numbers."""

    layout = (
        ("coco/annotations/instances_val2014.json",),
        ("coco/annotations/captions_val2014.json",),
        ("chair/synonyms.txt",),
        ("coco/val2014",),
    )
    source = "COCO 2014 (cocodataset.org); github.com/LisaAnne/Hallucination, data/synonyms.txt"
    rules: ClassVar[Mapping[str, Rule]] = dict.fromkeys(READERS, chair)
    placeholders = ()

    guards: ClassVar[Guards] = MENTION_GUARDS
    kind: Literal["chair"] = "chair"
    images: int = Field(500, ge=1)
    """Pictures that are drawn; papers take 500."""
    seed: int = Field(0, ge=0)
    """Seed of the draw, apart from the run's."""

    @property
    def plain_protocol(self) -> str:
        return f"{super().plain_protocol}+{self.images}.seed{self.seed}"

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        objects = objects_of(source, self.layout[2], self.rules_of_protocol.rule)
        there = annotated(source, objects, self.layout)
        pictures = source.folder(self.layout[3])
        rows = indexed(source.in_list(self.layout[0], "images"), "id")
        names = sorted(rows)
        rng = python_rng(self.seed, "chair-benchmark", "draw")
        for name in sorted(rng.sample(names, min(self.images, len(names)))):
            row = rows[name]
            file = row.picture("file_name")
            found = sorted(there.get(name, ()))
            yield Item(
                row,
                id=name,
                group=file,
                type=DESCRIBE,
                texts={},
                target=", ".join(found),
                picture=pictures.picture(row, file),
                details={"objects": objects, "there": tuple(found)},
            )

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """CHAIRi, CHAIRs, recall, words."""
        return mention_metrics("all")
