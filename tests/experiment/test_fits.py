"""Whether a run fits its device: told before it begins, refused where it cannot; what is advised
fits, and so do batch sizes that are chosen."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest

from seva_exp import Experiment, InputError, Machine, Options
from seva_exp.command.config import parse
from seva_exp.core.device_memory import GIB
from seva_exp.core.digests import FileDigests
from seva_exp.experiment import graph, plan_run, run
from seva_exp.experiment.fits import SURE, Fit, smaller
from seva_exp.experiment.preflight import Preflight
from seva_exp.models import TinyModel
from seva_exp.models.footprint import footprint_of
from seva_exp.report.console import Console
from seva_exp.stages import Stage

from ..command.test_config import composed
from ..test_methods import small

SEVA = "experiment=seva_7b_paper"


def wanted(*words: str):
    return parse(composed("tracker=none", *words))


def fit(*words: str, **machine) -> Fit:
    asked = wanted(*words)
    return Fit(asked.experiment, asked.machine.model_copy(update=machine), planned=True)


def need(found: Fit, label: str) -> float:
    """GiB."""
    return next(one.bytes for one in found.needs if one.label == label) / GIB


# Verdicts


def test_seva_s_paper_preset_fits_80_gb_and_not_24():
    """Rank 1024: weights and four times the adapter are 51.3 GiB, and from the second step on a
    micro-step's activations come on top."""
    large, little = fit(SEVA), fit(SEVA, "machine=gpu_24gb")
    assert not large.fault() and 51.3 + 0.6 < need(large, "align") < 58
    assert need(little, "align") > 51.3
    assert [one.label for one in little.too_large] == ["align"]
    assert "dpo.lora_rank=128 dpo.lora_alpha=256" in little.fault()
    assert not fit(SEVA, "machine=gpu_24gb", "dpo.lora_rank=128", "dpo.lora_alpha=256").fault()


@pytest.mark.parametrize(
    "words",
    [
        (SEVA, "machine=gpu_24gb"),
        (SEVA, "machine=local", "dpo.lora_rank=128", "dpo.lora_alpha=256"),
        ("experiment=seva_13b_paper",),
        (SEVA, "machine=gpu_24gb", "model=llava15_13b"),
        ("experiment=stic_v15_7b_paper", "machine.memory_gb=22"),
    ],
    ids=" ".join,
)
def test_what_is_advised_fits(words):
    """By the same estimate: each of the ways is taken, and nothing is refused any more."""
    found = fit(*words, **({"memory_gb": 24} if "machine=local" in words else {}))
    ways = [ways.split() for ways, _ in found.changes()]
    assert found.too_large and ways
    for way in ways:
        changed = wanted(*words, *way)
        machine = changed.machine.model_copy(update={"memory_gb": found.machine.memory_gb})
        again = Fit(changed.experiment, machine, planned=True)
        assert not again.fault(), way
        assert again.most <= again.device.bytes


def test_what_changes_no_result_is_advised_alone():
    """Smaller micro-batches do; nobody has to take another rank."""
    (way,) = fit(SEVA, "machine=local", "dpo.lora_rank=128", memory_gb=24).changes()
    assert way[0] == "machine.train_batch_size=4 machine.gradient_checkpointing=true"


def test_a_device_that_nothing_fits_is_said_to_be_too_small():
    found = fit(SEVA, memory_gb=2)
    assert "take a smaller model or more memory" in found.fault()


def test_in_main_memory_each_process_counts():
    """Of a CPU; and fewer processes are advised."""
    alone = fit("+aug=diffusion_noise", device="cpu")
    several = fit("+aug=diffusion_noise", device="cpu", processes=4, memory_gb=2.2)
    assert need(several, "answers.clean") > 3.5 * need(alone, "answers.clean")
    assert "machine.processes=" in several.fault()


def test_the_machine_s_memory_changes_no_key(tmp_path):
    stages = graph(wanted("+aug=moco").experiment, FileDigests(tmp_path))
    again = graph(wanted("+aug=moco", "machine=auto").experiment, FileDigests(tmp_path))
    assert [one.key for one in stages] == [one.key for one in again]


def test_places_are_rounded_as_by_the_engine():
    from seva_exp.decoding import kv_cache, memory

    assert memory.ROUNDED[1] == kv_cache.STEP


# One preflight


def refused(tmp_path, **options):
    """A large batch of the embedded model in little memory."""
    machine = Machine(runs=str(tmp_path), progress="off", device="cpu", memory_gb=0.25)
    return small(), machine, Options(**options)


def test_a_run_that_cannot_fit_is_refused_before_a_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(TinyModel, "prepare", lambda self: pytest.fail("it went on"))
    with pytest.raises(InputError, match=r"align: needs .* of 0\.25 GiB .*does not fit"):
        run(*refused(tmp_path))
    assert not (tmp_path / "latest").exists()


def test_a_dry_run_tells_it_and_each_stage(tmp_path, capsys):
    what, machine, _ = refused(tmp_path)
    options = Options(dry_run=True)
    plan, _ = plan_run(what, machine, options, (), FileDigests(tmp_path))
    assert plan.lacking == (), "no key depends on memory"
    (absent,) = plan.absent
    assert "does not fit" in absent
    Console().planned(plan)
    shown = capsys.readouterr().out
    assert "it cannot run on this machine:\n  " in shown and "before it can run" not in shown
    lines = "\n".join(plan.notes)
    for label in ("answers.clean", "reference", "align", "evaluate"):
        assert re.search(rf"^  {label}.*needs .* GiB.*DOES NOT FIT$", lines, re.MULTILINE), label


def test_a_sweep_s_check_counts_only_memory_that_is_declared(tmp_path):
    """Its jobs may be started elsewhere."""
    what, machine, options = refused(tmp_path)
    assert "does not fit" in Preflight()(what, machine, options, here=False).absent[0]
    unknown = machine.model_copy(update={"memory_gb": None})
    assert Preflight()(what, unknown, options, here=False).absent == ()


def test_what_the_store_has_needs_no_memory(tmp_path):
    what, little, _ = refused(tmp_path)
    enough = little.model_copy(update={"memory_gb": None})
    run(what, enough, Options(stop_after="answers.clean"))
    report = run(what, little, Options(stop_after="answers.clean"))
    assert all(stage.cached for stage in report.stages)
    with pytest.raises(InputError, match=r"answers\.clean: needs"):
        run(what, little, Options(stop_after="answers.clean", force=("answers",)))


def test_what_is_damaged_needs_memory_again(tmp_path):
    """Dry run and run look at the store in the same way: by digests."""
    what, little, _ = refused(tmp_path)
    enough = little.model_copy(update={"memory_gb": None})
    only = Options(stop_after="answers.clean")
    run(what, enough, only)
    (file,) = (tmp_path / "latest" / "answers.clean").resolve().glob("answers.jsonl")
    file.write_bytes(bytes(reversed(file.read_bytes())))  # of the same size
    with pytest.raises(InputError, match=r"answers\.clean: needs"):
        run(what, little, only)
    dry = only.model_copy(update={"dry_run": True})
    plan, _ = plan_run(what, little, dry, (), FileDigests(tmp_path))
    assert "does not fit" in plan.absent[0] and any("recomputed" in one for one in plan.notes)


def test_a_dry_run_tells_no_memory_of_what_is_cached(tmp_path):
    what, little, _ = refused(tmp_path)
    run(what, little.model_copy(update={"memory_gb": None}), Options(stop_after="answers.clean"))
    plan, _ = plan_run(what, little, Options(dry_run=True), (), FileDigests(tmp_path))
    verdicts = [one for one in plan.notes if "DOES NOT FIT" in one]
    assert verdicts and not any("answers.clean" in one for one in verdicts)
    dry = Options(dry_run=True, stop_after="answers.clean")
    assert plan_run(what, little, dry, (), FileDigests(tmp_path))[0].notes == ()


def test_a_plan_builds_its_graph_once(tmp_path, monkeypatch):
    from seva_exp.experiment import fits, work

    built = []
    for module in (fits, work):
        monkeypatch.setattr(module, "graph", lambda *a: built.append(a) or graph(*a))
    plan_run(small(), auto(runs=str(tmp_path)), Options(dry_run=True), (), FileDigests(tmp_path))
    assert len(built) == 1


def test_plain_local_refuses_nothing_of_the_embedded_model(tmp_path):
    for words in (
        ("+aug=diffusion_noise",),
        ("method=stic", "sft=stic"),
        ("+aug=moco", "dpo=mdpo"),
    ):
        asked = wanted(*words)
        found = Preflight()(asked.experiment, asked.machine, Options())
        assert found.lacking == found.absent == found.faults == (), words


def test_an_estimate_loads_no_torch():
    code = (
        "import sys; from seva_exp import Experiment, Machine; from seva_exp.augment import Moco;"
        "from seva_exp.experiment.fits import Fit; from seva_exp.models import HubModel;"
        "what = Experiment(aug={'moco': Moco()}, model=HubModel(path='llava-hf/llava-1.5-7b-hf'));"
        "assert list(Fit(what, Machine(memory_gb=24), planned=True).lines());"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_stage_of_which_nothing_is_known_is_said_to_be_so():
    """One that is not here yet, and training by a config file of accelerate's."""

    @dataclass(frozen=True)
    class Novel(Stage):
        name: ClassVar[str] = "novel"
        needs_model: ClassVar[bool] = True

        def spec(self):
            return {}

        def run(self, work, inputs, context):
            return {}

    what = wanted("+aug=moco").experiment
    found = Fit(what, Machine(device="cpu"), stages=(Novel(),))
    assert list(found.lines()) == ["memory of novel: not estimated"] and not found.fault()
    by_file = Machine(device="cpu", accelerate="my.yaml", processes=2)
    assert any("align: not estimated" in one for one in Fit(what, by_file).lines())
    served = wanted("+aug=moco", "generation=server").experiment
    assert not any("not estimated" in one for one in Fit(served, Machine(device="cpu")).lines())


# Batch sizes that fit


def auto(**values) -> Machine:
    return wanted("+aug=moco", "machine=auto").machine.model_copy(update=values)


def test_auto_takes_what_fits_also_with_the_longest_answers():
    what = wanted(SEVA, "dpo.lora_rank=128", "dpo.lora_alpha=256").experiment
    for gib in (24, 40, 80):
        machine = Fit(what, auto(memory_gb=gib), planned=True).fitted().machine
        chosen = Fit(what, machine, planned=True)
        assert not chosen.fault()
        assert max(one.bytes for one in chosen._needs(512)[0]) <= gib * GIB
        larger = machine.model_copy(update={"train_batch_size": 2 * machine.train_batch_size})
        more = max(one.bytes for one in Fit(what, larger, planned=True)._needs(512)[0])
        assert machine.train_batch_size == 16 or more > 0.95 * gib * GIB
    assert machine.batch_size > 64


def test_auto_on_a_large_device_recomputes_nothing():
    what = wanted("+aug=diffusion_noise").experiment
    machine = Fit(what, auto(device="cpu", memory_gb=8)).fitted().machine
    assert (machine.train_batch_size, machine.gradient_checkpointing) == (16, False)


def test_auto_keeps_to_what_is_given():
    what = wanted("+aug=diffusion_noise").experiment
    machine = Fit(what, auto(device="cpu", train_batch_size=3, batch_size=5)).fitted().machine
    assert (machine.train_batch_size, machine.batch_size) == (3, 5)


def test_auto_s_choice_is_the_run_s(tmp_path, monkeypatch):
    from seva_exp.stages import StageContext

    seen = []
    real = StageContext.placement
    monkeypatch.setattr(
        StageContext,
        "placement",
        lambda self, *work: seen.append(self.machine.batch_size) or real(self, *work),
    )
    machine = auto(runs=str(tmp_path), progress="off", device="cpu")
    what: Experiment = small()
    kept = footprint_of(what.model)[0]
    assert kept
    little = 0.6 * GIB + kept.weights(4) + 2e7  # room for a few rows
    run(what, machine.model_copy(update={"memory_gb": little / GIB}), Options(stop_after="answers"))
    assert seen and max(seen) < 256


def test_sizes_are_tried_from_the_fastest_on():
    assert list(smaller(Machine(train_batch_size=6))) == [
        *((size, False) for size in (6, 4)),
        *((size, True) for size in (6, 4, 2, 1)),
    ]
    assert SURE > 1
