"""What a store, a server or a checkpoint may hold: damaged manifests, replies and configs are read,
or refused by name; never a traceback."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import pytest
from httpx2 import Response

from seva_exp.benchmarks.judging import Query
from seva_exp.benchmarks.replies import JudgeReply, Replies
from seva_exp.core.errors import InputError, StageError
from seva_exp.core.store import MANIFEST, Manifest, Store
from seva_exp.models.adapter import lora_of
from seva_exp.models.checkpoint import check_files
from seva_exp.models.spec import TINY_CHECKPOINT
from seva_exp.runs.reader import FinishedRun
from seva_exp.served.chat import PassingFault, Refusal, reply_of, tokens_of

from .damaging import as_json, damaged, damaged_json, examples
from .test_readers import sizes

KEY = "k" * 64


@sizes
def test_a_damaged_manifest_is_one_or_none(tmp_path, count):
    store = Store(tmp_path)
    folder = store.path("samples", KEY)
    folder.mkdir(parents=True)
    (folder / "samples.jsonl").write_text("x\n")
    whole = Manifest("samples", 1, KEY, {"a": 1}, {}, {"python": "3"}, 1.0, {}).sealed(folder)

    def check(content: bytes) -> None:
        (folder / MANIFEST).write_bytes(content)
        found = store.find("samples", KEY)
        assert found is None or found.key == KEY
        store.fault("samples", KEY)

    examples(damaged_json(asdict(whole)), check, count)


@sizes
def test_a_damaged_reply_of_a_judge_is_a_text_or_none(tmp_path, count):
    replies = Replies(tmp_path)
    query = Query("judge", (("user", "Is it?"),), 0.0, 8, 0)
    replies.keep(JudgeReply(query, "yes"))
    (file,) = tmp_path.rglob("*.json")

    def check(content: bytes) -> None:
        file.write_bytes(content)
        found = replies.find(query)
        assert found is None or isinstance(found, str)

    examples(damaged_json(json.loads(file.read_text())), check, count)


REPLY = {
    "choices": [{"message": {"role": "assistant", "content": "A cat."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2},
}


@sizes
@pytest.mark.parametrize("status", [200, 400, 429, 500])
def test_a_damaged_reply_of_a_server_is_an_answer_or_a_fault(status, count):
    def check(content: bytes) -> None:
        response = Response(status, content=content)
        try:
            reply = reply_of("id", response)
        except (Refusal, PassingFault) as error:
            str(error).encode()
            assert len(str(error)) < 900
            return
        assert isinstance(reply.text, str)
        assert all(type(count) is int for count in tokens_of(response))

    examples(damaged_json(REPLY), check, count)


@sizes
@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "processor_config.json", "model.safetensors"]
)
def test_a_damaged_checkpoint_is_taken_or_refused_by_file(tmp_path, name, count):
    folder = shutil.copytree(TINY_CHECKPOINT, tmp_path / "model")
    content = (folder / name).read_bytes()
    weights = name.endswith(".safetensors")
    strategy = damaged(content[:5000]) if weights else damaged_json(json.loads(content))

    def check(content: bytes) -> None:
        (folder / name).write_bytes(content)
        try:
            check_files(folder, "model.path=x")
        except InputError as error:
            message = str(error)
            message.encode()
            assert message.startswith("model.path=x: ") and len(message) < 900

    examples(strategy, check, count)


LORA = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["a.q_proj"],
    "bias": "none",
}


@sizes
def test_a_damaged_adapter_config_is_taken_or_refused_by_file(tmp_path, count):
    def check(content: bytes) -> None:
        (tmp_path / "adapter_config.json").write_bytes(content)
        try:
            lora_of(tmp_path)
        except StageError as error:
            assert str(error).startswith(str(tmp_path / "adapter_config.json"))
            str(error).encode()

    examples(damaged_json(LORA), check, count)


REPORT = {
    "key": "k",
    "name": "n",
    "seed": 0,
    "stages": [],
    "pairs": None,
    "scores": [],
    "deltas": [],
}


@sizes
@pytest.mark.parametrize("name", ["report.json", "config.yaml"])
def test_a_damaged_run_is_read_or_refused_by_folder(tmp_path, name, count):
    (tmp_path / "report.json").write_bytes(as_json(REPORT))
    (tmp_path / "config.yaml").write_bytes(as_json({"model": {"kind": "tiny"}}))
    whole = json.loads((tmp_path / name).read_text())

    def check(content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        try:
            FinishedRun.read(tmp_path)
        except InputError as error:
            assert str(error).startswith(str(tmp_path))
            str(error).encode()

    examples(damaged_json(whole), check, count)
