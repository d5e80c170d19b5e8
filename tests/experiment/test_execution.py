"""What becomes of errors while stages work."""

from __future__ import annotations

import pytest

from seva_exp import Experiment, InputError, Machine, Options
from seva_exp.augment import Moco
from seva_exp.core.errors import StageError
from seva_exp.data import ShapesData
from seva_exp.experiment import run
from seva_exp.stages import Answers, Samples

ONLY = Options(stop_after="samples")


def small() -> Experiment:
    return Experiment(aug={"moco": Moco()}, data=ShapesData(samples=4))


def test_an_error_that_no_stage_expects_names_the_stage_and_its_trace(tmp_path, monkeypatch):
    machine = Machine(runs=str(tmp_path))
    with monkeypatch.context() as broken:
        broken.setattr(Samples, "run", lambda *_: 1 / 0)
        with pytest.raises(StageError, match=r"^samples: ZeroDivisionError.*resumes.*error\.txt$"):
            run(small(), machine, ONLY, listeners=[])
    (trace,) = tmp_path.glob("2*/error.txt")
    assert "Traceback" in trace.read_text(encoding="utf-8")
    assert run(small(), machine, ONLY, listeners=[]).stages[0].name == "samples"


def test_bad_input_is_found_before_work_or_an_error_of_the_stage(tmp_path, monkeypatch):
    def refuse(*_):
        raise InputError("data.path: bad row")

    machine = Machine(runs=str(tmp_path))
    with monkeypatch.context() as broken, pytest.raises(InputError, match=r"^data\.path: bad row$"):
        broken.setattr(Samples, "run", refuse)
        run(small(), machine, ONLY, listeners=[])
    with pytest.raises(StageError, match=r"^answers\.clean: data\.path: bad row$"):
        monkeypatch.setattr(Answers, "run", refuse)
        run(small(), machine, Options(stop_after="answers.clean"), listeners=[])
