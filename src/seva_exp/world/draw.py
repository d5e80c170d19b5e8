"""Scenes to pictures, with Pillow: flat shapes and cards with soft shadows, antialiased."""

import functools
import math
import random

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from seva_exp.world.scene import SIDE, Box, Scene, Thing

Point = tuple[float, float]
RGB = tuple[int, int, int]

PALETTE: dict[str, RGB] = {
    "red": (214, 58, 62),
    "orange": (244, 140, 48),
    "yellow": (246, 206, 60),
    "green": (72, 166, 96),
    "blue": (62, 118, 206),
    "purple": (140, 86, 186),
}
CARD: RGB = (255, 255, 255)
BORDER: RGB = (190, 190, 198)
INK: RGB = (38, 42, 56)
SUPERSAMPLING = 4
SHADE = 8
"""Largest difference of a thing's color to the palette, per channel, in 1/255."""
TEXT_SIZE = 15.0
"""Font size on a card, in canvas units."""


def _star_points(n: int, center: Point, outer: float, inner: float) -> list[Point]:
    """Corners of an n-pointed star, from the top, clockwise."""
    angles = (-math.pi / 2 + i * math.pi / n for i in range(2 * n))
    radii = (outer, inner) * n
    return [
        (center[0] + r * math.cos(a), center[1] + r * math.sin(a))
        for a, r in zip(angles, radii, strict=True)
    ]


def _polygon_points(n: int, center: Point, r: float) -> list[Point]:
    """Corners of a regular n-gon standing on an edge or a corner, one corner at the top."""
    return _star_points(n, center, r, r * math.cos(math.pi / n))


def _draw_shape(d: ImageDraw.ImageDraw, kind: str, c: float, r: float) -> None:
    """Fills one shape of radius `r` around `(c, c)` with 255; holes are 0 (all in pixels)."""

    def disc(x: float, y: float, radius: float, fill: int) -> None:
        d.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)

    if kind == "circle":
        disc(c, c, r * 0.96, 255)
    elif kind == "square":
        d.rectangle((c - r * 0.84, c - r * 0.84, c + r * 0.84, c + r * 0.84), fill=255)
    elif kind == "triangle":
        d.polygon(_polygon_points(3, (c, c + r * 0.2), r * 1.15), fill=255)
    elif kind == "star":
        d.polygon(_star_points(5, (c, c + r * 0.05), r * 1.1, r * 0.48), fill=255)
    elif kind == "cross":
        w = r * 0.34
        d.rectangle((c - r * 0.95, c - w, c + r * 0.95, c + w), fill=255)
        d.rectangle((c - w, c - r * 0.95, c + w, c + r * 0.95), fill=255)
    elif kind == "diamond":
        d.polygon(
            [(c, c - r * 1.1), (c + r * 0.8, c), (c, c + r * 1.1), (c - r * 0.8, c)], fill=255
        )
    elif kind == "ring":
        disc(c, c, r, 255)
        disc(c, c, r * 0.54, 0)
    elif kind == "moon":
        disc(c, c, r, 255)
        disc(c + r * 0.52, c - r * 0.28, r * 0.8, 0)
    else:
        raise ValueError(f"kind: no shape is called {kind!r}")


def _paste(image: Image.Image, mask: Image.Image, color: RGB, origin: tuple[int, int]) -> None:
    image.paste(
        color, (origin[0], origin[1], origin[0] + mask.width, origin[1] + mask.height), mask
    )


def _paste_shadow(
    image: Image.Image, mask: Image.Image, background: RGB, origin: tuple[int, int], u: float
) -> None:
    """Darkens the `background` below `mask`, blurred, 1 canvas unit (`u` pixels) lower."""
    red, green, blue = (int(v * 0.8) for v in background)
    soft = mask.filter(ImageFilter.GaussianBlur(0.9 * u))
    _paste(image, soft, (red, green, blue), (origin[0], origin[1] + round(u)))


def _draw_thing(image: Image.Image, thing: Thing, scene: Scene, color: RGB, u: float) -> None:
    """Draws one thing at `u` pixels a canvas unit."""
    reach = math.ceil((thing.r * 1.3 + 3) * u)
    origin = (round(thing.x * u) - reach, round(thing.y * u) - reach)
    mask = Image.new("L", (2 * reach * SUPERSAMPLING, 2 * reach * SUPERSAMPLING))
    center = reach * SUPERSAMPLING
    _draw_shape(ImageDraw.Draw(mask), thing.kind, center, thing.r * u * SUPERSAMPLING)
    mask = mask.reduce(SUPERSAMPLING)
    _paste_shadow(image, mask, scene.background, origin, u)
    _paste(image, mask, color, origin)


@functools.lru_cache(maxsize=256)
def _card(text: str, width: int, height: int, u: float) -> tuple[Image.Image, Image.Image]:
    """The card's face and mask with a margin of 3 canvas units; do not change them in place."""
    s, margin = SUPERSAMPLING, math.ceil(3 * u)
    size = ((width + 2 * margin) * s, (height + 2 * margin) * s)
    box = (margin * s, margin * s, size[0] - margin * s - 1, size[1] - margin * s - 1)
    mask, face = Image.new("L", size), Image.new("RGB", size, CARD)
    radius = 2.5 * u * s
    ImageDraw.Draw(mask).rounded_rectangle(box, radius, fill=255)
    d = ImageDraw.Draw(face)
    d.rounded_rectangle(box, radius, fill=CARD, outline=BORDER, width=max(1, round(0.7 * u * s)))
    font = ImageFont.load_default(size=TEXT_SIZE * u * s)
    center = (size[0] / 2, size[1] / 2 + 0.2 * u * s)
    stroke = 0.35 * u * s
    d.text(center, text, fill=INK, font=font, anchor="mm", stroke_width=stroke, stroke_fill=INK)
    return face.reduce(s), mask.reduce(s)


def _draw_card(image: Image.Image, text: str, box: Box, background: RGB, u: float) -> None:
    x0, y0, x1, y1 = box
    face, mask = _card(text, round((x1 - x0) * u), round((y1 - y0) * u), u)
    margin = math.ceil(3 * u)
    origin = (round(x0 * u) - margin, round(y0 * u) - margin)
    _paste_shadow(image, mask, background, origin, u)
    image.paste(face, origin, mask)


def draw(scene: Scene, size: int = 72) -> Image.Image:
    """Draws `scene` as an RGB picture of `size` x `size` pixels, always the same one."""
    rng = random.Random(scene.seed)
    u = size / SIDE
    image = Image.new("RGB", (size, size), scene.background)
    for thing in scene.things:
        red, green, blue = (
            max(0, min(255, v + rng.randint(-SHADE, SHADE))) for v in PALETTE[thing.color]
        )
        _draw_thing(image, thing, scene, (red, green, blue), u)
    if scene.text and scene.text_box:
        _draw_card(image, scene.text, scene.text_box, scene.background, u)
    return image
