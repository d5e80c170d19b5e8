"""MM-Vet, LLaVA-Bench and SHR in small, with judge prompts of our own in the official files'
forms."""

from __future__ import annotations

from pathlib import Path

from seva_exp.benchmarks.llava_bench import CATEGORIES
from seva_exp.benchmarks.samples.cases import ScenePicture, write_json, write_lines
from seva_exp.world import describe

NEEDED = {"color": ["rec"], "count": ["rec", "math"], "position": ["spat", "rec"]}
"""What a question of the world needs, in MM-Vet's words."""
EXAMPLES = """\
Score how much of the ground truth each prediction holds: 0.0 is nothing, 1.0 is all of it; <AND> \
joins what is needed, <OR> what is enough. Complete the last row with its score and nothing else.

Question | Ground truth | Prediction | Correctness
--- | --- | --- | ---
What color is the circle? | Red. | It is a red circle. | 1.0
What color is the circle? | Red. | Blue. | 0.0
What is there? | a ring <AND> a star | A ring. | 0.5
"""
RULE = {
    "role": "Assistant",
    "prompt": "Score both answers from 1 to 10 by the context. Write the two scores on the first "
    "line, with a blank between them.",
}


def mmvet(root: Path, cases: list[ScenePicture]) -> None:
    """Colours, counts and places."""
    rows: dict[str, dict] = {}
    for case in cases:
        name = f"v1_{case.number}.jpg"
        for type_, needed in NEEDED.items():
            if qa := case.ask(type_):
                row = {"imagename": name, "question": qa.question, "answer": qa.answer}
                rows[f"v1_{len(rows)}"] = row | {"capability": needed}
        case.write(root / "mmvet" / "images" / name)
    write_json(root / "mmvet" / "mm-vet.json", rows)
    (root / "mmvet" / "judge_prompt.txt").write_text(EXAMPLES, encoding="utf-8")


def llava_bench(root: Path, cases: list[ScenePicture]) -> None:
    """A question on a colour, a description, a relation; the true answers stand in for GPT-4's."""
    folder = root / "llava_bench"
    questions: list[dict] = []
    answers: list[dict] = []
    for case in cases:
        name = f"{case.number:03d}.jpg"
        color, relation = case.ask("color"), case.ask("relation")
        conversations = [
            ("conv", color.question, color.answer) if color else None,
            ("detail", "Describe the image.", describe(case.scene)),
            ("complex", relation.question, relation.answer) if relation else None,
        ]
        for category, question, answer in filter(None, conversations):
            id = len(questions)
            row = {"question_id": id, "image": name, "category": category, "text": question}
            questions.append(row)
            answers.append({"question_id": id, "prompt": question, "text": answer})
        case.write(folder / "images" / name)
    contexts = [
        {"id": case.number, "image": f"{case.number:03d}.jpg", "caption": describe(case.scene)}
        for case in cases
    ]
    write_lines(folder / "questions.jsonl", questions)
    write_lines(folder / "context.jsonl", contexts)
    write_lines(folder / "answers_gpt4.jsonl", answers)
    write_json(folder / "rule.json", {f"llava_bench_{name}": RULE for name in CATEGORIES})


def shr(root: Path, cases: list[ScenePicture]) -> None:
    """The scenes' things as regions, half of the pictures with a fact beside them."""
    pictures, regions = [], []
    for case in cases:
        part = "VG_100K" if case.number % 2 else "VG_100K_2"
        url = f"https://example.org/{part}/{case.number}.jpg"
        pictures.append({"image_id": case.number, "url": url, "width": 72, "height": 72})
        own = [
            {
                "image_id": case.number,
                "x": round(thing.x - thing.r),
                "y": round(thing.y - thing.r),
                "width": round(2 * thing.r),
                "height": round(2 * thing.r),
                "phrase": f"a {thing.color} {thing.kind}",
            }
            for thing in case.scene.things
        ]
        regions.append({"id": case.number, "regions": own})
        case.write(root / "vg" / part / f"{case.number}.jpg")
    write_json(root / "vg" / "image_data.json", pictures)
    write_json(root / "vg" / "region_descriptions.json", regions)
    write_json(
        root / "shr" / "val_images_final.json", [{"image_id": case.number} for case in cases]
    )
    for place in (0, 1):
        facts = [
            {str(case.number): [f"There are {len(case.scene.things)} things."]}
            for case in cases[place::4]
        ]
        write_lines(root / "shr" / f"shr_factual_part{place + 1}.jsonl", facts)
