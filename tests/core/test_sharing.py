"""Pieces of one stage's work, shared by processes that may die."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from seva_exp.core.sharing import ClaimedPieces, Sharing, alive, is_held

SIZES = dict.fromkeys(range(8), 10)
WORKER = """
import sys, time
from pathlib import Path
from seva_exp.core.sharing import Sharing, alive
work, kill_at = Path(sys.argv[1]), int(sys.argv[2])
with alive(work / "parts", None) as rank:
    sharing = Sharing(work, rank, 3)
    done = 0
    while (taken := sharing.take({n: 1 for n in range(60)})).pieces:
        had = {row["piece"] for row in sharing.inherited(taken)}
        journal = sharing.journal()
        for piece in taken.pieces:
            if piece not in had:
                if done == kill_at:
                    print("here", flush=True)
                    time.sleep(600)
                journal.append([{"piece": piece, "by": rank}])
                done += 1
                time.sleep(0.01)
print(done)
"""


def of_three(work: Path, stack: ExitStack) -> list[Sharing]:
    """Three processes' parts; all of them live."""
    found = [Sharing(work, rank, 3) for rank in range(3)]
    found[0].begin()
    for rank in range(3):
        stack.enter_context(alive(work / "parts", rank))
    return found


def test_one_process_takes_all(tmp_path):
    (alone := Sharing(tmp_path)).begin()
    assert alone.take(SIZES) == ClaimedPieces(tuple(SIZES))
    assert alone.take(SIZES) == ClaimedPieces()
    alone.begin()
    assert alone.take(SIZES, most=25).pieces == (0, 1)
    assert alone.take(SIZES, most=25).pieces == (2, 3)


def test_what_one_that_died_had_is_another_s_with_its_journal(tmp_path):
    with ExitStack() as stack, ExitStack() as dies:
        one, two = Sharing(tmp_path, 0, 2), Sharing(tmp_path, 1, 2)
        one.begin()
        stack.enter_context(alive(tmp_path / "parts", 0))
        dies.enter_context(alive(tmp_path / "parts", 1))
        assert one.take(SIZES).pieces == (0, 1)
        assert two.take(SIZES).pieces == (2,)
        assert two.take(SIZES).pieces == (3,), "what it had before is done by that"
        two.journal().append([{"piece": 3}])
        assert one.take(SIZES).pieces == (4,)
        dies.close()
        taken = one.take(SIZES)
        assert taken == ClaimedPieces((3,), (1,))
        assert [*one.inherited(taken)] == [{"piece": 3}]
        assert [one.take(SIZES).pieces for _ in range(3)] == [(5,), (6,), (7,)]
        assert one.take(SIZES) == ClaimedPieces()


def test_the_last_waits_for_those_that_still_work(tmp_path):
    with ExitStack() as stack:
        one, two, _ = of_three(tmp_path, stack)
        assert one.take({0: 1}).pieces == (0,)
        found: list[ClaimedPieces] = []
        waiting = threading.Thread(target=lambda: found.append(two.take({0: 1})))
        waiting.start()
        waiting.join(0.6)
        assert waiting.is_alive(), "the other may die"
        assert one.take({0: 1}) == ClaimedPieces()
        waiting.join(120)
        assert found == [ClaimedPieces()]


def test_what_earlier_attempts_had_is_gathered(tmp_path):
    with ExitStack() as stack:
        for number, sharing in enumerate(of_three(tmp_path, stack)):
            sharing.journal().append([{"piece": number}])
    (later := Sharing(tmp_path)).begin(lambda row: row["piece"] != 1)
    assert [*later.before()] == [*later.rows()] == [{"piece": 0}, {"piece": 2}]
    with alive(tmp_path / "parts", None) as first, alive(tmp_path / "parts", None) as second:
        assert (first, second) == (0, 1)
        assert is_held(tmp_path / "parts" / "rank-1.lock")
    with alive(tmp_path / "parts", None) as third:
        assert third == 2, "no number is given twice: what its journal has is one process's"


def test_of_three_processes_two_are_killed_and_each_piece_is_done_once(tmp_path):
    """Between two pieces, so that nothing is done twice; whoever comes later takes part."""
    Sharing(tmp_path).begin()

    def started(kill_at: int) -> subprocess.Popen:
        words = [sys.executable, "-c", WORKER, str(tmp_path), str(kill_at)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    first = started(3)
    assert first.stdout.readline() == "here\n"
    second = started(2)
    assert second.stdout.readline() == "here\n"
    third = started(-1)
    time.sleep(0.5)
    for one in (first, second):
        one.kill()
        one.communicate()
    said, _ = third.communicate(timeout=240)
    assert int(said) == 60 - 3 - 2
    rows = [*Sharing(tmp_path).rows()]
    assert sorted(row["piece"] for row in rows) == [*range(60)]
    assert {row["by"] for row in rows} == {0, 1, 2}
