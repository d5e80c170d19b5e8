"""Sources of rejected answers that are no view: an edited text, another candidate, a file."""

import json
import re

import pytest
from pydantic import ValidationError

from seva_exp.augment import (
    AUGMENTATIONS,
    SOURCES,
    AnotherCandidate,
    AnswerFile,
    Rewrite,
    SwapWords,
)
from seva_exp.core.errors import InputError
from seva_exp.core.randomness import python_rng
from seva_exp.training.loss import NEEDS
from seva_exp.world.language import describe
from seva_exp.world.scene import BIASED, sample_scene

DETAILED = (
    "A man in a black and white shirt holds two red cups; a small orange cat sleeps on an old "
    "couch to the left of three chairs. The buses outside are GREEN."
)


def swapped(text, id="a", **fields):
    return SwapWords(**fields)(text, python_rng(0, "x", id))


def words(text):
    return re.findall(r"[a-z]+", text.lower())


def test_the_sources_that_are_no_views_have_no_space_and_views_have_one():
    others = SOURCES.keys() - AUGMENTATIONS.keys()
    texts = {"another_candidate", "answer_file", "apasi", "povid_noise", "swap_words"}
    assert others == {"adversarial", *texts}
    assert {kind for kind, cls in SOURCES.items() if cls.learned} == {"adversarial"}
    assert {kind for kind, cls in SOURCES.items() if not cls.space} == texts
    assert {kind for kind, cls in SOURCES.items() if not cls.asks} == texts - {"another_candidate"}
    for cls in SOURCES.values():
        pictured = cls.space in ("image", "pixels") and not cls.learned
        shows = pictured or (issubclass(cls, Rewrite) and cls().shown)
        assert cls.gives == ({"images"} if shows else frozenset())
        assert cls.gives <= NEEDS.keys()


@pytest.mark.parametrize("id", "abcdefgh")
def test_words_become_others_of_their_class_and_nothing_else_changes(id):
    of = {word: name for name, members in SwapWords().words.items() for word in members}
    out = swapped(DETAILED, id)
    before, after = words(DETAILED), words(out)
    assert len(before) == len(after)
    different = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    singular = {**{f"{w}s": w for w in of}, "buses": "bus", "benches": "bench", "couches": "couch"}
    kinds = [
        (of.get(a, of.get(singular.get(a))), of.get(b, of.get(singular.get(b))))
        for a, b in different
    ]
    assert different and all(a == b for a, b in kinds if (a, b) != (None, None))
    articles = {
        (a, b) for (a, b), kind in zip(different, kinds, strict=True) if kind == (None, None)
    }
    assert articles <= {("a", "an"), ("an", "a")}
    assert re.sub(r"[A-Za-z]+", "", out) == re.sub(r"[A-Za-z]+", "", DETAILED)


def test_share_is_that_of_the_different_words():
    text, n = "red blue green yellow cat dog car bus", 400
    counts = [
        sum(
            a != b
            for a, b in zip(words(text), words(swapped(text, str(i), share=0.25)), strict=True)
        )
        for i in range(n)
    ]
    empty = 0.75**8  # then one is changed all the same
    assert abs(sum(counts) / n - (8 * 0.25 + empty)) < 4 * (8 * 0.25 * 0.75 / n) ** 0.5
    assert min(counts) == 1
    every = words(swapped(text, share=1.0))
    assert all(a != b for a, b in zip(words(text), every, strict=True))


def test_a_word_becomes_the_same_other_one_throughout_in_its_case():
    out = swapped("A RING, two rings and a Ring.", share=1.0, words={"shape": ("ring", "axe")})
    assert out == "An AXE, two axes and an Axe."
    out = swapped("An axe.", words={"shape": ("ring", "axe")})
    assert out == "A ring."


def test_texts_without_such_words_stay_and_parts_of_words_are_none():
    for text in ("", "nothing", "He scared the carpenter; predators.", "yes"):
        assert swapped(text) == text


def test_it_is_seeded_and_differs_between_samples():
    text = "a red ring and a blue star"
    assert swapped(text) == swapped(text)
    assert len({swapped(text, str(i)) for i in range(20)}) > 8


def test_the_embedded_world_s_descriptions_are_always_changed():
    for i in range(50):
        text = describe(sample_scene(python_rng(0, "scene", str(i)), BIASED))
        out = swapped(text, str(i))
        assert out != text and out.startswith("The image shows a")


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ({"a": ("one",)}, "two words or more"),
        ({"a": ("Red", "blue")}, "no word in lower case"),
        ({"a": ("red", " ")}, "no word in lower case"),
        ({"a": ("red", "blue"), "b": ("red", "green")}, "'red' is in a already"),
        ({"a": ("red", "red")}, "'red' is in a already"),
    ],
)
def test_classes_that_cannot_be_are_refused(classes, told):
    with pytest.raises(ValidationError, match=told):
        SwapWords(words=classes)


def test_another_candidate_names_its_random_numbers_and_its_temperature():
    one, two = AnotherCandidate(), AnotherCandidate(number=2, temperature=None)
    assert one.stream != two.stream and one.identity() != two.identity()
    assert (one.decoding(), two.decoding()) == ({"temperature": 0.8}, {})


def test_a_file_gives_its_texts(tmp_path):
    file = tmp_path / "r.jsonl"
    rows = [{"id": "a", "rejected": "x"}, {"id": "b", "rejected": ["y", "z"]}]
    file.write_text("\ufeff" + "\n\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    source = AnswerFile(path=str(file))
    source.check("aug.mine")
    found = {id: tuple(source.texts(id, "", python_rng(0, "x", id))) for id in "abc"}
    assert found == {"a": ("x",), "b": ("y", "z"), "c": ()}
    assert "path" not in source.identity() and source.files() == {"path": file}
    file.write_text('{"name": "a", "bad": "new"}', encoding="utf-8")
    other = AnswerFile(path=str(file), id_field="name", rejected_field="bad")
    assert other.texts("a", "", python_rng(0, "x", "a")) == ("new",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has no row"),
        ("{", "line 1: not JSON"),
        ("[1]", "line 1: not a JSON object"),
        ('{"id": "a", "rejected": "x"}\n{"id": "a", "rejected": "y"}', "line 2.*in line 1 already"),
        ('{"id": "a"}', "'rejected': missing"),
        ('{"idd": "a", "rejected": "x"}', "'id': missing.*idd"),
        ('{"id": "a", "rejected": []}', "a list without a text"),
        ('{"id": "a", "rejected": ["x", " "]}', "'rejected': empty"),
        ('{"id": "a", "rejected": 3}', "a text is needed"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_field_and_line(tmp_path, text, told):
    file = tmp_path / "r.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"(?s)^aug\.mine\.path: .*{told}"):
        AnswerFile(path=str(file)).check("aug.mine")


def test_a_file_that_is_not_there_is_refused_with_the_nearest_name(tmp_path):
    (tmp_path / "rejected.jsonl").touch()
    with pytest.raises(InputError, match=r"aug\.mine\.path: must be set"):
        AnswerFile().check("aug.mine")
    with pytest.raises(InputError, match=r"aug.mine.path: there is no file.*rejected\.jsonl"):
        AnswerFile(path=str(tmp_path / "rejectd.jsonl")).check("aug.mine")
