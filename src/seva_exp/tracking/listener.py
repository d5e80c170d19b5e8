"""One run mirrored to a tracker: what is sent when, once, also over resumed runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from seva_exp.core.printable import error_text, indented, printable
from seva_exp.core.records import StageResult
from seva_exp.core.redact import hide, without_secrets
from seva_exp.core.spec import Json, flatten
from seva_exp.report.significance import is_number
from seva_exp.runs.events import Listener, Outcome, Plan, PlannedStage
from seva_exp.tracking import content
from seva_exp.tracking.marker import Marker
from seva_exp.tracking.sink import Sink, TrackedRun
from seva_exp.tracking.spec import Tracked


class TrackingListener(Listener):
    """Tells a sink of one run. An error of the tracker ends the tracking, never the run."""

    def __init__(self, sink: Sink, tracker: Tracked, store_root: Path) -> None:
        self._sink = sink
        self._tracker = tracker
        self._markers = store_root / "tracking"
        self._marker: Marker
        self._held = ExitStack()
        self._open = False
        self._keys: dict[str, str] = {}
        self._axes: set[str] = set()

    def planned(self, plan: Plan) -> None:
        """Open the tracked run, or say that it is complete already."""
        self._guard(lambda: self._begin(plan), "could not start")

    def logged(self, stage: str, step: int, values: Json) -> None:
        """One training step, on the stage's own axis."""
        self._guard(lambda: self._log_step(stage, step, values))

    def stage_finished(self, result: StageResult, metrics: Json) -> None:
        self._guard(lambda: self._summarise(result, metrics))

    def stage_skipped(self, stage: PlannedStage, reason: str) -> None:
        self._guard(lambda: self._skip(stage, reason))

    def finished(self, outcome: Outcome) -> None:
        """Scores, pictures, files, what was missed of the training; then close the tracked run."""
        self._guard(lambda: self._complete(outcome))

    def failed(self, error: BaseException) -> None:
        """Close the tracked run as failed."""
        self._guard(lambda: self._close(failed=True))

    def _guard(self, act: Callable[[], None], what: str = "stopped") -> None:
        if not self._open and what == "stopped":
            return
        try:
            act()
        except Exception as error:  # a tracker must never end a run
            self._open = False
            why = in_short(error)
            self._say(
                f"warning: tracking {what} ({why}). The run goes on, its folder has all numbers."
            )
        finally:
            if not self._open:
                self._held.close()

    def _begin(self, plan: Plan) -> None:
        sink, tracker = self._sink, self._tracker
        run_id = sink.run_id(plan.key)
        self._marker = Marker(self._markers / tracker.kind / f"{run_id}.json", sink.target())
        if self._marker.is_complete(plan):
            self._say(f"run {run_id} is already complete: {self._marker.location}")
            return
        if refused := sink.refused():
            self._say(f"not tracked ({refused})")
            return
        if not self._marker.claim():
            self._say(f"not tracked (another process tracks run {run_id})")
            return
        self._held.callback(self._marker.release)
        self._marker.forget_lost()
        self._keys = {stage.name: stage.key for stage in plan.stages}
        plan.dir.mkdir(parents=True, exist_ok=True)
        how = sink.open(
            TrackedRun(
                key=plan.key,
                name=plan.name,
                group=tracker.group,
                job_type=content.job_type(plan),
                tags=tuple(dict.fromkeys([*tracker.tags, *content.tags(plan.config)])),
                config={**content.columns_of(plan.config), "run_key": plan.key},
                dir=plan.dir,
            )
        )
        self._open = True
        if sink.fresh:
            self._marker.forget()
        state, places = self._marker.state, [sink.place] if sink.place else []
        state.update(finished=False, dirs=[*dict.fromkeys([*state["dirs"], *places])])
        if sink.url:
            state["url"] = sink.url
        self._marker.save()
        self._say(f"{how} {sink.hint(self._marker.here)}".rstrip())

    def _log_step(self, stage: str, step: int, values: Json) -> None:
        key = self._keys.get(stage, "")
        if step <= self._marker.last_step(stage, key):
            return
        if stage not in self._axes:
            self._axes.add(stage)
            self._sink.axis(stage)
        row = {f"{stage}/{k}": v for k, v in values.items() if k != "step" and is_number(v)}
        state = self._marker.state
        state["next_step"] = 1 + self._sink.log(
            {f"{stage}/step": step, **row}, state["next_step"], step
        )
        state["history"][stage] = {"key": key, "step": step}
        self._marker.save()

    def _summarise(self, result: StageResult, metrics: Json) -> None:
        values = {"seconds": result.seconds, "cached": result.cached, **without_secrets(metrics)}
        flat = {f"stage/{result.name}/{name}": v for name, v in flatten(values)}
        self._sink.summarise(flat)
        self._marker.state["stages"][result.name] = result.key
        self._marker.state["skipped"].pop(result.name, None)
        self._marker.save()

    def _skip(self, stage: PlannedStage, reason: str) -> None:
        self._sink.summarise({f"stage/{stage.name}/skipped": hide(reason)})
        self._marker.state["skipped"][stage.name] = stage.key
        self._marker.save()

    def _complete(self, outcome: Outcome) -> None:
        for row in outcome.training:
            self._log_step(row["stage"], row["step"], row)
        report = outcome.report
        self._sink.describe(without_secrets(outcome.environment))
        self._sink.summarise(content.score_summary(report, outcome.plan.config))
        table = content.score_table(report)
        words = content.explanations(outcome.explained)
        galleries = {**content.pictures(outcome.examples), **words}
        if table or galleries:
            state = self._marker.state
            state["next_step"] = 1 + self._sink.show(table, galleries, state["next_step"])
        self._sink.keep(content.made(outcome))
        self._marker.save()
        self._close(failed=False)
        self._marker.state["finished"] = True
        self._marker.save()

    def _close(self, failed: bool) -> None:
        self._open = False
        self._sink.close(failed)

    def _say(self, text: str) -> None:
        print(printable(f"{self._sink.label}: {indented(text)}"), file=sys.stderr, flush=True)


def in_short(error: Exception) -> str:
    """The first line of what went wrong, without secrets."""
    return hide(error_text(error, first_line=True))
