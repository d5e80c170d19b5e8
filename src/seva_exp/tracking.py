"""Experiment trackers: none, or Weights & Biases (online when it can be, offline otherwise).

``make_listeners`` is all that a run needs. seva_exp itself imports wandb only when a run really
begins to log; TRL, which the align stage loads, imports it on its own.
"""

from __future__ import annotations

import contextlib
import io
import netrc
import os
import shlex
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from pydantic import Field

from seva_exp.events import Listener, Outcome, Plan, PlannedStage
from seva_exp.records import StageResult
from seva_exp.redact import hide, without_secrets
from seva_exp.report.verdict import is_number
from seva_exp.spec import Json, Spec
from seva_exp.tracking_content import flatten, pictures, score_summary, score_table
from seva_exp.tracking_marker import Marker

Mode = Literal["online", "offline", "disabled"]
CONNECT_SECONDS = 1.0
"""How long to wait for the W&B host before a run is tracked offline."""
START_SECONDS = 15.0
"""How long the W&B host may take to open a run before the run is tracked offline."""


class NoTracker(Spec):
    """No tracker: nothing is sent, and the run's folder holds every number already."""

    kind: Literal["none"] = "none"


class WandbTracker(Spec):
    """Mirror a run to Weights & Biases, or to files that ``wandb sync`` uploads later."""

    kind: Literal["wandb"] = "wandb"
    project: str = Field("seva_exp", min_length=1)
    """W&B project."""
    entity: str | None = None
    """W&B user or team; none takes the account's own (or $WANDB_ENTITY)."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """``auto``: what $WANDB_MODE says, else online when a key is found and the host answers."""
    group: str | None = None
    """Name under which W&B groups runs, e.g. those of one sweep."""
    tags: tuple[str, ...] = ()
    """W&B tags."""


AnyTracker = Annotated[NoTracker | WandbTracker, Field(discriminator="kind")]


def make_listeners(tracker: NoTracker | WandbTracker, store_root: Path) -> list[Listener]:
    """The listeners of one run. ``store_root`` keeps what was already logged, per W&B run."""
    return [WandbListener(tracker, store_root)] if isinstance(tracker, WandbTracker) else []


def choose_mode(tracker: WandbTracker) -> tuple[Mode, str]:
    """``online``, ``offline`` or ``disabled``, and why. Never asks; never shows a key."""
    if tracker.mode == "offline":
        return "offline", "tracker.mode=offline"
    asked = os.environ.get("WANDB_MODE", "").lower() if tracker.mode == "auto" else "online"
    if asked in ("offline", "dryrun"):
        return "offline", f"WANDB_MODE={asked}"
    if asked == "disabled":
        return "disabled", "WANDB_MODE=disabled"
    if asked not in ("", "online", "run"):
        return "offline", f"WANDB_MODE={asked} is none of online, offline, disabled"
    url = _host()
    if url is None:
        return "offline", "WANDB_BASE_URL is no address like https://host:port"
    if not _has_key(url.netloc):
        return "offline", "no API key found"
    if asked in ("online", "run"):
        return "online", f"{'tracker.mode' if tracker.mode == 'online' else 'WANDB_MODE'}={asked}"
    if not _answers(url):
        return "offline", f"{url.netloc.rpartition('@')[2]} does not answer"
    return "online", "API key found"


def _host() -> SplitResult | None:
    """Where W&B is; None when the address cannot be one."""
    try:
        url = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:  # of ``urlsplit`` and of ``port``
        return None
    return url if usable else None


def _has_key(netloc: str) -> bool:
    """Whether wandb will find credentials without asking: environment, identity token, netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    places = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for place in places:
        try:
            found = netrc.netrc(os.path.expanduser(place)).authenticators(netloc)
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
            continue
        if found and found[2]:
            return True
    return False


def _answers(url: SplitResult) -> bool:
    """Whether the host (or the proxy on the way to it) takes a TCP connection soon.

    In a thread, as looking a name up has no time limit of its own."""
    proxy = getproxies().get(url.scheme)
    answered = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: an odd name or proxy
            to = url
            if proxy and not proxy_bypass(url.hostname or ""):
                to = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            place = (to.hostname or "", to.port or (443 if to.scheme == "https" else 80))
            with socket.create_connection(place, timeout=CONNECT_SECONDS):
                answered.set()

    threading.Thread(target=connect, daemon=True).start()
    return answered.wait(CONNECT_SECONDS + 0.2)


class WandbListener(Listener):
    """Mirrors one run to W&B. An error of W&B ends the tracking, never the run."""

    def __init__(self, tracker: WandbTracker, store_root: Path) -> None:
        self._tracker = tracker
        self._markers = store_root / "tracking"
        self._run: Any = None
        self._marker: Marker
        self._keys: dict[str, str] = {}
        self._axes: set[str] = set()

    def planned(self, plan: Plan) -> None:
        """Open the W&B run, or say that it is complete already."""
        self._guard(lambda: self._open(plan), "could not start")

    def logged(self, stage: str, step: int, values: Json) -> None:
        """One training step, on the stage's own axis."""
        self._guard(lambda: self._log_step(stage, step, values))

    def stage_finished(self, result: StageResult, metrics: Json) -> None:
        """The stage's summary."""
        self._guard(lambda: self._summarise(result, metrics))

    def stage_skipped(self, stage: PlannedStage, reason: str) -> None:
        """Why the stage has no numbers."""
        self._guard(lambda: self._skip(stage, reason))

    def finished(self, outcome: Outcome) -> None:
        """Scores, example pairs, what was missed of the training; then close the W&B run."""
        self._guard(lambda: self._complete(outcome))

    def failed(self, error: BaseException) -> None:
        """Close the W&B run as failed."""
        self._guard(lambda: self._close(exit_code=1))

    def _guard(self, act: Callable[[], None], what: str = "stopped") -> None:
        if self._run is None and what == "stopped":
            return
        try:
            act()
        except Exception as error:  # a tracker must never end a run
            self._run = None
            why = _in_short(error)
            _say(f"warning: tracking {what} ({why}). The run goes on, its folder has all numbers.")

    def _open(self, plan: Plan) -> None:
        run_id = plan.key[:16]
        tracker = self._tracker
        target = {"run_id": run_id, "project": tracker.project, "entity": tracker.entity}
        self._marker = Marker(self._markers / f"{run_id}.json", target)
        if self._marker.is_complete(plan):
            _say(f"run {run_id} is already complete: {_places(self._marker)}")
            return
        mode, why = choose_mode(tracker)
        if mode == "disabled":
            _say(f"not tracked ({why})")
            return
        self._marker.forget_lost()
        self._keys = {stage.name: stage.key for stage in plan.stages}
        if mode == "online":
            try:
                self._run = _start(tracker, plan, run_id, mode)
            except Exception as error:  # a refused key, a server that hangs or fails
                mode, why = "offline", f"online failed: {_in_short(error)}"
                _discard(plan, run_id)
        if self._run is None:
            self._run = _start(tracker, plan, run_id, mode)
        folder = str(Path(self._run.dir).parent)
        state = self._marker.state
        state.update(finished=False, dirs=[*dict.fromkeys([*state["dirs"], folder])])
        self._marker.save()
        if mode == "online":
            _say(f"online, run {run_id} ({why}): {self._run.url}")
        else:
            _say(f"offline, run {run_id} ({why}). To upload: {_sync(state['dirs'])}")

    def _log(self, values: Json) -> None:
        """One history row. The step is explicit, as an offline run can't know what came before."""
        step = max(self._marker.state["next_step"], self._run.step)
        self._run.log(values, step=step)
        self._marker.state["next_step"] = step + 1

    def _log_step(self, stage: str, step: int, values: Json) -> None:
        key = self._keys.get(stage, "")
        if step <= self._marker.last_step(stage, key):
            return
        if stage not in self._axes:
            self._axes.add(stage)
            self._run.define_metric(f"{stage}/step", hidden=True)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        row = {f"{stage}/{k}": v for k, v in values.items() if k != "step" and is_number(v)}
        self._log({f"{stage}/step": step, **row})
        self._marker.state["history"][stage] = {"key": key, "step": step}
        self._marker.save()

    def _summarise(self, result: StageResult, metrics: Json) -> None:
        values = {"seconds": result.seconds, "cached": result.cached, **without_secrets(metrics)}
        flat = {f"stage/{result.name}/{name}": v for name, v in flatten(values)}
        self._run.summary.update(flat)
        self._marker.state["stages"][result.name] = result.key
        self._marker.state["skipped"].pop(result.name, None)
        self._marker.save()

    def _skip(self, stage: PlannedStage, reason: str) -> None:
        self._run.summary.update({f"stage/{stage.name}/skipped": hide(reason)})
        self._marker.state["skipped"][stage.name] = stage.key
        self._marker.save()

    def _complete(self, outcome: Outcome) -> None:
        for row in outcome.training:
            self._log_step(row["stage"], row["step"], row)
        self._run.config.update(
            {"environment": without_secrets(outcome.environment)}, allow_val_change=True
        )
        self._run.summary.update(score_summary(outcome.report))
        media = {**score_table(outcome.report), **pictures(outcome.examples)}
        if media:
            with _staged_in(outcome.plan.dir / "wandb"):
                self._log(media)
        self._marker.save()
        self._close(exit_code=0)
        self._marker.state["finished"] = True
        self._marker.save()

    def _close(self, exit_code: int) -> None:
        run, self._run = self._run, None
        run.finish(exit_code=exit_code)


def _start(tracker: WandbTracker, plan: Plan, run_id: str, mode: Mode) -> Any:
    """``wandb.init``, quiet and without anything that W&B would gather on its own."""
    import wandb

    plan.dir.mkdir(parents=True, exist_ok=True)
    with _settled_environment(), contextlib.redirect_stderr(io.StringIO()):
        # stderr: the login line ignores ``silent``
        settings = wandb.Settings(
            silent=True,
            quiet=True,
            console="off",
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            save_code=False,
            use_dot_wandb=False,
            init_timeout=START_SECONDS,
            finish_timeout=120,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        return wandb.init(
            project=tracker.project,
            entity=tracker.entity,
            group=tracker.group,
            tags=tracker.tags or None,
            id=run_id,
            name=plan.name,
            resume="allow",
            mode=mode,
            dir=plan.dir,
            config={**without_secrets(plan.config), "run_key": plan.key},
            reinit="create_new",
            settings=settings,
        )


@contextlib.contextmanager
def _settled_environment() -> Iterator[None]:
    """The variables without those that wandb refuses, or that would have it report on itself."""
    changes: dict[str, str | None] = {"WANDB_MODE": None}  # chosen already
    if _host() is None:
        changes["WANDB_BASE_URL"] = None
    if "WANDB_ERROR_REPORTING" not in os.environ:
        changes["WANDB_ERROR_REPORTING"] = "false"
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _discard(plan: Plan, run_id: str) -> None:
    """Forget an online run that did not begin: its empty files, and its id, which wandb's service
    would keep as taken. The service starts anew, so nothing else may be logging through it."""
    import wandb

    if wandb.run is None:
        with contextlib.redirect_stderr(io.StringIO()):
            wandb.teardown()
    for folder in (plan.dir / "wandb").glob(f"run-*-{run_id}"):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Have W&B stage table files in ``folder``, so that an offline run is whole in its folder."""
    ours = "WANDB_DATA_DIR" not in os.environ
    if ours:
        os.environ["WANDB_DATA_DIR"] = str(folder)
    try:
        yield
    finally:
        if ours:
            del os.environ["WANDB_DATA_DIR"]


def _in_short(error: Exception) -> str:
    """The first line of what went wrong, without secrets."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return hide(lines[0][:200].rstrip(". "))


def _sync(dirs: Sequence[str]) -> str:
    return shlex.join(["wandb", "sync", *(d for d in dirs if Path(d).exists())])


def _places(marker: Marker) -> str:
    here = [d for d in marker.state["dirs"] if Path(d).exists()]
    if here:
        return ", ".join(here)
    return f"its files are gone; delete {marker.path} to log it again"


def _say(text: str) -> None:
    print(f"W&B: {text}", file=sys.stderr, flush=True)
