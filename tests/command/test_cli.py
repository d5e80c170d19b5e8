"""The command line: short errors with exit code 2, nothing heavy before it is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SMALL = ["data.samples=40", "benchmark.shapes.images=10", "tracker=none", "dpo.warmup_ratio=0"]

MISTAKES = [
    (["+aug=difusion_noise"], "Did you mean 'diffusion_noise'"),
    (["+aug=diffusion_noise", "dpo.beta=abc"], "dpo.beta=abc"),
    (["+aug=diffusion_noise", "dpo.beta=-1"], "dpo.beta=-1"),
    (["+aug=diffusion_noise", "+dpo.betta=0.2"], "Did you mean 'beta'"),
    (["+aug=diffusion_noise", "dpo.betta=0.2"], "Did you mean 'dpo.beta'"),
    (["+augg=x"], "Did you mean 'aug'"),
    (["+aug=diffusion_noise", "aug.diffusion_noise.step=1000"], "aug.diffusion_noise.step=1000"),
    (["+aug=diffusion_noise", "+aug.diffusion_noise.stepp=3"], "Did you mean 'step'"),
    (["+aug=diffusion_noise", "model=tinyy"], "Did you mean 'tiny'"),
    (["+aug=diffusion_noise", "data=folder", "data.path=/nowhere"], "data.path"),
    (["+aug=diffusion_noise", "data=folder"], "data.path: must be set"),
    (["+aug=diffusion_noise", "seed=x"], "seed=x"),
    (["+aug.diffusion_noise.stepp=3"], "Did you mean 'step'"),
    (["+sweep=nosuch"], "seva_diffusion_steps"),
    (["sweep=nosuch"], "seva_diffusion_steps"),
    ([], "diffusion_noise"),
    (["aug=moco"], "+aug=NAME"),
    (["aug.moco.size=3"], "+aug=moco"),
    (["+aug=moco", "stop_after=pears"], "Did you mean 'pairs'"),
    (["+aug=moco", "force=[aline]"], "Did you mean 'align'"),
    (["experiment=quik", "+aug=moco"], "Did you mean 'quick'"),
    (["experimnt=quick", "+aug=moco"], "Did you mean 'experiment'"),
    (["+aug=diffusion_noise", "aug.diffusion_noise.stepp=3"], "Did you mean 'aug.diffusion_noise"),
    (["+aug=moco", "~machine"], "machine=null"),
    (["+aug=moco", "dpo=null"], "dpo"),
    (["+aug=null"], "aug"),
    (["+aug={1: 2}"], "aug.1"),
    (["+aug=moco", "aug.moco.scale_min=0.9", "aug.moco.scale_max=0.5"], "aug.moco: scale_min"),
    (["+aug=moco", "data.path=(x"], "quote"),
    (["+aug=moco", "machine.runs=/proc/x", "machine.store=/tmp"], "machine.runs"),
    (["-cn", "seva_diffusion_step"], "Did you mean 'seva_diffusion_steps'"),
    (["+aug=moco", "objective=pairs/kept"], "Did you mean 'pairs/kept_share'"),
    (["+aug=moco", "+seed=1"], "without '+'"),
    (["+aug=moco", "machine.device=cuda:7"], "machine.device=cuda:7"),
    (["+aug=moco", "model=llava15_7b", "model.path=/nowhere/x"], "model.path"),
    (["+aug=moco", "method.rounds=0"], "method.rounds=0"),
    (["+aug=moco", "method.reference=none"], "method.reference=none"),
    (["+aug=moco", "method=stik"], "Did you mean 'stic'"),
    (["method=stic", "aug.low_resolution.side=0"], "aug.low_resolution.side=0"),
    (
        ["method=stic", "method.infusion=x"],
        "method.infusion=x: must hold both {description} and {question}",
    ),
    (["method=stic", "+method.weights.bad_promt=2"], "Did you mean 'bad_prompt'"),
    (["+aug=moco", "sft=stic"], "Take method=stic, or leave sft out."),
    (["method=stic", "sft=stic", "generation=server"], "Leave sft out, or take generation=hf."),
    (["+aug=moco", "instructions.path=x"], "data@instructions=instruct"),
    (["+aug=moco", "dpo.loss=sigmod"], "Did you mean 'sigmoid'"),
    (["+aug=bad_prompt", "dpo=mdpo"], "no source of rejected answers has that (aug: bad_prompt)"),
    (["+aug=moco", "filters=equal"], "filters=[equal,empty]"),
    (["+aug=moco", "filters=[eqal]"], "Did you mean 'equal'"),
    (["+aug=moco", "filters=[{kind: similarity, maxx: 3}]"], "Did you mean 'max'"),
    (["+aug=moco", "name=20240101"], """as a text: "name='20240101'\"."""),
    (["+aug=moco", "data=folder", f"data.path={'QUJD' * 20_000}"], "not its content"),
    (["+aug=moco", f"machine.store={'QUJD' * 20_000}"], "not its content"),
    (["+aug=moco", "model=llava15_7b", f"model.path={'QU/D' * 20_000}"], "not its content"),
    (["+aug=moco", "name=${oc.env:NO_SUCH_VARIABLE}"], "NO_SUCH_VARIABLE is not set"),
    (["+aug=moco", "data=folder", "data.path='in/d\udcff'"], "data.path=in/d\\xff: is not UTF-8"),
    (["+aug=moco", "machine.runs='rg/a\udcffb'"], "machine.runs=rg/a\\xffb: is not UTF-8"),
    (["+aug=moco", "machine.runs=rg/a\udcffb"], "seva_exp: machine.runs=rg/a\\xffb: quote"),
    (["+aug=moco", "machine.vision_cache=1e300"], "machine.vision_cache=1e+300"),
    (["+aug=moco", "machine.threads=100000"], "machine.threads=100000"),
    (["+aug=moco", f"tracker.tags=[{'x' * 70}]"], "tracker.tags.0"),
    (["+aug=moco", "tracker.tags=['']"], "tracker.tags.0"),
    (["+aug=moco", "tracker.project=a/b"], "tracker.project=a/b"),
    (["+aug=moco", f"tracker.group={'g' * 200}"], "tracker.group"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[" ".join(w) for w, _ in MISTAKES])
def test_a_mistake_ends_with_2_and_one_short_message(cli, tmp_path, words, said):
    done = cli(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    first, *names = done.stderr.strip().splitlines()
    assert all(line.startswith("  ") for line in names), "one message, then names in columns"
    assert not names or first.endswith("Known:")
    assert max(map(len, ["", *names])) <= 80
    assert len(done.stderr) < 900  # room for the names of all views
    assert not (tmp_path / "runs").exists(), "a mistake leaves nothing behind"


@pytest.mark.parametrize("words", [["dry_run=true"], ["dpo.beta=-1"], ["--cfg", "job"]])
def test_a_command_in_a_forked_process_is_as_one_that_is_started(cli, words):
    """Most tests here take the first way (forking.py), which is faster."""
    forked, started = cli("+aug=moco", *words), cli("+aug=moco", *words, env=os.environ)
    assert (forked.returncode, forked.stderr) == (started.returncode, started.stderr)
    assert forked.stdout == started.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--cfg", "job"],
        ["+aug=diffusion_noise", "dry_run=true"],
        ["-m", "+aug=diffusion_noise,moco", "dry_run=true"],
    ],
    ids=["help", "cfg", "dry run", "dry run of a sweep"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(tmp_path, words):
    command = [sys.executable, "-X", "importtime", "-m", "seva_exp", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    imported = {
        line.rsplit("|", 1)[-1].strip().split(".")[0]
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "hydra" in imported
    assert not imported & {"torch", "transformers", "trl", "peft", "wandb", "kornia", "datasets"}
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_group_and_shows_examples(cli):
    shown = cli("--help").stdout
    for group in ("aug", "benchmark", "data", "dpo", "experiment", "generation", "machine"):
        assert f"{group}:" in shown
    assert "python -m seva_exp +aug=diffusion_noise" in shown


def test_a_dry_run_prints_the_plan_with_keys(cli):
    done = cli("+aug=diffusion_noise", "dry_run=true")
    assert done.returncode == 0
    for label in ("samples", "answers.clean", "answers.diffusion_noise", "pairs", "align"):
        assert label in done.stdout
    assert "9 to do, 0 cached" in done.stdout


def test_advice_on_stage_2_works(cli):
    taken = ["+aug=moco", "method=stic", "sft=stic"], ["method=stic", "sft=stic", "generation=hf"]
    for words in (*taken, ["+aug=moco"], ["method=stic", "generation=server"]):
        assert cli(*words, "dry_run=true").returncode == 0


def test_a_prompt_file_with_an_empty_list_is_refused(cli, tmp_path):
    (tmp_path / "mine.yaml").write_text("careful: [a]\nplain: []\nbad: [c]\n")
    for words in (
        ["method=stic", "method.prompts=mine.yaml"],
        ["+aug=bad_prompt", "aug.bad_prompt.prompts=mine.yaml"],
    ):
        done = cli(*words)
        assert done.returncode == 2
        assert "the list 'plain' is empty" in done.stderr
        assert words[1].split("=")[0] in done.stderr
        assert not (tmp_path / "runs").exists()


BAD_ROWS = {
    "missing.json": ("b", "gone.png", "gone.png"),
    "twice.json": ("a", "x.png", "duplicate id"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_instructions_are_told_before_a_model_is_loaded(cli, tmp_path, name):
    from PIL import Image

    Image.new("RGB", (72, 72), "red").save(tmp_path / "x.png")
    id, image, said = BAD_ROWS[name]
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A star."}]
    rows = [{"id": "a", "image": "x.png", "conversations": turns}]
    rows.append({"id": id, "image": image, "conversations": turns})
    (tmp_path / name).write_text(json.dumps(rows))
    stage_2 = ["sft=stic", "data@instructions=instruct", f"instructions.path={name}"]
    done = cli("method=stic", *stage_2, *SMALL)
    assert done.returncode == 2
    assert "instructions.path: row 2" in done.stderr
    assert said in done.stderr
    assert not (tmp_path / "runs").exists(), "a run whose data end it has no folder"


def test_a_tilde_in_a_path_is_the_home_folder(cli, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    words = ["+aug=moco", "data=folder", "data.path=~/pictures", "machine.store=~/store"]
    done = cli(*words, variables={"HOME": str(tmp_path)})
    assert "no usable picture" in done.stderr
    assert (tmp_path / "store" / "samples").is_dir()


def test_a_closed_pipe_and_a_narrow_encoding_do_not_end_a_run(cli, tmp_path):
    words = ["+aug=moco", "stop_after=evaluate.base", *SMALL, "benchmark.shapes.images=2"]
    reader, writer = os.pipe()
    os.close(reader)
    done = cli(*words, capture_output=False, stdout=writer, stderr=subprocess.DEVNULL)
    os.close(writer)
    assert done.returncode == 0
    done = cli(*words, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "pope accuracy" in done.stdout


def test_two_mistakes_are_told_at_once(cli):
    done = cli("data=folder", "data.path=/nowhere")
    assert done.returncode == 2
    first, second, *_ = done.stderr.strip().splitlines()
    assert "data.path" in first
    assert "+aug=NAME" in second


KEYS = {"MYKEY": "abcdefghij123", "FOO": "sk-abcdefghijklmnop1234", "HF_TOKEN": "hf_secret"}
KEYS |= {"DB_PASSWORD": "hunter2", "LOGIN": "0123456789abcdef" * 2 + "76543210"}
OURS = {"API_KEY": "diffusion_noise", "DEPLOY_KEY": "unbiased", "LICENSE_KEY": "seva_exp"}


KEYS_IN_FIELDS = [
    (["name=${oc.env:MYKEY}"], "name: holds the value of the environment variable MYKEY"),
    (["name=x${oc.env:FOO}"], "name: holds the value of the environment variable FOO"),
    (["data=folder", "data.path=pics/hf_secret"], "data.path: holds the value of the"),
    (["+aug.moco.x=${oc.env:HF_TOKEN}"], "aug.moco.x: holds the value of the"),
    (["name=${oc.env:DB_PASSWORD}"], "name: holds the value of the environment variable DB_"),
    (
        ["name='run_${oc.env:LOGIN,x}'"],
        "name: holds the value of the environment variable LOGI",
    ),
    (["machine.server.api_key_env=sk-zyxwvutsrqponmlk"], "machine.server.api_key_env: no env"),
    (["machine.judge.api_key_env=mysecretkey"], "machine.judge.api_key_env: no environment"),
    (["tracker.tags=[hf_abcdefghijklmnopqrstu]"], "tracker.tags.0: holds a key"),
]
SWEPT = ["-m", "seed=0,1"]


@pytest.mark.parametrize(
    ("words", "told", "several"),
    [(*one, []) for one in KEYS_IN_FIELDS]
    + [(*one, SWEPT) for one in KEYS_IN_FIELDS[:2]]
    + [pytest.param(*one, SWEPT, marks=pytest.mark.slow) for one in KEYS_IN_FIELDS[2:]],
)
def test_a_key_in_a_field_is_refused_and_not_repeated(cli, tmp_path, words, told, several):
    done = cli("+aug=moco", *words, *several, *SMALL[:2], variables=KEYS)
    assert done.returncode == 2
    assert told in done.stderr and done.stdout == ""
    for key in [*KEYS.values(), "sk-zyx", "mysecretkey", "hf_abcdef"]:
        assert key not in done.stderr.split("] ")[-1]
        assert not [f for f in tmp_path.rglob("*") if f.is_file() and key in f.read_text()]
    assert not list((tmp_path / "runs").glob("2*"))


def test_a_key_that_is_a_word_of_ours_refuses_no_run_of_defaults(cli):
    done = cli("+aug=diffusion_noise", "dry_run=true", variables=OURS)
    assert done.returncode == 0, done.stderr
    done = cli("+aug=difusion_noise", variables=OURS)
    assert done.stderr.startswith("seva_exp: ") and "'diffusion_noise'" in done.stderr


def test_a_variable_that_is_not_set_is_told_for_each_job(cli):
    done = cli("-m", "seed=0,1", "+aug=moco", *SMALL, "name='${oc.env:NOPE}'")
    assert done.returncode == 2 and "Error executing" not in done.stderr
    told = done.stderr.splitlines()
    assert [f"seed={i}" in line for i, line in enumerate(told)] == [True, True], done.stderr
    assert all("variable NOPE is not set" in line for line in told)


@pytest.mark.parametrize("several", [[], ["-m", "seed=0,1"]], ids=["run", "sweep"])
def test_an_error_of_a_stage_is_1_and_tells_stage_path_and_remedy(cli, tmp_path, several):
    (tmp_path / "runs" / "store").mkdir(parents=True)
    (tmp_path / "runs" / "store" / "samples").write_text("a file where a folder belongs")
    done = cli("+aug=moco", "stop_after=samples", *SMALL, *several)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "Error executing" not in done.stderr
    for line in done.stderr.splitlines():
        assert " samples: " in line and "runs/store/samples" in line
        assert "the same command resumes" in line and line.startswith("seva_exp: ")
    (tmp_path / "runs" / "store" / "samples").unlink()
    assert cli("+aug=moco", "stop_after=samples", *SMALL, *several).returncode == 0


def test_relative_paths_mean_the_folder_of_the_command_whatever_hydra_does(cli, tmp_path):
    from PIL import Image

    (tmp_path / "pics").mkdir()
    Image.new("RGB", (72, 72), "red").save(tmp_path / "pics" / "a.png")
    words = ["+aug=moco", "data=folder", "data.path=pics", "stop_after=samples", "tracker=none"]
    for number, several in enumerate(([], ["-m", "seed=0,1"])):
        done = cli(*words, *several, "hydra.job.chdir=true")
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / "runs").glob("2*/report.json"))) == [1, 3][number]
    assert len(list(tmp_path.rglob("store/samples"))) == 1, "one store"
    assert done.stdout.count("1 stages, 0 to do, 1 cached") == 2


def test_the_runs_of_a_sweep_are_told_apart_by_their_names(cli, tmp_path):
    words = ["-m", "+aug=moco", "dpo.beta=0.1,0.2", "seed=3", "stop_after=samples"]
    assert cli(*words, *SMALL).returncode == 0
    names = sorted(p.name.split("_", 2)[2] for p in (tmp_path / "runs").glob("*_moco_*"))
    assert names == ["moco_beta=0.1", "moco_beta=0.2"]


def test_a_sweep_over_sets_of_views_shares_what_it_can(cli, tmp_path):
    views = "+aug=diffusion_noise,moco,[diffusion_noise,moco]"
    done = cli("-m", views, "stop_after=pairs", *SMALL, "data.samples=12")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs").glob("2*/report.json"))) == 3
    answers = list((tmp_path / "runs" / "store" / "answers").iterdir())
    assert len(answers) == 3, "clean, diffusion_noise, moco: once each"
    assert len(list((tmp_path / "runs" / "store" / "pairs").iterdir())) == 3
    (page,) = (tmp_path / "runs" / "multirun").glob("*/compare.html")
    text = page.read_text()
    assert "3 runs that differ in aug" in text and text.count('class="card pair-row"') == 3
    assert "as the view diffusion_noise showed it" in text and "as the view moco" in text


def test_overrides_may_stand_on_both_sides_of_the_multirun_flag(cli):
    done = cli("+aug=moco", "-m", "seed=0,1", "dry_run=true")
    assert done.returncode == 0
    assert "dry run: 2 runs" in done.stdout


def test_the_run_folder_tells_how_to_run_it_again(cli, tmp_path):
    done = cli("+aug=moco", "stop_after=samples", "name=first", *SMALL)
    assert done.returncode == 0, done.stderr
    folder = (tmp_path / "runs" / "latest").resolve()
    assert folder.name.endswith("_first")
    command = (folder / "overrides.txt").read_text().split()
    assert command[:3] == ["python", "-m", "seva_exp"]
    again = cli(*command[3:])
    assert again.returncode == 0
    assert "1 stages, 0 to do, 1 cached" in again.stdout
    config = json.loads((folder / "report.json").read_text())
    assert [stage["name"] for stage in config["stages"]] == ["samples"]
