"""A folder that cannot be a model is refused before its weights are read, by file and reason."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from seva_exp.core.errors import InputError
from seva_exp.models import HubModel, TinyModel
from seva_exp.models.spec import TINY_CHECKPOINT
from seva_exp.models.usable import check_usable

from .families import FAMILIES

TEMPLATE, CONFIG = "chat_template.jinja", "config.json"
BERT = {"model_type": "bert", "hidden_size": 8, "num_attention_heads": 1, "vocab_size": 10}
LLAMA = {**BERT, "model_type": "llama", "num_hidden_layers": 1, "intermediate_size": 8}
CODE = "import os\nos.system('touch executed')\n"


def edited(path: str, **values: Any) -> Any:
    """Other values in a part of a JSON file."""

    def edit(text: str) -> str:
        whole = json.loads(text)
        part = whole
        for name in path.split("."):
            part = part[name] if name else part
        part.update(values)
        return json.dumps(whole)

    return edit


FAULTS = {
    "config: torn": (CONFIG, '{"model_type": ', "config.json: .*not a valid JSON"),
    "config: a list": (CONFIG, "[]", "config.json: .*model_type"),
    "config: deep": (CONFIG, "[" * 100_000, "config.json: RecursionError"),
    "config: unknown": (CONFIG, edited("", model_type="nope"), "config.json: .*nope"),
    "config: no heads": (CONFIG, edited("text_config", num_attention_heads=0), "config.json: "),
    "config: wide": (CONFIG, edited("text_config", intermediate_size=10**8), "intermediate_size=1"),
    "config: layers": (CONFIG, edited("text_config", num_hidden_layers=10**9), "num_hidden_layers"),
    "config: text alone": (CONFIG, json.dumps(LLAMA), "llama is no model that is asked about pict"),
    "config: no generator": (CONFIG, json.dumps(BERT), "bert is no model"),
    "config: own code": (
        CONFIG,
        edited("", model_type="evil", auto_map={"AutoConfig": "modeling_x.C"}),
        "config.json: .*custom code",
    ),
    "template: syntax": (TEMPLATE, "{{ x ", "chat template: unexpected end of template"),
    "template: empty": (TEMPLATE, "", "no chat template"),
    "template: blind": (TEMPLATE, "{% for m in messages %}hello{% endfor %}", "writes 0 places"),
    "template: two": (TEMPLATE, "<image><image>{{ messages[0] }}", "writes [234] places"),
    "template: attributes": (TEMPLATE, "{{ ''.__class__.__mro__ }}", "SecurityError"),
    "template: globals": (TEMPLATE, "{{ cycler.__init__.__globals__.os }}", "SecurityError"),
    "template: memory": (TEMPLATE, "{{ 'a' * 10000000000 }}", "numbers above 9,999"),
    "template: power": (TEMPLATE, "{{ 10 ** 10 ** 9 }}", "powers"),
    "template: range": (
        TEMPLATE,
        "{% for a in range(999999) %}{% endfor %}",
        "numbers above 9,999",
    ),
    "processor: sides": (
        "processor_config.json",
        edited("image_processor", size={"shortest_edge": 10**6}),
        "size.shortest_edge=1000000",
    ),
    "processor: torn": ("processor_config.json", "{", "processor or chat template: "),
    "tokenizer: torn": ("tokenizer.json", '{"version":"1.0"', "tokenizer, processor"),
    "tokenizer: none": ("tokenizer.json", None, "tokenizer, processor"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_it_is_refused_by_file_and_reason(name: str, tmp_path: Path, monkeypatch) -> None:
    file, content, said = FAULTS[name]
    folder = tmp_path / "model"
    shutil.copytree(TINY_CHECKPOINT, folder)
    (folder / "modeling_x.py").write_text(CODE)
    if content is None:
        (folder / file).unlink()
    else:
        text = content((folder / file).read_text()) if callable(content) else content
        (folder / file).write_text(text)
    (folder / "model.safetensors").write_bytes(b"nobody reads it")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        check_usable(HubModel(path=str(folder), pad_to_square=True))
    message = str(refused.value)
    assert message.startswith(f"model.path={folder}: ") and "\n" not in message
    assert len(message) < 600
    assert re.search(said, message), message
    assert not (tmp_path / "executed").exists()


def test_a_template_that_never_ends_is_not_waited_for(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("seva_exp.models.usable.ASKING", 0.5)
    folder = tmp_path / "model"
    shutil.copytree(TINY_CHECKPOINT, folder)
    four = "".join(f"{{% for {name} in range(30) %}}" for name in "abcde")
    (folder / TEMPLATE).write_text(f"{four}{'{% endfor %}' * 5}<image>")
    start = time.monotonic()
    with pytest.raises(InputError, match="chat template: not done in"):
        check_usable(HubModel(path=str(folder)))
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_be_used(name: str, spec_of) -> None:
    check_usable(spec_of(name))


def test_the_embedded_model_can_be_used() -> None:
    check_usable(TinyModel())
