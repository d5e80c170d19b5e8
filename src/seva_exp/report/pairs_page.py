"""``pairs.html``: a run's pairs to look through, with filter, search and marks that become a file
for ``filters=[marked]``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from seva_exp.core.errors import InputError
from seva_exp.core.files import write_whole
from seva_exp.core.printable import error_text
from seva_exp.core.records import Pair
from seva_exp.core.spec import Json, digest
from seva_exp.report.gallery import picture
from seva_exp.report.pages import asset, for_script, template
from seva_exp.runs.reader import FinishedRun

PAGE = "pairs.html"
SIDE = 192
"""Largest side of an inlined picture, in pixels."""
PICTURES = 1500
"""Pairs of which the picture is on the page: about 15 MB; of the others the texts alone."""


def write_page(run: FinishedRun, out: Path) -> Iterator[Path]:
    """The page in the folder ``out``. Raises InputError for a run that kept no pair."""
    yield _written(run, out / PAGE)


def write_as(run: FinishedRun, said: str) -> Path:
    """The page in the file that a person names (else ``PAGE``), in a folder that is there. Raises
    InputError, also for a run that kept no pair."""
    file = Path(said or PAGE).expanduser()
    if file.suffix.lower() not in (".html", ".htm"):
        near = file / PAGE if file.is_dir() else file.with_suffix(".html")
        raise InputError(f"--page {file}: a page's file ends in .html: --page {near}.")
    if file.is_dir() or not file.parent.is_dir():
        why = "is a folder" if file.is_dir() else f"there is no folder {file.parent}"
        raise InputError(f"--page {file}: {why}. Give a file in a folder that is there.")
    return _written(run, file)


def _written(run: FinishedRun, file: Path) -> Path:
    text = render(run)
    try:
        write_whole(file, text)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error_text(error)}).") from None
    return file


def render(run: FinishedRun) -> str:
    """The page as HTML, with nothing outside it."""
    pictures: dict[str, Json | None] = {}
    rows = [row for pair in run.pairs() for row in _rows(run, pair, pictures)]
    if not rows:
        raise InputError(f"{run.folder}: this run kept no pair.")
    assert run.pairs_stage
    data = {
        "rows": rows,
        "pictures": pictures,
        "key": f"seva_exp-marks-{digest(run.pairs_stage.key)[:16]}",
    }
    views = sorted({row["view"] for row in rows})
    return template("report/pairs.html").render(
        name=run.report.name,
        views=views,
        data=for_script(data),
        script=asset("report/pairs.js"),
        left_out=max(0, len({row["id"] for row in rows}) - PICTURES),
    )


def _rows(run: FinishedRun, pair: Pair, pictures: dict[str, Json | None]) -> Iterator[Json]:
    """A row for each rejected answer; the picture of several rows once."""
    name = pair.image.sha256[:16]
    if name not in pictures and len(pictures) < PICTURES and (root := run.image_root()):
        pictures[name] = picture(root / pair.image.path, SIDE)
    for view, rejected in zip(pair.views, pair.rejected, strict=True):
        yield {
            "id": pair.sample_id,
            "picture": name,
            "question": pair.question,
            "chosen": pair.chosen,
            "view": view,
            "rejected": rejected,
        }
