"""What a tracker is shown of an explained run: a picture for each sample, its metrics in columns of
their own."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image, ImageChops

from seva_exp.core.records import Score
from seva_exp.report.word_pictures import LESS, MORE, SHADES, explanation
from seva_exp.tracking.content import explanations, score_summary

from ..hostile import ALL
from ..report.explained import a_sample, an_answer, explained
from .played import CONFIG, PROTOCOL, a_plan, an_outcome, play, records, summary


def colours(image: Image.Image) -> set[tuple[int, ...]]:
    return {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}


def test_a_picture_for_each_sample_tells_of_its_words(tmp_path):
    answer = an_answer("red circle yes", [2.0, 5.0, -0.5])
    found = explanations([explained(tmp_path, [a_sample(f"s{i}", answer) for i in range(3)])])
    (name,) = found
    assert name == "words/shapes" and len(found[name]) == 3
    first = found[name][0]
    seen = colours(first.image)
    assert {SHADES["2"], SHADES["3"], LESS, MORE, (255, 0, 0)} <= seen
    assert "both: red circle yes" in first.caption
    assert "red: g 2.00, aligned 2.20 nats" in first.caption
    assert "base: 1 of 5 agree; aligned: 5 of 5 agree" in first.caption


def test_the_map_is_drawn_where_the_word_rests(tmp_path):
    """Base rests on the right, the aligned model's map is that map's negative: nowhere."""
    made = explained(tmp_path, [a_sample("a", an_answer("red", [2.0]))])
    (sample,) = explanations([made])["words/shapes"]
    height = 149 + 24
    strip = sample.image.crop((0, sample.image.height - height - 16, *sample.image.size))
    base, aligned = (strip.crop((x, 0, x + 224, 149)) for x in (256, 496))
    assert base.getpixel((220, 140))[0] > 240, "clear: red"
    assert base.getpixel((10, 140))[0] < 200, "veiled"
    assert LESS in colours(aligned) and LESS not in colours(base)
    assert ImageChops.difference(base, aligned).getbbox()


def test_any_text_and_a_lost_picture_are_drawn(tmp_path):
    for text in [*ALL, "", "a" * 5000, "word " * 5000]:
        sample = a_sample(text, an_answer(text, [2.0, -1.0]), says=text)
        made = explanation(sample, (tmp_path / "lost.png", None), 1.0, text)
        assert made.image.width == 976 and made.image.height < 1200


def test_wandb_gets_them(tmp_path):
    plan = a_plan(tmp_path / "run")
    found = explained(tmp_path / "explain", [a_sample("a", an_answer("red", [2.0]))])
    play(plan, tmp_path / "store", outcome=replace(an_outcome(plan), explained=(found,)))
    values = summary(records(tmp_path / "run"))
    assert values["words/shapes.count"] == 1
    assert "both: red" in values["words/shapes.captions"][0]


def test_metrics_of_words_stand_beside_those_of_the_benchmark(tmp_path):
    """Under the usual protocols neither has it in its name."""
    report = an_outcome(a_plan(tmp_path)).report
    usual = Score("base", "shapes", "words", "g", 2.0, 1, 3, 9, "words-v1, 64 questions, g > 1")
    values = score_summary(replace(report, scores=(*report.scores, usual)), CONFIG)
    assert values["benchmark/shapes/words/g/base"] == 2.0
    assert values["benchmark/shapes/all/CHAIRi/base"] == 26.0
    other = replace(usual, protocol="words-v1, 9 questions, g > 1")
    values = score_summary(replace(report, scores=(*report.scores, other)), CONFIG)
    assert values["benchmark/shapes@words-v1, 9 questions, g > 1/words/g/base"] == 2.0
    assert values["benchmark/shapes/all/CHAIRi/base"] == 26.0, f"still of {PROTOCOL}"
