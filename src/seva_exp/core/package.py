"""The source of this package, looked up by name and never run: what a name in a module stands for,
what a class of ``seva_exp.stages`` inherits. See ``closure``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from seva_exp.core.syntax import UNNAMED, Module

PACKAGE = "seva_exp"
STAGES = f"{PACKAGE}.stages"
WHOLE, ALWAYS = "*", UNNAMED
"""In place of a name: all of a module; what it does when it is imported."""
Unit = tuple[str, str]
"""A module and a name in it; of a class of ``STAGES``: ``Class.member``."""
STAGE = (f"{STAGES}.base", "Stage")
EXCEPT = {
    "seva_exp.core.errors": "what a person is told of a fault; no result is made of it",
    "seva_exp.core.progress": "bars and lines on a terminal",
    "seva_exp.core.redact": "hides secrets in what is told",
    "seva_exp.core.runtime": "threads and memory of the process: how fast, not what",
    "seva_exp.core.machine": "where and how work is done, by rule no part of a result",
    "seva_exp.core.interfaces": "protocols and records without code of their own",
    "seva_exp.core.spec": "what keys are made with: were it another, every key would be",
    "seva_exp.core.digests": "hashes of files, which stand in the keys",
    "seva_exp.core.sharing": "who does which piece of a stage's work",
    "seva_exp.core.store": "how artifacts are locked, written and found, not what is in them",
    "seva_exp.core.manifest": "whether artifacts are whole",
    "seva_exp.core.disk": "what a person is told of a disk that fails",
    "seva_exp.stages.processes": "who does a stage's work; results do not depend on how many",
    "seva_exp.training.spec.our_losses": "names, and what is looked at: it is in the keys",
    "seva_exp.training.throughput": "tokens a second and memory, in a file of their own",
    "seva_exp.stages.shown": "what the pages of a run show",
    "seva_exp.stages.base.Stage.key": "the key itself",
    "seva_exp.stages.base.Stage.judge_estimate": "what a plan tells of the work",
    "seva_exp.stages.preferences.Answers.prepare": "whether work can start",
    "seva_exp.stages.pairs.Pairs.examples": "what the pages of a run show",
    "seva_exp.stages.pairs.Pairs.shown": "which views: they stand in the keys of who looks",
    "seva_exp.stages.pairs.Pairs.most_rejected": "what an estimate of memory asks",
    "seva_exp.stages.candidates.ScoredPairs.shown": "as Pairs.shown",
    "seva_exp.stages.candidates.ScoredPairs.views": "as Pairs.shown",
    "seva_exp.stages.candidates.ScoredPairs.most_rejected": "as Pairs.most_rejected",
    "seva_exp.stages.sentences.SentencePairs.steps": "the order of work",
    "seva_exp.stages.pairs.Pairs.steps": "the order of work",
    "seva_exp.stages.base.Stage.prepared_as": "whether work can start",
    "seva_exp.stages.candidates.ScoreCandidates.prepare": "whether work can start",
    "seva_exp.stages.candidates.ScoreCandidates.prepared_as": "whether work can start",
    "seva_exp.stages.training.Alignment.nothing_to_do": "whether there is work",
    "seva_exp.stages.evaluation.JudgeAnswers.prepare": "whether work can start",
    "seva_exp.stages.evaluation.JudgeAnswers.judge_estimate": "what a plan tells of the work",
    "seva_exp.stages.evaluation.Compare.answered": "what the pages of a run show",
    "seva_exp.stages.explaining.ExplainWords.explained": "what the pages of a run show",
    "seva_exp.stages.preferences.Samples.data.image_root": (
        "where pictures lie: load_image stops where one is not the one that was hashed"
    ),
}
"""Modules, members and what is called of a member -> why a change there changes no result."""


class Package:
    """The modules below ``root``, each read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._modules: dict[str, Module] = {}
        self._brought: dict[Unit, Unit | None] = {}
        self._lineages: dict[Unit, list[Unit]] = {}

    def nodes(self, unit: Unit) -> list[ast.stmt]:
        """The statements of a unit; of a class that is read by member its own, without the body."""
        module, name = self.module(unit[0]), unit[1]
        if name == WHOLE:
            return [node for some in module.defined.values() for node in some]
        if name == ALWAYS:
            return module.always
        cls, _, member = name.partition(".")
        if not self.by_member((unit[0], cls)):
            return module.defined[name]
        if not member:
            return [module.head(cls)]
        owner, own = self.owner((unit[0], cls), member)
        return self.module(owner).members(own)[member]

    def path(self, unit: Unit) -> str:
        """The unit's dotted name; a member's is that of the class that it comes from."""
        cls, _, member = unit[1].partition(".")
        return ".".join((*self.owner((unit[0], cls), member), member) if member else unit)

    @staticmethod
    def excepted(path: str) -> bool:
        """Whether ``EXCEPT`` names the unit, or the class or module that holds it."""
        return any(f"{path}.".startswith(f"{one}.") for one in EXCEPT)

    def module(self, name: str) -> Module:
        """A module of the package, read once."""
        if name not in self._modules:
            self._modules[name] = Module(name, self.file(name).read_text(encoding="utf-8"))
        return self._modules[name]

    def file(self, name: str) -> Path:
        """Where a module's source lies, if there is such a module."""
        path = self._root.joinpath(*name.split(".")[1:])
        package = path / "__init__.py"
        return package if package.is_file() else path.with_suffix(".py")

    def inside(self, package: str) -> list[str]:
        """The modules that lie in a package."""
        names = sorted(file.stem for file in self.file(package).parent.glob("*.py"))
        return [f"{package}.{name}" for name in names if name != "__init__"]

    def by_member(self, unit: Unit) -> bool:
        """Whether the unit is a class that is read member by member."""
        inside = f"{unit[0]}.".startswith(f"{STAGES}.")
        return inside and self.module(unit[0]).is_class(unit[1])

    def resolve(self, module: str, name: str) -> Unit | None:
        """The definition that a name in a module stands for; None outside the package."""
        here = self.module(module)
        if name in here.defined:
            return module, name
        return self.imported(here.imports[name]) if name in here.imports else None

    def imported(self, target: Unit) -> Unit | None:
        """The unit that an import brings: ``from MODULE import NAME``, or a module."""
        if target not in self._brought:
            self._brought[target] = self._import(*target)
        return self._brought[target]

    def _import(self, module: str, name: str) -> Unit | None:
        if module.split(".")[0] != PACKAGE:
            return None
        if not name:
            return module, WHOLE
        if self.file(f"{module}.{name}").is_file():
            return f"{module}.{name}", WHOLE
        return self.resolve(module, name) or (module, WHOLE)

    def dotted(self, module: str, parts: list[str]) -> Unit | None:
        """The unit that ``a.b.c`` in a module stands for, if modules alone stand before the last
        part."""
        unit = self.resolve(module, parts[0])
        for name in parts[1:]:
            unit = self.imported((unit[0], name)) if unit and unit[1] == WHOLE else None
        return unit

    def lineage(self, cls: Unit) -> list[Unit]:
        """A class of ``STAGES`` and its bases there, in the order in which members are found."""
        found = [cls]
        for base in self.module(cls[0]).bases(cls[1]):
            known = self.dotted(cls[0], base)
            if known and self.by_member(known):
                above = self.lineage(known)
                found = [one for one in found if one not in above] + above
        return found

    def heirs(self, cls: Unit) -> set[Unit]:
        """A class of ``STAGES`` and all that derive from it there."""
        if not self._lineages:
            folder = self.file(STAGES).parent
            names = (f"{STAGES}.{file.stem}" for file in folder.glob("*.py"))
            modules = [name for name in names if not name.endswith(".__init__")]
            classes = [(m, one) for m in modules for one in self.module(m).defined]
            self._lineages = {one: self.lineage(one) for one in classes if self.by_member(one)}
        return {cls, *(one for one, above in self._lineages.items() if cls in above)}

    def is_stage(self, cls: Unit) -> bool:
        """Whether a class is a stage."""
        return STAGE in self.lineage(cls)

    def members(self, cls: Unit) -> Iterator[Unit]:
        """All of a class that is read by member, with what it inherits. What it overrides counts,
        too: ``super()`` may call it."""
        for module, name in self.lineage(cls):
            yield module, name
            for member in self.module(module).members(name):
                own = self.owner(cls, member) == (module, name)
                yield (cls[0], f"{cls[1]}.{member}") if own else (module, f"{name}.{member}")

    def owner(self, cls: Unit, member: str) -> Unit:
        """The class that a member comes from. Raises KeyError where there is none."""
        for module, name in self.lineage(cls):
            if member in self.module(module).members(name):
                return module, name
        raise KeyError(member)
