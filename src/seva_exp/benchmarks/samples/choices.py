"""MMBench, SEED-Bench, ScienceQA and MathVista in small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from seva_exp.benchmarks.letters import lettered
from seva_exp.benchmarks.mmbench import ROTATION
from seva_exp.benchmarks.samples.cases import OPTIONS, ScenePicture, write_json, write_table
from seva_exp.world import QA
from seva_exp.world.language import NUMBERS


def mmbench(root: Path, cases: list[ScenePicture]) -> None:
    """English and Chinese (only its instruction is): every question in its four rotations, whose
    picture column names the first."""
    for name, file in (
        ("mmbench_en", "mmbench_dev_20230712.tsv"),
        ("mmbench_cn", "mmbench_dev_cn_20231003.tsv"),
    ):
        rows = []
        for number, (case, type_, qa, options) in enumerate(_choices(cases[:6])):
            for turn in range(4):
                turned = lettered(options[turn:] + options[:turn])
                letter = next(key for key, text in turned.items() if text == qa.answer)
                row = {
                    "index": number + turn * ROTATION,
                    "question": qa.question,
                    "hint": "" if number % 2 else "Look at the picture,\nthen answer.",
                    **turned,
                    "answer": letter,
                    "category": f"object_{type_}",
                    "l2-category": "spatial" if type_ == "position" else "attribute",
                    "image": number if turn else case.base64,
                }
                rows.append(row)
        write_table(root / name / file, rows)


def seed(root: Path, cases: list[ScenePicture]) -> None:
    """Image questions of three types, and one on a video, which is left out."""
    types = {name: number for number, name in enumerate(OPTIONS, 1)}
    rows = []
    for number, (case, type_, qa, options) in enumerate(_choices(cases)):
        rows.append(
            {
                "question_id": str(number),
                "question": qa.question,
                **{f"choice_{letter.lower()}": text for letter, text in lettered(options).items()},
                "answer": "ABCD"[options.index(qa.answer)],
                "data_type": "image",
                "data_id": f"{case.number:04d}.jpg",
                "question_type_id": types[type_],
            }
        )
        case.write(root / "seed" / "SEED-Bench-image" / f"{case.number:04d}.jpg")
    rows.append(rows[0] | {"question_id": "video", "data_type": "video", "data_id": "v.mp4"})
    write_json(root / "seed" / "SEED-Bench.json", {"questions": rows, "question_type": types})


def scienceqa(root: Path, cases: list[ScenePicture]) -> None:
    """Problems with a picture, and one without, which is left out."""
    subjects = {
        "color": "natural science",
        "kind": "language science",
        "position": "social science",
    }
    problems: dict[str, dict] = {}
    for number, (case, type_, qa, options) in enumerate(_choices(cases), 1):
        problems[str(number)] = {
            "question": qa.question,
            "choices": options,
            "answer": options.index(qa.answer),
            "hint": "",
            "image": "image.png",
            "subject": subjects[type_],
        }
        case.write(root / "scienceqa" / "images" / "test" / str(number) / "image.png")
    problems["0"] = problems["1"] | {"image": None}
    write_json(root / "scienceqa" / "problems.json", problems)
    write_json(root / "scienceqa" / "pid_splits.json", {"test": list(problems)})


def mathvista(root: Path, cases: list[ScenePicture]) -> None:
    """Multiple choices, and counts as whole numbers, which the embedded model spells out."""
    problems: dict[str, dict] = {}

    def add(case: ScenePicture, qa: QA, task: str, **values: object) -> None:
        pid = str(len(problems) + 1)
        image = f"images/{pid}.jpg"
        problems[pid] = {
            "pid": pid,
            "question": qa.question,
            "query": f"Question: {qa.question}",
            "image": image,
            "precision": None,
            "metadata": {"task": task},
            **values,
        }
        case.write(root / "mathvista" / image)

    for case, type_, qa, options in _choices(cases[:6]):
        values = {"choices": options, "answer": qa.answer, "answer_type": "text"}
        add(case, qa, f"{type_} question", question_type="multi_choice", **values)
    for case in cases:
        if counted := case.ask("count"):
            answer = str(NUMBERS.index(counted.answer))
            free = {"choices": None, "answer": answer, "answer_type": "integer"}
            add(case, counted, "counting", question_type="free_form", **free)
    write_json(root / "mathvista" / "testmini.json", problems)


def _choices(cases: list[ScenePicture]) -> Iterator[tuple[ScenePicture, str, QA, list[str]]]:
    """Every multiple-choice question of the pictures."""
    for case in cases:
        for type_ in OPTIONS:
            if found := case.choice(type_):
                yield case, type_, *found
