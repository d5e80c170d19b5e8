"""Our scoring rules beside the authors' own functions, on many drawn answers.

    python perf/official.py FOLDER               40,000 answers a rule
    python perf/official.py FOLDER --answers 999 fewer
    python perf/official.py FOLDER --show 5      and the first that differ

FOLDER holds checkouts under their repositories' names, as many as there are: LLaVA, lmms-eval,
VLMEvalKit, MathVista, HA-DPO, HallusionBench, NaturalBench, MMStar, cambrian, RLAIF-V, AMBER,
Hallucination with pattern (which needs nltk with its punkt_tab).
Functions are taken out of the authors' files and run alone: nothing is installed, and nothing of
theirs is part of this package. Exit code 1 where a rule differs, 2 where nothing is to be compared.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import io
import json
import os
import random
import re
import string
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import official_amber as amber
from rapidfuzz.distance import Levenshtein

from seva_exp.benchmarks import (
    OFFICIAL,
    hallusionbench,
    letters,
    mathvista,
    mmhal,
    mmvp,
    naturalbench,
    vqa_text,
    yes_no,
)
from seva_exp.benchmarks.chartqa import relaxed
from seva_exp.benchmarks.coco_published import PublishedObjects
from seva_exp.benchmarks.gqa import ignoring_punctuation
from seva_exp.benchmarks.llava_bench import read_pair
from seva_exp.benchmarks.question import Question
from seva_exp.benchmarks.shr import distinct, sentences
from seva_exp.benchmarks.statistics import GroupSums
from seva_exp.core.records import Prediction

OPTIONS = {"A": "a dog", "B": "a cat", "C": "a bird", "D": "a horse"}
PIECES = (
    "yes", "no", "Yes", "No", "NO", "not", "y", "n", "A", "B", "C", "D", "E", "Z", "(B)", "C.",
    "D)", ":A", "B:", "(A).", "**C**", "answer", "The answer is", "answer is", "option", "I think",
    "it is", "a", "an", "the", "dog", "a cat", "bird", "a horse", "cats", "two", "ten", "none", "3",
    "3.", "3.14", "1,200", "12%", "12 %", "0.5", "-1", "$5", "dont", "it's", "girl's", "o'clock",
    "u.s.", "well-known", "Explanation:", "since", "or", "and", "is", "11", "12", "nan", "1e-1",
    ".", ",", "!", "?", ";", "/", '"', "'", "(", ")", "[", "]", "\n", "\t", " ", "  ", "...", "-",
    "_", ">", "<", "@", "`", "+", "=",
)  # fmt: skip
GLUE = ("", " ", " ", " ", "\n", ".", ", ")
MARKS = (
    "",
    "",
    "",
    "",
    "",
    ",",
    ".",
    ".",
    "!",
    "?",
    ";",
    ":",
    '"',
    ")",
    "...",
    "--",
    "'s",
    "’s",
    "\n",
)
Pair = tuple[Any, Any]
"""What is read by us, what by the authors' code."""


@dataclass(frozen=True)
class Comparison:
    """A rule against an author's function. ``make`` takes the folder and gives a function from an
    answer to both readings; ``draw`` makes answers."""

    name: str
    files: tuple[str, ...]
    make: Callable[[Path], Callable[[str], Pair]]
    draw: Callable[[random.Random], str]


def taken(file: Path, *names: str, **known: Any) -> dict[str, Any]:
    """Functions, classes and constants of a file by name, run without the rest of it; ``known`` is
    what they find there."""

    def called(node: ast.stmt) -> set[str]:
        if isinstance(node, ast.Assign):
            return {target.id for target in node.targets if isinstance(target, ast.Name)}
        return {getattr(node, "name", "")}

    tree = ast.parse(file.read_text(encoding="utf-8"))
    kept = [node for node in tree.body if called(node) & {*names}]
    found: dict[str, Any] = {"re": re, "string": string, **known}
    exec(compile(ast.Module(kept, []), str(file), "exec"), found)
    return found


class Anything:
    """Stands in for a module that the compared function never uses, such as a logger."""

    def __getattr__(self, name: str) -> Any:
        return Anything()

    def __call__(self, *args: Any, **fields: Any) -> Any:
        return Anything()


def drawn(rng: random.Random) -> str:
    """An answer: a few pieces, stripped as answers are."""
    pieces = (rng.choice(PIECES) + rng.choice(GLUE) for _ in range(rng.randint(1, 9)))
    return "".join(pieces).strip()


def number(rng: random.Random) -> str:
    """A number, or nearly one."""
    found = f"{rng.uniform(0, 20):.{rng.randint(0, 3)}f}{rng.choice(('', '', '%', ' %', '.'))}"
    return found if rng.random() < 0.7 else drawn(rng)


def pair(rng: random.Random) -> str:
    """Two numbers, or nearly so, and what may follow."""
    said = (number(rng).strip() for _ in range(rng.choice((2, 2, 2, 2, 1, 3))))
    return rng.choice((" ", " ", " ", ",", ", ")).join(said) + rng.choice(("", "\n7 8 since", "."))


def described(rng: random.Random) -> str:
    """A description that repeats itself here and there."""
    said = [drawn(rng) for _ in range(rng.randint(1, 4))]
    return ". ".join([*said, *rng.choices(said, k=rng.randint(0, 2))])


def rating(rng: random.Random) -> str:
    """A judge's reply with a rating, or nearly so."""
    said = (
        f"{rng.choice(('Rating', 'rating', 'RATING', 'Score'))}: {rng.randint(0, 7)}"
        for _ in range(rng.choice((0, 1, 1, 1, 1, 2)))
    )
    return rng.choice((" ", "\n")).join((*said, drawn(rng)))


def caption(names: list[str]) -> Callable[[random.Random], str]:
    """Texts that are full of CHAIR's synonyms, singular and plural, with marks around."""
    filled = [*names, "baby", "adult", "passenger", "men", "geese", "knives", "o'clock", "man-made"]

    def draw(rng: random.Random) -> str:
        said = []
        for _ in range(rng.randint(1, 14)):
            word = rng.choice(filled)
            plural = rng.choice((word, word + "s", word + "es", word.removesuffix("y") + "ies"))
            said.append(rng.choice((word, plural, "a", "two")) + rng.choice(MARKS))
        return " ".join(said)

    return draw


def pope(root: Path) -> Callable[[str], Pair]:
    evaluate = taken(root / "LLaVA/llava/eval/eval_pope.py", "eval_pope", json=json)["eval_pope"]

    def both(text: str) -> Pair:
        answers = [{"text": text}, {"text": "yes"}, {"text": "no"}]
        with tempfile.NamedTemporaryFile("w", suffix=".json") as labels:
            labels.write('{"label": "yes"}\n' * 3)
            labels.flush()
            with contextlib.redirect_stdout(io.StringIO()):
                evaluate(answers, labels.name)
        return yes_no.first_sentence(text), answers[0]["text"]

    return both


def yes_or_no(root: Path) -> Callable[[str], Pair]:
    marks = taken(root / "VLMEvalKit/vlmeval/smp/misc.py", "process_punctuation")
    file = root / "VLMEvalKit/vlmeval/dataset/utils/yorn.py"
    read = taken(file, "YOrN_Extraction", **marks)["YOrN_Extraction"]
    return lambda text: (yes_no.one_of_both(text) or "unknown", read(text).lower())


def mme(root: Path) -> Callable[[str], Pair]:
    file = root / "lmms-eval/lmms_eval/tasks/mme/utils.py"
    read = taken(file, "parse_pred_ans")["parse_pred_ans"]
    return lambda text: (yes_no.beginning_or_initial(text) or "other", read(text))


def lmms_letters(root: Path) -> Callable[[str], Pair]:
    file = root / "lmms-eval/lmms_eval/tasks/mmbench/mmbench_evals.py"
    cls = taken(file, "MMBench_Evaluator", os=os, eval_logger=Anything())["MMBench_Evaluator"]
    infer = cls().can_infer
    return lambda text: (letters.lone_token(text, OPTIONS), infer(text, dict(OPTIONS)) or "")


def kit_letters(root: Path) -> Callable[[str], Pair]:
    names = ("can_infer", "can_infer_option", "can_infer_text", "_VERBOSE_ANSWER_RE")
    file = root / "VLMEvalKit/vlmeval/utils/matching_util.py"
    infer = taken(file, *names, os=os, cp=copy, logger=Anything())["can_infer"]
    return lambda text: (letters.near_end(text, OPTIONS), infer(text, dict(OPTIONS)) or "")


def science(root: Path) -> Callable[[str], Pair]:
    file = root / "lmms-eval/lmms_eval/tasks/scienceqa/utils.py"
    score = taken(file, "sqa_process_results", "sqa_doc_to_target")["sqa_process_results"]
    doc = {"choices": list(OPTIONS.values()), "answer": 1}
    return lambda text: (
        float(letters.prefixed(text, OPTIONS) == "B"),
        score(doc, [text])["exact_match"],
    )


def seed(root: Path) -> Callable[[str], Pair]:
    file = root / "lmms-eval/lmms_eval/tasks/seedbench/utils.py"
    found = taken(file, "seed_process_result", "seed_aggregation_result")
    doc = {"answer": "B", "data_type": "image", "question_id": 0}

    def both(text: str) -> Pair:
        score = found["seed_aggregation_result"](
            [found["seed_process_result"](doc, [text])["seed_all"]]
        )
        return float(letters.first_character(text, OPTIONS) == "B"), score

    return both


def gqa(root: Path) -> Callable[[str], Pair]:
    file = root / "lmms-eval/lmms_eval/api/metrics.py"
    match = taken(file, "exact_match_hf_evaluate", np=np)["exact_match_hf_evaluate"]
    targets = ("yes", "two dogs", "a b.")

    def both(text: str) -> Pair:
        ours = [ignoring_punctuation(text, target, {}).score for target in targets]
        flags = {"ignore_case": True, "ignore_punctuation": True}
        return ours, [match([text], [target], **flags)["exact_match"] for target in targets]

    return both


def textvqa(root: Path) -> Callable[[str], Pair]:
    file = root / "LLaVA/llava/eval/m4c_evaluator.py"
    form = taken(file, "EvalAIAnswerProcessor")["EvalAIAnswerProcessor"]()
    return lambda text: (vqa_text.normalise(text), form(text))


def kit_textvqa(root: Path) -> Callable[[str], Pair]:
    marks = taken(root / "VLMEvalKit/vlmeval/smp/misc.py", "process_punctuation")
    file = root / "VLMEvalKit/vlmeval/dataset/utils/vqa_eval.py"
    form = taken(file, "process_answer", "_process_digit_article", **marks)["process_answer"]
    return lambda text: (vqa_text.normalise_kit(text), form(text))


def chartqa(root: Path) -> Callable[[str], Pair]:
    file = root / "lmms-eval/lmms_eval/tasks/chartqa/utils.py"
    right = taken(file, "relaxed_correctness")["relaxed_correctness"]
    return lambda text: (
        [relaxed(text, target, {}).score for target in ("10", "12%", "yes", "0")],
        [float(right(text, target)) for target in ("10", "12%", "yes", "0")],
    )


def math(root: Path) -> Callable[[str], Pair]:
    names = ("normalize_extracted_answer", "get_most_similar")
    file = root / "MathVista/evaluation/calculate_score.py"
    form = taken(file, *names, distance=Levenshtein.distance)["normalize_extracted_answer"]
    choices = tuple(OPTIONS.values())

    def both(text: str) -> Pair:
        ours = [mathvista.normalise(text, choices, "text", None)]
        theirs = [form(text, list(choices), "multi_choice", "text", None)]
        for type_, precision in (("integer", None), ("float", 1), ("float", 2)):
            ours.append(mathvista.normalise(text, (), type_, precision))
            theirs.append(form(text, [], "free_form", type_, precision))
        return ours, theirs

    return both


def llava_bench(root: Path) -> Callable[[str], Pair]:
    """What the script can read, we read as it does; we read more ("8, 9"), and neither NaN nor an
    infinite number."""
    read = taken(root / "LLaVA/llava/eval/eval_gpt_review_bench.py", "parse_score")["parse_score"]

    def both(text: str) -> Pair:
        with contextlib.redirect_stdout(io.StringIO()):
            theirs = tuple(read(text))
        unread = theirs == (-1, -1) or not all(abs(one) < float("inf") for one in theirs)
        return (None, None) if unread else (read_pair(text), theirs)

    return both


def shr(root: Path) -> Callable[[str], Pair]:
    def ngrams(words: list[str], n: int) -> Iterator[tuple[str, ...]]:
        return zip(*(words[i:] for i in range(n)), strict=False)

    file = root / "HA-DPO/ha_dpo/shr_eval/shr_utils.py"
    found = taken(file, "get_model_cap", "cal_repetition", ngrams=ngrams)

    def both(text: str) -> Pair:
        numbered = "".join(f"{i}. {one}\n" for i, one in enumerate(sentences(text), 1))
        shares = [distinct(text, n) for n in (1, 2, 3, 4)]
        theirs = [share and found["cal_repetition"](text, n) for n, share in enumerate(shares, 1)]
        return (numbered, shares), (found["get_model_cap"](text)[0], theirs)

    return both


def chair(root: Path) -> Callable[[str], Pair]:
    import nltk

    names = ("singularize", "plural_prepositions")
    names += tuple(
        f"singular_{x}" for x in ("rules", "uninflected", "uncountable", "ie", "irregular")
    )
    inflect = taken(root / "pattern/pattern/text/en/inflect.py", *names, NOUN="NN")
    source = (root / "Hallucination/utils/chair.py").read_text(encoding="utf-8")
    start, end = source.index("class CHAIR"), source.index("    def get_annotations_from_segments")
    synonyms = (root / "Hallucination/data/synonyms.txt").read_text(encoding="utf-8")
    found = {"nltk": nltk, "singularize": inflect["singularize"]}
    found["open"] = lambda name: io.StringIO(synonyms)
    exec(source[start:end], found)
    theirs, ours = found["CHAIR"]([], ""), PublishedObjects.read(synonyms)
    return lambda text: (ours.mentions(text), theirs.caption_to_words(text)[1])


def asked(id: str, group: str, type_: str, target: str, details: Any) -> Question:
    """A question of which only scoring is wanted."""
    return Question(id, group, type_, "", target, 8, None, details)


def accuracies(kind: str, predictions: list[Prediction]) -> dict[str, float]:
    """Ours over all, by metric."""
    table = GroupSums(predictions)
    found = OFFICIAL[kind](kind=kind).metrics(table.types)
    every = {one.name: table.value(one) or 0.0 for one in found if one.split == "all"}
    levels = {one.split: one for one in found if one.split in hallusionbench.LEVELS}
    return every | {name: table.value(one) or 0.0 for name, one in levels.items()}


def hallusion(root: Path) -> Callable[[str], Pair]:
    """Drawn verdicts on the official questions, 40 sets at a time: the three accuracies, and those
    of easy and hard questions."""
    names = ("assign_correctness", "get_eval_all", "get_eval_fig", "get_eval_pair_all")
    levels = ("get_eval_pair_easy", "get_eval_pair_hard")
    theirs = taken(root / "HallusionBench/utils.py", *names, *levels, np=np)
    rows = json.loads((root / "HallusionBench/HallusionBench.json").read_text(encoding="utf-8"))
    sets: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        key = "_".join(row[name] for name in ("category", "subcategory", "set_id"))
        sets.setdefault(key, []).append(row)

    def both(text: str) -> Pair:
        rng = random.Random(text)
        chosen = [dict(r) for key in rng.sample(sorted(sets), 40) for r in sets[key]]
        luck, predictions = rng.random(), []
        for row in chosen:
            verdict = "1" if rng.random() < luck else rng.choice("02")
            row |= {"check": verdict, "same": rng.choice("01")}
            names = ("category", "subcategory", "visual_input", "set_id", "figure_id")
            place = "_".join(row[name] for name in (*names, "question_id"))
            details = {
                "visual_input": row["visual_input"],
                "figure_id": row["figure_id"],
                "question_id": row["question_id"],
                "no_figure": row["category"] == "VS" and row["figure_id"] == "0",
            }
            group = f"{row['category']}_{row['subcategory']}"
            question = asked(place, f"{group}_{row['set_id']}", group, "yes", details)
            said = Prediction(place, question.group, group, "", "", "", "yes", None, {})
            reply = {"0": "incorrect", "1": "correct", "2": "unclear"}[verdict]
            predictions.append(question.answered("", hallusionbench.read(reply, question, said)))
        theirs["assign_correctness"](chosen, "check")
        ours = accuracies("hallusionbench", predictions)
        every = theirs["get_eval_all"](chosen, "check")
        counted = (
            every,
            theirs["get_eval_fig"](chosen),
            theirs["get_eval_pair_all"](chosen, "check"),
            *(theirs[name](chosen) for name in levels),
        )
        shares = [round(100 * one["correct"] / one["total"], 6) for one in counted]
        names = ("aAcc", "fAcc", "qAcc", *hallusionbench.LEVELS)
        return [round(ours[name], 6) for name in names], shares

    return both


def natural(root: Path) -> Callable[[str], Pair]:
    """The answer as each type of question, and the four accuracies of groups that it fills."""
    file = root / "NaturalBench/naturalbench_vqa.py"
    found = taken(file, "extract_answer", "get_scores")
    words = naturalbench.WORDS

    def both(text: str) -> Pair:
        ours: list[Any] = []
        theirs: list[Any] = []
        for type_ in words:
            said = naturalbench.scored(text, words[type_][0], _place(type_, 0)).extracted
            ours.append({words[type_][0]: 1, words[type_][1]: 0}.get(said, -1))
            with contextlib.redirect_stdout(io.StringIO()):
                theirs.append(found["extract_answer"](text, type_))
        rng = random.Random(text)
        answers, predictions = {}, []
        for group in range(8):
            luck = rng.random()
            answers[group] = read = [
                int(first) if rng.random() < luck else rng.choice((int(not first), -1))
                for first in naturalbench.FIRST
            ]
            for place, value in enumerate(read):
                target = words["yes_no"][not naturalbench.FIRST[place]]
                details, id = _place("yes_no", place), f"{group}-{place}"
                question = asked(id, str(group), "yes_no", target, details)
                said = {1: "Yes", 0: "No"}.get(value, "so")
                predictions.append(
                    question.answered("", naturalbench.scored(said, target, details))
                )
        mine = accuracies("naturalbench", predictions)
        scores = found["get_scores"]([*answers.values()])
        names = {"accuracy": "Acc", "q_acc": "Q_Acc", "i_acc": "I_Acc", "g_acc": "G_Acc"}
        ours.append([round(mine[name], 6) for name in names])
        theirs.append([round(100 * scores[name], 6) for name in names.values()])
        return ours, theirs

    return both


def _place(type_: str, place: int) -> dict[str, str]:
    return {"type": type_, "question": str(place // 2), "picture": str(place % 2)}


class Table:
    """What the compared function does with a table of pandas."""

    def __init__(self, rows: list[dict[str, str]]) -> None:
        self.iloc = rows

    def __len__(self) -> int:
        return len(self.iloc)


def mmstar(root: Path) -> Callable[[str], Pair]:
    """One answer to a question of each part; all or none is right."""
    file = root / "MMStar/eval/vlmeval/evaluate/mmstar.py"
    source = file.read_text(encoding="utf-8")
    parts = re.findall(r"'([^'\n]+)': (?:\{|0)", source.partition("MMStar_counter")[0])
    rows, category = [], ""
    for name in parts:
        opens = f"'{name}': {{" in source
        category = name if opens else category
        if not opens:
            rows.append({"answer": "B", "bench": "", "category": category, "l2_category": name})
    written: dict[str, Any] = {}
    known = {
        "deepcopy": copy.deepcopy,
        "get_logger": lambda name: Anything(),
        "tqdm": lambda rows: rows,
        "dump": lambda value, path: written.update(value),
    }

    def both(text: str) -> Pair:
        table = Table([row | {"prediction": text} for row in rows])
        score = taken(file, "MMStar_eval", load=lambda path: table, **known)["MMStar_eval"]
        score("x.xlsx")
        right = letters.leading_letter(text, OPTIONS) == "B"
        return right, round(written["final score"] * 1500) == len(rows)

    return both


def cambrian(root: Path) -> Callable[[str], Pair]:
    file = root / "cambrian/eval/eval/mmvp/mmvp_test.py"
    bare = taken(file, "extract_mcq_answer")["extract_mcq_answer"]
    return lambda text: (mmvp.bare_answer(text), bare(text))


def mmhal_ratings(root: Path) -> Callable[[str], Pair]:
    """96 replies alike; what is read by none of us counts as 0 there."""
    file = root / "RLAIF-V/eval/summarize_gpt_mmhal_review.py"

    def both(text: str) -> Pair:
        replies = [{"choices": [{"message": {"content": text}}]}] * 96
        score = taken(file, "cal_mmhalscore", read_json=lambda path: replies)["cal_mmhalscore"]
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            score("")
        theirs = re.findall(r"(?:score|rate): ([0-9.]+)", said.getvalue())
        rating = mmhal.read_rating(text) or 0
        return [f"{rating:.2f}", f"{float(rating < mmhal.CLEAN):.2f}"], theirs

    return both


def comparisons(root: Path) -> list[Comparison]:
    """All that there are; those whose files are missing are told, not run."""
    file = root / "Hallucination/data/synonyms.txt"
    names = re.findall(r"[^,\n]+", file.read_text()) if file.is_file() else ["dog"]
    nouns = [name.strip() for name in names if name.strip()]
    llava, lmms, kit = "LLaVA/llava/eval", "lmms-eval/lmms_eval/tasks", "VLMEvalKit/vlmeval"
    marks = f"{kit}/smp/misc.py"
    describing, answering = partial(amber.describing, taken), partial(amber.answering, taken)
    return [
        Comparison("pope first_sentence", (f"{llava}/eval_pope.py",), pope, drawn),
        Comparison("one_of_both", (f"{kit}/dataset/utils/yorn.py", marks), yes_or_no, drawn),
        Comparison("mme beginning_or_initial", (f"{lmms}/mme/utils.py",), mme, drawn),
        Comparison("lone_token", (f"{lmms}/mmbench/mmbench_evals.py",), lmms_letters, drawn),
        Comparison("near_end", (f"{kit}/utils/matching_util.py",), kit_letters, drawn),
        Comparison("scienceqa prefixed", (f"{lmms}/scienceqa/utils.py",), science, drawn),
        Comparison("seed first_character", (f"{lmms}/seedbench/utils.py",), seed, drawn),
        Comparison("gqa ignoring_punctuation", ("lmms-eval/lmms_eval/api/metrics.py",), gqa, drawn),
        Comparison("textvqa soft", (f"{llava}/m4c_evaluator.py",), textvqa, drawn),
        Comparison(
            "textvqa soft_digits", (f"{kit}/dataset/utils/vqa_eval.py", marks), kit_textvqa, drawn
        ),
        Comparison("chartqa relaxed", (f"{lmms}/chartqa/utils.py",), chartqa, number),
        Comparison("mathvista", ("MathVista/evaluation/calculate_score.py",), math, number),
        Comparison("llava_bench", (f"{llava}/eval_gpt_review_bench.py",), llava_bench, pair),
        Comparison(
            "hallusionbench",
            ("HallusionBench/utils.py", "HallusionBench/HallusionBench.json"),
            hallusion,
            drawn,
        ),
        Comparison("naturalbench", ("NaturalBench/naturalbench_vqa.py",), natural, drawn),
        Comparison(
            "mmstar leading_letter", ("MMStar/eval/vlmeval/evaluate/mmstar.py",), mmstar, drawn
        ),
        Comparison("mmvp cambrian", ("cambrian/eval/eval/mmvp/mmvp_test.py",), cambrian, drawn),
        Comparison("mmhal", ("RLAIF-V/eval/summarize_gpt_mmhal_review.py",), mmhal_ratings, rating),
        Comparison("shr", ("HA-DPO/ha_dpo/shr_eval/shr_utils.py",), shr, described),
        Comparison(
            "chair",
            (
                "Hallucination/utils/chair.py",
                "Hallucination/data/synonyms.txt",
                "pattern/pattern/text/en/inflect.py",
            ),
            chair,
            caption(nouns),
        ),
        Comparison("amber described", amber.FILES, describing, amber.noun_drawer(root)),
        Comparison("amber yes or no", amber.FILES, answering, amber.answers),
    ]


def differing(comparison: Comparison, root: Path, answers: int) -> list[tuple[str, Pair]]:
    """The drawn answers that both read differently."""
    both, rng = comparison.make(root), random.Random(0)
    drawn_ = (comparison.draw(rng) for _ in range(answers))
    return [(text, pair) for text in drawn_ if (pair := both(text))[0] != pair[1]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--answers", type=int, default=40_000)
    parser.add_argument("--show", type=int, default=0)
    options = parser.parse_args()
    done, wrong = 0, 0
    for comparison in comparisons(options.folder):
        missing = [file for file in comparison.files if not (options.folder / file).is_file()]
        if missing:
            print(f"{comparison.name:26} not compared: no {missing[0]}")
            continue
        try:
            found = differing(comparison, options.folder, options.answers)
        except (ImportError, LookupError) as error:
            print(f"{comparison.name:26} not compared: {str(error).strip().splitlines()[0]}")
            continue
        done, wrong = done + 1, wrong + bool(found)
        print(f"{comparison.name:26} {len(found):6} of {options.answers} differ")
        for text, (ours, theirs) in found[: options.show]:
            print(f"    {text!r}: ours {ours!r}, theirs {theirs!r}")
    return 1 if wrong else 0 if done else 2


if __name__ == "__main__":
    sys.exit(main())
