"""A contact sheet of all negative views:

    python -m seva_exp.command.augmentations_sheet OUT.png [--photo FILE ...]

Each view of ``conf/aug`` on a photograph and on a picture of the embedded world, made by the very
code that runs in an answers stage; pixel-space views are seen through the embedded model's
processor.
"""

from __future__ import annotations

import argparse
import json
import random
import textwrap
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps
from pydantic import TypeAdapter

from seva_exp.augment import AnySource, Augmentation, Source
from seva_exp.core.interfaces import VisionLanguageModel
from seva_exp.core.machine import Machine
from seva_exp.core.paths import config_dir, options_of
from seva_exp.inputs.images import open_image
from seva_exp.inputs.views import View
from seva_exp.models import TinyModel
from seva_exp.models.vlm import load
from seva_exp.world import UNBIASED, draw, sample_scene

COLUMNS = 5
PHOTO, SCENE = (144, 96), (96, 96)
"""Width and height of the two pictures of a view, px on the sheet."""
GAP, LABEL, MARGIN = 6, 26, 18
INK, FAINT, PAPER, FRAME = "#1f2933", "#52606d", "#ffffff", "#e4e7eb"
QUESTION = "Describe the image in detail."
SCENE_SEED = 3
TRIES = 50
"""A view that leaves some pictures as they are is shown on a sample that it changes."""
LONGEST = 480
"""Photographs are scaled to this longer side, px, as in COCO (640) or smaller."""


def sources() -> Iterator[tuple[str, Source]]:
    """Every file of ``conf/aug`` of one source: its name, and what it describes. Files of several
    views have strengths of a view that has a file of its own."""
    import yaml

    adapter: TypeAdapter[Source] = TypeAdapter(AnySource)
    for name in options_of("aug"):
        text = (config_dir() / "aug" / f"{name}.yaml").read_text(encoding="utf-8")
        found = yaml.safe_load(text)
        if "kind" in found:
            yield name, adapter.validate_json(json.dumps(found))


def views() -> Iterator[tuple[str, Augmentation]]:
    """Those that are negative views."""
    for name, source in sources():
        if isinstance(source, Augmentation):
            yield name, source


def show(view: View, pictures: list[Image.Image], vlm: VisionLanguageModel) -> Image.Image:
    """The first picture as the view shows it; the others are at hand as partners."""
    own, *others = pictures
    for number in range(TRIES):
        if view.augmentation.space == "pixels":
            return vlm.to_picture(view.pixels(vlm, vlm.encode_image(own), str(number)))
        count = getattr(view.augmentation, "partners", 0)
        shown = view.image(own, str(number), others[:count])
        if shown.size != own.size or ImageChops.difference(shown, own).getbbox():
            break
    return shown


def sheet(photos: list[Image.Image], scenes: list[Image.Image]) -> Image.Image:
    """All views in a grid, the pictures themselves first."""
    vlm = load(TinyModel(), Machine(device="cpu"))
    cells = [_cell("(the pictures)", photos[0], scenes[0])]
    for name, augmentation in views():
        view = View(name, augmentation, seed=0)
        if augmentation.space == "prompt":
            cells.append(_text_cell(name, view.prompt(QUESTION, "0")))
        else:
            cells.append(_cell(name, show(view, photos, vlm), show(view, scenes, vlm)))
    return _grid(cells)


def _grid(cells: list[Image.Image]) -> Image.Image:
    width, height = cells[0].size
    rows = -(-len(cells) // COLUMNS)
    size = (COLUMNS * (width + MARGIN) + MARGIN, rows * (height + MARGIN) + MARGIN)
    page = Image.new("RGB", size, PAPER)
    for i, cell in enumerate(cells):
        row, column = divmod(i, COLUMNS)
        page.paste(cell, (MARGIN + column * (width + MARGIN), MARGIN + row * (height + MARGIN)))
    return page


def _blank(name: str) -> Image.Image:
    """A cell with its label."""
    cell = Image.new("RGB", (PHOTO[0] + GAP + SCENE[0], LABEL + PHOTO[1]), PAPER)
    ImageDraw.Draw(cell).text((0, 2), name, INK, ImageFont.load_default(17))
    return cell


def _cell(name: str, photo: Image.Image, scene: Image.Image) -> Image.Image:
    cell = _blank(name)
    cell.paste(_fitted(photo, PHOTO), (0, LABEL))
    cell.paste(_fitted(scene, SCENE), (PHOTO[0] + GAP, LABEL))
    return cell


def _text_cell(name: str, text: str) -> Image.Image:
    cell = _blank(name)
    draw, font = ImageDraw.Draw(cell), ImageFont.load_default(15)
    draw.rectangle((0, LABEL, cell.width - 1, cell.height - 1), outline=FRAME, fill="#f5f7fa")
    quoted = textwrap.fill(f"“{text}”", 33)
    draw.multiline_text((10, LABEL + 10), quoted, FAINT, font, spacing=5)
    return cell


def _fitted(image: Image.Image, box: tuple[int, int]) -> Image.Image:
    """The whole picture in ``box``, on a light ground where its proportions differ."""
    small = ImageOps.contain(image, box, Image.Resampling.LANCZOS)
    frame = Image.new("RGB", box, FRAME)
    frame.paste(small, ((box[0] - small.width) // 2, (box[1] - small.height) // 2))
    return frame


def _photographs(files: list[str]) -> list[Image.Image]:
    """The given files, or two of scikit-image's."""
    if not files:
        import skimage

        folder = Path(skimage.__file__).parent / "data"
        files = [str(folder / name) for name in ("chelsea.png", "coffee.png")]
    pictures = [open_image(file) for file in files]
    for picture in pictures:
        picture.thumbnail((LONGEST, LONGEST))
    return pictures


def _scenes() -> list[Image.Image]:
    """Two pictures of the embedded world, at the size at which ``data=shapes`` draws them."""
    rng = random.Random(SCENE_SEED)
    return [draw(sample_scene(rng, UNBIASED)) for _ in range(2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", help="PNG file to write")
    parser.add_argument("--photo", nargs=2, default=[], help="a photograph, and one to blend with")
    args = parser.parse_args()
    page = sheet(_photographs(args.photo), _scenes())
    page.save(args.out, optimize=True)


if __name__ == "__main__":
    main()
