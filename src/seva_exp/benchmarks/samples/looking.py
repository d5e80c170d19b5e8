"""HallusionBench, NaturalBench, MMStar, MMVP, CV-Bench and MMHal-Bench in small."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from seva_exp.benchmarks.cv_bench import SOURCES
from seva_exp.benchmarks.letters import lettered, listing
from seva_exp.benchmarks.mmhal import TYPES
from seva_exp.benchmarks.samples.cases import (
    OPTIONS,
    ScenePicture,
    write_json,
    write_lines,
    write_table,
)
from seva_exp.world import describe
from seva_exp.world.language import NUMBERS, with_article
from seva_exp.world.scene import KINDS

RATED = """\
Rate the response: 6 is best, below 3 it makes something up.

### Image Contents
{}

### Question
{}

### Standard Human-Generated Answer
{}

### LMM Response to Evaluate
{}
"""


def _there(case: ScenePicture) -> set[str]:
    return {thing.kind for thing in case.scene.things}


def _is_there(kind: str) -> str:
    return f"Is there {with_article(kind)} in the image?"


def _crossed(cases: list[ScenePicture]) -> Iterator[tuple[ScenePicture, ScenePicture, str, str]]:
    """Pairs of pictures, each with a kind of thing that the other has not."""
    for one, other in combinations(cases, 2):
        here, there = sorted(_there(one) - _there(other)), sorted(_there(other) - _there(one))
        if here and there:
            yield one, other, here[0], there[0]


def hallusionbench(root: Path, cases: list[ScenePicture]) -> None:
    """Figures and changed ones (another scene) with the same two questions; questions on a figure
    that are asked without it, too."""
    rows: list[dict] = []
    folder = root / "hallusionbench"

    def add(place: tuple[str, str, int, int], kinds: list[str], case: ScenePicture | None) -> None:
        category, sub, set_id, figure = place
        name = f"./{category}/{sub}/{set_id}_{figure}.png" if case else None
        for number, kind in enumerate(kinds):
            true = case is not None and kind in _there(case)
            rows.append(
                {
                    "category": category,
                    "subcategory": sub,
                    "visual_input": str(0 if case is None else 1 + (figure > 0)),
                    "set_id": str(set_id),
                    "figure_id": str(figure),
                    "sample_note": "world",
                    "question_id": str(number),
                    "question": _is_there(kind),
                    "gt_answer_details": f"There is {'' if true else 'no '}{kind}.",
                    "gt_answer": str(int(true)),
                    "filename": name,
                }
            )
        if case and name:
            case.write(folder / "hallusion_bench" / name)

    for set_id, (one, other, here, there) in enumerate(list(_crossed(cases))[:40:5]):
        sub = ("figure", "illusion")[set_id % 2]
        for figure, case in enumerate((one, other)):
            add(("VD", sub, set_id, figure), [here, there], case)
    for set_id, case in enumerate(cases[:4]):
        kinds = [sorted(_there(case))[0], next(k for k in KINDS if k not in _there(case))]
        add(("VS", "table", set_id, 0), kinds, None)
        add(("VS", "table", set_id, 1), kinds, case)
    write_json(folder / "HallusionBench.json", rows)


def naturalbench(root: Path, cases: list[ScenePicture]) -> None:
    """Ten groups of yes-or-no questions and one of choices."""
    rows: list[dict] = []
    groups = list(_crossed(cases))[::4][:11]
    for number, (one, other, here, there) in enumerate(groups):
        chosen = number == len(groups) - 1
        first, second = ("A", "B") if chosen else ("Yes", "No")
        suffix = " Option: A: yes; B: no;" if chosen else ""
        for kind, answers in ((here, (first, second)), (there, (second, first))):
            for case, answer in zip((one, other), answers, strict=True):
                row = {"index": len(rows), "question": _is_there(kind) + suffix, "answer": answer}
                row["type"] = "multiple_choice" if chosen else "yes_no"
                rows.append(row | {"image": case.base64})
    write_table(root / "naturalbench" / "NaturalBenchDataset.tsv", rows)


def mmstar(root: Path, cases: list[ScenePicture]) -> None:
    """Three of the six categories, each with one part."""
    parts = {
        "color": ("fine-grained perception", "recognition"),
        "kind": ("instance reasoning", "single-instance reasoning"),
        "position": ("fine-grained perception", "localization"),
    }
    rows: list[dict] = []
    for case in cases:
        for type_ in OPTIONS:
            if found := case.choice(type_):
                qa, options = found
                letter = "ABCD"[options.index(qa.answer)]
                category, part = parts[type_]
                row = {"index": len(rows), "question": qa.question, **lettered(options)}
                row |= {"answer": letter, "category": category, "l2_category": part}
                rows.append(row | {"bench": "world", "image": case.base64})
    write_table(root / "mmstar" / "MMStar.tsv", rows)


def mmvp(root: Path, cases: list[ScenePicture]) -> None:
    """Twelve pairs of pictures, asked for what one of them shows; the header begins as the
    release's."""
    lines = ["lndex,Question,Options,Correct Answer"]
    for one, other, here, _ in list(_crossed(cases))[::4][:12]:
        for case, letter in ((one, "(a)"), (other, "(b)")):
            number = len(lines)
            lines.append(f'{number},"{_is_there(here)}",(a) Yes (b) No,{letter}')
            case.write(root / "mmvp" / "MMVP Images" / f"{number}.jpg")
    (root / "mmvp" / "Questions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def cv_bench(root: Path, cases: list[ScenePicture]) -> None:
    """Counts and places as of two sources; colours stand in for depth and distance."""
    folder = root / "cv_bench"
    tasks = {"ADE20K": "Count", "COCO": "Relation", "Omni3D": "Depth"}
    asked = {"Count": "count", "Relation": "position", "Depth": "color"}
    number = 0
    for dimension, sources in SOURCES.items():
        rows = []
        for source in sources:
            task = tasks[source]
            for case in cases:
                if not (found := _with_choices(case, asked[task])):
                    continue
                question, options, answer = found
                name = f"{dimension}/{source.lower()}/{case.number:04d}.png"
                letters = lettered(options)
                rows.append(
                    {
                        "idx": number,
                        "type": dimension,
                        "task": task,
                        "question": question,
                        "choices": options,
                        "answer": f"({'ABCDEF'[options.index(answer)]})",
                        "prompt": f"{question} Select from the following choices.\n"
                        + listing(letters),
                        "filename": name,
                        "source": source,
                    }
                )
                number += 1
                case.write(folder / "img" / name)
        write_lines(folder / f"test_{dimension.lower()}.jsonl", rows)


def _with_choices(case: ScenePicture, type_: str) -> tuple[str, list[str], str] | None:
    if type_ != "count":
        found = case.choice(type_)
        return (found[0].question, found[1], found[0].answer) if found else None
    qa = case.ask(type_)
    return (qa.question, list(NUMBERS), qa.answer) if qa else None


def mmhal(root: Path, cases: list[ScenePicture]) -> None:
    """A description, a colour, a count ... of the eight types in turn."""
    rows = []
    for number, case in enumerate(cases):
        qa = case.ask(("color", "count", "position")[number % 3])
        question = qa.question if qa else "Describe the image."
        image = f"{case.number:016x}"
        things = [f"{thing.color} {thing.kind}" for thing in case.scene.things]
        rows.append(
            {
                "question_type": TYPES[number % len(TYPES)],
                "question_topic": "world",
                "image_id": image,
                "image_src": f"https://example.org/{image}_o.jpg",
                "image_content": things,
                "question": question,
                "gt_answer": qa.answer if qa else describe(case.scene),
                "model_answer": "",
            }
        )
        case.write(root / "mmhal" / "images" / f"{image}_o.jpg")
    write_json(root / "mmhal" / "response_template.json", rows)
    (root / "mmhal" / "judge_prompt.txt").write_text(RATED, encoding="utf-8")
