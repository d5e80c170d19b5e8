"""A judge for tests: a real HTTP server that reads what it is asked and replies by the rule, when
it does not misbehave as it is told."""

from __future__ import annotations

import json
import re

from seva_exp.world.language import NUMBERS

from ..served.serving import Misbehaving, completion

KINDS = r"circle|square|triangle|star|cross|diamond|ring|moon"
REGION = re.compile(r"^\[\d+, \d+, \d+, \d+\]: a (\w+) (\w+)$", re.MULTILINE)


def judge(**options) -> Misbehaving:
    """The server; ``with judge() as endpoint``."""
    server = Misbehaving(models=["judge"], **options)
    server.always = sensibly
    return server


def sensibly(handler) -> bool:
    """Reply as one who has understood."""
    body = handler.server.bodies[handler.server.asked.index(handler.name)]
    handler.send(200, with_usage(completion(verdict(body["messages"][-1]["content"]))))
    return True


def with_usage(reply: dict) -> dict:
    return reply | {"usage": {"prompt_tokens": 100, "completion_tokens": 5}}


def verdict(asked: str) -> str:
    """By what kind of question it is."""
    if asked.startswith("Is one more"):
        return "Yes"
    if "| Correctness\n" in asked:
        _, target, answer, _ = asked.rpartition("\n\n")[2].split(" | ")
        return "1.0" if same(target) in same(answer) else "0.0"
    if "\nRight answer: " in asked:
        target, answer = re.findall(r"\n(?:Right|Given) answer: (.*)", asked)
        return "1.0" if same(target) in same(answer) else "0.0"
    if "[End of Assistant 1]" in asked:
        first, second = re.findall(r"\[Assistant \d\]\n(.*?)\n\n\[End", asked, re.DOTALL)
        return f"8 {8 if same(first) == same(second) else 4}\nSince I say so."
    if "### LMM Response to Evaluate\n" in asked:
        target, answer = asked.rstrip("\n").split("\n")[-4], asked.rstrip("\n").split("\n")[-1]
        return f"So it is.\nRating: {6 if same(target) == same(answer) else 2}"
    if "A person's answer: " in asked:
        target, answer = re.findall(r"\n(?:A person's answer|Answer to rate): (.*)", asked)
        return f"So it is.\nRating: {6 if same(target) == same(answer) else 2}"
    if "\nWhat is true: " in asked:
        return "unclear"
    if "\nSentences:\n" in asked:
        return "Judgement:\n" + "\n".join(labels(asked))
    if "Extract the answer" in asked:
        answer = same(asked.partition("Answered: ")[2].partition("\n")[0])
        return str(NUMBERS.index(answer)) if answer in NUMBERS else "NONE"
    if "Reply with a JSON list of strings" in asked:
        return "```json\n" + json.dumps(objects(asked)) + "\n```"
    raise AssertionError(asked)


def objects(asked: str) -> list[str]:
    """What a description names, sentence by sentence, and does not deny."""
    written = asked.partition("\nWritten: ")[2].partition("\n\nReply")[0]
    said = ". ".join(one for one in written.split(". ") if " no " not in one)
    return re.findall(KINDS, said)


def labels(asked: str) -> list[str]:
    """Every kind that a sentence names is in a region, or it is made up."""
    regions, _, rest = asked.partition("\nSentences:\n")
    there = {kind for _, kind in REGION.findall(regions)}
    lines = rest.partition("\n\n")[0].splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        named = set(re.findall(KINDS, line))
        label = "correct" if named and named <= there else "hallucination"
        found.append(f"{number}. {label if named else 'cannot judge'}: so it is")
    return found


def same(text: str) -> str:
    return text.strip().rstrip(".").lower()
