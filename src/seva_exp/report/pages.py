"""What our pages share: one stylesheet, one environment of templates, files written whole."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from seva_exp.core.printable import printable

if TYPE_CHECKING:
    from jinja2 import Template

ROOT = Path(__file__).parents[1]


def template(name: str) -> Template:
    """A page's template, by its path in the package; what is filled in is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(ROOT),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["e"] = lambda value: escape(shown(value))
    environment.globals["style"] = asset("report/style.css")
    return environment.get_template(name)


def shown(value: object) -> object:
    """What is filled in, printably: of data, and of text that was escaped already."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return value


@cache
def asset(name: str) -> Markup:
    """A file of the package that goes into a page as it is."""
    return Markup((ROOT / name).read_text(encoding="utf-8"))


def for_script(data: Any) -> Markup:
    """JSON that is safe between script tags, its texts printable."""
    text = json.dumps(_all_shown(data), separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _all_shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {_all_shown(name): _all_shown(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_all_shown(one) for one in value]
    return printable(value) if isinstance(value, str) else value
