"""Questions on pictures of the embedded world, one by one and several to a picture."""

from __future__ import annotations

import random

from seva_exp.core.interfaces import Request
from seva_exp.decoding.engine import Engine
from seva_exp.world import UNBIASED, draw, sample_scene

from .alone import by_id

PROMPTS = (
    "Describe this image.",
    "Is there a red circle?",
    "How many shapes are there?",
    "What color is the square in this picture of several shapes?",
)


def request(number, picture=None, tokens=24):
    picture = number if picture is None else picture
    scene = sample_scene(random.Random(picture), UNBIASED)
    prompt = PROMPTS[number % len(PROMPTS)]
    return Request(f"id{number}", f"picture{picture}", lambda: draw(scene), prompt, tokens)


SINGLE = [request(number) for number in range(12)]
SHARED = [request(number, picture=number // 4) for number in range(12)]


def asked(vlm, requests, rows=8, **more):
    return {id: r.tokens for id, r in by_id(Engine(vlm, rows, **more).run(requests)).items()}
