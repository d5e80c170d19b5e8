"""One preflight for a run, a dry run and the jobs of a sweep: what is wrong is told all at once,
what several read from elsewhere is looked at once."""

from __future__ import annotations

import pytest

from seva_exp import Experiment, InputError, Machine, Options
from seva_exp.core.digests import FileDigests
from seva_exp.data import FolderData
from seva_exp.experiment import plan_run, run
from seva_exp.experiment.preflight import Preflight
from seva_exp.methods import SevaMethod
from seva_exp.models import TinyModel

from ..test_methods import small

NOWHERE = FolderData(path="/nowhere")
UNKNOWN = SevaMethod(weights={"difusion_noise": 2})


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
