"""The embedded world's benchmark: held-out pictures of the unbiased world, exact answers.

POPE-like existence questions (random, popular, adversarial), visual questions by type, text
reading, and CHAIR on descriptions, with recall and length beside it: a model that says less
hallucinates less, so the three belong together.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from seva_exp.benchmarks.base import Benchmark, Metric, Question, accuracy, ratio
from seva_exp.benchmarks.describe import DescribeAndRespond
from seva_exp.benchmarks.mentions import DESCRIBE, mention_counts, mention_metrics
from seva_exp.core.randomness import python_rng
from seva_exp.core.records import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image

    from seva_exp.world import Scene

POPE_SPLITS = ("random", "popular", "adversarial")
VQA_TYPES = ("color", "kind", "count", "position", "relation", "text")
PROMPT = "Describe the image."
SHORT_ANSWER, DESCRIPTION = 8, 48


class ShapesBenchmark(Benchmark):
    """Held-out pictures of the unbiased world. Questions do not depend on the run's seed, so that
    the base model is evaluated once for all runs.

    With describe-and-respond the request for a description, too, is asked behind the model's own
    first description: CHAIR then measures what the model makes of it on a second look, not that
    first one (which is in ``descriptions.jsonl``).
    """

    described: ClassVar[DescribeAndRespond] = DescribeAndRespond(
        prompt=PROMPT, max_new_tokens=DESCRIPTION
    )
    """A plain prompt and a layout that the embedded model was trained on. Careful prompts and the
    layout on one line gave the same scores."""

    kind: Literal["shapes"] = "shapes"
    images: int = Field(400, ge=1)
    """Pictures; each has 6 existence questions, up to 6 visual ones and one description."""
    seed: int = Field(9000, ge=0)
    """Seed of pictures and questions, apart from the run's."""

    @property
    def plain_protocol(self) -> str:
        return "seva_exp-shapes-v1"

    def scene(self, index: int) -> tuple[Scene, random.Random]:
        """The picture's scene, and the generator of its questions."""
        from seva_exp.world import UNBIASED, sample_scene

        rng = python_rng(self.seed, "shapes-benchmark", str(index))
        return sample_scene(rng, UNBIASED), rng

    def questions(self, root: Path | None = None) -> Iterator[Question]:
        """Existence, visual and description questions of every picture."""
        for index in range(self.images):
            yield from self._of_picture(index)

    def _of_picture(self, index: int) -> Iterator[Question]:
        from seva_exp.world import QUESTIONS, describe, existence

        scene, rng = self.scene(index)
        group = f"{index:06d}"
        ask = partial(Question, group=group, load=partial(_draw, scene))
        for split in POPE_SPLITS:
            for want in (True, False):
                qa = existence(scene, rng, want, split)
                answer = "yes" if want else "no"
                yield ask(
                    id=f"{group}-{split}-{answer}",
                    type=f"pope_{split}",
                    prompt=qa.question,
                    target=answer,
                    max_new_tokens=SHORT_ANSWER,
                )
        for type_ in VQA_TYPES:
            if found := QUESTIONS[type_](scene, rng):
                yield ask(
                    id=f"{group}-{type_}",
                    type=type_,
                    prompt=found.question,
                    target=found.answer,
                    max_new_tokens=SHORT_ANSWER,
                )
        yield ask(
            id=f"{group}-describe",
            type=DESCRIBE,
            prompt=PROMPT,
            target=describe(scene),
            max_new_tokens=DESCRIPTION,
        )

    def predict(self, question: Question, text: str) -> Prediction:
        """Score one answer by its type's rule."""
        if question.type == DESCRIBE:
            extracted, score, counts = describe_counts(question.target, text)
        elif question.type.startswith("pope_"):
            extracted, score, counts = existence_counts(question.target, text)
        else:
            extracted = normalise(text)
            score = float(extracted == normalise(question.target))
            counts = {"correct": score, "asked": 1.0}
        return Prediction(
            sample_id=question.id,
            group=question.group,
            type=question.type,
            prompt=question.prompt,
            text=text,
            extracted=extracted,
            target=question.target,
            score=score,
            counts=counts,
        )

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """POPE, VQA and CHAIR, each split by split and together."""
        pope = tuple(f"pope_{split}" for split in POPE_SPLITS)
        vqa = tuple(f"vqa_{type_}" for type_ in VQA_TYPES)
        return (
            Metric("pope", "accuracy", accuracy, (pope,)),
            Metric("pope", "f1", ratio("twice_hits", "f1_below"), (pope,)),
            Metric("pope", "yes_rate", ratio("yes"), (pope,), "neutral"),
            *(Metric(split, "accuracy", accuracy, ((split,),)) for split in pope),
            Metric("vqa", "mean", accuracy, tuple((type_,) for type_ in VQA_TYPES)),
            *(
                Metric(split, "accuracy", accuracy, ((type_,),))
                for split, type_ in zip(vqa, VQA_TYPES, strict=True)
            ),
            *mention_metrics("chair"),
        )


def _draw(scene: Scene) -> Image:
    from seva_exp.world import draw

    return draw(scene)


def normalise(text: str) -> str:
    """Lower case, without outer blanks and a final full stop."""
    return text.strip().rstrip(".").strip().lower()


def yes_or_no(text: str) -> str:
    """``yes`` or ``no`` when the answer's first word is that, else an empty string (counted as
    wrong, never guessed)."""
    words = re.findall(r"[a-z]+", text.lower())
    return words[0] if words and words[0] in ("yes", "no") else ""


def existence_counts(target: str, text: str) -> tuple[str, float, dict[str, float]]:
    """POPE's counts: accuracy, the share of yes, and F1 of the class yes = 2 TP / (2 TP + FP +
    FN)."""
    answer = yes_or_no(text)
    correct = float(answer == target)
    hit = float(answer == target == "yes")
    counts = {
        "correct": correct,
        "asked": 1.0,
        "yes": float(answer == "yes"),
        "twice_hits": 2 * hit,
        "f1_below": float(answer == "yes") + float(target == "yes"),
    }
    return answer, correct, counts


def describe_counts(target: str, text: str) -> tuple[str, float, dict[str, float]]:
    """CHAIR on (colour, kind)."""
    from seva_exp.world import mentions

    mentioned = mentions(text)
    counts = mention_counts(mentioned, mentions(target), text)
    extracted = ", ".join(f"{color or '?'} {kind}" for color, kind in mentioned)
    return extracted, 1 - counts["any_wrong"], counts
