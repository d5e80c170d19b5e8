"""LLaVA-Bench in the wild (Liu et al. 2023, arXiv:2304.08485): a judge scores the model's answer
beside GPT-4's, both from 1 to 10; the score is the ratio of their means."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal

from seva_exp.benchmarks.base import Metric, Question, Scored, ratio
from seva_exp.benchmarks.files import BenchmarkFiles, FileRow, Picture, columns, indexed
from seva_exp.benchmarks.judging import OWN, Judging, Messages
from seva_exp.benchmarks.official import Item, Official, Rule, judged
from seva_exp.core.records import Prediction
from seva_exp.core.spec import Json

CATEGORIES = ("conv", "detail", "complex")
FOLDERS = ("llava_bench", "llava-bench-in-the-wild")
RULES = tuple(f"{folder}/rule.json" for folder in FOLDERS)
SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
"""The system turn of the official script (eval_gpt_review_bench.py)."""
MOST = 10.0
OWN_RULE = {
    "role": "Answer",
    "prompt": "Two answers to a question about a picture are given above; what the picture shows "
    "stands under [Context]. Grade each from 1 (useless) to 10 (could not be better): is it right "
    "by the context, does it answer what was asked, with the detail that is wanted? Their order "
    "and their length must not matter. On the first line write the two grades, of the first and "
    "of the second answer, with a blank between them, and nothing else; from the second line on "
    "give your reasons.",
}


def read_pair(reply: str) -> tuple[float, float] | None:
    """The two finite numbers that are all of the first line; commas are blanks. Like the official
    script it minds no bounds."""
    words = reply.strip().split("\n")[0].replace(",", " ").split()
    try:
        found = tuple(float(word) for word in words)
    except ValueError:
        return None
    if len(found) != 2 or not all(map(math.isfinite, found)):
        return None
    return found[0], found[1]


def read(reply: str, question: Question, prediction: Prediction) -> Scored | None:
    """The reply as a verdict: the reference's score comes first."""
    if (pair := read_pair(reply)) is None:
        return None
    reference, model = pair
    counts = {"judged": 1.0, "reference": reference, "model": model}
    return Scored(f"{reference:g} {model:g}", model / MOST, counts)


def messages(rules: Mapping[str, Json], question: Question, prediction: Prediction) -> Messages:
    """The official layout: context, question, both answers, the category's rule."""
    rule, details = rules[question.type], question.details
    role = rule["role"]
    parts = (
        f"[Context]\n{details['context']}",
        f"[Question]\n{details['question']}",
        f"[{role} 1]\n{question.target}\n\n[End of {role} 1]",
        f"[{role} 2]\n{prediction.text}\n\n[End of {role} 2]",
        f"[System]\n{rule['prompt']}",
    )
    return ("system", SYSTEM), ("user", "\n\n".join(parts) + "\n\n")


class LlavaBenchBenchmark(Official):
    """mean(model) / mean(reference) x 100 of all and by category, and both means."""

    layout = (
        tuple(f"{folder}/questions.jsonl" for folder in FOLDERS),
        tuple(f"{folder}/context.jsonl" for folder in FOLDERS),
        tuple(f"{folder}/answers_gpt4.jsonl" for folder in FOLDERS),
        tuple(f"{folder}/images" for folder in FOLDERS),
    )
    judge_files = (RULES,)
    tables = ("llava_bench/LLaVABench.tsv", "LLaVABench.tsv")
    source = (
        "huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild; rule.json from "
        "github.com/haotian-liu/LLaVA (llava/eval/table)"
    )
    rules: ClassVar[Mapping[str, Rule]] = {"judged": judged}
    needs_judge = True

    kind: Literal["llava_bench"] = "llava_bench"

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        questions, known, reference = self.layout[:3]
        contexts = {
            image: _lines(row, "caption")
            for image, row in indexed(source.lines(known), "image").items()
        }
        answers = {
            id: row.text("text")
            for id, row in indexed(source.lines(reference), "question_id").items()
        }
        pictures = source.folder(self.layout[3])
        for row in source.lines(questions):
            id, image = row.text("question_id"), row.text("image")
            if image not in contexts:
                row.refuse(f"context.jsonl has no context of picture {image!r}")
            if id not in answers:
                row.refuse(f"answers_gpt4.jsonl has no answer to question {id!r}")
            picture = pictures.picture(row, image)
            yield _item(row, id, "text", answers[id], contexts[image], image, picture)

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        for row in source.table(self.tables):
            columns(row, ("index", "image", "question", "category", "caption", "gpt4_ans"))
            answer, picture = row.text("gpt4_ans"), row.shown
            context = row.text("caption")
            id = row.text("index")
            yield _item(row, id, "question", answer, context, picture.sha256, picture)

    def _official(self, source: BenchmarkFiles) -> Judging:
        where = "github.com/haotian-liu/LLaVA, llava/eval/table/rule.json"
        source.need(RULES, f"{where}; or take judge.own_prompts=true")
        found = {name: row for name, row in source.by_key(RULES)}
        rules = {}
        for category in CATEGORIES:
            name = f"llava_bench_{category}"
            if name not in found:
                FileRow(source.need(RULES), "the file", {}).refuse(f"entry {name!r} is missing")
            rules[category] = {key: found[name].text(key) for key in ("role", "prompt")}
        return Judging("official", 0.2, 1024, rules, partial(messages, rules), read)

    def _own(self, source: BenchmarkFiles) -> Judging:
        rules = dict.fromkeys(CATEGORIES, OWN_RULE)
        return Judging(OWN, 0.2, 1024, rules, partial(messages, rules), read)

    judgings: ClassVar = {"official": _official, OWN: _own}

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """The ratio of all and by category, then the two means (x 10)."""
        every, relative = (tuple(types),), ratio("model", "reference")
        by_category = [one for one in CATEGORIES if one in types] if len(types) > 1 else []
        return [
            Metric("all", "relative", relative, every, share=False),
            *(Metric(one, "relative", relative, ((one,),), share=False) for one in by_category),
            Metric("all", "model", ratio("model", "judged", 10.0), every),
            Metric("all", "reference", ratio("reference", "judged", 10.0), every, "neutral"),
        ]


def _item(
    row: FileRow, id: str, field: str, answer: str, context: str, group: str, picture: Picture
) -> Item:
    question = row.text(field)
    category = row.one_of("category", CATEGORIES)
    details = {"context": context, "question": question}
    return Item(row, id, group, category, {"question": question}, answer, picture, details)


def _lines(row: FileRow, field: str) -> str:
    """A text, or a list of texts a line each."""
    value = row.value(field)
    return "\n".join(row.texts(field)) if isinstance(value, list) else row.text(field)
