"""P10 on real servers: `kill -9`, start again, and all is there; open tabs follow, in Chromium too.

Needs what `e2e/requirements.txt` names, and Chromium from the system's packages.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from real_parts import DEADLINE, HERE, ROOT, Process

sys.path.insert(0, str(ROOT / "e2e"))
try:
    import streamlit as st
    from playwright.sync_api import expect, sync_playwright

    import chromium
    from streamlit_client import RealServerCase, Server, wait_for
except ImportError as error:
    raise unittest.SkipTest(f"{error}; it is in e2e/requirements.txt") from error

PATIENCE = 30_000  # milliseconds that anything may take
STORE = {"server_state_store.py": (HERE / "server_state_store.py").read_text()}
COUNTER = """
import streamlit as st
from server_state import server_state, server_state_lock
from server_state_store import connect

connect("state.db")
server_state.setdefault("count", 0)


def add_one():
    with server_state_lock["count"]:
        server_state["count"] += 1


st.button("+1", on_click=add_one)
st.markdown(f"count is {server_state['count']}.")
"""
LIST = """
import dataclasses
import streamlit as st
from server_state import server_state
from server_state_store import connect

connect("state.db")


@dataclasses.dataclass
class Room:
    name: str


def create():
    name = f"Room {len(server_state)}"
    server_state[name] = Room(name)


st.button("create", on_click=create)
st.markdown(f"There are: {', '.join(room.name for room in server_state.values())}.")
"""
ASGI = (HERE / "apps" / "asgi.py").read_text()
ROOMS = (HERE / "apps" / "rooms.py").read_text()


class RestartCase(RealServerCase):
    def kill(self, server: Server) -> None:
        server.process.kill()
        server.process.wait(DEADLINE)

    def start(self, server: Server) -> None:
        """Start it again as it was: in its folder, on its port."""
        command = server.process.args
        server.process = subprocess.Popen(command, cwd=server.folder, stdout=server.log, stderr=subprocess.STDOUT)
        wait_for("the server's health", server.is_healthy)


class Restart(RestartCase):
    def test_P10_rooms_of_the_main_script(self) -> None:
        server = self.serve(ROOMS, STORE)
        (one,) = self.tabs(server, 1)
        for click, board in (
            ("join", "Ada 0"),
            ("score", "Ada 1"),
            ("join", "Ada 1, Bob 0"),
            ("score", "Ada 1, Bob 1"),
        ):
            one.click(click)
            one.wait_for_text(f"Lobby has {board}.")
        for number in (2, 3):
            self.kill(server)
            self.start(server)
            (two,) = self.tabs(server, 1)
            two.wait_for_text(f"Lobby has Ada 1, Bob {number - 1}.")
            two.click("score")
            two.wait_for_text(f"Lobby has Ada 1, Bob {number}.")

    def test_P10_a_list_of_keys_whose_class_the_script_defines(self) -> None:
        """Complete without a click, though `connect` comes before the class, and nobody reads a key by its name."""
        server = self.serve(LIST, STORE)
        (one,) = self.tabs(server, 1)
        for rooms in ("Room 0", "Room 0, Room 1"):
            one.click("create")
            one.wait_for_text(f"There are: {rooms}.")
        self.kill(server)
        self.start(server)
        (two,) = self.tabs(server, 1)
        two.wait_for_text("There are: Room 0, Room 1.")

    def test_P10_a_class_that_has_a_new_field(self) -> None:
        """Other keys are untouched; the key's error names the class, until the app says what an old one has."""
        server = self.serve(ROOMS, STORE)
        (one,) = self.tabs(server, 1)
        one.click("join")
        one.wait_for_text("Lobby has Ada 0.")
        self.kill(server)
        path = server.folder / "app.py"
        newer = ROOMS.replace("    score: int = 0\n", "    score: int = 0\n    lives: int = 3\n")
        newer = newer.replace("{player.score}", "{player.score} with {player.lives} lives")
        path.write_text(newer)
        self.start(server)
        (two,) = self.tabs(server, 1)
        two.wait_for_text("Lobby has Ada 0 with 3 lives.")
        two.click("score")
        two.wait_for_text("Lobby has Ada 1 with 3 lives.")

    def test_P1_two_servers_on_one_file(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        app = COUNTER.replace("state.db", str(Path(folder.name) / "state.db"))
        first, second = self.serve(app, STORE), self.serve(app, STORE)
        (one,), (two,) = self.tabs(first, 1), self.tabs(second, 1)
        for number, tab in enumerate((one, two, one, two), start=1):
            tab.click("+1")
            for other in (one, two):
                other.wait_for_text(f"count is {number}.")


@unittest.skipUnless(hasattr(st, "App"), "st.App came with 1.58")
class OpenTabs(RestartCase):
    def servers(self) -> list[Server]:
        files = {**STORE, "asgi.py": ASGI}
        uvicorn = "uvicorn asgi:app --host 127.0.0.1 --port {port}"
        streamlit = "streamlit run asgi.py --server.address 127.0.0.1 --server.port {port} --server.headless true"
        return [self.serve(COUNTER, files, command) for command in (uvicorn, streamlit)]

    def test_P10_open_tabs_run_when_they_come_back(self) -> None:
        """In Chromium, without a click; what was changed while the server was away is there, too."""
        playwright = sync_playwright().start()
        self.addCleanup(playwright.stop)
        browser = chromium.launch(playwright)
        self.addCleanup(browser.close)
        for server in self.servers():
            with self.subTest(server.process.args[2]):  # type: ignore[index]
                page = browser.new_page()
                page.goto(server.url)
                expect(page.get_by_text("count is 0.")).to_be_visible(timeout=PATIENCE)
                page.get_by_role("button", name="+1").click()
                expect(page.get_by_text("count is 1.")).to_be_visible(timeout=PATIENCE)
                self.kill(server)
                other = Process(str(server.folder / "state.db"), "", "")
                self.addCleanup(other.close)
                other.do("increment", "count", 41)
                self.start(server)
                begun = time.monotonic()
                expect(page.get_by_text("count is 42.")).to_be_visible(timeout=PATIENCE)
                print(f"shown {time.monotonic() - begun:.2f} s after the server answers again")
                page.get_by_role("button", name="+1").click()
                expect(page.get_by_text("count is 43.")).to_be_visible(timeout=PATIENCE)
                page.close()


class Readme(RestartCase):
    """What the README says, done by somebody with nothing but two files."""

    def test_from_an_empty_folder(self) -> None:
        text = (HERE / "README.md").read_text()
        blocks = [block.removeprefix("python\n") for block in text.split("```")[1::2] if block.startswith("python\n")]
        server = self.serve(blocks[0], STORE)
        (one,) = self.tabs(server, 1)
        for count in (1, 2):
            one.click("+1")
            one.wait_for_text(str(count))
        self.kill(server)
        self.start(server)
        (two,) = self.tabs(server, 1)
        two.wait_for_text("2")
        asgi = next(block for block in blocks if "lifespan" in block)
        self.assertEqual(asgi.split("import st", 1)[-1].split(), ASGI.split("import st", 1)[-1].split())


if __name__ == "__main__":
    unittest.main()
