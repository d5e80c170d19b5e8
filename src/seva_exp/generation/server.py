"""The engine that asks an OpenAI-compatible server: many questions under way at once, each asked
again after a fault that may pass, replies handed on as they come.

The requests run in an event loop on a thread of its own; a queue brings what they give.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import httpx2

from seva_exp.errors import StageError
from seva_exp.generation.chat import PATH, Chat, PassingFault, Refusal, reply_of
from seva_exp.generation.endpoint import JSON, client_options, transport_fault, without_key
from seva_exp.interfaces import Reply, Request
from seva_exp.machine import Server

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before a question is asked again; doubled each time, then drawn from the upper half."""
LONGEST_TOLD_WAIT = 600.0
"""Seconds to which a server's Retry-After is heeded."""


@dataclass(frozen=True)
class _End:
    """No more replies come; ``error``: why there are not all of them."""

    error: BaseException | None = None


Events = SimpleQueue[Reply | str | _End]
"""Replies, lines for a person, the end."""


class ServerEngine:
    """Asks ``server`` in the way of ``chat``. ``warn`` takes a line for a person."""

    def __init__(
        self, server: Server, chat: Chat, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self._server = server
        self._chat = chat
        self._warn = warn
        self._jitter = random.Random()  # decides when a question is asked, never its answer
        self._told = False

    def run(self, requests: Sequence[Request]) -> Iterator[list[Reply]]:
        """Yield replies as they come. Where a question is refused, or has no answer after all
        retries, the others under way are given up and StageError is raised; the replies that came
        before are yielded first."""
        events: Events = SimpleQueue()
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._work, args=(loop, requests, events), daemon=True)
        thread.start()
        try:
            end = None
            while end is None:
                replies, end = self._heard(events)
                if replies:
                    yield replies
            if end.error:
                raise end.error
        finally:  # also where the caller stops
            with suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(_cancel_all, loop)
            thread.join()

    def _heard(self, events: Events) -> tuple[list[Reply], _End | None]:
        """Waits for an event, and takes all that are there."""
        replies: list[Reply] = []
        event = events.get()
        with suppress(Empty):
            while not isinstance(event, _End):
                if isinstance(event, Reply):
                    replies.append(event)
                else:
                    self._warn(event)
                event = events.get_nowait()
            return replies, event
        return replies, None

    def _work(
        self, loop: asyncio.AbstractEventLoop, requests: Sequence[Request], events: Events
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

    async def _ask_all(self, requests: Sequence[Request], events: Events) -> None:
        waiting = iter(requests)
        several = self._server.concurrency
        limits = httpx2.Limits(max_connections=several, max_keepalive_connections=several)
        client = httpx2.AsyncClient(**client_options(self._server), limits=limits)
        async with client, asyncio.TaskGroup() as group:
            for _ in range(several):
                group.create_task(self._ask_in_turn(client, waiting, events))

    async def _ask_in_turn(
        self, client: httpx2.AsyncClient, waiting: Iterator[Request], events: Events
    ) -> None:
        """One of several that share the iterator."""
        for request in waiting:
            body = await asyncio.to_thread(self._chat.body, request)
            events.put(await self._answer(client, request.id, body, events))

    async def _answer(
        self, client: httpx2.AsyncClient, id: str, body: bytes, events: Events
    ) -> Reply:
        """The reply, after as many retries as there may be."""
        retries, why, wait = self._server.retries, "", 0.0
        for attempt in range(retries + 1):
            await asyncio.sleep(wait)
            try:
                return await self._post(client, id, body)
            except Refusal as refusal:
                raise self._failure(id, f"the server refuses this question: {refusal}") from None
            except PassingFault as fault:
                why, wait = str(fault), self._wait(attempt, fault.wait)
            if not self._told and retries:
                self._told = True
                said = without_key(self._server, why)
                events.put(f"{self._server.url}: {said}; asked again, {retries} times at most")
        raise self._failure(id, f"no answer, asked {retries + 1} times; the last time: {why}")

    async def _post(self, client: httpx2.AsyncClient, id: str, body: bytes) -> Reply:
        seconds = self._server.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return reply_of(id, await client.post(PATH, content=body, headers=JSON))
        except TimeoutError:
            raise PassingFault(f"no reply within {seconds:g} s") from None
        except httpx2.RequestError as error:
            raise PassingFault(transport_fault(error)) from None

    def _wait(self, attempt: int, told: float | None) -> float:
        """Seconds before the next try. Not all at once: a share of it is drawn."""
        if told is not None:
            return min(told, LONGEST_TOLD_WAIT) + self._jitter.uniform(0, FIRST_WAIT)
        most = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
        return self._jitter.uniform(most / 2, most)

    def _failure(self, id: str, why: str) -> StageError:
        return StageError(
            f"sample {id}: {without_key(self._server, why)} (machine.server.url="
            f"{self._server.url}). Answers that came are kept: the same command goes on from them."
        )


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
