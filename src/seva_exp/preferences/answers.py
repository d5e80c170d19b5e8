"""The answers stage's work: one view's answer to every sample, shard by shard, resumable."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

from seva_exp.core.disk import warn_of_damage
from seva_exp.core.files import whole_file
from seva_exp.core.interfaces import (
    TOO_LONG,
    AnswerEngine,
    ModelSource,
    Placement,
    Reply,
    Request,
    VisionLanguageModel,
)
from seva_exp.core.progress import Meter
from seva_exp.core.records import CLEAN, Answer, Sample, from_json
from seva_exp.core.spec import Json
from seva_exp.core.texts import REPLACEMENT, is_empty
from seva_exp.decoding.engines import engine_of
from seva_exp.decoding.spec import Generation
from seva_exp.inputs.images import open_image
from seva_exp.inputs.views import PartnerPictures, View
from seva_exp.preferences.shards import Shard, Shards

PREVIEW_SIDE = 336
LOADING = "loading_seconds"
"""In a summary: the time until the model was there, of the process that waited longest."""
TOLD = 20
"""Samples that a summary names."""


@dataclass
class Asker:
    """How one view asks: of which model, below which ``root`` the pictures lie, and where it is
    computed. What is sampled draws from the view's seed. ``everyone`` reads all samples of the data
    set, whichever are asked, so that a subset changes no partner."""

    source: ModelSource
    load_model: Callable[[], VisionLanguageModel]
    everyone: Callable[[], Iterator[Sample]]
    root: Path
    view: View
    generation: Generation
    placement: Placement
    against: View | None = None
    """What a contrast looks at beside the questions."""
    loading: float = 0.0
    """Seconds until the engine was there."""

    @cached_property
    def pictures(self) -> PartnerPictures:
        """Of which partners are drawn; empty where the view takes none."""
        return PartnerPictures(self.everyone() if self.view.mixes else ())

    @cached_property
    def engine(self) -> AnswerEngine:
        """Made, and the model loaded, when there is something to ask."""
        start, place = time.monotonic(), self.placement
        asked = self.load_model, place, self.view, self.against
        engine = engine_of(self.generation, self.source, *asked)
        self.loading = time.monotonic() - start
        return engine

    def request(self, sample: Sample) -> Request:
        """The engine's request for a sample."""
        view = self.view
        # What a view makes of a picture may differ from sample to sample.
        key = sample.id if view.changes_pictures else sample.image.sha256
        images = [sample.image, *view.partners(sample, self.pictures)]
        prompt = view.prompt(sample.prompt, sample.id)
        load = partial(view.picture, self.root, images, sample.id)
        return Request(sample.id, key, load, prompt, self.generation.max_new_tokens)


def answer_shards(shards: Shards, left: Sequence[Shard], asker: Asker, meter: Meter) -> int:
    """Answer shards of ``left`` that no other process takes, until all are done; return the number
    of generated tokens."""
    before, tokens = shards.before(), 0
    while (found := shards.take(left))[0]:
        taken, inherited = found
        rows = [row for shard in taken for row in before.pop(shard.number, ())]
        meter.update(len(rows))
        tokens += _answer_claim(shards, taken, [*rows, *inherited], asker, meter)
    return tokens


def _answer_claim(
    shards: Shards, taken: list[Shard], known: list[Json], asker: Asker, meter: Meter
) -> int:
    """Shards that are asked together; ``known`` answers to some of their samples are there."""
    journal, tokens = shards.journal(), 0
    done = {row["sample_id"]: row for row in known}
    samples = {shard: shards.read(shard) for shard in taken}
    todo = {s.id: shard for shard in taken for s in samples[shard] if s.id not in done}
    requests = [asker.request(s) for found in samples.values() for s in found if s.id in todo]
    for answers in _answered(requests, asker):
        rows = [asdict(a) | {"shard": todo[a.sample_id].number} for a in answers]
        done.update((row["sample_id"], row) for row in rows)
        journal.append(rows)
        tokens += sum(len(answer.tokens) for answer in answers)
        meter.update(len(answers))
    for shard in taken:
        shards.finish(shard, (_without_shard(done[s.id]) for s in samples[shard]))
    journal.path.unlink(missing_ok=True)
    return tokens


def _without_shard(row: Json) -> Answer:
    return from_json(Answer, {name: value for name, value in row.items() if name != "shard"})


def _answered(requests: Sequence[Request], asker: Asker) -> Iterator[list[Answer]]:
    if requests:
        prompts = {request.id: request.prompt for request in requests}
        for replies in asker.engine.run(requests):
            yield [_answer(asker.view, prompts[reply.id], reply) for reply in replies]


def _answer(view: View, prompt: str, reply: Reply) -> Answer:
    fields = (reply.text, reply.tokens, reply.stop, reply.logprobs)
    return Answer(reply.id, view.name, prompt, *fields)


@dataclass
class _Named:
    """How many samples, of which the first are named."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, id: str) -> None:
        self.count += 1
        if self.count <= TOLD:
            self.first.append(id)


def summarize(answers: Path, new_tokens: int, seconds: float) -> Json:
    """The answers stage's summary, from its file. A server's answers have no tokens to count."""
    count = counted = tokens = cut = empty = 0
    too_long, broken = _Named(), _Named()
    with answers.open("rb") as lines:
        for row in map(json.loads, lines):
            count += 1
            counted += bool(row["tokens"])
            tokens += len(row["tokens"])
            cut += row["stop"] == "length"
            empty += row["stop"] != TOO_LONG and is_empty(row["text"])
            if REPLACEMENT in row["text"]:
                broken.add(row["sample_id"])
            if row["stop"] == TOO_LONG:
                too_long.add(row["sample_id"])
    summary: Json = {"answers": count, "cut_at_max_new_tokens": cut, "empty": empty}
    if broken.count:
        told = [f"{id}: what was no text in its answer became {REPLACEMENT}" for id in broken.first]
        summary |= {"with_broken_characters": broken.count, "remarks": told}
    if too_long.count:
        told = [f"{id}: {TOO_LONG} (no room in the model's context)" for id in too_long.first]
        summary |= {TOO_LONG: too_long.count, "left_out": told}
    if counted or not count:
        summary |= {
            "mean_tokens": round(tokens / max(1, counted), 2),
            "tokens_per_second": round(new_tokens / max(seconds, 1e-9), 1),
        }
    return summary


def _are_whole(index: Path) -> bool:
    """Whether previews were written, and can be read."""
    if not index.exists():
        return False
    try:
        for row in json.loads(index.read_bytes()):
            _, file = row["sample_id"], row["file"]
            open_image(index.parent / file)
    except (ValueError, TypeError, LookupError):  # UnusableImage is a ValueError
        warn_of_damage(f"{index}: is damaged, or a picture beside it; the previews are made again")
        return False
    return True


def write_previews(asker: Asker, samples: Iterator[Sample], count: int) -> None:
    """Pictures of what the model was shown, for the report: the first ``count`` samples."""
    view, folder = asker.view, asker.placement.work / "previews"
    index = folder / "index.json"
    if view.name == CLEAN or _are_whole(index):
        return
    folder.mkdir(exist_ok=True)
    names = []
    for number, sample in enumerate(islice(samples, count)):
        load = asker.request(sample).load
        assert load, "a sample has a picture"
        picture = load()
        if view.augmentation.space == "pixels":
            vlm = asker.load_model()
            picture = vlm.to_picture(view.pixels(vlm, vlm.encode_image(picture), sample.id))
        picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        picture.save(folder / f"{number:03d}.png")
        names.append({"sample_id": sample.id, "file": f"{number:03d}.png"})
    with whole_file(index) as file:
        file.write(json.dumps(names, ensure_ascii=False, indent=1).encode())
