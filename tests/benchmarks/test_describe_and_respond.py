"""Describe and respond: one description a picture, seen; every question behind it; resumable."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from seva_exp.benchmarks import BENCHMARKS, DescribeAndRespond, ShapesBenchmark
from seva_exp.benchmarks.evaluate import ask, conclude
from seva_exp.command.config import parse
from seva_exp.core.errors import InputError
from seva_exp.core.interfaces import Placement
from seva_exp.core.machine import Machine
from seva_exp.core.paths import config_dir
from seva_exp.core.progress import progress
from seva_exp.decoding.engine import Engine
from seva_exp.experiment import graph
from seva_exp.inputs.prompts import load_prompts
from seva_exp.models import TinyModel
from seva_exp.models.vlm import load
from seva_exp.world.language import DESCRIBED_QUESTIONS, PLAIN_PROMPTS

PICTURES = 4
LAYOUT = "Image description:\n{description}\n{question}"


@pytest.fixture(scope="module")
def vlm():
    return load(TinyModel(), Machine(device="cpu"))


class Recorder:
    """The real engine; notes what it answers and is killed before answer number ``kill``."""

    def __init__(self, vlm, batch_size: int = 8, kill: int | None = None) -> None:
        self.engine, self.kill = Engine(vlm, batch_size), kill
        self.asked: list = []

    def run(self, requests):
        by_id = {request.id: request for request in requests}
        for replies in self.engine.run(requests):
            if self.kill is not None and len(self.asked) >= self.kill:
                raise KeyboardInterrupt
            self.asked += [by_id[reply.id] for reply in replies]
            yield replies

    @property
    def described(self) -> list[str]:
        """Pictures that a description was asked of, in order (its request has the picture's id)."""
        return [request.id for request in self.asked if request.id == request.image_key]


def go(benchmark, engine, work: Path):
    work.mkdir(exist_ok=True)
    place = Placement("cpu", 8, 1, False, partial(progress, "off"), work)
    ask(benchmark, lambda: engine, place, "evaluate")
    return conclude(benchmark, work, model="base", name="shapes")


def rows(work: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (work / f"{name}.jsonl").read_text().splitlines()]


def files(work: Path) -> list[bytes]:
    return [(work / f"{name}.jsonl").read_bytes() for name in ("predictions", "descriptions")]


DAR = ShapesBenchmark(images=PICTURES, describe_and_respond=True)


@pytest.fixture(scope="module")
def undisturbed(vlm, tmp_path_factory):
    """Folder, engine, summary and scores of one run that several tests look at."""
    work, engine = tmp_path_factory.mktemp("undisturbed"), Recorder(vlm)
    summary, scores = go(DAR, engine, work)
    return work, engine, summary, scores


def test_every_question_is_sent_behind_its_pictures_description(undisturbed):
    work, engine, _, _ = undisturbed
    texts = {row["picture"]: row["text"] for row in rows(work, "descriptions")}
    sent = {request.id: request.prompt for request in engine.asked}
    predictions = rows(work, "predictions")
    questions = list(DAR.questions())
    assert [p["sample_id"] for p in predictions] == [q.id for q in questions]
    for question, prediction in zip(questions, predictions, strict=True):
        said = texts[question.group]
        assert said.startswith("The image shows")
        assert sent[question.id] == f"Image description:\n{said}\n{question.prompt}"
        assert prediction["prompt"] == sent[question.id]


def test_a_picture_is_described_once_for_all_its_questions(undisturbed):
    work, engine, summary, _ = undisturbed
    pictures = [f"{index:06d}" for index in range(PICTURES)]
    assert sorted(engine.described) == pictures
    assert [row["picture"] for row in rows(work, "descriptions")] == pictures
    assert {row["asked"] for row in rows(work, "descriptions")} == {"Describe the image."}
    assert summary["descriptions"] == PICTURES
    assert summary["descriptions_cut_at_max_new_tokens"] == 0
    assert len(engine.asked) == summary["questions"] + PICTURES


def test_the_description_is_what_the_model_says_of_the_picture(undisturbed, vlm, tmp_path):
    """Unlike the released code of STIC, where no picture is shown."""
    work, *_ = undisturbed
    go(ShapesBenchmark(images=PICTURES), Recorder(vlm), tmp_path)
    plain = {
        p["group"]: p["text"] for p in rows(tmp_path, "predictions") if p["type"] == "describe"
    }
    told = {row["picture"]: row["text"] for row in rows(work, "descriptions")}
    assert told == plain
    assert len(set(told.values())) == PICTURES


def test_another_picture_changes_the_description(undisturbed, vlm, tmp_path):
    class Swapped(ShapesBenchmark):
        """Questions on the first two pictures are shown each other's."""

        def questions(self, root=None):
            for index in (1, 0):
                scene = next(self._of_picture(index)).load
                for question in self._of_picture(1 - index):
                    yield type(question)(**(vars(question) | {"load": scene}))

    work, *_ = undisturbed
    go(Swapped(images=2, describe_and_respond=True), Recorder(vlm), tmp_path)
    before = {row["picture"]: row["text"] for row in rows(work, "descriptions")}
    after = {row["picture"]: row["text"] for row in rows(tmp_path, "descriptions")}
    assert after == {"000000": before["000001"], "000001": before["000000"]}


def test_a_long_description_is_cut_and_counted(vlm, tmp_path):
    short = ShapesBenchmark(images=2, describe_and_respond={"max_new_tokens": 3})
    summary, _ = go(short, Recorder(vlm), tmp_path)
    assert summary["descriptions_cut_at_max_new_tokens"] == 2
    assert {row["stop"] for row in rows(tmp_path, "descriptions")} == {"length"}


def test_without_it_questions_are_sent_as_they_are(vlm, tmp_path):
    benchmark = ShapesBenchmark(images=2)
    engine = Recorder(vlm)
    summary, scores = go(benchmark, engine, tmp_path)
    assert [p["prompt"] for p in rows(tmp_path, "predictions")] == [
        q.prompt for q in benchmark.questions()
    ]
    assert engine.described == []
    assert "descriptions" not in summary
    assert not (tmp_path / "descriptions.jsonl").exists()
    assert {score.protocol for score in scores} == {"seva_exp-shapes-v1"}


@pytest.mark.parametrize("batch_size", [1, 64])
def test_the_batch_size_changes_nothing(undisturbed, vlm, tmp_path, batch_size):
    work, _, _, scores = undisturbed
    _, ours = go(DAR, Recorder(vlm, batch_size), tmp_path)
    assert files(tmp_path) == files(work)
    assert ours == scores


@pytest.mark.parametrize(("kill", "left"), [(2, 2), (4, 0), (7, 0)])
def test_a_killed_evaluation_keeps_its_finished_batches(undisturbed, vlm, tmp_path, kill, left):
    """In the description pass, between the passes, and among the questions; batches of one."""
    with pytest.raises(KeyboardInterrupt):
        go(DAR, Recorder(vlm, 1, kill), tmp_path)
    assert not (tmp_path / "predictions.jsonl").exists()
    with (tmp_path / "parts" / "journal-0.jsonl").open("a") as file:
        file.write('[{"picture": "torn')
    second = Recorder(vlm, 1)
    summary, scores = go(DAR, second, tmp_path)
    assert len(second.described) == left
    assert len(second.asked) == summary["questions"] + PICTURES - kill
    work, _, _, theirs = undisturbed
    assert files(tmp_path) == files(work)
    assert scores == theirs


def test_a_finished_evaluation_makes_no_engine(undisturbed, vlm, tmp_path):
    go(DAR, Recorder(vlm), tmp_path)

    def no_engine():
        raise AssertionError("nothing is left to ask")

    place = Placement("cpu", 8, 1, False, partial(progress, "off"), tmp_path)
    assert ask(DAR, no_engine, place, "evaluate") == 0
    _, scores = conclude(DAR, tmp_path, model="base", name="shapes")
    assert scores == undisturbed[3]


def test_scoring_sees_the_benchmarks_own_question(vlm, tmp_path):
    """A rule that reads the question (its options, say) must not find the description there."""
    seen: dict[str, str] = {}

    class Noting(ShapesBenchmark):
        def predict(self, question, text):
            seen[question.id] = question.prompt
            return super().predict(question, text)

    benchmark = Noting(images=1, describe_and_respond=True)
    go(benchmark, Recorder(vlm), tmp_path)
    assert seen == {question.id: question.prompt for question in benchmark.questions()}


# What it is: specs, protocols, keys


def test_the_defaults_are_a_plain_prompt_of_stic_and_the_papers_layout():
    default = DescribeAndRespond()
    assert default.prompt in load_prompts("stic").plain
    assert "composition" in default.prompt
    assert (default.template, default.max_new_tokens) == (LAYOUT, 1024)


def test_the_embedded_worlds_default_is_what_its_model_was_trained_on():
    assert ShapesBenchmark.described.prompt in PLAIN_PROMPTS
    assert ShapesBenchmark.described.template in DESCRIBED_QUESTIONS
    assert ShapesBenchmark.described.max_new_tokens == 48


def test_only_the_two_placeholders_are_filled_in_and_once():
    mode = DescribeAndRespond(template='{"a": {description}} {x} {question}')
    sent = mode.infuse("a {question} {description}", "Why {description}?")
    assert sent == '{"a": a {question} {description}} {x} Why {description}?'


def test_a_written_out_line_break_is_one():
    written = DescribeAndRespond(prompt=r"One.\nTwo.", template=r"{description}\n\n{question}")
    assert written.prompt == "One.\nTwo."
    assert written.infuse("d", "q") == "d\n\nq"


@pytest.mark.parametrize("cls", BENCHMARKS.values())
def test_every_benchmark_has_it_and_true_is_its_written_out_default(cls):
    on = cls(describe_and_respond=True)
    assert on.describe_and_respond == cls.described
    same = [
        cls(describe_and_respond=cls.described),
        cls(describe_and_respond=cls.described.to_json()),
        cls(describe_and_respond={"prompt": cls.described.prompt}),
        cls(describe_and_respond={}),
        cls.model_validate_json(json.dumps(on.to_json())),
    ]
    assert all(other.to_json() == on.to_json() for other in same)
    off = cls(describe_and_respond=False)
    assert off.to_json() == cls().to_json() != on.to_json()


@pytest.mark.parametrize("cls", BENCHMARKS.values())
def test_each_way_to_ask_is_a_protocol_of_its_own(cls):
    ways = [None, True, {"template": "{description} {question}"}, {"prompt": "Say."}]
    protocols = [cls(describe_and_respond=way).protocol_name for way in ways]
    assert protocols[:2] == [cls().plain_protocol, f"{cls().plain_protocol}+dar"]
    assert len(set(protocols)) == len(ways)
    assert all(name.startswith(f"{protocols[1]}.") for name in protocols[2:])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("maybe", "must be true, false"),
        (1, "must be true, false"),
        ([], "must be true, false"),
        ({"template": "{description}"}, "both {description} and {question}"),
        ({"template": "a\n{question}"}, "both {description} and {question}"),
        ({"template": 3}, "template: input should be a valid string"),
        ({"prompt": " "}, "prompt: must not be blank"),
        ({"templat": "x"}, "did you mean 'template'"),
        ({"max_new_tokens": 0}, "max_new_tokens: input should be greater"),
    ],
)
@pytest.mark.parametrize("where", ["benchmark", "benchmark.shapes"])
def test_a_mistake_is_told_in_one_line(where, value, said):
    config = composed()
    node = config["benchmark"] if where == "benchmark" else config["benchmark"]["shapes"]
    node["describe_and_respond"] = value
    with pytest.raises(InputError) as caught:
        parse(config)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{where}.describe_and_respond=")
    assert said in line


# The command line


def composed(*overrides: str) -> dict:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("config", ["+aug=moco", *overrides])
    return OmegaConf.to_container(config, resolve=True)


def experiment(*overrides: str):
    return parse(composed(*overrides)).experiment


def keys(*overrides: str) -> dict[str, str]:
    return {stage.label: stage.key for stage in graph(experiment(*overrides), str)}


OTHER = 'benchmark.describe_and_respond={template: "{description} {question}"}'


def test_one_switch_turns_it_on_for_every_benchmark():
    two = "+benchmark.twin={kind: shapes, images: 3, describe_and_respond: false}"
    on = experiment(two, "benchmark.describe_and_respond=true").benchmark
    assert {name: b.describe_and_respond for name, b in on.items()} == {
        "shapes": ShapesBenchmark.described,
        "twin": ShapesBenchmark.described,
    }
    off = experiment(two, "benchmark.describe_and_respond=false").benchmark
    assert {b.describe_and_respond for b in off.values()} == {None}


def test_one_benchmark_keeps_its_own_setting_where_none_is_shared():
    two = "+benchmark.twin={kind: shapes, images: 3}"
    found = experiment(two, "benchmark.shapes.describe_and_respond=true").benchmark
    assert found["shapes"].describe_and_respond == ShapesBenchmark.described
    assert found["twin"].describe_and_respond is None


def test_what_a_mapping_leaves_out_is_the_benchmarks_own():
    mode = experiment(OTHER).benchmark["shapes"].describe_and_respond
    assert mode.template == "{description} {question}"
    assert mode.prompt == ShapesBenchmark.described.prompt


def test_a_command_line_may_write_line_breaks():
    layout = LAYOUT.replace("\n", r"\n")
    words = f'benchmark.describe_and_respond={{template: "{layout}"}}'
    assert experiment(words) == experiment("benchmark.describe_and_respond=true")


def test_the_way_to_ask_is_in_the_keys_of_evaluation_and_of_nothing_else():
    plain, on, other = keys(), keys("benchmark.describe_and_respond=true"), keys(OTHER)
    evaluated = {label for label in plain if label.startswith(("evaluate", "compare"))}
    for one, two in ((plain, on), (plain, other), (on, other)):
        assert {label for label in one if one[label] != two[label]} == evaluated
    assert keys("benchmark.shapes.describe_and_respond=true") == on
    assert keys("benchmark.describe_and_respond=false") == plain


@pytest.mark.parametrize("gone", ["benchmark=none", "~benchmark.shapes"])
def test_without_a_benchmark_the_switch_measures_nothing(gone):
    assert experiment(gone, "benchmark.describe_and_respond=true").benchmark == {}


def test_a_preset_keeps_its_values_beside_the_switch():
    found = experiment("experiment=quick", "benchmark.describe_and_respond=true").benchmark
    assert found["shapes"].images == 40
    assert found["shapes"].protocol_name.endswith("+dar")


def test_a_misspelt_switch_is_named():
    with pytest.raises(InputError, match="Did you mean 'describe_and_respond'"):
        parse(composed("+benchmark.describe_and_respnd=true"))
