"""Classes of a person's own: docs/plugins.md is written into a folder and run as it stands there;
what is wrong with a module is told by name; a changed line makes its artifacts anew, no others."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import SMALL, Cli

PAGE = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r'```py title="(\w+\.py)"\n(.*?)```', PAGE, re.DOTALL))
COMMANDS = re.findall(r"```bash\npython -m seva_exp (.*?)\n```", PAGE)[1:]
TOLD = ["pairs: ", "pairs: ", "loss first", "one_colour"]
FEW = ["data.samples=12", "tracker=none", "dpo.warmup_ratio=0", "machine.device=cpu"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The working folder of a command line, with the page's modules."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_page_shows_one_of_each_kind():
    assert list(FILES) == ["my_views.py", "my_score.py", "my_loss.py", "my_benchmark.py"]
    assert len(COMMANDS) == len(TOLD)


@pytest.mark.parametrize(("command", "told"), zip(COMMANDS, TOLD, strict=True))
def test_the_pages_commands_run(folder: Path, cli: Cli, command: str, told: str):
    done = cli(*shlex.split(command), *FEW)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
    (run,) = (folder / "runs").glob("20*")
    assert "plugins:" in (run / "config.yaml").read_text()


def keys(done: subprocess.CompletedProcess, folder: Path) -> dict[str, str]:
    """Stage -> key of the run that was made last."""
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "runs" / "latest" / "report.json").read_text())
    return {stage["name"]: stage["key"] for stage in report["stages"]}


def test_a_changed_line_makes_what_it_decides_anew_and_nothing_else(folder: Path, cli: Cli):
    words = ["plugins=[my_views,my_loss]", "+aug=[posterize_twice,in_a_hurry]", *FEW]
    words += ["dpo.loss=squared", "stop_after=align", "dpo.batch_size=4"]
    first = keys(cli(*words), folder)
    views, loss = folder / "my_views.py", folder / "my_loss.py"
    views.write_text("# a comment\n" + views.read_text().replace('"""Few', '"""Some'))
    assert keys(cli(*words), folder) == first, "nothing that is run has changed"
    views.write_text(views.read_text().replace("'Guess'", "'Perhaps'"))
    second = keys(cli(*words), folder)
    changed = {name for name, key in second.items() if first[name] != key}
    assert changed == {"answers.in_a_hurry", "pairs", "reference", "align"}
    loss.write_text(loss.read_text().replace("(1 - margin)", "(2 - margin)"))
    third = keys(cli(*words), folder)
    assert {name for name, key in third.items() if second[name] != key} == {"align"}
    views.write_text(views.read_text().replace("'Perhaps'", "'Guess'"))
    loss.write_text(loss.read_text().replace("(2 - margin)", "(1 - margin)"))
    assert keys(cli(*words), folder) == first


DIGEST = """
import sys
sys.path.insert(0, {0!r})
from seva_exp.core.plugin_source import source_digest
import mine.views
print(source_digest(mine.views.A))
"""


def test_what_a_class_names_counts_wherever_it_stands_and_what_it_does_not_name_does_not(tmp_path):
    package = tmp_path / "mine"
    package.mkdir()
    files = {
        "mine/__init__.py": "",
        "mine/views.py": "from .tools import used\nfrom . import more\nimport beside, numpy\n"
        "LEVEL = 3\nOTHER = 4\nclass Base:\n    x = 1\n"
        "class A(Base):\n    def f(self):\n        from .late import late\n"
        "        return used(LEVEL) + more.m() + beside.b() + late() + numpy.pi\n"
        "class B:\n    y = OTHER\n",
        "mine/tools.py": "def used(x):\n    return helper(x)\ndef helper(x):\n    return x\n"
        "def unused():\n    return 0\n",
        "mine/more.py": "def m():\n    return 1\n",
        "mine/late.py": "def late():\n    return 2\n",
        "beside.py": "def b():\n    return 5\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    def digest() -> str:
        done = subprocess.run(
            [sys.executable, "-B", "-c", DIGEST.format(str(tmp_path))],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    first = digest()
    counts = [
        ("mine/views.py", "LEVEL = 3", "LEVEL = 4"),
        ("mine/views.py", "x = 1", "x = 2"),
        ("mine/tools.py", "    return x\n", "    return -x\n"),
        ("mine/late.py", "return 2", "return 3"),
        ("beside.py", "return 5", "return 6"),
    ]
    not_ = [
        ("mine/views.py", "OTHER = 4", "OTHER = 5"),
        ("mine/tools.py", "return 0", "return 1"),
        ("mine/more.py", "return 1", "return 1  # one"),
    ]
    for name, old, new in [*counts, *not_]:
        (tmp_path / name).write_text(files[name].replace(old, new))
        assert (digest() != first) == ((name, old, new) in counts), (name, old)
        (tmp_path / name).write_text(files[name])


VIEW = FILES["my_views.py"]
WRONG = {
    "no such module": ("my_view", VIEW, r"there is no module 'my_view' in"),
    "an error inside": ("mine", VIEW + "\nx = undefined\n", r"mine\.py, line \d+: NameError"),
    "no syntax": ("mine", "class X(:\n", r"mine\.py, line 1: SyntaxError"),
    "an import inside": ("mine", "import nothing_like_it\n", r"mine\.py, line 1: ModuleNotFound"),
    "nothing in it": ("mine", "x = 1\n", r"mine has no class that derives from"),
    "a taken kind": (
        "mine", VIEW.replace("posterize_twice", "moco"),
        r"mine\.PosterizeTwice: kind 'moco' is taken by seva_exp\.augment\.moco\.Moco",
    ),
    "a kind twice": (
        "mine", VIEW.replace("in_a_hurry", "posterize_twice"),
        r"mine\.InAHurry: kind 'posterize_twice' is taken by mine\.PosterizeTwice",
    ),
    "no method": (
        "mine", VIEW.replace("def __call__(self, x: str", "def call(self, x: str"),
        r"mine\.InAHurry: lacks __call__",
    ),
    "no literal": (
        "mine", VIEW.replace('Literal["in_a_hurry"]', "str"), r"kind: it must be written as .*Lit",
    ),
    "no default": (
        "mine", VIEW.replace("Field(3, ge", "Field(ge"), r"field 'bits' has no default",
    ),
    "a wrong default": (
        "mine", VIEW.replace("Field(3, ge", "Field(9, ge"), r"PosterizeTwice: cannot be made with",
    ),
    "no name": ("a-b", VIEW, r"plugins=a-b: a module's name is needed"),
    "no file": ("views/mine.py", VIEW, r"there is no file .*views/mine\.py"),
    "a library's name": ("json.py", VIEW, r"a module 'json' is there already"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_module_is_told_before_work(tmp_path: Path, cli: Cli, name: str):
    module, text, said = WRONG[name]
    for file in ("mine.py", "json.py") if module == "json.py" else ("mine.py",):
        (tmp_path / file).write_text(text)
    done = cli(f"plugins=[{module}]", "+aug=moco", *FEW, "dry_run=true")
    assert done.returncode == 2, done.stdout
    assert re.search(said, done.stderr), done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "runs").exists()


def test_a_typo_finds_them_and_help_and_options_show_them(folder: Path, cli: Cli):
    said = cli("plugins=[my_views]", "+aug=posterise_twice", *FEW).stderr
    assert "posterise_twice" in said and "Did you mean 'posterize_twice'?" in said
    said = cli("plugins=[my_views]", "+aug=posterize_twice", "aug.posterize_twice.bit=2").stderr
    assert "Did you mean 'aug.posterize_twice.bits'?" in said
    said = cli("plugins=[my_views]", "+aug=posterize_twice", "aug.posterize_twice.bits=9").stderr
    assert "aug.posterize_twice.bits=9" in said and "less than or equal to 8" in said
    said = cli("+aug=moco", "plugins=[my_loss]", "dpo.loss=sqared", *FEW).stderr
    assert "Did you mean 'squared'?" in said
    assert "posterize_twice" in cli("plugins=[my_views]", "--help").stdout
    shown = subprocess.run(
        [sys.executable, "-m", "seva_exp.options", "aug", "plugins=[my_views]"],
        cwd=folder, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "Fields of `kind: posterize_twice`" in shown
    assert "bits a channel that the first pass leaves" in shown


def test_a_path_of_a_file_elsewhere_and_the_environment_name_modules(folder: Path, cli: Cli):
    (folder / "elsewhere").mkdir()
    file = (folder / "my_score.py").rename(folder / "elsewhere" / "my_score.py")
    words = ["method=best_of_k", "+score=few_commas", "method.candidates=2", "dry_run=true", *FEW]
    by_path = cli("plugins=[elsewhere/my_score.py]", *words)
    assert by_path.returncode == 0, by_path.stderr
    by_environment = cli(*words, variables={"SEVA_EXP_PLUGINS": str(file)})
    assert by_environment.returncode == 0, by_environment.stderr
    assert "scores.few_commas" in by_path.stdout


@pytest.mark.slow
def test_a_sweep_and_several_processes_have_them_too(folder: Path, cli: Cli):
    words = ["plugins=[my_views,my_benchmark]", "-m", "+aug=posterize_twice,in_a_hurry", *FEW]
    words += ["benchmark=one_colour", "benchmark.one_colour.pictures=2", "machine.processes=2"]
    done = cli(*words, "stop_after=evaluate.base")
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "runs").glob("20*"))) == 2


PYTHON = """
import json
import my_benchmark, my_views
import seva_exp
from seva_exp import Experiment, Machine, Options, plugins
from seva_exp.data import ShapesData
plugins.register(my_views.PosterizeTwice, my_benchmark.OneColour)
plugins.register(my_views.PosterizeTwice)
experiment = Experiment(
    aug={"mine": my_views.PosterizeTwice(bits=2)},
    data=ShapesData(samples=4),
    benchmark={"one_colour": my_benchmark.OneColour(pictures=2)},
)
assert Experiment.model_validate_json(json.dumps(experiment.to_json())) == experiment
machine = Machine(device="cpu", progress="off")
report = seva_exp.run(experiment, machine, Options(stop_after="evaluate.base"))
print([s.metric for s in report.scores])
"""


def test_they_work_from_python(folder: Path):
    done = subprocess.run(
        [sys.executable, "-c", PYTHON], cwd=folder, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout


def test_an_installed_package_brings_its_own(folder: Path, cli: Cli):
    site = folder / "site"
    info = site / "mine-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "my_views.py").rename(site / "my_views.py")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[seva_exp.plugins]\nviews = my_views\n")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *sys.path[1:]])}
    done = cli("+aug=posterize_twice", "dry_run=true", *SMALL, env=env)
    assert done.returncode == 0, done.stderr
    assert "answers.posterize_twice" in done.stdout
