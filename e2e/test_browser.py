"""What users see: two or more tabs of a real Chromium, driven by Playwright. Screenshots of failures are kept."""

from __future__ import annotations

import io
import os
import shutil
import unittest
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from streamlit_client import IMPORTS_AS_FILES_ARE_SAVED, ROOT, Proxy, RealServerCase, Server, wait_for

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FAILURES = Path(os.environ.get("E2E_FAILURES", "e2e-failures"))  # screenshots go here
PATIENCE = 20_000  # milliseconds that anything may take
expect.set_options(timeout=PATIENCE)

HEAD = """
import streamlit as st
from server_state import no_rerun, server_state, server_state_lock
"""
# A page that says how often its session ran, and lets a user write.
COUNTED = (
    HEAD
    + """
st.session_state.runs = st.session_state.get("runs", 0) + 1
with no_rerun:
    server_state.setdefault("runs", {})[st.session_state.setdefault("name", str(id(st.session_state)))] = (
        st.session_state.runs
    )

def write():
    with server_state_lock["x"]:
        server_state["x"] = server_state.get("x", 0) + 1

st.button("write", on_click=write)
st.markdown(f"x is {server_state.get('x', 0)}.")
st.markdown(f"runs are {st.session_state.runs}.")
"""
)


class Browser(RealServerCase):
    @classmethod
    def setUpClass(cls) -> None:
        assert CHROMIUM, "no Chromium found: apt-get install chromium, or set CHROMIUM to its path"
        playwright = sync_playwright().start()
        cls.addClassCleanup(playwright.stop)
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
        cls.browser = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        cls.addClassCleanup(cls.browser.close)

    def setUp(self) -> None:
        self.pages: list[Page] = []

    def _callTestMethod(self, method: Callable[[], None]) -> None:
        try:
            method()
        except BaseException:
            FAILURES.mkdir(exist_ok=True)
            for number, page in enumerate(self.pages):
                page.screenshot(path=FAILURES / f"{self._testMethodName}-{number}.png")
            raise

    def open(self, server: Server, path: str = "", port: int = 0) -> Page:
        context = self.browser.new_context(viewport={"width": 860, "height": 760})
        self.addCleanup(context.close)
        page = context.new_page()
        self.pages.append(page)
        page.goto(f"http://127.0.0.1:{port or server.port}/{path}")
        return page

    def pair(self, app: str, files: dict[str, str] | None = None, **options: str) -> tuple[Page, Page]:
        self.server = self.serve(app, files, **options)
        return self.open(self.server), self.open(self.server)

    def test_counter_by_mouse_and_keyboard(self) -> None:
        one, two = self.pair((ROOT / "demo_counter.py").read_text())
        for page in (one, two):
            expect(page.get_by_test_id("stMetricValue")).to_have_text("0")
        for clicks in (1, 2, 3):
            one.get_by_role("button", name="Increment").click()
            for page in (one, two):
                expect(page.get_by_test_id("stMetricValue")).to_have_text(str(clicks))
        two.get_by_role("button", name="Decrement").focus()
        two.keyboard.press("Enter")
        for page in (one, two):
            expect(page.get_by_test_id("stMetricValue")).to_have_text("2")
        one.get_by_role("slider").focus()
        one.keyboard.press("ArrowRight")
        one.keyboard.press("ArrowRight")
        for page in (one, two):
            expect(page.get_by_text("Everybody's level is 52.")).to_be_visible()
            expect(page.get_by_role("slider")).to_have_value("52")
        two.get_by_role("button", name="Reset").click()
        expect(one.get_by_test_id("stMetricValue")).to_have_text("0")

    def test_chat_leaves_a_half_typed_message_alone(self) -> None:
        one, two = self.pair((ROOT / "demo_chat.py").read_text())
        typing = two.get_by_placeholder("Write to Lobby")
        typing.click()
        typing.press_sequentially("half a mess")
        for number in range(10):
            writing = one.get_by_placeholder("Write to Lobby")
            writing.fill(f"Message number {number}")
            writing.press("Enter")
            expect(two.get_by_text(f"Message number {number}")).to_be_attached()
        expect(typing).to_have_value("half a mess")
        expect(typing).to_be_focused()
        typing.press_sequentially("age")
        typing.press("Enter")
        for page in (one, two):
            expect(page.get_by_text("half a message")).to_be_attached()

    def test_chat_rooms(self) -> None:
        one, two = self.pair((ROOT / "demo_chat.py").read_text())
        room = one.get_by_label("New room")
        room.fill("Tea")
        room.press("Enter")
        expect(one.get_by_role("heading", name="Tea")).to_be_visible()
        expect(two.get_by_role("heading", name="Lobby")).to_be_visible()
        two.get_by_text("Tea", exact=True).click()
        expect(two.get_by_role("heading", name="Tea")).to_be_visible()
        box = one.get_by_placeholder("Write to Tea")
        box.fill("Milk first")
        box.press("Enter")
        expect(two.get_by_text("Milk first")).to_be_visible()

    def test_picture(self) -> None:
        """Two tabs of the chat side by side. README_PICTURE=1 keeps it in .github/."""
        one, two = self.pair((ROOT / "demo_chat.py").read_text())
        for page, name in ((one, "Ada"), (two, "Grace")):
            nickname = page.get_by_label("Nickname")
            nickname.fill(name)
            nickname.press("Enter")
        said = [(one, "The file is one copy away."), (two, "And my tab shows it without a reload!")]
        for page, text in said:
            box = page.get_by_placeholder("Write to Lobby")
            box.fill(text)
            box.press("Enter")
            for other in (one, two):
                expect(other.get_by_text(text)).to_be_visible()
        shots = [Image.open(io.BytesIO(page.screenshot())) for page in (one, two)]
        both = Image.new("RGB", (shots[0].width * 2 + 16, shots[0].height), "#888888")
        both.paste(shots[0], (0, 0))
        both.paste(shots[1], (shots[0].width + 16, 0))
        if os.environ.get("README_PICTURE"):
            (ROOT / ".github").mkdir(exist_ok=True)
            both.quantize(128).save(ROOT / ".github" / "chat.png", optimize=True)

    def test_scroll_position_stays(self) -> None:
        one, two = self.pair(COUNTED + "for line in range(200):\n    st.text(f'line {line}')\n")
        expect(two.get_by_text("line 199", exact=True)).to_be_attached()
        two.get_by_text("line 100", exact=True).scroll_into_view_if_needed()
        where = "() => document.querySelector('[data-testid=stMain], section.main').scrollTop"
        before = two.evaluate(where)
        self.assertGreater(before, 500)
        for value in range(1, 4):
            one.get_by_role("button", name="write").click()
            expect(two.get_by_text(f"x is {value}.")).to_be_attached()
        self.assertEqual(two.evaluate(where), before)

    def test_the_page_and_its_query_stay(self) -> None:
        shown = HEAD + "st.markdown(f\"x is {server_state.get('x', 0)}. query is {st.query_params.get('q')}.\")\n"
        write = "st.button('write', on_click=lambda: server_state.update(x=server_state.get('x', 0) + 1))\n"
        navigation = (
            "import streamlit as st\n"
            "st.navigation([st.Page('home.py', default=True), st.Page('second.py', title='second')]).run()\n"
        )
        for name, app, files in (
            ("st.navigation", navigation, {"home.py": shown + write, "second.py": shown}),
            ("pages/", shown + write, {"pages/second.py": shown}),
        ):
            with self.subTest(name):
                server = self.serve(app, files)
                one, two = self.open(server), self.open(server, "second?q=tea")
                for value in range(1, 3):
                    expect(two.get_by_text("query is tea.")).to_be_visible()
                    one.get_by_role("button", name="write").click()
                    for page in (one, two):
                        expect(page.get_by_text(f"x is {value}.")).to_be_visible()
                self.assertTrue(two.url.endswith("/second?q=tea"), two.url)

    def test_a_tab_that_was_cut_off_catches_up(self) -> None:
        server = self.serve(COUNTED)
        proxy = Proxy(server.port)
        self.addCleanup(proxy.close)
        one, two = self.open(server), self.open(server, port=proxy.port)
        one.get_by_role("button", name="write").click()
        expect(two.get_by_text("x is 1.")).to_be_visible()
        runs = two.get_by_text("runs are").inner_text()
        proxy.cut()
        for value in range(2, 7):
            one.get_by_role("button", name="write").click()
            expect(one.get_by_text(f"x is {value}.")).to_be_visible()
        expect(two.get_by_text("x is 1.")).to_be_visible()
        proxy.restore()
        expect(two.get_by_text("x is 6.")).to_be_visible()
        before = int(runs.split("are ")[1].strip("."))
        expect(two.get_by_text(f"runs are {before + 1}.")).to_be_visible()  # once, for it was not rerun while away

    def test_saving_files(self) -> None:
        app = (
            IMPORTS_AS_FILES_ARE_SAVED
            + COUNTED.removeprefix(HEAD)
            + "st.markdown(f'other is {other.__doc__}, lock is {id(server_state_lock.x)}.')\n"
        )
        one, two = self.pair(app, {"other.py": "'old'\n"}, server__runOnSave="true")
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

    def test_however_a_lock_is_left(self) -> None:
        app = HEAD + (
            "server_state.setdefault('log', [])\n"
            "st.markdown('log is ' + ' '.join(server_state['log']) + '.')\n"
            "for how in [how for how in ('rerun', 'stop', 'raise', 'pass') if st.button(how)]:\n"
            "    with server_state_lock['log']:\n"
            "        server_state['log'].append(how)\n"
            "        if how == 'rerun':\n"
            "            st.rerun()\n"
            "        if how == 'stop':\n"
            "            st.stop()\n"
            "        if how == 'raise':\n"
            "            raise ValueError\n"
        )
        one, two = self.pair(app)
        log: list[str] = []
        for how in ("rerun", "stop", "raise", "pass"):
            log.append(how)
            one.get_by_role("button", name=how).click()
            expect(two.get_by_text(f"log is {' '.join(log)}.", exact=True)).to_be_visible()
        log.append("pass")
        two.get_by_role("button", name="pass").click()  # the lock is free
        expect(one.get_by_text(f"log is {' '.join(log)}.", exact=True)).to_be_visible()

    def test_beside_fragments_that_run_by_the_clock(self) -> None:
        app = COUNTED + (
            "@st.fragment(run_every=0.2)\n"
            "def clock():\n"
            "    st.session_state.ticks = st.session_state.get('ticks', 0) + 1\n"
            "    st.markdown(f'ticks are {st.session_state.ticks}, the clock shows {server_state.get(\"x\")}.')\n"
            "clock()\n"
        )
        one, two = self.pair(app)
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
