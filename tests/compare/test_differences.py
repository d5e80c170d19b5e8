"""Which fields tell runs apart: the config's differences, no more."""

from __future__ import annotations

from seva_exp.compare.differences import differing, short_names


def test_only_fields_with_several_values_are_told():
    one = {"dpo": {"beta": 0.1, "rank": 8}, "data": {"kind": "shapes", "samples": 10}}
    other = {"dpo": {"beta": 0.5, "rank": 8}, "data": {"kind": "shapes", "samples": 10}}
    assert differing([one, other]) == {"dpo.beta": [0.1, 0.5]}
    assert differing([one]) == {}


def test_views_that_only_some_runs_have_are_one_column():
    moco, noise = {"kind": "moco", "crop": 0.2}, {"kind": "diffusion_noise", "step": 500}
    runs = [
        {"aug": {"moco": moco}},
        {"aug": {"noise": noise}},
        {"aug": {"noise": noise, "moco": moco}},
    ]
    assert differing(runs) == {"aug": ["moco", "noise", "moco+noise"]}
    runs.append({"aug": {"noise": noise | {"step": 800}}})
    assert differing(runs) == {
        "aug": ["moco", "noise", "moco+noise", "noise"],
        "aug.noise.step": [None, 500, 500, 800],
    }


def test_a_group_of_another_kind_is_told_by_its_kind():
    runs = [{"data": {"kind": "folder", "path": "x"}}, {"data": {"kind": "shapes", "samples": 3}}]
    assert differing(runs) == {"data.kind": ["folder", "shapes"]}


def test_a_group_that_is_null_in_one_run():
    runs = [{"sft": None}, {"sft": {"epochs": 1}}, {"sft": {"epochs": 2}}]
    assert differing(runs) == {"sft": ["none", "given", "given"], "sft.epochs": [None, 1, 2]}


def test_lists_and_truth_values_read_as_text():
    runs = [
        {"filters": [{"kind": "equal"}], "fast": True},
        {"filters": [{"kind": "equal"}, {"kind": "length_ratio", "max": 3}], "fast": False},
    ]
    assert differing(runs) == {
        "filters": ["equal", "equal, length_ratio(max=3)"],
        "fast": ["true", "false"],
    }


def test_fields_are_called_by_as_little_as_tells_them_apart():
    fields = ["dpo.beta", "aug.noise.step", "aug.other.step", "seed"]
    assert short_names(fields) == {
        "dpo.beta": "beta",
        "aug.noise.step": "noise.step",
        "aug.other.step": "other.step",
        "seed": "seed",
    }
