"""Training batches for the embedded model: per-patch labels, and questions behind one image.

Shapes: B images, G = 6 patches a side, P prefix tokens, L tokens a packed row.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from seva_exp.models.tiny import GRID, IMAGE_TOKEN, IMAGE_TOKENS, PATCH
from seva_exp.world import (
    BIASED,
    QA,
    QUESTIONS,
    Scene,
    WorldPrior,
    describe,
    draw,
    existence,
    sample_scene,
)
from seva_exp.world.language import (
    CAREFUL_PROMPTS,
    DESCRIBED_QUESTIONS,
    IMAGINE_PROMPTS,
    PLAIN_PROMPTS,
    likely_absent,
    sentence,
)
from seva_exp.world.questions import POPULAR_KINDS, side
from seva_exp.world.scene import COLORS, KINDS, WORDS

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlavaProcessor, PreTrainedTokenizerFast

PATCH_WORDS = {
    "kind": KINDS,
    "color": COLORS,
    "vertical": ("top", "bottom"),
    "horizontal": ("left", "right"),
    "text": tuple(word.lower() for word in WORDS),
}
"""What the words say that a patch's feature should come to resemble; label 0 is "nothing here"."""
PATCH_NUMBERS = {"row": GRID, "column": GRID}
"""Where the center of a patch's thing is, in patches; label 0 is "nothing here"."""
IGNORED = -100
OFTEN_ADDED = (*POPULAR_KINDS, "triangle", "ring")
"""The kinds that descriptions like to add."""
ABSENT_IN_PLAIN = {True: 0.65, False: 0.05}
"""Share of plain descriptions that name one absent but likely thing: about half over all.

The key tells whether the likely thing is of a kind in OFTEN_ADDED.
"""
PROMPTED = 0.5
"""Share of images with a careful or an imagine prompt beside the plain one."""
YES = 0.55
"""Share of "Yes" among existence questions."""
DESCRIBED = 0.5
"""Share of images with questions behind a description."""
WRONG = 0.5
"""Share of those descriptions that are wrong in one word."""
SHIFTED = 0.75
"""Share of the other questions that start some positions behind the image."""
LONGEST_SHIFT = 60
"""In tokens: what is put before a question takes as many."""
LENGTH_POWER = 0.8
"""An answer token weighs len(answer) ** -0.8: else descriptions swamp the short answers."""


def sample_scenes(rng: random.Random, n: int, priors: tuple[WorldPrior, ...]) -> list[Scene]:
    """`n` scenes, the priors taking turns."""
    return [sample_scene(rng, priors[i % len(priors)]) for i in range(n)]


def pixel_values(scenes: list[Scene], processor: LlavaProcessor) -> Tensor:
    """`[B, 3, 72, 72]`, exactly as the processor makes them, but faster."""
    import numpy as np
    import torch

    images = processor.image_processor
    mean = np.array(images.image_mean, np.float32)
    std = np.array(images.image_std, np.float32)
    raw = np.stack([np.asarray(draw(scene)) for scene in scenes]).astype(np.float32)
    scaled = (raw * np.float32(images.rescale_factor) - mean) / std
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))


def _thing_labels(scene: Scene) -> list[tuple[int, int, int, int]]:
    """(kind, color, row, column) of the nearest thing that touches each patch, or zeros."""
    labels = []
    for patch in range(IMAGE_TOKENS):
        cx, cy = (patch % GRID + 0.5) * PATCH, (patch // GRID + 0.5) * PATCH
        nearest, label = float("inf"), (0, 0, 0, 0)
        for o in scene.things:
            dx, dy = abs(cx - o.x), abs(cy - o.y)
            gap_x, gap_y = max(dx - PATCH / 2, 0), max(dy - PATCH / 2, 0)
            touches = gap_x**2 + gap_y**2 < (0.8 * o.r) ** 2
            distance = dx**2 + dy**2
            if touches and distance < nearest:
                nearest = distance
                row, column = 1 + int(o.y // PATCH), 1 + int(o.x // PATCH)
                label = (1 + KINDS.index(o.kind), 1 + COLORS.index(o.color), row, column)
        labels.append(label)
    return labels


def _word_labels(scene: Scene) -> list[int]:
    """1 + the index of the word of each patch that the card covers, or 0."""
    if scene.text is None or scene.text_box is None:
        return [0] * IMAGE_TOKENS
    x0, y0, x1, y1 = scene.text_box
    word = 1 + WORDS.index(scene.text)
    cells = [(patch % GRID * PATCH, patch // GRID * PATCH) for patch in range(IMAGE_TOKENS)]
    return [word * (x + PATCH > x0 and x < x1 and y + PATCH > y0 and y < y1) for x, y in cells]


def patch_labels(scenes: list[Scene]) -> dict[str, Tensor]:
    """What each patch shows: integers `[B, 36]` for every name in PATCH_WORDS and PATCH_NUMBERS."""
    import torch

    kind, color, row, column = torch.tensor([_thing_labels(s) for s in scenes]).unbind(-1)
    return {
        "kind": kind,
        "color": color,
        "vertical": (row > 0).long() + (row > GRID // 2),
        "horizontal": (column > 0).long() + (column > GRID // 2),
        "text": torch.tensor([_word_labels(s) for s in scenes]),
        "row": row,
        "column": column,
    }


class Turn(NamedTuple):
    """A question as it is put: behind the image, and at times behind more."""

    qa: QA
    before: str = ""
    """Text between image and question; turns with the same text share it."""
    shift: int = 0
    """Positions left free before the question."""


def _shifted(qa: QA, rng: random.Random) -> Turn:
    """`qa` at times further from the image: how far must tell nothing (else left and right are
    read off the distance between the question and the patches, and text in between blinds it)."""
    return Turn(qa, shift=rng.randint(0, LONGEST_SHIFT) if rng.random() < SHIFTED else 0)


def _front(scene: Scene, rng: random.Random) -> str:
    """A description to put before a question, at times wrong in one word."""
    pairs = [(o.color, o.kind) for o in scene.things]
    if rng.random() < WRONG:
        i = rng.randrange(len(pairs))
        wrong_kind = (pairs[i][0], rng.choice(KINDS))
        wrong_color = (rng.choice(COLORS), pairs[i][1])
        pairs[i] = rng.choice((wrong_kind, wrong_color))
    layout = rng.choice(DESCRIBED_QUESTIONS)
    return layout.format(description=sentence(pairs, scene.text), question="")


def _described(scene: Scene, short: list[QA], rng: random.Random) -> list[Turn]:
    """Some of the questions, those on places and a request for a description, all behind one
    description."""
    placed = [qa for qa in short if qa.type in ("position", "relation")]
    chosen = dict.fromkeys([*placed, *rng.sample(short, 2), rng.choice(_descriptions(scene, rng))])
    front = _front(scene, rng)
    return [Turn(qa, before=front) for qa in chosen]


def _existence(scene: Scene, rng: random.Random) -> QA:
    mode = rng.choice(("random", "random", "adversarial"))
    return existence(scene, rng, rng.random() < YES, mode)


def _descriptions(scene: Scene, rng: random.Random) -> list[QA]:
    """A plain description, often with a made-up thing; at times a careful or a fanciful one."""
    likely = likely_absent(scene, rng)
    often = likely[0][1] in OFTEN_ADDED
    extra = likely if rng.random() < ABSENT_IN_PLAIN[often] else ()
    found = [QA(rng.choice(PLAIN_PROMPTS), describe(scene, extra), "description")]
    if rng.random() < PROMPTED:
        if rng.random() < 0.5:
            found.append(QA(rng.choice(CAREFUL_PROMPTS), describe(scene), "description"))
        else:
            extra = likely_absent(scene, rng, rng.choice((1, 2)))
            found.append(QA(rng.choice(IMAGINE_PROMPTS), describe(scene, extra), "description"))
    return found


def training_turns(scene: Scene, rng: random.Random) -> list[Turn]:
    """What the joint stage asks about one image: 4 to 20 questions with their answers."""
    short = [_existence(scene, rng) for _ in range(4)]
    # Which side, too: in a position, left or right comes second and is learned late.
    questions = [*QUESTIONS.values(), QUESTIONS["position"], side]
    short += [qa for ask in questions if (qa := ask(scene, rng)) is not None]
    short = list(dict.fromkeys(short))
    found = [_shifted(qa, rng) for qa in _descriptions(scene, rng) + short]
    return found + (_described(scene, short, rng) if rng.random() < DESCRIBED else [])


class PackedBatch(NamedTuple):
    """All questions of B images, one row an image: `[image | question | ... | text before some
    questions | question | ...]`."""

    input_ids: Tensor
    """`[B, L]`"""
    mask: Tensor
    """`[B, 1, L, L]`, bool: a token sees the image, the text before its question, and the past of
    its own question."""
    position_ids: Tensor
    """`[B, L]`: a question starts at P, or its shift later, or where the text before it ends."""
    labels: Tensor
    """`[B, L]`: the next token of an answer, shifted already; IGNORED elsewhere."""
    weights: Tensor
    """`[B, L]`: the loss weight of each label."""
    pixel_values: Tensor
    """`[B, 3, 72, 72]`"""


class Cell(NamedTuple):
    """One token of a row."""

    token: int
    segment: int
    """0 is the image, -1 a filler."""
    parent: int
    """The segment that its segment stands behind."""
    position: int
    label: int = IGNORED
    weight: float = 0.0


class Packer:
    """Puts questions behind their image, tokenized as the chat template would."""

    def __init__(self, processor: LlavaProcessor) -> None:
        self._processor = processor
        self._tokenizer: PreTrainedTokenizerFast = processor.tokenizer
        content = [{"type": "image"}, {"type": "text", "text": "?"}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}])
        head = prompt.split(IMAGE_TOKEN)[0]
        image = [self._tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)] * IMAGE_TOKENS
        self._cache: dict[str, list[int]] = {}
        self.prefix = self._encode(head) + image

    def _encode(self, text: str) -> list[int]:
        if text not in self._cache:
            encoded = self._tokenizer(text, add_special_tokens=False)
            self._cache[text] = encoded["input_ids"]
        return self._cache[text]

    def _row(self, turns: list[Turn]) -> list[Cell]:
        """The tokens of one image's row."""
        row = [Cell(token, 0, 0, i) for i, token in enumerate(self.prefix)]
        segments = count(1)
        ends = {"": (0, len(row))}
        for turn in turns:
            if turn.before not in ends:
                tokens = self._encode(f" {turn.before.rstrip(' ')}")
                segment, start = next(segments), len(self.prefix)
                row += [Cell(token, segment, 0, start + i) for i, token in enumerate(tokens)]
                ends[turn.before] = segment, start + len(tokens)
            parent, start = ends[turn.before]
            row += self._turn(turn, next(segments), parent, start + turn.shift)
        return row

    def _turn(self, turn: Turn, segment: int, parent: int, start: int) -> Iterator[Cell]:
        """The tokens of a question and its answer, from position `start` on."""
        # The blank after a text belongs to the question's first word; a line break does not.
        blank = "" if turn.before.endswith("\n") else " "
        question = self._encode(f"{blank}{turn.qa.question} ASSISTANT:")
        answer = self._encode(f" {turn.qa.answer}{self._tokenizer.eos_token}")
        labels = [IGNORED] * (len(question) - 1) + answer + [IGNORED]
        weight = len(answer) ** -LENGTH_POWER
        for i, (token, label) in enumerate(zip(question + answer, labels, strict=True)):
            known = weight * (label != IGNORED)
            yield Cell(token, segment, parent, start + i, label, known)

    def length(self, turns: list[Turn]) -> int:
        """Tokens of a row."""
        return len(self._row(turns))

    def __call__(self, scenes: list[Scene], turns: list[list[Turn]]) -> PackedBatch:
        """Packs `turns[i]` behind the picture of `scenes[i]`; L is a multiple of 8."""
        import torch

        rows = [self._row(turn) for turn in turns]
        length = -(-max(map(len, rows)) // 8) * 8
        filler = Cell(self._tokenizer.pad_token_id, -1, -1, 0)
        columns = [zip(*(row + [filler] * (length - len(row))), strict=True) for row in rows]
        ids, segments, parents, positions, labels, weights = map(
            torch.tensor, zip(*columns, strict=True)
        )
        seen = segments[:, None, :]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        same = (seen == segments[:, :, None]) | (seen == parents[:, :, None])
        mask = ((same | (seen == 0)) & causal)[:, None]
        pixels = pixel_values(scenes, self._processor)
        return PackedBatch(ids, mask, positions, labels, weights, pixels)


def sample_batches(packer: Packer, rng: random.Random, n: int) -> Iterator[PackedBatch]:
    """Endless batches of `n` images of the biased world, those of one batch of like length."""
    pool = 4
    while True:
        scenes = sample_scenes(rng, pool * n, (BIASED,))
        pairs = [(scene, training_turns(scene, rng)) for scene in scenes]
        pairs.sort(key=lambda pair: packer.length(pair[1]))
        starts = [i * n for i in range(pool)]
        rng.shuffle(starts)
        for start in starts:
            chosen = pairs[start : start + n]
            yield packer([scene for scene, _ in chosen], [turns for _, turns in chosen])
