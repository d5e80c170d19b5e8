"""What a source gave: samples and drops, counted as they come; the point at which too many are
broken."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter

from seva_exp.core.records import Drop, Sample
from seva_exp.core.spec import Json
from seva_exp.data.base import NOT_DRAWN, DataSource

TOLD = 20
"""Unusable samples that are named on the console; drops.jsonl names all."""
ANOTHER_ON_IT = "picture asked already"
JUDGED_FROM = 1000
"""Pictures or rows after which the share of broken ones is judged while more are read."""


class Counts:
    """Counts of one source. Raises InputError where ``data`` lets no more broken ones pass. Of each
    sample 8 bytes are held, which tell it from the others."""

    def __init__(self, data: DataSource, where: str) -> None:
        self._data = data
        self._where = where
        self._reasons: Counter[str] = Counter()
        self._told: list[str] = []
        self._broken = 0
        self._example = ""
        self._asked = array("Q")

    def add(self, one: Sample | Drop) -> None:
        """Count it."""
        if isinstance(one, Sample):
            content = f"{one.image.sha256} {one.prompt}".encode()
            digest = hashlib.blake2b(content, digest_size=8).digest()
            self._asked.append(int.from_bytes(digest, "little"))
            return
        self._reasons[one.reason] += 1
        if one.reason not in (NOT_DRAWN, ANOTHER_ON_IT) and len(self._told) < TOLD:
            self._told.append(describe_drop(one))
        if one.reason != ANOTHER_ON_IT and self._data.is_broken(one):
            self._broken += 1
            self._example = self._example or describe_drop(one)
            if self._read >= JUDGED_FROM:
                self._judge()

    def summary(self) -> Json:
        """The stage's summary. Raises InputError as ``add``."""
        self._judge()
        not_drawn, again = (self._reasons.pop(one, 0) for one in (NOT_DRAWN, ANOTHER_ON_IT))
        duplicates = self._duplicates()
        return {
            "samples": len(self._asked),
            "not_drawn": not_drawn,
            **({"asked_already": again} if again else {}),
            **({"exact_duplicates": duplicates} if duplicates else {}),
            "unusable": dict(self._reasons),
            "left_out": self._told,
        }

    @property
    def _read(self) -> int:
        return len(self._asked) + self._broken

    def _judge(self) -> None:
        if self._broken:
            self._data.check_broken(self._broken, self._read, self._example, self._where)

    def _duplicates(self) -> int:
        """Samples whose picture, to the byte, and question an earlier one has."""
        import numpy as np

        asked = np.frombuffer(self._asked, np.uint64)
        asked.sort()  # in place
        return int(np.count_nonzero(asked[1:] == asked[:-1]))


def describe_drop(drop: Drop) -> str:
    """A drop for a person: what, why, and the numbers behind it."""
    return f"{drop.sample_id}: {drop.reason}" + (f" ({drop.detail})" if drop.detail else "")
