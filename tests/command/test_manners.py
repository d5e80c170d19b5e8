"""What a newcomer types: other tools' words, two meanings at once, flags, words, switches."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import seva_exp
from seva_exp.command.commands import COMMANDS, help_text
from seva_exp.command.fields import fields_of, known_fields, meant
from seva_exp.command.schema import config_schema
from seva_exp.core.arguments import version_text
from seva_exp.core.paths import config_dir
from seva_exp.core.printable import columns, in_columns
from seva_exp.core.synonyms import SYNONYMS, ours
from seva_exp.training.spec import LOSSES

SAID = [
    ("dpo.lr=1", "Did you mean 'dpo.learning_rate'?"),
    ("+dpo.lr=1", "Did you mean 'learning_rate'?"),
    ("epochs=2", "Did you mean 'dpo.epochs'?"),
    ("lora_rank=4", "Did you mean 'dpo.lora_rank'?"),
    ("bs=4", "Did you mean 'dpo.batch_size' or 'machine.batch_size'?"),
    ("max_length=9", "Did you mean 'generation.max_new_tokens'?"),
    ("wandb=off", "Did you mean 'tracker'?"),
    ("tracker=off", "Did you mean 'none'?"),
    ("benchmark.images=20", "Did you mean 'benchmark.shapes.images'?"),
    ("dpo=sigmoid", "write dpo.loss=sigmoid"),
    ("dpo.loss=dpo", "Did you mean 'sigmoid'?"),
    ("benchmark=[shapes,pop]", "benchmark=pop: no such config. Did you mean 'pope'?"),
    ("aug=simclr", "Both: +aug='[moco,simclr]'; one alone: +aug=simclr"),
    ("+aug=simclr", "several are one list: +aug='[moco,simclr]'"),
    ("dpo.beta=0.1,0.2", "add -m for a sweep"),
    ("model=llava-hf/llava-1.5-7b-hf", "is in the config model=llava15_7b"),
    ("model=org/name", "model.path=org/name, with model=NAME of its family"),
    ("data=/some/rows.jsonl", "data=jsonl data.path=/some/rows.jsonl"),
    ("hydra.run.dir=foo", "machine.runs=FOLDER"),
    ("hydra.verbose=true", "nothing is logged by Hydra"),
    ("--dry-run", "dry_run=true"),
    ("simclr", "write +aug=simclr"),
    ("seva_beta", "python -m seva_exp -cn seva_beta"),
    ("compare", "python -m seva_exp.compare"),
    ("hallo", "is neither FIELD=VALUE nor GROUP=NAME"),
]


@pytest.mark.parametrize(("word", "said"), SAID)
def test_what_is_typed_is_answered_with_what_to_write(cli, tmp_path, word, said):
    done = cli("+aug=moco", word)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_two_views_without_m_are_told_both_ways(cli):
    said = cli("+aug=moco,simclr").stderr
    assert "add -m for a sweep, or +aug='[moco,simclr]' for both in one run" in said


def test_what_the_advice_says_works(cli):
    for words in (["+aug=[moco,simclr]"], ["+aug=moco", "force=align"], ["-m", "+aug=moco,simclr"]):
        assert cli(*words, "dry_run=true").returncode == 0, words


def test_a_single_stage_is_forced_without_a_list(cli):
    said = cli("+aug=moco", "force=align", "dry_run=true").stdout
    assert re.search(r"align +\w+ +forced", said)


def test_fields_of_this_run_are_meant_before_others():
    run = {"dpo": {}, "benchmark": {"shapes": {"kind": "shapes"}}, "data": {"kind": "shapes"}}
    known = known_fields()
    assert meant("images", fields_of(run), known)[0] == "benchmark.shapes.images"
    assert meant("epochs", fields_of(run), known) == ["dpo.epochs"]
    assert meant("epochs", fields_of(run | {"sft": {}}), known) == ["dpo.epochs", "sft.epochs"]
    assert meant("frequency_of_x", fields_of(run), known) == []


def test_every_synonym_leads_to_something_that_there_is():
    values = {path.stem for path in config_dir().rglob("*.yaml")} | {*LOSSES}
    known = {*known_fields(), *values}
    for word in SYNONYMS:
        assert len(ours(word, known)) == len(SYNONYMS[word]), word


def test_many_names_stand_in_columns_the_nearest_first(cli):
    first, *rows = cli("+aug=moco", "model=lava15_7b").stderr.splitlines()
    assert first.endswith("Did you mean 'llava15_7b'? Known:")
    assert rows[0].split()[0] == "llava15_7b"
    assert {*" ".join(rows).split()} == {path.stem for path in (config_dir() / "model").glob("*")}
    assert columns(["a"]) == ["a"]
    assert in_columns("x. Known: a, b.") == "x. Known: a, b.", "few stay where they are"


@pytest.mark.parametrize("about", ["config", "searchpath", "defaults"])
def test_info_takes_its_word(cli, about):
    done = cli("--info", about, "+aug=moco")
    assert done.returncode == 0, done.stderr
    assert {"searchpath": "file://", "config": "moco", "defaults": "moco"}[about] in done.stdout


def test_version_tells_ours_and_those_below(cli):
    said = cli("--version").stdout
    assert said.startswith(f"seva_exp {seva_exp.__version__}\n")
    for name in ("torch", "transformers", "trl"):
        assert f"{name} {version(name)}" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_its_version_and_how_it_is_used(name, commands, tmp_path):
    asked = [
        commands.run([word], tmp_path, dict(os.environ), module=f"seva_exp.{name}")
        for word in ("--version", "--help")
    ]
    assert [done.returncode for done in asked] == [0, 0], asked
    said, how = (done.stdout for done in asked)
    assert said == f"{version_text()}\n"
    assert how.startswith(f"usage: python -m seva_exp.{name} ")
    assert "--version" in how
    assert max(map(len, how.splitlines())) <= 100


def test_help_tells_what_is_changed_most_before_the_config(cli):
    said = cli("--help", "+aug=moco", "dpo.beta=0.77").stdout
    assert said.index("dpo.beta=0.1") < said.index("Other commands") < said.index("beta: 0.77")
    assert not re.search(r"^(arm|.*/fit)\b", said, re.MULTILINE), "internal groups"
    assert max(map(len, help_text().splitlines())) <= 80


def test_every_command_is_named_and_there():
    """Modules that a person starts; those started by others say so in their docstring."""
    root = Path(seva_exp.__file__).parent
    packages = {file.parent.name for file in root.glob("*/__main__.py")}
    alone = {
        f.stem
        for f in root.glob("*.py")
        if '__name__ == "__main__"' in f.read_text(encoding="utf-8")
    }
    assert {*COMMANDS} == packages | alone


def test_dir_lists_the_api():
    assert {*seva_exp.__all__} <= {*dir(seva_exp)}
    code = "import seva_exp, sys; dir(seva_exp); print('seva_exp.api' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n", "and loads none of it"


def test_the_schema_takes_every_preset_and_refuses_a_typo():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(json.dumps(config_schema())))
    for file in (config_dir() / "experiment").glob("*.yaml"):
        preset = yaml.safe_load(file.read_text(encoding="utf-8"))
        found = [error.message for error in validator.iter_errors(preset)]
        assert not found, (file.name, found)
    for wrong in ({"sed": 1}, {"dpo": {"betta": 1}}, {"dpo": {"beta": -1}}, {"seed": "x"}):
        assert not validator.is_valid(wrong), wrong


def test_a_shell_completes(tmp_path):
    """As docs/config.md has it: bash asks the command itself."""
    command = Path(sys.executable).with_name("seva-exp")
    if not command.exists():
        pytest.skip("the package is not installed")
    script = f"""
        PATH={command.parent}:$PATH
        eval "$(seva-exp -sc install=bash)"
        COMP_LINE="seva-exp +aug=diffusion_n" COMP_POINT=25 COMP_WORDS=(seva-exp +aug=diffusion_n)
        COMP_CWORD=1
        hydra_bash_completion
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert "diffusion_noise" in done.stdout, done.stderr


def test_a_hub_model_is_looked_up_once_and_after_the_data(cli, tmp_path):
    """A server that counts: the library would try again for half a minute."""
    script = f"""
import http.server, os, sys, threading, time
asked = []
class No(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        if "config.json" in self.path:  # the library asks for news of its own, too
            asked.append(self.path)
        self.send_response(503)
        self.end_headers()
    do_GET = do_HEAD
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), No)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{{server.server_port}}"
os.environ["HF_HOME"] = "{tmp_path}/hf"
from seva_exp.core.errors import InputError
from seva_exp.models import HubModel
try:
    HubModel(path="nobody/nothing").prepare()
except InputError as error:
    print(len(asked), error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith("1 model.path=nobody/nothing"), done.stdout + done.stderr
    done = cli("+aug=moco", "model=llava15_7b", "data=folder", "data.path=/nowhere", "tracker=none")
    assert "data.path" in done.stderr
    assert "model.path" not in done.stderr
