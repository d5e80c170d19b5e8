"""A stage that refuses at once, and loads nothing for it."""

from dataclasses import dataclass

from seva_exp import InputError


@dataclass
class Refusing:
    label: str = "align"

    def run(self, *_: object) -> dict:
        raise InputError("dpo.batch_size=5: not\nthis one.")
