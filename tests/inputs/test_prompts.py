"""Prompt sets: files that are checked, whose content decides what is computed."""

import random
from pathlib import Path

import pytest
import yaml

from seva_exp import Experiment, InputError, Machine, Options
from seva_exp.augment import BadPrompt, Moco
from seva_exp.core.randomness import python_rng
from seva_exp.experiment import graph, run
from seva_exp.inputs.prompts import (
    LISTS,
    PACKAGED,
    PromptSet,
    described_template,
    infuse,
    load_prompts,
    packaged_sets,
)
from seva_exp.world import language

GOOD = {"careful": ["Look."], "plain": ["What is this?"], "bad": ["Invent.", "Dream: a lot."]}


@pytest.fixture
def write(tmp_path):
    def file(content, name="mine.yaml") -> str:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(path)

    return file


# --- the packaged sets


def test_stic_s_set_has_the_published_design():
    found = load_prompts("stic")
    assert [len(getattr(found, name)) for name in LISTS] == [1, 8, 8]
    assert len(found.careful[0].splitlines()) == 7
    everything = [*found.careful, *found.plain, *found.bad]
    assert len(set(everything)) == 17
    assert all(len(text.splitlines()) == 1 for text in (*found.plain, *found.bad))


def test_the_embedded_world_s_set_is_what_its_model_was_trained_on():
    assert load_prompts("tiny") == PromptSet(
        careful=language.CAREFUL_PROMPTS,
        plain=language.PLAIN_PROMPTS,
        bad=language.IMAGINE_PROMPTS,
    )


@pytest.mark.parametrize("name", packaged_sets())
def test_packaged_sets_say_what_they_are(name):
    lines = (PACKAGED / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    for number, line in enumerate(lines):
        if line.rstrip(":") in LISTS:
            assert lines[number - 1].startswith("# "), line


# --- files


def test_a_user_s_file_is_read(write):
    assert load_prompts(write(GOOD)) == PromptSet(**{k: tuple(v) for k, v in GOOD.items()})
    assert load_prompts(write(GOOD, "no_suffix")) == load_prompts(write(GOOD))


WRONG = [
    (GOOD | {"bad": []}, "'bad' is empty"),
    (GOOD | {"plain": None}, "'plain' is empty"),
    ({k: GOOD[k] for k in ("careful", "plain")}, "'bad' is missing"),
    (GOOD | {"bda": ["x"]}, "Did you mean 'bad'"),
    (GOOD | {"bad": "Invent."}, "a list is needed"),
    (GOOD | {"bad": ["Invent.", " "]}, "entry 2 of 'bad'"),
    (GOOD | {"bad": [3]}, "entry 1 of 'bad'"),
    ("careful: [Look.]\nplain: [What]\nbad:\n  - Dream: a lot\n", "entry 1 of 'bad'"),
    ("", "careful, plain, bad"),
    ("- a\n- b\n", "careful, plain, bad"),
    ("bad: [", "cannot be read"),
]


@pytest.mark.parametrize(("content", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_wrong_file_is_refused_and_named(write, content, said):
    with pytest.raises(ValueError) as caught:
        load_prompts(write(content), "aug.bad_prompt.prompts")
    assert isinstance(caught.value, InputError)
    assert said in str(caught.value)
    assert "aug.bad_prompt.prompts: " in str(caught.value)
    assert "mine.yaml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        load_prompts(str(tmp_path / "x.yaml"))


def test_an_unknown_set_is_refused():
    with pytest.raises(InputError, match="Did you mean 'stic'"):
        load_prompts("stik")
    with pytest.raises(InputError, match="there is no file 'a/stic'"):
        load_prompts("a/stic")
    with pytest.raises(InputError, match="there is no file"):
        load_prompts("nosuch.yaml")


def test_a_wrong_file_ends_a_run_before_work(write, tmp_path):
    experiment = Experiment(aug={"worse": BadPrompt(prompts=write(GOOD | {"bad": []}))})
    machine = Machine(store=str(tmp_path / "store"), runs=str(tmp_path / "runs"))
    with pytest.raises(InputError, match=r"aug\.worse\.prompts: .*mine\.yaml.*'bad' is empty"):
        run(experiment, machine, Options(dry_run=True))


def test_a_wrong_file_is_exit_2_on_the_command_line(cli, write):
    path = write(GOOD | {"bad": []})
    done = cli("+aug=bad_prompt", f"aug.bad_prompt.prompts={path}", "tracker=none", "dry_run=true")
    assert done.returncode == 2
    assert "aug.bad_prompt.prompts: " in done.stderr
    assert "'bad' is empty" in done.stderr
    assert "Traceback" not in done.stderr


# --- the view


def test_the_bad_prompt_replaces_the_question_by_one_of_the_set():
    view = BadPrompt(prompts="tiny")
    asked = [view("What?", python_rng(0, "view/bad_prompt", str(i))) for i in range(300)]
    counts = [asked.count(text) for text in language.IMAGINE_PROMPTS]
    assert sum(counts) == 300
    assert min(counts) > 100 - 33


def test_the_bad_prompt_depends_on_its_generator_only():
    view, ids = BadPrompt(), "abcdefgh"
    first = {id: view("What?", python_rng(0, "p", id)) for id in ids}
    random.seed(4)
    again = {id: view("Else?", python_rng(0, "p", id)) for id in reversed(ids)}
    assert first == again
    assert len(set(first.values())) > 2


def keys(aug) -> dict[str, str]:
    return {stage.label: stage.key for stage in graph(Experiment(aug={"bad": aug}), str)}


def test_the_content_of_the_file_decides_the_key_and_its_name_does_not(write):
    first = keys(BadPrompt(prompts=write(GOOD)))
    assert keys(BadPrompt(prompts=write(GOOD, "elsewhere.yaml"))) == first
    other_lists = GOOD | {"plain": ["Quite another one."]}
    assert keys(BadPrompt(prompts=write(other_lists))) == first
    edited = keys(BadPrompt(prompts=write(GOOD | {"bad": ["Invent."]})))
    changed = {label for label in first if edited[label] != first[label]}
    assert {"answers.bad", "pairs", "align"} <= changed
    assert "answers.clean" not in changed


def test_an_edited_file_is_seen_by_the_next_run_of_the_same_object(write):
    view = BadPrompt(prompts=write(GOOD))
    before = view.identity()
    write(GOOD | {"bad": ["Invent."]})
    assert view.identity() == before, "what is hashed is what is asked, within a run"
    view.check("aug.bad")
    assert view.identity()["prompts"] == ["Invent."]
    assert view == BadPrompt(prompts=view.prompts)


def test_the_identity_of_other_views_is_their_fields():
    assert Moco().identity() == Moco().to_json()


def test_the_manifest_records_the_sentences(tmp_path):
    from seva_exp.core.records import Answer, read_jsonl
    from seva_exp.core.store import Store
    from seva_exp.data import ShapesData

    experiment = Experiment(
        aug={"bad_prompt": BadPrompt(prompts="tiny")}, data=ShapesData(samples=4)
    )
    machine = Machine(store=str(tmp_path / "store"), runs=str(tmp_path / "runs"), progress="off")
    report = run(experiment, machine, Options(stop_after="answers.bad_prompt"))
    stage = report.stages[-1]
    manifest = Store(machine.store_root()).find("answers", stage.key)
    assert manifest.spec["view"] == {
        "kind": "bad_prompt", "prompts": list(language.IMAGINE_PROMPTS)
    }  # fmt: skip
    answers = read_jsonl(Path(report.dir) / "answers.bad_prompt" / "answers.jsonl", Answer)
    assert {answer.asked for answer in answers} <= set(language.IMAGINE_PROMPTS)


def test_a_description_with_braces_does_not_eat_the_question():
    said, asked = "a {question} sign {x}", "What is {description}?"
    filled = infuse("{question} ({description})", said, asked)
    assert filled == "What is {description}? (a {question} sign {x})"


def test_a_template_needs_both_texts_and_takes_a_line_break_from_a_command_line():
    assert described_template(r"{description}\n{question}") == "{description}\n{question}"
    for wrong in ("{description}", "{question}", "", "{descripton} {question}"):
        with pytest.raises(ValueError, match="must hold both"):
            described_template(wrong)
