"""The real App in a headless browser: clicks become lines of decisions.jsonl."""

from __future__ import annotations

import json
import time

import pytest

from curate import decisions
from curate.review import app

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-quic", "--no-first-run",
]  # fmt: skip
C, S = "images/scraped/circle", "images/scraped/square"


class Screen:
    """The App as a person uses it."""

    def __init__(self, page, dataset, workspace):
        self.page, self.dataset, self.log = page, dataset, workspace.decisions
        page.locator("[data-cy=looker]").first.wait_for(timeout=90_000)
        self.close_advertisement()

    def close_advertisement(self):
        popup = self.page.locator(".MuiPopover-root").get_by_text("Dismiss", exact=True)
        self.page.add_locator_handler(popup, lambda: popup.click())  # where it comes late
        try:
            popup.wait_for(timeout=5_000)
            popup.click()
        except Exception as error:
            if "Timeout" not in type(error).__name__:
                raise

    def lines(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def until(self, condition, what):
        deadline = time.monotonic() + 60
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within 60 s: {what}; the log is {self.lines()}")
            self.page.wait_for_timeout(100)

    def tile(self, reason):
        return self.page.locator("[data-cy=looker]").filter(has_text=reason).first

    def select(self, reason):
        """Tick the box of a picture; the grid may still be moving."""
        tile, box = self.tile(reason), None
        for _ in range(100):
            tile.wait_for()
            now = tile.bounding_box()
            if now is not None and now == box:
                break
            box = now
            self.page.wait_for_timeout(400)
        self.page.mouse.move(box["x"] + 40, box["y"] + 40)
        self.page.mouse.click(box["x"] + 14, box["y"] + 14)
        self.told("1 selected")

    def press(self, label):
        self.page.locator("[data-cy=panel-content-curate_bar]").get_by_text(label, exact=True).click()

    def told(self, words):
        self.page.get_by_text(words).wait_for(timeout=60_000)

    def decision(self, path):
        import fiftyone as fo

        return self.dataset.match(fo.ViewField("path") == path).values("decision")[0]


@pytest.fixture
def screen(shapes, chromium, free_port):
    from playwright.sync_api import sync_playwright

    dataset = app.push(
        shapes.workspace, manifest=shapes.manifest, findings=shapes.findings, predictions=shapes.predictions,
        queue=shapes.queue, decisions_log=decisions.read(shapes.workspace.decisions),
    )  # fmt: skip
    with app.serve(dataset, port=free_port), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1920, "height": 1000})
        page.goto(f"http://127.0.0.1:{free_port}/")
        yield Screen(page, dataset, shapes.workspace)
        browser.close()
    dataset.delete()


def test_clicks_on_buttons_are_decisions_at_once(screen):
    mistake, probe, path = "predicted square at 0.98", "random probe", f"{C}/03.png"

    screen.press("Drop")
    screen.told("No image is selected")
    assert screen.lines() == []

    screen.select(mistake)
    screen.press("Drop")
    screen.until(lambda: len(screen.lines()) == 1, "a line for Drop")
    (dropped,) = screen.lines()
    assert (dropped["path"], dropped["aspect"], dropped["value"]) == (path, "membership", "out")
    screen.told("1 image dropped.")
    screen.until(lambda: screen.decision(path) == "dropped", "the field of the sample")
    screen.tile(mistake).wait_for(state="detached")

    screen.press("Undo")
    screen.until(lambda: len(screen.lines()) == 2, "a line for Undo")
    assert screen.lines()[1]["ids"] == [dropped["decision_id"]]
    screen.until(lambda: screen.decision(path) is None, "the field after Undo")

    screen.select(mistake)
    screen.press("Relabel")
    form = screen.page.get_by_role("dialog")
    form.get_by_text("Relabel 1 image").wait_for()
    assert form.get_by_role("radio", checked=True).get_attribute("value") == "square"
    form.get_by_role("button", name="Execute").click()
    screen.until(lambda: len(screen.lines()) == 3, "a line for Relabel")
    relabelled = screen.lines()[2]
    assert (relabelled["path"], relabelled["aspect"], relabelled["value"]) == (path, "label", "square")
    screen.until(lambda: screen.decision(path) == "relabelled to square", "the field after Relabel")
    screen.tile(mistake).wait_for(state="detached")

    screen.select(probe)
    screen.press("Keep")
    screen.until(lambda: len(screen.lines()) == 4, "a line for Keep")
    assert (screen.lines()[3]["path"], screen.lines()[3]["value"]) == (f"{S}/00.png", "in")
    screen.tile(probe).wait_for(state="detached")

    screen.select("the same bytes as square/04.png")
    screen.press("Accept")
    screen.until(lambda: len(screen.lines()) == 5, "a line for Accept")
    assert screen.lines()[4]["value"] == {"in_favour_of": f"{S}/04.png"}


def test_the_window_of_one_image_goes_on_to_the_next(screen):
    screen.tile("predicted square at 0.98").click(position={"x": 60, "y": 60})
    screen.page.get_by_text("Explore", exact=True).wait_for()
    screen.page.get_by_text("Drop", exact=True).last.click()
    screen.until(lambda: len(screen.lines()) == 1, "a line for Drop")
    assert screen.lines()[0]["path"] == f"{C}/03.png"
    screen.page.locator("[data-cy=modal]").get_by_text("the same bytes as square/04.png").first.wait_for()
    screen.page.get_by_text("Keep", exact=True).last.click()
    screen.until(lambda: len(screen.lines()) == 2, "a line for Keep")
    assert (screen.lines()[1]["path"], screen.lines()[1]["value"]) == (f"{S}/05.png", "in")
