"""Asking an OpenAI-compatible server: many questions under way at once, each asked again after a
fault that may pass, of several endpoints another one; replies handed on as they come.

The requests run in an event loop on a thread of its own; a queue brings what they give.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

import httpx2

from seva_exp.core.errors import StageError
from seva_exp.core.machine import Server
from seva_exp.served.chat import PATH, PassingFault, Refusal
from seva_exp.served.endpoint import LISTING_SECONDS, client_options, send, without_key
from seva_exp.served.pool import Endpoint, Pool

Question = TypeVar("Question")
Got = TypeVar("Got")

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before a question is asked again; doubled each time, then drawn from the upper half."""
LONGEST_SERVER_WAIT = 600.0
"""Seconds to which a server's Retry-After is heeded."""


@dataclass(frozen=True)
class _End:
    """No more replies come; ``error``: why there are not all of them."""

    error: BaseException | None = None


@dataclass(frozen=True)
class _Line:
    """For a person."""

    text: str


class Keeper(Protocol):
    """Who starts a server again when it dies."""

    starts: int

    def revive(self, starts: int) -> bool:
        """After a fault of a question that was sent when the server had been started ``starts``
        times: whether it had died, and answers again. Raises StageError where it is given up."""
        ...

    def give_up(self) -> None:
        """Nobody waits for it any more."""
        ...


Events = SimpleQueue[Any]
"""What was got, lines for a person, the end."""


class ChatClient(Generic[Question, Got]):
    """Asks ``server``. ``body`` is a question's JSON; ``read`` makes something of the response, or
    raises Refusal or PassingFault; ``name`` calls a question in an error. ``warn`` takes a line for
    a person. ``keeper``: what died while it is started again counts as no try."""

    def __init__(
        self,
        server: Server,
        body: Callable[[Question], bytes],
        read: Callable[[Question, httpx2.Response], Got],
        name: Callable[[Question], str],
        warn: Callable[[str], None] = lambda text: None,
        keeper: Keeper | None = None,
    ) -> None:
        self._server = server
        self._keeper = keeper
        self._body, self._read, self._name = body, read, name
        self._warn = warn
        self._jitter = random.Random()  # decides when a question is asked, never its answer
        self._warned = False

    def run(self, requests: Sequence[Question]) -> Iterator[list[Got]]:
        """Yield replies as they come. Where a question is refused, or has no answer after all
        retries, the others under way are given up and StageError is raised; the replies that came
        before are yielded first."""
        events: Events = SimpleQueue()
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._work, args=(loop, requests, events), daemon=True)
        thread.start()
        end = None
        try:
            while end is None:
                replies, end = self._heard(events)
                if replies:
                    yield replies
            if end.error:
                raise end.error
        finally:  # also where the caller stops
            if end is None and self._keeper:
                self._keeper.give_up()
            with suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(_cancel_all, loop)
            thread.join()

    def _heard(self, events: Events) -> tuple[list[Got], _End | None]:
        """Waits for an event, and takes all that are there."""
        replies: list[Got] = []
        event = events.get()
        with suppress(Empty):
            while not isinstance(event, _End):
                if isinstance(event, _Line):
                    self._warn(event.text)
                else:
                    replies.append(event)
                event = events.get_nowait()
            return replies, event
        return replies, None

    def _work(
        self, loop: asyncio.AbstractEventLoop, requests: Sequence[Question], events: Events
    ) -> None:
        """The thread's life."""
        end = _End()
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._ask_all(requests, events))
        except BaseExceptionGroup as group:
            end = _End(group.exceptions[0])
        except BaseException as error:  # is raised again where the replies are read
            end = _End(error)
        finally:
            events.put(end)

    async def _ask_all(self, requests: Sequence[Question], events: Events) -> None:
        waiting = iter(requests)
        async with AsyncExitStack() as stack:
            pool = await self._pool(stack, events)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            for _ in range(self._server.concurrency):
                group.create_task(self._ask_in_turn(pool, waiting, events))

    async def _pool(self, stack: AsyncExitStack, events: Events) -> Pool[httpx2.AsyncClient]:
        """The server's endpoints."""
        several = self._server.concurrency
        limits = httpx2.Limits(max_connections=several, max_keepalive_connections=several)
        endpoints = []
        for one in self._server.endpoints:
            client = httpx2.AsyncClient(**client_options(one), limits=limits)
            endpoints.append(Endpoint(str(one.url), await stack.enter_async_context(client)))

        def tell(text: str) -> None:
            events.put(_Line(without_key(self._server, text)))

        pool = Pool(endpoints, _is_well, lambda attempt: self._wait(attempt, None), tell)
        stack.callback(pool.close)
        return pool

    async def _ask_in_turn(
        self, pool: Pool[httpx2.AsyncClient], waiting: Iterator[Question], events: Events
    ) -> None:
        """One of several that share the iterator."""
        for request in waiting:
            body = await asyncio.to_thread(self._body, request)
            events.put(await self._answer(pool, request, body, events))

    async def _answer(
        self, pool: Pool[httpx2.AsyncClient], request: Question, body: bytes, events: Events
    ) -> Got:
        """The reply, after as many retries as there may be; an endpoint that is left out costs
        one of its own."""
        tries = self._server.retries + len(pool.endpoints)
        failed, wait = 0, 0.0
        while True:
            await asyncio.sleep(wait)
            starts = self._keeper.starts if self._keeper else 0
            one = pool.next()
            try:
                return await self._post(one, request, body)
            except Refusal as refusal:
                why = f"the server refuses this question: {refusal}"
                raise self._failure(request, why, one) from None
            except PassingFault as fault:
                why, wait, down = str(fault), self._wait(failed, fault.wait), fault.down
            if down and self._keeper and await asyncio.to_thread(self._keeper.revive, starts):
                wait = 0.0
                continue
            failed += 1
            if failed >= tries:
                why = f"no answer, asked {failed} times; the last time: {why}"
                raise self._failure(request, why, one)
            if down and pool.failed(one, why):
                wait = 0.0
            elif not self._warned:
                self._warned = True
                line = f"{one.name}: {why}; asked again in {wait:.0f} s, {tries - 1} times at most"
                events.put(_Line(without_key(self._server, line)))

    async def _post(self, one: Endpoint[httpx2.AsyncClient], request: Question, body: bytes) -> Got:
        one.under_way += 1
        try:
            reply = await send(one.client, self._server.timeout_seconds, PATH, body)
        finally:
            one.under_way -= 1
        return self._read(request, reply)

    def _wait(self, attempt: int, wanted: float | None) -> float:
        """Seconds before the next try. Not all at once: a share of it is drawn."""
        if wanted is not None:
            return min(wanted, LONGEST_SERVER_WAIT) + self._jitter.uniform(0, FIRST_WAIT)
        most = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
        return self._jitter.uniform(most / 2, most)

    def _failure(
        self, request: Question, why: str, one: Endpoint[httpx2.AsyncClient]
    ) -> StageError:
        server = self._server
        return StageError(
            f"{self._name(request)}: {without_key(server, why)} ({server.field}.url={one.name}). "
            "Answers that came are kept: the same command resumes from them."
        )


async def _is_well(client: httpx2.AsyncClient) -> bool:
    """Whether an endpoint lists its models."""
    try:
        return (await send(client, LISTING_SECONDS, "models")).is_success
    except PassingFault:
        return False


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
