"""How the chosen letter of a multiple-choice answer is read: one function a harness. "" stands for
an answer that the rule does not parse. ``options`` are the texts by their letters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import ascii_uppercase

Options = Mapping[str, str]

_OPEN, _CLOSE = r"[(\[（【「\"'“‘*]", r"[)\]）】」\"'”’*]"
_LEADING = re.compile(rf"\s*{_OPEN}*([A-Z])(?:{_CLOSE}+|\s*[.．。:：,，、;；!！]|\s*$)")
_NAMED = re.compile(
    r"(?:\b(?:answer|option|choice)\b(?:\s+(?:is|would be|should be))?|答案|选项|选择|选)"
    rf"(?:应该是|应为|是|为)?\s*[:：]?\s*{_OPEN}*([A-Z])(?![A-Za-z])",
    re.IGNORECASE,
)
_HEDGED = re.compile(rf"(?:\bor\b|[/或])\s*{_OPEN}*([A-Z])(?![A-Za-z])")
_BRACKETED = re.compile(r"[(（\[]([A-Z])[)）\]]")
_MARKS = (
    ("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ")."),
    (":", ""), (":", ","), (":", "."), (":", ")"), (":", ")."),
)  # fmt: skip
"""What lmms-eval looks for before and behind a letter, in this order."""
_BLANKED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)


def lettered(texts: list[str]) -> dict[str, str]:
    """The texts by letter, A first."""
    return dict(zip(ascii_uppercase, texts, strict=False))


def listing(options: Options) -> str:
    """The options as prompts show them: ``A. text``, a line each."""
    return "\n".join(f"{letter}. {text}" for letter, text in options.items())


def exact(text: str, options: Options) -> str:
    """SEED-Bench under LLaVA-1.5: the letter and nothing else."""
    answer = text.strip()
    return answer if answer in options else ""


def first_character(text: str, options: Options) -> str:
    """lmms-eval's SEED-Bench: the first character, in any case."""
    answer = text.strip()[:1].upper()
    return answer if answer in options else ""


def prefixed(text: str, options: Options) -> str:
    """lmms-eval's ScienceQA: the letter in any case, or a capital and a full stop first."""
    answer = text.strip()
    found = answer.upper() if len(answer) == 1 else answer[0] if answer[1:2] == "." else ""
    return found if found in options else ""


def the_answer_is(text: str, options: Options) -> str:
    """ScienceQA under LLaVA-1.5 (eval_science_qa.py): ``B``; ``B. text``; or just one "The answer
    is B" and one more character."""
    answer = text.strip()
    if len(answer) == 1:
        found = [answer]
    elif answer[1:3] == ". " and answer[0] in "ABCDE":  # else the rule looks on
        found = [answer[0]]
    else:
        found = re.findall(r"The answer is ([A-Z]).", answer)
    return found[0] if len(found) == 1 and found[0] in options else ""


def leading_letter(text: str, options: Options) -> str:
    """MMStar's own rule (eval/vlmeval/evaluate/mmstar.py), in any case: the first character, also
    of a word ("A dog"); else what stands behind a bracket, "option " or "the answer is "."""
    answer = text.lower().strip().replace("\n", " ")
    for beginning in ("", "(", "option ", "the answer is "):
        letter = answer[len(beginning) : len(beginning) + 1].upper()
        if answer.startswith(beginning) and letter in options:
            return letter
    return ""


def lone_token(text: str, options: Options) -> str:
    """lmms-eval's MMBench (mmbench_evals.py: can_infer): the only one of A to E that is a word by
    itself; else the only one with one of a few marks around it; else the one option whose text the
    answer contains. Where A is a word of more than three, it may be the article, and no letter that
    is a word by itself counts."""
    words = text.split()
    found = [letter for letter in "ABCDE" if letter in words]
    if len(found) == 1 and not (found == ["A"] and len(words) > 3):
        return found[0]
    for before, behind in _MARKS:
        marked = [letter for letter in "ABCDE" if f"{before}{letter}{behind}" in words]
        if len(marked) == 1:
            return marked[0]
    return _contained(text, options)


def near_end(text: str, options: Options) -> str:
    """VLMEvalKit's multiple choice (matching_util.py: can_infer): the only letter of an option that
    is a word by itself, marks aside, if it is first said within the last four words; else the A to
    D behind "answer is", in any case; else the one option whose text the answer contains, unless
    the answer is more than twice as long as all options. "Z", which refuses, is read where no
    option's letter stands. (Its list of refusals of served models is left out: they are unread.)"""
    words = text.translate(_BLANKED).split()
    found = [letter for letter in options if letter in words]
    if len(found) == 1 and words.index(found[0]) > len(words) - 5:
        return found[0]
    if not found and "Z" in words:
        return "Z"
    if (answer := _ANSWER_IS.search(text)) and answer[1].upper() in options:
        return answer[1].upper()
    if len(text) > 2 * sum(map(len, options.values())):
        return ""
    return _contained(text, options)


def _contained(text: str, options: Options) -> str:
    """The one option whose text stands somewhere in the answer, in any case."""
    answer = text.lower()
    found = [letter for letter, option in options.items() if option.lower() in answer]
    return found[0] if len(found) == 1 else ""


def letter_or_text(text: str, options: Options) -> str:
    """A letter that leads the answer (``B``, ``(B)``, ``B. text``, ``B、``); else the only letter
    that is named as the answer (``the answer is B``, ``答案是B``), or that stands in brackets; else
    the one option whose text the answer is. "A dog" is no letter, and "A or B" is none of both."""
    if any(letter in options for letter in _HEDGED.findall(text)):
        return ""
    if (found := _LEADING.match(text)) and found[1] in options:
        return found[1]
    for pattern in (_NAMED, _BRACKETED):
        letters = {letter for letter in pattern.findall(text) if letter in options}
        if len(letters) == 1:
            return letters.pop()
    answer = _plain(text)
    same = [letter for letter, option in options.items() if answer and _plain(option) == answer]
    return same[0] if len(same) == 1 else ""


def _plain(text: str) -> str:
    """Lower case, single blanks, without what surrounds the words."""
    return " ".join(text.lower().split()).strip(" .．。,，、;；:：!！?？\"'“”‘’()（）[]【】*")
