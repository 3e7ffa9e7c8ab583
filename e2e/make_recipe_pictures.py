"""Make the pictures of recipes/README.md from the real recipes: `python make_recipe_pictures.py [recipe ...]`.

Each shows two tabs of Chromium side by side.
"""

from __future__ import annotations

import contextlib
import io
import sys
import urllib.request
from collections.abc import Callable

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from browser import write
from chromium import launch
from streamlit_client import ROOT, Server

RECIPES = ROOT / "recipes"
FILES = {"who_is_here": ["presence.py"], "webhook_asgi": ["webhook.py"]}
WIDTH, GAP = 480, 10
LIMIT = 60_000  # bytes


def shared_widgets(one: Page, two: Page) -> None:
    one.get_by_role("slider").focus()
    for _ in range(9):
        one.keyboard.press("ArrowRight")
    two.get_by_text("We eat outside").click()
    expect(one.get_by_text("Guests outside: 15")).to_be_visible()


def who_is_here(one: Page, two: Page) -> None:
    for page, name in ((one, "Ada"), (two, "Grace")):
        page.get_by_label("Your name").fill(name)
        page.get_by_label("Your name").press("Enter")
    expect(one.get_by_text("• Grace")).to_be_visible()


def stream_to_all(one: Page, two: Page) -> None:
    write(one, "Why is the sky blue?")
    expect(two.get_by_text("Word by word. Word by word.")).to_be_visible()


def one_at_a_time(one: Page, two: Page) -> None:
    write(one, "A cat in the rain")
    expect(two.get_by_text("A cat")).to_be_visible()
    write(two, "A dog with a hat")
    expect(one.get_by_text("A dog")).to_be_visible()


def load_once(one: Page, two: Page) -> None:
    for page in (one, two):
        expect(page.get_by_text("says the model")).to_be_visible()


def turns(one: Page, two: Page) -> None:
    two.goto(one.get_by_test_id("stCode").inner_text().strip())
    for page in (one, two):
        page.get_by_role("button", name="Play").click()
        expect(page.get_by_text("You are")).to_be_visible()
    for turn, field in enumerate((4, 0, 2, 6)):
        (one, two)[turn % 2].locator(f".st-key-field-{field} button").click()
        for page in (one, two):
            expect(page.locator(f".st-key-field-{field} button")).to_have_text("✕◯"[turn % 2])


def shared_table(one: Page, two: Page) -> None:
    one.get_by_role("button", name="Edit").click()
    expect(one.get_by_role("button", name="Save")).to_be_visible()


def webhook_asgi(one: Page, two: Page) -> None:
    for item, price in (("Tea", 3.5), ("Cake", 4.2), ("Coffee", 2.9)):
        order = f'{{"item": "{item}", "price": {price}}}'
        urllib.request.urlopen(one.url + "orders", order.encode()).close()
    for page in (one, two):
        expect(page.locator("[data-testid=data-grid-canvas] td").first).to_have_text("Coffee")


HEIGHTS: dict[Callable[[Page, Page], None], int] = {
    shared_widgets: 640,
    who_is_here: 560,
    stream_to_all: 620,
    one_at_a_time: 460,
    load_once: 560,
    turns: 600,
    shared_table: 420,
    webhook_asgi: 620,
}
TOP = 70  # of each page, where nothing is


def main() -> None:
    with sync_playwright() as playwright, contextlib.ExitStack() as stack:
        browser = launch(playwright)
        for act, height in HEIGHTS.items():
            name = act.__name__
            if sys.argv[1:] and name not in sys.argv[1:]:
                continue
            files = {file: (RECIPES / file).read_text() for file in FILES.get(name, [])}
            server = Server((RECIPES / f"{name}.py").read_text(), files, client__toolbarMode="minimal")
            stack.callback(server.stop)
            tabs = [browser.new_page(viewport={"width": WIDTH, "height": height}) for _ in range(2)]
            for tab in tabs:
                tab.goto(server.url)
                expect(tab.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
            act(*tabs)
            both = Image.new("RGB", (WIDTH * 2 + GAP, height - TOP), "#8a8f98")
            for number, tab in enumerate(tabs):
                tab.wait_for_timeout(300)  # what fades in
                shot = Image.open(io.BytesIO(tab.screenshot())).crop((0, TOP, WIDTH, height))
                both.paste(shot, (number * (WIDTH + GAP), 0))
                tab.close()
            picture = RECIPES / "pictures" / f"{name}.png"
            picture.parent.mkdir(exist_ok=True)
            both.quantize(64, dither=Image.Dither.NONE).save(picture, optimize=True)
            assert picture.stat().st_size <= LIMIT, f"{picture} has {picture.stat().st_size} bytes"
            print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size} bytes")
        browser.close()


if __name__ == "__main__":
    main()
