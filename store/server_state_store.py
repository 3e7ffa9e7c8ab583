# SPDX-License-Identifier: MIT
"""Several server processes share one `server_state`, and a restart forgets nothing: copy this too.

    from server_state import server_state, server_state_lock
    from server_state_store import connect

    connect("state.db")  # a file for all processes of this machine; or Redis, Valkey, for many:
    connect("redis://localhost:6379/0", name="my-app", secret=st.secrets["state_secret"])
    server_state.setdefault("count", 0)  # and all else as before

Reads are answered by this process. A change is committed to the store before it is told here; the
other processes hear of it at once. A lock keeps out all processes, by a lease that is renewed.
While the store is away, reads give the last known values, writes and locks raise ConnectionError.
All of it may be used from any thread. Needs `server_state.py`; and `redis` or `valkey` for those.
Origin: the project "server_state", folder `store`, whose README tells more.
"""

from __future__ import annotations

import hmac
import io
import logging
import os
import pickle
import secrets
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, NamedTuple

if "_server_state_1" not in sys.modules:  # vendored in a package, it may have any name
    import server_state  # noqa: F401

__all__ = ["LockLostError", "connect"]
_logger = logging.getLogger("server_state")
_home: Any = sys.modules["_server_state_1"]  # where `server_state.py` keeps its state
_MISSING = _home._MISSING
_NEVER = float("inf")

LEASE = 10.0  # seconds for which a lock is held without a word from its holder
RENEW = 3.0  # seconds between such words
PATIENCE = 1.5  # seconds for an answer of the store; it is asked twice
DEADLINE = 3.75  # seconds after which a call asks no more, whatever it has waited for
WATCH = 0.5  # seconds between looks for answers that take too long, and for lost tabs
BELL = 0.5  # seconds for which we listen, before we ask of our own accord
PAUSE = 0.008  # seconds without listening after a commit of our own, which brings all news
RETRY = 0.25  # seconds between two tries while the store is away

# The words: *committed* is what the store is known to have, as the signed bytes that it has. *Mine*
# is what a transaction here has assigned and not yet committed. *Shown* is what `server_state`
# holds: mine where there is such, else the committed value. All is decided by the first two.


class LockLostError(RuntimeError):
    """What was changed under a lock was dropped: its lease had run out, or others had changed it.

    Nothing of it was seen by other processes, and this one shows again what the store has.
    """


# A saved file makes Streamlit import this one anew; what is raised stays the same class.
LockLostError = vars(_home).setdefault("_LockLostError", LockLostError)  # type: ignore[misc]


def connect(
    where: Any, *, name: str = "", secret: str | bytes = "", local: Iterable[str] = ()
) -> None:
    """Share `server_state` with all processes that connect to the same place with the same name.

    `where` is the path of a SQLite database, or a URL or client of Redis or Valkey. Values are
    signed with `secret`; a database needs neither. Keys in `local` stay in this process. To be
    called before the first key is set; the same call once more (a script that is rerun) does
    nothing. What a forked child has inherited or set before its own call is replaced. From any
    thread. RuntimeError for another call, one that comes late, or a store that is another
    program's; ConnectionError if it does not answer.
    """
    is_path = not hasattr(where, "connection_pool") and "://" not in str(where)
    engine = SQLite if is_path else Redis
    if engine.needs_secret and not (name and secret):
        raise ValueError("connect() needs a name for the application, and a secret to sign with.")
    key = secret.encode() if isinstance(secret, str) else bytes(secret)
    kept = frozenset([local] if isinstance(local, str) else local)
    with _home._connecting:
        settings = (engine.place(where), name, key, kept)
        alone = _home._store
        if type(alone) is not _home._Alone:
            if alone.settings == settings:
                return
            hint = "call it once, with the same arguments in every script"
            raise RuntimeError(f"connect() was called before, with other arguments: {hint}.")
        if _home._present and _home._store_of_parent is None:
            keys = ", ".join(list(_home._present)[:5])
            hint = "connect() belongs above the first use of server_state"
            raise RuntimeError(f"server_state has keys already ({keys}): {hint}.")
        try:
            store = _Store(engine(where, name, secrets.token_hex(8)), settings)
            _home._store = store  # values may be of modules that connect, too, or set keys
            store.load()
        except BaseException as error:
            _home._store = alone
            if not isinstance(error, OSError):
                raise
            hint = "is it running, and is the address right?"
            message = f"connect() cannot reach the store ({error}): {hint}"
            raise ConnectionError(message) from error
        for work in (store.listen, store.renew, store.watch):
            threading.Thread(target=work, name="server_state_store", daemon=True).start()


def _go_on_alone() -> None:
    """A forked child has a copy of the state, as without a store, and may connect itself.

    The parent's store is kept, since its connections are not to be closed here.
    """
    if type(_home._store) is not _home._Alone:
        _home._store_of_parent = _home._store
        _home._store = _home._Alone()
    _home._connecting = threading.RLock()


if "_connecting" not in vars(_home):
    _home._connecting = threading.RLock()
    _home._store_of_parent = None
    if hasattr(os, "register_at_fork"):  # Windows has none
        os.register_at_fork(after_in_child=_go_on_alone)


# --- Values as they travel ---
def _sealed(settings: Any, key: str, data: bytes) -> bytes:
    """Sign what was pickled; without a secret, that finds out damage only."""
    _, name, secret, _ = settings
    head = f"{len(name)} {len(key)} {name}{key}".encode("utf-8", "surrogatepass")
    return hmac.digest(secret, head + data, "sha256") + data


_SEAL = 32  # bytes before what was pickled


def _named(module: str, name: str) -> Any:
    """Give a class or function. Of the app's script it is the latest: each run makes them anew.

    A run that has just begun has not yet made it: then it is that of an earlier run.
    """
    __import__(module)
    found: Any = sys.modules[module]
    try:
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError:
        if (module, name) not in _home._named_before:
            raise
        return _home._named_before[module, name]
    if module == "__main__":
        _home._named_before[module, name] = found
    return found


# Values name this function, by the one name that it has in every process.
_named.__module__ = _home.__name__
vars(_home).setdefault("_named", _named)
vars(_home).setdefault("_named_before", {})


class _Pickler(pickle.Pickler):
    """Pickles classes and functions by name, without asking whether they are the very ones."""

    def reducer_override(self, obj: Any) -> Any:
        is_named = issubclass(type(obj), (type, types.FunctionType)) and obj is not _home._named
        if not is_named or "<" in obj.__qualname__:  # made by a function
            return NotImplemented
        name = obj.__module__, obj.__qualname__
        if obj.__module__ == "__main__":
            _home._named_before.setdefault(name, obj)
        return _home._named, name


class _Unpickler(pickle.Unpickler):
    """Notes what a value is made of, for the error if some of it has changed."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.names: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        if module == _home.__name__:
            return self.find_class  # in place of `_named`, which it calls
        self.names.append(f"{module}.{name}")
        return _named(module, name)


def _pickled(key: str, value: Any) -> bytes:
    """TypeError, which names the key and says what to do, for what cannot travel (P8)."""
    with suppress(Exception):
        return pickle.dumps(value, 5)
    try:
        file = io.BytesIO()
        _Pickler(file, 5).dump(value)
        return file.getvalue()
    except Exception as error:
        ways = (
            f'keep it in this process with connect(..., local={{"{key}"}}), '
            "or make it of classes that stand in a module of their own"
        )
        message = f'server_state["{key}"] cannot be sent to other processes ({error}): {ways}.'
        raise TypeError(message) from error


class _Flags(NamedTuple):
    """What readers elsewhere are to know of a change."""

    is_told: int = 1
    is_forced: int = 0  # told although nothing is seen to have changed
    depth: int = 0  # in a chain of reruns that cause each other
    in_place: int = 0

    def text(self) -> bytes:
        return b"%d %d %d %d" % self

    def after(self, before: _Flags | None) -> _Flags:
        """Give the flags of two changes in one."""
        return self if before is None else _Flags(*map(max, self, before))


# --- What an engine is asked and answers ---
class News(NamedTuple):
    """What has changed in the store since a position."""

    position: bytes  # of the store, before what the request itself changes
    is_all: bool  # the position asked for is unknown there
    flags: list[tuple[str, bytes]]  # each change in order: the key, and what was said of it
    values: dict[str, bytes | None]  # what the changed keys have now; None if they are gone


class Change(NamedTuple):
    """What a commit is to do with a key."""

    kind: str  # "set"; "guarded": if nobody has changed it since the position; "force": only tell
    data: bytes | None  # None removes it
    flags: bytes


class Answer(NamedTuple):
    """What came of a request. All but "ok" have changed nothing."""

    status: str  # "ok"; "done" before; "old": a later one was seen; "lost"; "conflict"; "held"
    detail: str | float  # lost: the lock; conflict: the key; held: seconds until another try
    position: bytes  # after it
    news: News


# --- The store ---
class _Mine(NamedTuple):
    """What a transaction has assigned to a key, or changed in place."""

    value: Any
    flags: _Flags
    is_guarded: bool  # it was decided by what the key had: `setdefault`, `pop`, a change in place
    data: bytes | None = None  # as it travels, of a change in place, and of all that was sent


class _Hold:
    """What a thread's transaction holds in the store, and what it is to commit there."""

    def __init__(self, token: str = "") -> None:
        self.token = token
        self.names: set[str] = set()  # of locks
        self.mine: dict[str, _Mine] = {}
        self.error: Exception | None = None  # why nothing of it can be committed any more
        # What it had in hand when another process's value took its place.
        self.replaced: list[tuple[str, Any, Any]] = []


class _Store(_home._Alone):  # type: ignore[misc]
    """What `server_state.py` calls where there are several processes."""

    def __init__(self, engine: Any, settings: Any) -> None:
        self.engine = engine
        self.settings = settings
        self.local = settings[3]
        # It is held around "round trip and apply", so that position and values move together, and
        # guards the next group. The locks of `server_state.py` are taken before it, but for the
        # master lock, which is taken under it. It is re-entrant because values that are read under
        # it may be of classes that use the state.
        self.mutex = threading.RLock()
        self.position = b""
        self.committed: dict[str, bytes] = {}
        self.shown: dict[str, bytes] = {}  # what each shown object was read from or written as
        self.own: set[str] = set()  # keys whose shown object was written here, not read
        # Keys that may not show what they should, and what readers are to know when they do.
        self.pending: dict[str, _Flags] = {}
        self.refused: dict[str, str] = {}  # keys whose value could not be read, and why
        self.replaced: list[Any] = []  # let go of after the release: a `__del__` may take locks
        self.until = 0.0  # when the call that has the turn asks no more
        # By transaction, and gone with it when its thread dies.
        self.holds: weakref.WeakKeyDictionary[Any, _Hold] = weakref.WeakKeyDictionary()
        self.numbers = count(1)
        self.away: Exception | None = None
        self.limit = _NEVER  # when the request that is under way is interrupted
        self.bell = threading.Event()  # for those who wait for a lock; each ring makes a new one

    # Round trips.
    @contextmanager
    def turn(self, needs_store: bool = True) -> Iterator[None]:
        """Hold the mutex, and show the news at the end; ConnectionError if it needs the store."""
        until = time.monotonic() + DEADLINE
        while not self.mutex.acquire(timeout=0.1):
            if needs_store and (self.away is not None or time.monotonic() > until):
                raise self.unreachable()
        replaced: list[Any] = []
        try:
            if needs_store and self.away is not None:
                raise self.unreachable()
            self.until = until
            try:
                yield
            finally:
                self.show()
        finally:
            replaced, self.replaced = self.replaced, replaced
            self.mutex.release()

    def unreachable(self) -> ConnectionError:
        reason = self.away or f"busy for {DEADLINE} s"
        hint = "a change that was under way may or may not have been made; try again later"
        return ConnectionError(f"The store of server_state does not answer ({reason}): {hint}.")

    def ask(self, operation: Callable[..., Any], *asked: Any, patience: float = PATIENCE) -> Any:
        """Ask the engine, and once more if it does not answer: it knows a request by its number."""
        for is_first in (True, False):
            left = self.until - time.monotonic()
            if is_first or left > 0:
                self.limit = time.monotonic() + min(patience, max(left, WATCH))
                try:
                    return operation(*asked)
                except OSError as error:
                    reason = error
                except Exception as error:
                    raise ConnectionError(f"The store of server_state refuses: {error}.") from error
                finally:
                    self.limit = _NEVER
        self.away = reason
        raise self.unreachable()

    def load(self) -> None:
        """Show what the store has, and nothing else."""
        with self.turn():
            for key in _home._present.keys() - self.local:  # inherited in a fork
                self.shown[key] = b""
                self.pending[key] = _Flags()
            self.take(News(b"", True, [], {}))

    def hear(self) -> None:
        """Take over what is new, and find out whether the store is back."""
        with self.turn(needs_store=False):
            # P5: after an outage, what is still under way comes too late.
            number = 0 if self.away is None else next(self.numbers)
            news = self.ask(self.engine.since, self.position, number)
            self.away = None
            self.take(news)

    def listen(self) -> None:
        """Hear of other processes' changes: the bell only says that there is news."""
        said = -60.0  # when we last said that it is away
        while True:
            before = self.position
            try:
                self.engine.wait(before, BELL)
                if self.position == before:
                    self.hear()
                else:  # a commit of ours has brought what there was
                    time.sleep(PAUSE)
            except Exception as error:
                if time.monotonic() > said + 60:
                    said = time.monotonic()
                    _logger.warning("%s", error)
                time.sleep(RETRY)
            self.ring()

    def ring(self) -> None:
        """Have those look again who wait for a lock."""
        bell, self.bell = self.bell, threading.Event()
        bell.set()

    def renew(self) -> None:
        """Make the leases of our locks longer."""
        while True:
            time.sleep(RENEW)
            self.renew_all()

    def renew_all(self) -> None:
        # A function of its own: what it refers to could not go with its thread while it sleeps.
        for _, hold in self.open():
            names = list(hold.names)
            with suppress(Exception):  # the next time, or the lock is lost
                if names:
                    self.engine.renew(names, hold.token, LEASE)

    def watch(self) -> None:
        """Give up requests that take too long, also where answers come drop by drop (P6)."""
        lost: Collection[Any] = ()
        while True:
            time.sleep(WATCH)
            if time.monotonic() > self.limit:
                self.engine.interrupt()
            with suppress(Exception):  # no Streamlit here, or one that lacks something
                lost = _run_lost_tabs(lost)

    # What comes from the store.
    def take(self, news: News) -> None:
        """Note what the store has; `show` shows it."""
        values = news.values
        if news.is_all:
            self.until = _NEVER
            news = self.ask(self.engine.since, b"", patience=_NEVER)
            values = {**dict.fromkeys(self.committed), **news.values}
        for key, text in news.flags or [(key, b"1") for key in values]:
            if key not in self.local:
                flags = _Flags()
                with suppress(TypeError, ValueError):  # else somebody else wrote there
                    flags = _Flags(*map(int, text.split()))
                self.pending[key] = flags.after(self.pending.get(key))
        for key, data in values.items():
            self.note(key, data)
        self.position = news.position

    def note(self, key: str, data: bytes | None, author: _Hold | None = None) -> None:
        """Note what the store has for a key. Who has decided by what it had has decided wrong."""
        if data == self.committed.get(key):
            return
        if data is None:
            del self.committed[key]
        else:
            self.committed[key] = data
        for _, hold in self.open():
            if hold is not author and key in hold.mine and hold.mine[key].is_guarded:
                hold.error = _conflict(key)

    def is_shown(self, key: str) -> bool:
        return self.shown.get(key) == self.committed.get(key)

    def kept(self, key: str, fresh: Collection[str]) -> list[Any] | None:
        """Give what transactions here have assigned to a key; None if it is to show the store's.

        Who has the key's own lock decides. It has assigned it, or may be changing it in place: not
        if the lock is `fresh`. Else all that have assigned it.
        """
        mine = []
        for transaction, hold in self.open():
            values = [hold.mine[key].value] if key in hold.mine else []
            if key in hold.names:
                is_in_hand = key not in fresh and _home._entry(key) in transaction.handed
                return values if values or is_in_hand else None
            mine += values
        return mine or None

    def show(self, fresh: Collection[str] = ()) -> None:
        """Have all keys show what the store has, but for those that a transaction here has."""
        flags, new = {}, {}
        for key in list(self.pending):
            entry = _home._entry(key)
            mine = self.kept(key, fresh)
            if mine is None:
                flags[entry] = self.pending.pop(key)
                if not self.is_shown(key):
                    new[entry] = self.opened(key)
                    self.own.discard(key)
                    self.mark_shown(key)
                    if key in self.refused:  # a run may be able to read it
                        flags[entry] = flags[entry]._replace(is_forced=1)
            elif mine and self.shown.get(key) == b"" and id(entry.value) not in map(id, mine):
                new[entry] = mine[-1]  # and another's was dropped
        if not flags and not new:
            return
        for transaction, hold in self.open():
            for entry in new.keys() & transaction.handed:
                if entry.key not in hold.mine:
                    hold.replaced.append((entry.key, entry.value, entry.fingerprint))
        items = [(entry, value, _home._fingerprint(value)) for entry, value in new.items()]
        of_all = _Flags(*map(max, zip(_Flags(0), *flags.values(), strict=True)))
        flags[_home._key_set] = of_all._replace(is_forced=0)
        with _home._master:
            changed = _home._replace(items, self.replaced)
            told = {e: f for e, f in flags.items() if f.is_told and (f.is_forced or e in changed)}
            for entry, (_, _, depth, in_place) in told.items():
                how = _home._Change("changed", "another process", depth, in_place)
                _home._publish([entry], how, None)
        _home._notify(told)

    def mark_shown(self, key: str) -> None:
        self.shown.pop(key, None)
        if key in self.committed:
            self.shown[key] = self.committed[key]

    def mark_written(self, hold: _Hold) -> None:
        """Note of which keys the shown object is what was just committed."""
        for key, mine in hold.mine.items():
            self.pending.setdefault(key, _Flags())
            if mine.data == self.committed.get(key) and mine.value is _home._entry(key).value:
                self.mark_shown(key)
                self.own.add(key)
                self.refused.pop(key, None)
                del self.pending[key]

    def opened(self, key: str) -> Any:
        """Give the committed value; _MISSING if there is none, or it is refused (P7)."""
        self.refused.pop(key, None)
        data = self.committed.get(key)
        if data is None:
            return _MISSING
        if not hmac.compare_digest(_sealed(self.settings, key, data[_SEAL:]), data):
            self.refused[key] = "it is not signed with this application's secret for this key"
        else:
            reader = _Unpickler(data[_SEAL:])
            try:
                return reader.load()
            except BaseException as error:  # a module that it needs may even call sys.exit()
                made_of = ", ".join(dict.fromkeys(reader.names)) or "no class"
                reason = f"{type(error).__name__}: {error}; it is made of {made_of}"
                self.refused[key] = f"it cannot be read here ({reason})"
        _logger.error('server_state["%s"] has no value here: %s', key, self.refused[key])
        return _MISSING

    def found(self, key: str) -> Any:
        """Give the value of a key that has none here; ValueError if it has one in the store.

        A class that could not be imported when the value came may be there now.
        """
        if key not in self.refused:
            return _MISSING
        with self.turn(needs_store=False):
            self.put_back([key])
        if key not in self.refused:
            return _home._entry(key).value
        hint = "if a class has changed, let its __setstate__ take the old state; or assign it anew"
        raise ValueError(f'server_state["{key}"]: {self.refused[key]}. What to do: {hint}.')

    def put_back(self, keys: Iterable[str]) -> None:
        """Have keys show again what the store has: the objects that they have are not as good."""
        for key in keys:
            self.shown[key] = b""
            self.pending[key] = _Flags(is_forced=1)

    # Locks.
    def open(self) -> list[tuple[Any, _Hold]]:
        """Give the transactions that are under way, each with what it holds."""
        with _home._master:
            return list(self.holds.items())

    def hold(self, transaction: Any) -> _Hold:
        with _home._master:
            token = f"{self.engine.process} {next(self.numbers)}"
            return self.holds.setdefault(transaction, _Hold(token))

    def acquire(self, lock: Any, blocking: bool, timeout: float) -> bool:
        """Take a lock of this process, and the same names in the store.

        While others hold the store's, ours is let go of: its holder may have to take it again.
        """
        transaction = _home._local.transaction
        hold = self.hold(transaction)
        names = {*lock._names} - self.local
        until = time.monotonic() + timeout if timeout >= 0 else _NEVER
        is_ours = False
        try:
            while True:
                bell = self.bell
                wait = 0.0
                left = max(0.0, until - time.monotonic())
                if lock._lock.acquire(blocking, min(left, BELL) if blocking else -1):
                    try:
                        wait = self.take_names(names, hold)
                        is_ours = names <= hold.names
                    finally:
                        if not is_ours:
                            lock._lock.release()
                elif self.away is not None and names:
                    raise self.unreachable()
                left = until - time.monotonic()
                if is_ours or not blocking or left <= 0:
                    return is_ours
                bell.wait(min(wait, left, BELL))
        except Exception as error:
            # What is half-done is not to be committed. (The error itself would keep its thread's
            # transaction alive.)
            hold.error = type(error)(*error.args)
            raise
        finally:
            if not is_ours and transaction.depth == 0:
                self.holds.pop(transaction, None)

    def take_names(self, names: set[str], hold: _Hold) -> float:
        """Take locks in the store, or give the seconds after which it is worth another try."""
        wanted = sorted(names - hold.names)
        if not wanted:
            return 0.0
        with self.turn():
            asked = (self.position, wanted, hold.token, LEASE, sorted(hold.names))
            answer = self.ask(self.engine.acquire, *asked, next(self.numbers))
            if answer.status == "ok":
                for _, other in self.open():  # whose lease has run out
                    if not other.names.isdisjoint(wanted):
                        other.names.difference_update(wanted)
                        other.error = _lost("lost", ", ".join(wanted))
                        self.put_back(wanted)
                hold.names.update(wanted)
            self.take(answer.news)
            self.show(wanted)
        if answer.status not in ("ok", "held"):
            raise _lost(answer.status, answer.detail)
        return float(answer.detail or 0)

    # Changes.
    def sealed(self, key: str, value: Any) -> bytes | None:
        """Give a value as it travels; TypeError and ValueError if it cannot (P8)."""
        if value is _MISSING:
            return None
        data = _pickled(key, value)
        if len(data) > self.engine.largest:
            hint = f"the store takes {self.engine.largest:,}; keep it in a file, or in parts"
            raise ValueError(f'server_state["{key}"] has {len(data):,} bytes: {hint}.')
        return _sealed(self.settings, key, data)

    def write(self, new: Mapping[str, Any], only_new: bool = False) -> Any:
        """Commit an assignment or a removal, then make it; under a lock, its release commits."""
        shared = {key: value for key, value in new.items() if key not in self.local}
        if not shared:
            return _home._assign(new, only_new)
        transaction = _home._local.transaction
        is_open = transaction.depth > 0
        hold = self.hold(transaction) if is_open else _Hold()
        flags = _Flags(_home._quiet.get() is None, 0, _home._change_here()[0].depth)
        is_removal = [value is _MISSING for value in new.values()] == [True]
        is_decided = only_new or is_removal  # by what the key has
        before = _MISSING
        if is_open:
            for key, value in shared.items():
                self.sealed(key, value)
        with self.turn(needs_store=not is_open):
            while True:
                if is_decided:
                    (key,) = new
                    before = self.value(key, hold)
                    if only_new and before is not _MISSING:
                        # `_assign` notes who has it in hand.
                        return _home._assign(new, only_new) if self.is_shown(key) else before
                    if is_open and is_removal and before is _MISSING:
                        return before
                for key, value in shared.items():
                    self.keep(hold, key, _Mine(value, flags, is_decided))
                if is_open:
                    break
                with suppress(LockLostError):
                    self.send(hold)
                    break
                hold = _Hold()  # others were faster, and we know now what they did
            given = _home._assign(new)
            if not is_open:
                self.mark_written(hold)
            else:
                self.shown.update(dict.fromkeys(shared, b""))
            return before if is_decided else given

    def value(self, key: str, hold: _Hold) -> Any:
        """Give what a transaction has assigned to a key, else what the store has.

        ValueError if that cannot be read.
        """
        if key in hold.mine:
            return hold.mine[key].value
        self.found(key)
        self.show()
        return _home._entry(key).value if self.is_shown(key) else self.opened(key)

    def keep(self, hold: _Hold, key: str, mine: _Mine) -> None:
        """Note what a transaction is to commit."""
        before = hold.mine.get(key, mine)
        flags = mine.flags.after(before.flags)
        is_guarded = mine.is_guarded or before.is_guarded
        hold.mine[key] = mine._replace(flags=flags, is_guarded=is_guarded)
        self.pending.setdefault(key, _Flags())
        self.refused.pop(key, None)

    def send(self, hold: _Hold, forced: Iterable[Any] = ()) -> None:
        """Commit what is to be committed, and free the locks; take over what others changed."""
        flags = _Flags(1, 1, _home._change_here()[0].depth).text()
        keys = {entry.key for entry in forced} - self.local - {None}
        changes = {key: Change("force", None, flags) for key in keys}
        for key, mine in hold.mine.items():
            kind = "guarded" if mine.is_guarded else "set"
            data = mine.data or self.sealed(key, mine.value)
            hold.mine[key] = mine._replace(data=data)
            changes[key] = Change(kind, data, mine.flags.text())
        if not changes and not hold.names:
            return
        asked = (self.position, hold.token, sorted(hold.names), changes, next(self.numbers))
        answer = self.ask(self.engine.commit, *asked)
        self.take(answer.news)
        if answer.status == "ok":
            self.position = answer.position
            for key, mine in hold.mine.items():
                self.note(key, mine.data, hold)
        elif answer.status != "done":  # else the news have it
            raise _lost(answer.status, answer.detail)

    def commit(self, transaction: Any) -> None:
        """Commit all that was changed under locks as one, and let go of them in the store.

        If that fails, this process shows again what the store has, and the error is raised.
        """
        hold = self.hold(transaction)
        try:
            self.find_changed(transaction, hold)
            with self.turn():
                self.check(hold)
                self.send(hold, transaction.changed)
                del self.holds[transaction]
                self.mark_written(hold)
        except Exception as error:
            mine, hold.mine = hold.mine, {}
            with self.turn(needs_store=False):
                del self.holds[transaction]
                self.put_back(mine)
            with suppress(ConnectionError), self.turn():  # else the leases end by themselves
                self.send(hold)
            if mine or not isinstance(error, ConnectionError):
                raise
        finally:
            self.holds.pop(transaction, None)
            self.ring()
        super().commit(transaction)

    def find_changed(self, transaction: Any, hold: _Hold) -> None:
        """Find what a transaction has changed in place."""
        how, run = _home._change_here()
        in_place = run.cause.in_place + 1 if run else 0
        is_told = _home._quiet.get() is None and in_place <= _home._IN_PLACE_CHAIN
        flags = _Flags(is_told, 0, how.depth, in_place)
        for entry in transaction.in_hand():
            key, value = entry.key, entry.value
            if key in hold.mine or key in self.local or value is _MISSING:
                continue
            data: bytes | None = b""
            reason = hold.error
            try:
                data = self.sealed(key, value)
            except (TypeError, ValueError) as error:
                reason = error
            # Now, since others may have taken it in hand while it was pickled.
            if self.is_changed(entry, data) and not self.is_left_to_others(entry, hold):
                hold.error = reason
                hold.mine[key] = _Mine(value, flags, key not in hold.names, data)

    def is_left_to_others(self, entry: Any, mine: _Hold) -> bool:
        """Whether another transaction here may be changing a value: the end of the last commits it.

        But who has the value's own lock does not wait for those who have not.
        """
        key = entry.key
        for transaction, hold in self.open():
            is_in_hand = key not in mine.names and (entry in transaction.handed or key in hold.mine)
            if hold is not mine and (is_in_hand or key in hold.names):
                return True
        return False

    def is_changed(self, entry: Any, data: bytes | None) -> bool:
        """Whether a shown object is not any more what it was read from, or written as."""
        if data == self.shown.get(entry.key):
            return False
        if entry.key in self.own:
            return True
        # Another process may have written the same in other bytes.
        return bool(_home._fingerprint(entry.value).content != entry.fingerprint.content)

    def check(self, hold: _Hold) -> None:
        """LockLostError if others have changed what this transaction changed without its lock."""
        if hold.error is not None and hold.mine:
            raise hold.error
        for key, value, fingerprint in hold.replaced:
            if _home._fingerprint(value).content != fingerprint.content:
                raise _conflict(key)
        for key, mine in hold.mine.items():
            if mine.data is not None and mine.is_guarded and not self.is_shown(key):
                raise _conflict(key)

    def offer(self, entry: Any, value: Any, change: Any, is_told: bool) -> bool:
        """Commit a change in place that no lock guarded; False if it was dropped (P4)."""
        key = entry.key
        transaction = _home._local.transaction
        if key in self.local:
            return True
        is_open = transaction.depth > 0
        hold = self.hold(transaction) if is_open else _Hold()
        flags = _Flags(is_told, 0, change.depth, change.in_place)
        with self.turn(needs_store=False):
            try:
                data = self.sealed(key, value)
                if data == self.shown.get(key) or self.is_left_to_others(entry, hold):
                    return True  # a release was faster, or is to come
                self.keep(hold, key, _Mine(value, flags, key not in hold.names))
                if is_open:  # its end commits it
                    return True
                if entry.value is not value or not self.is_shown(key):
                    raise _conflict(key)
                with self.turn():
                    self.send(hold)
                    self.mark_written(hold)
                return True
            except (ConnectionError, LockLostError, TypeError, ValueError) as error:
                self.put_back([key])
                message = 'A change in place of server_state["%s"] was dropped: %s'
                _logger.warning(message, key, error)
                return False

    def force(self, entry: Any) -> None:
        """Have readers in all processes rerun; under a lock, its release does it."""
        if _home._local.transaction.depth == 0:
            with self.turn():
                self.send(_Hold(), [entry])


def _conflict(key: str) -> LockLostError:
    hint = "all that was changed with it is dropped; take the key's own lock, here and there"
    return LockLostError(f'server_state["{key}"] was changed elsewhere meanwhile: {hint}.')


def _lost(status: str, detail: Any) -> Exception:
    if status == "conflict":
        return _conflict(detail)
    if status == "lost":
        hint = "all that was changed under it is dropped; hold it for less long"
        return LockLostError(f'The lock "{detail}" ran out while it was held: {hint}.')
    return ConnectionError("The store of server_state has had a later request: try again.")


# --- Streamlit ---
def _run_lost_tabs(before: Collection[Any]) -> Collection[Any]:
    """Run the page of tabs whose process has died: their browsers ask for no run here.

    Give those that have never run; only those run that were given `before`.
    """
    runtime: Any = sys.modules["streamlit.runtime"]
    found: weakref.WeakSet[Any] = weakref.WeakSet()
    for info in runtime.get_instance()._session_mgr.list_active_sessions():
        app = info.session
        if app._scriptrunner is None and app._client_state.ByteSize() == 0:
            found.add(app)
            if app in before:
                app._event_loop.call_soon_threadsafe(_run_page, app)
    return found


def _run_page(app: Any) -> None:
    """Run a session that has never run; to be called on its event loop."""
    if app._scriptrunner is None:  # else its browser has asked meanwhile
        _home._request_rerun(app, None)


from engines_draft import _Redis as Redis  # noqa: E402
from engines_draft import _SQLite as SQLite  # noqa: E402
