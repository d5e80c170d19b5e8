"""Pictures read and encoded ahead of the model, a few at a time, in threads of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from seva_exp.generation.batches import reply_to
from seva_exp.generation.budget import out_of_memory
from seva_exp.generation.rows import Group, ImageChange, groups_of
from seva_exp.interfaces import Reply, Request, VisionLanguageModel

DEPTH = 4
"""Pictures that are ready or being made ready."""
THREADS = 2


class Ahead:
    """Groups picture by picture, in order. Files are decoded side by side; the processor, whose
    tokenizer may not be used by two threads at once, is used under a lock."""

    def __init__(
        self,
        vlm: VisionLanguageModel,
        requests: Sequence[Request],
        change: ImageChange | None,
    ) -> None:
        self._vlm = vlm
        self._change = change
        self._lock = Lock()
        self._todo: deque[list[Request]] = deque()
        self._ready: deque[tuple[list[Request], Future[list[Group]]]] = deque()
        self._pool = ThreadPoolExecutor(THREADS, "pictures")
        self._todo.extend(_by_picture(requests))

    def __len__(self) -> int:
        """Pictures that were not taken yet."""
        return len(self._todo) + len(self._ready)

    def put_back(self, requests: Iterable[Request]) -> None:
        """These come next, before what waits already."""
        for some in reversed(_by_picture(requests)):
            self._ready.appendleft((some, self._pool.submit(self._prepare, some)))

    def take(self) -> list[Group]:
        """The next picture's groups; what was wrong with it is raised here. When memory ran out
        with it, it stays the next one, and what else was made ready is given up."""
        self._fill()
        requests, made = self._ready.popleft()
        self._fill()
        try:
            return made.result()
        except Exception as error:
            if out_of_memory(error):
                waiting = [requests, *(some for some, _ in self._ready)]
                self._ready.clear()
                self._todo.extendleft(reversed(waiting))
            raise

    @property
    def first(self) -> Request:
        """One of those on the next picture."""
        return (self._ready[0][0] if self._ready else self._todo[0])[0]

    def reply(self, request: Request, tokens: list[int], logprobs: list[float]) -> Reply:
        """The generated ids as a reply."""
        with self._lock:
            return reply_to(self._vlm, request, tokens, logprobs)

    def _fill(self) -> None:
        while self._todo and len(self._ready) < DEPTH:
            some = self._todo.popleft()
            self._ready.append((some, self._pool.submit(self._prepare, some)))

    def _prepare(self, requests: list[Request]) -> list[Group]:
        picture = requests[0].load()
        with self._lock:
            image = self._vlm.encode_image(picture)
            if self._change:
                image = self._change(requests[0], image)
            return groups_of(self._vlm, requests, image)

    def close(self) -> None:
        """What has not begun never will; what has is waited for."""
        self._pool.shutdown(cancel_futures=True)


def _by_picture(requests: Iterable[Request]) -> list[list[Request]]:
    """In the order in which the pictures come first."""
    found: dict[str, list[Request]] = {}
    for request in requests:
        found.setdefault(request.image_key, []).append(request)
    return list(found.values())
