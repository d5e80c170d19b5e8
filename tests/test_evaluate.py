"""``method=adapter`` and ``python -m seva_exp.evaluate``: what was trained elsewhere beside its
base model, which is loaded once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from seva_exp import Experiment, InputError, Machine, Options
from seva_exp.augment import DiffusionNoise
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.core.errors import StageError
from seva_exp.core.records import Report
from seva_exp.data import ShapesData
from seva_exp.evaluate import as_sweep
from seva_exp.experiment import run
from seva_exp.experiment.preflight import Preflight
from seva_exp.experiment.trained_elsewhere import trained_elsewhere
from seva_exp.methods import AdapterMethod
from seva_exp.models import TinyModel
from seva_exp.models import vlm as vlm_module
from seva_exp.models.adapter import Beside, attach_adapter, merge_adapter
from seva_exp.models.vlm import load
from seva_exp.runs.events import Listener
from seva_exp.stages.loaded import LoadedModel
from seva_exp.training import DpoTraining

CPU = Machine(device="cpu", progress="lines")
ASKED = {"shapes": ShapesBenchmark(images=3)}


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, Report]:
    """A finished run, and the machine whose store has it."""
    folder = tmp_path_factory.mktemp("aligned")
    machine = CPU.model_copy(update={"store": str(folder / "store"), "runs": str(folder / "runs")})
    experiment = Experiment(
        aug={"diffusion_noise": DiffusionNoise(step=700)},
        data=ShapesData(samples=24),
        dpo=DpoTraining(learning_rate=3e-3, warmup_ratio=0.0),
        benchmark=ASKED,
    )
    return machine, run(experiment, machine)


@pytest.fixture
def lora(aligned: tuple[Machine, Report], tmp_path: Path) -> Path:
    """The run's adapter in a folder of its own, as if it had been downloaded."""
    shutil.copytree(Path(aligned[1].dir, "align", "adapter").resolve(), tmp_path / "lora")
    return tmp_path / "lora"


def measured(adapter: Path | str, **changes) -> Experiment:
    return Experiment(method=AdapterMethod(adapter=str(adapter)), benchmark=ASKED, **changes)


def elsewhere(machine: Machine, folder: Path) -> Machine:
    """With a store and runs of its own: ``runs/latest`` stays what it is."""
    places = {"store": str(folder / "store"), "runs": str(folder / "runs")}
    return machine.model_copy(update=places)


def edited(lora: Path, **changes) -> Path:
    file = lora / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return lora


def scores(report: Report, model: str) -> dict[str, float]:
    return {s.metric: s.value for s in report.scores if s.model == model}


def test_a_run_s_adapter_scores_as_in_its_run_and_the_base_is_not_asked_again(aligned, lora):
    machine, before = aligned
    loaded = LoadedModel(keeps_base=True)
    for where in (before.dir, lora):
        report = run(measured(where), machine, loaded=loaded)
        cached = {stage.name: stage.cached for stage in report.stages}
        assert cached["evaluate.base.shapes"]
        assert list(cached) == [
            "external_adapter", "evaluate.base.shapes", "evaluate.aligned.shapes", "compare.shapes",
        ]  # fmt: skip
        for model in ("base", "aligned"):
            assert scores(report, model) == scores(before, model)
        assert report.pairs is None


def test_the_base_model_is_loaded_once_for_all_adapters(aligned, lora, tmp_path, monkeypatch):
    machine = aligned[0].model_copy(update={"store": str(tmp_path / "other")})
    other = shutil.copytree(lora, tmp_path / "twice")
    weights = load_file(other / "adapter_model.safetensors")
    save_file(
        {n: 2 * w if n.endswith("lora_B.weight") else w for n, w in weights.items()},
        other / "adapter_model.safetensors",
    )
    count: list[Path | None] = []
    really = vlm_module.load
    monkeypatch.setattr(
        vlm_module, "load", lambda s, m, a, w: [count.append(a), really(s, m, a, w)][1]
    )
    loaded = LoadedModel(keeps_base=True)
    found = [run(measured(one), machine, loaded=loaded) for one in (lora, other)]
    assert count == [None]
    assert scores(found[0], "base") == scores(found[1], "base")
    alone = run(measured(other), machine, Options(force=("evaluate.aligned",)))
    assert scores(found[1], "aligned") == scores(alone, "aligned")  # merged, in float32


def test_what_is_attached_is_what_is_merged_and_comes_off_to_the_bit(lora):
    spec = TinyModel()
    model, merged = (load(spec, CPU).model for _ in range(2))
    before = {name: one.clone() for name, one in model.state_dict().items()}
    merge_adapter(merged, lora)
    ids = torch.tensor([[1, 5, 9, 30, 7]])
    plain = model(input_ids=ids).logits
    attached = attach_adapter(model, lora)
    assert any(isinstance(one, Beside) for one in model.modules())
    assert (model(input_ids=ids).logits - merged(input_ids=ids).logits).abs().max() < 1e-4
    assert not torch.equal(model(input_ids=ids).logits, plain)
    attached.detach()
    assert not any(isinstance(one, Beside) for one in model.modules())
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert torch.equal(model(input_ids=ids).logits, plain)


def test_names_of_transformers_4_are_known(aligned, lora):
    file = lora / "adapter_model.safetensors"
    old = {
        name.replace("model.model.language_model.", "model.language_model.model."): one
        for name, one in load_file(file).items()
    }
    assert all(".language_model.model.layers" in name for name in old)
    save_file(old, file)
    report = run(measured(lora), aligned[0])
    assert scores(report, "aligned") == scores(aligned[1], "aligned")


class Ears(Listener):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def warned(self, text: str) -> None:
        self.heard.append(text)


def test_an_adapter_that_names_another_base_model_is_told(aligned, lora, tmp_path):
    """Layers of the same shape do not make the same weights."""
    machine, ears = elsewhere(aligned[0], tmp_path), Ears()
    options = Options(force=("external_adapter",), stop_after="external_adapter")
    for named in (None, "org/Tiny_Checkpoint", "org/another-7b"):
        assert not ears.heard
        experiment = measured(edited(lora, base_model_name_or_path=named))
        run(experiment, machine, options, listeners=[ears])
    (told,) = ears.heard
    assert "external_adapter" in told and "trained on org/another-7b" in told


def test_how_an_adapter_began_does_not_matter(aligned, lora):
    """As PEFT writes one that began as Gaussian numbers; and one of before there was a field."""
    report = run(measured(edited(lora, init_lora_weights="gaussian", use_rslora=None)), aligned[0])
    assert scores(report, "aligned") == scores(aligned[1], "aligned")


def refused(experiment: Experiment, machine: Machine) -> str:
    with pytest.raises(InputError) as caught:
        run(experiment, machine)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type='IA3': LORA is needed"),
        ({"r": 0}, "r=0: a whole number above 0"),
        ({"lora_alpha": "much"}, "lora_alpha='much': a number"),
        ({"use_rslora": True}, "use_rslora=True is not known here"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4' is not known"),
        ({"init_lora_weights": "olora"}, "init_lora_weights='olora' is not known here"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens=[1, 2] is not known here"),
        ({"layer_replication": [[0, 2]]}, "layer_replication=[[0, 2]] is not known here"),
    ],
)
def test_a_config_that_is_none_of_ours_is_refused(aligned, lora, changes, said):
    told = refused(measured(edited(lora, **changes)), aligned[0])
    assert said in told and f"method.adapter={lora}" in told


def test_an_adapter_of_another_model_is_refused_before_weights_are_read(aligned, lora, monkeypatch):
    monkeypatch.setattr(vlm_module, "load", lambda *_: pytest.fail("weights were read"))
    file = lora / "adapter_model.safetensors"
    whole = load_file(file)
    save_file({n.replace("q_proj", "qkv_proj"): one for n, one in whole.items()}, file)
    machine = aligned[0].model_copy(update={"store": str(lora.parent / "store")})
    told = refused(measured(edited(lora, base_model_name_or_path="org/base")), machine)
    assert "qkv_proj" in told and "trained on org/base" in told
    save_file({n: one[..., :-1].contiguous() for n, one in whole.items()}, file)
    assert "is not an adapter of" in refused(measured(lora), machine)


def test_an_adapter_that_is_not_whole_is_refused_before_weights_are_read(
    aligned, lora, monkeypatch
):
    """PEFT would leave a factor that is missing at its beginning."""
    monkeypatch.setattr(vlm_module, "load", lambda *_: pytest.fail("weights were read"))
    file = lora / "adapter_model.safetensors"
    whole = load_file(file)
    for end in ("lora_A.weight", "lora_B.weight"):
        lost = next(name for name in whole if name.endswith(end))
        save_file({name: one for name, one in whole.items() if name != lost}, file)
        told = refused(measured(lora), aligned[0])
        assert f"it lacks {lost.removeprefix('base_model.model.')}." in told
        assert f"method.adapter={lora}" in told
    save_file({}, file)
    assert "holds no weights" in refused(measured(lora), aligned[0])


def test_numbers_that_are_not_finite_are_told_with_the_adapter_s_own_file(aligned, lora, tmp_path):
    file = lora / "adapter_model.safetensors"
    save_file({name: one * float("nan") for name, one in load_file(file).items()}, file)
    with pytest.raises(StageError, match="not finite") as caught:
        run(measured(lora), elsewhere(aligned[0], tmp_path))
    assert str(file) in str(caught.value)


def test_a_file_is_no_folder(aligned, lora):
    told = refused(measured(lora / "adapter_model.safetensors"), aligned[0])
    assert f"its folder is needed ('{lora}')" in told


def test_pickled_and_missing_weights_are_refused(aligned, lora):
    file = lora / "adapter_model.safetensors"
    file.rename(lora / "adapter_model.bin")
    assert "a pickle can run any code" in refused(measured(lora), aligned[0])
    (lora / "adapter_model.bin").unlink()
    assert "holds no weights (adapter_model.safetensors)" in refused(measured(lora), aligned[0])


def test_a_place_that_holds_nothing_is_refused_with_the_nearest(aligned, lora, tmp_path):
    assert "Did you mean" in refused(measured(tmp_path / "lore"), aligned[0])
    (tmp_path / "empty").mkdir()
    assert "no finished run" in refused(measured(tmp_path / "empty"), aligned[0])


def test_a_typo_beside_real_folders_is_no_hub_id(aligned, lora, monkeypatch):
    monkeypatch.chdir(lora.parent)
    (lora.parent / "mine").mkdir()
    lora.rename("mine/lora")
    said = refused(measured("mine/lore"), aligned[0])
    assert "no such folder" in said and "Did you mean 'mine/lora'?" in said


def test_the_latest_run_is_the_one_of_when_it_was_asked_for(aligned, lora):
    """Twice: then the latest run has itself measured an adapter."""
    machine, before = aligned
    latest = Path(before.dir).parent / "latest"
    for _ in range(2):
        report = run(measured(latest), machine)
        assert scores(report, "aligned") == scores(before, "aligned")
        assert latest.resolve() == Path(report.dir).resolve()


def test_an_evaluation_that_has_not_ended_stands_for_what_it_measures(aligned, lora, tmp_path):
    """``adapters=[runs/latest]``, interrupted, and the same command again."""
    begun = tmp_path / "begun"
    begun.mkdir()
    config = {"method": {"kind": "adapter", "adapter": str(lora)}}
    (begun / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    model = measured(lora).model
    found = [trained_elsewhere(AdapterMethod(adapter=str(one)), model) for one in (begun, lora)]
    assert found[0] == found[1]

    for method in ({"kind": "adapter", "adapter": str(begun)}, {"kind": "seva"}, None):
        (begun / "config.yaml").write_text(yaml.safe_dump({"method": method}), encoding="utf-8")
        assert "holds no finished run" in refused(measured(begun), aligned[0])


def test_nothing_is_trained_so_no_view_is_asked():
    with pytest.raises(ValueError, match="Leave \\+aug out"):
        measured("x", aug={"noise": DiffusionNoise(step=700)})
    with pytest.raises(ValueError, match="nothing to measure"):
        Experiment(method=AdapterMethod(adapter="x"), benchmark={})


def test_a_whole_checkpoint_stands_beside_the_base(aligned, lora, tmp_path):
    vlm = load(TinyModel(), CPU, lora)
    vlm.model.save_pretrained(tmp_path / "whole")
    vlm.processor.save_pretrained(tmp_path / "whole")
    report = run(measured(tmp_path / "whole"), aligned[0])
    assert next(stage.name for stage in report.stages) == "evaluate.base.shapes"
    assert scores(report, "base") == scores(aligned[1], "base")
    assert len(scores(report, "aligned")) == len(scores(report, "base"))


def test_preflight_tells_of_it_as_a_run_does(lora, tmp_path):
    machine = CPU.model_copy(update={"store": str(tmp_path / "store")})
    problems = Preflight()(measured(edited(lora, r=0)), machine, Options())
    assert problems.faults and "r=0" in problems.faults[0]


def test_the_words_become_a_sweep():
    assert as_sweep(["adapters=[a/b,'c,d']", "benchmark=pope"]) == [
        "-m", "method=adapter", "method.adapter='a/b','c,d'", "benchmark=pope",
    ]  # fmt: skip
    assert as_sweep(["adapters=one"])[2] == "method.adapter='one'"
    for words in ([], ["adapters="], ["adapters=[]"], ["adapters=[a", "x=1"]):
        with pytest.raises(InputError, match="adapters"):
            as_sweep(words)
    with pytest.raises(InputError, match="leave it out"):
        as_sweep(["adapters=[a]", "+aug=moco"])


def test_two_adapters_by_the_command_and_their_page(aligned, lora, tmp_path):
    machine = aligned[0]
    shutil.copytree(lora, tmp_path / "a second, one")
    words = [
        f"adapters=[{aligned[1].dir},'{tmp_path / 'a second, one'}']", "tracker=none",
        "benchmark.shapes.images=3", f"machine.store={machine.store}", "machine.device=cpu",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "seva_exp.evaluate", *words],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (page,) = (tmp_path / "runs" / "multirun").glob("*/compare.html")
    assert "a-second-one" in page.read_text(encoding="utf-8")
