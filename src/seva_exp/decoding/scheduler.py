"""The decoding loop: which rows come in, one forward pass at a time, which go out.

Which rows run together depends on the requests and the budget alone, never on time.

Shape legend: R rows, V vocabulary, T tokens of a step, A axes of positions.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

import torch
from torch import Tensor

from seva_exp.core.errors import is_out_of_memory
from seva_exp.core.interfaces import Reply, VisionLanguageModel
from seva_exp.decoding.budget import Budget, does_not_fit, even_alone
from seva_exp.decoding.choosing import Chooser
from seva_exp.decoding.cuda_graphs import RecordedSteps
from seva_exp.decoding.joining import Joining, Sides, features_for, sides_of
from seva_exp.decoding.kv_attention import (
    NAME,
    Decode,
    Layout,
    Prefill,
    Shape,
    Step,
)
from seva_exp.decoding.kv_cache import STEP, Extent, KVCache
from seva_exp.decoding.memory import PREFILL
from seva_exp.decoding.prefetch import PicturePrefetcher
from seva_exp.decoding.rows import PrefixGroup, Row
from seva_exp.decoding.table import StepTable, table_of
from seva_exp.models.attention import attends_by, attention_of
from seva_exp.models.transfer import put

PROMISED = 128
"""Tokens of an answer for which a row that comes in must find room; a longer one takes what is
free, or the place of the row with the fewest tokens."""
FILL = 3, 4
"""New rows come in when no more than this share of the last filling is left."""
STEPS = {"cuda": 8}
"""Most decode steps between two looks of the host at what was chosen, by device type; else it looks
after each, as where the device is the host."""
SURPLUS = 4
"""A step more for so many tokens of the mean answer: rows that ended run until the next look."""


class Scheduler:
    """One run over some requests. ``replies`` are those that were not handed out yet."""

    def __init__(
        self,
        vlm: VisionLanguageModel,
        ahead: PicturePrefetcher,
        most_rows: int,
        budget: Budget,
        chooser: Chooser,
        recorded: RecordedSteps | None = None,
    ) -> None:
        self.replies: list[Reply] = []
        self._vlm = vlm
        self._ahead = ahead
        self._each = 2 if ahead.contrasts else 1  # rows of an answer
        self._most_rows = max(most_rows, self._each)
        self._budget = budget
        self._chooser = chooser
        self._recorded = recorded
        self._steps_at_most = STEPS.get(vlm.device.type, 1)
        self._ended = self._ended_tokens = 0  # answers, and the tokens of them all
        self._over_blocks = attention_of(vlm).window_over_blocks
        self._begin()

    def _begin(self) -> None:
        if self._recorded:
            self._recorded.forget()
        self._cache = KVCache()
        self._queue: deque[PrefixGroup] = deque()  # the first ones' rows come in next
        self._rows: list[tuple[Row, PrefixGroup]] = []  # by slot
        self._groups: list[PrefixGroup] = []  # by slot
        self._layout: Layout | None = None
        self._sides: Sides | None = None
        self._full = 0
        self._filling = True

    @property
    def done(self) -> bool:
        """Whether every request has its reply."""
        return not (self._rows or self._queue or len(self._ahead))

    def taken(self) -> list[Reply]:
        """The replies, which are then handed out."""
        replies, self.replies = self.replies, []
        return replies

    @torch.inference_mode()
    def advance(self) -> None:
        """One forward pass: new rows where there is room, else a token of each row. If memory runs
        out, what runs is put back, to be done again within half the tokens. Raises StageError for
        a picture that takes all memory for itself."""
        left, of = FILL
        joining: list[Joining] = []
        try:
            if self._filling or len(self._rows) * of <= self._full * left:
                joining = self._admit()
                self._filling, self._full = bool(joining), len(self._rows)
            if joining:
                return self._prefill(joining)
            return self._decode() if self._rows else None
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if not self._held:
                raise even_alone(self._ahead.first) from error
        self._again()  # outside of the handler, which keeps the failed pass's tensors

    @property
    def _held(self) -> int:
        """Tokens for which there is room now, or must be."""
        return max(self._need().tokens, self._cache.extent.tokens)

    @property
    def _leading(self) -> list[Row]:
        """Those that run, without the rows beside them."""
        return [row for row, _ in self._rows if row.leads]

    def _again(self) -> None:
        used = self._held
        waiting = [row for group in self._queue for row in group.waiting]
        back = [row.request for row in [*self._leading, *waiting] if row.leads]
        self._begin()
        self._budget.halve(used)
        self._ahead.put_back(back)
        if self._vlm.device.type == "cuda":
            torch.cuda.empty_cache()

    # Coming in and going out

    def _admit(self) -> list[Joining]:
        """What the next pass takes in, in order. Raises StageError for a row that has no room even
        alone."""
        found: dict[PrefixGroup, Joining] = {}
        before = len(self._rows)
        fed, limit = 0, min(PREFILL, self._budget.tokens)
        need = self._need()
        while len(self._rows) + self._each <= self._most_rows and (group := self._next()):
            row = group.waiting[0]
            wider, groups = need, set[PrefixGroup]()
            for one, behind in row.together(group):
                new = behind.slot is None and behind not in groups
                groups.add(behind)
                fed += len(one.end) + (len(behind.ids) if new else 0)
                wider = wider.with_one(len(behind.ids) if new else 0, self._promised(one))
            if wider.tokens > self._budget.tokens and not self._rows:
                raise does_not_fit(row.request, wider.tokens, self._budget.tokens)
            if (found and fed > limit) or wider.tokens > self._budget.tokens:
                break
            need = wider
            for one, behind in row.together(group):
                self._join(one, behind, found)
        joining = list(found.values())
        self._rows[before:] = [(row, some.group) for some in joining for row in some.rows]
        return joining

    def _join(self, row: Row, group: PrefixGroup, found: dict[PrefixGroup, Joining]) -> None:
        """The row comes in, behind those of its prefix; a new one gets its slot."""
        if group not in found:
            found[group] = Joining(group, group.slot is None, [])
        if group.slot is None:
            group.slot = len(self._groups)
            self._groups.append(group)
        group.waiting.remove(row)
        found[group].rows.append(row)
        self._rows.append((row, group))
        self._layout = self._sides = None
        group.running += 1
        row.seed = self._chooser.seed_of(row.request.id)

    def _next(self) -> PrefixGroup | None:
        """The first group with a waiting row. A picture for which there is no memory waits until
        those that run have left."""
        while self._queue and not self._queue[0].waiting:
            self._queue.popleft()
        while not self._queue and len(self._ahead):
            try:
                self._queue.extend(self._ahead.take())
            except Exception as error:
                if not (self._rows and is_out_of_memory(error)):
                    raise
                break
            self.replies += self._ahead.unfit()
        return self._queue[0] if self._queue else None

    def _promised(self, row: Row) -> int:
        """Places of its own for which a row that comes in must find room."""
        return min(row.most, len(row.end) + (PROMISED if self._rows else 1))

    def _need(self, steps: int = 1) -> Extent:
        """For the next tokens of every row."""
        prefix = max((len(group.ids) for group in self._groups), default=0)
        longest = max((min(row.kept + steps, row.fed) for row, _ in self._rows), default=0)
        return Extent(len(self._groups), prefix, len(self._rows), longest)

    def _make_room(self) -> list[Extent]:
        """For the next tokens of every row; gives the room that each takes. If need be a prefix
        that only waiting rows need is given up, then rows are put back, those with the fewest
        tokens: the least work is done again, and the row with the most always ends. Where there is
        no room for one more token, it is made for several, since the buffers are then made anew."""
        fits, spare = self._budget.tokens, 0
        while (need := self._need()).longer(spare).tokens > fits:
            if idle := next((group for group in self._groups if not group.running), None):
                self._put_back(idle)
                continue
            row = min(reversed(self._leading), key=lambda row: row.kept)
            if len(self._rows) == self._each:
                raise does_not_fit(row.request, need.tokens, fits)
            self._ahead.put_back([row.request])
            self._leave(row)
            spare = self._spare() if len(self._rows) > 1 else 0
            self._full = len(self._rows)
        needs = [need]
        for steps in range(2, self._steps() + 1):
            if (more := self._need(steps)).tokens > fits:
                break
            needs.append(more)
        self._cache.fit(needs[-1], fits, self._most_rows)
        return needs

    def _steps(self) -> int:
        """Until the host looks: the more, the longer answers are, those that run counted in; it
        depends on nothing but them."""
        if self._steps_at_most == 1:
            return 1
        longest = max(row.limit - len(row.tokens) for row, _ in self._rows)
        answers = self._ended + len(self._rows)
        tokens = self._ended_tokens + sum(len(row.tokens) for row, _ in self._rows)
        return min(self._steps_at_most, longest, 1 + tokens // answers // SURPLUS)

    def _spare(self) -> int:
        """Places that rows may need beyond those of the next token, as far as buffers grow."""
        longest = max(row.kept + 1 for row, _ in self._rows)
        return max(0, min(STEP, max(row.most for row, _ in self._rows) - longest))

    def _put_back(self, idle: PrefixGroup) -> None:
        """Rows that wait for this prefix, which is given up; with them those that they are beside
        of, or have beside them."""
        waiting = [
            row.together(group) for group in self._queue for row in group.waiting if row.leads
        ]
        lost = [some for some in waiting if any(group is idle for _, group in some)]
        self._ahead.put_back([some[0][0].request for some in lost])
        for row, group in (one for some in lost for one in some):
            group.waiting.remove(row)
        self._queue = deque(group for group in self._queue if group.waiting)
        for group in [one for one in self._groups if not (one.running or one.waiting)]:
            self._give_up(group)

    def _leave(self, row: Row) -> None:
        """With the row beside it. The last row takes the place; a prefix that nobody needs is given
        up."""
        for one in (row, *([row.beside[0]] if row.beside else [])):
            slot, group = next((i, of) for i, (it, of) in enumerate(self._rows) if it is one)
            last = self._rows.pop()
            if slot < len(self._rows):
                self._rows[slot] = last
                self._cache.move(self._cache.own, len(self._rows), slot)
            self._layout = self._sides = None
            group.running -= 1
            if not group.running and not group.waiting:
                self._give_up(group)

    def _give_up(self, group: PrefixGroup) -> None:
        """Its prefix; the last one takes its place."""
        assert group.slot is not None
        self._layout = None
        other = self._groups.pop()
        if other is not group:
            self._groups[group.slot] = other
            self._cache.move(self._cache.prefixes, len(self._groups), group.slot)
            other.slot = group.slot
        group.slot = None

    # Forward passes

    def _prefill(self, joining: list[Joining]) -> None:
        """New prefixes and the ends of the questions behind them; each row's first token."""
        self._cache.fit(self._need(), self._budget.tokens, self._most_rows)
        ids: list[int] = []
        positions: list[Tensor] = []
        places: list[int] = []  # of T, where a first token is predicted
        ends: list[tuple[int, int, int]] = []  # place of T, row, place in it
        slot = before = len(self._rows) - sum(len(some.rows) for some in joining)
        for some in joining:
            if some.new:
                ids += some.group.ids
                positions.append(some.group.positions)
            for row in some.rows:
                ends += [(len(ids) + i, slot, i) for i in range(len(row.end))]
                ids += row.end
                positions.append(row.positions)
                places.append(len(ids) - 1)
                slot += 1
        found = self._put(torch.tensor(ends, dtype=torch.long).reshape(-1, 3).T)
        parts = [some.part for some in joining]
        ends_at, own, at = found
        fresh = slice(before, len(self._rows))
        step = Prefill(self._cache, parts, fresh, ends_at, own, at, self._over_blocks)
        pictures = [some.group.picture for some in joining if some.new and some.group.picture]
        logits = self._forward(
            torch.tensor([ids]),
            torch.cat(positions, dim=1),
            step,
            mm_encoder_outputs=features_for(self._vlm, pictures),
            logits_to_keep=self._put(torch.tensor(places)),
        )
        for picture in pictures:
            picture.used()
        rows = [row for some in joining for row in some.rows]
        draws = torch.tensor([[row.seed for row in rows], [len(row.tokens) for row in rows]])
        sides = sides_of(rows, self._vlm.device) if self._each > 1 else None
        self._take(rows, [self._choose(logits, *self._put(draws), sides=sides)])

    def _decode(self) -> None:
        """The next tokens of every row. From step to step nothing comes to the host."""
        needs = self._make_room()
        rows = [row for row, _ in self._rows]
        if self._layout is None:
            owners = [group.slot or 0 for _, group in self._rows]
            self._layout = Layout(owners, len(self._groups), self._vlm.device)
        if self._sides is None and self._each > 1:
            self._sides = sides_of(rows, self._vlm.device)
        layout = self._layout
        shapes = [self._shape(layout, need) for need in needs]
        unused = shapes[0].rows - len(rows)
        lines = table_of(self._rows, layout.owners, layout.places, unused)
        table, found = StepTable(self._put(lines)), list[Tensor]()
        for shape in shapes:
            if found:
                table.go_on(found[-1][0])
            inputs = table.lines, layout.members(shape)
            step = partial(self._step, shape, len(rows[0].positions))
            if self._recorded:
                logits = self._recorded(self._cache, shape, inputs, step)
            else:
                logits = step(*inputs)
            seeds, drawn = table.draws
            n = len(rows)
            found.append(self._choose(logits[:n], seeds[:n], drawn[:n], sides=self._sides))
        self._take(rows, found)

    def _choose(self, logits: Tensor, *draws: Tensor, sides: Sides | None) -> Tensor:
        """As the chooser, a row beside another one getting the same."""
        if sides is None:
            return self._chooser(logits, *draws)
        seeds, steps = (one[sides.lead] for one in draws)
        chosen = self._chooser(logits[sides.lead], seeds, steps, logits[sides.beside])
        return chosen[:, sides.answer]

    def _shape(self, layout: Layout, need: Extent) -> Shape:
        shape = layout.shape(need.prefix_length, need.row_length)
        return shape.rounded(self._cache.extent) if self._recorded else shape

    def _step(self, shape: Shape, axes: int, table: Tensor, members: Tensor) -> Tensor:
        """``table`` [9, R] as in StepTable; ``members`` [S, M]. A row that is not used sees nothing
        but itself, in a slot that is free."""
        ids, positions, at, _, _, before, owners, places, _ = table
        step = Decode(self._cache, shape, before, at, owners, places, members)
        return self._forward(ids[None], positions.expand(axes, -1), step)

    def _forward(self, ids: Tensor, positions: Tensor, step: Step, **more: Any) -> Tensor:
        """``ids`` [1, T], ``positions`` [A, T] in, float32 logits out."""
        with attends_by(self._vlm.model, NAME):
            out = self._vlm.model(
                input_ids=self._put(ids),
                position_ids=self._put(positions if len(positions) == 1 else positions[:, None]),
                step=step,
                use_cache=False,
                **more,
            )
        return out.logits[0].float()

    def _put(self, value: Tensor) -> Tensor:
        return put(value, self._vlm.device)

    def _take(self, rows: list[Row], found: list[Tensor]) -> None:
        """What was chosen for these rows, step by step. Those that are finished leave."""
        self._chooser.write(rows, found)
        for row in reversed(self._leading):
            if self._chooser.ended(row):
                self._ended += 1
                self._ended_tokens += len(row.tokens)
                # In this order: what runs out of memory in between is neither lost nor done twice.
                self.replies.append(self._ahead.reply(row.request, row.tokens, row.logprobs))
                self._leave(row)
