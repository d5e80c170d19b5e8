"""Ways to damage one of the samples' files, and where some of them lie."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

POPE = "pope/coco_pope_popular.json"
TEXTVQA = "textvqa/TextVQA_0.5.1_val.json"
OCR = "textvqa/llava_textvqa_val_v051_ocr.jsonl"
GQA, MMB = "gqa/GQA_TestDev_Balanced.tsv", "mmbench_en/mmbench_dev_20230712.tsv"
MME = "mme/MME_Benchmark_release_version"
MMVET, LLAVA = "mmvet/mm-vet.json", "llava_bench/questions.jsonl"
REGIONS = "vg/region_descriptions.json"
INSTANCES = "coco/annotations/instances_val2014.json"
QUERIES, TRUTHS = "amber/data/query/query_all.json", "amber/data/annotations.json"
RELATED, SAFE = "amber/data/relation.json", "amber/data/safe_words.txt"
PROMPTS = "object_halbench/obj_halbench_300_with_image.jsonl"
AOKVQA = "pope/aokvqa_pope_seem_popular.json"
Change = Callable[[Path], None]


def whole(change: Callable[[object], None]) -> Change:
    """A change of a JSON file's content."""

    def apply(file: Path) -> None:
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return apply


def line(number: int, **fields) -> Change:
    """New fields of one line of JSON lines; None takes a field away."""

    def apply(file: Path) -> None:
        lines = file.read_text().splitlines()
        row = json.loads(lines[number - 1]) | fields
        lines[number - 1] = json.dumps({k: v for k, v in row.items() if v is not None})
        file.write_text("\n".join(lines))

    return apply


def cell(number: int, **fields) -> Change:
    """New cells of one row of a table."""

    def apply(file: Path) -> None:
        with file.open(encoding="utf-8", newline="") as source:
            csv.field_size_limit(1 << 30)
            rows = list(csv.DictReader(source, delimiter="\t"))
        rows[number - 1] |= fields
        rows = [{k: v for k, v in row.items() if v is not None} for row in rows]
        names = [name for name in rows[number - 1]]
        with file.open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, names, delimiter="\t", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    return apply


def entry(key: str, **fields) -> Change:
    """New fields of one entry of a JSON object; None takes a field away."""

    def change(content: dict) -> None:
        content[key] |= fields
        content[key] = {k: v for k, v in content[key].items() if v is not None}

    return whole(change)


def row(number: int, under: str, **fields) -> Change:
    """The same for the list ``under`` a key of a JSON object ("" for a list)."""

    def change(content) -> None:
        rows = content[under] if under else content
        found = rows[number - 1] | fields
        rows[number - 1] = {k: v for k, v in found.items() if v is not None}

    return whole(change)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-30])


def cut_within_the_last_picture(file: Path) -> None:
    """GQA's samples end with one: each row still has all its columns."""
    file.write_bytes(file.read_bytes()[:-200])


def gone(file: Path) -> None:
    file.unlink()


def text(content: str) -> Change:
    return lambda file: file.write_text(content) and None


def raw(content: bytes) -> Change:
    return lambda file: file.write_bytes(content) and None


def twice(key: str) -> Change:
    """The entry ``key`` of a JSON object a second time."""

    def apply(file: Path) -> None:
        content = json.loads(file.read_text())
        file.write_text(f'{{"{key}": {json.dumps(content[key])}, {file.read_text().lstrip()[1:]}')

    return apply
