"""The answers stage's work: one view's answer to every sample, batch by batch, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from seva_exp.generation.engine import Engine
from seva_exp.generation.sampling import Sampling
from seva_exp.generation.spec import HfGeneration
from seva_exp.interfaces import Placement, Reply, Request, VisionLanguageModel
from seva_exp.records import CLEAN, Answer, Sample, from_json, write_jsonl
from seva_exp.spec import Json
from seva_exp.store import Journal
from seva_exp.views import Pictures, View

PREVIEW_SIDE = 336


def answer_samples(
    load_model: Callable[[], VisionLanguageModel],
    samples: Sequence[Sample],
    pictures: Pictures,
    root: Path,
    view: View,
    generation: HfGeneration,
    placement: Placement,
    previews: int,
) -> Json:
    """Write ``answers.jsonl`` (in the samples' order); return counts and rates. ``samples`` may be
    some of the data set's only, or none; ``pictures`` are those of all of it, so that a subset
    changes no partner. What is sampled draws from the view's seed."""
    journal = Journal(placement.work)
    done = {row["sample_id"] for row in journal.rows}
    length = generation.max_new_tokens
    requests = {s.id: _request(s, root, view, pictures, length) for s in samples}
    todo = [request for id, request in requests.items() if id not in done]
    start, tokens = time.monotonic(), 0
    if todo:
        engine = _engine(load_model(), placement, view, generation)
        with placement.progress(f"answers.{view.name}", len(samples), "answer") as meter:
            meter.update(len(samples) - len(todo))
            for replies in engine.run(todo):
                found = [_answer(view, requests[reply.id], reply) for reply in replies]
                journal.append([asdict(answer) for answer in found])
                tokens += sum(len(answer.tokens) for answer in found)
                meter.update(len(found))
    by_id = {row["sample_id"]: from_json(Answer, row) for row in journal.rows}
    answers = [by_id[sample.id] for sample in samples]
    if view.name != CLEAN:
        _write_previews(load_model, samples[:previews], requests, view, placement.work)
    write_jsonl(placement.work / "answers.jsonl", answers)
    return _summary(answers, tokens, time.monotonic() - start)


def _summary(answers: list[Answer], new_tokens: int, seconds: float) -> Json:
    lengths = [len(answer.tokens) for answer in answers]
    return {
        "answers": len(answers),
        "mean_tokens": round(sum(lengths) / max(1, len(lengths)), 2),
        "cut_at_max_new_tokens": sum(answer.stop == "length" for answer in answers),
        "tokens_per_second": round(new_tokens / max(seconds, 1e-9), 1),
    }


def _request(
    sample: Sample, root: Path, view: View, pictures: Pictures, max_new_tokens: int
) -> Request:
    # A view may differ from sample to sample, so a picture is shared by the clean view only.
    key = sample.image.sha256 if view.augmentation is None else sample.id
    images = [sample.image, *view.partners(sample, pictures)]
    prompt = view.prompt(sample.prompt, sample.id)
    load = partial(view.picture, root, images, sample.id)
    return Request(sample.id, key, load, prompt, max_new_tokens)


def _engine(
    vlm: VisionLanguageModel, placement: Placement, view: View, generation: HfGeneration
) -> Engine:
    return Engine(
        vlm,
        placement.batch_size,
        lambda request, image: view.pixels(vlm, image, request.id),
        sampling=_sampling(generation, view),
        tokens=placement.generation_tokens,
        logprobs=generation.logprobs,
        warn=placement.warn,
    )


def _sampling(generation: HfGeneration, view: View) -> Sampling | None:
    """The view's kind is in the purpose, never its name: two names of one view share answers."""
    if not generation.seeded:
        return None
    kind = view.augmentation.kind if view.augmentation else CLEAN
    return Sampling(generation.temperature, generation.top_p, view.seed, f"sampling/{kind}")


def _answer(view: View, request: Request, reply: Reply) -> Answer:
    said = (reply.text, reply.tokens, reply.stop, reply.logprobs)
    return Answer(reply.id, view.name, request.prompt, *said)


def _write_previews(
    load_model: Callable[[], VisionLanguageModel],
    samples: Sequence[Sample],
    requests: dict[str, Request],
    view: View,
    work: Path,
) -> None:
    """Pictures of what the model was shown, for the report: the first few samples."""
    folder = work / "previews"
    folder.mkdir(exist_ok=True)
    for index, sample in enumerate(samples):
        picture = requests[sample.id].load()
        if view.augmentation.space == "pixels":
            vlm = load_model()
            picture = vlm.to_picture(view.pixels(vlm, vlm.encode_image(picture), sample.id))
        picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        picture.save(folder / f"{index:03d}.png")
    names = [{"sample_id": sample.id, "file": f"{i:03d}.png"} for i, sample in enumerate(samples)]
    (folder / "index.json").write_text(_json(names), encoding="utf-8")


def _json(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, indent=1)
