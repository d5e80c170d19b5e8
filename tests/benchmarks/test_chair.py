"""CHAIR: which objects a text mentions, by hand-worked cases; the four numbers."""

from __future__ import annotations

import pytest

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.chair import chair
from seva_exp.benchmarks.coco_objects import read_synonyms
from seva_exp.benchmarks.statistics import scores
from seva_exp.records import Prediction

OBJECTS = read_synonyms(
    """person, girl, boy, man, woman, child, people, adult, baby, passenger
bus, minibus
train, locomotive
airplane, jet, plane
traffic light, street light
dog, puppy
bear
sheep, lamb
skis, ski
sports ball, ball
wine glass
knife
hot dog
chair, seat, stool
couch, sofa
dining table, table
tv, monitor
bed
toilet
cell phone, mobile phone, phone
scissors
teddy bear
tie
mouse
"""
)

TEXTS = [
    ("A man and two women.", ["person", "person"]), ("Children play", ["person"]),
    ("PEOPLE", ["person"]), ("The man's dog", ["person", "dog"]), ("dogs, puppies", ["dog", "dog"]),
    ("buses and a minibus", ["bus", "bus"]), ("a traffic light", ["traffic light"]),
    ("traffic lights", ["traffic light"]), ("street  lights", ["traffic light"]), ("light", []),
    ("a teddy bear", ["teddy bear"]), ("teddy bears and a bear", ["teddy bear", "bear"]),
    ("a baby bear", ["bear"]), ("an adult sheep", ["sheep"]), ("a baby", ["person"]),
    ("a baby on a sheep", ["person", "sheep"]), ("a passenger jet", ["airplane"]),
    ("a passenger train", ["train"]), ("a passenger", ["person"]), ("train tracks", []),
    ("a train on the track", ["train"]), ("a bow tie", ["tie"]), ("a toilet seat", ["toilet"]),
    ("the seat of the toilet", ["toilet"]), ("a seat", ["chair"]), ("wine glasses", ["wine glass"]),
    ("glasses", []), ("knives", ["knife"]), ("hot dogs", ["hot dog"]),
    ("a hot day for dogs", ["dog"]), ("skis", ["skis"]), ("a pair of scissors", ["scissors"]),
    ("mice", ["mouse"]), ("a dining table", ["dining table"]), ("tables", ["dining table"]),
    ("cell phones", ["cell phone"]), ("a ball", ["sports ball"]), ("lambs", ["sheep"]),
    ("", []), ("No</s>", []), ("not sure, yes", []), ("$1,200, 12 %, two", []), ("狗。", []),
    ("doghouse", []), ("bed-room", ["bed"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "found"), TEXTS)
def test_mentions_are_synonyms_in_singular_or_plural(text, found):
    assert OBJECTS.mentions(text) == found


def predicted(texts: list[tuple[str, tuple[str, ...]]]) -> list[Prediction]:
    found = []
    for i, (text, there) in enumerate(texts):
        one = chair(text, ", ".join(there), {"objects": OBJECTS, "there": there})
        found.append(
            Prediction(
                str(i), str(i), "describe", "", text, one.extracted, "", one.score, one.counts
            )
        )
    return found


def test_the_four_numbers():
    """Three mentions, one made up; then three, two made up (a repeat counts); then none."""
    texts = [
        ("A dog and a man on a couch.", ("dog", "person")),
        ("A bed, a bed and a tv", ("tv", "chair")),
        ("Nothing", ("bus",)),
    ]
    benchmark = OFFICIAL["chair"](kind="chair")
    found = scores(benchmark.metrics, predicted(texts), model="m", benchmark="chair", protocol="p")
    values = {score.metric: score.value for score in found}
    assert values["chair_i"] == pytest.approx(100 * 3 / 6)
    assert values["chair_s"] == pytest.approx(100 * 2 / 3)
    assert values["recall"] == pytest.approx(100 * 3 / 5)
    assert values["words"] == pytest.approx((8 + 7 + 1) / 3)


def test_the_draw_is_part_of_the_protocols_name():
    names = {
        OFFICIAL["chair"](kind="chair", images=images, seed=seed).protocol_name
        for images in (100, 500)
        for seed in (0, 1)
    }
    assert names == {f"llava15+{n}.seed{s}" for n in (100, 500) for s in (0, 1)}
