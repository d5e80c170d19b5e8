"""The fake GPU, built once and started once for each of pytest's processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .install import GUARD, build, missing

ROOT = Path(__file__).parents[2]


class FakeGpu:
    """Asks the server for cases, each with a folder of its own below ``folder``."""

    def __init__(self, guard: Path, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        path = [ROOT / "tests", ROOT / "src", ROOT / "perf", ROOT]
        environment = {
            **os.environ,
            GUARD: str(guard),
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        self._server = subprocess.Popen(
            [sys.executable, "-m", "fake_gpu.server", str(guard)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "server.txt").open("wb"),
            text=True,
            env=environment,
            start_new_session=True,
        )

    def __call__(self, case: str, **arguments: Any) -> dict[str, Any]:
        """What the case found; ``output``: what it said. A case that dies fails the test."""
        code, folder = self._ask(case, arguments)
        said = (folder / "output.txt").read_text(encoding="utf-8")
        if code != 0:
            pytest.fail(f"{case} died ({code}): {said[-3000:]}")
        return json.loads((folder / "result.json").read_text()) | {"output": said}

    def dies(self, case: str, **arguments: Any) -> tuple[int, str]:
        """The exit code of a case that does not come to its end, and what it said."""
        code, folder = self._ask(case, arguments)
        return code, (folder / "output.txt").read_text(encoding="utf-8")

    def _ask(self, case: str, arguments: dict[str, Any]) -> tuple[int, Path]:
        folder = self._folder / f"{self._count}-{case}"
        self._count += 1
        folder.mkdir()
        asked = {"case": case, "arguments": arguments, "folder": str(folder)}
        assert self._server.stdin and self._server.stdout
        try:
            print(json.dumps(asked), file=self._server.stdin, flush=True)
            reply = self._server.stdout.readline()
        except BaseException:  # the test is late: it leaves no case behind
            os.killpg(self._server.pid, signal.SIGKILL)
            raise
        if not reply:
            pytest.fail(f"the server died: {(self._folder / 'server.txt').read_text()[-3000:]}")
        return int(reply), folder

    def end(self) -> None:
        self._server.communicate()


@pytest.fixture(scope="session")
def fake_gpu(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FakeGpu]:
    """Skips, and says so loudly, where it cannot be."""
    if reason := missing():
        reason += ", so that nothing of what a GPU would meet is tested here"
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    cache = getattr(request.config, "cache", None)
    folder = tmp_path_factory.mktemp("fake_gpu")
    found = FakeGpu(build(Path(cache.mkdir("fake_gpu")) if cache else folder), folder)
    yield found
    found.end()
