"""Tables of runs for a terminal: as wide as it is and no wider."""

from __future__ import annotations

import re
import shutil
import textwrap
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest

from seva_exp.core.printable import one_line
from seva_exp.core.spec import Json
from seva_exp.runs.holdings import Holdings
from seva_exp.runs.listing import RunFolder
from seva_exp.runs.removal import bytes_of
from seva_exp.runs.scores import MainScore, main_scores

GAP = "  "
NARROWEST, WIDEST = 6, 24
"""Characters that a column keeps when a table has to become narrower, where its cells have so many;
what a word without a place to break it may ask for."""
FOLDED = ("name", "method", "views", "model", "tags")
LEFT_OUT = ("size", "pairs", "method", "model", "views", "tags")
"""Columns of the list of runs that a narrow terminal goes without, the first one first."""


def width() -> int:
    """Of the terminal, or what $COLUMNS says; 80 where neither tells."""
    return max(20, shutil.get_terminal_size((80, 24)).columns)


def size(bytes: float) -> str:
    """``3.1 GiB``."""
    for unit, power in (("TiB", 40), ("GiB", 30), ("MiB", 20)):
        if bytes >= 2**power:
            return f"{bytes / 2**power:.1f} {unit}"
    return f"{bytes / 2**10:.0f} KiB"


def cells(text: str) -> int:
    """How many columns of a terminal a line takes."""
    wide = sum(unicodedata.east_asian_width(one) in "WF" for one in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def cut(text: str, most: int) -> str:
    """``text`` in so many columns, what is left out shown as ``…``."""
    if cells(text) <= most:
        return text
    while text and cells(text) > most - 1:
        text = text[:-1]
    return f"{text}…"


_PIECE = re.compile(r".+?(?:[\s_+,/]+|-(?=[A-Za-z])|$)")


def folded(text: str, most: int) -> list[str]:
    """``text`` in lines of so many columns, broken behind blanks, ``_``, ``+``, ``,`` and ``/``; a
    piece that is wider alone is cut."""
    lines = [""]
    for piece in _PIECE.findall(text):
        if lines[-1] and cells((lines[-1] + piece).rstrip()) > most:
            lines.append("")
        lines[-1] += piece
    return [cut(line.rstrip(), most) for line in lines]


ENTRIES = ", "
MORE = "…"


def whole_entries(text: str, most: int) -> str:
    """As many of a list's entries as fit, the first at least; ``…`` stands for those left out."""
    entries = text.split(ENTRIES)
    for count in range(len(entries), 1, -1):
        found = ENTRIES.join([*entries[:count], *[MORE] * (count < len(entries))])
        if cells(found) <= most:
            return found
    return ENTRIES.join([entries[0], MORE]) if len(entries) > 1 else text


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Collection[int] = (),
    narrow: Collection[int] = (),
    most: int | None = None,
    listed: Collection[int] = (),
) -> str:
    """Columns as wide as their cells, those in ``right`` aligned to the right. Where a line would
    have more than ``most`` characters (the terminal's), entries are left out of the lists in
    ``listed``, and then cells in ``narrow`` are folded, the widest first."""
    lines = [[one_line(cell) for cell in row] for row in (header, *rows)]
    columns = list(zip(*lines, strict=True))
    room = (width() if most is None else most) - len(GAP) * (len(header) - 1)
    widths = _widths(columns, room, narrow, listed)

    def shown(row: Sequence[str]) -> str:
        parts = [
            folded(cell, widths[i])
            if i in narrow
            else [whole_entries(cell, widths[i]) if i in listed else cell]
            for i, cell in enumerate(row)
        ]
        return "\n".join(map(line, zip_longest(*parts, fillvalue="")))

    def line(row: Sequence[str]) -> str:
        found = []
        for i, text in enumerate(row):
            space = " " * (widths[i] - cells(text))
            found.append(space + text if i in right else text + space)
        return GAP.join(found).rstrip()

    rule = "-" * (sum(widths) + len(GAP) * (len(widths) - 1))
    return "\n".join([shown(lines[0]), rule, *map(shown, lines[1:])])


def _widths(
    columns: Sequence[Sequence[str]], room: int, narrow: Collection[int], listed: Collection[int]
) -> list[int]:
    """Of the columns, in ``room`` where they can be as narrow as that."""
    full = [max(map(cells, column)) for column in columns]
    least = least_widths(columns, narrow, listed)
    widths = list(full)
    for some in (listed, narrow):
        while sum(widths) > room and (wide := [i for i in some if widths[i] > least[i]]):
            widths[max(wide, key=lambda i: widths[i])] -= 1
    for i in listed:  # what whole entries do not fill
        widths[i] = max(cells(whole_entries(cell, widths[i])) for cell in columns[i])
    for i in narrow:
        widths[i] += max(0, min(full[i] - widths[i], room - sum(widths)))
    return widths


def least_widths(
    columns: Sequence[Sequence[str]], narrow: Collection[int], listed: Collection[int]
) -> list[int]:
    """Of each column what it cannot be narrower than."""

    def least(i: int, cell: str) -> int:
        if i in narrow:
            longest = max((cells(piece.rstrip()) for piece in _PIECE.findall(cell)), default=0)
            return min(max(longest, min(cells(cell), NARROWEST)), WIDEST)
        return cells(whole_entries(cell, 0) if i in listed else cell)

    return [max(least(i, cell) for cell in column) for i, column in enumerate(columns)]


@dataclass(frozen=True)
class Row:
    """One run in a list. Sizes are bytes: its ``folder``, what it stands on in the store (``size``,
    by the manifests, without drawn pictures), and what of that no other run does (``own``)."""

    run: RunFolder
    pairs: int | None
    scores: tuple[MainScore, ...]
    folder: int = 0
    size: int = 0
    own: int = 0
    findings: tuple[str, ...] = field(default=())

    @property
    def score(self) -> str:
        """The main scores, and whether they stand for anything."""
        void = ["no result"] if self.findings else []
        return ", ".join([*void, *(one.text for one in self.scores)])

    def to_json(self) -> Json:
        run, facts = self.run, self.run.facts
        return {
            "run": str(run.path),
            "name": run.name,
            "began": run.began.isoformat(),
            "state": run.state,
            "method": facts["method"],
            "views": list(facts["views"]),
            "model": facts["model"],
            "tags": run.tags,
            "pairs": self.pairs,
            "scores": [one.to_json() for one in self.scores],
            "no_result": list(self.findings),
            "bytes": {"folder": self.folder, "store": self.size, "own": self.own},
        }


def rows_of(runs: Sequence[RunFolder], holdings: Holdings | None) -> list[Row]:
    """Each with its sizes, where there is a store."""
    holders: dict[str, int] = {}
    for keys in holdings.by_run.values() if holdings else ():
        for key in keys:
            holders[key] = holders.get(key, 0) + 1
    known: dict[str, int] = {}
    return [_row(run, holdings, holders, known) for run in runs]


def _row(
    run: RunFolder, holdings: Holdings | None, holders: Mapping[str, int], known: dict[str, int]
) -> Row:
    report = run.report
    folder, whole, own = bytes_of(run.path), 0, 0
    for key in holdings.by_run.get(run.path, ()) if holdings else ():
        if key not in known:
            known[key] = sum(one.told_size for one in holdings.whole([key])) if holdings else 0
        whole += known[key]
        own += known[key] if holders[key] == 1 else 0
    return Row(
        run,
        report.pairs.kept if report and report.pairs else None,
        tuple(main_scores(report)) if report else (),
        folder,
        folder + whole,
        folder + own,
        tuple(one.text for one in report.findings if one.no_result) if report else (),
    )


def list_text(rows: Sequence[Row]) -> str:
    """The list for a person. What is the same for all stands once, above."""
    columns = {
        "date": [_date(row.run) for row in rows],
        "name": [row.run.name for row in rows],
        "method": [row.run.facts["method"] for row in rows],
        "views": ["+".join(row.run.facts["views"]) for row in rows],
        "model": [row.run.facts["model"] for row in rows],
        "tags": [" ".join(row.run.tags) for row in rows],
        "pairs": ["" if row.pairs is None else str(row.pairs) for row in rows],
        "scores": [row.score for row in rows],
        "state": [_state(row.run) for row in rows],
        "size": [size(row.own) for row in rows],
    }
    above = []
    for name in ("method", "model", "views", "tags"):
        if len(set(columns[name])) == 1 and (len(rows) > 1 or not columns[name][0]):
            value = columns.pop(name)[0]
            above += [f"{name} {one_line(value)}"] if value else []
    named = zip(columns["name"], columns.get("views", ()), strict=False)
    if all(view in name for name, view in named):  # they are told by the names
        columns.pop("views", None)
    left_out = []
    for name in LEFT_OUT:
        if _fits(columns):
            break
        if columns.pop(name, None) is not None:
            left_out.append(name)
    text = table(
        list(columns),
        list(zip(*columns.values(), strict=True)),
        _places(columns, "pairs", "size"),
        _places(columns, *FOLDED),
        listed=_places(columns, "scores"),
    )
    if left_out:
        text += f"\n{_filled('left out, --json has all', left_out)}"
    return f"{_filled('all of them', above)}\n{text}" if above else text


def _filled(about: str, names: Sequence[str]) -> str:
    """A line beside the list, in as many as it takes."""
    return textwrap.fill(f"{about}: {', '.join(names)}", width(), subsequent_indent="  ")


def _places(columns: Mapping[str, Sequence[str]], *names: str) -> list[int]:
    return [place for place, name in enumerate(columns) if name in names]


def _fits(columns: Mapping[str, Sequence[str]]) -> bool:
    """Whether the list, folded, is as narrow as the terminal."""
    shown = [(name, *map(one_line, values)) for name, values in columns.items()]
    least = least_widths(shown, _places(columns, *FOLDED), _places(columns, "scores"))
    return sum(least) + len(GAP) * (len(least) - 1) <= width()


def _date(run: RunFolder) -> str:
    this_year = run.began.year == datetime.now().year
    return run.began.strftime("%m-%d %H:%M" if this_year else "%Y-%m-%d")


def _state(run: RunFolder) -> str:
    """With the stage that is being made, and how much of it is there."""
    told = run.told
    if run.state == "running" and told and told.stage and told.total:
        return f"running {100 * told.done // told.total}%"
    return run.state
