"""Ask a finished run about pictures: base and aligned model side by side.

  python -m seva_exp.ask runs/latest cat.jpg "What is on the table?"
  python -m seva_exp.ask runs/latest *.jpg "Describe this picture."
  python -m seva_exp.ask runs/latest cat.jpg --chat

Words that only one of the answers has are marked.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from seva_exp.core.arguments import command_parser
from seva_exp.core.errors import InputError
from seva_exp.core.records import ALIGNED, BASE
from seva_exp.core.terminal import exit_code
from seva_exp.report.console import paint, say
from seva_exp.runs.listing import run_argument
from seva_exp.runs.trained import device_arguments, machine_of
from seva_exp.side_by_side.asker import Asked, Asker, Shown, Turns, can_talk, open_pictures
from seva_exp.side_by_side.shown import heading, on_a_terminal, side_by_side

AGAIN = "/new"
"""Typed in a chat: the conversation begins anew."""


def main(words: Sequence[str] | None = None) -> int:
    """The command line. 0: answered; 2: bad input; 1: a model that cannot be loaded; 130:
    interrupted before an answer."""
    options = _parser().parse_args(words)
    code = exit_code(lambda: _ask(options), "")
    if code == 130:
        say("")
    return 0 if options.chat and code == 130 else code


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("ask", __doc__, laid_out=True)
    run_argument(parser)
    parser.add_argument(
        "words", nargs="+", metavar="PICTURE... QUESTION", help="pictures, and one question to each"
    )
    parser.add_argument("--chat", action="store_true", help="go on asking; Ctrl-D ends")
    parser.add_argument("--max-new-tokens", type=_count, help="else as the run's generation")
    device_arguments(parser)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a number of at least 1 is needed")
    return int(text)


def _ask(options: argparse.Namespace) -> None:
    names, question = split(options.words, options.chat)
    pictures = open_pictures(names)
    machine = machine_of(options.device, options.dtype)
    asker = Asker(
        options.run,
        machine,
        max_new_tokens=options.max_new_tokens,
        warn=lambda text: say(paint("dim", f"note: {text}")),
    )
    if options.chat:
        can_talk(asker)
        Chat(asker, pictures).run(question)
    else:
        show(asker.ask(pictures, question))


def split(words: Sequence[str], chat: bool) -> tuple[list[str], str]:
    """The pictures and the question, which a chat need not have: there, the last word is one if it
    is no file and has a blank in it. Raises InputError."""
    *names, last = words
    there = Path(last).expanduser().is_file()
    if chat and (there or not any(map(str.isspace, last))):
        return [*words], ""
    if there:
        raise InputError(f'the question is missing: {last} "What is in this picture?" (or --chat).')
    if not names:
        raise InputError(f'picture: none is given: RUN picture.jpg "{last}".')
    return names, last


def show(asked: Asked) -> None:
    """Print it."""
    for one in asked.answers:
        if len(asked.answers) > 1:
            say(heading(one.picture))
        say(f"{side_by_side(one)}\n")


class Chat:
    """A conversation with both models about each picture: each goes on from its own answers."""

    def __init__(self, asker: Asker, pictures: Sequence[Shown]) -> None:
        self._asker, self._pictures = asker, pictures
        self._before: dict[str, list[Turns]] = {}
        self._anew()

    def _anew(self) -> None:
        self._before = {which: [()] * len(self._pictures) for which in (BASE, ALIGNED)}

    def run(self, question: str) -> None:
        """Until standard input ends."""
        if on_a_terminal():
            say(f"{self._asker.name}: ask away; {AGAIN} begins anew, Ctrl-D ends")
        while True:
            if question.strip() == AGAIN:
                self._anew()
            elif question.strip():
                self._take(question)
            try:
                question = input("> " if on_a_terminal() else "")
            except EOFError:
                if on_a_terminal():
                    say("")
                return

    def _take(self, question: str) -> None:
        asked = self._asker.ask(self._pictures, question, self._before)
        show(asked)
        for place, one in enumerate(asked.answers):
            for which, text in ((BASE, one.base), (ALIGNED, one.aligned)):
                self._before[which][place] = (*self._before[which][place], (question, text))
