"""Every reader of foreign files on damaged ones: they are read, or refused by file and row in a
message that can be printed; never a traceback."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.protocols import PACKAGED, load_protocol
from seva_exp.benchmarks.samples import make_samples
from seva_exp.benchmarks.tsv import read_table
from seva_exp.core.errors import InputError, StageError
from seva_exp.core.records import write_jsonl
from seva_exp.data import CocoData, InstructData, JsonlData, Llava665kData
from seva_exp.inputs.images import SUFFIXES_OF_FORMAT, UnusableImage, read_image
from seva_exp.inputs.prompts import PACKAGED as PROMPTS
from seva_exp.inputs.prompts import load_prompts

from .damaging import LARGE, QUICK, as_json, as_lines, damaged, damaged_json, examples

IN_A_FILE = (
    r"(row|line|entry|char|byte|position|column) ?\d", r"row-\d", r"entry '", r"column '",
    r"field '", r"the header", r"the last line", r": '\w+' (is|holds)",
)  # fmt: skip
OF_A_FILE = (
    r"is empty", r"is (gzip|UTF|Parquet|Arrow|zstand|xz|bzip2|a zip)", r"no UTF-8",
    r"cannot be read", r"no usable", r"there is no", r"not a JSON list", r"(is|are) needed",
    r"is missing", r"holds no", r"no list has", r"says nothing", r"asks nothing",
    r"\.(prompt|rule|judge|max_new_tokens|circular|pooled)", r"names .*, which", r"is not in",
    r"two columns", r"duplicate id", r"no valid JSON", r": \w+: input",
)  # fmt: skip
PLACE = re.compile("|".join((*IN_A_FILE, *OF_A_FILE)))
sizes = pytest.mark.parametrize("count", [QUICK, pytest.param(LARGE, marks=pytest.mark.slow)])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def told(error: Exception, file: Path) -> None:
    """The message names the file (of a list of names: its folder) and a place in it, is one line,
    short, and can be encoded."""
    message = str(error)
    message.encode()
    assert str(file.parent) in message, message[:2000]
    assert PLACE.search(message), message[:2000]
    assert len(message) < 2500 and len(message.splitlines()) == 1, message[:2500]


@dataclass(frozen=True)
class Target:
    """A reader of a file, and what the file holds before it is damaged."""

    name: str
    strategy: Any
    read: Callable[[Path], None]


def data(kind: Any, **fields: Any) -> Callable[[Path], None]:
    """Reads all samples and drops of a source, writes them down, and makes its key."""

    def read(file: Path) -> None:
        if kind is CocoData:
            source = CocoData(path=str(file.parent), names=str(file), **fields)
        else:
            source = kind(path=str(file), **fields)
        source.check()
        source.identity(sha256)
        made = source.build(0, file.parent, sha256)
        write_jsonl(file.parent / "out" / "samples.jsonl", made.samples)
        write_jsonl(file.parent / "out" / "drops.jsonl", made.drops)

    return read


ROWS = [
    {"id": "a", "image": "a.png", "question": "What is it?"},
    {"id": "b", "image": ["a.png"], "question": "Où ça?"},
]
TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
CHAT = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A cat."}]
PARTS = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "W?"}]}, CHAT[1]]
TALKS = [
    {"id": "1", "image": "a.png", "conversations": TURNS},
    {"id": "2", "images": ["a.png"], "messages": CHAT},
    {"id": "3", "image": "a.png", "messages": PARTS},
    {"id": "4", "conversations": [{"from": "human", "value": "2 + 2?"}, TURNS[1]]},
]
MIX = [{"id": str(i), "image": f"ocr_vqa/{i}.png", "conversations": TURNS} for i in range(2)]
TABLE = 'index\tquestion\timage\tA\n0\t"a ""b""\nc"\t{}\tNone\n1\td\t0\tNA\n'


def png() -> str:
    import base64

    file = io.BytesIO()
    Image.new("RGB", (16, 12), "red").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def whole_table(file: Path) -> None:
    for row in read_table(file):
        if row.picture:
            try:
                row.picture.load()
            except StageError as error:
                told(error, file)


def prompts(file: Path) -> None:
    found = load_prompts(str(file))
    found.model_dump_json().encode()


def protocol(file: Path) -> None:
    kind = OFFICIAL["pope"]
    found = load_protocol(
        str(file), "pope", kind.rules, kind.placeholders, kind.judgings, "benchmark.pope.protocol"
    )
    found[1].render({"question": "Is it?"})


TARGETS = [
    Target("jsonl", damaged_json(ROWS, as_lines), data(JsonlData, id_field="id")),
    Target("jsonl list", damaged_json(ROWS), data(JsonlData)),
    Target("jsonl skip", damaged_json(ROWS, as_lines), data(JsonlData, on_error="skip")),
    Target("instruct", damaged_json(TALKS), data(InstructData)),
    Target("instruct lines", damaged_json(TALKS, as_lines), data(InstructData, on_error="skip")),
    Target("llava_665k", damaged_json(MIX), data(Llava665kData)),
    Target("names", damaged(b"a.png\nb.png\n"), data(CocoData, on_error="skip")),
    Target("names list", damaged_json(["a.png", "b.png"]), data(CocoData)),
    Target("table", damaged(TABLE.format(png()).encode()), whole_table),
    Target("prompts", damaged((PROMPTS / "stic.yaml").read_bytes()), prompts),
    Target("protocol", damaged((PACKAGED / "llava15.yaml").read_bytes()), protocol),
]


@sizes
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_damaged_file_is_read_or_refused_by_file_and_row(tmp_path, target, count):
    (tmp_path / "ocr_vqa").mkdir()
    (tmp_path / "out").mkdir()
    for name in ("a.png", "b.png", "ocr_vqa/0.png", "ocr_vqa/1.png"):
        Image.new("RGB", (16, 12), "red").save(tmp_path / name)
    file = tmp_path / "rows.yaml"

    refused = []

    def check(content: bytes) -> None:
        file.write_bytes(content)
        try:
            target.read(file)
        except InputError as error:
            told(error, file)
            refused.append(error)

    examples(target.strategy, check, count)
    assert len(refused) > count // 20


FILES = [
    ("pope", "pope/coco_pope_popular.json"),
    ("mme", "mme/MME_Benchmark_release_version/existence/0000.txt"),
    ("mmbench_en", "mmbench_en/mmbench_dev_20230712.tsv"),
    ("gqa", "gqa/GQA_TestDev_Balanced.tsv"),
    ("scienceqa", "scienceqa/problems.json"),
    ("scienceqa", "scienceqa/pid_splits.json"),
    ("seed", "seed/SEED-Bench.json"),
    ("textvqa", "textvqa/TextVQA_0.5.1_val.json"),
    ("textvqa", "textvqa/llava_textvqa_val_v051_ocr.jsonl"),
    ("chartqa", "chartqa/test/test_human.json"),
    ("mathvista", "mathvista/testmini.json"),
    ("mmvet", "mmvet/mm-vet.json"),
    ("mmvet", "mmvet/judge_prompt.txt"),
    ("llava_bench", "llava_bench/questions.jsonl"),
    ("llava_bench", "llava_bench/context.jsonl"),
    ("llava_bench", "llava_bench/rule.json"),
    ("shr", "shr/val_images_final.json"),
    ("shr", "vg/region_descriptions.json"),
    ("shr", "shr/shr_factual_part1.jsonl"),
    ("chair", "coco/annotations/instances_val2014.json"),
    ("chair", "chair/synonyms.txt"),
    ("hallusionbench", "hallusionbench/HallusionBench.json"),
    ("naturalbench", "naturalbench/NaturalBenchDataset.tsv"),
    ("mmstar", "mmstar/MMStar.tsv"),
    ("mmvp", "mmvp/Questions.csv"),
    ("cv_bench", "cv_bench/test_2d.jsonl"),
    ("mmhal", "mmhal/response_template.json"),
    ("mmhal", "mmhal/judge_prompt.txt"),
    ("amber", "amber/data/query/query_all.json"),
    ("amber", "amber/data/annotations.json"),
    ("amber", "amber/data/relation.json"),
    ("object_halbench", "object_halbench/obj_halbench_300_with_image.jsonl"),
    ("pope_gqa", "pope/gqa_pope_seem_random.json"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "root"
    make_samples(folder)
    return folder


@sizes
@pytest.mark.parametrize(("kind", "name"), FILES, ids=[name for _, name in FILES])
def test_a_damaged_benchmark_is_read_or_refused_by_file_and_row(root, tmp_path, kind, name, count):
    shutil.copytree(root, tmp_path / "root", copy_function=shutil.copy)
    file = tmp_path / "root" / name
    content = file.read_bytes()
    strategy = damaged(content)
    if file.suffix in (".json", ".jsonl"):
        strategy = damaged_json(*parsed(content))
    benchmark = OFFICIAL[kind](kind=kind)

    def check(content: bytes) -> None:
        file.unlink()
        file.write_bytes(content)
        try:
            for question in benchmark.questions(tmp_path / "root"):
                json.dumps([question.prompt, question.target, question.id]).encode()
            if benchmark.judged:
                benchmark.judging(tmp_path / "root")
        except InputError as error:
            message = str(error)
            message.encode()
            assert str(tmp_path / "root") in message, message[:2000]
            assert PLACE.search(message) and len(message) < 2500, message[:2500]

    examples(strategy, check, count)


def parsed(content: bytes) -> tuple[Any, Callable[[Any], bytes]]:
    try:
        return json.loads(content), as_json
    except ValueError:
        return [json.loads(line) for line in content.splitlines()], as_lines


@sizes
@pytest.mark.parametrize("format", SUFFIXES_OF_FORMAT)
def test_a_damaged_picture_is_read_or_refused(format, count):
    file = io.BytesIO()
    Image.effect_noise((24, 18), 90).convert("RGB").save(file, format)

    def check(content: bytes) -> None:
        try:
            found = read_image(io.BytesIO(content))
        except UnusableImage as error:
            assert error.reason
            return
        assert found.mode == "RGB" and min(found.size) >= 4

    examples(damaged(file.getvalue()), check, count)
