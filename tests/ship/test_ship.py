"""What is shipped: plain transformers and plain PEFT give the run's own answers; a card that says
what is known; nothing half done, nothing sent unasked."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.runs.reader import FinishedRun
from seva_exp.ship.__main__ import main
from seva_exp.ship.folders import computed_in, whole_folder
from seva_exp.ship.licence import card_fields
from seva_exp.vllm.weights import needs_older

from .conftest import IMAGES, answers_in


@pytest.fixture(scope="module")
def shipped(trained, tmp_path_factory) -> dict[str, Path]:
    """Both forms."""
    folder = tmp_path_factory.mktemp("out")
    for form in ("merge", "adapter"):
        assert main([str(trained), f"--{form}", "--out", str(folder / form)]) == 0
    return {form: folder / form for form in ("merge", "adapter")}


def plain_model(shipped: dict[str, Path], form: str):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    if form == "merge":
        return AutoModelForImageTextToText.from_pretrained(str(shipped[form]), dtype="auto")
    config = json.loads((shipped[form] / "adapter_config.json").read_text())
    base = AutoModelForImageTextToText.from_pretrained(
        config["base_model_name_or_path"], dtype="float32"
    )
    return PeftModel.from_pretrained(base, str(shipped[form]))


@pytest.mark.parametrize("form", ["merge", "adapter"])
def test_plain_libraries_give_the_answers_of_the_run(trained, shipped, form):
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(str(shipped[form]), backend="pil")
    model = plain_model(shipped, form).eval()
    assert next(model.parameters()).dtype == torch.float32, "the run's own"
    said = answers_in(trained)
    differ = [id for id, text in said["aligned"].items() if said["base"][id] != text]
    assert len(differ) >= 3, "training changed answers"
    questions = {one.id: one for one in ShapesBenchmark(images=IMAGES).questions()}
    for id in [*differ[:20], *list(said["aligned"])[:10]]:
        question = questions[id]
        messages = [
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": question.prompt}],
            }
        ]
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = processor(
            text=[text],
            images=[question.load()],
            return_tensors="pt",
            add_special_tokens=not text.startswith(processor.tokenizer.bos_token),
        )
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=question.max_new_tokens)
        answer = out[0, inputs["input_ids"].shape[1] :]
        found = processor.tokenizer.decode(answer, skip_special_tokens=True).strip()
        assert found == said["aligned"][id], id


def test_weights_have_names_that_vllm_knows_and_files_the_usual_modes(shipped):
    assert not needs_older(shipped["merge"])
    modes = {
        stat.S_IMODE(f.stat().st_mode) for folder in shipped.values() for f in folder.iterdir()
    }
    assert len(modes) == 1 and modes.pop() & 0o044 == 0o044


@pytest.mark.parametrize("form", ["merge", "adapter"])
def test_the_example_of_the_card_runs_as_it_stands(shipped, form, tmp_path, capfd):
    card = (shipped[form] / "README.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", card, re.S)
    picture = next(iter(ShapesBenchmark(images=1).questions())).load()
    picture.resize((90, 60)).save(tmp_path / "picture.jpg")
    code = code.replace('path = "."', f"path = {str(shipped[form])!r}")
    code = code.replace('"picture.jpg"', repr(str(tmp_path / "picture.jpg")))
    exec(compile(code, "card", "exec"), {})
    assert capfd.readouterr().out.strip()


def test_the_card_says_what_is_known(trained, shipped):
    report = json.loads((trained / "report.json").read_text())
    card = (shipped["merge"] / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "apache-2.0"
    assert head["library_name"] == "transformers"
    assert (
        yaml.safe_load((shipped["adapter"] / "README.md").read_text().split("---\n")[1])[
            "library_name"
        ]
        == "peft"
    )
    assert "+aug=diffusion_noise data.samples=40" in card
    assert f"{report['pairs']['kept']} of {report['pairs']['sampled']} samples" in card
    assert "Protocol `seva_exp-shapes-v1`" in card
    score = next(one for one in report["scores"] if one["model"] == "aligned")
    row = next(line for line in card.splitlines() if line.startswith(f"| {score['split']} "))
    assert f"{score['value']:.0f}" in row or f"{score['value']:.1f}" in row
    assert re.search(r"\[[^]]+, [^]]+\]", row), "an interval"
    assert "Measured on shapes and on nothing else" in card
    assert str(Path.home()) + "/" not in card


def refused(capsys, *words: object, code: int = 2) -> str:
    assert main([str(word) for word in words]) == code
    return capsys.readouterr().err


def test_bad_input_is_told_before_weights_are_read(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("seva_exp.models.weights.load_weights", None)
    out = tmp_path / "out"
    assert "there is no folder" in refused(capsys, f"{trained}x", "--merge", "--out", out)
    (out / "thesis").mkdir(parents=True)
    assert "is not empty" in refused(capsys, trained, "--merge", "--out", out)
    assert "is a file" in refused(capsys, trained, "--merge", "--out", trained / "report.json")
    assert "leave it out" in refused(
        capsys, trained, "--adapter", "--dtype", "float16", "--out", tmp_path / "b"
    )
    assert "--base=x" in refused(
        capsys, trained, "--adapter", "--base", "x", "--out", tmp_path / "b"
    )
    said = refused(capsys, trained, "--merge", "--out", tmp_path / "b", "--push", "nonsense")
    assert "organisation/name" in said
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    said = refused(capsys, trained, "--merge", "--out", tmp_path / "b", "--push", "me/mine")
    assert "--yes" in said
    assert [one.name for one in tmp_path.iterdir()] == ["out"], "nothing was made"


def test_a_run_that_trained_nothing_cannot_be_shipped(copy, tmp_path, capsys):
    report = json.loads((copy / "report.json").read_text())
    report["stages"] = [row for row in report["stages"] if row["name"] != "align"]
    (copy / "report.json").write_text(json.dumps(report))
    assert "no aligned model" in refused(capsys, copy, "--merge", "--out", tmp_path / "out")


def test_rounding_that_would_lose_the_change_is_not_done_unasked(
    trained, tmp_path, capsys, monkeypatch
):
    """As for a run on a GPU: it computed in bfloat16, which holds half of what was trained."""
    from safetensors import safe_open

    monkeypatch.setattr("seva_exp.ship.folders.computed_in", lambda run: "bfloat16")
    monkeypatch.setattr("seva_exp.ship.__main__.computed_in", lambda run: "bfloat16")
    monkeypatch.setattr("seva_exp.models.adapter.LOST", 1e-6)

    def kind(folder: Path) -> str:
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            return str(file.get_slice(min(file.keys())).get_dtype())

    assert main([str(trained), "--merge", "--out", str(tmp_path / "auto")]) == 0
    assert "would round much of the trained change away" in capsys.readouterr().out
    assert kind(tmp_path / "auto") == "F32"
    words = ["--merge", "--dtype", "bfloat16", "--out", str(tmp_path / "asked")]
    assert main([str(trained), *words]) == 0
    assert kind(tmp_path / "asked") == "BF16"
    assert "of a layer's change" in capsys.readouterr().out
    assert "is lost by rounding to bfloat16" in (tmp_path / "asked" / "README.md").read_text()


def test_the_runs_own_number_format_is_known(trained):
    assert computed_in(FinishedRun.read(trained)) == "float32"


def test_work_is_done_beside_and_what_a_killed_process_left_is_removed(tmp_path):
    out = tmp_path / "model"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from seva_exp.ship.folders import whole_folder\n"
        "with whole_folder(Path(sys.argv[1])) as work:\n"
        "    (work / 'config.json').write_text('{}'); print('made', flush=True); time.sleep(600)"
    )
    killed = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE)
    assert killed.stdout and killed.stdout.readline() == b"made\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not out.exists()
    [left] = tmp_path.iterdir()
    with pytest.raises(KeyboardInterrupt), whole_folder(out) as work:
        assert not left.exists()
        (work / "config.json").touch()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    out.mkdir()
    with whole_folder(out) as work:
        (work / "config.json").touch()
        assert not list(out.iterdir())
    assert [one.name for one in out.iterdir()] == ["config.json"]


def test_a_licence_is_read_of_the_base_models_card(tmp_path):
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: other\nlicense_name: llama2\ntags: [x]\n---\n# Model\n")
    assert card_fields(card) == {"license": "other", "license_name": "llama2"}
    for text in ("# Model\nlicense: mit\n", "---\nlicense: [broken\n---\n", "---\n- a\n---\n"):
        card.write_text(text)
        assert card_fields(card) == {}
    assert card_fields(tmp_path / "none.md") == {}


def test_a_run_folder_has_no_blank_model_card(trained):
    assert {one.name for one in (trained / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
