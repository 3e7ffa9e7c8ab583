"""Tabs on real servers: how long a change takes to reach them, and what it costs."""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
from streamlit_client import Server, Tab, wait_for  # noqa: E402 - it stands in e2e/

PATIENCE = 30  # seconds after which a tab that does not show a change is taken to be stale

HELPERS = ("alone.py", "bystander.py", "measuring.py", "messages.py")
MODULES = {"ours": "server_state", "peer": "streamlit_server_state", "alone": "alone"}


def serve(app: str, kind: str = "ours", settings: str = "", **options: str) -> Server:
    """A server of one of the apps beside this file, with what they import."""
    files = {name: (HERE / name).read_text() for name in HELPERS}
    files["settings.py"] = f"from {MODULES[kind]} import server_state\n{settings}\n"
    files["tally.py"] = "started = ended = 0\n"
    return Server((HERE / app).read_text(), files, **options)


def readers(
    kind: str,
    sleep: float = 0,
    cpu: float = 0,
    times: int = 0,
    pause: float = 0,
    **options: str,
) -> Server:
    """A server of an app that shows one value, and sleeps or works before it draws it."""
    settings = f"SLEEP = {sleep}\nCPU = {cpu}\nTIMES = {times}\nPAUSE = {pause}"
    return serve("readers_app.py", kind, settings, **options)


class TimedTab(Tab):
    """A tab that notes when it was told a text."""

    def __init__(self, server: Server) -> None:
        self.times: dict[str, float] = {}
        super().__init__(server, patience=120)

    def draw(self, place: tuple[int, ...], element: Any, fragment: str) -> None:
        super().draw(place, element, fragment)
        self.times.setdefault(self.shown[place], time.perf_counter())


def tabs_of(server: Server, count: int) -> list[TimedTab]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: TimedTab(server), range(count)))


def quiet(tabs: list[TimedTab]) -> None:
    """Wait until no tab has been told anything for a second."""
    last: list[int] = []
    since = time.monotonic()

    def is_quiet() -> bool:
        nonlocal last, since
        now = [tab.started + tab.script_runs + tab.fragment_runs for tab in tabs]
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 1

    wait_for("quiet", is_quiet, 120)


@contextlib.contextmanager
def opened(servers: dict[str, Server], count: int) -> Iterator[dict[str, list[TimedTab]]]:
    """So many tabs of each server; all is closed at the end."""
    tabs: dict[str, list[TimedTab]] = {}
    try:
        for name, server in servers.items():
            tabs[name] = tabs_of(server, count)
        yield tabs
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda tab: tab.close(), [tab for some in tabs.values() for tab in some]))
    finally:
        for server in servers.values():
            server.stop()


@dataclass
class Followed:
    """Seconds of each round: until the first, the median and the last tab show a change, and what else it does."""

    first: list[float] = field(default_factory=list)
    median: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    blocked: list[float] = field(default_factory=list)  # the writer
    bystander: list[float] = field(default_factory=list)  # from a click 0.1 s after the writer's to its answer
    stale: int = 0  # tabs that never showed it


def follow(servers: dict[str, Server], count: int, rounds: int) -> dict[str, Followed]:
    """Write in one tab, and see `count` others follow; the servers in turn."""
    results = {name: Followed() for name in servers}
    with opened(servers, count + 1) as tabs:
        for round_ in range(1, rounds + 1):
            for name, server in servers.items():
                quiet(tabs[name])
                follow_once(server, tabs[name], round_, results[name])
    return results


def follow_once(server: Server, tabs: list[TimedTab], round_: int, result: Followed) -> None:
    writer, bystander, shown = tabs[0], tabs[1], f"value is {round_}."
    (server.folder / "next").write_text(str(round_))
    took = server.folder / "took"
    took.unlink(missing_ok=True)
    begun = time.perf_counter()
    writer.click("write")
    time.sleep(0.1)
    clicked = time.perf_counter()
    bystander.click("mine")
    with contextlib.suppress(AssertionError):  # the peer leaves a tab stale now and then
        wait_for(shown, lambda: all(shown in tab.times for tab in tabs[1:]), PATIENCE)
    seconds = sorted(tab.times.get(shown, float("inf")) - begun for tab in tabs[1:])
    result.first.append(seconds[0])
    result.median.append(statistics.median(seconds))
    result.last.append(seconds[-1])
    result.stale += seconds.count(float("inf"))
    with contextlib.suppress(AssertionError):  # the peer stops its writer now and then
        result.blocked.append(float(wait_for("the writer", lambda: took.exists() and took.read_text(), 5)))
    result.bystander.append(answer(bystander, f"mine is {round_}.") - clicked)


def answer(tab: TimedTab, text: str) -> float:
    """When a click was answered; the peer loses some, and its user clicks again."""
    while text not in tab.times:
        try:
            wait_for(text, lambda: text in tab.times, 10)
        except AssertionError:
            tab.click("mine")
    return tab.times[text]


@dataclass
class Worked:
    """What a thread that writes on and on does to its readers and to the server."""

    behind: float  # seconds, the median tab
    threads: int  # the most that were alive
    cpu: float  # seconds
    started: int  # runs
    ended: int


def worked(kind: str, count: int, times: int, pause: float, sleep: float = 0) -> Worked:
    """A thread that writes on, before so many tabs."""
    server = readers(kind, sleep, times=times, pause=pause)
    with opened({kind: server}, count) as all_tabs:
        tabs = all_tabs[kind]
        quiet(tabs)
        tabs[0].click("work")
        done = server.folder / "work.json"
        wait_for("the work", done.exists, 120)
        time.sleep(0.5)
        threads, cpu, started, ended, written = json.loads(done.read_text())
        offset = time.time() - time.perf_counter()
        behind = []
        for value, when in written.items():
            later = [
                {int(text.split()[-1][:-1]): at for text, at in tab.times.items() if text.startswith("value is 1")}
                for tab in tabs[1:]
            ]
            shown = [min((at for v, at in some.items() if v >= int(value)), default=float("inf")) for some in later]
            behind.append(statistics.median(shown) + offset - when)
        quiet(tabs)
    return Worked(statistics.median(behind), threads, cpu, started, ended)


def idly_written(server: Server, count: int) -> tuple[float, float]:
    """The parts of a core that a server takes with so many tabs: idle, and with writes that concern none of them."""
    with opened({"ours": server}, count) as all_tabs:
        tabs = all_tabs["ours"]
        quiet(tabs)
        tabs[0].click("work")
        done = server.folder / "work.json"
        wait_for("the work", done.exists, 120)
        idle, written = json.loads(done.read_text())
    return idle, written


@dataclass
class Clocked:
    """What fragments that run by the clock do to the server."""

    threads: int  # the most that were alive, more than before
    answers: list[float]  # seconds, of clicks meanwhile
    runs: float  # of fragments, each second


def clocked(kind: str, count: int, seconds: float) -> Clocked:
    """Tabs that ask for a fragment each second, as the browser does for `run_every=1`, and click now and then."""
    server = serve("clock_app.py", kind)
    with opened({kind: server}, count) as all_tabs:
        tabs = all_tabs[kind]
        quiet(tabs)
        time.sleep(1)
        threads = server.folder / "threads"
        before = threads.read_text().split()
        stop = threading.Event()
        clock = threading.Thread(target=run_by_the_clock, args=(tabs, stop))
        runs = -sum(tab.fragment_runs for tab in tabs)
        clock.start()
        until = time.monotonic() + seconds
        answers: list[float] = []
        while time.monotonic() < until:
            time.sleep(1)
            answers.append(click_once(tabs[len(answers) % count], len(answers) // count + 1))
        runs += sum(tab.fragment_runs for tab in tabs)
        stop.set()
        clock.join()
        meanwhile = threads.read_text().split()[len(before) :]
        quiet(tabs)
    idle = max(int(number) for number in before[-10:])
    return Clocked(max(int(number) for number in meanwhile) - idle, answers, runs / seconds)


def click_once(tab: TimedTab, number: int) -> float:
    """Seconds until a tab's click is answered."""
    text, clicked = f"mine is {number}.", time.perf_counter()
    tab.click("mine")
    with contextlib.suppress(AssertionError):
        wait_for(text, lambda: text in tab.times, PATIENCE)
    return tab.times.get(text, float("inf")) - clicked


def run_by_the_clock(tabs: list[TimedTab], stop: threading.Event) -> None:
    """Each tab once a second, one after the other, as tabs that were opened at various times are."""
    at = time.monotonic()
    while not stop.is_set():
        for tab in tabs:
            at += 1 / len(tabs)
            time.sleep(max(0.0, at - time.monotonic()))
            tab.rerun_fragment("by the clock")


@dataclass
class Memory:
    """Bytes of ours for each session."""

    idle: float
    gone: float


def memory(count: int) -> Memory:
    """What sessions cost that have read 20 keys and are idle, and when they are gone."""
    server = serve("memory_app.py", server__disconnectedSessionTTL="1")
    try:
        one = TimedTab(server)

        def measured() -> int:
            runs = one.script_runs
            one.click("measure")
            wait_for("the measurement", lambda: one.script_runs > runs)
            return int(one.text().split("bytes are ")[1].split(".")[0])

        measured()
        before = measured()
        tabs = tabs_of(server, count)
        quiet(tabs)
        full = measured()
        for tab in tabs:
            tab.close()
        deadline = time.monotonic() + 30
        after = full
        while after - before > 0.05 * (full - before) and time.monotonic() < deadline:
            Tab(server).close()
            after = measured()
        one.close()
        return Memory((full - before) / count, (after - before) / count)
    finally:
        server.stop()
