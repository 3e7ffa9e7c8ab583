"""What the fake of the unit tests says about Streamlit, on a real server."""

from __future__ import annotations

import time
import unittest
from collections.abc import Callable

from streamlit_client import ROOT, Server, Tab, serving, wait_for

READER = """
import time
import streamlit as st
from server_state import server_state, server_state_lock

st.session_state.runs = st.session_state.get("runs", 0) + 1
"""


class RealServer(unittest.TestCase):
    def serve(self, app: str, **options: str) -> Server:
        manager = serving(app, **options)
        server = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return server

    def tabs(self, server: Server, count: int) -> list[Tab]:
        tabs = [Tab(server) for _ in range(count)]
        for tab in tabs:
            self.addCleanup(tab.close)
        return tabs

    def runs(self, *tabs: Tab) -> list[tuple[int, int]]:
        """Script and fragment runs of each tab, once nothing has begun or ended for a second."""
        last = {}
        quiet_since = time.monotonic()

        def settled() -> bool:
            nonlocal last, quiet_since
            now = {id(tab): (tab.started, tab.script_runs, tab.fragment_runs, tab.running) for tab in tabs}
            if now != last:
                last, quiet_since = now, time.monotonic()
            return time.monotonic() - quiet_since > 1 and not any(tab.running for tab in tabs)

        wait_for("all runs to end", settled)
        return [(tab.script_runs, tab.fragment_runs) for tab in tabs]

    def assert_runs(self, act: Callable[[], None], expected: list[tuple[int, int]], *tabs: Tab) -> None:
        before = self.runs(*tabs)
        act()
        after = self.runs(*tabs)
        more = [(a[0] - b[0], a[1] - b[1]) for a, b in zip(after, before, strict=True)]
        self.assertEqual(more, expected)
        self.assertEqual([tab.interrupted for tab in tabs], [0] * len(tabs))

    def test_counter_demo(self) -> None:
        server = self.serve((ROOT / "demo_counter.py").read_text())
        one, two = self.tabs(server, 2)
        self.assert_runs(lambda: one.click("Increment"), [(1, 0), (1, 0)], one, two)
        for tab in (one, two):
            self.assertIn("1", tab.text())
        self.assert_runs(lambda: two.put("Level", "double_array_value", 77.0), [(1, 0), (1, 0)], one, two)
        for tab in (one, two):
            tab.wait_for_text("Everybody's level is 77.")
        self.assertNotIn("Traceback", server.output())

    def test_chat_demo_reruns_the_other_tabs_fragment_alone(self) -> None:
        server = self.serve((ROOT / "demo_chat.py").read_text())
        one, two = self.tabs(server, 2)
        self.assert_runs(lambda: one.say("Write to Lobby", "Hello there"), [(1, 0), (0, 1)], one, two)
        for tab in (one, two):
            tab.wait_for_text("Hello there")
        self.assertNotIn("Traceback", server.output())

    def test_readme(self) -> None:
        code = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
        one, two = self.tabs(self.serve(code), 2)
        self.assert_runs(lambda: one.click("+1"), [(1, 0), (1, 0)], one, two)
        self.assertIn("1", two.text())

    def test_no_click_is_lost_while_others_write(self) -> None:
        app = READER + (
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

    def test_in_place_changes(self) -> None:
        app = READER + (
            "server_state.setdefault('log', [])\n"
            "if st.button('unlocked'):\n"
            "    server_state.log.append('u')\n"
            "if st.button('locked'):\n"
            "    with server_state_lock['log']:\n"
            "        server_state.log.append('l')\n"
            "        st.rerun()\n"
            "st.markdown('log is ' + ''.join(server_state.log) + '.')\n"
        )
        one, two = self.tabs(self.serve(app), 2)
        self.assert_runs(lambda: one.click("unlocked"), [(1, 0), (1, 0)], one, two)
        two.wait_for_text("log is u.")
        two.click("locked")
        for tab in (one, two):
            tab.wait_for_text("log is ul.")

    def test_a_crowd_sees_a_change_and_is_held_by_nothing(self) -> None:
        app = READER + (
            "st.markdown(f\"value is {server_state.get('value', 0)}.\")\n"
            "if st.button('set'):\n"
            "    server_state['value'] = server_state.get('value', 0) + 1\n"
            "@st.fragment\n"
            "def own():\n"
            "    st.button('mine')\n"
            "    st.session_state.mine = st.session_state.get('mine', 0) + 1\n"
            "    st.markdown(f'mine is {st.session_state.mine}.')\n"
            "own()\n"
        )
        tabs = self.tabs(self.serve(app), 40)
        for value in (1, 2, 3):
            tabs[0].click("set")
            tabs[1].click("mine")
            for tab in tabs[1:]:
                tab.wait_for_text(f"value is {value}.")
        self.runs(*tabs)
        self.assertEqual(sum(tab.interrupted for tab in tabs), 0)


if __name__ == "__main__":
    unittest.main()
