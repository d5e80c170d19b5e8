"""The endpoints of one server: which is asked next, and which is left out for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Client = TypeVar("Client")


@dataclass
class Endpoint(Generic[Client]):
    """One address, by ``name``: how it is asked, the questions that it has, and whether it is
    ``well``."""

    name: str
    client: Client
    under_way: int = 0
    well: bool = True
    told: bool = False


@dataclass
class Pool(Generic[Client]):
    """Of several endpoints, the one with the fewest questions is asked. One that fails is left out
    until ``look`` finds it well, which is tried after ``waits`` seconds, again and again; the first
    time ``tell`` is told. Where none is well, all are asked in turn."""

    endpoints: Sequence[Endpoint[Client]]
    look: Callable[[Client], Awaitable[bool]]
    waits: Callable[[int], float]
    tell: Callable[[str], None]
    _looking: set[asyncio.Task[None]] = field(default_factory=set)

    def next(self) -> Endpoint[Client]:
        """The one to ask."""
        well = [one for one in self.endpoints if one.well] or self.endpoints
        return min(well, key=lambda one: one.under_way)

    def failed(self, one: Endpoint[Client], why: str) -> bool:
        """Leave it out for now; whether others are left that are well."""
        several = len(self.endpoints) > 1
        if several and one.well:
            one.well = False
            task = asyncio.get_running_loop().create_task(self._until_well(one))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)
            if not one.told:
                one.told = True
                self.tell(f"{one.name}: {why}; it is left out until it answers, others go on")
        return several and any(other.well for other in self.endpoints)

    async def _until_well(self, one: Endpoint[Client]) -> None:
        number = 0
        while not one.well:
            await asyncio.sleep(self.waits(number))
            one.well = await self.look(one.client)
            number += 1

    def close(self) -> None:
        """Look at none any more."""
        for task in self._looking:
            task.cancel()
