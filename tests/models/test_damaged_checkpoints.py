"""Model folders that are damaged, hostile or no model: refused by name, before weights are read
where that can be; nothing of theirs is executed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from seva_exp.core.errors import InputError, StageError
from seva_exp.models import HubModel
from seva_exp.models.adapter import check_adapter, merge_adapter
from seva_exp.models.spec import TINY_CHECKPOINT
from seva_exp.models.template import template_fault
from seva_exp.models.vlm import load
from seva_exp.models.weights import NO_WEIGHTS, not_finite

from .asking import MACHINE

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path):
    """A whole model."""
    return shutil.copytree(TINY_CHECKPOINT, tmp_path / "model")


class Evil:
    """Unpickled, it leaves a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def edited(name, **values):
    def change(folder):
        file = folder / name
        content = json.loads(file.read_text()) if file.exists() else {}
        for key, value in values.items():
            *path, last = key.split("__")
            part = content
            for step in path:
                part = part[step]
            part[last] = value
        file.write_text(json.dumps(content))

    return change


def written(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def gone(name):
    return lambda folder: (folder / name).unlink()


def pickled(name):
    def change(folder):
        (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(pickle.dumps(Evil(folder / "executed")))

    return change


def template(text):
    return written("chat_template.jinja", text.encode())


def both(*changes):
    return lambda folder: [change(folder) for change in changes]


def cut(folder):
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1000])


LLM = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
       "intermediate_size": 8, "vocab_size": 400}  # fmt: skip
INDEX = "model.safetensors.index.json"
AT_ONCE = {
    "no json": (written("config.json", b'{"model_type": '), "config.json cannot be read"),
    "deep": (written("config.json", b"[" * 100_000), "config.json cannot be read"),
    "a list": (written("config.json", b"[]"), r"config.json: a JSON object"),
    "auto_map": (
        edited("config.json", auto_map={"AutoConfig": "evil.C", "AutoModel": "evil.M"}),
        r"code of its own \(auto_map: evil.C, evil.M\)",
    ),
    "pickled": (pickled("pytorch_model.bin"), r"are pickled \(pytorch_model.bin\)"),
    "a checkpoint of torch": (pickled("model.pt"), r"are pickled \(model.pt\)"),
    "no weights": (gone(WEIGHTS), "holds no weights"),
    "cut off": (cut, "model.safetensors: it is cut off"),
    "a pickle by another name": (
        lambda folder: (folder / WEIGHTS).write_bytes(pickle.dumps(Evil(folder / "executed"))),
        "model.safetensors: it is no safetensors file",
    ),
    "an empty file": (written(WEIGHTS, b""), "it is no safetensors file"),
    "a huge header": (written(WEIGHTS, (2**62).to_bytes(8, "little") + b"{}"), "no safetensors"),
    "a header that is no object": (written(WEIGHTS, (2).to_bytes(8, "little") + b"[]"), "safet"),
    "an index that leads out": (
        both(gone(WEIGHTS), edited(INDEX, weight_map={"a": "../../etc/passwd"})),
        r"names '../../etc/passwd', which is no file of weights",
    ),
    "an index of nothing": (edited(INDEX, weight_map=3), "'weight_map' is missing"),
    "a shard that is not there": (
        edited(INDEX, weight_map={"a": "model-00002-of-00002.safetensors"}),
        "model-00002-of-00002.safetensors: there is no such file",
    ),
    "llava_llama": (
        edited("config.json", model_type="llava_llama"),
        r"own layout \(model_type llava_llama\).*llava-hf/llava-1.5-7b-hf \(model=llava15_7b\)",
    ),
    "older llava": (
        edited("config.json", architectures=["LlavaLlamaForCausalLM"]), "llava-hf/llava-1.5-7b-hf"
    ),
    "llava_mistral": (
        edited("config.json", model_type="llava_mistral"), "llava-hf/llava-v1.6-mistral-7b-hf"
    ),
    "a billion layers": (
        edited("config.json", text_config__num_hidden_layers=10**9),
        "config.json: num_hidden_layers=1000000000: 1 to 2000 is possible",
    ),
    "more layers than weights": (
        edited("config.json", text_config__num_hidden_layers=500), "tells 500 layers"
    ),
    "no heads": (
        edited("config.json", text_config__num_attention_heads=0), "num_attention_heads=0: 1 to"
    ),
    "a vocabulary of a billion": (
        edited("config.json", text_config__vocab_size=10**9), "vocab_size=1000000000: 1 to"
    ),
    "an end that is no token": (
        edited("generation_config.json", eos_token_id=-5), "eos_token_id=-5: a token of the voc"
    ),
    "ends of which one is none": (
        edited("generation_config.json", eos_token_id=[2, 10**9]), "eos_token_id=.*1000000000"
    ),
    "no end": (edited("generation_config.json", eos_token_id=[]), r"eos_token_id=\[\]: a token"),
    "a pad that is no number": (
        edited("generation_config.json", pad_token_id="x"), "pad_token_id=x: a token"
    ),
    "huge pictures": (
        edited("preprocessor_config.json", size={"height": 10**6, "width": 10**6}),
        "preprocessor_config.json: size.height=1000000: a picture's side is 1 to 16384 pixels",
    ),
    "pictures of no size": (
        edited("preprocessor_config.json", size={"shortest_edge": 0}), "size.shortest_edge=0"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_folder_is_refused_at_the_first_look(folder, name):
    change, said = AT_ONCE[name]
    change(folder)
    begun = time.monotonic()
    with pytest.raises(InputError, match=said) as caught:
        HubModel(path=str(folder)).check()
    assert time.monotonic() - begun < 30
    assert str(caught.value).startswith(f"model.path={folder}: ")
    assert len(str(caught.value)) < 900 and not (folder / "executed").exists()


BEFORE_WORK = {
    "another kind": (edited("config.json", model_type="nope"), "or processor cannot be re"),
    "text alone": (
        lambda folder: (folder / "config.json").write_text(json.dumps(LLM)),
        "a model of kind 'llama' takes no pictures with questions",
    ),
    "a broken tokenizer": (written("tokenizer.json", b'{"version":"1.0"'), "cannot be read"),
    "attributes": (
        template("{{ ''.__class__.__mro__[1].__subclasses__() }}"), "reaches for what the sandbox"
    ),
    "globals": (
        template("{{ cycler.__init__.__globals__.os.popen('touch x').read() }}"), "reaches for"
    ),
    "a loop": (
        template("{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"),
        "its chat template (takes more than|does not end)",
    ),
    "a large range": (template("{% for a in range(10**9) %}x{% endfor %}"), "loops too often"),
    "a large text": (template("{{ 'a' * 10**10 }}"), "takes more than 1024 MB"),
    "a text of 9 MB": (template("{{ 'a' * 9000000 }}"), "makes 9000000 characters of one"),
    "a large power": (template("{{ 10 ** (10 ** 9) }}"), "does not end within|takes more than"),
    "no template": (template("{{ x "), "is no template"),
    "empty": (template(""), "has no chat template|does not place one picture"),
    "no picture": (
        template("{% for m in messages %}hello?{% endfor %}"), "does not place one picture"
    ),
    "no question": (template("<image>"), "does not place one picture and the question"),
    "an error of its own": (
        template("{{ raise_exception('only with tools') }}"), "cannot be asked: only with tools"
    ),
}  # fmt: skip


ENDLESS = {"a loop", "a large power"}
"""Their time is short; the others have enough, however slow this machine is."""


@pytest.mark.parametrize("name", BEFORE_WORK)
def test_a_folder_is_refused_before_work(folder, monkeypatch, name):
    monkeypatch.setattr("seva_exp.models.template.SECONDS", 1 if name in ENDLESS else 60)
    template_fault.cache_clear()
    change, said = BEFORE_WORK[name]
    change(folder)
    model = HubModel(path=str(folder), pad_to_square=True)
    model.check()
    with pytest.raises(InputError, match=said) as caught:
        model.prepare()
    assert str(caught.value).startswith(f"model.path={folder}: ")
    assert len(str(caught.value)) < 900


def test_a_generation_config_that_samples_absurdly_decides_nothing(folder):
    absurd = {"do_sample": True, "temperature": 1e-30, "max_new_tokens": 10**9, "num_beams": 10**6}
    edited("generation_config.json", **absurd, repetition_penalty=9.0)(folder)
    model = HubModel(path=str(folder), pad_to_square=True)
    model.check()
    model.prepare()
    kept = load(model, MACHINE).model.generation_config
    assert (kept.do_sample, kept.num_beams, kept.max_new_tokens) in [
        (None, None, None),
        (False, 1, None),
    ]


def tensors(change):
    """The weights, changed."""

    def apply(folder):
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS, metadata={"format": "pt"})

    return apply


def half(found):
    for name in sorted(found)[len(found) // 2 :]:
        del found[name]


def first(found):
    return next(name for name in sorted(found) if name.endswith("weight"))


WEIGHT_FAULTS = {
    "half of them": (half, r"57 missing \(model\.vision_tower"),
    "one": (lambda w: w.pop(first(w)), "1 missing"),
    "others beside them": (
        lambda w: w.update({"x.lora_A.weight": torch.ones(2)}), r"1 not this model's \(x.lora_A"
    ),
    "another shape": (
        lambda w: w.update({first(w): w[first(w)][:1].clone()}), r"1 of other shapes \(.*\[1, "
    ),
    "NaN": (lambda w: w[first(w)].mul_(float("nan")), "1 not finite"),
    "one infinity": (lambda w: w[first(w)].view(-1)[5:6].fill_(float("inf")), "1 not finite"),
    "all NaN": (lambda w: [t.mul_(float("nan")) for t in w.values()], r"114 not finite.*\.\.\."),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHT_FAULTS)
def test_weights_that_are_not_whole_are_refused_by_name(folder, name):
    change, said = WEIGHT_FAULTS[name]
    tensors(change)(folder)
    model = HubModel(path=str(folder), pad_to_square=True)
    model.check()
    with pytest.raises(StageError, match=said) as caught:
        load(model, MACHINE)
    assert str(caught.value).startswith(f"model.path={folder}: its weights are not whole: ")
    assert len(str(caught.value)) < 900


def test_buffers_of_older_versions_are_no_fault(folder):
    extra = {f"model.x.{name}": torch.ones(2) for name in NO_WEIGHTS}
    tensors(lambda w: w.update(extra))(folder)
    load(HubModel(path=str(folder), pad_to_square=True), MACHINE)


def test_other_files_of_a_folder_are_not_opened(folder):
    for name in ("training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(Evil(folder / "executed")))
    model = HubModel(path=str(folder), pad_to_square=True)
    model.check()
    model.prepare()
    load(model, MACHINE)
    assert not (folder / "executed").exists()


def test_infinities_of_any_format_are_found():
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        whole, broken = torch.ones(9, dtype=dtype), torch.ones(9, dtype=dtype)
        broken[3] = -torch.inf
        assert not_finite([("a", whole), ("b", broken), ("n", torch.ones(2).int())]) == ["b"]
    assert not_finite([("large", torch.full((9,), 6e4, dtype=torch.float16))]) == []


# --- adapters


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    from .test_adapter import SMALL, trained

    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    model = HubModel(path=str(TINY_CHECKPOINT), pad_to_square=True)
    return trained(load(model, MACHINE), folder, SMALL)


def whole_model():
    return load(HubModel(path=str(TINY_CHECKPOINT), pad_to_square=True), MACHINE).model


FILE, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def of_adapter(change):
    def apply(folder):
        found = load_file(folder / FILE)
        change(found)
        save_file(found, folder / FILE, metadata={"format": "pt"})

    return apply


def drop_layer(found):
    for name in [name for name in found if ".layers.0.mlp.down_proj." in name]:
        del found[name]


ADAPTERS = {
    "a layer": (of_adapter(drop_layer), rf"{FILE}: .*2 missing \(.*down_proj.lora_A"),
    "a factor": (of_adapter(lambda w: w.pop(max(w))), rf"{FILE}: .*1 missing \(.*lora_B"),
    "half": (of_adapter(half), rf"{FILE}: .* missing"),
    "NaN": (of_adapter(lambda w: w[max(w)].mul_(float("nan"))), r"1 not finite \(.*lora_B"),
    "cut": (lambda f: (f / FILE).write_bytes((f / FILE).read_bytes()[:-99]), f"{FILE}: cannot be"),
    "gone": (gone(FILE), f"{FILE}: cannot be read"),
    "pickled": (
        both(
            gone(FILE),
            lambda f: (f / "adapter_model.bin").write_bytes(pickle.dumps(Evil(f / "executed"))),
        ),
        f"{FILE}: cannot be read",
    ),
    "no config": (gone(CONFIG), f"{CONFIG}: cannot be read"),
    "no json": (written(CONFIG, b"{"), f"{CONFIG}: cannot be read as a LoRA adapter's config"),
    "deep": (written(CONFIG, b"[" * 99999), f"{CONFIG}: cannot be read"),
    "another kind": (edited(CONFIG, peft_type="IA3"), f"{CONFIG}: .*peft_type LORA"),
    "no rank": (edited(CONFIG, r=0), f"{CONFIG}: "),
    "rank as text": (edited(CONFIG, r="4"), f"{CONFIG}: "),
    "alpha": (edited(CONFIG, lora_alpha=[8]), f"{CONFIG}: lora_alpha="),
    "targets": (edited(CONFIG, target_modules=[3]), f"{CONFIG}: "),
    "unknown": (edited(CONFIG, use_dora=True), "use_dora=True is not known here"),
}  # fmt: skip


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_that_is_not_whole_is_refused_by_name(adapter, tmp_path, name):
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    change, said = ADAPTERS[name]
    change(folder)
    with pytest.raises(StageError, match=said) as caught:
        merge_adapter(whole_model(), folder)
    assert str(folder) in str(caught.value) and len(str(caught.value)) < 900
    assert not (folder / "executed").exists()


def test_a_whole_adapter_is_taken(adapter):
    check_adapter(adapter, whole_model())
    assert merge_adapter(whole_model(), adapter).merged > 0
