"""Pictures read and encoded ahead of the model, a few at a time, in threads of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import islice
from threading import Lock

from PIL.Image import Image

from seva_exp.core.errors import is_out_of_memory
from seva_exp.core.interfaces import (
    TOO_LONG,
    EncodedImage,
    Reply,
    Request,
    VisionLanguageModel,
)
from seva_exp.decoding.contrasting import Beside
from seva_exp.decoding.hf_generate import reply_to
from seva_exp.decoding.rows import ImageChange, PrefixGroup, groups_of

DEPTH = 4
"""Pictures that are ready or being made ready."""
THREADS = 2


@dataclass
class _Picture:
    """The questions on one, and what is made of it when its turn is near."""

    requests: list[Request]
    made: Future[list[PrefixGroup]] | None = None


class PicturePrefetcher:
    """Groups picture by picture, in order. Files are decoded side by side; the processor, whose
    tokenizer may not be used by two threads at once, is used under a lock."""

    def __init__(
        self,
        vlm: VisionLanguageModel,
        requests: Sequence[Request],
        change: ImageChange | None,
        contrast: Beside | None = None,
    ) -> None:
        self._vlm = vlm
        self._change = change
        self._contrast = contrast
        self._lock = Lock()
        self._waiting = deque(map(_Picture, _by_picture(requests)))
        self._pool = ThreadPoolExecutor(THREADS, "pictures")
        self._unfit: list[Reply] = []

    @property
    def contrasts(self) -> bool:
        """Whether each row has another one beside it."""
        return self._contrast is not None

    def __len__(self) -> int:
        """Pictures that were not taken yet."""
        return len(self._waiting)

    def put_back(self, requests: Iterable[Request]) -> None:
        """Put requests back: they come next, before those that wait already."""
        self._waiting.extendleft(map(_Picture, reversed(_by_picture(requests))))

    def take(self) -> list[PrefixGroup]:
        """The next picture's groups, of which ``unfit`` has what the model's context has no room
        for; what was wrong with it is raised here. When memory ran out with it, what else was made
        ready is given up and it is tried again alone; if that does not help, it stays the next
        one."""
        requests = self._waiting[0].requests
        groups = self._taken()
        fitting = {row.request.id for group in groups for row in group.waiting}
        self._unfit += [Reply(r.id, "", (), TOO_LONG) for r in requests if r.id not in fitting]
        return groups

    def unfit(self) -> list[Reply]:
        """Replies to questions that no group has, which are then handed out."""
        replies, self._unfit = self._unfit, []
        return replies

    def _taken(self) -> list[PrefixGroup]:
        self._begin()
        picture = self._waiting.popleft()
        self._begin()
        assert picture.made
        try:
            return picture.made.result()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        self._waiting.appendleft(picture)
        self._give_up()
        groups = self._prepare(picture.requests)
        self._waiting.popleft()
        return groups

    @property
    def first(self) -> Request:
        """One of the requests on the next picture."""
        return self._waiting[0].requests[0]

    def reply(self, request: Request, tokens: list[int], logprobs: list[float]) -> Reply:
        """The generated ids as a reply."""
        with self._lock:
            return reply_to(self._vlm, request, tokens, logprobs)

    def _begin(self) -> None:
        """Make the next pictures ready."""
        for picture in islice(self._waiting, DEPTH):
            if picture.made is None:
                picture.made = self._pool.submit(self._prepare, picture.requests)

    def _give_up(self) -> None:
        """What is ready, and what is being made so."""
        futures = [picture.made for picture in self._waiting if picture.made]
        for picture in self._waiting:
            picture.made = None
        wait([made for made in futures if not made.cancel()])

    def _prepare(self, requests: list[Request]) -> list[PrefixGroup]:
        load = requests[0].load
        picture = load() if load else None
        with self._lock:
            image = self._encoded(requests[0], picture) if picture else None
            if self._contrast is None:
                return groups_of(self._vlm, requests, image)
            encode = partial(self._encoded, requests[0])
            other = self._contrast(self._vlm, requests, picture, image, encode)
            return groups_of(self._vlm, requests, image, other)

    def _encoded(self, request: Request, picture: Image) -> EncodedImage:
        image = self._vlm.encode_image(picture)
        return self._change(request, image) if self._change else image

    def close(self) -> None:
        """Drop the work that has not begun, and wait for the rest."""
        self._pool.shutdown(cancel_futures=True)


def _by_picture(requests: Iterable[Request]) -> list[list[Request]]:
    """In the order in which the pictures come first; each request without one by itself."""
    found: dict[tuple[str, ...], list[Request]] = {}
    for request in requests:
        key = (request.image_key,) if request.load else ("", request.id)
        found.setdefault(key, []).append(request)
    return list(found.values())
