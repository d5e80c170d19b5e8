"""Asking a finished run: its own answers, a conversation, and what is told before a model is
loaded."""

from __future__ import annotations

import io
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

import seva_exp
from seva_exp import Machine
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.core.errors import InputError
from seva_exp.side_by_side import asker as asking
from seva_exp.side_by_side.asker import Asker, Shown, open_pictures
from seva_exp.side_by_side.command import main, split
from seva_exp.side_by_side.talk import Talk

from ..ship.conftest import IMAGES, answers_in


@pytest.fixture(scope="module")
def asker(trained) -> Asker:
    return Asker(trained, Machine(device="cpu"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    """Two files."""
    folder = tmp_path_factory.mktemp("pictures")
    files = []
    for question in ShapesBenchmark(images=2).questions():
        file = folder / f"{question.group}.png"
        if file not in files and len(files) < 2:
            question.load().save(file)
            files.append(file)
    return files


def test_both_models_say_what_they_said_in_the_run(asker, trained):
    said = answers_in(trained)
    questions = {one.id: one for one in ShapesBenchmark(images=IMAGES).questions()}
    differ = [id for id, text in said["aligned"].items() if said["base"][id] != text]
    assert len(differ) > 2
    for id in differ[:6]:
        asked = asker.ask([Shown(id, questions[id].load())], questions[id].prompt)
        assert (asked.base, asked.aligned) == (said["base"][id], said["aligned"][id])
        assert not asked.answers[0].same


def test_the_base_is_loaded_once_and_the_adapter_taken_off_again(asker, pictures, monkeypatch):
    shown = open_pictures(pictures)
    first = asker.ask(shown, "Describe the image.")
    monkeypatch.setattr("seva_exp.stages.loaded.load_model", None)
    assert asker.ask(shown, "Describe the image.") == first
    assert [one.picture for one in first.answers] == [str(file) for file in pictures]


def test_in_a_conversation_each_model_goes_on_from_its_own_answers(asker, pictures, trained):
    [shown, _] = open_pictures(pictures)
    turns = {
        "base": [(("How many objects are there?", "one"),)],
        "aligned": [(("How many objects are there?", "two"),)],
    }
    texts = []
    for which in ("base", "aligned"):
        adapter = asker.run.adapter if which == "aligned" else None
        vlm = asker._loaded.get(asker.run.model(), asker._machine, adapter)
        talk = Talk(vlm, turns[which][0])
        texts.append(talk.chat("Describe the image."))
        assert texts[-1].count("<image>") == 1
        assert talk.encode(talk.encode_image(shown.image), "?").ids
    assert "one" in texts[0] and "two" in texts[1]
    assert texts[0].index("one") < texts[0].index("Describe")
    asked = asker.ask([shown], "Describe the image.", turns)
    fresh = asker.ask([shown], "Describe the image.")
    assert asked.answers[0].stops and fresh.answers[0].stops


def test_the_same_from_python(trained, pictures):
    import seva_exp.ask as module  # puts the module where the function is looked up

    assert module is seva_exp.ask
    found = seva_exp.ask(trained, pictures[0], "How many objects are there?", max_new_tokens=4)
    assert found.base and found.aligned
    with pytest.raises(FrozenInstanceError):
        found.question = "?"
    with pytest.raises(ValueError, match="values to unpack"):
        _ = asking.Asked("", "", found.answers * 2).base


def refused(capsys, *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def test_bad_input_is_told_before_weights_are_read(
    trained, pictures, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("seva_exp.stages.loaded.load_model", None)
    picture = pictures[0]
    typo = picture.with_name(picture.name.replace(".png", ".pmg"))
    assert f"Did you mean '{picture}'" in refused(capsys, trained, typo, "What is it?")
    (tmp_path / "text.jpg").write_text("no picture")
    assert "text.jpg': not an image" in refused(capsys, trained, tmp_path / "text.jpg", "What?")
    assert "there is no folder" in refused(capsys, f"{trained}s", picture, "What is it?")
    assert "question is missing" in refused(capsys, trained, picture)
    assert "picture: none is given" in refused(capsys, trained, "What is it?")
    assert "--dtype" in refused(capsys, trained, picture, "What?", "--dtype", "float99")
    assert "question: is empty" in refused(capsys, trained, picture, " ")


def test_a_run_without_an_adapter_is_told(copy, pictures, capsys):
    text = (copy / "report.json").read_text().replace('"name": "align"', '"name": "aligned"')
    (copy / "report.json").write_text(text)
    assert "no aligned model" in refused(capsys, copy, pictures[0], "What is it?")


def test_in_a_chat_the_last_word_is_a_question_only_where_it_looks_like_one(pictures):
    names = [str(file) for file in pictures]
    assert split([*names, "What is it?"], chat=False) == (names, "What is it?")
    assert split(names, chat=True) == (names, "")
    assert split([*names, "What is it?"], chat=True) == (names, "What is it?")
    with pytest.raises(InputError, match="no file"):
        open_pictures(split([names[0], "cat.jpg"], chat=True)[0])


def test_a_chat_answers_line_by_line_and_ends_with_its_input(
    trained, pictures, capsys, monkeypatch
):
    typed = io.StringIO("How many objects are there?\n\nWhat color?\n/new\nWhat color?\n")
    monkeypatch.setattr(sys, "stdin", typed)
    asked = []
    ask = Asker.ask

    def seen(self, shown, question, before=None):
        asked.append((question, {which: list(turns) for which, turns in before.items()}))
        return ask(self, shown, question, before)

    monkeypatch.setattr(Asker, "ask", seen)
    assert main([str(trained), str(pictures[0]), "--chat", "--max-new-tokens", "5"]) == 0
    said = capsys.readouterr()
    assert not said.err
    assert said.out.count("aligned") == 3
    turns = [len(before["base"][0]) for _, before in asked]
    assert turns == [0, 1, 0], "/new forgets"


def test_ctrl_c_ends_a_chat_quietly(trained, pictures, capsys, monkeypatch):
    def interrupted(prompt: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    assert main([str(trained), str(pictures[0]), "--chat"]) == 0
    assert not capsys.readouterr().err
