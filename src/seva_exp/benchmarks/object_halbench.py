"""Object HalBench (Rohrbach et al. 2018, arXiv:1809.02156, as RLHF-V asks it: Yu et al. 2023,
arXiv:2312.00849): 300 pictures of COCO val2014, eight ways to ask for a description, CHAIR.

The official script lets GPT list the objects of a description and looks those up among the
synonyms. Here rules find them as in CHAIR, which the protocol's name says (``+rules``); or a judge
lists them, asked in words of our own (the official prompt is part of its authors' code,
github.com/RLHF-V/RLAIF-V, eval/eval_gpt_obj_halbench.py).
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import ClassVar, Literal

from seva_exp.benchmarks.base import Metric, Question, ratio
from seva_exp.benchmarks.chair import READERS, annotated, objects_of
from seva_exp.benchmarks.files import BenchmarkFiles, Candidates, FileRow
from seva_exp.benchmarks.guards import Guards
from seva_exp.benchmarks.judging import OWN, Judging, Messages
from seva_exp.benchmarks.mentions import (
    DESCRIBE,
    MENTION_GUARDS,
    mention_counts,
    mention_metrics,
)
from seva_exp.benchmarks.official import Item, Official, Rule, Scored
from seva_exp.benchmarks.tsv import TablePicture, held_picture
from seva_exp.core.records import Prediction
from seva_exp.core.spec import Json

FOUND_BY_RULES = "+rules"
"""In a protocol's name: no judge lists the objects."""
OWN_PROMPT = """\
Below are a request for a description of a picture and what somebody wrote. List the physical \
objects, people and animals that the text says are to be seen, each once, in the singular, without \
colour, material or number. What the text denies or only supposes is not to be seen. Correct \
nothing.

Asked: {question}
Written: {answer}

Reply with a JSON list of strings and nothing else, such as ["dog", "traffic light"]; [] where \
nothing is named."""


def counted(objects: Sequence[str], details: Json, text: str) -> Scored:
    """The objects that are mentioned against those that are there."""
    counts = mention_counts(objects, details["there"], text)
    counts["names_any"] = float(bool(objects))
    return Scored(", ".join(objects), 1 - counts["any_wrong"], counts)


def by_rules(text: str, target: str, details: Json) -> Scored:
    """Objects by the synonyms, every mention one."""
    return counted(details["objects"].mentions(text), details, text)


def listed(reply: str) -> list[str] | None:
    """The JSON list of strings that a reply ends with, each once; None: there is none."""
    start, end = reply.rfind("["), reply.rfind("]")
    try:
        found = json.loads(reply[start : end + 1]) if 0 <= start < end else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        return None
    return list(dict.fromkeys(one.strip().lower() for one in found))


def read(reply: str, question: Question, prediction: Prediction) -> Scored | None:
    """The objects that a judge lists, by the synonyms: what is none of COCO's is passed over."""
    names = listed(reply)
    if names is None:
        return None
    objects = question.details["objects"]
    found = [mention for name in names for mention in objects.mentions(name)]
    return counted(found, question.details, prediction.text)


def messages(asked: Question, prediction: Prediction) -> Messages | None:
    """The question of ``OWN_PROMPT``; None where nothing was said."""
    if not prediction.text.strip():
        return None
    filled = OWN_PROMPT.format(question=asked.prompt, answer=prediction.text)
    return (("user", filled),)


def with_pictures(
    source: BenchmarkFiles, candidates: Candidates
) -> Iterator[tuple[FileRow, TablePicture]]:
    """The objects of a file of one a line, whose ``image`` holds the picture in base64: without it,
    and the picture as the place where it stands."""
    path, at = source.need(candidates), 0
    rows = source.lines(candidates)
    first = next(rows)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        for row in chain([first], rows):
            image = row.text("image")
            spelled = (image.encode(), image.replace("/", "\\/").encode())
            found = ((whole.find(one, at), one) for one in spelled)
            start, written = next((pair for pair in found if pair[0] >= 0), (-1, b""))
            if start < 0:
                row.refuse("field 'image': no picture as base64")
            at = start + len(written)
            picture = held_picture(whole, (start, at), path, row.place)
            values = {name: value for name, value in row.values.items() if name != "image"}
            yield FileRow(path, row.place, values), picture


class ObjectHalbenchBenchmark(Official):
    """A description of each picture: CHAIR by mention and by description, also among those that
    name any object (the official "response" rate), recall and words."""

    layout = (
        (
            "object_halbench/obj_halbench_300_with_image.jsonl",
            "object_halbench/eval/data/obj_halbench_300_with_image.jsonl",
        ),
        ("coco/annotations/instances_val2014.json",),
        ("coco/annotations/captions_val2014.json",),
        ("object_halbench/synonyms_refine.txt", "object_halbench/eval/data/synonyms_refine.txt"),
    )
    source = "github.com/RLHF-V/RLAIF-V, eval/data; COCO 2014 (cocodataset.org)"
    rules: ClassVar[Mapping[str, Rule]] = dict.fromkeys(READERS, by_rules)
    judgings: ClassVar = {
        OWN: lambda self, source: Judging(OWN, 0.0, 512, {"prompt": OWN_PROMPT}, messages, read)
    }
    guards: ClassVar[Guards] = {**MENTION_GUARDS, "chair_s_refine": ("recall", "words")}
    kind: Literal["object_halbench"] = "object_halbench"

    @property
    def plain_protocol(self) -> str:
        return super().plain_protocol + FOUND_BY_RULES

    @property
    def protocol_judged(self) -> str:
        return self.protocol_name.replace(FOUND_BY_RULES, "", 1)

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        objects = objects_of(source, self.layout[3], self.rules_of_protocol.rule)
        there = annotated(source, objects, self.layout[1:])
        known = {row.text("id") for row in source.in_list(self.layout[1], "images")}
        for row, picture in with_pictures(source, self.layout[0]):
            id = row.text("image_id")
            if id not in known:
                row.refuse(f"instances_val2014.json has no picture {id!r}")
            found = tuple(sorted(there.get(id, ())))
            texts = {"question": row.text("question")}
            details = {"objects": objects, "there": found}
            yield Item(row, id, id, DESCRIBE, texts, ", ".join(found), picture, details)

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """CHAIR's, and the share with made-up objects among the descriptions that name any."""
        refined = ratio("any_wrong", "names_any")
        mentions, descriptions, *rest = mention_metrics("all")
        response = Metric("all", "chair_s_refine", refined, ((DESCRIBE,),), "lower")
        return [mentions, descriptions, response, *rest]
