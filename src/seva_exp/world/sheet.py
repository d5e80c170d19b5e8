"""A contact sheet of the world: `python -m seva_exp.world.sheet OUT.png`."""

import argparse
import random

from PIL import Image

from seva_exp.world.draw import draw
from seva_exp.world.scene import UNBIASED, sample_scene


def sheet(columns: int = 6, rows: int = 3, size: int = 144, gap: int = 8) -> Image.Image:
    """`rows` x `columns` scenes of the unbiased world, each `size` pixels wide."""
    rng = random.Random(7)
    pitch = size + gap
    page = Image.new("RGB", (columns * pitch + gap, rows * pitch + gap), (255, 255, 255))
    for i in range(rows * columns):
        at = (gap + pitch * (i % columns), gap + pitch * (i // columns))
        page.paste(draw(sample_scene(rng, UNBIASED), size), at)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", help="PNG file to write")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--size", type=int, default=144, help="pixels a scene (the model sees 72)")
    args = parser.parse_args()
    sheet(args.columns, args.rows, args.size).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
