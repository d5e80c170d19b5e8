"""AMBER, Object HalBench and POPE's variants in small."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from seva_exp.benchmarks.pope import SPLITS
from seva_exp.benchmarks.samples.cases import ScenePicture, write_json, write_lines
from seva_exp.benchmarks.samples.described import SYNONYMS, synonyms
from seva_exp.benchmarks.samples.yes_no import coco_name, existence_pair
from seva_exp.world.language import NUMBERS, PLAIN_PROMPTS, plural, with_article
from seva_exp.world.scene import COLORS, KINDS, PARTNER, Scene

SAFE = "hoop"
"""A word that AMBER's sample counts as neither right nor wrong."""
Asked = tuple[str, str, bool]
"""(AMBER's type, question, whether it is so)."""


def amber(root: Path, cases: list[ScenePicture]) -> None:
    """A description and yes-or-no questions of all types on each picture: descriptions come first,
    as in the official files."""
    folder = root / "amber"
    queries: list[dict] = []
    annotations: list[dict] = []

    def add(case: ScenePicture, query: str, type_: str, **truth: object) -> None:
        number = len(queries) + 1
        image = f"AMBER_{case.number + 1}.jpg"
        queries.append({"id": number, "image": image, "query": query})
        annotations.append({"id": number, "type": type_, **truth})
        case.write(folder / "image" / image)

    for case in cases:
        there = [thing.kind for thing in case.scene.things]
        partners = [PARTNER[kind] for kind in there if PARTNER[kind] not in there]
        imagined = list(dict.fromkeys(partners))
        add(case, PLAIN_PROMPTS[0], "generative", truth=there, hallu=imagined)
    for case in cases:
        for type_, question, so in _yes_or_no(case):
            add(case, question, type_, truth="yes" if so else "no")
    data = folder / "data"
    write_json(data / "query" / "query_all.json", queries)
    write_json(data / "annotations.json", annotations)
    related = {kind: [SYNONYMS[kind]] if kind in SYNONYMS else [] for kind in KINDS}
    write_json(data / "relation.json", related)
    (data / "safe_words.txt").write_text(SAFE, encoding="utf-8")


def _yes_or_no(case: ScenePicture) -> Iterator[Asked]:
    """One of the scene's existence, state (colour), number, action (place) and relation."""
    scene, rng = case.scene, case.rng("amber")
    so = case.number % 2 == 0
    thing = rng.choice(scene.things)
    there = {other.kind for other in scene.things}
    absent = rng.choice([kind for kind in KINDS if kind not in there])
    for kind in (thing.kind, absent):
        question = f"Is there {with_article(kind)} in the image?"
        yield "discriminative-hallucination", question, kind in there
    for color in (thing.color, _another_color(scene, thing.kind, rng)):
        question = f"Is there {with_article(f'{color} {thing.kind}')} in the image?"
        yield "discriminative-attribute-state", question, color == thing.color
    count = sum(other.kind == thing.kind for other in scene.things) + (not so)
    many = f"Is there one {thing.kind}" if count == 1 else f"Are there {NUMBERS[count]} "
    many += plural(thing.kind) if count > 1 else ""
    yield "discriminative-attribute-number", f"{many} in the image?", so
    side = thing.position.split()[1]
    asked = side if so else {"left": "right", "right": "left"}[side]
    so_too = any(other.kind == thing.kind and asked in other.position for other in scene.things)
    question = f"Is there {with_article(thing.kind)} staying on the {asked} in the image?"
    yield "discriminative-attribute-action", question, so_too
    if found := case.ask("relation"):
        yield "relation", found.question, found.answer == "Yes"


def _another_color(scene: Scene, kind: str, rng: random.Random) -> str:
    """A colour that no thing of this kind has."""
    taken = {thing.color for thing in scene.things if thing.kind == kind}
    return rng.choice([color for color in COLORS if color not in taken])


def object_halbench(root: Path, cases: list[ScenePicture]) -> None:
    """Four ways to ask for a description; the annotations are CHAIR's."""
    rows = [
        {
            "org_idx": place,
            "image_id": case.number,
            "question": PLAIN_PROMPTS[place % len(PLAIN_PROMPTS)],
            "image": case.base64,
        }
        for place, case in enumerate(cases)
    ]
    folder = root / "object_halbench"
    write_lines(folder / "obj_halbench_300_with_image.jsonl", rows)
    (folder / "synonyms_refine.txt").write_text(synonyms(), encoding="utf-8")


def pope_variants(root: Path, cases: list[ScenePicture]) -> None:
    """Two questions a picture and split, as JSON lists."""
    for name in ("aokvqa", "gqa"):
        for split in SPLITS:
            rows: list[dict] = []
            for case in cases:
                gqa = name == "gqa"
                image = f"{case.number}.jpg" if gqa else coco_name(case)
                for question, answer in existence_pair(case, split):
                    row = {"question_id": len(rows) + 1, "image": image, "text": question}
                    rows.append(row | {"label": answer.lower()})
                case.write(root / ("gqa/images" if gqa else "coco/val2014") / image)
            write_json(root / "pope" / f"{name}_pope_seem_{split}.json", rows)
