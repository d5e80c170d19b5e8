"""A run's preference pairs as the files that other trainers read, pictures included.

A pair of several rejected answers is a row for each. What each trainer reads is what its own
documentation says; ``data=pairs`` reads all of it back.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from seva_exp.augment import AnySource, Augmentation
from seva_exp.core.errors import InputError
from seva_exp.core.files import whole_file
from seva_exp.core.records import ImageRef, Pair
from seva_exp.core.spec import Json
from seva_exp.inputs.images import IMAGE_SUFFIXES, SUFFIXES_OF_FORMAT
from seva_exp.inputs.packed import picture_bytes
from seva_exp.inputs.views import PartnerPictures, View
from seva_exp.runs.reader import FinishedRun
from seva_exp.stages.artifacts import SampleArtifact
from seva_exp.stages.preferences import Samples

ROWS = "pairs.jsonl"
TABLE = "pairs.parquet"
BATCH = 64
"""Rows of a Parquet file's group, which is what readers hold at once."""
NAME = "seva_exp_pairs"
"""The data set's, in LLaMA-Factory's dataset_info.json."""


@dataclass(frozen=True)
class PairRow:
    """One chosen answer over one rejected one. ``view``: what the rejected one is of."""

    pair: Pair
    view: str
    rejected: str


def read_pairs_run(folder: Path) -> FinishedRun:
    """Raises InputError for a run without pairs, or whose pairs or pictures are gone."""
    run = FinishedRun.read(folder)
    if run.pairs_stage is None:
        raise InputError(f"{folder}: this run made no pairs.")
    file = run.file(run.pairs_stage.name, "pairs.jsonl")
    if not file.is_file():
        raise InputError(f"{file}: is gone from the store. {run.again}")
    if run.image_root() is None:
        raise InputError(f"{folder}: the folder of its pictures is gone (data).")
    return run


def rows_of(run: FinishedRun) -> Iterator[PairRow]:
    """In the samples' order. Raises InputError for pairs that these formats have no field for, and
    where there are none."""
    found = False
    for pair in run.pairs():
        if pair.context:
            raise InputError(
                f"{run.folder}: its pairs go on behind the beginning of an answer (sample "
                f"{pair.sample_id}), and these formats have no field for that. pairs.jsonl in the "
                "run's folder has it."
            )
        for view, rejected in zip(pair.views, pair.rejected, strict=True):
            found = True
            yield PairRow(pair, view, rejected)
    if not found:
        raise InputError(f"{run.folder}: this run kept no pair.")


@dataclass(frozen=True)
class Pictures:
    """The pictures of a run's pairs, copied below ``out``, each once."""

    run: FinishedRun
    out: Path

    @cached_property
    def root(self) -> Path:
        root = self.run.image_root()
        assert root
        return root

    def content(self, ref: ImageRef) -> bytes:
        """Raises InputError where it is not what it was."""
        path = self.root / ref.path
        try:
            content = picture_bytes(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from None
        if hashlib.sha256(content).hexdigest() != ref.sha256:
            raise InputError(f"{path}: has changed since the run. Give it back its content.")
        return content

    def copied(self, ref: ImageRef) -> str:
        """Its path below ``out``."""
        content = self.content(ref)
        return self._written(content, f"{ref.sha256[:24]}{_suffix(ref.path, content)}")

    def _written(self, content: bytes, name: str) -> str:
        file = self.out / "images" / name
        file.parent.mkdir(exist_ok=True)
        if not file.is_file() or file.stat().st_size != len(content):
            with whole_file(file) as new:
                new.write(content)
        return f"images/{name}"

    def shown(self, row: PairRow, views: Mapping[str, View]) -> str:
        """The path of the picture that the rejected answer was given to, made anew."""
        view = views.get(row.view)
        if view is None or not view.changes_pictures:
            return self.copied(row.pair.image)
        partners: Sequence[ImageRef] = ()
        if view.mixes:
            [sample] = self.run.samples({row.pair.sample_id})
            partners = view.partners(sample, self._partners)
        image = view.picture(self.root, [row.pair.image, *partners], row.pair.sample_id)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        content = buffer.getvalue()
        return self._written(content, f"{hashlib.sha256(content).hexdigest()[:24]}.png")

    @cached_property
    def _partners(self) -> PartnerPictures:
        return PartnerPictures(SampleArtifact(self.run.artifact(Samples.name)).samples())


def _suffix(path: str, content: bytes) -> str:
    from PIL import Image

    if (own := Path(path).suffix.lower()) in IMAGE_SUFFIXES:
        return own
    with Image.open(io.BytesIO(content)) as image:
        return SUFFIXES_OF_FORMAT.get(image.format or "", (".png",))[0]


def views_of(run: FinishedRun) -> dict[str, View]:
    """The run's views, which show their pictures again. Raises InputError for one whose picture no
    file can hold."""
    found: TypeAdapter[Any] = TypeAdapter(AnySource)
    views = {}
    for name, values in (run.config.get("aug") or {}).items():
        try:
            source = found.validate_python(values)
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise InputError(f"{run.folder}: aug.{name} is of another version: {why}") from None
        view = View(name, source, run.report.seed)
        if view.changes_pictures and (source.learned or source.space != "image"):
            raise InputError(
                f"--rejected-images: aug.{name} (kind={source.kind}) changes a picture behind the "
                "model's processor, and no file shows that. Leave the option out."
            )
        if isinstance(source, Augmentation):
            views[name] = view
    return views


def llamafactory(run: FinishedRun, out: Path) -> Iterator[Path]:
    """``pairs.jsonl`` in the layout sharegpt, and the ``dataset_info.json`` that names it."""
    pictures = Pictures(run, out)
    yield _written(
        out / ROWS,
        (
            {
                "conversations": [{"from": "human", "value": f"<image>{row.pair.prompt}"}],
                "chosen": {"from": "gpt", "value": row.pair.chosen},
                "rejected": {"from": "gpt", "value": row.rejected},
                "images": [pictures.copied(row.pair.image)],
            }
            for row in rows_of(run)
        ),
    )
    columns = {name: name for name in ("chosen", "rejected", "images")}
    entry = {
        "file_name": ROWS,
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "conversations", **columns},
    }
    with whole_file(out / "dataset_info.json") as file:
        file.write((json.dumps({NAME: entry}, indent=2) + "\n").encode())
    yield out / "dataset_info.json"


def ms_swift(run: FinishedRun, out: Path, rejected_images: bool = False) -> Iterator[Path]:
    """``pairs.jsonl``; with ``rejected_images`` each row has the picture that the rejected answer
    was given to, too."""
    pictures = Pictures(run, out)
    views = views_of(run) if rejected_images else {}

    def rows() -> Iterator[Json]:
        for row in rows_of(run):
            turns = (("user", f"<image>{row.pair.prompt}"), ("assistant", row.pair.chosen))
            found: Json = {
                "messages": [{"role": role, "content": text} for role, text in turns],
                "rejected_response": row.rejected,
                "images": [pictures.copied(row.pair.image)],
            }
            if rejected_images:
                found["rejected_images"] = [pictures.shown(row, views)]
            yield found

    yield _written(out / ROWS, rows())


def trl(run: FinishedRun, out: Path) -> Iterator[Path]:
    """``pairs.parquet``: the conversational columns of TRL's DPOTrainer, pictures as bytes."""
    import datasets

    turns = [{"role": datasets.Value("string"), "content": datasets.Value("string")}]
    names = ("prompt", "chosen", "rejected")
    features = datasets.Features({"images": [datasets.Image()], **dict.fromkeys(names, turns)})
    pictures = Pictures(run, out)

    def values(row: PairRow) -> Json:
        texts = (row.pair.prompt, row.pair.chosen, row.rejected)
        said = zip(("user", "assistant", "assistant"), texts, strict=True)
        messages = ([{"role": role, "content": text}] for role, text in said)
        image = {"bytes": pictures.content(row.pair.image), "path": None}
        return {"images": [image], **dict(zip(names, messages, strict=True))}

    yield _table(out / TABLE, features, map(values, rows_of(run)))


RLAIF_V = (
    *("ds_name", "image", "question", "chosen", "rejected"),
    *("origin_dataset", "origin_split", "idx", "image_path"),
)
"""The columns of openbmb/RLAIF-V-Dataset, in their order."""


def rlaif_v(run: FinishedRun, out: Path) -> Iterator[Path]:
    """``pairs.parquet`` with the columns of the RLAIF-V data set; ``origin_split`` tells which view
    the rejected answer is of, ``idx`` the sample's id."""
    import datasets

    text, image = datasets.Value("string"), datasets.Image()
    features = datasets.Features({one: image if one == "image" else text for one in RLAIF_V})
    pictures = Pictures(run, out)
    model = run.model().location()
    kind = str((run.config.get("data") or {}).get("kind", ""))

    def values(row: PairRow) -> Json:
        pair = row.pair
        name = Path(pair.image.path).name
        split = json.dumps({"model": model, "rejected": row.view}, ensure_ascii=False)
        cells = (
            *(run.report.name, {"bytes": pictures.content(pair.image), "path": name}),
            *(pair.prompt, pair.chosen, row.rejected),
            *(kind, split, pair.sample_id, pair.image.path),
        )
        return dict(zip(RLAIF_V, cells, strict=True))

    yield _table(out / TABLE, features, map(values, rows_of(run)))


def _written(path: Path, rows: Iterator[Json]) -> Path:
    with whole_file(path) as file:
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
    return path


def _table(path: Path, features: Any, rows: Iterator[Json]) -> Path:
    """Row groups of ``BATCH``; the schema says to `datasets` which column holds pictures."""
    import pyarrow
    import pyarrow.parquet

    schema = features.arrow_schema
    with whole_file(path) as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while some := list(islice(rows, BATCH)):
            writer.write_table(pyarrow.Table.from_pylist(some, schema=schema))
    return path


PairFormat = Callable[[FinishedRun, Path], Iterator[Path]]
PAIR_FORMATS: dict[str, PairFormat] = {
    "trl": trl,
    "llamafactory": llamafactory,
    "ms_swift": ms_swift,
    "rlaif_v": rlaif_v,
}
