"""Texts that want to be more than text: for terminals, pages, logs and tables."""

from __future__ import annotations

import unicodedata

TERMINAL = [
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b]8;;http://x.y\x1b\\link\x1b]8;;\x1b\\",
    "\x9b31mC1", "bell\x07", "back\x08\x08\x08", "over\rwritten", "form\x0cfeed", "nul\x00nul",
    "del\x7f", "next\x85line", "line\u2028separator", "evil\nseva_exp: all good",
    "\x1bc", "\x1bP1$r\x1b\\",
]  # fmt: skip
BIDI = ["right\u202eleft", "\u2067isolated", "\u2066\u2069\u202d", "עברית 12 · a"]
HALVES = ["half\ud83d", "\udcff.png"]
PAGE = [
    "<script>window.hit=1</script>", "</script><script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>", '"><svg onload=window.hit=1>',
    "' onmouseover='window.hit=1",
    "</style><script>window.hit=1</script>", "<!--", "]]>", "javascript:window.hit=1", "{{ 7*7 }}",
    "{% raw %}", "${7*7}", "&lt;b&gt;", "<bdo dir=rtl>x</bdo>", "\\u003cscript>",
    "`${window.hit=1}`",
    "</title></textarea><script>window.hit=1</script>", "datum.hit", "a" * 1_000_000,
]  # fmt: skip
ALL = [*TERMINAL, *BIDI, *HALVES, *PAGE]


def steering(text: str) -> list[str]:
    """What of a text a terminal would obey, or a file cannot hold."""
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"] + [
        c for c in text if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF")
    ]
