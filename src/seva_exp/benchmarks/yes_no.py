"""How answers to yes-or-no questions are read: one function a harness. "" stands for neither."""

from __future__ import annotations

import re
from collections.abc import Iterable

from seva_exp.benchmarks.vqa_text import LOOSE_STOP_OF_WORDS, unpunctuated


def first_sentence(text: str) -> str:
    """POPE's own rule (RUCAIBox/POPE evaluate.py, and LLaVA's): of the text before the first full
    stop, commas dropped, any of the words ``No``, ``not``, ``no`` means no, everything else yes.
    So "No</s>" and "NO" are yes, as there."""
    words = text.strip().split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def first_word(text: str) -> str:
    """The first word, in any case, where it is yes or no ("No, it is", "(yes)"). AMBER's script
    compares the whole answer with Yes and No, and leaves it to the user to make it that."""
    word = next(iter(re.findall(r"\w+", text.lower())), "")
    return word if word in ("yes", "no") else ""


def exact(text: str) -> str:
    """lmms-eval's rule: nothing but yes or no, in any case."""
    answer = text.lower().strip()
    return answer if answer in ("yes", "no") else ""


def one_of_both(text: str) -> str:
    """VLMEvalKit's rule (YOrN_Extraction): of the words yes and no, without the punctuation that
    the VQA evaluation knows, exactly one occurs."""
    found = set(unpunctuated(text.lower(), LOOSE_STOP_OF_WORDS).split()) & {"yes", "no"}
    return found.pop() if len(found) == 1 else ""


def beginning(text: str) -> str:
    """MME's own rule (eval_tool/calculation.py): yes or no, else the one that the first four
    characters hold, yes first."""
    return _within(text.strip().lower()[:4])


def beginning_or_initial(text: str) -> str:
    """lmms-eval's MME: the same without full stops (a blank that stood behind one counts as a
    character), and a lone y or n."""
    answer = text.lower().strip().replace(".", "")
    return {"y": "yes", "n": "no"}.get(answer) or _within(answer[:4])


def first_named(text: str, words: Iterable[str]) -> str:
    """NaturalBench's rule (naturalbench_vqa.py: extract_answer): the word that comes first in the
    answer, whole and in any case."""
    found = ((re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE), word) for word in words)
    places = [(match.start(), word) for match, word in found if match]
    return min(places)[1] if places else ""


def _within(answer: str) -> str:
    return "yes" if "yes" in answer else "no" if "no" in answer else ""
