"""Many tabs, many changes, tabs that come and go: on a real server, with tabs that speak Streamlit's messages."""

from __future__ import annotations

import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from streamlit import config as st_config

from streamlit_client import RealServerCase, Tab, wait_for

HEAD = """
import time
import streamlit as st
from server_state import no_rerun, server_state, server_state_lock
"""
# What the server holds of ours, when a tab presses "census".
CENSUS = """
import gc, os, sys, threading
if st.button("census"):
    gc.collect()
    gc.collect()
    left = sum(type(thing).__name__ in ("_Session", "_Run") for thing in gc.get_objects())
    bound = len(type(server_state).__getitem__.__globals__["_sessions"])
    pages = int(open("/proc/self/statm").read().split()[1]) if os.path.exists("/proc/self/statm") else 0
    with no_rerun:
        serial = server_state["serial"] = server_state.get("serial", 0) + 1
    st.markdown(f"census {serial}: {bound} {left} {threading.active_count()} {pages * 4096}.")
"""


def census(tab: Tab) -> tuple[int, int, int, int]:
    """Sessions bound, objects of ours that are left, threads alive, bytes resident."""
    before = tab.script_runs
    tab.click("census")
    wait_for("the census", lambda: tab.script_runs > before)
    numbers = tab.text().split("census ")[1].split(": ")[1].split(".")[0].split()
    return int(numbers[0]), int(numbers[1]), int(numbers[2]), int(numbers[3])


class Load(RealServerCase):
    def test_no_click_is_lost_while_others_write(self) -> None:
        app = HEAD + (
            "with server_state_lock['n']:\n"
            "    server_state.setdefault('n', 0)\n"
            "    if st.button('+1'):\n"
            "        server_state['n'] += 1\n"
            "st.markdown(f\"n is {server_state['n']}.\")\n"
            "time.sleep(0.1)\n"
        )
        for fast in ("true", "false"):
            with self.subTest(fastReruns=fast):
                tabs = self.tabs(self.serve(app, runner__fastReruns=fast), 8)
                for _ in range(5):
                    ends = [tab.script_runs for tab in tabs]
                    for tab in tabs:
                        tab.click("+1")
                    for tab, end in zip(tabs, ends, strict=True):
                        wait_for("the click's run", lambda tab=tab, end=end: tab.script_runs > end)
                for tab in tabs:
                    tab.wait_for_text("n is 40.")

    def test_storm(self) -> None:
        """A thread that writes 50 times a second for 10 s, and scripts that take 0.3 s."""
        app = HEAD + (
            "import threading\n"
            "def work():\n"
            "    for i in range(500):\n"
            "        time.sleep(0.02)\n"
            "        server_state['tick'] = i\n"
            "if st.button('start'):\n"
            "    threading.Thread(target=work).start()\n"
            "runs = st.session_state.runs = st.session_state.get('runs', 0) + 1\n"
            "ends = st.session_state.get('ends', 0)\n"
            "st.markdown(f\"cut short are {runs - 1 - ends}. ended are {ends}. tick is {server_state.get('tick')}.\")\n"
            "time.sleep(0.3)\n"
            "st.markdown('done')\n"
            "st.session_state.ends = ends + 1\n"
        )
        tabs = self.tabs(self.serve(app), 5)
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
        app = (
            HEAD
            + (
                "st.markdown(f\"value is {server_state.get('value', 0)}.\")\n"
                "if st.button('set'):\n"
                "    server_state['value'] = server_state.get('value', 0) + 1\n"
                "@st.fragment\n"
                "def own():\n"
                "    st.session_state.mine = st.session_state.get('mine', 0) + st.button('mine')\n"
                "    st.markdown(f'mine is {st.session_state.mine}.')\n"
                "own()\n"
            )
            + CENSUS
        )
        tabs = self.tabs(self.serve(app), 300)
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
        app = HEAD + "server_state.get('x')\nserver_state.setdefault('log', [])\n" + CENSUS
        if not has_option:  # older releases keep what vanishes for two minutes, and this many of them
            app += "from streamlit.runtime import get_instance\n"
            app += "storage = get_instance()._session_mgr._session_storage\n"
            app += "if storage._cache.ttl != 1:\n"
            app += "    storage._cache = type(storage._cache)(maxsize=128, ttl=1)\n"
        options = {"server__disconnectedSessionTTL": "1"} if has_option else {}
        server = self.serve(app, runner__postScriptGC="false", **options)
        (one,) = self.tabs(server, 1)
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
        app = HEAD + (
            "server_state['x'] = server_state.get('x', 0) + 1\n"
            "st.session_state.clicks = st.session_state.get('clicks', 0) + st.button('click')\n"
            "st.markdown(f\"x is {server_state['x']}. clicks are {st.session_state.clicks}.\")\n"
        )
        server = self.serve(app)
        tabs = self.tabs(server, 1)
        self.assertEqual(self.runs(*tabs), [(1, 0)])
        for count in (2, 5):
            tabs += self.tabs(server, count - len(tabs))
            wait_for("the warning", lambda: "and are slowed down" in server.output())

            def is_slow(
                tabs: list[Tab] = tabs,
            ) -> bool:  # nobody runs more than about once a second
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
