"""What the training tests share: preferences on drawn scenes, one run, and the plain way to a
log-probability."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from seva_exp import Machine
from seva_exp.core.interfaces import EncodedImage, Placement
from seva_exp.core.progress import progress
from seva_exp.core.randomness import python_rng
from seva_exp.models import TinyModel
from seva_exp.models.vlm import Vlm, load
from seva_exp.training import DpoTraining
from seva_exp.training.collate import Preference
from seva_exp.training.dpo import trainer_for
from seva_exp.training.driver import TrainingJob
from seva_exp.training.driver import train as driven
from seva_exp.training.spec import Training
from seva_exp.world import UNBIASED, draw, sample_scene

QUESTIONS = ["Describe the image.", "How many objects are there?", "Is there a star in the image?"]
CHOSEN = ["The image shows a red star.", "two", "Yes"]
REJECTED = ["The image shows a blue moon and a green ring.", "three", "No", "four stars", "green"]


def tiny(adapter: Path | None = None, **machine) -> Vlm:
    return load(TinyModel(), Machine(**machine), adapter)


def picture(index: int):
    return draw(sample_scene(python_rng(0, "test", str(index)), UNBIASED))


def preferences(
    vlm: Vlm,
    n: int,
    rejected: Sequence[int] = (1,),
    views: Sequence[int] = (0,),
    crossed: bool = False,
):
    """``n`` preferences; number i has rejected[i] answers and views[i] pictures (cyclically). The
    later the view, the weaker."""

    def made(i: int) -> Preference:
        question, shown = QUESTIONS[i % 3], range(views[i % len(views)])
        several = rejected[i % len(rejected)]
        wrong = [REJECTED[(i + k) % len(REJECTED)] for k in range(several)]
        return Preference(
            f"s{i}",
            question,
            partial(picture, i),
            vlm.answer_ids(question, CHOSEN[i % 3]),
            tuple(vlm.answer_ids(question, text) for text in wrong),
            tuple(partial(view, vlm, i, k) for k in shown),
            tuple(f"view{k}" for k in shown),
            image_rejected=tuple((several - 1 - k) % several for k in shown),
            strengths=tuple(float(-k) for k in shown),
            crossed=crossed,
        )

    return [made(i) for i in range(n)]


def view(vlm: Vlm, index: int, number: int) -> EncodedImage:
    """Another picture than the clean one."""
    return vlm.encode_image(picture(100 + 10 * index + number))


def placement(work: Path, **changes) -> Placement:
    work.mkdir(exist_ok=True, parents=True)
    values = {
        "device": "cpu",
        "batch_size": 8,
        "train_batch_size": 8,
        "gradient_checkpointing": False,
        "progress": partial(progress, "off"),
        "work": work,
    }
    return Placement(**(values | changes))


def quiet(step: int, row: dict) -> None:
    """No one listens."""


def job(vlm: Vlm, spec: Training, place: Placement, seed: int = 0, on_step=quiet, **changes):
    """A training of the model that is called ``tiny``."""
    return TrainingJob(vlm, spec, place, seed, "tiny", on_step, **changes)


def train(
    job: TrainingJob, rows: Sequence[Preference], held_out: Sequence[Preference] = ()
) -> tuple[Path, list[dict]]:
    """DPO on the rows: the adapter's folder and the logged rows."""
    return driven(job, trainer_for(job, rows, held_out))


def trained(
    work: Path,
    spec: DpoTraining,
    n: int = 6,
    seed: int = 0,
    rejected: Sequence[int] = (1,),
    views: Sequence[int] = (0,),
    start: Path | None = None,
    reference: str = "start",
    held_out: int = 0,
    **changes,
):
    vlm = tiny()
    rows = preferences(vlm, n + held_out, rejected, views)
    place = placement(work, **changes)
    of = job(vlm, spec, place, seed, start=start, reference=reference)
    return train(of, rows[:n], rows[n:])


def logprob(
    vlm: Vlm, preference: Preference, answer: tuple[int, ...], image: EncodedImage | None = None
) -> float:
    """Summed log-probability of an answer, one sequence alone, token by token."""
    said = next_tokens(vlm, preference, answer, image)
    return sum(said[i][token].item() for i, token in enumerate(answer))


def kl(policy: Vlm, base: Vlm, preference: Preference, answer: tuple[int, ...]) -> float:
    """KL(base || policy) of the next token, summed over the answer's tokens."""
    ours, theirs = (next_tokens(vlm, preference, answer) for vlm in (policy, base))
    return sum(
        (q.exp() * (q - p)).sum().item()
        for p, q in zip(ours.double(), theirs.double(), strict=True)
    )


def next_tokens(
    vlm: Vlm, preference: Preference, answer: tuple[int, ...], image: EncodedImage | None = None
) -> torch.Tensor:
    """Log-probabilities of all tokens where each of the answer's is predicted: [T, V]."""
    return next_logits(vlm, preference, answer, image).log_softmax(-1)


def next_logits(
    vlm: Vlm, preference: Preference, answer: tuple[int, ...], image: EncodedImage | None = None
) -> torch.Tensor:
    """Logits of all tokens where each of the answer's is predicted, one sequence alone: [T, V]."""
    shown = vlm.encode_image(preference.load()) if image is None else image
    encoded = vlm.encode(shown, preference.prompt)
    ids = torch.tensor([encoded.ids + answer])
    types = {k: torch.tensor([v + (0,) * len(answer)]) for k, v in encoded.types.items()}
    inputs = vlm.image_inputs([encoded.image]) | types
    with torch.inference_mode():
        logits = vlm.model(input_ids=ids, **inputs).logits[0]
    start = len(encoded.ids)
    return logits[start - 1 : start + len(answer) - 1]


def first_loss(
    work: Path, spec: DpoTraining, rejected=(1,), views=(0,), start=None, reference="start", n=6
):
    """The trainer and the loss (with its graph) of its first step, all in one micro-batch."""
    vlm = tiny()
    rows = preferences(vlm, n, rejected, views, spec.crossed)
    trainer = trainer_for(job(vlm, spec, placement(work), start=start, reference=reference), rows)
    batches, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, "cpu")
    return trainer, trainer.compute_loss(trainer.model, batches[0]), batches[0]
