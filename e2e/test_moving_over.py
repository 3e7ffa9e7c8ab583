"""Apps as people wrote them for the peer, with the one import changed, on a real server."""

from __future__ import annotations

import importlib.util
import time
import unittest
from collections.abc import Callable
from functools import partial
from urllib.parse import urlencode

from streamlit_client import Proxy, RealServerCase, Server, Tab, app, wait_for

COLOURS = ["red", "green", "blue", "жёлтый", "🟣", "white"]
IDLE = [  # of what `apps/idle.py` knows
    "heartbeat",
    "heartbeat under its lock",
    "toggles",
    "toggles under their lock",
    "visits",
    "equal objects",
]
if importlib.util.find_spec("pandas"):
    IDLE.append("frame")
SOON = 5.0  # seconds until a tab that has come back shows what is


class MovingOver(RealServerCase):
    def serve_tab(self, server: Server | Proxy, **query: str) -> Tab:
        tab = Tab(server, urlencode(query))
        self.addCleanup(tab.close)
        return tab

    def wait_for_widget(self, tab: Tab, label: str, default: list[int]) -> None:
        """Wait until a widget was drawn with a default, so that the user's next step starts there."""
        wait_for(f"{label} at {default}", lambda: list(tab.widgets[label].default) == default)

    def test_R1a_a_shared_slider(self) -> None:
        one, two = tabs = self.tabs(self.serve(app("slider")), 2)
        self.runs(*tabs)
        before = one.started, two.started
        for level in range(51, 57):
            one.send(("Level", "double_array_value", float(level)))
            for tab in tabs:
                tab.wait_for_text(f"level is {level}.")
                self.wait_for_widget(tab, "Level", [level])
        self.runs(*tabs)
        self.assertEqual((one.started - before[0], two.started - before[1]), (12, 6))
        two.send(("Level", "double_array_value", 7.0))
        for tab in tabs:
            tab.wait_for_text("level is 7.")
        self.runs(*tabs)
        for tab in tabs:
            self.assertIn("level is 7.", tab.text())

    def test_R1a_a_multiselect(self) -> None:
        one, two = tabs = self.tabs(self.serve(app("multiselect")), 2)
        has_names = hasattr(one.widgets["Colours"], "raw_values")  # older releases have numbers
        self.runs(*tabs)
        before = one.started, two.started
        for count in range(1, 7):
            numbers = list(range(count))
            if has_names:
                one.send(("Colours", "string_array_value", COLOURS[:count]))
            else:
                one.send(("Colours", "int_array_value", numbers))
            for tab in tabs:
                tab.wait_for_text(f"chosen: {' '.join(COLOURS[:count])}.")
                self.wait_for_widget(tab, "Colours", numbers)
        self.runs(*tabs)
        self.assertEqual((one.started - before[0], two.started - before[1]), (12, 6))

    def test_C1_a_multiselect_that_many_follow(self) -> None:
        tabs = self.tabs(self.serve(app("multiselect")), 6)
        self.runs(*tabs)
        before = [tab.started for tab in tabs]
        if hasattr(tabs[0].widgets["Colours"], "raw_values"):
            tabs[0].send(("Colours", "string_array_value", COLOURS[:1]))
        else:
            tabs[0].send(("Colours", "int_array_value", [0]))
        for tab in tabs:
            tab.wait_for_text("chosen: red.")
        self.runs(*tabs)
        self.assertEqual([tab.started - b for tab, b in zip(tabs, before, strict=True)], [2, 1, 1, 1, 1, 1])

    def test_R1a_a_history_above_its_input(self) -> None:
        one, two = self.tabs(self.serve(app("history")), 2)
        for tab, text in ((one, "héllo 👋"), (two, "привет"), (one, "again")):
            self.runs(one, two)
            before = one.started, two.started
            tab.say("Say something", text)
            for each in (one, two):
                each.wait_for_text(f"said: {text}.")
            self.runs(one, two)
            # Starts, for a run whose end was not yet sent when the next began is not told as a success.
            runs = one.started - before[0], two.started - before[1]
            self.assertEqual(runs, (2, 1) if tab is one else (1, 2))
        for each in (one, two):
            self.assertEqual(each.text().count("said: "), 3)

    def test_R1a_a_score_above_its_button(self) -> None:
        one, two = self.tabs(self.serve(app("score")), 2)
        self.runs(one, two)
        before = one.started, two.started
        one.click("Hit")
        for tab in (one, two):
            tab.wait_for_text("score is 1.")
        self.runs(one, two)
        self.assertEqual((one.started - before[0], two.started - before[1]), (2, 1))

    def test_R1a_a_message_under_a_button_stays(self) -> None:
        one, two = self.tabs(self.serve(app("score")), 2)
        self.assert_runs(lambda: one.click("Save"), [(1, 0), (1, 0)], one, two)
        self.assertIn("Well done.", one.text())
        for tab in (one, two):
            self.assertIn("saved 1 times.", tab.text())

    def test_R7_force_reaches_its_caller(self) -> None:
        one, two = self.tabs(self.serve(app("force")), 2)
        for turn in (1, 2):
            self.runs(one, two)
            before = one.started, two.started
            one.click("Next turn")
            for tab in (one, two):
                tab.wait_for_text(f"turn {turn}.")
            self.runs(one, two)
            self.assertEqual((one.started - before[0], two.started - before[1]), (2, 1))

    def test_L4_rooms_of_own_objects(self) -> None:
        one, two = self.tabs(self.serve(app("rooms")), 2)
        for count, author in enumerate((one, two, one), 1):
            self.assert_runs(partial(author.click, "Move"), [(1, 0), (1, 0)], one, two)
            for tab in (one, two):
                self.assertIn(f"Ädä in Käfig 🎲: {count}.", tab.text())

    def assert_quiet(self, most: int, kinds: list[str]) -> None:
        """Two tabs for each of these make at most `most` runs in ten seconds, and none after that."""
        server = self.serve(app("idle"))
        pairs = {what: [self.serve_tab(server, what=what, me=me) for me in ("Ada", "Боб")] for what in kinds}
        tabs = [tab for pair in pairs.values() for tab in pair]
        self.runs(*tabs)
        for what, toggle in (("toggles", "läuft"), ("toggles under their lock", "done")):
            if what in pairs:  # from now on each tab writes what the other overwrites
                pairs[what][0].put(toggle, "bool_value", True)
        since = time.monotonic()
        wait_for("ten seconds to pass", lambda: time.monotonic() > since + 10)
        before = [tab.started for tab in tabs]
        wait_for("chains to go on, which are delayed by a second at most", lambda: time.monotonic() > since + 13)
        self.assertEqual([tab.started for tab in tabs], before)
        for what, pair in pairs.items():
            with self.subTest(what):
                self.assertLessEqual(sum(tab.started for tab in pair), most)
        self.assertNotIn("Traceback", server.output())

    def test_R6_L5_C3_what_idle_tabs_do_on_every_run_ends(self) -> None:
        self.assert_quiet(10, IDLE)  # side by side

    def test_R6_heartbeat_of_a_page_that_runs_again_by_itself(self) -> None:
        self.assert_quiet(30, ["heartbeat and again"])  # each link of a chain is two runs

    def test_M2_L1_small_habits(self) -> None:
        (tab,) = self.tabs(self.serve(app("moved")), 1)
        for text in ("no such key.", "None is there: False.", "locks: ['room'] 1 True."):
            self.assertIn(text, tab.text())

    def test_R4_a_timed_fragment_that_is_always_under_way(self) -> None:
        server = self.serve(app("timed"))
        (one,) = self.tabs(server, 1)
        (two,) = self.tabs(server, 1)
        self.runs(one, two)
        ticks = two.fragment_runs
        next_tick = 0.0

        def shows(is_shown: Callable[[], bool]) -> bool:
            """Do meanwhile what the browser does for `run_every`, which does not ask how long a run takes."""
            nonlocal next_tick
            if time.monotonic() > next_tick:
                next_tick = time.monotonic() + 0.5
                two.rerun_fragment("Tick")
            return is_shown()

        wait_for("the fragment to be always under way", lambda: shows(lambda: two.fragment_runs > ticks + 1))
        for n in (1, 2, 3):
            one.click("Write")
            text = f"n is {n}."
            wait_for(text, lambda text=text: shows(lambda: text in two.text()), 2 * SOON)  # type: ignore[misc]
        self.runs(two)
        self.assertIn("cut short: 0.", two.text())

    def assert_half_open(self, name: str, button: str, shown: str) -> None:
        """A connection dies without a word, another tab writes, and the browser comes back to its session."""
        server = self.serve(app(name))
        proxy = Proxy(server.port)
        self.addCleanup(proxy.close)
        (one,) = self.tabs(server, 1)
        (two,) = self.tabs(proxy, 1)
        self.runs(one, two)
        session_id = two.session_id
        proxy.silence()
        one.click(button)
        one.wait_for_text(shown)
        self.wait_for_silence(proxy)
        proxy.cut()
        wait_for("both ends to be cut", lambda: not proxy.sockets)
        self.assertNotIn(shown, two.text())
        before = one.started, two.started
        proxy.restore()
        two.reconnect()
        two.wait_for_text(shown, SOON)
        self.assertEqual(two.session_id, session_id)
        self.runs(one, two)
        self.assertEqual((one.started - before[0], two.started - before[1]), (0, 1))

    def wait_for_silence(self, proxy: Proxy) -> None:
        """Wait until a rerun was sent into nowhere, and nothing more for a second."""
        dropped, since = 0, time.monotonic()

        def is_over() -> bool:
            nonlocal dropped, since
            if dropped != proxy.dropped:
                dropped, since = proxy.dropped, time.monotonic()
            return dropped > 0 and time.monotonic() > since + 1

        wait_for("a rerun that goes nowhere", is_over)

    def test_R5_half_open(self) -> None:
        self.assert_half_open("score", "Hit", "score is 1.")

    def test_R5_half_open_and_run_again_by_the_page(self) -> None:
        self.assert_half_open("again", "Write", "n is 1.")


if __name__ == "__main__":
    unittest.main()
