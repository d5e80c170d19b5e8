"""CHAIR in small: annotations as COCO's, on the pictures of POPE."""

from __future__ import annotations

from pathlib import Path

from seva_exp.benchmarks.samples.cases import ScenePicture, write_json
from seva_exp.benchmarks.samples.yes_no import coco_name
from seva_exp.world import describe
from seva_exp.world.scene import KINDS

SYNONYMS = {"circle": "disc", "square": "box", "moon": "crescent", "ring": "hoop"}
CAPTIONS = 5


def chair(root: Path, cases: list[ScenePicture]) -> None:
    """The scenes' things as annotated objects, their descriptions as captions."""
    annotations, captions = [], []
    for case in cases:
        kinds = [KINDS.index(thing.kind) + 1 for thing in case.scene.things]
        annotations += [{"image_id": case.number, "category_id": kind} for kind in kinds]
        caption = {"image_id": case.number, "caption": describe(case.scene)}
        captions += [caption] * CAPTIONS
        case.write(root / "coco/val2014" / coco_name(case))
    images = [{"id": case.number, "file_name": coco_name(case)} for case in cases]
    categories = [{"id": i, "name": kind} for i, kind in enumerate(KINDS, 1)]
    folder = root / "coco" / "annotations"
    instances = {"images": images, "categories": categories, "annotations": annotations}
    write_json(folder / "instances_val2014.json", instances)
    write_json(folder / "captions_val2014.json", {"images": images, "annotations": captions})
    (root / "chair").mkdir(parents=True, exist_ok=True)
    (root / "chair" / "synonyms.txt").write_text(synonyms(), encoding="utf-8")


def synonyms() -> str:
    """The file of synonyms: a line a kind."""
    lines = (", ".join(filter(None, (kind, SYNONYMS.get(kind)))) for kind in KINDS)
    return "\n".join(lines) + "\n"
