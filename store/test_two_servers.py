"""Two real Streamlit processes share the state: tabs without a browser, and the demo behind `haproxy` in Chromium.

Needs what `e2e/requirements.txt` names, and `haproxy` and Chromium from the system's packages.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import unittest
from typing import Any, ClassVar

from real_parts import HERE, ROOT, File, Store

sys.path.insert(0, str(ROOT / "e2e"))
try:
    from playwright.sync_api import Browser, Page, expect, sync_playwright

    import chromium
    from streamlit_client import RealServerCase, Server, Tab, app, wait_for
except ImportError as error:
    raise unittest.SkipTest(f"{error}; it is in e2e/requirements.txt") from error

PATIENCE = 30_000  # milliseconds that anything may take
expect.set_options(timeout=PATIENCE)
ENTRY = (HERE / "apps" / "entry.py").read_text()
SHARED = (HERE / "apps" / "shared.py").read_text()


class TwoServersCase(RealServerCase):
    """Tabs of two processes; each test is an application of its own in one store."""

    store: ClassVar[Any]

    @classmethod
    def setUpClass(cls) -> None:
        cls.store = Store()
        cls.addClassCleanup(cls.store.close)

    def servers(self, page: str) -> tuple[Server, Server]:
        os.environ.update(STATE_STORE=self.store.url, STATE_NAME=self._testMethodName)
        files = {"page.py": page, "server_state_store.py": (HERE / "server_state_store.py").read_text()}
        return self.serve(ENTRY, files), self.serve(ENTRY, files)

    def pair(self, page: str) -> tuple[Tab, Tab]:
        """Give a tab of each of two processes."""
        first, second = self.servers(page)
        (one,), (two,) = self.tabs(first, 1), self.tabs(second, 1)
        return one, two


class TwoServers(TwoServersCase):
    def test_P1_counter_demo(self) -> None:
        one, two = self.pair((ROOT / "demo_counter.py").read_text())
        self.assert_runs(lambda: one.click("Increment"), [(0, 1), (0, 1)], one, two)
        for tab in (one, two):
            tab.wait_for_text("1")
        level = ("Level", "double_array_value", 77.0)
        self.assert_runs(lambda: two.send(level), [(0, 1), (0, 1)], one, two)
        for tab in (one, two):
            tab.wait_for_text("Everybody's level is 77.")

    def test_P1_chat_demo(self) -> None:
        one, two = self.pair((ROOT / "demo_chat.py").read_text())
        before = self.runs(one, two)
        one.say("Write to Lobby", "Hello there")
        for tab in (one, two):
            tab.wait_for_text("Hello there")
        after = self.runs(one, two)
        self.assertEqual(after[1][0], before[1][0], "the other tab's fragment alone is rerun")
        two.say("Write to Lobby", "And back")
        one.wait_for_text("And back")

    def test_P1_the_body_a_fragment_and_pairs(self) -> None:
        one, two = self.pair(SHARED)
        self.assert_runs(lambda: one.click("write x"), [(1, 0), (1, 0)], one, two)
        two.wait_for_text("x is 1.")
        self.assert_runs(lambda: two.click("write pair"), [(1, 0), (1, 0)], one, two)
        one.wait_for_text("pair is 1 and 1.")
        self.assert_runs(lambda: one.click("write y"), [(0, 1), (0, 1)], one, two)
        two.wait_for_text("y is 1.")

    def test_P1_changes_in_place(self) -> None:
        one, two = self.pair(SHARED)
        self.assert_runs(lambda: one.click("append"), [(1, 0), (1, 0)], one, two)
        two.wait_for_text("log is u.")
        self.assert_runs(lambda: two.click("append under the lock"), [(1, 0), (1, 0)], one, two)
        one.wait_for_text("log is ul.")
        one.click("append")
        for tab in (one, two):
            tab.wait_for_text("log is ulu.")

    def test_P1_no_rerun_and_force(self) -> None:
        one, two = self.pair(SHARED)
        self.assert_runs(lambda: one.click("write x quietly"), [(1, 0), (0, 0)], one, two)
        self.assertIn("x is 0.", two.text())
        before = self.runs(one, two)[1]
        one.click("force")
        two.wait_for_text("x is 1.")
        after = self.runs(one, two)[1]
        self.assertEqual((after[0] - before[0], after[1] - before[1]), (1, 0))

    def test_P1_one_rerun_for_each_of_many_commits(self) -> None:
        one, two = self.pair(SHARED)
        before = self.runs(one, two)
        for number in range(1, 21):
            one.click("write pair")
            for tab, then in zip((one, two), before, strict=True):
                tab.wait_for_text(f"pair is {number} and {number}.")
                # A click in the middle of a run would end it early.
                wait_for("the run's end", lambda t=tab, n=then[0] + number: t.script_runs >= n)  # type: ignore[misc]
        after = self.runs(one, two)
        self.assertEqual([now[0] - then[0] for now, then in zip(after, before, strict=True)], [20, 20])

    def test_P1_replicas_that_write_on_every_run_are_slowed_down(self) -> None:
        servers = self.servers(app("chains"))
        tabs = [tab for server in servers for tab in self.tabs(server, 1)]
        wait_for("the warning", lambda: any("and are slowed down" in server.output() for server in servers))

        def is_slow() -> bool:
            begun, since = [tab.started for tab in tabs], time.monotonic()
            wait_for("some more runs", lambda: tabs[-1].started >= begun[-1] + 4)
            seconds = time.monotonic() - since
            most = max(tab.started - before for tab, before in zip(tabs, begun, strict=True))
            return seconds > 1 and most < 4 + 4 * seconds

        wait_for("the runs to be slow", is_slow)
        self.assertTrue(is_slow())
        for tab in tabs:
            clicks = int(tab.text().split("clicks are ")[1].split(".")[0])
            tab.click("click")
            tab.wait_for_text(f"clicks are {clicks + 1}.")

    def test_P8_a_class_of_the_main_script(self) -> None:
        one, two = self.pair(SHARED)
        one.click("own class")
        for tab in (one, two):
            tab.wait_for_text("own is of the main script.")

    def test_S2_files_are_saved(self) -> None:
        first, second = self.servers(SHARED)
        (one,), (two,) = self.tabs(first, 1), self.tabs(second, 1)
        for number, name in enumerate(("page.py", "server_state_store.py", "server_state.py", "app.py"), start=1):
            path = first.folder / name
            path.write_text(path.read_text() + "\n# saved\n")
            one.send()
            self.runs(one, two)
            one.click("write x")
            for tab in (one, two):
                tab.wait_for_text(f"x is {number}.")


class TwoServersOnAFile(TwoServers):
    @classmethod
    def setUpClass(cls) -> None:
        cls.store = File()
        cls.addClassCleanup(cls.store.close)


class Outage(TwoServersCase):
    def test_P6_tabs_wait_out_an_outage(self) -> None:
        first, second = self.servers(SHARED)
        (one,), (two,) = self.tabs(first, 1), self.tabs(second, 1)
        one.click("write x")
        two.wait_for_text("x is 1.")
        self.store.kill()
        try:
            (three,) = self.tabs(second, 1)
            three.wait_for_text("x is 1.")
            one.click("write x")
            wait_for("the error", lambda: "ConnectionError" in first.output())
        finally:
            self.store.start()
        wait_for("the log's last value", lambda: self.is_written(one, two))
        for tab in (one, two, three):
            tab.wait_for_text("x is 2.")

    def is_written(self, one: Tab, two: Tab) -> bool:
        self.runs(one, two)
        if "x is 2." not in two.text():
            one.click("write x")
            self.runs(one, two)
        return "x is 2." in two.text()


class DemoCase(unittest.TestCase):
    """The one command, as a user starts it."""

    def setUp(self) -> None:
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "demo_two_servers.py")],
            env={name: value for name, value in os.environ.items() if name != "STATE_STORE"},  # the other tests' own
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(self.end)
        threading.Thread(target=self.listen, daemon=True).start()
        wait_for("all to be started", lambda: "Ctrl-C" in self.output() or self.process.poll() is not None, 90)
        self.addresses = dict(re.findall(r"^(?:process )?([\w ]+): (http\S+)$", self.output(), re.M))

    def listen(self) -> None:
        assert self.process.stdout
        self.said.extend(iter(self.process.stdout.readline, ""))

    def output(self) -> str:
        return "".join(list(self.said))

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        assert self.process.stdout
        self.process.stdout.close()


class Demo(DemoCase):
    def test_ctrl_c_ends_all(self) -> None:
        pids = [int(name) for name in self.addresses if name.isdigit()]
        self.assertEqual(len(pids), 2, self.output())
        self.process.send_signal(signal.SIGINT)
        self.assertEqual(self.process.wait(30), 0, self.output())
        for pid in pids:
            self.assertRaises(ProcessLookupError, os.kill, pid, 0)
        self.assertNotIn("Traceback", self.output())


@unittest.skipUnless(shutil.which("haproxy"), "there is no haproxy: apt-get install haproxy")
class Balanced(DemoCase):
    """Two browsers behind `haproxy`, each with a process of its own."""

    browser: ClassVar[Browser]

    @classmethod
    def setUpClass(cls) -> None:
        playwright = sync_playwright().start()
        cls.addClassCleanup(playwright.stop)
        cls.browser = chromium.launch(playwright)
        cls.addClassCleanup(cls.browser.close)

    def setUp(self) -> None:
        super().setUp()
        self.pids = [int(name) for name in self.addresses if name.isdigit()]
        self.pages: dict[str, Page] = {}  # by the process that the cookie names
        for _ in range(6):
            context = self.browser.new_context(viewport={"width": 860, "height": 760})
            self.addCleanup(context.close)
            page = context.new_page()
            page.goto(self.addresses["either of them"])
            expect(page.get_by_placeholder("Write to Lobby")).to_be_visible()
            self.pages[self.process_of(page)] = page
            if len(self.pages) == 2:
                break
        self.assertEqual(set(self.pages), {"first", "second"}, "both processes are used")

    def process_of(self, page: Page) -> str:
        return next(str(cookie["value"]) for cookie in page.context.cookies() if cookie["name"] == "PROCESS")

    def say(self, page: Page, text: str) -> None:
        box = page.get_by_placeholder("Write to Lobby")
        box.fill(text)
        box.press("Enter")

    def test_chat_and_counter(self) -> None:
        one, two = self.pages["first"], self.pages["second"]
        for number in range(3):
            for page in (one, two):
                self.say(page, f"Message {number} of {self.process_of(page)}")
                for other in (one, two):
                    expect(other.get_by_text(f"Message {number} of {self.process_of(page)}")).to_be_attached()
        for page in (one, two):
            page.get_by_role("link", name="Counter").click()
            expect(page.get_by_test_id("stMetricValue")).to_have_text("0")
        for clicks, page in enumerate((one, two, one), start=1):
            page.get_by_role("button", name="Increment").click()
            for other in (one, two):
                expect(other.get_by_test_id("stMetricValue")).to_have_text(str(clicks))
        one.get_by_role("slider").focus()
        one.keyboard.press("ArrowRight")
        for page in (one, two):
            expect(page.get_by_text("Everybody's level is 51.")).to_be_visible()

    def test_P1_a_tab_comes_back_on_the_other_process(self) -> None:
        """With all that is shared, that is; `st.session_state` ends with its process."""
        one, two = self.pages["first"], self.pages["second"]
        self.say(one, "Before")
        expect(two.get_by_text("Before")).to_be_attached()
        os.kill(self.pids[0], signal.SIGKILL)
        self.say(two, "Meanwhile")
        expect(one.get_by_text("Meanwhile")).to_be_attached()
        expect(one.get_by_text("Before")).to_be_attached()
        self.assertEqual(self.process_of(one), "second")
        self.say(one, "After")
        expect(two.get_by_text("After")).to_be_attached()
        expect(one.get_by_text("After")).to_be_attached()
        self.assertIn(f"process {self.pids[0]} has ended", self.output())


if __name__ == "__main__":
    unittest.main()
