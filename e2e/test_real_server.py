"""What the fake of the unit tests says about Streamlit, on a real server."""

from __future__ import annotations

import subprocess
import sys
import unittest

from streamlit import config as st_config

from streamlit_client import ROOT, RealServerCase, Tab, wait_for

READER = """
import time
import streamlit as st
from server_state import server_state, server_state_lock

st.session_state.runs = st.session_state.get("runs", 0) + 1
"""


class RealServer(RealServerCase):
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
            "    st.session_state.mine = st.session_state.get('mine', 0) + st.button('mine')\n"
            "    st.markdown(f'mine is {st.session_state.mine}.')\n"
            "own()\n"
        )
        tabs = self.tabs(self.serve(app), 40)
        for value in (1, 2, 3):
            tabs[0].click("set")
            tabs[1].click("mine")
            for tab in tabs[1:]:
                tab.wait_for_text(f"value is {value}.")
            tabs[1].wait_for_text(f"mine is {value}.")
        self.runs(*tabs)
        tabs[1].wait_for_text("mine is 3.")

    def test_a_thread_reruns_readers(self) -> None:
        app = READER + (
            "import threading\n"
            "def work():\n"
            "    for i in range(50):\n"
            "        time.sleep(0.01)\n"
            "        server_state['tick'] = i\n"
            "if st.button('start'):\n"
            "    threading.Thread(target=work).start()\n"
            "ends = st.session_state.get('ends', 0)\n"
            "st.markdown(f\"cut short are {st.session_state.runs - 1 - ends}. tick is {server_state.get('tick')}.\")\n"
            "time.sleep(0.05)\n"
            "st.markdown('done')\n"
            "st.session_state.ends = ends + 1\n"
        )
        one, two = self.tabs(self.serve(app), 2)
        one.click("start")
        for tab in (one, two):
            tab.wait_for_text("tick is 49.")
        self.runs(one, two)
        for tab in (one, two):
            tab.wait_for_text("cut short are 0. tick is 49.")

    def test_saving_files_keeps_state_and_updates(self) -> None:
        app = READER + (
            "import other\n"
            "server_state.setdefault('n', 0)\n"
            "if st.button('+1'):\n"
            "    server_state.n += 1\n"
            "st.markdown(f\"n is {server_state.n}, other is {other.__doc__}, lock is {id(server_state_lock['n'])}.\")\n"
        )
        server = self.serve(app, {"other.py": "'old'"}, server__runOnSave="true")
        one, two = self.tabs(server, 2)
        one.click("+1")
        two.wait_for_text("n is 1,")
        lock = two.text().split("lock is")[1]
        (server.folder / "other.py").write_text("'new'")
        two.wait_for_text("other is new")
        module = server.folder / "server_state.py"
        started = two.started
        module.write_text(module.read_text() + "# saved\n")
        wait_for("the rerun on save", lambda: two.started > started)
        self.runs(one, two)
        one.click("+1")
        two.wait_for_text("n is 2,")
        self.assertEqual(two.text().split("lock is")[1], lock)

    @unittest.skipUnless(
        any("disconnectedSessionTTL" in name for name in st_config.get_config_options()),
        "this Streamlit keeps sessions for two minutes, and cannot be told otherwise",
    )
    def test_nothing_is_left_of_sessions_that_vanish(self) -> None:
        app = READER + (
            "import gc, sys\n"
            "server_state.get('x')\n"
            "module = sys.modules['server_state'].force_rerun_bound_sessions.__globals__\n"
            "if st.button('count'):\n"
            "    gc.collect()\n"
            "    gc.collect()\n"
            "left = sum(type(thing).__name__ == '_Session' for thing in gc.get_objects())\n"
            "st.markdown(f\"bound are {len(module['_sessions'])}, left are {left}.\")\n"
        )
        server = self.serve(app, server__disconnectedSessionTTL="1")
        (one,) = self.tabs(server, 1)
        for tab in [Tab(server) for _ in range(20)]:
            tab.close()

        def is_gone() -> bool:
            Tab(server).close()  # Streamlit drops what has expired when another session is stored
            before = one.script_runs
            one.click("count")
            wait_for("the count", lambda: one.script_runs > before)
            bound, left = (int(part.split()[0].strip(",.")) for part in one.text().split("are ")[1:])
            return bound == left <= 10  # those that this test itself has just closed

        try:
            wait_for("the sessions to be forgotten", is_gone)
        except AssertionError as error:
            raise AssertionError(f"{error}; {one.text()}") from None

    def test_demos_under_app_test(self) -> None:
        for demo, act in (
            ("demo_counter.py", "at.button[1].click()"),
            ("demo_chat.py", "at.chat_input[0].set_value('Hi')"),
        ):
            code = (
                "from streamlit.testing.v1 import AppTest\n"
                f"at = AppTest.from_file({demo!r}).run(timeout=30)\n"
                f"{act}.run(timeout=30)\n"
                "assert not at.exception, at.exception\n"
                "print([m.value for m in at.metric], [m.value for m in at.markdown])\n"
            )
            done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("1" if "counter" in demo else "Hi", done.stdout)
            self.assertNotIn("server_state reruns no other", done.stderr)


if __name__ == "__main__":
    unittest.main()
