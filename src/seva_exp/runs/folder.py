"""A run's folder: config, command, report, metrics, and readable links into the store."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from seva_exp.core.environment import CODE
from seva_exp.core.errors import InputError
from seva_exp.core.files import write_whole
from seva_exp.core.paths import MARKER
from seva_exp.core.records import Delta, Pair, PairCounts, Report, StageResult, read_jsonl
from seva_exp.core.redact import hide, without_secrets
from seva_exp.core.spec import Json, canonical
from seva_exp.core.store import Manifest, Store
from seva_exp.runs.events import Answered, Example, Listener, Outcome, Plan
from seva_exp.stages import (
    Align,
    Compare,
    Evaluate,
    Pairs,
    Stage,
    Trained,
    Verdicts,
    read_deltas,
    read_scores,
)

if TYPE_CHECKING:
    from PIL.Image import Image

Found = TypeVar("Found", bound=Stage)
GALLERY = 24
"""Most example pairs in a report."""


def read_folder(folder: Path) -> tuple[Report, Json]:
    """The report and the config of a run. Raises InputError when the folder holds no finished
    one."""
    import yaml

    try:
        report = Report.from_json(json.loads((folder / "report.json").read_text(encoding="utf-8")))
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        return report, dict(config)
    except FileNotFoundError:
        raise InputError(f"{folder}: {_why_no_run(folder)}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        why = f"{type(error).__name__}: {text}"
        raise InputError(f"{folder}: holds no finished run ({why}).") from None


def artifact_of(folder: Path, label: str) -> Path:
    """Where the artifact of a run's stage lies: its link followed, which is a text file where links
    are refused. It need not be there any more."""
    link = folder / label
    return Path(link.read_text(encoding="utf-8").strip()) if link.is_file() else link.resolve()


def predictions_of(folder: Path, report: Report, model: str, benchmark: str) -> Path:
    """The file of what a model of a run said to a benchmark, scored as its scores are: where a
    judge scored it, as the judge has left it."""
    judged = f"judge.{model}.{benchmark}"
    there = any(stage.name == judged for stage in report.stages)
    label = judged if there else f"evaluate.{model}.{benchmark}"
    return artifact_of(folder, label) / "predictions.jsonl"


def _why_no_run(folder: Path) -> str:
    """Of a folder in which files of a run are missing."""
    if (folder / "config.yaml").exists():
        return "this run is not finished."
    if (folder / MARKER).exists():
        return f"holds runs and is none: give those in it, e.g. {folder}/*"
    if not folder.is_dir():
        return "no such folder."
    return "holds no finished run (there is no report.json)."


class RunDir(Listener):
    """``runs/<date>_<time>_<name>/``, and the link ``runs/latest``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, plan: Plan) -> RunDir:
        """Make a new folder and write what is about to be done."""
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        try:
            plan.dir.mkdir(parents=True, exist_ok=True)
            (plan.dir / MARKER).touch()
        except OSError as error:
            raise InputError(
                f"machine.runs={plan.dir}: cannot write to this folder ({error.strerror}). "
                "Give another."
            ) from None
        for count in range(1, 1000):
            suffix = "" if count == 1 else f"-{count}"
            path = plan.dir.absolute() / f"{stamp}_{plan.name[:80]}{suffix}"
            try:
                path.mkdir()
                break
            except FileExistsError:
                continue
        folder = cls(path)
        _link(path.parent / "latest", path)
        folder._write_plan(plan)
        return folder

    def _write_plan(self, plan: Plan) -> None:
        import yaml

        config = yaml.safe_dump(without_secrets(plan.config), sort_keys=False, allow_unicode=True)
        (self.path / "config.yaml").write_text(config, encoding="utf-8")
        if plan.overrides:  # a run of the Python API has no command
            words = " ".join(shlex.quote(hide(word)) for word in plan.overrides)
            command = f"python -m seva_exp {words}\n"
            (self.path / "overrides.txt").write_text(command, encoding="utf-8")

    def logged(self, stage: str, step: int, values: Json) -> None:
        """Append a step while the stage works, for ``tail -f``."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(canonical({"stage": stage, **values}) + "\n")

    def link(self, label: str, artifact: Path) -> None:
        """A readable name for a stage's artifact."""
        _link(self.path / label, artifact)

    def finished(self, outcome: Outcome) -> None:
        """Write ``report.json``, the whole ``metrics.jsonl`` and the contract's links."""
        rows = "".join(canonical(row) + "\n" for row in outcome.training)
        (self.path / "metrics.jsonl").write_text(rows, encoding="utf-8")
        for name, file in outcome.links.items():
            _link(self.path / name, self.path / file)
        text = json.dumps(outcome.report.to_json(), indent=2, ensure_ascii=False)
        write_whole(self.path / "report.json", text + "\n")


def _link(name: Path, target: Path) -> None:
    """A relative symbolic link, replaced in one step; where links are refused, a text file."""
    temporary = name.with_name(f".{name.name}.{os.getpid()}")
    relative = os.path.relpath(target.absolute(), name.parent.absolute())
    try:
        temporary.symlink_to(relative, target_is_directory=target.is_dir())
        temporary.replace(name)
    except OSError:
        temporary.unlink(missing_ok=True)
        if not name.is_dir():
            name.write_text(f"{target}\n", encoding="utf-8")


def collect_outcome(
    plan: Plan,
    done: Sequence[tuple[Stage, Manifest, bool]],
    store: Store,
    folder: RunDir,
) -> Outcome:
    """Read from the artifacts what a report shows."""
    stages = [stage for stage, _, _ in done]
    path = {stage.label: store.path(stage.name, stage.key) for stage in stages}
    results, summaries = [], {}
    for stage, manifest, cached in done:
        seconds = round(manifest.seconds, 3)
        results.append(StageResult(stage.label, stage.key, cached, seconds))
        summaries[stage.label] = manifest.summary
    pairs = _pairs(stages)
    trained = _last(s for s in stages if isinstance(s, Trained))
    counts = summaries[pairs.label] if pairs else None
    links = {"adapter": f"{trained.label}/adapter"} if trained else {}
    links |= {"pairs.jsonl": f"{pairs.label}/pairs.jsonl"} if pairs else {}
    report = Report(
        key=plan.key,
        name=plan.name,
        seed=plan.seed,
        dir=str(folder.path),
        stages=tuple(results),
        pairs=PairCounts(**{k: counts[k] for k in ("sampled", "kept", "dropped")})
        if counts
        else None,
        scores=tuple(
            score
            for stage in _measured(stages)
            for score in stage.named(read_scores(path[stage.label]))
        ),
        deltas=tuple(_deltas(stages, path)),
    )
    return Outcome(
        plan=plan,
        report=report,
        examples=tuple(_examples(stages, path)),
        training=tuple(_training(stages, path)),
        stage_metrics=summaries,
        environment={n: v for n, v in done[-1][1].environment.items() if n != CODE},
        answered=tuple(
            _answered(stage, path) for stage in stages if isinstance(stage, Compare) and stage.final
        ),
        links=links,
    )


def _last(stages: Iterable[Found]) -> Found | None:
    """Of several rounds, the last one's stage."""
    return ([None, *stages])[-1]


def _pairs(stages: Sequence[Stage]) -> Pairs | None:
    """Those that the last alignment learnt from; where there was none, the last that were made."""
    align = _last(s for s in stages if isinstance(s, Align))
    return align.pairs if align else _last(s for s in stages if isinstance(s, Pairs))


def _measured(stages: Sequence[Stage]) -> list[Evaluate | Verdicts]:
    """The stages whose scores are the run's: of a judged benchmark the judge's alone."""
    found = [stage for stage in stages if isinstance(stage, (Evaluate, Verdicts))]
    judged = {stage.of.label for stage in found if isinstance(stage, Verdicts)}
    return [stage for stage in found if stage.label not in judged]


def _deltas(stages: Sequence[Stage], path: dict[str, Path]) -> Iterator[Delta]:
    """Those of the final model first, then those of the models on the way to it."""
    compares = [stage for stage in stages if isinstance(stage, Compare)]
    for stage in sorted(compares, key=lambda stage: not stage.final):
        yield from stage.named(read_deltas(path[stage.label]))


def _answered(compare: Compare, path: dict[str, Path]) -> Answered:
    base, after = compare.base, compare.after

    def pictures(wanted: Collection[str]) -> Iterator[tuple[str, Callable[[], Image]]]:
        for question in base.benchmark.questions(base.root):
            if question.id in wanted:
                yield question.id, question.load

    said, says = (path[stage.label] / "predictions.jsonl" for stage in (base, after))
    return Answered(base.benchmark_name, base.protocol, said, says, pictures)


def _training(stages: Sequence[Stage], path: dict[str, Path]) -> Iterator[Json]:
    for stage in stages:
        if isinstance(stage, Trained):
            lines = (path[stage.label] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            yield from ({"stage": stage.label, **json.loads(line)} for line in lines)


def _examples(stages: Sequence[Stage], path: dict[str, Path]) -> list[Example]:
    """The first pairs of which every view's picture was kept."""
    pairs = _pairs(stages)
    if pairs is None:
        return []
    previews = {stage.view: _previews(path[stage.label]) for stage in pairs.negatives}
    root = pairs.samples.data.image_root(path[pairs.samples.label])
    found = []
    for pair in read_jsonl(path[pairs.label] / "pairs.jsonl", Pair):
        if all(pair.sample_id in previews[view] for view in pair.views):
            shown = {view: previews[view][pair.sample_id] for view in pair.views}
            found.append(Example(pair, root / pair.image.path, shown))
        if len(found) == GALLERY:
            break
    return found


def _previews(artifact: Path) -> dict[str, Path]:
    folder = artifact / "previews"
    rows = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return {row["sample_id"]: folder / row["file"] for row in rows}
