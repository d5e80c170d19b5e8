"""GQA, TextVQA and ChartQA in small."""

from __future__ import annotations

from pathlib import Path

from seva_exp.benchmarks.chartqa import TYPES
from seva_exp.benchmarks.samples.cases import ScenePicture, write_json, write_lines, write_table
from seva_exp.benchmarks.textvqa import MARK, PEOPLE


def gqa(root: Path, cases: list[ScenePicture]) -> None:
    """GQA in small, as VLMEvalKit's table."""
    rows: list[dict] = []
    for case in cases:
        questions = [qa for type_ in ("color", "kind", "relation") if (qa := case.ask(type_))]
        for place, qa in enumerate(questions):
            first = len(rows) - place
            row = {"index": len(rows), "question": qa.question, "answer": qa.answer.lower()}
            rows.append(row | {"image": first if place else case.base64})
    write_table(root / "gqa" / "GQA_TestDev_Balanced.tsv", rows)


def textvqa(root: Path, cases: list[ScenePicture]) -> None:
    """TextVQA in small: reading text cards; two of the ten people misread it."""
    rows, prompts = [], []
    for number, case in enumerate(cases):
        qa = case.ask("text")
        assert qa is not None
        name = f"{case.number:016x}"
        answers = [qa.answer] * (PEOPLE - 2) + [f"{qa.answer}s", "unanswerable"]
        row = {"image_id": name, "question_id": number, "question": qa.question}
        rows.append(row | {"answers": answers})
        text = f"{qa.question}\n{MARK} {qa.answer.upper()}\nAnswer with what is written."
        prompts.append({"question_id": name, "image": f"{name}.jpg", "text": text})
        case.write(root / "textvqa" / "train_images" / f"{name}.jpg")
    write_json(root / "textvqa" / "TextVQA_0.5.1_val.json", {"data": rows})
    write_lines(root / "textvqa" / "llava_textvqa_val_v051_ocr.jsonl", prompts)


def chartqa(root: Path, cases: list[ScenePicture]) -> None:
    """Counts and places, in words."""
    for type_, kind in zip(TYPES, ("count", "position"), strict=True):
        rows = []
        for case in cases:
            if qa := case.ask(kind):
                name = f"{case.number:04d}.png"
                rows.append({"imgname": name, "query": qa.question, "label": qa.answer})
                case.write(root / "chartqa" / "test" / "png" / name)
        write_json(root / "chartqa" / "test" / f"test_{type_}.json", rows)
