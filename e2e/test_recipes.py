"""What users of the recipes see, in two or more tabs of Chromium, and what their servers log."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import unittest
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import streamlit as st
from playwright.sync_api import FloatRect, Locator, Page, TimeoutError, expect

from browser import CUT_OFF, TwoTabs, keeps_screenshots, write
from streamlit_client import ROOT, Proxy, Server, Tab, wait_for

RECIPES = ROOT / "recipes"
FILES = {"who_is_here": ["presence.py"], "webhook_asgi": ["webhook.py"]}

COUNT_THREADS = """
import threading
watchers = [thread for thread in threading.enumerate() if thread.name.startswith("presence ")]
st.text(f"{len(watchers)} at watch, {len(people)} here")
"""
HOLD = """
if st.button("hold"):
    import pathlib, time, server_state as module
    with module.server_state_lock["orders"]:
        pathlib.Path("held").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
"""


def until_seen(wanted: Locator, act: Callable[[], None]) -> None:
    """Do something with the mouse, again where the page was not ready to hear of it."""

    def acted() -> bool:
        act()
        with contextlib.suppress(TimeoutError):
            wanted.wait_for(state="attached", timeout=3_000)
        return wanted.count() > 0

    wait_for(str(wanted), acted)


def is_whole(page: Page) -> bool:
    return not page.evaluate(CUT_OFF)


class Recipes(TwoTabs):
    def recipe(self, name: str, more: str = "", **options: str) -> Server:
        """Serve a recipe, in a folder with what it needs alone; `more` is put at its end."""
        files = {file: (RECIPES / file).read_text() for file in FILES.get(name, [])}
        self.server = self.serve((RECIPES / f"{name}.py").read_text() + more, files, **options)
        return self.server

    def tabs_of(self, name: str, count: int = 2, path: str = "") -> list[Page]:
        server = self.recipe(name)
        pages = [self.open(server, path) for _ in range(count)]
        for page in pages:
            expect(page.get_by_role("main")).to_be_visible()
        return pages

    def settle(self, *pages: Page) -> None:
        """Wait until no page has been told of a new run for a second."""
        last: list[int] = []

        def is_quiet() -> bool:
            nonlocal last
            before, last = last, [self.runs_of[page] for page in pages]
            if before != last:
                pages[0].wait_for_timeout(1000)
            return before == last

        wait_for("all runs to end", is_quiet)

    def until(self, what: str, page: Page, condition: Callable[[], Any]) -> None:
        """Wait for something that the page's messages tell, and hear them meanwhile."""

        def look() -> Any:
            page.wait_for_timeout(50)
            return condition()

        wait_for(what, look)

    def assert_idle(self, *pages: Page, seconds: float = 2) -> None:
        self.settle(*pages)
        before = [self.runs_of[page] for page in pages]
        self.assertGreater(min(before), 0)
        pages[0].wait_for_timeout(1000 * seconds)
        self.assertEqual([self.runs_of[page] for page in pages], before)

    def assert_presentable(self, text: str, path: str = "") -> None:
        """At each size and colour all of it is in the window, and the log is clean."""
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        for color_scheme in schemes:
            page = self.open(self.server, path, width=1280, color_scheme=color_scheme)
            expect(page.get_by_text(text).first).to_be_visible()
            expect(page.get_by_test_id("stException")).to_have_count(0)
            for width in (1280, 400):
                page.set_viewport_size({"width": width, "height": 760})
                self.until("all to be in the window", page, functools.partial(is_whole, page))
        for word in ("Traceback", "Error", "Warning", "WARNING", "deprecated", "cause each other"):
            self.assertNotIn(word, self.server.output())

    @keeps_screenshots
    def test_shared_widgets(self) -> None:
        one, two = self.tabs_of("shared_widgets")
        sliders = [page.get_by_role("slider") for page in (one, two)]
        for slider in sliders:
            expect(slider).to_have_value("6")
        sliders[0].focus()
        for guests in range(7, 17):
            one.keyboard.press("ArrowRight")
            for page, slider in zip((one, two), sliders, strict=True):
                expect(slider).to_have_value(str(guests))
                expect(page.get_by_text(f"Guests at the table: {guests}. We serve Soup.")).to_be_visible()
        expect(sliders[0]).to_be_focused()

        notes = two.get_by_label("Notes")
        notes.press_sequentially("Half a no")
        one.get_by_text("We eat outside").click()
        expect(two.get_by_text("Guests outside: 16. We serve Soup.")).to_be_visible()
        one.get_by_role("combobox", name="Dishes").click()
        one.get_by_role("option", name="Pie").click()
        expect(two.get_by_text("Guests outside: 16. We serve Soup, Pie.")).to_be_visible()
        one.keyboard.press("Escape")
        expect(notes).to_have_value("Half a no")
        expect(notes).to_be_focused()
        notes.press_sequentially("te")
        notes.press("Control+Enter")
        expect(one.get_by_label("Notes")).to_have_value("Half a note")
        self.assert_idle(one, two)
        self.assert_presentable("Dinner on Friday")

    @keeps_screenshots
    def test_shared_widgets_at_once(self) -> None:
        one, two = self.tabs_of("shared_widgets")
        sliders = [page.get_by_role("slider") for page in (one, two)]
        for slider in sliders:
            expect(slider).to_have_value("6")
        tab = Tab(self.server)  # a click of its page sends the slider's old value, as the new one is on its way
        self.addCleanup(tab.close)
        tab.values["Guests"] = ("double_array_value", 6)
        sliders[0].focus()
        one.keyboard.press("ArrowRight")
        tab.wait_for_text("Guests at the table: 7.")
        tab.put("We eat outside", "bool_value", True)
        for page, slider in zip((one, two), sliders, strict=True):
            expect(page.get_by_text("Guests outside: 7.")).to_be_visible()
            expect(slider).to_have_value("7")
        for slider in sliders:
            slider.focus()
        for wait in (0, 50, 100, 200):
            for _ in range(6):  # both move the same one
                one.keyboard.press("ArrowRight")
                two.keyboard.press("ArrowRight")
                two.wait_for_timeout(wait)
                two.keyboard.press("ArrowRight")
            self.settle(one, two)
            self.assertEqual(sliders[0].input_value(), sliders[1].input_value())
            for page in (one, two):
                expect(page.get_by_text(f": {sliders[0].input_value()}. We")).to_be_visible()
        self.assert_idle(one, two)
        start = int(sliders[0].input_value())
        sliders[0].focus()
        for wait in range(0, 400, 40):  # and one alone, at any pace, loses no step to what its own steps draw
            one.keyboard.press("ArrowRight")
            one.wait_for_timeout(wait)
        for slider in sliders:
            expect(slider).to_have_value(str(start + 10))

    @keeps_screenshots
    def test_who_is_here(self) -> None:
        server = self.recipe("who_is_here")
        proxy = Proxy(server.port)
        self.addCleanup(proxy.close)
        one, two, three = self.open(server), self.open(server), self.open(server, port=proxy.port)
        for page, name in ((one, "Ada"), (two, "Ada"), (three, "*<b>Eve")):  # names may be equal, or odd
            box = page.get_by_label("Your name")
            box.fill(name)
            box.press("Enter")

        def shows(page: Page, *names: str) -> None:
            expect(page.get_by_test_id("stMetricValue")).to_have_text(str(len(names)))
            expect(page.get_by_text("• ")).to_have_text([f"• {name}" for name in names])

        for page in (one, two, three):
            shows(page, "Ada", "Ada", "*<b>Eve")
        self.assert_idle(one, two, three, seconds=10)

        two.get_by_text("Kitchen").click()
        shows(two, "Ada")
        for page in (one, three):
            shows(page, "Ada", "*<b>Eve")
        box = two.get_by_label("Your name")
        before = self.runs_of[one]
        box.fill("  ")
        box.press("Enter")
        shows(two, "Somebody")
        self.assertEqual(self.runs_of[one], before)  # it no longer shows that room
        two.get_by_text("Lobby").click()
        shows(one, "Ada", "*<b>Eve", "Somebody")

        proxy.cut()
        shows(one, "Ada", "Somebody")
        proxy.restore()
        shows(one, "Ada", "Somebody", "*<b>Eve")
        shows(three, "Ada", "Somebody", "*<b>Eve")

        three.context.close()
        self.pages.remove(three)
        shows(one, "Ada", "Somebody")
        two.reload()
        expect(two.get_by_label("Your name")).to_have_value(re.compile("Guest"))
        shows(one, "Ada", two.get_by_label("Your name").input_value())
        self.assert_presentable("Who is here?")

    @keeps_screenshots
    def test_who_is_here_when_files_are_saved(self) -> None:
        server = self.recipe("who_is_here", COUNT_THREADS, server__runOnSave="true")
        page = self.open(server)
        module = server.folder / "presence.py"
        for _ in range(3):
            expect(page.get_by_text("1 at watch, 1 here")).to_be_visible()
            self.settle(page)
            self.runs_of[page] = 0
            module.write_text(module.read_text() + "# saved\n")
            self.until("a run of what was saved", page, lambda: self.runs_of[page])
        other = self.open(server)
        expect(page.get_by_text("1 at watch, 2 here")).to_be_visible()
        other.context.close()
        self.pages.remove(other)
        expect(page.get_by_text("1 at watch, 1 here")).to_be_visible()

    @keeps_screenshots
    def test_stream_to_all(self) -> None:
        one, two, three = self.tabs_of("stream_to_all", 3)
        question = "*Why* <b>not?"
        write(one, question)

        def answer(page: Page, number: int = 0) -> str:
            return page.get_by_test_id("stChatMessage").nth(2 * number + 1).inner_text()

        for page in (one, two):
            expect(page.get_by_text(question, exact=True)).to_be_visible()
            expect(page.get_by_text("Word by word.").first).to_be_visible()
            before = answer(page)
            expect(page.get_by_test_id("stChatMessage").nth(1)).not_to_have_text(before)
        two.get_by_placeholder("Ask").press_sequentially("Half a ques")
        before = answer(two)
        wait_for("the answer to grow", lambda: len(answer(two)) > len(before))
        expect(two.get_by_placeholder("Ask")).to_have_value("Half a ques")
        two.get_by_role("button", name="Stop").click()
        for page in (one, two, three):
            expect(page.get_by_role("button", name="Stop")).to_have_count(0)
        self.assert_idle(one, two, three)
        self.assertEqual(answer(one), answer(two))
        self.assertLess(len(answer(one)), 600)

        two.get_by_placeholder("Ask").press_sequentially("tion")
        two.get_by_placeholder("Ask").press("Enter")  # two at once, and one of those who asked leaves
        write(three, "Another one")
        expect(one.get_by_role("button", name="Stop")).to_have_count(2)
        three.context.close()
        self.pages.remove(three)
        expect(one.get_by_role("button", name="Stop")).to_have_count(0)
        self.assert_idle(one, two)
        for page in (one, two):
            for number in (1, 2):
                self.assertEqual(answer(page, number).count("Word by word."), 60)
        self.assert_presentable("Half a question")

    @keeps_screenshots
    def test_one_at_a_time(self) -> None:
        one, two = self.tabs_of("one_at_a_time")
        write(one, "A *cat*")
        expect(two.get_by_text("At work: A *cat*", exact=True)).to_be_visible()
        expect(one.get_by_text("At work: A *cat* (yours)")).to_be_visible()
        write(two, "A dog")
        expect(one.get_by_text("In place 1: A dog", exact=True)).to_be_visible()
        expect(two.get_by_text("In place 1: A dog (yours)")).to_be_visible()
        one.context.close()
        self.pages.remove(one)
        two.get_by_placeholder("What").press_sequentially("Half a wi")
        bar = two.get_by_role("progressbar")
        before = bar.get_attribute("aria-valuenow")
        self.until("progress", two, lambda: bar.get_attribute("aria-valuenow") != before)
        expect(two.get_by_text("Finished last: A *cat*")).to_be_visible()
        expect(two.get_by_text("At work: A dog (yours)")).to_be_visible()
        expect(two.get_by_text("Finished last: A dog")).to_be_visible()
        expect(two.get_by_placeholder("What")).to_have_value("Half a wi")
        self.assert_idle(two)
        self.assert_presentable("Finished last: A dog")

    @keeps_screenshots
    def test_load_once(self) -> None:
        server = self.recipe("load_once")
        with ThreadPoolExecutor(20) as pool:
            tabs = list(pool.map(lambda _: Tab(server), range(20)))
        for tab in tabs:
            self.addCleanup(tab.close)
            tab.wait_for_text("4 words, says the model that was loaded at")
        self.assertEqual(server.output().count("Loading the model"), 1)
        one, two = self.open(server), self.open(server)
        answer = two.get_by_text("says the model")
        old = answer.inner_text().split()[-1]
        one.get_by_role("button", name="Load it again").click()
        expect(one.get_by_text("Loading; the others use the old one")).to_be_visible()
        two.get_by_label("Count the words of").fill("One two")
        two.get_by_label("Count the words of").press("Control+Enter")
        expect(answer).to_have_text(f"2 words, says the model that was loaded at {old}")
        expect(answer).not_to_contain_text(old)
        new = answer.inner_text().split()[-1]
        expect(one.get_by_text(f"4 words, says the model that was loaded at {new}")).to_be_visible()
        for tab in tabs:
            tab.wait_for_text(f"loaded at {new}")
        self.assertEqual(server.output().count("Loading the model"), 2)
        self.assert_idle(one, two)
        self.assert_presentable("says the model")

    @keeps_screenshots
    def test_turns(self) -> None:
        room = "?room=%3Cb%3E+*tea*%26%C3%A9"
        one, two, three = self.tabs_of("turns", 3, room)

        def board(page: Page) -> str:
            fields = [page.locator(f".st-key-field-{field} button").inner_text() or " " for field in range(9)]
            return "".join(fields)

        def field(page: Page, number: int) -> Locator:
            return page.locator(f".st-key-field-{number} button")

        for page in (one, two, three):
            expect(page.get_by_text("You watch; ✕ is to move.")).to_be_visible()
        one.get_by_role("button", name="Play").click()
        expect(one.get_by_text("You are ✕; ✕ is to move.")).to_be_visible()
        two.get_by_role("button", name="Play").click()
        expect(two.get_by_text("You are ◯; ✕ is to move.")).to_be_visible()
        expect(three.get_by_role("button", name="Play")).to_have_count(0)
        for turn, number in enumerate((4, 0, 2, 6, 3)):
            player, other = (one, two) if turn % 2 == 0 else (two, one)
            for page in (other, three):
                expect(field(page, number)).to_be_disabled()
            field(player, number).click()
            for page in (one, two, three):
                expect(field(page, number)).to_have_text("✕◯"[turn % 2])
        two.reload()
        expect(two.get_by_text("You are ◯; ◯ is to move.")).to_be_visible()
        field(two, 8).click()
        expect(field(one, 8)).to_have_text("◯")
        field(one, 5).click()
        for page in (one, two, three):
            expect(page.get_by_text("✕ has won.")).to_be_visible()
            self.assertEqual(board(page), "◯ ✕✕✕✕◯ ◯")
        self.assert_idle(one, two, three)
        two.get_by_role("button", name="Play again").click()
        expect(two.get_by_text("You are ✕; ✕ is to move.")).to_be_visible()
        expect(one.get_by_text("You are ◯; ✕ is to move.")).to_be_visible()
        expect(three.get_by_text("You watch; ✕ is to move.")).to_be_visible()
        link = three.get_by_test_id("stCode").inner_text().strip()
        self.assertTrue(link.endswith(f"{self.server.port}?room=%3Cb%3E%20%2Atea%2A%26%C3%A9"), link)
        self.assert_presentable("You watch; ✕ is to move.", room)

    @keeps_screenshots
    def test_turns_are_taken_once(self) -> None:
        """Three press "Play" at once, and a field is clicked twice; only what was possible happened."""
        pages = self.tabs_of("turns", 3, "?room=tea")
        buttons = [page.get_by_role("button", name="Play") for page in pages]
        for button in buttons:
            expect(button).to_be_visible()
        for button in buttons:
            button.evaluate("button => button.click()")
        self.settle(*pages)
        texts = sorted(page.get_by_test_id("stAlert").inner_text() for page in pages)
        self.assertEqual(texts, ["You are ◯; ✕ is to move.", "You are ✕; ✕ is to move.", "You watch; ✕ is to move."])
        crosses = next(page for page in pages if "You are ✕" in page.get_by_test_id("stAlert").inner_text())
        for number in (0, 1):
            crosses.locator(f".st-key-field-{number} button").evaluate("button => button.click()")
        for page in pages:
            expect(page.get_by_test_id("stAlert")).to_contain_text("◯ is to move.")
        self.settle(*pages)
        for page in pages:
            self.assertEqual(page.get_by_role("button", name="✕").count(), 1)

    @unittest.skipUnless("ignore" in (st.data_editor.__doc__ or ""), 'on_change="ignore" came with 1.66')
    @keeps_screenshots
    def test_shared_table(self) -> None:
        one, two, three = self.tabs_of("shared_table", 3)

        def rows(page: Page) -> list[str]:
            cells = page.locator("[data-testid=data-grid-canvas] tbody tr")
            return [" ".join(row.locator("td").all_inner_texts()).strip() for row in cells.all()]

        def has(page: Page, expected: tuple[str, ...]) -> bool:
            return rows(page) == list(expected)

        def show(*expected: str) -> None:
            for page in (one, two, three):
                try:
                    wait_for("rows", functools.partial(has, page, expected))
                except AssertionError:
                    self.assertEqual(rows(page), list(expected))

        def edit(page: Page) -> None:
            page.get_by_role("button", name="Edit").click()
            expect(page.get_by_role("button", name="Save")).to_be_visible()

        def save(page: Page) -> None:
            page.get_by_role("button", name="Save").click()
            expect(page.get_by_role("button", name="Edit")).to_be_visible()

        def editor(page: Page) -> FloatRect:
            """Wait until the editor, not the table before it, is drawn where it stays."""
            expect(page.locator("td[aria-readonly=false]").first).to_be_attached()
            canvas = page.get_by_test_id("data-grid-canvas")
            before = None
            while (box := canvas.bounding_box()) is None or box != before:
                before = box
                page.wait_for_timeout(100)
            return box

        def type_into(page: Page, row: int, column: int, text: str) -> None:
            box, typing = editor(page), page.locator("#portal").locator("textarea, input")
            x, y = box["x"] + (150 if column == 0 else box["width"] - 60), box["y"] + 35 * row + 52
            until_seen(typing, lambda: page.mouse.dblclick(x, y))
            typing.fill(text)
            expect(typing).to_have_value(text)

        show("Bread 2", "Tea 1")
        edit(one)
        edit(two)
        type_into(two, 0, 1, "5")  # while two is typing, one saves two cells and a new row
        type_into(one, 1, 0, "Green tea")
        one.keyboard.press("Enter")
        type_into(one, 0, 0, "White bread")
        one.keyboard.press("Enter")
        type_into(one, 2, 0, "Milk")
        one.keyboard.press("Enter")
        save(one)
        wait_for("three", lambda: rows(three) == ["White bread 2", "Green tea 1", "Milk"])
        self.settle(one, two, three)
        expect(two.locator("#portal").locator("textarea, input")).to_have_value("5")
        two.keyboard.press("Enter")
        save(two)
        show("White bread 5", "Green tea 1", "Milk")

        edit(one)
        edit(two)
        type_into(one, 1, 1, "7")
        save(one)  # at once, with the cell still open
        type_into(two, 1, 1, "8")
        two.keyboard.press("Enter")
        save(two)
        expect(two.get_by_text("Somebody has written 7, where you wrote 8.")).to_be_visible()
        show("White bread 5", "Green tea 7", "Milk")

        def delete(page: Page, row: int) -> None:
            box, before = editor(page), rows(page)
            x, y = box["x"] + 15, box["y"] + 35 * row + 52
            until_seen(page.locator("tr[aria-selected=true]"), lambda: page.mouse.click(x, y))
            page.keyboard.press("Delete")
            wait_for("the row to go", lambda: len(rows(page)) < len(before))

        edit(one)
        edit(two)
        delete(one, 0)
        save(one)
        type_into(two, 0, 1, "9")  # what another has deleted comes back with what was typed
        two.keyboard.press("Enter")
        delete(two, 2)
        save(two)
        show("Green tea 7", "White bread 9")
        self.assert_idle(one, two, three)
        self.assert_presentable("Shopping list")

    def post(self, sent: Any) -> tuple[int, Any]:
        data = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
        try:
            with urllib.request.urlopen(f"{self.server.url}/orders", data, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    @unittest.skipUnless(hasattr(st, "App"), "st.App came with 1.58")
    @keeps_screenshots
    def test_webhook(self) -> None:
        server = self.recipe("webhook_asgi")
        script = server.folder / "webhook.py"
        script.write_text(script.read_text() + HOLD)
        one, two = self.open(server), self.open(server)
        for page in (one, two):
            expect(page.get_by_text("No order yet")).to_be_visible()
        self.assertEqual(self.post({"item": "<b>*Tea*", "price": 3.5}), (200, {"item": "<b>*Tea*", "price": 3.5}))
        for page in (one, two):
            expect(page.get_by_test_id("stMetricValue").first).to_have_text("1")
            expect(page.locator("[data-testid=data-grid-canvas] td").first).to_have_text("<b>*Tea*")
        for sent in (
            b"no JSON",
            {"item": "Tea"},
            {"item": "Tea", "price": "dear"},
            [1],
            {"item": "Tea", "price": None},
        ):
            self.assertEqual(self.post(sent)[0], 400, sent)

        one.get_by_role("button", name="hold").click()
        wait_for("the lock to be held", (server.folder / "held").exists)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.post, {"item": "Milk", "price": 1})
            rate = two.get_by_test_id("stMetricValue").nth(1)
            for _ in range(2):  # the server goes on meanwhile
                before = rate.inner_text()
                expect(rate).not_to_have_text(before)
            self.assertFalse(answer.done())
            (server.folder / "go").touch()
            self.assertEqual(answer.result()[0], 200)
        for page in (one, two):
            expect(page.get_by_test_id("stMetricValue").first).to_have_text("2")
        self.assert_presentable("Rate of the euro")


if __name__ == "__main__":
    unittest.main()
