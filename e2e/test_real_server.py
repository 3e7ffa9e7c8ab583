"""What the fake of the unit tests says about Streamlit, on a real server."""

from __future__ import annotations

import inspect
import subprocess
import sys
import unittest
from functools import partial

import streamlit as st
from streamlit.runtime.scriptrunner.script_runner import ScriptRunner

from streamlit_client import ROOT, RealServerCase, app, wait_for


class RealServer(RealServerCase):
    def test_counter_demo(self) -> None:
        server = self.serve((ROOT / "demo_counter.py").read_text())
        one, two = self.tabs(server, 2)
        self.assert_runs(lambda: one.click("Increment"), [(0, 1), (0, 1)], one, two)
        for tab in (one, two):
            self.assertIn("1", tab.text())
        level = ("Level", "double_array_value", 77.0)
        self.assert_runs(lambda: two.send(level), [(0, 1), (0, 1)], one, two)
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

    def test_in_place_changes(self) -> None:
        one, two = self.tabs(self.serve(app("in_place")), 2)
        self.assert_runs(lambda: one.click("unlocked"), [(1, 0), (1, 0)], one, two)
        two.wait_for_text("log is u.")
        two.click("locked")
        for tab in (one, two):
            tab.wait_for_text("log is ul.")

    def test_saving_files_keeps_state_and_updates(self) -> None:
        server = self.serve(app("saved"), {"other.py": "'old'"}, server__runOnSave="true")
        one, two = self.tabs(server, 2)
        one.click("write")
        two.wait_for_text("x is 1.")
        lock = two.text().split("lock is")[1]
        (server.folder / "other.py").write_text("'new'")
        two.wait_for_text("other is new")
        module = server.folder / "server_state.py"
        started = two.started
        module.write_text(module.read_text() + "# saved\n")
        wait_for("the rerun on save", lambda: two.started > started)
        self.runs(one, two)
        one.click("write")
        two.wait_for_text("x is 2.")
        self.assertEqual(two.text().split("lock is")[1], lock)

    def test_S2_a_copy_in_a_package_is_the_same_state(self) -> None:
        package = "from .server_state import server_state, server_state_lock\n"
        copy = (ROOT / "server_state.py").read_text()
        files = {"shop/__init__.py": package, "shop/server_state.py": copy}
        server = self.serve(app("vendored"), files)
        one, two = self.tabs(server, 2)
        self.assert_runs(lambda: one.click("order"), [(1, 0), (1, 0)], one, two)
        for tab in (one, two):
            self.assertIn("orders are 1. one state: True. one lock: True. two modules: True.", tab.text())
        self.assertNotIn("Traceback", server.output())

    def test_nested_fragments(self) -> None:
        one, two = self.tabs(self.serve(app("nested")), 2)
        self.assert_runs(lambda: one.click("write x"), [(1, 0), (0, 1)], one, two)
        two.wait_for_text("inner shows 1.")
        self.assert_runs(lambda: one.click("write y"), [(1, 0), (0, 1)], one, two)
        two.wait_for_text("outer shows 1.")
        self.assert_runs(lambda: one.click("write x"), [(1, 0), (0, 1)], one, two)
        two.wait_for_text("inner shows 2.")
        self.assert_runs(lambda: one.click("write y"), [(1, 0), (0, 1)], one, two)
        two.wait_for_text("outer shows 2.")

    def test_fragments_that_waited_together(self) -> None:
        one, two = self.tabs(self.serve(app("queued")), 2)
        two.click("work")
        two.wait_for_text("works")
        two.rerun_fragment("touch x")
        two.rerun_fragment("touch y")
        two.wait_for_text("worked")
        self.runs(one, two)
        for key in ("x", "y"):
            self.assert_runs(partial(one.click, f"write {key}"), [(1, 0), (0, 1)], one, two)
            two.wait_for_text(f"{key} is 1.")

    def test_R4_the_page_is_not_drawn_into_the_container_of_a_fragment(self) -> None:
        one, two = self.tabs(self.serve(app("contained")), 2)
        for number in (1, 2):
            two.click("in the fragment")
            wait_for("the fragment to run", lambda: two.running)
            two.click("in the fragment")
            one.click("add")
            two.wait_for_text(f"n is {number}.")
            self.runs(one, two)
            self.assertEqual(two.text().count("n is"), 1, two.text())

    def test_L5_a_request_of_ours_that_a_click_is_joined_to(self) -> None:
        one, two = self.tabs(self.serve(app("asked")), 2)
        two.put("Level", "double_array_value", 77.0)
        two.click("add")
        one.wait_for_text("n is 1: ours True, link 1.")
        one.click("add")
        two.wait_for_text("n is 2: ours True, link 1.")
        two.click("in the fragment")
        wait_for("the fragment to run", lambda: two.running)
        two.click("in the fragment")
        one.click("add")
        two.wait_for_text("n is 3: ours False, link 1.")

    def test_a_dialog_is_a_fragment(self) -> None:
        one, two = self.tabs(self.serve(app("dialog")), 2)
        one.click("open")
        one.wait_for_text("the dialog shows None.")
        self.assert_runs(lambda: two.click("write"), [(0, 1), (1, 0)], one, two)
        one.wait_for_text("the dialog shows 1.")

    @unittest.skipUnless("parallel" in inspect.signature(st.fragment).parameters, "parallel fragments came with 1.58")
    def test_parallel_fragments(self) -> None:
        one, two = self.tabs(self.serve(app("parallel")), 2)
        before = self.runs(one, two)
        one.click("write x")
        for tab in (one, two):
            tab.wait_for_text("x is 1.")
            tab.wait_for_text("z is 1.")
        after = self.runs(one, two)
        self.assertEqual([a[0] - b[0] for a, b in zip(after, before, strict=True)], [1, 0])  # of whole scripts
        self.assertEqual(after[0][1], before[0][1])  # what the worker wrote was the run's own

    @unittest.skipUnless(hasattr(st, "App"), "st.App came with 1.58")
    def test_mounted_under_uvicorn(self) -> None:
        asgi = "import streamlit as st\napp = st.App('app.py')\n"
        command = "uvicorn asgi:app --host 127.0.0.1 --port {port}"
        one, two = self.tabs(self.serve(app("first_page"), {"asgi.py": asgi}, command), 2)
        self.assert_runs(lambda: one.click("write"), [(1, 0), (1, 0)], one, two)
        two.wait_for_text("x is 1.")

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

    @unittest.skipUnless(
        "finally" in inspect.getsource(ScriptRunner._run_script_thread),
        "in older releases its session never hears of such a script's end",
    )
    def test_R2_a_script_that_exits_python(self) -> None:
        server = self.serve(app("exits"))
        exits, other = self.tabs(server, 2)
        started = exits.started
        exits.click("exit")
        wait_for("the exit", lambda: exits.started > started)
        for number in (1, 2):
            other.click("write")
            for tab in (exits, other):
                tab.wait_for_text(f"x is {number}.")
        self.runs(other)
        self.assertLessEqual(exits.started - started, 4)  # each such run may be made twice, but no more
        other.wait_for_text("left is False.")  # the thread that had left it has ended
        lines = [line for line in server.output().splitlines() if " is rerun, " in line]
        self.assertIn(len(lines), (2, 3))
        expected = r'^session [0-9a-f-]{8} is rerun, its page: server_state\["x"\] assigned by session [0-9a-f-]{8}$'
        for line in lines:
            self.assertRegex(line, expected)


if __name__ == "__main__":
    unittest.main()
