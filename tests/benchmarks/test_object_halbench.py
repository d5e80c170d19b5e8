"""Object HalBench: objects by rules as its script finds them without GPT, by what a judge lists,
and the rates of both."""

from __future__ import annotations

import base64
import json
import shutil

import numpy as np
import pytest

from seva_exp.benchmarks import OFFICIAL, Judge
from seva_exp.benchmarks.chair import READERS
from seva_exp.benchmarks.judge_answers import Bench, judge_all, judged_scores
from seva_exp.benchmarks.mentions import DESCRIBE
from seva_exp.benchmarks.object_halbench import by_rules, listed, messages, read
from seva_exp.benchmarks.question import Question
from seva_exp.benchmarks.replies import Replies
from seva_exp.benchmarks.statistics import INTERVAL, resampling_weights, scores
from seva_exp.core.errors import InputError
from seva_exp.core.machine import JudgeServer
from seva_exp.core.records import Prediction

from ..served.serving import completion, reply
from .judges import judge
from .test_judges import QUIET

SYNONYMS = """\
person, girl, boy, man, woman, kid, child, people, children, baby, worker, skier, guy, lady
bicycle, bike
car, taxi, van
bus, minibus, trolley
train, locomotive
airplane, plane, jet
boat, ship
traffic light, street light, streetlight
bird, goose, duck
cat, kitten
dog, puppy, pup
sheep, lamb
cow, cattle
bear, panda
backpack, knapsack
tie, bow, bow tie
skis, ski
wine glass
cup
fork
knife, pocketknife
bowl, container
hot dog
chair, seat, stool
couch, sofa
dining table, table, desk
toilet
tv, monitor, television
cell phone, phone, smartphone
book
clock
scissors
teddy bear, teddybear
"""
"""Lines of the official synonyms_refine.txt, shortened."""
OBJECTS = READERS["chair_fixed"](SYNONYMS)

FOUND = [  # a text; the objects that eval_gpt_obj_halbench.py finds in it without GPT
    ("A man, a dog, two dogs.", "person,dog,dog"), ("Two buses", "bus"), ("a bus", "bus"),
    ("ties", "tie"), ("a bow tie", "tie"), ("bow ties", "tie"), ("people", "person"),
    ("children on skis", "person,skis"), ("a pair of scissors", "scissors"),
    ("wine glasses", "wine glass"), ("a glass", ""), ("knives and forks", "knife,fork"),
    ("geese", "bird"), ("sheep", "sheep"), ("The cattle", "cow"), ("hot dogs", "hot dog"),
    ("a dog, hot", "dog"), ("traffic lights", "traffic light"), ("a light", ""),
    ("a teddy bear", "teddy bear"), ("a bear", "bear"), ("a baby bear", "bear"),
    ("a baby", "person"), ("an adult sheep", "sheep"), ("a passenger train", "train"),
    ("train tracks", ""), ("a toilet seat", "toilet"), ("the seat of the toilet", "toilet"),
    ("seats", "chair"), ("cell phones", "cell phone"), ("TVs", "tv"), ("a dining table",
    "dining table"), ("a table and desks", "dining table,dining table"), ("", ""),
    ("Nothing to see", ""), ("No</s>", ""), ("狗", ""), ("kids, puppies", "person,dog"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "want"), FOUND)
def test_objects_by_rules(text, want):
    found = by_rules(text, "", {"objects": OBJECTS, "there": ()})
    assert found.extracted == ", ".join(filter(None, want.split(",")))
    assert found.counts["names_any"] == bool(want)


LISTED = [  # a judge's reply; what it lists
    ('["dog"]', ["dog"]), ('["dog", "cat"]', ["dog", "cat"]), ("[]", []), ('```json\n["a"]\n```',
    ["a"]), ('Here: ["dog"]', ["dog"]), ('["Dog", "dog "]', ["dog"]), ("dog, cat", None),
    ("", None), ('["dog"', None), ("dog]", None), ("{}", None), ('[1, "dog"]', None),
    ("[['dog']]", None), ('["dog", ["cat"]]', None), ('[""]', [""]), ('{"objects": ["dog"]}',
    ["dog"]), ('["dog"]\n["cat"]', ["cat"]), ("['dog']", None), ('["traffic light"]',
    ["traffic light"]), ('["dog",]', None), ("null", None), ('["狗"]', ["狗"]), ("[" * 5000, None),
    ('["a]b"]', ["a]b"]), ('["dog"] Since I say so.', ["dog"]), ("][", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "want"), LISTED)
def test_a_reply_lists_objects_or_cannot_be_read(text, want):
    assert listed(text) == want


def question(there: tuple[str, ...]) -> Question:
    details = {"objects": OBJECTS, "there": there}
    return Question("1", "1", DESCRIBE, "Describe.", "", 9, lambda: None, details)


def predicted(rows: list[tuple[str, tuple[str, ...]]]) -> list[Prediction]:
    found = []
    for i, (text, there) in enumerate(rows):
        one = by_rules(text, "", {"objects": OBJECTS, "there": there})
        row = (f"{i:02d}", f"{i:02d}", DESCRIBE, "", text, one.extracted, "", one.score, one.counts)
        found.append(Prediction(*row))
    return found


def test_what_a_judge_lists_is_looked_up_among_the_synonyms():
    asked = question(("dog", "person"))
    answer = predicted([("A man walks a dog. Perhaps a cat is near.", ())])[0]
    found = read('["man", "dog", "leash", "kitten", "wooden table"]', asked, answer)
    assert found.extracted == "person, dog, cat, dining table"
    assert (found.counts["mentions"], found.counts["wrong"], found.counts["found"]) == (4, 2, 2)
    assert found.counts["words"] == 10
    assert read("nothing", asked, answer) is None
    assert read("[]", asked, answer).counts["names_any"] == 0
    ((role, text),) = messages(asked, answer)
    assert role == "user" and answer.text in text and "Asked: Describe." in text
    assert messages(asked, predicted([(" ", ())])[0]) is None


ROWS = [
    ("A dog and a man on a couch.", ("dog", "person")),
    ("A car, a car and a tv", ("tv", "chair")),
    ("Nothing", ("bus",)),
    ("A cat", ("cat",)),
]
NAMES = {"model": "m", "benchmark": "object_halbench", "protocol": "p"}


def test_the_response_rate_is_of_those_that_name_any_object():
    """Seven mentions, three made up, in two of four descriptions, of which three name any."""
    benchmark = OFFICIAL["object_halbench"](kind="object_halbench")
    found = {s.metric: s.value for s in scores(benchmark.metrics, predicted(ROWS), **NAMES)}
    assert found["chair_i"] == pytest.approx(100 * 3 / 7)
    assert found["chair_s"] == pytest.approx(50)
    assert found["chair_s_refine"] == pytest.approx(100 * 2 / 3)
    assert found["recall"] == pytest.approx(100 * 4 / 6)
    assert found["words"] == pytest.approx((8 + 7 + 1 + 2) / 4)


def test_an_interval_is_that_of_a_bootstrap_over_pictures_written_out():
    benchmark = OFFICIAL["object_halbench"](kind="object_halbench")
    predictions = predicted(ROWS * 5)
    (refined,) = (
        s for s in scores(benchmark.metrics, predictions, **NAMES) if s.metric == "chair_s_refine"
    )
    values = []
    for weights in resampling_weights(20):
        pairs = list(zip(weights, predictions, strict=True))
        wrong = sum(w * p.counts["any_wrong"] for w, p in pairs)
        values.append(100 * wrong / sum(w * p.counts["names_any"] for w, p in pairs))
    low, high = np.percentile(values, INTERVAL)
    assert (refined.low, refined.high) == (pytest.approx(low), pytest.approx(high))
    assert low < refined.value < high


# files


def test_pictures_stand_in_the_file_of_prompts(samples):
    benchmark = OFFICIAL["object_halbench"](kind="object_halbench")
    rows = [
        json.loads(line) for line in (samples / benchmark.layout[0][0]).read_text().splitlines()
    ]
    items = benchmark.load(samples).items
    assert [item.id for item in items] == [str(row["image_id"]) for row in rows]
    for item, row in zip(items, rows, strict=True):
        with item.picture.file.open("rb") as file:
            file.seek(item.picture.start)
            held = file.read(item.picture.end - item.picture.start)
        assert base64.b64decode(held) == base64.b64decode(row["image"])
        assert item.texts["question"] == row["question"]
        assert item.picture.load().size == (72, 72)
        assert "image" not in item.row.values


def test_slashes_may_be_escaped_and_equal_pictures_stay_apart(samples, tmp_path):
    root = shutil.copytree(samples, tmp_path / "root")
    benchmark = OFFICIAL["object_halbench"](kind="object_halbench")
    file = root / benchmark.layout[0][0]
    lines = file.read_text().splitlines()
    first, second = json.loads(lines[0]), json.loads(lines[1])
    lines[1] = json.dumps(second | {"image": first["image"]}).replace("/", "\\/")
    file.write_text("\n".join(lines))
    one, two, *_ = benchmark.load(root).items
    assert two.picture.start > one.picture.end
    assert two.picture.load().tobytes() == one.picture.load().tobytes()


def test_a_picture_that_is_no_base64_is_refused_by_line(samples, tmp_path):
    root = shutil.copytree(samples, tmp_path / "root")
    benchmark = OFFICIAL["object_halbench"](kind="object_halbench")
    file = root / benchmark.layout[0][0]
    lines = file.read_text().splitlines()
    for wrong in ("no picture at all" * 9, "COCO_val2014_000000000002.jpg", "a\u00e9\n" * 40):
        row = json.loads(lines[2]) | {"image": wrong}
        file.write_text("\n".join([*lines[:2], json.dumps(row), *lines[3:]]))
        with pytest.raises(InputError, match=r"300_with_image\.jsonl: line 3: .*'image'"):
            benchmark.check(root)


# with a judge


def test_with_and_without_a_judge_are_two_protocols(samples):
    benchmark = OFFICIAL["object_halbench"](kind="object_halbench")
    assert benchmark.protocol_name == "llava15+rules"
    assert not benchmark.needs_judge and benchmark.judged
    judging = benchmark.judging(samples)
    who = Judge(model="gpt-3.5-turbo")
    assert benchmark.protocol_judged + who.label(judging) == "llava15+own.gpt-3.5-turbo"
    mode = OFFICIAL["object_halbench"](kind="object_halbench", describe_and_respond=True)
    assert mode.protocol_name == "llava15+rules+dar"
    assert mode.protocol_judged == "llava15+dar"


def judged(samples, folder, endpoint):
    benchmark = OFFICIAL["object_halbench"](kind="object_halbench", protocol="tiny")
    bench = Bench(benchmark, benchmark.judging(samples), Judge(model="judge"), Replies(folder))
    questions = list(benchmark.questions(samples))
    said = [
        benchmark.predict(q, "The image shows a red circle. There is no blue star.")
        for q in questions
    ]
    where = JudgeServer(url=endpoint.url)
    cases = bench.cases(questions, said)
    found, summary = judge_all(bench, cases, where, QUIET, lambda text: None, "judge.base.x")
    return benchmark, said, found, summary


def test_a_judge_hears_what_is_denied_and_rules_do_not(samples, tmp_path):
    with judge() as endpoint:
        benchmark, said, found, summary = judged(samples, tmp_path, endpoint)
    assert summary["unjudged"] == 0
    assert {one.extracted for one in said} == {"circle, star"}
    assert {one.extracted for one in found} == {"circle"}
    by_judge = {s.metric: s.value for s in judged_scores(benchmark, said, found, NAMES)}
    rules = {s.metric: s.value for s in scores(benchmark.metrics, said, **NAMES)}
    assert by_judge["chair_i"] != rules["chair_i"]
    assert by_judge["recall"] < rules["recall"], "some have a star, which no one said is there"
    assert by_judge["unjudged"] == 0


def test_a_reply_that_cannot_be_read_is_unjudged(samples, tmp_path, monkeypatch):
    with judge() as endpoint:
        endpoint.always = reply(completion("It depends."))
        benchmark, said, found, summary = judged(samples, tmp_path, endpoint)
    assert summary["unjudged"] == len(said)
    values = {s.metric: s.value for s in judged_scores(benchmark, said, found, NAMES)}
    assert values["unjudged"] == 100
