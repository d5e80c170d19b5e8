"""lmms-eval as a second opinion: what is told before anything is merged or installed, what is
merged, what is read back; and (slow) the harness itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from seva_exp import Machine
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.core.store import MANIFEST
from seva_exp.lmms_eval.__main__ import main
from seva_exp.lmms_eval.environment import HARNESS, Environment, wanted
from seva_exp.lmms_eval.results import HarnessScore, keep, read_results, result_table, rows_of
from seva_exp.lmms_eval.tasks import PACKAGED
from seva_exp.models import TinyModel
from seva_exp.runs.merged import merged_checkpoint, write_merged
from seva_exp.runs.trained import read_trained

from .conftest import IMAGES

TASK = "task: own_task\ndataset_path: nowhere\n"
RESULTS = Path(__file__).with_name("results.json")
ENVIRONMENT = Path(__file__).parents[2] / ".venv-lmms-eval"


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """The run's folder, to be changed; its links lead into the same store."""
    folder = tmp_path / "runs" / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    for link in folder.iterdir():
        if link.is_symlink():
            target = (finished / link.name).resolve()
            link.unlink()
            link.symlink_to(target)
    return folder


@pytest.fixture
def refused(capsys, tmp_path):
    """Gives the command, and what it says when it refuses; nothing may have been made."""

    def call(run: Path, *words: str, code: int = 2) -> str:
        if "--env" not in words:
            words = (*words, "--env", str(tmp_path / "env"))
        assert main([str(run), *words]) == code
        assert not (tmp_path / "env").exists()
        return capsys.readouterr().err

    return call


def test_a_run_that_is_not_there_or_not_finished_is_told(refused, copy):
    said = refused(copy.with_name("copi"), "--tasks", "pope")
    assert "no folder" in said
    assert str(copy) in said, "the nearest name"
    (copy / "report.json").unlink()
    assert "is not finished" in refused(copy, "--tasks", "pope")


def test_a_run_that_trained_nothing_has_no_aligned_model(refused, copy):
    report = json.loads((copy / "report.json").read_text())
    report["stages"] = [row for row in report["stages"] if row["name"] != "align"]
    (copy / "report.json").write_text(json.dumps(report))
    assert "no aligned model" in refused(copy, "--tasks", "pope")


def test_an_adapter_that_is_not_whole_is_told(refused, copy, tmp_path):
    artifact = (copy / "align").resolve()
    own = tmp_path / "store" / "align" / artifact.name
    shutil.copytree(artifact, own)
    (copy / "align").unlink()
    (copy / "align").symlink_to(own)
    (own / "adapter" / "adapter_model.safetensors").write_bytes(b"cut")
    assert "not whole any more" in refused(copy, "--tasks", "pope")


def test_a_base_model_that_has_changed_since_is_told(refused, copy, tmp_path):
    artifact = (copy / "align").resolve()
    own = tmp_path / "store" / "align" / artifact.name
    shutil.copytree(artifact, own)
    (copy / "align").unlink()
    (copy / "align").symlink_to(own)
    manifest = json.loads((own / MANIFEST).read_text())
    manifest["spec"]["model"]["path"]["config.json"] = "0" * 64
    (own / MANIFEST).write_text(json.dumps(manifest))
    assert "its files differ" in refused(copy, "--tasks", "pope")


def test_an_unknown_task_is_told_with_the_nearest(refused, finished, tmp_path):
    assert "Did you mean 'mmbench_en_dev'?" in refused(finished, "--tasks", "pope,mmbench_en_devv")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "own.yaml").write_text(TASK)
    own = ("--include-path", str(tmp_path / "tasks"))
    said = refused(finished, "--tasks", "own_tusk", *own)
    assert "Did you mean 'own_task'?" in said
    assert "has: own_task." in said
    assert "there is no folder" in refused(
        finished, "--tasks", "pope", "--include-path", "/no/tasks"
    )


def test_other_bad_input_is_told(refused, finished, tmp_path):
    assert "--tasks: names no task" in refused(finished, "--tasks", " , ")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    said = refused(finished, "--tasks", "pope", "--env", str(tmp_path / "full"))
    assert "no virtual environment" in said
    assert "no such program" in refused(finished, "--tasks", "pope", "--python", "python9.9")
    assert "--dtype float99" in refused(finished, "--tasks", "pope", "--dtype", "float99")
    if not torch.cuda.is_available():
        assert "not on this machine" in refused(finished, "--tasks", "pope", "--device", "cuda")


def test_where_it_cannot_be_installed_the_commands_are_told_and_nothing_is_merged(
    refused, copy, tmp_path
):
    merged = (copy / "align").resolve().parents[1] / "merged"
    before = list(merged.glob("*"))
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'ERROR: No matching distribution found for x' >&2\nexit 1\n")
    broken.chmod(0o755)
    said = refused(copy, "--tasks", "pope", "--python", str(broken), code=1)
    assert "No matching distribution found for x" in said
    assert f"{broken} -m venv {tmp_path / 'env'}" in said
    assert f"-m pip install lmms-eval=={HARNESS} torch==" in said
    assert not (copy / "lmms_eval.json").exists()
    assert list(merged.glob("*")) == before


def test_an_environment_with_other_versions_is_not_ready(tmp_path):
    environment = Environment(tmp_path / "env")
    assert not environment.ready
    environment.python.parent.mkdir(parents=True)

    def holds(versions: dict[str, str]) -> bool:
        environment.python.write_text(f"#!/bin/sh\necho '{json.dumps(versions)}'\n")
        environment.python.chmod(0o755)
        return environment.ready

    built = {name: f"{number}+cpu" for name, number in wanted().items()}
    assert holds(built | {"wandb": "0.25.0"}), "which build it is does not matter"
    assert not holds(built | {"transformers": "4.0.0"})
    assert not holds({"torch": built["torch"]})


@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-5), ("bfloat16", 0.1)])
@pytest.mark.parametrize("projector", [False, True])
def test_the_merged_model_gives_the_logits_of_the_adapter(tmp_path, dtype, apart, projector):
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForImageTextToText, AutoProcessor

    where, kind = TinyModel().location(), getattr(torch, dtype)
    base = AutoModelForImageTextToText.from_pretrained(where, dtype=kind)
    whole = ["multi_modal_projector"] if projector else None
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], modules_to_save=whole)
    torch.manual_seed(0)
    trained = get_peft_model(base, config)
    for weight in trained.parameters():
        if weight.requires_grad:
            weight.data += 0.02 * torch.randn_like(weight)
    trained.save_pretrained(str(tmp_path / "adapter"))

    lost = write_merged(TinyModel(), tmp_path / "adapter", dtype, tmp_path / "merged")
    assert lost < (1e-4 if dtype == "float32" else 0.2)

    processor = AutoProcessor.from_pretrained(str(tmp_path / "merged"))
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it red?"}]}],
        add_generation_prompt=True,
    )
    picture = torch.rand(3, 72, 72, generator=torch.Generator().manual_seed(0))
    inputs = processor(text=[text], images=[picture], return_tensors="pt").to(kind)

    def logits(model) -> torch.Tensor:
        with torch.no_grad():
            return model.eval()(**inputs).logits.float().log_softmax(-1)

    plain = logits(AutoModelForImageTextToText.from_pretrained(where, dtype=kind))
    fresh = AutoModelForImageTextToText.from_pretrained(where, dtype=kind)
    apart_by_adapter = logits(PeftModel.from_pretrained(fresh, str(tmp_path / "adapter")))
    merged = AutoModelForImageTextToText.from_pretrained(str(tmp_path / "merged"), dtype="auto")
    assert merged.dtype == kind
    scale = (apart_by_adapter - plain).abs().max()
    assert scale > 0.1, "the adapter does something"
    assert (logits(merged) - apart_by_adapter).abs().max() < apart * max(1, scale)


def test_that_a_merged_checkpoint_is_another_model_is_told(finished):
    """At the default learning rate bfloat16 holds little of what was trained."""
    run = read_trained(finished)
    folder, note = merged_checkpoint(run, Machine(device="cpu", dtype="float32"))
    assert not note and (folder / "model.safetensors").exists()
    for _ in range(2):  # the second time from the store
        _, note = merged_checkpoint(run, Machine(device="cpu", dtype="bfloat16"))
        share = re.search(r"bfloat16 weights the adapter's change is off by up to (\d+)%", note)
        assert int(share[1]) > 20 and "--dtype float32" in note


def read(model: str, **changes) -> list[HarnessScore]:
    found = json.loads(RESULTS.read_text())
    given = {"limit": None, "dtype": "float32", "harness": f"lmms-eval {HARNESS}"}
    return read_results(found, model=model, **(given | changes))


def test_a_results_file_of_the_harness_is_read(tmp_path):
    rows = read("base")
    assert [(row.task, row.metric, row.filter) for row in rows] == [
        ("shapes_pope", "exact_match", "none")
    ], "standard errors and aliases are no rows"
    assert (rows[0].n, rows[0].better, rows[0].protocol) == (20, "higher", "lmms_eval")
    assert 0 < rows[0].value <= 1
    assert rows[0].stderr == pytest.approx((rows[0].value * (1 - rows[0].value) / 19) ** 0.5)


def test_numbers_are_kept_by_model_and_task(tmp_path):
    keep(tmp_path, read("base"))
    keep(tmp_path, read("aligned"))
    keep(tmp_path, read("aligned", limit=20))
    assert [(row.model, row.limit) for row in rows_of(tmp_path)] == [
        ("base", None),
        ("aligned", 20),
    ]
    assert "+0" in result_table(rows_of(tmp_path))


UTILS = """
def pictures(doc):
    return [doc["image"].convert("RGB")]
"""
TASKS = """
task: shapes_pope
dataset_path: {path}
dataset_kwargs:
  load_from_disk: true
test_split: test
output_type: generate_until
doc_to_visual: !function utils.pictures
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  max_new_tokens: 8
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
metadata:
  version: 1
"""


@pytest.fixture
def own_task(tmp_path) -> Path:
    """The existence questions of our own benchmark as a task of the harness."""
    from datasets import Dataset, DatasetDict

    questions = [q for q in ShapesBenchmark(images=IMAGES).questions() if "pope" in q.type]
    rows = [{"image": q.load(), "question": q.prompt, "answer": q.target} for q in questions]
    DatasetDict(test=Dataset.from_list(rows)).save_to_disk(str(tmp_path / "pope"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "utils.py").write_text(UTILS)
    (folder / "own.yaml").write_text(TASKS.format(path=tmp_path / "pope"))
    return folder


@pytest.mark.slow
def test_the_harness_agrees_with_our_own_numbers(copy, own_task, capsys):
    """Installs lmms-eval into .venv-lmms-eval of the checkout, once."""
    words = ["--tasks", "shapes_pope", "--include-path", str(own_task), "--env", str(ENVIRONMENT)]
    assert main([str(copy), *words]) == 0, capsys.readouterr().err
    ours = {
        score["model"]: score["value"]
        for score in json.loads((copy / "report.json").read_text())["scores"]
        if (score["split"], score["metric"]) == ("pope", "accuracy")
    }
    theirs = {row.model: row for row in rows_of(copy)}
    assert {model: 100 * row.value for model, row in theirs.items()} == pytest.approx(ours)
    assert {row.n for row in theirs.values()} == {6 * IMAGES}
    shown = capsys.readouterr().out
    assert "pope accuracy" in shown
    assert "shapes_pope" in shown[shown.index(f"lmms-eval {HARNESS}") :]

    own = (own_task / "own.yaml").read_text()
    (own_task / "own.yaml").write_text(own.replace("utils.pictures", "utils.nothing"))
    assert main([str(copy), *words]) == 1
    assert "nothing" in capsys.readouterr().err
    assert rows_of(copy) == list(theirs.values()), "what there was is kept"


@pytest.mark.slow
def test_the_packaged_names_are_those_of_the_harness(tmp_path):
    environment = Environment(ENVIRONMENT)
    if not environment.ready:
        environment.install(tmp_path / "log")
    code = "from lmms_eval.tasks import TaskManager as T; print(*sorted(T().all_tasks), sep='\\n')"
    done = subprocess.run(
        [environment.python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert PACKAGED.read_text().split() == done.stdout.split()
