"""CHAIR: which objects a text mentions, as the published script has it and as a reader would; the
four numbers."""

from __future__ import annotations

import pickle
import shutil

import pytest

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.chair import READERS, chair
from seva_exp.benchmarks.statistics import scores
from seva_exp.core.records import Prediction

SYNONYMS = """\
person, girl, boy, man, woman, child, people, adult, baby, passenger, gentleman, grandchild, thief
car, taxi
motorcycle, scooter,  motor bike, motor cycle
bus, minibus
train, locomotive
airplane, jet, plane
boat, canoe
traffic light, street light
bird, goose
cat
dog, puppy, collie, corgi, doggie, doggy
horse
cow, ox, oxen, calf, buffalo
bear
sheep, lamb
skis, ski
sports ball, ball
tennis racket, racket
wine glass
bowl
knife
hot dog
cake,  cheesecake, cupcake
chair, seat, stool
couch, sofa
dining table, table
tv, monitor
bed
toilet
cell phone, mobile phone, phone, iPhone
oven, stovetop, stove, stove top oven
microwave
clock
scissors
teddy bear
tie, bow, bow tie
mouse
"""
"""Lines of the official file, its double blanks and its capital included."""
PUBLISHED, FIXED = READERS["chair"](SYNONYMS), READERS["chair_fixed"](SYNONYMS)

BOTH = [
    ("A man and two women.", ["person", "person"]), ("Children play", ["person"]),
    ("PEOPLE", ["person"]), ("The man's dog", ["person", "dog"]), ("dogs, puppies", ["dog", "dog"]),
    ("a traffic light", ["traffic light"]), ("buses", ["bus"]), ("minibuses", ["bus"]),
    ("traffic lights", ["traffic light"]), ("street  lights", ["traffic light"]), ("light", []),
    ("a teddy bear", ["teddy bear"]), ("teddy bears and a bear", ["teddy bear", "bear"]),
    ("a baby bear", ["bear"]), ("an adult sheep", ["sheep"]), ("a baby", ["person"]),
    ("a baby on a sheep", ["person", "sheep"]), ("a passenger jet", ["airplane"]),
    ("a passenger train", ["train"]), ("a passenger", ["person"]), ("train tracks", []),
    ("a train on the track", ["train"]), ("a bow tie", ["tie"]), ("bow ties", ["tie"]),
    ("a toilet seat", ["toilet"]), ("toilet seats", ["toilet"]),
    ("the seat of the toilet", ["toilet"]), ("a seat", ["chair"]), ("wine glasses", ["wine glass"]),
    ("a wine glass", ["wine glass"]), ("glasses", []), ("knives", ["knife"]),
    ("hot dogs", ["hot dog"]), ("a hot day for dogs", ["dog"]), ("skis", ["skis"]),
    ("a ski", ["skis"]), ("a pair of scissors", ["scissors"]), ("mice", ["mouse"]),
    ("a dining table", ["dining table"]), ("dining tables", ["dining table"]),
    ("cell phones", ["cell phone"]), ("a ball", ["sports ball"]), ("lambs", ["sheep"]),
    ("", []), ("No</s>", []), ("not sure, yes", []), ("$1,200, 12 %, two", []), ("狗。", []),
    ("doghouse", []), ("bed-room", []), ("geese", ["bird"]), ("calves", ["cow"]),
    ("buffaloes", ["cow"]), ("oxen", ["cow"]), ("stoves and microwaves", ["oven", "microwave"]),
    ("tennis rackets", ["tennis racket"]), ("a motor cycle", ["motorcycle"]),
    ("a dog.\nA cat.", ["dog", "cat"]), ("**dog:** big", ["dog"]),
    ("the dog’s bowl", ["dog", "bowl"]),
    ("the dogs' bowls", ["dog", "bowl"]), ("a dog... and a cat", ["dog", "cat"]),
    ("a dog—a cat", ["dog", "cat"]), ("(a dog.) A cat", ["dog", "cat"]), ("a ‘dog’", ["dog"]),
    ("a 'dog'", ["dog"]), ("it's a dog, isn't it", ["dog"]), ("a doggie, a doggy", ["dog", "dog"]),
    ("two taxis", ["car"]), ("three gentlemen", ["person"]), ("grandchildren", ["person"]),
    ("corgis", ["dog"]), ("11 o'clock", []), ("a man-made lake", []),
    ("a horse-drawn carriage", []), ("bird's-eye view", []), ("hot-dog", []),
    ("a dog-like toy", []),
]  # fmt: skip

APART = [  # the script's values come of its own code (see coco_published), a reader's by reading
    ("A bus on a street.", [], ["bus"]), ("a minibus", [], ["bus"]), ("20 ties", [], ["tie"]),
    ("canoes", [], ["boat"]), ("collies", [], ["dog"]), ("doggies", [], ["dog"]),
    ("a cheesecake", [], ["cake"]), ("cheesecakes", [], ["cake"]),
    ("a motor bike", [], ["motorcycle"]), ("an iPhone", [], ["cell phone"]),
    ("thieves", [], ["person"]), ("a cat/dog", [], ["cat", "dog"]), ("dog.cat", [], ["dog", "cat"]),
    ("a stove top oven", ["oven", "oven"], ["oven"]), ("a hot, dog", ["dog"], ["hot dog"]),
    ("a hot (dog)", ["dog"], ["hot dog"]),
    ("oxens", [], ["cow"]), ("it was the buss", ["bus"], []),
    ("a bed, (see kine)", ["bed", "cow"], ["bed"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "found"), BOTH)
def test_mentions_are_synonyms_in_singular_or_plural(text, found):
    assert FIXED.mentions(text) == found
    assert PUBLISHED.mentions(text) == found


@pytest.mark.parametrize(("text", "script", "reader"), APART)
def test_the_published_scripts_oddities_and_what_a_reader_counts(text, script, reader):
    assert PUBLISHED.mentions(text) == script
    assert FIXED.mentions(text) == reader


def test_each_protocol_counts_by_its_own_rule_in_captions_as_well(samples, tmp_path):
    """The samples' ``cross`` loses its s in the published script: it is never there, never said."""
    root = shutil.copytree(samples, tmp_path / "root")
    there = {}
    for protocol in ("llava15", "chair_fixed", "tiny"):
        benchmark = OFFICIAL["chair"](kind="chair", protocol=protocol)
        assert benchmark.protocol_name == f"{protocol}+500.seed0"
        questions = pickle.loads(pickle.dumps(list(benchmark.questions(root))))
        crossed = next(q for q in questions if "cross" in q.target)
        there[protocol] = benchmark.predict(crossed, "A cross and two circles.").extracted
    reader = "cross, circle"
    assert there == {"llava15": "circle", "chair_fixed": reader, "tiny": reader}


def predicted(texts: list[tuple[str, tuple[str, ...]]], objects=FIXED) -> list[Prediction]:
    found = []
    for i, (text, there) in enumerate(texts):
        one = chair(text, ", ".join(there), {"objects": objects, "there": there})
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


def test_published_numbers_leave_out_what_the_script_never_counts():
    """ "A bus and a dog": the script sees the dog alone."""
    texts = [("A bus and a dog.", ("dog",)), ("Buses", ("bus",))]
    benchmark = OFFICIAL["chair"](kind="chair")
    names = {"model": "m", "benchmark": "chair", "protocol": "p"}
    values = {}
    for name, objects in (("script", PUBLISHED), ("reader", FIXED)):
        found = scores(benchmark.metrics, predicted(texts, objects), **names)
        values[name] = [score.value for score in found if score.metric != "words"]
    assert values["script"] == [0, 0, 100]
    assert values["reader"] == [pytest.approx(100 / 3), 50, 100]


def test_the_draw_is_part_of_the_protocols_name():
    names = {
        OFFICIAL["chair"](kind="chair", images=images, seed=seed).protocol_name
        for images in (100, 500)
        for seed in (0, 1)
    }
    assert names == {f"llava15+{n}.seed{s}" for n in (100, 500) for s in (0, 1)}
