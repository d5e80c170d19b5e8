"""What we use of Hydra's private parts is still what we take it for."""

from __future__ import annotations

import inspect

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper

from seva_exp.command.hydra_private import grid, sweeps_a_grid


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
