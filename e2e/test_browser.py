"""What users see: two or more tabs of a real Chromium, driven by Playwright."""

from __future__ import annotations

import re
import unittest

from playwright.sync_api import Locator, Page, expect

from browser import CUT_OFF, TwoTabs, keeps_screenshots, write
from streamlit_client import ROOT, Proxy, app, wait_for

COUNTER = (ROOT / "demo_counter.py").read_text()
CHAT = (ROOT / "demo_chat.py").read_text()
LONG_CHAT = CHAT + "server_state.setdefault('messages in Lobby', [('Ada', f'Line {i}.') for i in range(150)])\n"

# How far the chat's messages could be scrolled down.
BELOW = """box => {
    while (box && getComputedStyle(box).overflowY !== "auto") box = box.parentElement;
    return box.scrollHeight - box.clientHeight - box.scrollTop;
}"""

# The app's style stands last on the page: until it is there, a wide page has them in one row, too, but elsewhere.
IN_ONE_ROW = """buttons =>
    new Set(buttons.map(button => button.getBoundingClientRect().top)).size === 1
    && getComputedStyle(buttons[0].closest("[data-testid=stHorizontalBlock] > div")).flexGrow === "0"
"""


def name_user(page: Page, name: str) -> None:
    nickname = page.get_by_label("Nickname")
    nickname.fill(name)
    nickname.press("Enter")


def create_room(page: Page, name: str) -> None:
    room = page.get_by_label("New room")
    room.fill(name)
    room.press("Enter")
    expect(page.get_by_role("heading", name=name)).to_be_visible()


def count_of(page: Page) -> Locator:
    return page.get_by_test_id("stMetricValue")


class Counter(TwoTabs):
    @keeps_screenshots
    def test_by_mouse_and_keyboard(self) -> None:
        one, two = self.pair(COUNTER)
        for page in (one, two):
            expect(count_of(page)).to_have_text("0")
        for clicks in (1, 2, 3):
            one.get_by_role("button", name="Increment").click()
            for page in (one, two):
                expect(count_of(page)).to_have_text(str(clicks))
        two.get_by_role("button", name="Decrement").focus()
        two.keyboard.press("Enter")
        for page in (one, two):
            expect(count_of(page)).to_have_text("2")
        one.get_by_role("slider").focus()
        for level in range(51, 61):
            one.keyboard.press("ArrowRight")
            expect(one.get_by_role("slider")).to_have_value(str(level))
        for page in (one, two):
            expect(page.get_by_text("Everybody's level is 60.")).to_be_visible()
            expect(page.get_by_role("slider")).to_have_value("60")
        expect(one.get_by_role("slider")).to_be_focused()
        two.get_by_role("button", name="Reset").click()
        expect(count_of(one)).to_have_text("0")

    @keeps_screenshots
    def test_a_slider_that_is_dragged_stays_in_hand(self) -> None:
        one, two = self.pair(COUNTER)
        value = two.get_by_test_id("stSliderThumbValue")
        expect(value).to_have_text("50")
        thumb = value.locator("xpath=..").bounding_box()
        assert thumb is not None
        x, y = thumb["x"] + thumb["width"] / 2, thumb["y"] + thumb["height"] / 2
        two.mouse.move(x, y)
        two.mouse.down()
        for clicks in range(1, 11):
            two.mouse.move(x + 10 * clicks, y)
            expect(value).not_to_have_text("50")
            dragged = value.inner_text()
            one.get_by_role("button", name="Increment").click()
            expect(count_of(two)).to_have_text(str(clicks))
            self.assertEqual(value.inner_text(), dragged)
        two.mouse.up()
        for page in (one, two):
            expect(page.get_by_text(f"Everybody's level is {dragged}.")).to_be_visible()

    @keeps_screenshots
    def test_nothing_is_cut_off_and_nothing_moves(self) -> None:
        server = self.serve(COUNTER)
        writer = self.open(server)
        for page in self.sizes(server):
            expect(page.get_by_text("Everybody's level")).to_be_visible()
            self.assertEqual(page.evaluate(CUT_OFF), [])
            buttons = [page.get_by_role("button", name=name) for name in ("Decrement", "Increment", "Reset")]
            handles = [button.element_handle() for button in buttons]
            wait_for("three buttons in one row", lambda: page.evaluate(IN_ONE_ROW, handles))  # noqa: B023
            places = [page.get_by_role("button", name="Reset"), page.get_by_role("slider")]
            before = [place.bounding_box() for place in places]
            count = int(count_of(page).inner_text())
            writer.get_by_role("button", name="Increment").click()
            expect(count_of(page)).to_have_text(str(count + 1))
            self.assertEqual([place.bounding_box() for place in places], before)


class Chat(TwoTabs):
    @keeps_screenshots
    def test_a_half_typed_message_is_left_alone(self) -> None:
        one, two = self.pair(CHAT)
        typing = two.get_by_placeholder("Write to Lobby")
        typing.click()
        typing.press_sequentially("half a mess")
        for number in range(10):
            write(one, f"Message number {number}")
            expect(two.get_by_text(f"Message number {number}")).to_be_attached()
        create_room(one, "Tea")
        expect(two.get_by_text("Tea", exact=True)).to_be_visible()
        expect(typing).to_have_value("half a mess")
        expect(typing).to_be_focused()
        typing.press_sequentially("age")
        typing.press("Enter")
        expect(two.get_by_text("half a message")).to_be_visible()
        one.get_by_text("Lobby", exact=True).click()
        expect(one.get_by_text("half a message")).to_be_visible()

    @keeps_screenshots
    def test_half_typed_names_are_left_alone(self) -> None:
        one, two = self.pair(CHAT)
        for number, label in enumerate(("Nickname", "New room")):
            typing = two.get_by_label(label)
            typing.fill("")
            typing.press_sequentially("half a na")
            create_room(one, f"Room {number}")
            write(one, "Nobody is here")
            expect(two.get_by_text(f"Room {number}", exact=True)).to_be_visible()
            expect(typing).to_have_value("half a na")
            expect(typing).to_be_focused()

    @keeps_screenshots
    def test_rooms(self) -> None:
        one, two = self.pair(CHAT)
        expect(two.get_by_role("heading", name="Lobby")).to_be_visible()
        create_room(one, "Tea")
        expect(one.get_by_label("New room")).to_have_value("")
        expect(two.get_by_role("heading", name="Lobby")).to_be_visible()
        two.get_by_text("Tea", exact=True).click()
        expect(two.get_by_role("heading", name="Tea")).to_be_visible()
        write(one, "Milk first")
        expect(two.get_by_text("Milk first")).to_be_visible()

    @keeps_screenshots
    def test_a_long_history_opens_at_its_end_and_stays_where_it_is_read(self) -> None:
        one, two = self.pair(LONG_CHAT)
        last = two.get_by_text("Line 149.")
        expect(last).to_be_in_viewport()
        wait_for("the end of the history", lambda: last.evaluate(BELOW) < 5)
        read = two.get_by_text("Line 100.")

        def stays() -> bool:
            """Whether the list stays where it was scrolled to: it may still be on its way to its end."""
            read.scroll_into_view_if_needed()
            before = read.bounding_box()
            two.evaluate("new Promise(done => setTimeout(done, 500))")
            return before == read.bounding_box()

        wait_for("the list to be scrolled", stays)
        before = read.bounding_box()
        write(one, "One more")
        expect(two.get_by_text("One more")).to_be_attached()
        self.assertEqual(read.bounding_box(), before)
        expect(one.get_by_text("One more")).to_be_in_viewport()

    @keeps_screenshots
    def test_people_have_faces(self) -> None:
        one, two = self.pair(CHAT)
        for page, name in ((one, "Ada"), (two, "Grace")):
            name_user(page, name)
            write(page, f"I am {name}.")
        for page in (one, two):
            messages = page.get_by_test_id("stChatMessage")
            expect(messages).to_have_count(2)
            faces = messages.locator("> [aria-hidden=true]").all_inner_texts()
            self.assertEqual(len(set(faces)), 2, faces)
            expect(messages.nth(0)).to_contain_text(faces[0] + "Ada")
        for page, name in ((one, "Ada"), (two, "Grace")):  # one's own are told from others'
            expect(page.get_by_test_id("stChatMessage").filter(has_text="you")).to_have_text(
                re.compile(f"{name} · you")
            )

    @keeps_screenshots
    def test_nothing_is_cut_off_and_nothing_moves(self) -> None:
        server = self.serve(CHAT)
        writer = self.open(server)
        write(writer, "A long line that has to be wrapped on a phone, and averyverylongwordwithoutanyspaceinit" * 2)
        for number, page in enumerate(self.sizes(server)):
            expect(page.get_by_text("A long line")).to_be_visible()
            self.assertEqual(page.evaluate(CUT_OFF), [])
            places = [page.get_by_role("heading", name="Lobby"), page.get_by_test_id("stChatInput")]
            for place in places:
                expect(place).to_be_visible()
            before = [place.bounding_box() for place in places]
            write(writer, f"Message {number}")
            expect(page.get_by_text(f"Message {number}")).to_be_in_viewport()
            self.assertEqual([place.bounding_box() for place in places], before)


class Pages(TwoTabs):
    @keeps_screenshots
    def test_R3_scroll_position_stays(self) -> None:
        server = self.serve(app("counted"))
        one, two = self.open(server), self.open(server, "?lines=200")
        expect(two.get_by_text("line 199", exact=True)).to_be_attached()
        two.get_by_text("line 100", exact=True).scroll_into_view_if_needed()
        where = "() => document.querySelector('[data-testid=stMain], section.main').scrollTop"
        before = two.evaluate(where)
        self.assertGreater(before, 500)
        for value in range(1, 4):
            one.get_by_role("button", name="write").click()
            expect(two.get_by_text(f"x is {value}.")).to_be_attached()
        self.assertEqual(two.evaluate(where), before)

    @keeps_screenshots
    def test_R3_the_page_and_its_query_stay(self) -> None:
        first, second = app("first_page"), app("second_page")
        navigated = {"first_page.py": first, "second_page.py": second}
        for name, text, files, path in (
            ("st.navigation", app("navigation"), navigated, "second_page"),
            ("pages/", first, {"pages/second_page.py": second}, "second_page"),
        ):
            with self.subTest(name):
                server = self.serve(text, files)
                one, two = self.open(server), self.open(server, f"{path}?q=tea")
                for value in range(1, 3):
                    expect(two.get_by_text("query is tea.")).to_be_visible()
                    one.get_by_role("button", name="write").click()
                    for page in (one, two):
                        expect(page.get_by_text(f"x is {value}.")).to_be_visible()
                self.assertTrue(two.url.endswith(f"/{path}?q=tea"), two.url)

    @keeps_screenshots
    def test_R5_a_tab_that_was_cut_off_catches_up(self) -> None:
        server = self.serve(app("counted"))
        proxy = Proxy(server.port)
        self.addCleanup(proxy.close)
        one, two = self.open(server), self.open(server, port=proxy.port)
        expect(two.get_by_role("button", name="write")).to_be_visible()
        one.get_by_role("button", name="write").click()
        expect(two.get_by_text("x is 1.")).to_be_visible()
        expect(two.get_by_text("runs are 2.")).to_be_visible()
        proxy.cut()
        for value in range(2, 7):
            one.get_by_role("button", name="write").click()
            expect(one.get_by_text(f"x is {value}.")).to_be_visible()
        expect(two.get_by_text("x is 1.")).to_be_visible()
        proxy.restore()
        expect(two.get_by_text("x is 6.")).to_be_visible()
        expect(two.get_by_text("runs are 3.")).to_be_visible()  # once, for it was not rerun while away

    @keeps_screenshots
    def test_S2_saving_files(self) -> None:
        one, two = self.pair(app("saved"), {"other.py": "'old'\n"}, server__runOnSave="true")
        one.get_by_role("button", name="write").click()
        expect(two.get_by_text("x is 1.")).to_be_visible()
        lock = two.get_by_text("lock is").inner_text().split("lock is")[1]
        (self.server.folder / "other.py").write_text("'new'\n")
        expect(two.get_by_text("other is new")).to_be_visible()
        runs = two.get_by_text("runs are").inner_text()
        module = self.server.folder / "server_state.py"
        module.write_text(module.read_text() + "# saved\n")
        expect(two.get_by_text(runs, exact=True)).to_have_count(0)
        one.get_by_role("button", name="write").click()
        for page in (one, two):
            expect(page.get_by_text("x is 2.")).to_be_visible()
            self.assertEqual(page.get_by_text("lock is").inner_text().split("lock is")[1], lock)

    @keeps_screenshots
    def test_L3_however_a_lock_is_left(self) -> None:
        one, two = self.pair(app("left"))
        log: list[str] = []
        for how in ("rerun", "stop", "raise", "pass"):
            log.append(how)
            one.get_by_role("button", name=how).click()
            expect(two.get_by_text(f"log is {' '.join(log)}.", exact=True)).to_be_visible()
        log.append("pass")
        two.get_by_role("button", name="pass").click()  # the lock is free
        expect(one.get_by_text(f"log is {' '.join(log)}.", exact=True)).to_be_visible()

    @keeps_screenshots
    def test_R4_beside_fragments_that_run_by_the_clock(self) -> None:
        one, two = self.pair(app("clock"))
        for value in range(1, 6):
            one.get_by_role("button", name="write").click()
            for page in (one, two):
                expect(page.get_by_text(f"x is {value}.")).to_be_visible()
                expect(page.get_by_text(f"the clock shows {value}.")).to_be_visible()

        def ticks() -> int:
            return int(two.get_by_text("ticks are").inner_text().split("ticks are ")[1].split(",")[0])

        before = ticks()
        wait_for("the clock to go on", lambda: ticks() > before + 3)
        self.assertNotIn("Traceback", self.server.output())


if __name__ == "__main__":
    unittest.main()
