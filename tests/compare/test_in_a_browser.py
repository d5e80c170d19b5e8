"""Both pages in headless Chromium: nothing fails, nothing is cut, sorting and filtering work with
the mouse and with the keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seva_exp.compare.files import write_comparison
from seva_exp.core.records import Delta, PairCounts, Report, Score, StageResult
from seva_exp.report.html import HtmlReport
from seva_exp.runs.events import Outcome, Plan, PlannedStage

CHARTS = ("chart-scores", "chart-against", "chart-heat", "chart-training")
SIZES = [(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")]


class Shown:
    """A page that was opened from disk without a network, and what it complained about."""

    def __init__(
        self,
        browser: Any,
        file: Path,
        width: int = 1280,
        scheme: str = "light",
        charts: tuple[str, ...] = CHARTS,
    ) -> None:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        self.page = context.new_page()
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: m.type in ("error", "warning") and self._note(m.text))
        self.page.on("pageerror", lambda error: self._note(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url[:60]))
        self.page.goto(file.as_uri())
        for chart in charts:
            self.drawn(f"#{chart}[data-drawn] svg")

    def drawn(self, selector: str) -> None:
        """Wait for it. (Playwright's waiting for a function needs the eval that the page's policy
        forbids.)"""
        self.page.wait_for_selector(selector, state="attached", timeout=120_000)

    def _note(self, text: str) -> None:
        self.faults.append(text)

    def models(self) -> list[str]:
        """The rows in sight, by the number of their model."""
        return self.page.eval_on_selector_all(
            "#runs tbody tr", "rows => rows.filter(r => !r.hidden).map(r => r.dataset.model)"
        )

    def cut(self) -> list[str]:
        """Texts of a drawing that reach out of it."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll('figure svg')].flatMap(svg => {
              const box = svg.getBoundingClientRect();
              return [...svg.querySelectorAll('text')].filter(text => {
                const own = text.getBoundingClientRect();
                return own.width && (own.left < box.left - 1 || own.right > box.right + 1
                  || own.top < box.top - 2 || own.bottom > box.bottom + 2);
              }).map(text => text.textContent);
            })"""
        )


@pytest.fixture
def sweep(make_run) -> Path:
    """A sweep over two fields with two seeds each, as a page."""
    grid = [(beta, step, seed) for beta in (0.1, 0.5) for step in (300, 800) for seed in (0, 1)]
    folders = [
        make_run(
            f"a_run_with_a_long_name_beta={beta}_step={step}_seed={seed}",
            seed=seed,
            right=0.6 + beta / 3 + step / 9000,
            dpo={"beta": beta},
            aug={"diffusion_noise": {"kind": "diffusion_noise", "step": step}},
        )
        for beta, step, seed in grid
    ]
    out = folders[0].parent / "compare.html"
    write_comparison(folders, out)
    return out


@pytest.mark.parametrize("width, scheme", SIZES)
def test_the_page_is_whole_at_every_width_in_light_and_dark(browser, sweep, width, scheme):
    shown = Shown(browser, sweep, width, scheme)
    page = shown.page
    assert shown.faults == []
    assert [url for url in shown.asked if not url.startswith(("file:", "data:"))] == []
    broken = "images => images.filter(i => !(i.complete && i.naturalWidth)).length"
    page.evaluate("Promise.all([...document.images].map(i => i.decode()))")
    assert page.eval_on_selector_all("img", "images => images.length") > 0
    assert page.eval_on_selector_all("img", broken) == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.cut() == []
    ink = "getComputedStyle(document.querySelector('#chart-heat .mark-text text')).fill"
    assert page.evaluate(ink) == {"light": "rgb(20, 24, 31)", "dark": "rgb(242, 244, 248)"}[scheme]


def test_the_table_sorts_by_mouse_and_by_keyboard(browser, sweep):
    shown = Shown(browser, sweep)
    head = shown.page.locator("#runs th", has_text="pope accuracy").first
    values = "rows => rows.map(r => Number(r.querySelector('td[data-column]').dataset.sort))"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    rising = shown.page.eval_on_selector_all("#runs tbody tr", values)
    assert rising == sorted(rising) and len(set(rising)) > 3
    head.get_by_role("button").focus()
    shown.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert shown.page.eval_on_selector_all("#runs tbody tr", values) == sorted(rising, reverse=True)
    beta = shown.page.locator("#runs th", has_text="beta").first
    beta.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "none"
    assert shown.models()[-1] == "0", "the base has no beta: what is missing comes last"
    beta.get_by_role("button").click()
    assert shown.models()[-1] == "0"


def test_filters_hold_for_the_table_and_the_plots(browser, sweep):
    shown = Shown(browser, sweep)
    page = shown.page
    assert len(shown.models()) == 9
    page.locator("#controls").get_by_label("beta").first.select_option("0.5")
    assert len(shown.models()) == 5, "four runs and the base"
    assert page.inner_text("#count") == "5 of 9 rows"
    shown.drawn("#chart-scores[data-drawn='5']")
    page.get_by_label("Find", exact=True).fill("seed=1 step=300")
    assert len(shown.models()) == 1
    shown.drawn("#chart-scores[data-drawn='1']")
    page.get_by_label("Find", exact=True).fill("no such run")
    shown.drawn("#chart-scores[data-drawn='0']")
    assert "Nothing to draw" in page.evaluate(
        "getComputedStyle(document.querySelector('figure.chart.empty'), '::after').content"
    )
    assert shown.faults == []


def test_metrics_are_chosen_with_the_keyboard(browser, sweep):
    shown = Shown(browser, sweep)
    page = shown.page
    before = page.locator("#runs thead th:visible").count()
    page.locator("#metrics summary").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Find a metric").fill("yes_rate")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.locator("#runs thead th:visible").count() == before + 1
    assert page.locator("#runs thead th", has_text="yes_rate").is_visible()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is seen"


def test_of_many_fields_a_few_are_shown_and_the_rest_chosen(browser, make_run):
    """Scores stay in sight where runs differ in more than a screen's width of config."""
    names = ("learning_rate", "lora_rank", "epochs", "lora_alpha", "warmup_ratio", "beta", "seed")
    folders = [make_run(f"r{i}", dpo={name: i + 1 for name in names}) for i in range(2)]
    out = folders[0].parent / "compare.html"
    write_comparison(folders, out)
    shown = Shown(browser, out, charts=())
    page = shown.page
    visible = "#runs thead th[data-field]:visible"
    assert page.locator("#runs thead th[data-field]").count() == len(names)
    assert page.locator(visible).count() == 5
    name = page.locator("#runs thead th[data-field][hidden]").first.text_content().strip()
    filter_of = page.locator("#controls label[data-field]", has_text=name).first
    assert not filter_of.is_visible()
    page.locator("#fields summary").click()
    page.locator("#fields li", has_text=name).locator("input").check()
    assert page.locator(visible).count() == 6 and filter_of.is_visible()
    assert shown.faults == []


def test_a_phone_sorts_by_a_list(browser, sweep):
    shown = Shown(browser, sweep, 400)
    shown.page.get_by_label("Sort by").select_option(label="beta, falling")
    assert shown.models()[0] in ("5", "6", "7", "8") and shown.models()[-1] == "0"


def test_the_plots_follow_metric_and_axis(browser, sweep):
    shown = Shown(browser, sweep)
    page = shown.page
    chart = "#chart-against[aria-label='{}']"
    shown.drawn(chart.format("pope accuracy ↑ against step"))
    page.select_option("#axis", "beta")
    shown.drawn(chart.format("pope accuracy ↑ against beta"))
    page.select_option("#metric", label="pope f1 ↑")
    shown.drawn(chart.format("pope f1 ↑ against beta"))
    shown.drawn("#chart-heat[aria-label='pope f1 ↑ by step and beta']")
    assert shown.faults == []


def test_a_training_of_one_step_is_a_point(browser, make_run):
    folders = [make_run("a"), make_run("b", dpo={"beta": 0.5})]
    for folder in folders:
        first = (folder / "metrics.jsonl").read_text().splitlines()[0]
        (folder / "metrics.jsonl").write_text(first + "\n")
    out = folders[0].parent / "compare.html"
    write_comparison(folders, out)
    shown = Shown(browser, out, charts=("chart-training",))
    assert shown.page.locator("#chart-training .mark-symbol.role-mark path").count() == 2
    assert shown.faults == []


@pytest.mark.parametrize("width, scheme", SIZES)
def test_a_run_s_report_is_whole_at_every_width_in_light_and_dark(browser, tmp_path, width, scheme):
    outcome = an_outcome(tmp_path)
    HtmlReport().finished(outcome)
    shown = Shown(browser, tmp_path / "report.html", width, scheme, charts=())
    assert shown.faults == [] and shown.cut() == []
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    rows = """rows => rows.map(row => {
      const box = row.getBoundingClientRect();
      return box.top + box.height / 2;
    })"""
    middles = shown.page.eval_on_selector_all(".pipeline li", rows)
    nodes = shown.page.eval_on_selector_all(".pipeline .node", rows)
    assert len(nodes) == 4
    assert [round(m - n) for m, n in zip(middles, nodes, strict=True)] == [0] * 4, (
        "every stage stands beside its node"
    )


def an_outcome(folder: Path) -> Outcome:
    names = ("samples", "answers.a_view_with_a_long_name_of_its_own", "pairs", "align")
    planned = tuple(
        PlannedStage(name, f"{i}" * 64, i == 0, inputs=names[:i]) for i, name in enumerate(names)
    )
    stages = tuple(
        StageResult(one.name, one.key, one.cached, 7.0 * i) for i, one in enumerate(planned)
    )
    deltas = tuple(
        Delta("shapes", split, "accuracy", 1.0, 0.5, 1.5, 0.01) for split in ("pope", "vqa")
    )
    scores = tuple(
        Score(model, "shapes", d.split, "accuracy", 90.0, 88.0, 92.0, 100, "seva_exp-shapes-v1")
        for d in deltas
        for model in ("base", "aligned")
    )
    counts = PairCounts(10, 6, {"equal": 4})
    report = Report(
        "k" * 64, "a_long_name_of_a_run", 0, str(folder), stages, counts, scores, deltas
    )
    plan = Plan("k" * 64, "a", 0, {"x": "y" * 300}, ("+aug=moco",), planned, folder)
    steps = tuple({"stage": "align", "step": i, "loss": 0.7 - i / 90} for i in range(1, 9))
    environment = {"device": "cpu", "commit": "0123456789" * 4 + "+changes", "python": "3.11.7"}
    return Outcome(plan, report, (), steps, {"align": {"steps": 8}}, environment)
