"""Make the README's picture from the real demos: `python make_picture.py` here, or `python e2e/make_picture.py`.

Two tabs of Chromium side by side. What is done in one of them is seen in both. Needs an emoji font (Debian's
`fonts-noto-color-emoji`), or the faces are empty boxes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect, sync_playwright

from chromium import launch
from streamlit_client import ROOT, Server

PICTURE = ROOT / ".github" / "two_tabs.gif"
LIMIT = 1_000_000  # bytes
WIDTH, HEIGHT = 600, 690  # of a tab
GAP = 12
POINTER = [(0, 0), (0, 25), (6, 19), (10, 28), (15, 26), (11, 18), (18, 18)]


class Film:
    """Frames of two tabs side by side, each with the milliseconds that it is shown."""

    def __init__(self) -> None:
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []
        self.zoom = 1.0
        self.pointer: tuple[float, float] | None = None

    def shoot(self, tabs: list[Page], duration: int) -> None:
        both = Image.new("RGB", (WIDTH * 2 + GAP, HEIGHT), "#8a8f98")
        for number, tab in enumerate(tabs):
            shot = Image.open(io.BytesIO(tab.screenshot(caret="initial")))
            both.paste(shot, (number * (WIDTH + GAP), 0))
        if self.pointer is not None:
            x, y = self.pointer
            ImageDraw.Draw(both).polygon([(x + dx, y + dy) for dx, dy in POINTER], fill="black", outline="white")
        if self.frames and both.tobytes() == self.frames[-1].tobytes():
            self.durations[-1] += duration
        else:
            self.frames.append(both)
            self.durations.append(duration)

    def move_to(self, tabs: list[Page], number: int, target: Locator) -> None:
        """Move the pointer to the middle of something in one of the tabs."""
        box = target.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        end = (number * (WIDTH + GAP) + x * self.zoom, y * self.zoom)
        start = self.pointer or (WIDTH / 2, HEIGHT * 0.9)
        for step in (0.35, 0.7, 0.9, 1.0):
            self.pointer = (start[0] + (end[0] - start[0]) * step, start[1] + (end[1] - start[1]) * step)
            self.shoot(tabs, 70)

    def save(self) -> None:
        # One palette for all frames, so that nothing flickers.
        sample = Image.new("RGB", (self.frames[0].width, HEIGHT * 3))
        for number, frame in enumerate((self.frames[0], self.frames[len(self.frames) // 3], self.frames[-1])):
            sample.paste(frame, (0, HEIGHT * number))
        palette = sample.quantize(255, dither=Image.Dither.NONE)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames]
        frames[0].save(PICTURE, save_all=True, append_images=frames[1:], duration=self.durations, loop=0, optimize=True)


@contextmanager
def two_tabs(browser: Browser, demo: str, zoom: float) -> Iterator[list[Page]]:
    server = Server((ROOT / demo).read_text(), client__toolbarMode="minimal")
    size: ViewportSize = {"width": round(WIDTH / zoom), "height": round(HEIGHT / zoom)}
    contexts = [browser.new_context(viewport=size, device_scale_factor=zoom) for _ in range(2)]
    tabs = [context.new_page() for context in contexts]
    try:
        for tab in tabs:
            tab.goto(server.url)
        yield tabs
    finally:
        for context in contexts:
            context.close()
        server.stop()


def film_counter(film: Film, tabs: list[Page]) -> None:
    values = [tab.get_by_test_id("stMetricValue") for tab in tabs]
    for value in values:
        expect(value).to_have_text("0")
    film.shoot(tabs, 900)
    count = 0
    for number, clicks in ((0, 3), (1, 2)):
        button = tabs[number].get_by_role("button", name="Increment")
        film.move_to(tabs, number, button)
        for _ in range(clicks):
            count += 1
            button.click()
            for value in values:
                expect(value).to_have_text(str(count))
            film.shoot(tabs, 500)
    film.shoot(tabs, 600)


def film_chat(film: Film, tabs: list[Page]) -> None:
    for tab, name in zip(tabs, ("Ada", "Grace"), strict=True):
        tab.get_by_test_id("stExpandSidebarButton").click()
        nickname = tab.get_by_label("Nickname")
        nickname.fill(name)
        nickname.press("Enter")
        tab.get_by_test_id("stSidebarCollapseButton").get_by_role("button").click()
        expect(nickname).not_to_be_in_viewport()
    film.shoot(tabs, 900)
    for number, text in ((0, "Hello from this tab!"), (1, "And mine shows it at once 🎉")):
        box = tabs[number].get_by_placeholder("Write to Lobby")
        film.move_to(tabs, number, box)
        box.click()
        for end in range(3, len(text) + 3, 3):
            box.press_sequentially(text[end - 3 : end])
            film.shoot(tabs, 80)
        film.shoot(tabs, 400)
        box.press("Enter")
        for tab in tabs:
            expect(tab.get_by_text(text)).to_be_visible()
            expect(tab.get_by_test_id("stStatusWidget")).to_have_count(0)
        film.shoot(tabs, 1200)
    film.shoot(tabs, 1500)


def main() -> None:
    film = Film()
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for demo, zoom, act in (("demo_counter.py", 1.2, film_counter), ("demo_chat.py", 1.0, film_chat)):
            film.zoom, film.pointer = zoom, None
            with two_tabs(browser, demo, zoom) as tabs:
                act(film, tabs)
        browser.close()
    film.save()
    size = PICTURE.stat().st_size
    assert size <= LIMIT, f"{PICTURE} has {size} bytes, {LIMIT} at most"
    print(f"{PICTURE.relative_to(ROOT)}: {len(film.frames)} frames, {size} bytes")


if __name__ == "__main__":
    main()
