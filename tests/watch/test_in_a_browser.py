"""The page in headless Chromium: it follows a run, at every width, and complains of nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ..slow import slow_but
from .test_server import home, server

__all__ = ["home", "server"]
NASTY = "</script><img src=x onerror=document.body.dataset.hit=1>"


LOOKS = [f"{width}-{scheme}" for width in (1280, 400) for scheme in ("light", "dark")]


@pytest.mark.parametrize("look", slow_but(["1280-light", "400-dark"], of=LOOKS))
def test_it_follows_a_run(server, home, browser, look):
    width, scheme = look.split("-")
    home[2].warned(NASTY)
    context = browser.new_context(
        viewport={"width": int(width), "height": 900}, color_scheme=scheme
    )
    page, faults = context.new_page(), []
    page.on("console", lambda m: m.type in ("error", "warning") and faults.append(m.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(server.address)
    page.wait_for_selector("body[data-looked]", state="attached")
    assert page.inner_text("#count") == "2 runs, 1 at work"
    assert page.get_attribute(".detail progress", "value") == "4"
    assert page.locator(".stages li.running").inner_text().startswith("●\nalign")
    points = page.get_attribute(".curve polyline", "points").split()
    assert len(points) == 3 and page.locator(".pairs article").count() == 6
    home[2].logged("align", 3, {"step": 3, "loss": 0.1})
    page.wait_for_selector(".curve[data-points='4']")
    assert NASTY in page.inner_text(".log")
    assert page.evaluate("document.body.dataset.hit") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut"
    page.locator(".list button").nth(1).press("Enter")
    page.wait_for_selector("text=pope accuracy +3.0*")
    with context.expect_page() as opened:
        page.click("text=report.html")
    opened.value.wait_for_load_state()
    assert opened.value.title() == "report"
    if folder := os.environ.get("SEVA_EXP_PICTURES"):
        page.screenshot(path=Path(folder) / f"watch-{width}-{scheme}.png", full_page=True)
    assert faults == []
    context.close()
