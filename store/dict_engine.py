"""An engine whose store is a dictionary: what the real ones must do, and what the simulation runs on."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from server_state_store import Answer, Change, News

LOG_LENGTH = 1000  # changes that the log keeps; who missed more loads everything
UNFAIR = 1.0  # seconds after which who waits for a lock goes before those who come later
FORGET = 2.0  # seconds after which who has not asked again does not wait any more


class Waiter(NamedTuple):
    """A token that was told "held": which locks it wants, and when it first and last asked."""

    names: frozenset[str]
    since: float
    seen: float


class Record(NamedTuple):
    """One entry of the log."""

    position: bytes
    flags: list[tuple[str, bytes]]
    changed: frozenset[str]


class DictStore:
    """What several processes share."""

    def __init__(self, clock: Callable[[], float], log_length: int = LOG_LENGTH) -> None:
        self.clock, self.log_length = clock, log_length
        self.lock = threading.Lock()
        self.serial = count(1)  # of changes; it never goes back, as random numbers never come twice
        self.bell = threading.Condition(self.lock)
        self.clear()

    def clear(self) -> None:
        self.values: dict[str, bytes] = {}
        self.locks: dict[str, tuple[str, float]] = {}  # token, and until when
        self.numbers: dict[str, int] = {}  # the largest one seen of each process
        self.line: dict[str, Waiter] = {}  # by token
        self.log = [Record(b"%d" % next(self.serial), [], frozenset())]

    def saved(self) -> Any:
        parts = (self.values, self.locks, self.numbers, self.line, self.log)
        return copy.copy([copy.copy(part) for part in parts])

    def restore(self, saved: Any) -> None:
        """Go back in time."""
        self.values, self.locks, self.numbers, self.line, self.log = map(copy.copy, saved)

    def trim(self, length: int) -> None:
        self.log = self.log[-length:]


class DictEngine:
    """The five operations for one process."""

    needs_secret, largest = False, 2**30

    def __init__(self, store: DictStore, name: str, process: str) -> None:
        self.store, self.process = store, process
        self.place = (id(store), name)

    def since(self, position: bytes, number: int = 0) -> News:
        """Tell what has changed since a position. With a number, this process's earlier requests come too late."""
        with self.store.lock:
            if number:
                self.store.numbers[self.process] = max(number, self.store.numbers.get(self.process, 0))
            news = self.news(position)
            return news if position else news._replace(values=dict(self.store.values))

    def acquire(
        self, position: bytes, names: Iterable[str], token: str, lease: float, held: Iterable[str], number: int
    ) -> Answer:
        """Take locks, all or none; `held` are the token's other ones, which must still be its own."""
        store, now, names, held = self.store, self.store.clock(), list(names), list(held)
        with store.lock:
            news, seen = self.news(position), store.numbers.get(self.process, 0)

            def answer(status: str, detail: str | float = "") -> Answer:
                return Answer(status, news, detail)

            if number < seen:
                return answer("old")
            store.numbers[self.process] = number
            if number == seen:
                is_ours = all(self.holder(name) == token for name in (*held, *names))
                return answer("ok") if is_ours else answer("held", 0.0)
            if news.is_all:
                return answer("held", 0.0)
            for name in held:
                if self.holder(name) != token:
                    return answer("lost", name)
            others = [name for name in names if self.holder(name) not in (None, token)]
            wait = max((store.locks[name][1] - now for name in others), default=0.0)
            if not others and not held and self.is_reserved(names, token):
                wait = UNFAIR
            if wait > 0:
                before = store.line.get(token)
                since = now if before is None or before.seen + FORGET < now else before.since
                store.line[token] = Waiter(frozenset(names), since, now)
                return answer("held", wait)
            store.line.pop(token, None)
            for name in names:
                store.locks[name] = (token, now + lease)
            return answer("ok")

    def is_reserved(self, names: list[str], token: str) -> bool:
        """Whether somebody who has waited for long, and for longer than this token, wants one of the names."""
        now, line = self.store.clock(), self.store.line
        mine = line[token].since if token in line and line[token].seen + FORGET >= now else now
        return any(
            other != token
            and waiter.seen - waiter.since > UNFAIR
            and waiter.seen + UNFAIR >= now
            and waiter.since < mine
            and not waiter.names.isdisjoint(names)
            for other, waiter in line.items()
        )

    def commit(
        self, position: bytes, token: str, locks: Iterable[str], changes: dict[str, Change], number: int
    ) -> Answer:
        """Make all changes or none, and free the locks."""
        store, locks = self.store, list(locks)
        with store.lock:
            news, seen = self.news(position), store.numbers.get(self.process, 0)
            if number <= seen:
                return Answer("done" if number == seen else "old", news)
            for name in locks if changes else ():
                if self.holder(name) != token:
                    return Answer("lost", news, name)
            newer = self.changed_since(position)
            for key, change in changes.items():
                if change.kind == "guarded" and (newer is None or key in newer):
                    return Answer("conflict", news, key)
            store.numbers[self.process] = number
            flags, changed = [], set()
            for key, change in changes.items():
                is_forced = change.kind == "force"
                if not is_forced or change.data is not None:
                    if store.values.get(key) == change.data and not is_forced:
                        continue
                    if store.values.get(key) != change.data:
                        changed.add(key)
                    if change.data is None:
                        del store.values[key]
                    else:
                        store.values[key] = change.data
                flags.append((key, change.flags))
            if flags:
                store.log.append(Record(b"%d" % next(store.serial), flags, frozenset(changed)))
                store.trim(store.log_length)
            for name in locks:
                if self.holder(name) == token:
                    del store.locks[name]
            store.bell.notify_all()
            return Answer("ok", news, position=store.log[-1].position)

    def renew(self, names: Iterable[str], token: str, lease: float) -> None:
        """Make leases longer, of those locks that are still the token's."""
        with self.store.lock:
            for name in names:
                if self.holder(name) == token:
                    self.store.locks[name] = (token, self.store.clock() + lease)

    def wait(self, position: bytes, seconds: float) -> None:
        """Wait until there is news, or somebody has let go of a lock."""
        with self.store.bell:
            if self.store.log[-1].position == position:
                self.store.bell.wait(seconds)

    def interrupt(self) -> None:
        pass

    # Under the store's lock:
    def holder(self, name: str) -> str | None:
        token, until = self.store.locks.get(name, ("", 0.0))
        return token if until > self.store.clock() else None

    def newer(self, position: bytes) -> list[Record] | None:
        """Give what the log has after a position; None if that is unknown."""
        for place, record in enumerate(self.store.log):
            if record.position == position:
                return self.store.log[place + 1 :]
        return None

    def changed_since(self, position: bytes) -> set[str] | None:
        records = self.newer(position)
        return None if records is None else {key for record in records for key in record.changed}

    def news(self, position: bytes) -> News:
        last, records, values = self.store.log[-1].position, self.newer(position), self.store.values
        if records is None:
            return News(last, True, [], {})
        flags = [pair for record in records for pair in record.flags]
        return News(last, False, flags, {key: values.get(key) for record in records for key in record.changed})
