"""Many tabs, many changes, tabs that come and go: on a real server, with tabs that speak Streamlit's messages."""

from __future__ import annotations

import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from streamlit import config as st_config

from streamlit_client import RealServerCase, Tab, app, wait_for


def wait_for_run(tab: Tab, runs: int) -> None:
    wait_for("the click's run", lambda: tab.script_runs > runs)


def census(tab: Tab) -> tuple[int, int, int, int]:
    """Sessions bound, objects of ours that are left, threads alive, bytes resident."""
    before = tab.script_runs
    tab.click("census")
    wait_for_run(tab, before)
    numbers = tab.text().split("census ")[1].split(": ")[1].split(".")[0].split()
    return int(numbers[0]), int(numbers[1]), int(numbers[2]), int(numbers[3])


class Load(RealServerCase):
    def test_no_click_is_lost_while_others_write(self) -> None:
        for fast in ("true", "false"):
            with self.subTest(fastReruns=fast):
                tabs = self.tabs(self.serve(app("clicks"), runner__fastReruns=fast), 8)
                for _ in range(5):
                    ends = [tab.script_runs for tab in tabs]
                    for tab in tabs:
                        tab.click("+1")
                    for tab, end in zip(tabs, ends, strict=True):
                        wait_for_run(tab, end)
                for tab in tabs:
                    tab.wait_for_text("n is 40.")

    def test_storm(self) -> None:
        """A thread that writes 50 times a second for 10 s, and scripts that take 0.3 s."""
        tabs = self.tabs(self.serve(app("storm")), 5)
        tabs[0].click("start")
        for tab in tabs:
            tab.wait_for_text("tick is 499.", deadline=60)
        self.runs(*tabs)
        for tab in tabs:
            tab.wait_for_text("tick is 499.")
            self.assertIn("cut short are 0.", tab.text())
            self.assertGreater(int(tab.text().split("ended are ")[1].split(".")[0]), 5)

    def test_crowd(self) -> None:
        """300 sessions, one write: all show it, a bystander is answered meanwhile, and nothing stays behind."""
        tabs = self.tabs(self.serve(app("crowd"), {"census.py": app("census")}), 300)
        threads = memory = 0
        for value in range(1, 4):
            tabs[0].click("set")
            tabs[1].click("mine")
            for tab in tabs[1:]:
                tab.wait_for_text(f"value is {value}.")
            tabs[1].wait_for_text(f"mine is {value}.")
            self.runs(*tabs)
            bound, left, now, resident = census(tabs[0])
            self.assertEqual(bound, 300)
            self.assertLessEqual(left, 600)  # for each session one record of it and one of its latest run
            if value == 1:
                threads, memory = now, resident
        wait_for("the threads to end", lambda: census(tabs[0])[2] <= threads)
        self.assertLess(resident, 1.2 * memory)
        self.assertEqual([tab.interrupted for tab in tabs[2:]], [0] * 298)

    def test_come_and_go(self) -> None:
        """Nothing is left of 500 sessions that connect, read and vanish."""
        has_option = "server.disconnectedSessionTTL" in st_config.get_config_options()
        # Older releases keep what vanishes for two minutes, and this many of them.
        query = "" if has_option else "short=yes"
        options: dict[str, Any] = {"server__disconnectedSessionTTL": "1"} if has_option else {}
        files = {"census.py": app("census")}
        server = self.serve(app("come_and_go"), files, runner__postScriptGC="false", **options)
        one = Tab(server, query)
        self.addCleanup(one.close)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: Tab(server).close(), range(500)))

        def is_gone() -> bool:
            Tab(server).close()  # Streamlit drops what has expired when another session is stored
            bound, left, _, _ = census(one)
            return bound <= 10 and left <= 20  # those that this test itself has just closed

        try:
            wait_for("the sessions to be forgotten", is_gone)
        except AssertionError as error:
            raise AssertionError(f"{error}; {one.text()}") from None

    def test_chains(self) -> None:
        """An app that writes on every run slows down, warns once and stays usable."""
        server = self.serve(app("chains"))
        tabs = self.tabs(server, 1)
        self.assertEqual(self.runs(*tabs), [(1, 0)])
        for count in (2, 5):
            tabs += self.tabs(server, count - len(tabs))
            wait_for("the warning", lambda: "and are slowed down" in server.output())

            def is_slow(tabs: list[Tab] = tabs) -> bool:  # nobody runs more than about once a second
                begun, since = [tab.started for tab in tabs], time.monotonic()
                wait_for("some more runs", lambda: tabs[-1].started >= begun[-1] + 4)
                seconds = time.monotonic() - since
                most = max(tab.started - before for tab, before in zip(tabs, begun, strict=True))
                return seconds > 1 and most < 4 + 4 * seconds

            wait_for("the runs to be slow", is_slow)  # new tabs begin new chains, which are fast for twenty links
            self.assertTrue(is_slow())
            for tab in tabs:
                clicks = int(tab.text().split("clicks are ")[1].split(".")[0])
                tab.click("click")
                tab.wait_for_text(f"clicks are {clicks + 1}.")
        self.assertEqual(server.output().count("and are slowed down"), 1)


if __name__ == "__main__":
    unittest.main()
