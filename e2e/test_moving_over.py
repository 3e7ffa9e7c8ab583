"""Apps as people wrote them for the peer, with the one import changed, on a real server."""

from __future__ import annotations

import importlib.util
import time
import unittest
from pathlib import Path

from streamlit_client import RealServerCase, Server, Tab, wait_for

APPS = Path(__file__).resolve().parent / "apps"
COLOURS = ["red", "green", "blue", "жёлтый", "🟣", "white"]


class MovingOver(RealServerCase):
    def serve_app(self, name: str) -> Server:
        return self.serve((APPS / f"{name}.py").read_text())

    def test_R1a_a_shared_slider(self) -> None:
        one, two = self.tabs(self.serve_app("slider"), 2)
        for level in range(51, 57):
            one.send(("Level", "double_array_value", float(level)))
            for tab in (one, two):
                tab.wait_for_text(f"level is {level}.")
            self.runs(one, two)

    def test_R1a_a_multiselect(self) -> None:
        one, two = self.tabs(self.serve_app("multiselect"), 2)
        if not hasattr(one.widgets["Colours"], "raw_values"):
            self.skipTest("older releases name the options by numbers")
        for count in range(1, 7):
            one.send(("Colours", "string_array_value", COLOURS[:count]))
            for tab in (one, two):
                tab.wait_for_text(f"chosen: {' '.join(COLOURS[:count])}.")
            self.runs(one, two)

    def test_R1a_a_history_above_its_input(self) -> None:
        one, two = self.tabs(self.serve_app("history"), 2)
        for tab, text in ((one, "héllo 👋"), (two, "привет"), (one, "again")):
            before = one.started, two.started
            tab.say("Say something", text)
            for each in (one, two):
                each.wait_for_text(f"said: {text}.")
            self.runs(one, two)
            # Starts, for a run whose end was not yet sent when the next began is not told as a success.
            runs = one.started - before[0], two.started - before[1]
            self.assertEqual(runs, (2, 1) if tab is one else (1, 2))

    def test_R1a_a_score_above_its_button(self) -> None:
        one, two = self.tabs(self.serve_app("score"), 2)
        self.assert_runs(lambda: one.click("Hit"), [(2, 0), (1, 0)], one, two)
        for tab in (one, two):
            self.assertIn("score is 1.", tab.text())

    def test_R1a_a_message_under_a_button_stays(self) -> None:
        one, two = self.tabs(self.serve_app("score"), 2)
        self.assert_runs(lambda: one.click("Save"), [(1, 0), (1, 0)], one, two)
        self.assertIn("Well done.", one.text())
        self.assertIn("saved 1 times.", two.text())

    def test_R7_force_reaches_its_caller(self) -> None:
        one, two = self.tabs(self.serve_app("force"), 2)
        self.assert_runs(lambda: one.click("Next turn"), [(2, 0), (1, 0)], one, two)
        for tab in (one, two):
            self.assertIn("turn 1.", tab.text())

    def test_L4_rooms_of_own_objects(self) -> None:
        one, two = self.tabs(self.serve_app("rooms"), 2)
        for count in (1, 2, 3):
            one.click("Move")
            for tab in (one, two):
                tab.wait_for_text(f"Ädä in Käfig 🎲: {count}.")

    def test_R6_what_is_done_on_every_run(self) -> None:
        server = self.serve_app("idle")
        for what in ("heartbeat", "unlocked heartbeat", "toggle", "list", "equal", "frame"):
            if what == "frame" and importlib.util.find_spec("pandas") is None:
                continue
            with self.subTest(what):
                query = "what=" + what.replace(" ", "%20")
                tabs = [Tab(server, f"{query}&me={me}") for me in ("Ada", "Боб")]
                for tab in tabs:
                    self.addCleanup(tab.close)
                until = time.monotonic() + 10  # seconds in which two idle tabs may run ten times
                self.runs(*tabs)
                wait_for("the ten seconds", lambda until=until: time.monotonic() > until)
                before = self.runs(*tabs)
                self.assertLessEqual(sum(runs for runs, _ in before), 10)
                self.assertEqual(self.runs(*tabs), before)

    def test_M2_L1_small_habits(self) -> None:
        (tab,) = self.tabs(self.serve_app("moved"), 1)
        for text in ("no such key.", "None is there: False.", "locks: ['room'] 1 True."):
            self.assertIn(text, tab.text())

    def test_R4_a_timed_fragment_that_is_always_under_way(self) -> None:
        server = self.serve_app("timed")
        (one,) = self.tabs(server, 1)
        (two,) = self.tabs(server, 1)
        one.click("Write")
        until = time.monotonic() + 30
        asked = 0.0
        while "n is written." not in two.text():  # what the browser does for `run_every`
            self.assertLess(time.monotonic(), until, two.text())
            if time.monotonic() > asked + 0.5:
                asked = time.monotonic()
                two.rerun_fragment("Tick")
            time.sleep(0.01)
        self.assertEqual(two.interrupted, 0)

    def test_R5_a_connection_that_died_without_a_word(self) -> None:
        one, two = self.tabs(self.serve_app("score"), 2)
        self.runs(one, two)
        two.is_deaf = True
        one.click("Hit")
        wait_for("the rerun that goes nowhere", lambda: two.missed > 0)
        wait_for("its end", lambda: not two.missed_running)
        two.reconnect()
        two.wait_for_text("score is 1.")


if __name__ == "__main__":
    unittest.main()
