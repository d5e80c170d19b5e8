"""What a stage depends on is derived: a change of what decides results is seen, of whichever file
it is, and of the stages that use it only; an artifact that other code made is told."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from seva_exp import Machine, Options, experiment
from seva_exp.core.closure import Closure, code_digest, code_of
from seva_exp.core.environment import CODE
from seva_exp.core.package import EXCEPT
from seva_exp.core.syntax import Module, shape
from seva_exp.runs.events import Listener, Outcome
from seva_exp.stages import Answers, Pairs, Samples

from ..test_architecture import SOURCE, unpinned
from ..test_methods import small, stic

PAIRS = {"pairs", "chosen_pairs", "sentence_pairs", "hardest_pairs", "replayed_pairs"}
OF_CANDIDATES = {"scores", "model_scores", "sentence_scores", "model_sentence_scores"}
"""All know every score of candidates, and what one of them looks at."""
MODEL = {
    *("answers", "reference", "weights", "align", "finetune", "evaluate", "continued", "rewritten"),
    *("attacks", "attacked_answers", "explain"),
    *OF_CANDIDATES,
}
"""Stages that ask a model or train one."""
LOADED = {*MODEL, "external_adapter"}
"""And the one that looks whether an adapter fits a model."""
ASKS = {"answers", "attacked_answers", "evaluate", "continued", "explain", *OF_CANDIDATES}
VIEWS = {
    *("answers", "reference", "weights", "align", "continued", "rewritten"),
    *("attacks", "attacked_answers", "replayed_pairs", "evaluate", "explain"),
    *OF_CANDIDATES,
}
"""Stages that know the sources of rejected answers (``evaluate``: a contrast looks at a view);
``rejected`` does, too."""
SCORED = {"evaluate", "judge", "compare", "explain"}


@pytest.fixture(scope="module", autouse=True)
def _parsed_once() -> Iterator[None]:
    """Of one copy after the other all files but one are the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seva_exp.core.package.Module", cache(Module))
        yield


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("copy") / "seva_exp"
    no_code = shutil.ignore_patterns("*.safetensors", "*.pyc", "__pycache__")
    shutil.copytree(SOURCE, folder, ignore=no_code)
    return folder


def edited(copied: Path, file: str, old: str, new: str) -> set[str]:
    """The stages that the pin test names after one edit, which is taken back."""
    path = copied / file
    before = path.read_text(encoding="utf-8")
    assert old in before, f"{file} no longer has {old!r}"
    path.write_text(before.replace(old, new, 1), encoding="utf-8")
    try:
        return set(unpinned(copied))
    finally:
        path.write_text(before, encoding="utf-8")


EDITS = [
    # what no list had
    ("models/families/gemma3.py", '"<end_of_turn>"', '"<eos>"', LOADED),
    ("models/family.py", '"role": "user"', '"role": "human"', LOADED),
    ("models/families/idefics.py", '("idefics3", "smolvlm")', '("idefics3",)', LOADED),
    ("models/processor.py", "if spec.max_pixels:", "if not spec.max_pixels:", LOADED),
    ("stages/evaluation.py", "if one.score is None}", "if one.score == 0}", {"compare"}),
    ("stages/loaded.py", "load(spec, machine, adapter, warn)", "load(spec, machine, None, warn)",
     MODEL),
    ("decoding/cuda_graphs.py", "NEAR = 1e-2", "NEAR = 1e-1", ASKS),
    ("decoding/memory.py", '"cuda": 0.8', '"cuda": 0.9', ASKS),
    ("scores/clip.py", "100 * out", "10 * out", {"explain", *OF_CANDIDATES}),
    ("preferences/selection.py", 'far >= self.gap', 'far > self.gap', {"chosen_pairs"}),
    ("preferences/shards.py", "samples >= 2 * size", "samples >= 3 * size",
     {"answers", "attacked_answers"}),
    # found without its name, in a register
    ("decoding/engines.py", "Engine(\n        vlm", "Engine(\n        None", ASKS),
    ("decoding/kv_attention.py", "register(NAME,", "register('x',", ASKS),
    # what takes a stage context's place in the processes that train
    ("stages/worker.py", "def placement(", "def place(", MODEL - {"attacks", "explain"}),
    # of one part of a stages' module, and no more
    ("stages/preferences.py", "PREVIEWS = 48", "PREVIEWS = 4", {"answers", "attacked_answers"}),
    ("data/counts.py", "TOLD = 20", "TOLD = 2", {"samples"}),
    ("stages/training.py", "prompt=infuse(template", "prompt=infuse(''", {"infuse"}),
    # artifacts: those who write and those who read them
    ("stages/artifacts.py", '"pairs.jsonl"', "'x'", {*PAIRS, "reference", "weights", "align"}),
    ("stages/artifacts.py", 'path / "adapter"', "path / 'x'", LOADED),
    ("stages/artifacts.py", '"deltas.jsonl"', "'x'", {"compare"}),
    # another stage is an input: of its code only what is read of it
    ("benchmarks/pope.py", '2 * sums("tp") + sums("fp")', '2 * sums("fp") + sums("fp")', SCORED),
    ("benchmarks/statistics.py", "RESAMPLES = 2000", "RESAMPLES = 200", SCORED),
    ("stages/evaluation.py", '"questions_per_second"', '"rate"', {"evaluate"}),
    ("data/hf.py", 'DRAW = "data.hf.draw"', 'DRAW = "data.hf"', {"samples", *OF_CANDIDATES}),
    ("core/texts.py", '{"a", "an", "the"}', '{"a"}', {*PAIRS, "explain", *OF_CANDIDATES}),
    ("training/losses/chosen_nll.py", "return -s.logprob", "return s.logprob", {"align"}),
    ("augment/swap_words.py", "rng.random() < self.share", "True", {"rejected", *VIEWS}),
    ("augment/moco.py", 'Literal["moco"] = "moco"', 'Literal["m"] = "m"', {"rejected", *VIEWS}),
    ("training/losses/image.py", 'frozenset({"images"})', "frozenset()", {"align"}),
    ("inputs/prompts.py", "values[found[1]]", "values[found[0]]",
     {"infuse", *SCORED, *OF_CANDIDATES}),
    # what results do not depend on
    ("core/machine.py", "return torch.float32", "return torch.float16", set()),
    ("stages/pairs.py", "if len(found) == most", "if not found", set()),
    ("stages/training.py", "no pair is left", "no pair", set()),
    ("stages/evaluation.py", "question.id, question.load", "question.id, str", set()),
    ("stages/pairs.py", "if source}", "if not source}", set()),
    ("core/errors.py", "class InputError(", "class Other:\n    pass\n\n\nclass InputError(", set()),
    ("stages/processes.py", "POLL = 0.1", "POLL = 0.2", set()),
    ("training/throughput.py", '"throughput.jsonl"', '"t.jsonl"', set()),
    ("models/processor.py", "def load_processor(", "# said\ndef load_processor(\n    ", set()),
    ("models/processor.py", '"""The processor of ``spec``', '"""That of ``spec``', set()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"), EDITS, ids=[f"{f}:{old}"[:60] for f, old, *_ in EDITS]
)
def test_a_change_of_what_decides_results_names_the_stages(copied, file, old, new, stages):
    assert edited(copied, file, old, new) == stages


def test_nothing_is_told_of_a_copy_without_a_change(copied):
    assert unpinned(copied) == []


def test_every_exception_has_a_reason_and_something_to_except():
    for name, reason in EXCEPT.items():
        assert reason
        parts = name.split(".")
        while parts:
            try:
                found = import_module(".".join(parts))
                break
            except ModuleNotFoundError:
                parts.pop()
        rest = name.split(".")[len(parts) :]
        for part in rest[:2]:
            fields = getattr(found, "__dataclass_fields__", {})
            assert hasattr(found, part) or part in fields, f"EXCEPT: there is no {name}"
            found = getattr(found, part, found)


def test_an_import_of_the_package_names_what_it_takes():
    """``import seva_exp.x`` binds ``seva_exp``: what is taken of it could not be followed."""
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.startswith("seva_exp.")], file


def test_what_is_excepted_of_other_stages_is_called_nowhere_else():
    """Of ``Samples.data`` other stages read ``image_root`` alone: were it more, its module would be
    in their closures."""
    closure = Closure(SOURCE)
    units = closure.of(Answers.__module__, Answers.__name__)
    assert (Samples.__module__, "Samples.digests") in units
    assert not [unit for unit in units if unit[0].startswith("seva_exp.data")]


# A package of a few lines, for what the real one may not have today.
TREE = {
    "stages/base.py": "class Stage:\n    def run(self): ...\n",
    "stages/one.py": (
        "from seva_exp.stages.base import Stage\n"
        "from math import floor as near\n"
        "from seva_exp import helps as h\n"
        "class First(Stage):\n"
        "    of: int\n"
        "    def run(self):\n"
        "        from seva_exp.late import late\n"
        "        from seva_exp.kinds import kinds\n"
        "        return near(1.5) + late() + h.used(Tool) + kinds()\n"
        "    def read(self): return h.read()\n"
        "class Second(Stage):\n"
        "    first: First\n"
        "    def run(self):\n"
        "        assert isinstance(self.first, First) or First()\n"
        "        return [one.read for one in (self.first, self.first)]\n"
        "class Tool:\n    def work(self): return 3\n"
    ),
    "late.py": (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from seva_exp.types import Kind\n"
        "TABLE = {}\n"
        "def keep(f):\n    TABLE[f.__name__] = f\n    return f\n"
        "@keep\ndef kept(): return 1\n"
        "def late(x: 'Kind' = None): return TABLE['kept']()\n"
        "def other(): return 2\n"
    ),
    "helps.py": (
        "from seva_exp.late import keep\n"
        "class Said:\n    x = 5\n"
        "def used(tool) -> Said: return 1\ndef read(): return 2\ndef unused(): return 3\n"
        "@keep\ndef found(): return 7\n"
    ),
    "types.py": "class Kind: ...\n",
    "core/modules.py": "def classes_of(package): return package\n",
    "kinds/__init__.py": (
        "from seva_exp.core.modules import classes_of\n"
        "def kinds(): return classes_of(__name__)\n"
        "def sorts(): return 1\n"
    ),
    "kinds/first.py": "from seva_exp.helps import Said\nKIND = Said\n",
}  # fmt: skip


def digests(folder: Path, **changes: tuple[str, str]) -> dict[str, str]:
    """Of both stages; ``file=(old, new)`` with ``_`` for the folder's slash."""
    for name, text in TREE.items():
        old, new = changes.get(name.removesuffix(".py").replace("/", "_"), ("", ""))
        assert old in text
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text.replace(old, new))
    for inside in {folder, *(folder / name for name in TREE)}:
        package = inside if inside.is_dir() else inside.parent
        (package / "__init__.py").touch()
    closure = Closure(folder)
    return {name: closure.digest("seva_exp.stages.one", name) for name in ("First", "Second")}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"late": ("return TABLE", "return 1 + TABLE")}, {"First"}),
        ({"late": ("kept(): return 1", "kept(): return 9")}, {"First", "Second"}),
        ({"late": ("other(): return 2", "other(): return 9")}, set()),
        ({"types": ("class Kind: ...", "class Kind: x = 1")}, set()),
        ({"stages_one": ("floor as near", "ceil as near")}, {"First"}),
        ({"stages_one": ("seva_exp import helps", "seva_exp import late")}, {"First", "Second"}),
        ({"stages_one": ("near(1.5)", "near(2.5)")}, {"First"}),
        ({"stages_one": ("work(self): return 3", "work(self): return 9")}, {"First"}),
        ({"helps": ("Said: return 1", "Said: return 9")}, {"First"}),
        ({"helps": ("read(): return 2", "read(): return 9")}, {"First", "Second"}),
        ({"helps": ("x = 5", "x = 9")}, {"First"}),
        ({"helps": ("found(): return 7", "found(): return 9")}, {"First", "Second"}),
        ({"helps": ("unused(): return 3", "unused(): return 9")}, set()),
        ({"kinds_first": ("= Said", "= Said()")}, {"First"}),
        ({"kinds___init__": ("sorts(): return 1", "sorts(): return 9")}, set()),
        ({"stages_base": ("...", "return 1")}, {"First", "Second"}),
        ({"stages_one": ("    of: int\n", "")}, {"First"}),
        ({"stages_one": ("self.first, self.first", "self.first")}, {"Second"}),
        ({"stages_one": ("class Second(Stage)", "class Second(Stage, metaclass=M)")}, {"Second"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_names_are_followed_to_what_they_stand_for(tmp_path, changes, named):
    before, after = digests(tmp_path), digests(tmp_path, **changes)
    assert {name for name in before if before[name] != after[name]} == named


def test_a_file_that_is_put_into_a_package_of_found_modules_is_seen(tmp_path):
    before = digests(tmp_path)
    (tmp_path / "kinds" / "second.py").write_text("KIND = 2\n")
    after = digests(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"First"}


def test_a_tree_s_text_has_no_layout_and_no_docstring():
    def text(source: str) -> str:
        return "".join(map(shape, Module("seva_exp.x", source).defined["f"]))

    said = text('def f(a, b=(1,)):\n    """Say."""\n    return [a,   # why\n  b]\n')
    assert said == text("def f(a, b=(1,)): return [a, b]\n")
    assert said != text("def f(a, b=(1.0,)): return [a, b]\n")
    assert text('def f():\n    """Say."""\n') == text("def f(): ...\n")
    assert text("def f(): return None") != text("def f(): return")
    assert "[]" not in text("def f(): return g()"), "what a newer Python adds is empty"


class Ears(Listener):
    def __init__(self) -> None:
        self.heard: list[str] = []
        self.environment: dict = {}

    def finished(self, outcome: Outcome) -> None:
        self.environment = outcome.environment

    def warned(self, text: str) -> None:
        self.heard.append(text)


def warnings(folder: Path, what=None, **options) -> list[str]:
    """What a run warns of. Its page tells no digest, which would be one stage's."""
    ears = Ears()
    machine = Machine(runs=str(folder), progress="off")
    options = {"stop_after": "samples"} | options
    experiment.run(what or small(), machine, Options(**options), listeners=[ears])
    assert options.get("dry_run") or (ears.environment["packages"] and CODE not in ears.environment)
    return ears.heard


def made_by(folder: Path, digest: str | None, stage: str = "samples") -> None:
    """The store's artifacts of a stage as that code would have left them."""
    for file in (folder / "store").glob(f"{stage}/*/manifest.json"):
        manifest = json.loads(file.read_text())
        manifest["environment"].pop(CODE)
        code = {"stage": digest, "package": "fedcba9876543210"}
        manifest["environment"] |= {CODE: code} if digest else {}
        file.write_text(json.dumps(manifest))


def test_an_artifact_of_other_code_is_told_once_and_can_be_made_anew(tmp_path):
    assert warnings(tmp_path) == []
    assert warnings(tmp_path) == [], "made by this code"
    made_by(tmp_path, "0123456789abcdef")
    (told,) = warnings(tmp_path)
    assert told.startswith("samples: made by other code than this") and "force=[samples]" in told
    assert warnings(tmp_path, force=("samples",)) == [], "it is made anew"
    assert warnings(tmp_path) == []
    made_by(tmp_path, None)
    assert warnings(tmp_path) == [], "of a store from before there were digests nothing is known"


def test_only_stages_that_follow_no_other_are_to_be_forced(tmp_path):
    what = stic(instructions=None)
    assert warnings(tmp_path, what, stop_after="pairs") == []
    for stage in ("pairs", "answers"):
        made_by(tmp_path, "0123456789abcdef", stage)
    (told,) = warnings(tmp_path, what, stop_after="pairs")
    names = [
        "answers.clean",
        "answers.bad_prompt",
        "answers.color_jitter",
        "answers.low_resolution",
    ]
    assert told.startswith(f"{', '.join([*names, 'pairs'])}: ")
    assert f"force=[{','.join(names)}]" in told
    made_by(tmp_path, code_digest(Answers), "answers")
    (told,) = warnings(tmp_path, what, stop_after="pairs")
    assert "force=[pairs]" in told


def test_the_digest_of_the_code_is_in_the_manifest_and_in_no_key(tmp_path, monkeypatch):
    warnings(tmp_path)
    (file,) = (tmp_path / "store").glob("samples/*/manifest.json")
    assert json.loads(file.read_text())["environment"][CODE] == code_of(Samples)
    monkeypatch.setattr("seva_exp.core.closure.code_digest", lambda stage: "f" * 16)
    monkeypatch.setattr("seva_exp.core.closure.package_digest", lambda: "e" * 16)
    (told,) = warnings(tmp_path)
    assert "force=[samples]" in told, "the artifact was found all the same"


def test_where_nothing_is_made_and_no_code_changed_no_closure_is_read(tmp_path, monkeypatch):
    def read(*_: object) -> None:
        raise AssertionError("read")

    assert warnings(tmp_path) == []
    monkeypatch.setattr("seva_exp.core.closure.code_digest", read)
    assert warnings(tmp_path) == []
    monkeypatch.setattr("seva_exp.core.closure.package_digest", read)
    warnings(tmp_path, dry_run=True)


def test_a_class_of_another_package_has_no_digest():
    class Own(Pairs):
        pass

    assert code_digest(Own) == ""
