"""Pages in headless Chromium: no message, no request, no overflow on a phone, readable in the dark, sorting."""

import os
import shutil
from pathlib import Path

import pytest
from test_report_sweep import job

from litdiffusion.sweeps.page import write_sweep_report

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium, or CHROMIUM=PATH)")
CONTRASTS = """() => {
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const tags = "h1,h2,h3,p,a,dt,dd,td,th,li,figcaption,caption,summary,small,strong,code,mark";
  const found = [...document.querySelectorAll(tags)];
  const texts = [...document.querySelectorAll("svg text")].filter((node) => !node.closest(".tip"));
  return [
    ...found.map((node) => [node.tagName, ratio(light(parse(getComputedStyle(node).color)), light(ground(node)))]),
    ...texts.map((node) => ["text", ratio(light(parse(getComputedStyle(node).fill)), light(ground(node)))]),
  ];
}"""


@pytest.fixture(scope="module")
def pages(reported, tmp_path_factory) -> dict[str, Path]:
    """The pages of a run and of a sweep."""
    folder = tmp_path_factory.mktemp("pages") / "sweep"
    for name, value in (("lr-0.01_net-a", 1.5), ("lr-0.1_net-a", 1.25), ("lr-0.1_net-b", 10.0)):
        job(folder, name, "complete", value)
    job(folder, "lr-0.01_net-b", "failed", None, "the loss became non-finite at step 3")
    return {"run": reported / "report.html", "sweep": write_sweep_report(folder)}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, pages):
    """Opens a page in a new context; fails on a message of the console, an error, or a request to anything else."""
    heard, contexts = [], []

    def open_page(name: str, width: int = 1200, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        page, address = contexts[-1].new_page(), pages[name].as_uri()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("data:", address)) or heard.append(request.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert heard == []


@pytest.mark.parametrize("name", ["run", "sweep"])
def test_a_phone_needs_no_scrolling_sideways(name, opened):
    page = opened(name, width=390, is_mobile=True, device_scale_factor=2)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    free = "[...document.querySelectorAll('body *')].filter(node => !node.closest('.scroll, pre, svg'))"
    broad = f"{free}.filter(node => node.getBoundingClientRect().right > 391)"
    assert page.evaluate(f"{broad}.map(node => node.outerHTML.slice(0, 80))") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["run", "sweep"])
def test_all_texts_have_contrast(name, scheme, opened):
    page = opened(name, color_scheme=scheme)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    found = page.evaluate(CONTRASTS)
    assert len(found) > 50
    assert [pair for pair in found if pair[1] < 4.5] == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(ground[4:].partition(",")[0]) < 64) is (scheme == "dark")


def test_a_click_sorts_and_a_second_one_turns_round(opened):
    page = opened("sweep")
    column = (
        "[...document.querySelector('table.sortable').tBodies[0].rows].map(row => row.cells[{}].textContent.trim())"
    )
    place = (
        page.locator("table.sortable").first.locator("th").all_text_contents().index("samples/wasserstein_over_floor")
    )
    shown = ["1.250 ± 0.050", "1.500 ± 0.050", "10.000 ± 0.050", ""]  # as numbers, and what is missing comes last
    button = page.locator("table.sortable").first.locator("th button").nth(place)
    assert page.evaluate(column.format(place)) == shown
    button.click()
    assert page.evaluate(column.format(place)) == shown
    button.click()
    assert page.evaluate(column.format(place)) == [*shown[2::-1], ""]
    page.locator("table.sortable").first.locator("th button").first.press("Enter")
    assert page.evaluate(column.format(0))[0].startswith("job 1")


@pytest.mark.parametrize("name", ["run", "sweep"])
def test_everything_is_there_without_javascript(name, opened):
    page = opened(name, java_script_enabled=False)
    assert page.locator("section").count() >= 4
    for section in page.locator("section").all():
        assert section.is_visible()
    for figure in page.locator("figure:not(details figure)").all():
        assert figure.bounding_box()["height"] > 60
    assert page.locator("th button").count() == 0
    assert page.locator("svg.chart").count() >= 2


def test_the_pointer_shows_values(opened):
    page = opened("run")
    chart = page.locator("svg.chart").first
    tip = chart.locator(".tip").last
    assert not tip.is_visible()
    chart.locator(".strip").last.hover()
    assert tip.is_visible()
    assert "steps 4" in tip.text_content()
    assert "validation" in tip.text_content()


def test_who_wants_no_motion_gets_a_still(opened):
    shown, still = "document.querySelector('picture img').currentSrc", "document.querySelector('picture source').srcset"
    assert opened("run").evaluate(f"{shown} === {still}") is False
    assert opened("run", reduced_motion="reduce").evaluate(f"{shown} === {still}") is True


def test_pictures_load_and_print_fits(opened):
    page = opened("run")
    page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 100)")
    assert page.pdf(format="A4")[:4] == b"%PDF"
