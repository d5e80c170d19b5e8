"""docs/images/words.png: `python docs/words_picture.py RUN SAMPLE [WORD]`, one sample of a run's
words.html with a word chosen."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

OUT = Path(__file__).parent / "images" / "words.png"


def main(run: str, sample: str, word: str = "") -> None:
    page_file = Path(run).resolve() / "words.html"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1100, "height": 1600}, device_scale_factor=1.1)
        page.goto(page_file.as_uri())
        article = page.locator(f'article[aria-label="{sample}"]')
        if word:
            article.locator("[role=option]").get_by_text(word, exact=True).first.hover()
        article.screenshot(path=OUT)
        browser.close()
    Image.open(OUT).convert("RGB").save(OUT, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
