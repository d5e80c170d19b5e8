"""What a data source is: a spec that makes samples."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from seva_exp.core.errors import InputError
from seva_exp.core.field_docs import field_docs
from seva_exp.core.records import Drop, Sample
from seva_exp.core.spec import Json, Spec
from seva_exp.data.kept import Kept
from seva_exp.inputs.fields import REMOVE_PLACEHOLDER, placeholder_in

Hasher = Callable[[Path], str]
"""A file's SHA-256 (hex). Whoever calls may remember results for files that did not change."""
NOT_DRAWN = "not drawn"
"""The reason of a `Drop` that fell to `samples`, not to a fault."""
NOT_REACHED = "not tried: too many before it were unusable"
"""The reason of a `Drop` that fell to the bound on spares: fewer were found than asked for."""


@dataclass(frozen=True)
class SampleSet:
    """A data source's samples, in a fixed order, and its drops."""

    samples: list[Sample]
    drops: list[Drop]


class DataSource(Spec):
    """Where unlabeled pictures and their questions come from."""

    kind: str
    gives_pairs: ClassVar[bool] = False
    """Whether each sample has its chosen and rejected answers: nothing is asked for them."""
    not_broken: ClassVar[frozenset[str]] = frozenset({NOT_DRAWN, NOT_REACHED})
    """The reasons of drops that are no fault of a picture or row."""
    probe: ClassVar[str] = "data.samples=100"
    """Words of a command that make it take about a hundred samples."""

    @property
    @abstractmethod
    def seeded(self) -> bool:
        """Whether the run's seed changes the samples."""

    @property
    def responds(self) -> bool:
        """Whether the samples have responses (instruction data)."""
        return False

    def lacking(self, where: str = "data") -> str | None:
        """What must still be given before work can start, such as "data.path: must be set ...";
        None when everything is. A dry run prints it beside the plan."""
        return None

    def check_broken(self, broken: int, read: int, example: str, where: str) -> None:
        """Raises InputError where ``broken`` of ``read`` pictures or rows are more than this source
        lets pass."""

    def is_broken(self, drop: Drop) -> bool:
        """Whether the drop is a picture or row that should have been a sample."""
        return drop.reason not in self.not_broken

    @abstractmethod
    def check(self, where: str = "data") -> None:
        """Raises InputError for what is wrong at first glance (no such folder, say); quick. Never
        called while something is lacking. ``where`` (``data``, ``instructions``) is the part of
        the config that is named in errors, here and below."""

    @abstractmethod
    def identity(self, sha256: Hasher, where: str = "data", seed: int | None = None) -> Json:
        """All that decides the samples beside the seed: fields and the contents of files, by hash.
        Never a path of this machine. While something is lacking: the fields.

        With the run's ``seed`` only those pictures are hashed that ``build`` may open with it;
        without one, all that any seed may draw. Two seeds' identities may differ, so a key that
        holds one holds the seed too."""

    @abstractmethod
    def read(
        self,
        seed: int,
        root: Path,
        sha256: Hasher,
        where: str = "data",
        kept: Kept | None = None,
    ) -> Iterator[Sample | Drop]:
        """The samples in a fixed order, and what is left out. What ``kept`` has of an earlier
        attempt is taken from there, and its pictures are not read again. What is drawn by the seed
        may be held in memory, a source of which everything is taken is not. Pictures that are made
        are written below ``root/images``. Raises InputError where there is no sample."""

    def build(self, seed: int, root: Path, sha256: Hasher, where: str = "data") -> SampleSet:
        """All samples and drops at once, for sets that fit into memory."""
        made = SampleSet([], [])
        for one in self.read(seed, root, sha256, where):
            if isinstance(one, Sample):
                made.samples.append(one)
            else:
                made.drops.append(one)
        return made

    @property
    def knows_truth(self) -> bool:
        """Whether ``truth`` tells of each sample."""
        return False

    def truth(self, seed: int, id: str) -> str | None:
        """What is on a sample's picture, in the embedded world's words; None where that is not
        known. ``seed`` is the run's."""
        return None

    def estimate(self, where: str = "data") -> int | None:
        """About how many samples ``read`` gives, found without looking at pictures; None where that
        is not known. Not called while something is lacking."""
        return None

    @abstractmethod
    def image_root(self, root: Path) -> Path:
        """The folder to which the ``path`` of every sample's ``ImageRef`` is relative;
        ``root`` as in ``build``."""


class PathSource(DataSource):
    """A source that reads what lies at ``path``."""

    needs: ClassVar[str]
    """What ``path`` is, as the command line's placeholder: FILE, FOLDER."""
    path: str | None = Field(None, min_length=1)
    max_broken: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of unusable pictures or rows above which the run stops; of those read "
        "so far, once 1,000 were; in no key: it does not decide which samples there are",
    )

    def fields(self, *without: str) -> Json:
        """The fields that decide the samples, but for those that ``identity`` holds otherwise."""
        return self.model_dump(mode="json", exclude={"max_broken", *without})

    def check_broken(self, broken: int, read: int, example: str, where: str) -> None:
        if broken > self.max_broken * read:
            raise InputError(
                f"{where}.max_broken={self.max_broken:g}: {broken} of {read} pictures or rows of "
                f"{self.path!r} cannot be used ({broken / read:.1%}), such as {example}. Mend the "
                f"data, or let more be left out: {where}.max_broken={_above(broken / read)}."
            )

    def lacking(self, where: str = "data") -> str | None:
        if self.path is not None:
            return None
        what = field_docs(type(self)).get("path")
        return f"{where}.path: must be set ({where}.path={self.needs}): {what}."

    def required_path(self, where: str) -> str:
        """``path`` as it was given."""
        if self.path is None:
            raise InputError(str(self.lacking(where)))
        return self.path


def _above(share: float) -> float:
    """``share`` in percent, rounded up."""
    return math.ceil(100 * share) / 100


def refuse_placeholder(field: str, text: str) -> None:
    """InputError if the text of a config's ``field`` holds an image placeholder."""
    if token := placeholder_in(text):
        raise InputError(
            f"{field}: {text!r} holds the image placeholder {token}; {REMOVE_PLACEHOLDER}."
        )


def hash_or_none(path: Path, sha256: Hasher) -> str | None:
    """The file's hash; None where there is no file to read."""
    try:
        return sha256(path) if path.is_file() else None
    except OSError:
        return None


def some(
    made: Iterable[Sample | Drop], field: str, path: str | None, what: str, things: str
) -> Iterator[Sample | Drop]:
    """``made``; where no sample is in it, InputError: of ``things`` (such as rows) none is a usable
    ``what``, and why: the reasons counted, the most frequent first."""
    reasons: Counter[str] = Counter()
    details: dict[str, str] = {}
    found = False
    for one in made:
        if isinstance(one, Sample):
            found = True
        elif not found:
            reasons[one.reason] += 1
            details.setdefault(one.reason, f": {one.detail}" if one.detail else "")
        yield one
    if not found:
        counted = ", ".join(f"{n} {why}{details[why]}" for why, n in reasons.most_common())
        why = f"{reasons.total()} {things}: {counted}" if reasons else f"no {things[:-1]}"
        raise InputError(f"{field}: there is no usable {what} in {path!r} ({why}).")
