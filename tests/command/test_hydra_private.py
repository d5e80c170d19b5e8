"""What we use of Hydra's private parts is still what we take it for."""

from __future__ import annotations

import inspect

import hydra
import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import OmegaConf

from seva_exp.command.hydra_private import (
    TRUSTED,
    flags,
    grid,
    main_arguments,
    sweep_configs,
    sweeps_a_grid,
)
from seva_exp.core.paths import config_dir


def parsed(*words: str):
    return OverridesParser.create().parse_overrides([*words])


def test_a_grid_is_every_combination_in_hydra_s_order():
    assert grid(parsed("dpo.beta=0.1,0.2", "seed=0", "+aug=[moco,blend],pad")) == [
        ["dpo.beta=0.1", "seed=0", "+aug=[moco,blend]"],
        ["dpo.beta=0.1", "seed=0", "+aug=pad"],
        ["dpo.beta=0.2", "seed=0", "+aug=[moco,blend]"],
        ["dpo.beta=0.2", "seed=0", "+aug=pad"],
    ]
    with pytest.raises(HydraException, match="does not support"):
        grid(parsed("dpo.beta=interval(0,1)"))


def test_hydra_s_own_sweeper_makes_its_jobs_of_that_grid():
    """Of all sweepers that are installed one is a grid: Hydra's default."""
    grids = [one for one in Plugins.instance().discover(Sweeper) if sweeps_a_grid(one)]
    assert [one.__name__ for one in grids] == ["BasicSweeper"]
    assert "self.split_arguments(" in inspect.getsource(grids[0].sweep)


def test_hydra_is_told_in_the_words_of_its_version(monkeypatch):
    """Today's is one of both; tests/test_hydra_candidate.py runs the other."""
    taken = set(inspect.signature(hydra.main).parameters)
    assert set(main_arguments()) <= taken
    for version in ("1.3.2", "1.3.8", "1.10.0", "1.4.0rc3", "1.4.0", "2.0"):
        monkeypatch.setattr(hydra, "__version__", version)
        new = not version.startswith("1.3")
        told = {"execution_whitelist": list(TRUSTED)} if new else {"version_base": "1.3"}
        assert main_arguments() == told


def test_what_a_config_may_make_is_ours_and_hydra_s():
    """Every ``_target_`` of conf/ and sweeps/ is among what Hydra 1.4 is told to trust."""
    from seva_exp.core.paths import config_dir, sweeps_dir

    named = {
        line.split("_target_:")[1].strip(" }")
        for root in (config_dir(), sweeps_dir())
        for file in root.rglob("*.yaml")
        for line in file.read_text(encoding="utf-8").splitlines()
        if "_target_:" in line
    }
    assert named and all(
        any(name.startswith(prefix.rstrip("*")) for prefix in TRUSTED) for name in named
    )


def test_the_flags_are_those_of_its_command_line():
    assert {"--cfg", "-m", "-cn", "--info"} <= {*flags()}


def test_a_job_s_config_is_what_hydra_composes_alone():
    """Also where only values differ, which are set in a copy of what was composed once."""
    jobs = grid(
        parsed("+aug=moco,[moco,blend]", "dpo.beta=0.1,0.2", "+method.weights.moco=2", "seed=0,1")
    )
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [], run_mode=RunMode.MULTIRUN)
        loads = []
        alone = [loader.load_sweep_config(master, words) for words in jobs]
        compose = loader.load_sweep_config
        loader.load_sweep_config = lambda *args: loads.append(args) or compose(*args)
        together = list(sweep_configs(loader, master, jobs))
        with pytest.raises(HydraException):
            list(sweep_configs(loader, master, [["+aug=moco", "dpo.betta=1"]]))
    assert len(loads) == 3, "of eight jobs two are composed (and the wrong one)"
    for one, other in zip(alone, together, strict=True):
        for config in (one, other):
            config.hydra.job.override_dirname = ""
        assert OmegaConf.to_container(one) == OmegaConf.to_container(other)
