"""What is held out is scored while training and changes nothing of it."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import pytest

from seva_exp import StageError
from seva_exp.runs.__main__ import main as runs
from seva_exp.training import DpoTraining
from seva_exp.training.held_out import is_due, split

from .tools import job, logprob, placement, preferences, tiny, train, trained

SPEC = DpoTraining(
    loss={"sigmoid": 1.0, "softmax": 0.5, "chosen_nll": 0.01},
    batch_size=4,
    epochs=2,
    learning_rate=1e-3,
    warmup_ratio=0.0,
    lora_rank=4,
)
REJECTED = (1, 3, 2)


def without(rows: list[dict]) -> list[dict]:
    return [{n: v for n, v in row.items() if not n.startswith("held_out/")} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Of 8 preferences, in 4 steps, and 5 that are held out."""
    work = tmp_path_factory.mktemp("whole") / "x"
    return trained(work, SPEC, 8, rejected=REJECTED, held_out=5)


def test_numbers_are_the_written_out_formula_of_the_adapter(whole):
    """After the last step, answer by answer, one sequence alone."""
    folder, rows = whole
    base, policy = tiny(), tiny(folder)
    trl, ours, nll, margins, right = [], [], [], [], []
    for p in preferences(base, 13, REJECTED)[8:]:
        said = logprob(policy, p, p.chosen)
        chosen = said - logprob(base, p, p.chosen)
        wrong = [logprob(policy, p, ids) - logprob(base, p, ids) for ids in p.rejected]
        gaps = [SPEC.beta * (chosen - one) for one in wrong]
        trl += [math.log1p(math.exp(-gap)) for gap in gaps]
        ours.append(math.log1p(sum(math.exp(-gap) for gap in gaps)))
        nll.append(-said)
        margins += gaps
        right += [gap > 0 for gap in gaps]

    def mean(values):
        return sum(values) / len(values)

    last = rows[-1]
    assert last["held_out/rewards/margins"] == pytest.approx(mean(margins), rel=1e-3)
    assert last["held_out/rewards/accuracies"] == pytest.approx(mean(right))
    assert last["held_out/loss/softmax"] == pytest.approx(mean(ours), rel=1e-3)
    loss = mean(trl) + 0.5 * mean(ours) + 0.01 * mean(nll)
    assert last["held_out/loss"] == pytest.approx(loss, rel=1e-3)
    assert last["held_out/loss"] != pytest.approx(rows[0]["held_out/loss"], rel=1e-3)


def test_training_is_as_without_them(whole, tmp_path):
    folder, rows = whole
    plain, alone = trained(tmp_path / "x", SPEC, 8, rejected=REJECTED)
    assert without(rows) == alone
    name = "adapter_model.safetensors"
    assert (folder / name).read_bytes() == (plain / name).read_bytes()


@pytest.mark.parametrize("fast", ["on", "off"])
def test_no_number_depends_on_the_micro_batches(whole, tmp_path, fast):
    spec = SPEC.model_copy(update={"fast": fast})
    _, rows = trained(tmp_path / "x", spec, 8, rejected=REJECTED, held_out=5, train_batch_size=2)
    for one, other in zip(whole[1], rows, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


def test_they_are_scored_first_last_and_at_each_tenth():
    assert [step for step in range(1, 41) if is_due(step, 40)] == [1, *range(4, 41, 4)]
    assert [step for step in range(1, 4) if is_due(step, 3)] == [1, 2, 3]
    assert sum(is_due(step, 997) for step in range(1, 998)) == 11


def test_a_training_that_is_killed_goes_on_to_the_same_numbers(whole, tmp_path):
    class Killed(Exception):
        pass

    def on_step(step: int, row: dict) -> None:
        if step == 3:
            raise Killed

    def again(**told) -> list[dict]:
        vlm = tiny()
        data = preferences(vlm, 13, REJECTED)
        place = placement(tmp_path / "x", checkpoint_minutes=0.0)
        return train(job(vlm, SPEC, place, **told), data[:8], data[8:])[1]

    with pytest.raises(Killed):
        again(on_step=on_step)
    assert again() == whole[1]


def test_pictures_are_drawn_each_by_itself_and_copies_go_together():
    rows = [
        replace(p, sample_id=p.id, picture_id=f"picture{i // 2}")
        for i, p in enumerate(preferences(tiny(), 60))
    ]
    every = rows + [replace(p, id=f"{p.id}#2") for p in rows]
    trained_on, held = split(every, 0.3, 0)
    pictures = [{p.picture for p in some} for some in (trained_on, held)]
    assert not pictures[0] & pictures[1] and 4 <= len(pictures[1]) <= 15
    assert len(trained_on) + 2 * len(held) == 120 and all("#" not in p.id for p in held)
    fewer = split([p for p in every if p.id != rows[0].id], 0.3, 0)[1]
    assert [p.id for p in fewer] == [p.id for p in held if p.id != rows[0].id]
    assert split(every, 0.3, 1)[1] != held
    assert split(every, 0.0, 0) == (every, [])


@pytest.mark.parametrize(("share", "what"), [(1e-9, "held out. Take more"), (0.999999, "trained")])
def test_a_share_that_leaves_a_side_empty_is_refused(share, what):
    with pytest.raises(StageError, match=rf"dpo.held_out=.*of 3 pictures none .*{what}"):
        split(preferences(tiny(), 3), share, 0)


def test_a_run_tells_them_everywhere(cli, tmp_path, capsys):
    """In its line, its metrics, its page, its tracker; and which tracker that is."""
    words = ["+aug=diffusion_noise", "aug.diffusion_noise.step=800", "data.samples=16"]
    words += ["benchmark=none", "dpo.held_out=0.5", "dpo.warmup_ratio=0", "tracker=csv"]
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    metrics = (tmp_path / "runs/latest/metrics.jsonl").read_text().splitlines()
    last = json.loads(metrics[-1])
    said = " ".join((done.stdout + done.stderr).split())
    assert f"held out loss last {last['held_out/loss']:.4g}," in said
    assert "held_out" in (tmp_path / "runs/latest/config.yaml").read_text()
    assert "Dashed: the preferences" in (tmp_path / "runs/latest/report.html").read_text()
    [folder] = (tmp_path / "runs/csv").iterdir()
    [*_, row] = csv.DictReader((folder / "history.csv").read_text().splitlines())
    assert float(row["held_out/loss"]) == last["held_out/loss"]
    assert runs(["show", str(tmp_path / "runs/latest"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tracked"] == [f"csv: {folder}"]


def test_without_it_no_key_changes():
    assert DpoTraining(held_out=0.0).identity() == DpoTraining().identity()
    assert "held_out" not in DpoTraining().identity()
    assert DpoTraining(held_out=0.1).identity()["held_out"] == 0.1
