"""What of the official benchmarks is there, and what is missing and where it goes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.official import Loaded, Official
from seva_exp.benchmarks.protocols import packaged_protocols
from seva_exp.benchmarks.questions import QuestionsBenchmark
from seva_exp.core.errors import InputError, StageError, suggest
from seva_exp.core.interfaces import Progress
from seva_exp.core.printable import error_text
from seva_exp.core.spec import Json
from seva_exp.inputs.user_paths import existing_file, yaml_mapping

SHOWN = 5
"""Pictures that cannot be opened and are told by name."""


@dataclass(frozen=True)
class Entry:
    """One benchmark: ``state`` is found, missing or damaged; ``detail`` tells the rest."""

    name: str
    state: str
    detail: str


def inventory(root: Path | None, deep: Progress | None = None) -> Iterator[Entry]:
    """Every official benchmark below ``root``. ``deep`` opens every picture, and is how that is
    watched."""
    for kind, cls in sorted(OFFICIAL.items()):
        benchmark = cls(kind=kind)
        if root is None or not benchmark.present(root):
            goes = benchmark.goes(root or Path("DATA_ROOT"))
            yield Entry(kind, "missing", f"put\n{goes}")
            continue
        try:
            yield Entry(kind, "found", _found(benchmark, root, deep))
        except InputError as error:
            yield Entry(kind, "damaged", str(error))


def own_questions(words: Sequence[str]) -> QuestionsBenchmark:
    """The benchmark of a table (or of a YAML file that tells of one) and of ``FIELD=VALUE`` words.
    Raises InputError."""
    import yaml

    file, *rest = words
    fields: Json = {"path": file}
    if Path(file).suffix in (".yaml", ".yml"):
        path = existing_file("--questions", file)
        fields = yaml_mapping(path, f"--questions: {file}", "fields of benchmark=questions")
    for word in rest:
        name, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"--questions: {word!r}: FIELD=VALUE is needed behind the file.")
        try:
            fields[name.removeprefix("benchmark.questions.")] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"{name}={value}: {error_text(error)}") from None
    try:
        return QuestionsBenchmark.model_validate_json(json.dumps(fields, default=str))
    except ValidationError as error:
        detail = error.errors()[0]
        name = ".".join(map(str, detail["loc"]))
        if detail["type"] == "extra_forbidden":
            known = suggest(name, QuestionsBenchmark.model_fields)
            raise InputError(f"{name}: no such field.{known}") from None
        raise InputError(f"{name}={detail['input']}: {detail['msg']}.") from None


def checked(benchmark: QuestionsBenchmark, deep: Progress | None = None) -> Entry:
    """One table of questions: as ``inventory`` tells of official ones."""
    name = benchmark.table_name
    try:
        if missing := benchmark.lacking(None):
            return Entry(name, "missing", missing)
        loaded = benchmark.load(None)
        shown = _opened(benchmark.kind, loaded, deep)
        benchmark.judging(None)
    except InputError as error:
        return Entry(name, "damaged", str(error))
    groups = len({item.group for item in loaded.items})
    by_type = Counter(item.type for item in loaded.items)
    categories = ", ".join(f"{type} {count}" for type, count in by_type.items())
    rules = benchmark.rules_of_protocol
    first = next(benchmark.questions(None))
    return Entry(
        name,
        "found",
        f"{len(loaded.items)} questions ({benchmark.type}), {shown}, {groups} groups to resample"
        + (f"; {benchmark.category_field}: {categories}" if benchmark.category_field else "")
        + f"; rule {rules.rule} of protocol {benchmark.protocol_name}"
        f"\n  the first is asked: {first.prompt!r}, and its answer is {first.target!r}",
    )


def _found(benchmark: Official, root: Path, deep: Progress | None) -> str:
    """Rows, pictures, protocols. Raises InputError for what is wrong."""
    loaded = benchmark.load(root)
    pictures = _opened(benchmark.kind, loaded, deep)
    files = ", ".join(sorted({path.relative_to(root).parts[0] for path in loaded.files}))
    protocols = ", ".join(packaged_protocols(benchmark.kind))
    waiting = ""
    try:
        benchmark.judging(root)
    except InputError as error:
        waiting = f"\n  no judge can be asked yet: {error}"
    return f"{len(loaded.items)} questions, {pictures}, in {files}; protocols: {protocols}{waiting}"


def _opened(name: str, loaded: Loaded, deep: Progress | None) -> str:
    """How many pictures there are, each opened where that is to be. Raises InputError."""
    pictures = list(dict.fromkeys(item.picture for item in loaded.items if item.picture))
    if deep:
        broken = []
        with deep(name, len(pictures), "picture") as meter:
            for picture in pictures:
                try:
                    picture.load()
                except StageError as error:
                    broken.append(str(error))
                meter.update(1)
        if broken:
            more = f" And {len(broken) - SHOWN} more." if len(broken) > SHOWN else ""
            raise InputError(
                f"{len(broken)} of {len(pictures)} pictures cannot be opened: "
                f"{' '.join(broken[:SHOWN])}{more}"
            )
    return f"{len(pictures)} pictures {'opened' if deep else 'present'}"
