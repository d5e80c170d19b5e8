"""Protocols: what is sent, which rule scores, and a name that tells two of them apart."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.protocols import PACKAGED, Protocol, packaged_protocols
from seva_exp.benchmarks.questions import SECTIONS
from seva_exp.core.errors import InputError

LETTER = "Answer with the option's letter from the given choices directly."


@pytest.mark.parametrize("kind", sorted(OFFICIAL))
def test_every_benchmark_has_llava15_and_every_packaged_part_is_whole(kind):
    assert "llava15" in packaged_protocols(kind)
    for name in packaged_protocols(kind):
        benchmark = OFFICIAL[kind](kind=kind, protocol=name)
        assert benchmark.protocol_name.startswith(name)
        assert benchmark.rules_of_protocol.rule in benchmark.rules


def test_no_packaged_part_is_of_an_unknown_benchmark():
    for name in packaged_protocols():
        assert set(yaml.safe_load((PACKAGED / f"{name}.yaml").read_text())) <= {
            *OFFICIAL,
            *SECTIONS,
        }


def test_a_line_without_content_is_left_out_and_braces_stay():
    protocol = Protocol(
        prompt="Context: {hint}\n{question}{hint}\nAnswer:\n{hint}\n{options}",
        rule="r",
        max_new_tokens=1,
    )
    texts = {"hint": "", "question": "What is {hint}?", "options": "A. {x}"}
    assert protocol.render(texts) == "What is {hint}?\nAnswer:\nA. {x}"


def test_llava15_sends_what_its_evaluation_sends(samples):
    def first(kind: str) -> str:
        return next(iter(OFFICIAL[kind](kind=kind).questions(samples))).prompt

    short = "Answer the question using a single word or phrase."
    assert first("pope").endswith(f"in the image?\n{short}")
    assert first("mme").endswith(f"in the image?\n{short}"), "MME's own ending is replaced"
    assert "Please answer" not in first("mme")
    _, token, ending = first("textvqa").split("\n")
    assert token.startswith("Reference OCR token: ")
    assert ending == short
    hint, again, _, *options, letter = first("mmbench_en").split("\n")
    assert (hint, again) == ("Look at the picture,", "then answer.")
    assert [line[:3] for line in options] == ["A. ", "B. ", "C. ", "D. "]
    assert letter == LETTER
    assert first("mmbench_cn").endswith("\n请直接回答选项字母。")
    assert first("mathvista").startswith("Question: ")
    assert first("chair") == "Please describe this image in detail."


SCIENCE = [  # hint, question, options; what llava_test_CQM-A.json of LLaVA-1.5's eval.zip has
    ("", "Which colony?", ["Maryland", "Ohio"], f"Which colony?\nA. Maryland\nB. Ohio\n{LETTER}"),
    ("Read.", "Why?", ["x", "y"], f"Context: Read.\nWhy?\nA. x\nB. y\n{LETTER}"),
    ("Two\nlines.", "Why?", ["x", "y"], f"Context: Two\nlines.\nWhy?\nA. x\nB. y\n{LETTER}"),
    ("", "One\nTwo?", ["x", "y", "z"], f"One\nTwo?\nA. x\nB. y\nC. z\n{LETTER}"),
    ("", "Why?", ["a", "b", "c", "d", "e"], f"Why?\nA. a\nB. b\nC. c\nD. d\nE. e\n{LETTER}"),
    ("A {hint}.", "{x}?", ["{y}", "z"], f"Context: A {{hint}}.\n{{x}}?\nA. {{y}}\nB. z\n{LETTER}"),
    ("N/A", "Why?", ["x", "y"], f"Context: N/A\nWhy?\nA. x\nB. y\n{LETTER}"),
    ("Look.", "Options?", ["(A)", "B."], f"Context: Look.\nOptions?\nA. (A)\nB. B.\n{LETTER}"),
    ("", "Question: which?", ["x", "y"], f"Question: which?\nA. x\nB. y\n{LETTER}"),
    ("  ", "Which?", ["1", "2"], f"Which?\nA. 1\nB. 2\n{LETTER}"),
]  # fmt: skip


@pytest.mark.parametrize("protocol", ["llava15", "lmms_eval"])
@pytest.mark.parametrize(("hint", "question", "choices", "sent"), SCIENCE)
def test_scienceqas_prompt_is_that_of_the_question_file(
    samples, tmp_path, protocol, hint, question, choices, sent
):
    """No "Question:", no "Options:", no "(A)"; a first line "Context: HINT" where there is one."""
    shutil.copytree(samples / "scienceqa", tmp_path / "scienceqa")
    file = tmp_path / "scienceqa" / "problems.json"
    content = json.loads(file.read_text())
    fields = {"hint": hint, "question": question, "choices": choices, "answer": 0}
    content["1"] |= fields
    file.write_text(json.dumps(content))
    benchmark = OFFICIAL["scienceqa"](kind="scienceqa", protocol=protocol)
    assert next(iter(benchmark.questions(tmp_path))).prompt == sent


@pytest.mark.parametrize("kind", ["mmbench_en", "mmbench_cn", "seed", "scienceqa"])
def test_vlmevalkit_asks_multiple_choice_as_its_datasets_do(kind):
    """By VLMEvalKit's image_mcq.py: build_prompt."""
    asked = OFFICIAL[kind](kind=kind, protocol="vlmevalkit").rules_of_protocol
    texts = {"hint": "Look.", "question": "What?", "options": "A. x\nB. y"}
    ending = "Question: What?\nOptions:\nA. x\nB. y\n"
    ending += "Please select the correct answer from the options above. \n"
    assert asked.render(texts) == f"Hint: Look.\n{ending}"
    assert asked.render(texts | {"hint": ""}) == ending
    assert asked.circular == kind.startswith("mmbench")


def test_lmms_eval_sends_what_its_tasks_send():
    """By lmms-eval 0.7.2's mmbench/{en,cn}_utils.py and textvqa/utils.py."""

    def sent(kind: str, texts: dict[str, str]) -> str:
        return OFFICIAL[kind](kind=kind, protocol="lmms_eval").rules_of_protocol.render(texts)

    texts = {"hint": "Look.", "question": "What?", "options": "A. x\nB. y"}
    for kind, options, letter in (
        ("mmbench_en", "There are several options:", LETTER),
        ("mmbench_cn", "有如下几个选项：", "请直接使用所提供的选项字母作为答案回答。"),
    ):
        assert sent(kind, texts) == f"Look. What? {options}\nA. x\nB. y\n\n{letter}"
        assert sent(kind, texts | {"hint": ""}).startswith(f"What? {options}\n")


def test_lmms_evals_textvqa_lowers_what_follows_the_first_letter(samples, tmp_path):
    copy = shutil.copytree(samples / "textvqa", tmp_path / "textvqa")
    file = copy / "TextVQA_0.5.1_val.json"
    content = json.loads(file.read_text())
    content["data"][0]["question"] = "what does IBM say?"
    file.write_text(json.dumps(content))
    benchmark = OFFICIAL["textvqa"](kind="textvqa", protocol="lmms_eval")
    assert next(iter(benchmark.questions(tmp_path))).prompt.startswith("What does ibm say?\n")


def test_mme_as_it_is_for_a_harness_that_sends_it_so(samples):
    benchmark = OFFICIAL["mme"](kind="mme", protocol="vlmevalkit")
    assert next(iter(benchmark.questions(samples))).prompt.endswith("Please answer yes or no.")


def test_a_file_of_ones_own_has_a_name_of_its_own(tmp_path, samples):
    file = tmp_path / "curt.yaml"

    def benchmark(prompt: str):
        content = {"pope": {"prompt": prompt, "rule": "exact", "max_new_tokens": 4}}
        file.write_text(yaml.safe_dump(content))
        return OFFICIAL["pope"](kind="pope", protocol=str(file))

    one, two = benchmark("{question} Yes or no?"), benchmark("{question} No or yes?")
    assert one.protocol_name.startswith("curt.")
    other = two.protocol_name
    assert other.startswith("curt.")
    one = benchmark("{question} Yes or no?")
    assert one.protocol_name != other
    question = next(iter(one.questions(samples)))
    assert question.prompt.endswith("in the image? Yes or no?")
    assert one.predict(question, "Yes, it is").extracted == ""
    assert one.identity(str, samples) != two.identity(str, samples)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("pope: {prompt: '{question}', rule: exat, max_new_tokens: 4}", "Did you mean 'exact'"),
        ("pope: {prompt: '{qestion}', rule: exact, max_new_tokens: 4}", "Did you mean 'question'"),
        ("pope: {prompt: '{question}', rule: exact}", "pope.max_new_tokens: field required"),
        ("pope: {prompt: '', rule: exact, max_new_tokens: 4}", "pope.prompt"),
        ("pope: {prompt: Yes or no., rule: exact, max_new_tokens: 4}", "must fill in {question}"),
        ("pope: {prompt: x, rule: exact, max_new_tokens: 4, circlar: 1}", "pope.circlar"),
        ("mme: {}", "says nothing about pope"),
        ("- pope", "a mapping"),
        ("pope: [", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, content, said):
    file = tmp_path / "own.yaml"
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        OFFICIAL["pope"](kind="pope", protocol=str(file)).plain_protocol  # noqa: B018
    assert said in str(caught.value)
    assert "benchmark.pope.protocol" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("pope", "lava15", "Did you mean 'llava15'"),
        ("mathvista", "lmms_eval", "mathvista has: llava15, tiny"),
    ],
)
def test_an_unknown_name_gets_the_nearest(kind, name, said):
    with pytest.raises(InputError) as caught:
        OFFICIAL[kind](kind=kind, protocol=name).plain_protocol  # noqa: B018
    assert said in str(caught.value)
