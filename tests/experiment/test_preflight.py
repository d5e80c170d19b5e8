"""One preflight for a run, a dry run and the jobs of a sweep: what is wrong is told all at once,
what several read from elsewhere is looked at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from seva_exp import Experiment, InputError, Machine, Options
from seva_exp.augment import SwapWords
from seva_exp.command.job import Job
from seva_exp.command.sweep_preflight import Faults
from seva_exp.core.digests import FileDigests
from seva_exp.data import FolderData
from seva_exp.experiment import plan_run, run
from seva_exp.experiment.preflight import Preflight
from seva_exp.methods import SevaMethod
from seva_exp.models import TinyModel

from ..test_methods import small

NOWHERE = FolderData(path="/nowhere")
UNKNOWN = SevaMethod(weights={"difusion_noise": 2})


def as_config(what, machine):
    values = what.to_json() | {"machine": machine.to_json(), "tracker": {"kind": "none"}}
    return {name: value for name, value in values.items() if name != "left_out"}


def problems(folder, what, **options):
    return Preflight()(what, Machine(runs=str(folder)), Options(**options))


def test_what_is_wrong_in_data_and_in_views_is_told_at_once(tmp_path):
    found = problems(tmp_path, small(data=NOWHERE, method=UNKNOWN))
    assert len(found.faults) == 2 and "/nowhere" in found.faults[0]
    assert "difusion_noise" in found.faults[1]
    with pytest.raises(InputError, match=r"(?s)/nowhere.*difusion_noise"):
        found.refuse()


@pytest.mark.parametrize("options", [{"stop_after": "pears"}, {"force": ("pears",)}])
def test_a_name_that_no_stage_has_is_a_fault(tmp_path, options):
    (told,) = problems(tmp_path, small(), **options).faults
    assert told.startswith(f"{next(iter(options))}=pears: no such stage. Did you mean 'pairs'?")


def test_a_stage_goes_by_its_label_or_its_name(tmp_path):
    """``rejected`` is called answers.NAME; where a label is given, that is meant alone."""
    what = small(aug={"swap_words": SwapWords()})
    for name in ("rejected", "answers.swap_words"):
        work = problems(tmp_path, what, stop_after=name, force=(name,)).work
        assert work.chosen[-1].label == "answers.swap_words"
        assert work.forced >= {work.chosen[-1].key} and work.chosen[0].key not in work.forced


def test_what_is_lacking_is_no_fault_and_stops_all_but_a_dry_run(tmp_path):
    what, machine = small(data=FolderData()), Machine(runs=str(tmp_path))
    found = problems(tmp_path, what)
    assert not found.faults and "data.path" in found.lacking[0]
    with pytest.raises(InputError, match=r"data\.path: must be set"):
        plan_run(what, machine, Options(), (), FileDigests(tmp_path))
    plan, _ = plan_run(what, machine, Options(dry_run=True), (), FileDigests(tmp_path))
    assert plan.lacking == found.lacking
    with pytest.raises(InputError, match="difusion_noise"):
        wrong = small(data=FolderData(), method=UNKNOWN)
        plan_run(wrong, machine, Options(dry_run=True), (), FileDigests(tmp_path))


def test_what_jobs_have_in_common_is_looked_at_once(tmp_path, monkeypatch):
    looked = []
    check = Experiment.check_external_inputs
    monkeypatch.setattr(
        Experiment,
        "check_external_inputs",
        lambda self, root: looked.append(root) or check(self, root),
    )
    look, machine = Preflight(), Machine(runs=str(tmp_path))
    for seed in (0, 1):
        found = look(small(data=NOWHERE, seed=seed), machine, Options())
        assert "/nowhere" in found.faults[0]
    look(small(), machine, Options())
    assert len(looked) == 2, "one for each data"


def test_only_what_the_stages_left_need_must_be_there(tmp_path, monkeypatch):
    def gone(self) -> None:
        raise InputError("model: gone")

    alone = Machine(runs=str(tmp_path), progress="off", device="cpu")
    sharing = alone.model_copy(update={"processes": 2, "accelerate": "fsdp"})
    with pytest.raises(InputError, match=r"accelerate=fsdp: on machine\.device=cpu"):
        run(small(), sharing, Options(stop_after="answers.clean"))
    monkeypatch.setattr(TinyModel, "prepare", gone)
    with pytest.raises(InputError, match="model: gone"):
        run(small(), alone, Options(stop_after="answers.clean"))
    report = run(small(), sharing, Options(stop_after="samples"))
    assert [stage.name for stage in report.stages] == ["samples"]


GONE = "machine.device=mps: not on this machine"
"""Of Linux, where torch need not be loaded to tell."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="another machine has another GPU")
def test_a_device_that_is_not_here_is_told_by_all_and_stops_what_would_work_here(tmp_path):
    what, machine = small(), Machine(runs=str(tmp_path), device="mps")
    (told,) = Preflight()(what, machine, Options()).absent
    assert told.startswith(GONE)
    plan, _ = plan_run(what, machine, Options(dry_run=True), (), FileDigests(tmp_path))
    assert (plan.lacking, plan.absent) == ((), (told,))
    with pytest.raises(InputError, match=GONE):
        run(what, machine, listeners=[])
    assert not list(tmp_path.iterdir())
    faults, job = Faults(), Job(as_config(what, machine), ())
    faults.check(job, here=False)
    assert not faults
    faults.check(job)
    assert len(faults) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="another machine has another GPU")
def test_a_device_is_not_asked_for_where_nothing_is_left_to_do(tmp_path):
    what, only = small(), Options(stop_after="samples")
    run(what, Machine(runs=str(tmp_path)), only, listeners=[])
    elsewhere = Machine(runs=str(tmp_path), device="mps")
    assert not Preflight()(what, elsewhere, only).absent
    assert Preflight()(what, elsewhere, Options(stop_after="answers")).absent


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="device files of Linux")
def test_a_gpu_is_looked_for_without_torch(tmp_path):
    code = (
        "import os, sys; os.environ['CUDA_VISIBLE_DEVICES'] = '5'\n"
        "from seva_exp.core.machine import Machine, absent_device\n"
        "print([bool(absent_device(Machine(device=d))) for d in ('cuda:1', 'auto', 'cpu')],"
        " 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[True, False, False] False"


def test_memory_that_runs_out_is_known_on_the_cpu_too():
    import torch

    from seva_exp.core.errors import is_out_of_memory

    for ask in (lambda: torch.empty(1 << 50), lambda: bytearray(1 << 60)):
        with pytest.raises((RuntimeError, MemoryError)) as raised:
            ask()
        assert is_out_of_memory(raised.value)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
