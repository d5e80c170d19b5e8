"""POPE and MME in small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from seva_exp.benchmarks.mme import COGNITION, PERCEPTION, SUFFIX
from seva_exp.benchmarks.pope import SPLITS
from seva_exp.benchmarks.samples.cases import ScenePicture, write_lines
from seva_exp.world import existence


def coco_name(case: ScenePicture) -> str:
    """The name of the picture's file, as COCO has them."""
    return f"COCO_val2014_{case.number:012d}.jpg"


def pope(root: Path, cases: list[ScenePicture]) -> None:
    """Two questions a picture and split."""
    for split in SPLITS:
        rows: list[dict] = []
        for case in cases:
            for question, answer in existence_pair(case, split):
                row = {"question_id": len(rows) + 1, "image": coco_name(case), "text": question}
                rows.append(row | {"label": answer.lower()})
            case.write(root / "coco/val2014" / coco_name(case))
        write_lines(root / "pope" / f"coco_pope_{split}.json", rows)


def mme(root: Path, cases: list[ScenePicture]) -> None:
    """Two pictures a category: half of the categories in the release's one layout, half in the
    other. All ask what is there."""
    base = root / "mme" / "MME_Benchmark_release_version"
    for place, category in enumerate((*PERCEPTION, *COGNITION)):
        deep = place % 2
        for case in (cases[place % len(cases)], cases[(place + 1) % len(cases)]):
            name = f"{case.number:04d}"
            questions = existence_pair(case, SPLITS[place % 3])
            lines = [f"{question} {SUFFIX}\t{answer}\n" for question, answer in questions]
            case.write(base / category / ("images" if deep else "") / f"{name}.jpg")
            file = base / category / ("questions_answers_YN" if deep else "") / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(lines), encoding="utf-8")


def existence_pair(case: ScenePicture, split: str) -> Iterator[tuple[str, str]]:
    """Two questions on what is there, with their answers: Yes, then No."""
    rng = case.rng(f"existence-{split}")
    for want in (True, False):
        qa = existence(case.scene, rng, want, split)
        yield qa.question, qa.answer
