"""The contact sheet and the page about the negative views tell of every one."""

from pathlib import Path

import pytest
from PIL import Image

from seva_exp.command import augmentations_sheet as sheet
from seva_exp.core.paths import options_of
from seva_exp.inputs.views import View

DOCS = Path(__file__).parents[2] / "docs"
VIEWS = [name for name, _ in sheet.views()]


def test_the_page_tells_of_every_view_and_of_its_parameters():
    page = (DOCS / "augmentations.md").read_text(encoding="utf-8")
    rows = {}
    for line in page.splitlines():
        if line.startswith("| `"):
            rows[line.split("`")[1]] = line
    assert sorted(rows) == options_of("aug")
    for name, augmentation in sheet.sources():
        if "as `moco`" in rows[name] or name == "another_picture":
            continue  # told as `moco`, `blend`
        for field in set(augmentation.to_json()) - {"kind"}:
            told = f"`{field.removesuffix('_min').removesuffix('_max')}`"
            assert told in rows[name], f"{name}: {field}"
    assert f"all {len(VIEWS)} negative views" in (DOCS.parent / "README.md").read_text()


def test_the_picture_in_the_docs_is_of_reasonable_size():
    file = DOCS / "images" / "augmentations.png"
    assert file.stat().st_size < 1_000_000
    with Image.open(file) as image:
        cells = len(VIEWS) + 1
        rows = -(-cells // sheet.COLUMNS)
        height = sheet.LABEL + sheet.PHOTO[1] + sheet.MARGIN
        assert image.height == rows * height + sheet.MARGIN, "make augmentations-sheet"


def test_a_view_is_shown_on_a_sample_that_it_changes():
    photo = sheet._scenes()
    for name, augmentation in sheet.views():
        if augmentation.space == "image":
            shown = sheet.show(View(name, augmentation, 0), photo, None)
            assert shown.size != photo[0].size or shown.tobytes() != photo[0].tobytes(), name


def test_the_sheet_holds_every_view(monkeypatch):
    names = []
    blank = sheet._blank
    monkeypatch.setattr(sheet, "_blank", lambda name: names.append(name) or blank(name))
    page = sheet.sheet(sheet._scenes(), sheet._scenes())
    assert names[1:] == VIEWS
    assert page.width == sheet.COLUMNS * (blank("").width + sheet.MARGIN) + sheet.MARGIN


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (5, 5)])
def test_a_picture_is_shown_whole(size):
    fitted = sheet._fitted(Image.new("RGB", size, "red"), (60, 40))
    assert fitted.size == (60, 40)
    reds = [pixel for pixel in fitted.getdata() if pixel == (255, 0, 0)]
    assert len(reds) >= 0.9 * min(60 / size[0], 40 / size[1]) ** 2 * size[0] * size[1]
