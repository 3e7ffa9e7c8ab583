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
import operator
import os
import pickle
import secrets
import sqlite3
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from importlib import import_module
from itertools import count
from pathlib import Path
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
LOG_LENGTH = 1000  # changes that the log keeps, about; who missed more loads everything
UNFAIR = 1.0  # seconds after which who waits for a lock goes before those who come later

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
            hint = "call it above the first use, in each page of pages/, and restart the server"
            raise RuntimeError(f"server_state has keys already ({keys}): {hint}.")
        try:
            store = _Store(engine(where, name, secrets.token_hex(8)), settings)
            _home._store = store  # values may be of modules that connect, too, or set keys
            store.load()
            for work in (store.listen, store.renew, store.watch):
                threading.Thread(target=work, name="server_state_store", daemon=True).start()
        except BaseException as error:
            _home._store = alone
            if not isinstance(error, OSError):
                raise
            hint = "is it running, and are the address and the password right?"
            message = f"connect() cannot reach the store ({error}): {hint}"
            raise ConnectionError(message) from error


def _go_on_alone() -> None:
    """A forked child has a copy of the state, as without a store, and may connect itself.

    The parent's store is kept, since its connections are not to be closed here.
    """
    if type(_home._store) is not _home._Alone:
        _home._store_of_parent = _home._store
        _home._store = _home._Alone()
    _home._inspector.is_running = False  # a fork has but one thread
    _home._connecting = threading.RLock()


if "_connecting" not in vars(_home):
    _home._connecting = threading.RLock()
    _home._store_of_parent = None
    if hasattr(os, "register_at_fork"):  # Windows has none
        os.register_at_fork(after_in_child=_go_on_alone)


# --- Values as they travel ---
def _signature(settings: Any, key: str, data: bytes) -> bytes:
    """Sign what was pickled; without a secret, it is as good as the file that it stands in."""
    _, name, secret, _ = settings
    if not secret:
        return bytes(_SEAL)
    head = f"{len(name)} {len(key)} {name}{key}".encode("utf-8", "surrogatepass")
    return hmac.digest(secret, head + data, "sha256")


_SEAL = 32  # bytes of a signature, before what was pickled


def _named(module: str, name: str) -> Any:
    """Give a class or function. Of the app's script it is the latest: each run makes them anew.

    A run that has just begun has not yet made it: then it is that of an earlier run. A page of
    Streamlit's is a module `__main__` of its own that stands nowhere: then one of it is running.
    """
    known = _home._known
    for place in _modules(module):
        with suppress(AttributeError):
            known[module, name] = operator.attrgetter(name)(place)
            break
    if (module, name) not in known:
        raise AttributeError(f"module {module} has no {name}")
    return known[module, name]


def _modules(name: str) -> Iterator[Any]:
    if name not in sys.modules:  # else a thread may be importing it, and wait for us
        import_module(name)  # does not wait for the package that a module is in
    yield sys.modules[name]
    frame = sys._getframe().f_back
    while frame is not None:
        if frame.f_globals.get("__name__") == name:
            yield types.SimpleNamespace(**frame.f_globals)
        frame = frame.f_back


# Values name this function, by the one name that it has in every process.
_named.__module__ = _home.__name__
vars(_home).setdefault("_named", _named)
vars(_home).setdefault("_known", {})  # what was named, by module and name


_BY_NAME = type, types.FunctionType


class _Pickler(pickle.Pickler):
    """Pickles what each run of the app's script makes anew by its name, in always the same bytes.

    And all else that is not any more what stands at its name, as in a module that was reloaded.
    """

    def reducer_override(self, obj: Any) -> Any:
        if not issubclass(type(obj), _BY_NAME):
            return NotImplemented
        name = obj.__module__, obj.__qualname__
        if obj is _home._named or "<" in name[1]:  # made by a function
            return NotImplemented
        _home._known.setdefault(name, obj)
        if name[0] != "__main__" and _named(*name) is obj:
            return NotImplemented
        return _home._named, name


class _Unpickler(pickle.Unpickler):
    """Notes what a value is made of, for the error if some of it has changed."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.names: list[str] = []
        self.missing: tuple[str, str] | None = None

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (_home.__name__, "_named"):
            return self.find_class  # in place of `_named`, which it calls
        self.names.append(f"{module}.{name}")
        self.missing = module, name
        found = _named(module, name)
        self.missing = None
        return found


def _dumps(value: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file, 5).dump(value)
    return file.getvalue()


def _pickled(key: str, value: Any) -> bytes:
    """TypeError, which names the key and says what to do, for what cannot travel (P8)."""
    try:
        with suppress(RuntimeError):  # another thread is just adding to it
            return _dumps(value)
        return _dumps(value)
    except BaseException as error:  # Polars panics with such
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


@lru_cache
def _flags(text: bytes) -> _Flags:
    with suppress(TypeError, ValueError):  # else somebody else wrote there
        return _Flags(*map(int, text.split()))
    return _Flags()


# --- What an engine is asked and answers ---
# An engine is a class with five operations, each of which takes effect as a whole or not at all.
# For another store (PostgreSQL, say) write one more, and have `connect` choose it. Its objects are
# made with where, name and process (an id); it has `process`, `needs_secret`, `largest` (bytes of a
# value), and a static `place(where)` that is the same for all ways to write a place.
# - since(position, number=0) -> News: what has changed; of the position b"", all that there is.
#   With a number, requests of this process with a smaller one are "old" from now on.
# - acquire(position, names, token, lease, held, number) -> Answer: all locks or none, for so many
#   seconds, if all that are `held` are still the token's. Who has waited for longer than UNFAIR
#   goes before others that hold nothing yet. Of a request that is asked again (the number is the
#   last one's) it takes nothing: it is "ok" if the token has all of them, else "held". And it is
#   "held" if the position is not known: a request may come late, after the store was emptied.
# - commit(position, token, locks, changes, number) -> Answer: if all locks are the token's it makes
#   all changes, or none, notes the number, and frees the locks. Without changes it frees what is
#   the token's. Bytes that are there already are no change. Its news are from before its changes.
# - renew(names, token, lease): for those locks that are still the token's.
# - wait(position, seconds): until there is news, or somebody has freed a lock that others wait for.
# - interrupt(): from another thread, ends a request that takes too long.
# Of a position that is not known, news are all, and have no values. It must not be taken for known
# in a store that went back in time and then went on: no two changes have the same.
# Names are any str. OSError means that nobody knows whether a request took effect: it is asked
# again, with its number. `since`, `acquire` and `commit` are asked one after the other; `wait` and
# `renew` beside them, each from a thread of its own. `test_engines.py` tells whether it is right.
class News(NamedTuple):
    """What has changed in the store since a position."""

    position: bytes  # of the store, before what the request itself changes
    is_all: bool  # the position asked for is unknown there
    flags: list[tuple[str, bytes]]  # each change in order: the key, and what was said of it
    values: dict[str, bytes | None]  # what the changed keys have now; None if they are gone


class Change(NamedTuple):
    """What a commit is to do with a key."""

    kind: str  # "set"; "guarded": if nobody has changed it since the position; "force": tell it too
    data: bytes | None  # None removes it, but is nothing to do of "force"; it is never empty
    flags: bytes


class Answer(NamedTuple):
    """What came of a request. All but "ok" have changed nothing."""

    status: str  # "ok"; "done" before; "old": a later one was seen; "lost"; "conflict"; "held"
    news: News
    # lost: the lock; conflict: the key; held: seconds until another try (0: it is not known).
    detail: str | float = ""
    position: bytes = b""  # after a commit that is "ok"


# --- The store ---
class _Mine(NamedTuple):
    """What a transaction has assigned to a key, or changed in place."""

    value: Any
    flags: _Flags
    is_guarded: bool  # it was decided by what the key had: `setdefault`, `pop`, a change in place
    data: bytes | None = None  # as it travels, of a change in place, and of all that was sent


class _Shown(NamedTuple):
    """What a shown object was when it was read from the store, or written there."""

    data: bytes | None = None  # None: the store had none; b"": it is a transaction's, and not there
    # Of its fingerprint, if it was read: pickled here, it may have other bytes than those.
    content: Any = _MISSING
    is_stale: bool = False  # the key is to show the store's value anew

    def is_still(self, value: Any, data: bytes | None) -> bool:
        """Whether it has not been changed in place since; `data` is how it would travel now."""
        if data == self.data or self.content is _MISSING:
            return data == self.data
        return bool(_home._fingerprint(value).content == self.content)


class _Hold:
    """What a thread's transaction holds in the store, and what it is to commit there."""

    def __init__(self, token: str = "") -> None:
        self.token = token
        self.names: set[str] = set()  # of locks
        self.mine: dict[str, _Mine] = {}
        self.forced: set[str] = set()
        self.error: Exception | None = None  # why nothing of it can be committed any more
        # What it had in hand when another process's value took its place: of a key the first one,
        # and (True) the latest.
        self.replaced: dict[tuple[str, bool], tuple[Any, _Shown]] = {}
        self.until = time.monotonic() + 6 * LEASE  # from then on nobody leaves it what they change


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
        self.shown: dict[str, _Shown] = {}
        # Keys that may not show what they should, and what readers are to know when they do.
        self.pending: dict[str, _Flags] = {}
        self.refused: dict[str, str] = {}  # keys whose value could not be read, and why
        self.missing: dict[str, tuple[str, str]] = {}  # and which class they lack, if it is that
        # Of changes in place that are left to another transaction here, which commits them; they
        # are offered again, since its thread may end without that.
        self.left: dict[str, _Flags] = {}
        self.assigning: Mapping[str, Any] = {}  # by the thread that has the turn
        # What a turn is to let go of after its release: a `__del__` may take locks.
        self.let_go: list[Any] | None = None
        self.until = 0.0  # when the call that has the turn asks no more
        # By transaction, and gone with it when its thread dies.
        self.holds: weakref.WeakKeyDictionary[Any, _Hold] = weakref.WeakKeyDictionary()
        self.numbers = count(1)
        self.away: str | None = None  # why
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
        let_go = self.let_go
        is_outermost = let_go is None
        if is_outermost:
            let_go = self.let_go = []
        try:
            if needs_store and self.away is not None:
                raise self.unreachable()
            self.until = until
            try:
                yield
            finally:
                self.show()
        finally:
            if is_outermost:
                self.let_go = None
            self.mutex.release()

    def unreachable(self) -> ConnectionError:
        reason = self.away or f"busy for {DEADLINE} s"
        hint = "a change that was under way may or may not have been made; try again later"
        return ConnectionError(f"The store of server_state does not answer ({reason}): {hint}.")

    def ask(self, operation: Callable[..., Any], *asked: Any) -> Any:
        """Ask the engine, and once more if it does not answer: it knows a request by its number."""
        if self.limit < _NEVER:
            hint = "have it done by a thread"
            raise RuntimeError(f"A __del__ uses server_state in the middle of a request: {hint}.")
        for is_first in (True, False):
            seconds = self.until - time.monotonic()
            if is_first or seconds > 0:
                patience = PATIENCE if seconds < _NEVER else _NEVER
                self.limit = time.monotonic() + min(patience, max(seconds, WATCH))
                try:
                    return operation(*asked)
                except OSError as error:
                    reason = str(error) or repr(error)  # the error itself would keep our callers
                except Exception as error:
                    raise ConnectionError(f"The store of server_state refuses: {error}.") from error
                finally:
                    self.limit = _NEVER
        self.away = reason
        raise self.unreachable()

    def load(self) -> None:
        """Show what the store has, and nothing else."""
        with self.turn():
            inherited = _home._present.keys() - self.local  # in a fork
            self.put_back(inherited, _home._change_here()[0])
            self.take(News(b"", True, [], {}))

    def hear(self) -> None:
        """Take over what is new, and find out whether the store is back."""
        number = 0
        if self.away is not None:  # then nobody else asks, and nobody is to wait for us
            with self.mutex:
                pass  # who had the turn when it went away may ask once more
            # P5: what is still under way from before comes too late. That it answers is all that
            # we want to know here; the same is asked again below, in our turn.
            number = next(self.numbers)
            self.until = _NEVER
            self.ask(self.engine.since, self.position, number)
        with self.turn(needs_store=number == 0):  # else it has gone away while we waited for it
            if number > 0:
                self.until = _NEVER  # it may be away for us since its news take so long
            news = self.ask(self.engine.since, self.position, number)
            self.away = None
            self.take(news)
            for key, name in list(self.missing.items()):
                with suppress(BaseException):
                    _named(*name)  # by now the script has made it
                    self.read_anew(key)
            for key in list(self.left):  # the thread that it was left to may be gone
                entry = _home._entry(key)
                is_told, _, *place = self.left.pop(key, _Flags())
                change = _home._Change("changed in place", "several", *place)
                self.offer(entry, entry.value, change, is_told)

    def listen(self) -> None:
        """Hear of other processes' changes: the bell only says that there is news."""
        said = -60.0  # when we last said that it is away
        while True:
            before = self.position
            try:
                self.engine.wait(before, BELL)
                with self.mutex:
                    pass  # a commit of ours that is under way brings the news, too
                if self.position == before:
                    self.hear()
                else:  # a commit of ours has brought what there was
                    time.sleep(PAUSE)
            except Exception as error:
                if time.monotonic() > said + 60:
                    said = time.monotonic()
                    _logger.warning("server_state asks its store again: %s", error)
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
        with suppress(Exception):  # the next time, or the lock is lost
            for _, hold in self.open():
                if hold.names:
                    self.engine.renew(list(hold.names), hold.token, LEASE)

    def watch(self) -> None:
        """Give up requests that take too long, also where answers come drop by drop (P6)."""
        lost: Collection[Any] = ()
        while True:
            time.sleep(WATCH)
            with suppress(Exception):  # no Streamlit here, or one that lacks something
                if time.monotonic() > self.limit:
                    self.engine.interrupt()
                lost = _run_lost_tabs(lost)

    # What comes from the store.
    def take(self, news: News) -> None:
        """Note what the store has; `show` shows it."""
        values = news.values
        if news.is_all:
            until, self.until = self.until, _NEVER
            news = self.ask(self.engine.since, b"")
            self.until = max(until, time.monotonic() + PATIENCE)
            values = {**dict.fromkeys(self.committed), **news.values}
        for key, text in news.flags or [(key, b"") for key in values]:
            if key not in self.local:
                self.pending[key] = _flags(text).after(self.pending.get(key))
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
        shown = self.shown.get(key, _Shown())
        return shown.data == self.committed.get(key) and not shown.is_stale

    def kept(self, key: str, fresh: Collection[str]) -> list[Any] | None:
        """Give what transactions here have assigned to a key; None if it is to show the store's.

        Who has the key's own lock decides, alone: it has assigned the key, or may be changing what
        is shown in place ([]: that is to stay), but not if the lock is `fresh`. Else all that have.
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
        flags, was, items = {}, {}, []
        said = time.monotonic()
        keys = list(self.pending)
        for number, key in enumerate(keys):
            if time.monotonic() > said + 1:
                said = time.monotonic()
                message = "server_state reads the store: %d values, and %d are left."
                _logger.warning(message, number, len(keys) - number)
            if key not in self.pending:
                continue  # a value that was read has set a key
            entry = _home._entry(key)
            shown = self.shown.get(key, _Shown())
            mine = self.kept(key, fresh)
            if mine is None:
                flags[entry] = self.pending.pop(key)  # while it is read: it may use the state
                if self.is_shown(key):
                    continue
                was_refused = key in self.refused
                data = self.committed.get(key)
                value = self.opened(key)
                if self.committed.get(key) is not data:
                    continue  # what was read has assigned it
                self.pending[key] = flags[entry]
                if key in self.refused and not was_refused:  # a run may be able to read it
                    flags[entry] = flags[entry]._replace(is_forced=1)
            elif mine and shown.data == b"" and id(entry.value) not in map(id, mine):
                value = mine[-1]  # what another one had assigned is shown, and was dropped
            else:
                continue
            fingerprint = _home._fingerprint(value)
            items.append((entry, value, fingerprint))
            was[entry] = entry.value, shown
        items = [item for item in items if item[0].key in self.pending]  # else it is shown by now
        for entry, _, fingerprint in items:
            if entry in flags:
                del self.pending[entry.key]
                self.mark_shown(entry.key, fingerprint.content)
        if not items and not any(flag.is_forced for flag in flags.values()):
            return
        of_all = _Flags(*map(max, zip(_Flags(0), *flags.values(), strict=True)))
        flags[_home._key_set] = of_all._replace(is_forced=0)
        how = _home._Change("changed", "another process", *of_all[2:])
        with _home._master:
            changed = set(_home._replace(items, self.let_go))
            changed |= _home._inspector.suspected.keys()  # they may have been changed back
            told = [e for e, f in flags.items() if f.is_told and (f.is_forced or e in changed)]
            _home._publish(told, how, None)
        for transaction, hold in self.open():  # also those that took it in hand just before
            for entry, *_ in items:
                if entry in transaction.handed and entry.key not in hold.mine:
                    hold.replaced[entry.key, (entry.key, False) in hold.replaced] = was[entry]
        _home._notify(told)

    def mark_shown(self, key: str, content: Any = _MISSING) -> None:
        """Note that a key shows the store's value; and its content, if that was read."""
        self.shown.pop(key, None)
        self.left.pop(key, None)
        if key in self.committed:
            self.shown[key] = _Shown(self.committed[key], content)

    def mark_stale(self, key: str) -> None:
        """Note that a key may not show the store's value."""
        self.shown[key] = self.shown.get(key, _Shown())._replace(is_stale=True)

    def mark_written(self, hold: _Hold) -> None:
        """Note of which keys the shown object is what was just committed."""
        for key, mine in hold.mine.items():
            self.pending.setdefault(key, _Flags())  # who has its lock may show the store's
            if mine.data == self.committed.get(key) and mine.value is _home._entry(key).value:
                self.mark_shown(key)
                self.refused.pop(key, None)
            else:  # others may have changed it since, or removed it again
                self.mark_stale(key)

    def opened(self, key: str) -> Any:
        """Give the committed value; _MISSING if there is none, or it is refused (P7)."""
        self.refused.pop(key, None)
        self.missing.pop(key, None)
        data = self.committed.get(key)
        if data is None:
            return _MISSING
        pickled = data[_SEAL:]
        if not hmac.compare_digest(_signature(self.settings, key, pickled), data[:_SEAL]):
            self.refused[key] = "it is not signed with this process's secret for this key"
        else:
            reader = _Unpickler(pickled)
            try:
                return reader.load()
            except BaseException as error:  # a module that it needs may even call sys.exit()
                made_of = ", ".join(dict.fromkeys(reader.names)) or "no class"
                reason = f"{type(error).__name__}: {error}; it is made of {made_of}"
                self.refused[key] = f"it cannot be read here ({reason})"
                if reader.missing is not None:
                    self.missing[key] = reader.missing
        # No more than that: the script may not yet have defined a class; who reads it is told.
        _logger.debug('server_state["%s"] has no value yet: %s', key, self.refused[key])
        return _MISSING

    def found(self, key: str) -> Any:
        """Give the value of a key that has none here; ValueError if it has one in the store.

        A class that could not be imported when the value came may be there now. And a value that
        is just being read may ask for what has come with it.
        """
        is_on_its_way = key in self.pending and self.mutex._is_owned()  # type: ignore[attr-defined]
        if key not in self.refused and not is_on_its_way:
            return _MISSING
        with self.turn(needs_store=False):
            self.read_anew(key)
        reason = self.refused.get(key)
        if reason is None:
            return _home._read(key, False)  # and note who has it in hand
        hint = (
            "give all processes the same secret; let the __setstate__ of a class that has changed "
            "take the old state; or assign it anew"
        )
        raise ValueError(f'server_state["{key}"]: {reason}. What to do: {hint}.')

    def read_anew(self, key: str) -> None:
        self.mark_stale(key)
        self.pending.setdefault(key, _Flags())

    def put_back(self, keys: Iterable[str], change: Any) -> None:
        """Have keys show again what the store has, in place of what a change has left there."""
        for key in keys:
            self.mark_stale(key)
            self.pending[key] = _Flags(1, 1, change.depth, change.in_place)

    # Locks.
    def open(self) -> list[tuple[Any, _Hold]]:
        """Give the transactions that are under way, each with what it holds."""
        if not self.holds:
            return []
        with _home._master:
            return list(self.holds.items())

    def hold(self, transaction: Any) -> _Hold:
        """Give what a transaction of this thread holds."""
        hold = self.holds.get(transaction)
        if hold is None:
            hold = _Hold(f"{self.engine.process} {next(self.numbers)}")
            with _home._master:
                self.holds[transaction] = hold
        return hold

    def here(self) -> tuple[bool, _Hold]:
        """Say whether this thread is in a transaction, and give what that holds, or a new one."""
        transaction = _home._local.transaction
        is_open = transaction.depth > 0 and transaction in self.holds  # else it is just ending
        return is_open, self.hold(transaction) if is_open else _Hold()

    def drop(self, transaction: Any) -> None:
        """Forget what a transaction holds: it has ended."""
        with _home._master:
            self.holds.pop(transaction, None)

    def acquire(self, lock: Any, blocking: bool, timeout: float) -> bool:
        """Take a lock of this process, and the same names in the store.

        While others hold the store's, ours is let go of: its holder may have to take it again.
        """
        transaction = _home._local.transaction
        names = {*lock._names} - self.local
        # A value that is being read or sent waits for nobody, and joins no transaction.
        is_within = self.mutex._is_owned()  # type: ignore[attr-defined]
        is_within = is_within and not names <= self.here()[1].names
        if is_within and (transaction.depth > 0 or transaction in self.holds or lock.locked()):
            what = f"The lock of {lock._names} is asked for while a value is read or sent"
            raise RuntimeError(f"{what}: import the value's module in the script.")
        hold = self.hold(transaction)
        until = time.monotonic() + timeout if timeout >= 0 else _NEVER
        is_ours = False
        try:
            while True:
                bell = self.bell
                wait = BELL
                seconds = max(0.0, until - time.monotonic())
                if lock._lock.acquire(blocking, min(seconds, BELL) if blocking else -1):
                    try:
                        wait = self.take_names(names, hold)
                        is_ours = names <= hold.names
                    finally:
                        if not is_ours:
                            lock._lock.release()
                elif self.away is not None and names:
                    raise self.unreachable()
                seconds = until - time.monotonic()
                if is_ours or (wait > 0 and (not blocking or seconds <= 0)):
                    return is_ours
                bell.wait(min(wait, seconds, BELL))
        except Exception as error:
            hold.error = _bare(error)  # what is half-done is not to be committed
            raise
        finally:
            if not is_ours and transaction.depth == 0:
                self.drop(transaction)

    def take_names(self, names: set[str], hold: _Hold) -> float:
        """Take locks in the store, or give the seconds until another try (0: it is not known)."""
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
                        self.put_back(wanted, _home._change_here()[0])
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
        return _signature(self.settings, key, data) + data

    def write(self, new: Mapping[str, Any], only_new: bool = False) -> Any:
        """Commit an assignment or a removal, then make it; under a lock, its release commits."""
        shared = {key: value for key, value in new.items() if key not in self.local}
        if not shared:
            return _home._assign(new, only_new)
        is_open, hold = self.here()
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
            again = [key for key in shared if _home._entry(key).value is shared[key]]
            self.assigning = shared
            try:
                given = _home._assign(new)
            finally:
                self.assigning = {}
            if is_open:
                for key in shared:
                    self.shown[key] = _Shown(b"", _home._entry(key).fingerprint.content)
                    self.refused.pop(key, None)
            else:
                self.mark_written(hold)
                for key in again:  # it may have been changed in place while it was sent
                    change = _home._change_here()[0]
                    self.offer(_home._entry(key), shared[key], change, flags.is_told)
            return before if is_decided else given

    def value(self, key: str, hold: _Hold) -> Any:
        """Give what a transaction has assigned to a key, else what the store has.

        ValueError if that cannot be read.
        """
        if key in hold.mine:
            return hold.mine[key].value
        self.show()
        value = _home._entry(key).value if self.is_shown(key) else self.opened(key)
        return self.found(key) if value is _MISSING and key in self.refused else value

    def keep(self, hold: _Hold, key: str, mine: _Mine) -> None:
        """Note what a transaction is to commit."""
        before = hold.mine.get(key, mine)
        flags = mine.flags.after(before.flags)
        is_guarded = mine.is_guarded or before.is_guarded
        hold.mine[key] = mine._replace(flags=flags, is_guarded=is_guarded)
        self.pending.setdefault(key, _Flags())

    def send(self, hold: _Hold) -> None:
        """Commit what is to be committed, and free the locks; take over what others changed."""
        forced = _Flags(1, 1, _home._change_here()[0].depth)
        changes = {key: Change("force", None, forced.text()) for key in hold.forced}
        for key, mine in hold.mine.items():
            kind = "guarded" if mine.is_guarded else "set"
            data = mine.data or self.sealed(key, mine.value)
            hold.mine[key] = mine._replace(data=data)
            flags = mine.flags.after(self.left.get(key))
            if key in hold.forced:
                flags = flags.after(forced)
                if data and not mine.is_guarded:
                    kind = "force"  # also if it has these bytes already
            changes[key] = Change(kind, data, flags.text())
        if not changes and not hold.names:
            return
        asked = (self.position, hold.token, sorted(hold.names), changes, next(self.numbers))
        answer = self.ask(self.engine.commit, *asked)
        self.take(answer.news)
        if answer.status not in ("ok", "done"):
            raise _lost(answer.status, answer.detail)
        if answer.status == "ok" and not answer.news.is_all:  # else what was heard has it already
            self.position = answer.position
            told = {key for key, text in answer.news.flags if _flags(text).is_told}
            for key, mine in hold.mine.items():
                self.note(key, mine.data, hold)
                if key in told and not mine.flags.is_told:  # ours takes its place, and is quiet
                    self.pending[key] = self.pending[key]._replace(is_forced=1)

    def commit(self, transaction: Any) -> None:
        """Commit all that was changed under locks as one, and let go of them in the store.

        If that fails, this process shows again what the store has, and the error is raised.
        """
        hold = self.hold(transaction)
        until = time.monotonic() + DEADLINE
        try:
            with self.turn():
                self.find_changed(transaction, hold)
                self.check(hold)
                self.send(hold)
                self.drop(transaction)
                self.mark_written(hold)
        except Exception as error:
            with self.turn(needs_store=False):
                self.find_changed(transaction, hold, is_failing=True)
                is_lost = bool(hold.mine or hold.forced or hold.replaced)
                self.drop(transaction)
                self.put_back(hold.mine, _home._change_here()[0])
            hold.mine.clear()
            hold.forced.clear()
            if time.monotonic() < until:  # only its locks are left; else their leases end
                with suppress(ConnectionError), self.turn():
                    self.send(hold)
            if is_lost or not isinstance(error, ConnectionError):
                raise
        finally:
            self.drop(transaction)
            self.ring()
            # Even if it failed: others may have left to it what they have changed in place.
            super().commit(transaction)

    def find_changed(self, transaction: Any, hold: _Hold, is_failing: bool = False) -> None:
        """Find what a transaction has changed in place, and is to commit."""
        how, _, cause = _home._change_here()
        in_place = cause.in_place + 1
        is_told = _home._quiet.get() is None and in_place <= _home._IN_PLACE_CHAIN
        flags = _Flags(is_told, 0, how.depth, in_place)
        for entry in list(transaction.in_hand()):
            key, value = entry.key, entry.value
            if key in hold.mine or key in self.local or value is _MISSING:
                continue
            data: Any = _MISSING
            refusal: Exception | None = None
            try:
                data = self.sealed(key, value)
            except (TypeError, ValueError) as error:
                refusal = _bare(error)
            if self.shown.get(key, _Shown()).is_still(value, data):
                continue
            # Now, since others may have taken it in hand while it was pickled.
            if is_failing or not self.leave(entry, hold, flags):
                hold.error = hold.error or refusal
                self.keep(hold, key, _Mine(value, flags, key not in hold.names, data))

    def leave(self, entry: Any, mine: _Hold, flags: _Flags) -> bool:
        """Leave a change in place to another transaction here that may be changing the value, too.

        The last of them commits it. But who has the value's own lock leaves it only to another who
        has. False if there is none.
        """
        key = entry.key
        for transaction, hold in self.open():
            is_in_hand = entry in transaction.handed or key in hold.mine
            is_in_hand = is_in_hand and key not in mine.names and time.monotonic() < hold.until
            if hold is not mine and (is_in_hand or key in hold.names):
                self.left[key] = flags.after(self.left.get(key))
                with _home._master:
                    transaction.handed.add(entry)
                return True
        return False

    def check(self, hold: _Hold) -> None:
        """LockLostError if others have changed what this transaction changed without its lock."""
        if hold.error is not None and hold.mine:
            raise _bare(hold.error)
        for (key, _), (value, before) in hold.replaced.items():
            if not before.is_still(value, self.sealed(key, value)):
                raise _conflict(key)

    def offer(self, entry: Any, value: Any, change: Any, is_told: int) -> bool:
        """Commit a change in place that no lock guarded; False if it was dropped (P4)."""
        key = entry.key
        if key in self.local:
            return True
        is_open, hold = self.here()
        flags = _Flags(is_told, 0, change.depth, change.in_place)
        with self.turn(needs_store=False):
            newest = hold.mine[key].value if key in hold.mine else entry.value
            if newest is not value or key in self.assigning:  # a newer one takes its place
                return False
            try:
                if self.leave(entry, hold, flags):
                    return True
                if self.sealed(key, value) == self.shown.get(key, _Shown()).data:
                    return True  # a release was faster
                is_guarded = key not in {*hold.names, *hold.mine}
                self.keep(hold, key, _Mine(value, flags, is_guarded))
                if is_open:  # its end commits it
                    return True
                if not self.is_shown(key):
                    raise _conflict(key)
                if self.away is not None:
                    raise self.unreachable()
                self.send(hold)
                self.mark_written(hold)
                return True
            except (ConnectionError, LockLostError, TypeError, ValueError) as error:
                self.put_back([key], change)  # with its place in a chain: a run may try again
                reason = str(error)
        message = 'A change in place of server_state["%s"] was dropped: %s'
        _logger.warning(message, key, reason)  # an app may take locks to keep what is logged
        return False

    def force(self, entry: Any) -> None:
        """Have readers in all processes rerun; under a lock, its release does it."""
        is_open, hold = self.here()
        if entry.key not in self.local:
            hold.forced.add(entry.key)
        if hold.forced and not is_open:
            with self.turn():
                self.send(hold)


def _bare(error: Exception) -> Exception:
    """Give the like of an error: with its traceback it would keep a thread's transaction alive."""
    return type(error)(*error.args)


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


# --- SQLite ---
_APPLICATION, _FORMAT = 0x73657276, 1  # the file's application_id and user_version
_TICK = 0.01  # seconds between two looks for what other processes did
_SCHEMA = f"""
BEGIN IMMEDIATE;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_FORMAT};
CREATE TABLE IF NOT EXISTS state (app, key, data, PRIMARY KEY (app, key));
-- What has changed, or was forced. A position is that of one entry, and never comes twice: its
-- number, and who made it.
CREATE TABLE IF NOT EXISTS log (app, number INTEGER, position, key, is_changed, flags,
    PRIMARY KEY (app, number)) WITHOUT ROWID;
-- Locks; and as the lock "" of a process of its own, the number of its last request.
CREATE TABLE IF NOT EXISTS locks (app, name, token, until, PRIMARY KEY (app, name)) WITHOUT ROWID;
-- Who was told that a lock is held, and when they first and last asked.
CREATE TABLE IF NOT EXISTS line (app, name, token, since, seen,
    PRIMARY KEY (app, name, token)) WITHOUT ROWID;
COMMIT;
"""
_SETTINGS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA wal_autocheckpoint = 4000; -- pages: fewer take up to a sixth of small changes' time
PRAGMA journal_size_limit = 1048576;
SELECT 1 FROM log; -- makes the write-ahead log
"""
# Without waiting for those who read: writers would have to wait, too.
_SHORTEN = f"""
PRAGMA busy_timeout = 0;
PRAGMA wal_checkpoint(TRUNCATE);
PRAGMA busy_timeout = {int(PATIENCE * 1000)};
"""
# The position now; whether another one is known: that very entry is there, and before the first one
# there was nothing; and the number of this process's last request.
_WHERE = """
SELECT coalesce((SELECT position FROM log WHERE app = :app ORDER BY number DESC LIMIT 1), x'30'),
CASE WHEN :position = x'30' THEN coalesce((SELECT min(number) FROM log WHERE app = :app), 1) = 1
ELSE EXISTS (SELECT 1 FROM log WHERE app = :app AND position = :position
    AND number = CAST(CAST(:position AS TEXT) AS INTEGER)) END,
coalesce((SELECT token FROM locks WHERE app = :process), 0)
"""
# The latest change, and who has which locks. (Others also write that they wait for one.)
_BELL = """
SELECT max(number), NULL FROM log WHERE app = :app
UNION ALL SELECT name, token FROM locks WHERE app = :app
"""
_ENTRIES = """
SELECT key, flags FROM log
WHERE app = :app AND number > CAST(CAST(:position AS TEXT) AS INTEGER) ORDER BY number
"""
_VALUES = """
SELECT changed.key, data FROM (
    SELECT DISTINCT key FROM log
    WHERE app = :app AND number > CAST(CAST(:position AS TEXT) AS INTEGER) AND is_changed
) AS changed LEFT JOIN state ON app = :app AND state.key = changed.key
"""
# What changes nothing is not told.
_TELL = """
INSERT INTO log
SELECT :app, entry, CAST(entry || :mark AS BLOB), :key, :is_change AND changes(), :flags
FROM (SELECT coalesce(max(number), 0) + 1 AS entry FROM log WHERE app = :app)
WHERE :is_forced OR changes() -- of the statement before
"""
_SET = """
INSERT INTO state VALUES (:app, :key, :data)
ON CONFLICT (app, key) DO UPDATE SET data = :data WHERE data IS NOT :data
"""
_REMOVE = "DELETE FROM state WHERE app = :app AND key = :key"
_TRIM = f"""
DELETE FROM log WHERE app = :app
AND number <= (SELECT max(number) FROM log WHERE app = :app) - {LOG_LENGTH}
"""
# P5: requests with a smaller number come too late from now on.
_NOTE = "INSERT OR REPLACE INTO locks VALUES (:process, '', :number, :now + 600)"
# A lease that lies further ahead than a lease can is from before the machine was started.
_IS_OURS = """
SELECT 1 FROM locks WHERE app = :app AND name = :name AND token = :token
AND until BETWEEN :now AND :now + :lease
"""
# Who has asked for longer than UNFAIR, and lately, goes before others; but not before those who
# have other locks, since these may be what is waited for. Who gave up reserves nothing for longer:
# those who give up after a second would keep out each other for ever.
_OTHERS = """
SELECT until - :now FROM locks WHERE app = :app AND name = :name AND token <> :token
AND until BETWEEN :now AND :now + :lease
UNION ALL SELECT :unfair FROM line WHERE app = :app AND name = :name AND token <> :token
AND NOT :has_more AND since < seen - :unfair AND seen > :now - :unfair
AND since < (SELECT coalesce(min(since), :now) FROM line WHERE app = :app AND token = :token)
"""
_TAKE = "INSERT OR REPLACE INTO locks VALUES (:app, :name, :token, :now + :seconds)"
_RENEW_LOCK = """
UPDATE locks SET until = :now + :seconds
WHERE app = :app AND name = :name AND token = :token AND until > :now
"""
_FREE = "DELETE FROM locks WHERE app = :app AND name = :name AND token = :token"
_LINE_UP = """
INSERT INTO line VALUES (:app, :name, :token, :now, :now)
ON CONFLICT (app, name, token) DO UPDATE SET seen = :now
"""
_LEAVE_LINE = """
DELETE FROM line WHERE app = :app AND (token = :token OR seen NOT BETWEEN :now - 2 AND :now)
"""


class SQLite:
    """One file on a disk of this machine, for any number of its processes."""

    needs_secret = False  # whoever can write the file can write the app
    largest = 999_000_000  # bytes of a value

    def __init__(self, where: Any, name: str, process: str) -> None:
        self.process = process
        self._path = self.place(where)
        names = {"app": _name(name), "process": _name(f"{name} {process}")}
        self._ours = {**names, "lease": LEASE, "unfair": UNFAIR}
        # Guards the connection, for as long as one request takes; re-entrant for a `__del__`.
        self._mutex = threading.RLock()
        self._connection: Any = None  # None: it is to be opened
        self._files: list[int] = []
        self._size = 0
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        until = time.monotonic() + PATIENCE
        while True:
            try:
                with self._file(is_new=True):
                    self._run("DELETE FROM locks WHERE until NOT BETWEEN :now AND :now + 600")
                    self._run(_TRIM)  # processes that write but little do not
                break
            except (RuntimeError, TimeoutError):  # another process may be making it just now
                if time.monotonic() > until:
                    raise
                time.sleep(_TICK)
        if hasattr(os, "register_at_fork"):
            release = self._mutex.release
            hooks = {"after_in_parent": release, "after_in_child": release}
            os.register_at_fork(before=self._let_go, **hooks)

    @staticmethod
    def place(where: Any) -> Any:
        return os.path.realpath(where)

    # The file.
    def _open(self, is_new: bool) -> Any:
        """Open the file, if it is one of ours; another program's is not touched."""
        uri = Path(self._path).as_uri()
        is_empty = os.path.getsize(self._path) == 0  # before the look: another process may make it
        with closing(sqlite3.connect(f"{uri}?immutable=1", uri=True)) as look:
            (application,) = look.execute("PRAGMA application_id").fetchone()
            (version,) = look.execute("PRAGMA user_version").fetchone()
        if application != _APPLICATION and not (is_new and is_empty):
            hint = "give another path, or put a copy of ours back"
            raise RuntimeError(f"{self._path} is empty, or another program's: {hint}.")
        if version > _FORMAT:
            hint = "copy that version's server_state_store.py, or give another path"
            raise RuntimeError(f"{self._path} was written by a newer version: {hint}.")
        options: Any = {"isolation_level": None, "check_same_thread": False}
        connection: Any = sqlite3.connect(f"{uri}?mode=rw", PATIENCE, uri=True, **options)
        try:
            connection.executescript(_SCHEMA * is_new + _SETTINGS)
        except BaseException:
            connection.close()
            raise
        return connection

    def _find_files(self) -> tuple[list[int], int]:
        """Say which files there are, the database, its log, and that one's index; and its size."""
        database = os.stat(self._path)
        files = [database.st_ino]
        with suppress(FileNotFoundError):
            for end in ("-wal", "-shm"):
                files.append(os.stat(self._path + end).st_ino)
        return files, database.st_size

    def _remove_log(self) -> None:
        """Remove what the file before has left: it must not get into this one."""
        for end in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.remove(self._path + end)

    def _let_go(self) -> None:
        """Close the file, and keep it closed: a fork would take the locks on it for its own."""
        self._mutex.acquire()
        self._is_good = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _file(self, is_new: bool = False) -> Iterator[None]:
        """Have the file as it is now. TimeoutError while another program keeps it."""
        with self._mutex:
            try:
                files, size = self._find_files()
                if not self._is_good or files != self._files or size < self._size:
                    self._is_good = False
                    is_replaced = files[:1] != self._files[:1]
                    if is_replaced and files[1:] and files[1:2] == self._files[1:2]:
                        self._remove_log()
                    before = self._connection
                    if before and not is_replaced:  # or both would be at the same locks
                        before.close()
                    self._connection = self._open(is_new)
                    if before:  # until now its inodes were not to be given to others
                        before.close()
                    self._files, _ = self._find_files()
                    if self._files[:1] != files[:1]:  # replaced, just while it was opened
                        raise TimeoutError(f"{self._path} was replaced")
                    # How often others have written, and what, when we last asked.
                    self._heard: Any = None
                    self._rung: Any = None
                    self._is_good = True
                self._size = size
                yield
            except sqlite3.Error as error:
                if str(error) in ("database is locked", "interrupted"):
                    raise TimeoutError(f"{self._path}: {error}") from error
                self._is_good = False
                raise RuntimeError(f"{self._path}: {error}") from error

    _is_good = False

    @contextmanager
    def _request(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
        """Have all statements of a request take effect, or none."""
        with self._file():
            self._connection.execute(begin)
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _run(self, statement: str, **values: Any) -> list[Any]:
        for name, value in values.items():
            if isinstance(value, str):
                values[name] = _name(value)
        values = {"now": time.monotonic(), **self._ours, **values}
        rows: list[Any] = self._connection.execute(statement, values).fetchall()
        return rows

    # The operations.
    def since(self, position: bytes, number: int = 0) -> News:
        with self._request("BEGIN IMMEDIATE" if number else "BEGIN"):
            news, seen = self._news(position)
            self._heard, self._rung = self._run("PRAGMA data_version"), self._run(_BELL)
            if number > seen:
                self._run(_NOTE, number=number)
            if not position:
                rows = self._run("SELECT key, data FROM state WHERE app = :app")
                news.values.update((_key(name), data) for name, data in rows)
            return news

    def acquire(
        self, position: bytes, names: Any, token: str, lease: float, held: Any, number: int
    ) -> Answer:
        with self._request():
            news, seen = self._news(position)
            if number < seen:
                return Answer("old", news)
            self._run(_NOTE, number=number)
            lost = self._lost(held, token)
            if number == seen:
                is_ours = not lost and not self._lost(names, token)
                return Answer("ok", news) if is_ours else Answer("held", news, 0.0)
            if news.is_all:
                return Answer("held", news, 0.0)
            if lost:
                return Answer("lost", news, lost[0])
            waits = []
            for name in names:
                waits += self._run(_OTHERS, name=name, token=token, has_more=bool(held))
            for name in names:
                step = _LINE_UP if waits else _TAKE
                self._run(step, name=name, token=token, seconds=lease)
            self._run(_LEAVE_LINE, token="" if waits else token)
            return Answer("held", news, *max(waits)) if waits else Answer("ok", news)

    def commit(
        self, position: bytes, token: str, locks: Any, changes: dict[str, Change], number: int
    ) -> Answer:
        with self._request():
            news, seen = self._news(position)
            if number <= seen:
                return Answer("done" if number == seen else "old", news)
            for name in self._lost(locks, token) if changes else ():
                return Answer("lost", news, name)
            for key, change in changes.items():
                if change.kind == "guarded" and (news.is_all or key in news.values):
                    return Answer("conflict", news, key)
            self._run(_NOTE, number=number)
            for name in locks:
                self._run(_FREE, name=name, token=token)
            for key, (kind, data, flags) in changes.items():
                is_forced = kind == "force"
                is_change = not is_forced or data is not None
                values = {"key": key, "is_change": is_change, "data": data, "flags": flags}
                if is_change:
                    self._run(_REMOVE if data is None else _SET, **values)
                mark = f" {self.process} {number}"
                self._run(_TELL, mark=mark, is_forced=is_forced, **values)
            if number % 61 == 0:  # now and then
                self._run(_TRIM)
            ((end, *_),) = self._run(_WHERE, position=b"")
            return Answer("ok", news, position=end)

    def renew(self, names: Any, token: str, lease: float) -> None:
        with self._request():
            for name in names:
                self._run(_RENEW_LOCK, name=name, token=token, seconds=lease)

    def wait(self, position: bytes, seconds: float) -> None:
        with self._file():
            pass  # it is looked for but once: that costs as much as all the looks into it
        until = time.monotonic() + seconds
        while True:
            with self._mutex:
                if not self._is_good:
                    return  # the next request opens it
                version = self._run("PRAGMA data_version")
                is_quiet = version == self._heard or self._run(_BELL) == self._rung
                if is_quiet:  # else it stays so until we have asked
                    self._heard = version
            if not is_quiet or time.monotonic() > until:
                break
            time.sleep(_TICK)
        if is_quiet and os.path.getsize(f"{self._path}-wal") > 2**20:
            with self._file():
                self._is_good = False  # if it is interrupted
                self._connection.executescript(_SHORTEN)
                self._is_good = True

    def interrupt(self) -> None:
        with suppress(AttributeError, sqlite3.Error):  # there is none, or one that is closed
            self._connection.interrupt()

    # What a request is made of.
    def _news(self, position: bytes) -> tuple[News, int]:
        """Give the news, and the number of this process's last request."""
        ((current, is_known, seen),) = self._run(_WHERE, position=position)
        news = News(current, not is_known, [], {})
        if is_known and current != position:
            rows = self._run(_ENTRIES, position=position)
            news.flags.extend((_key(name), text) for name, text in rows)
            rows = self._run(_VALUES, position=position)
            news.values.update((_key(name), data) for name, data in rows)
        return news, seen

    def _lost(self, names: Any, token: str) -> list[str]:
        return [name for name in names if not self._run(_IS_OURS, name=name, token=token)]


def _name(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _key(name: bytes) -> str:
    try:
        return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # none of ours
        return name.decode("utf-8", "replace")


# --- Redis and Valkey ---
# KEYS: 1 the values, 2 the log of changed names, 3 the bell for waiting lockers, 4 who waits,
# 5 the number of this process's last request; then the locks.
# ARGV: 1 our position in the log, 2 the request's number.
_SINCE = """
local values, log, bell, line, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local position, number = ARGV[1], tonumber(ARGV[2])
local changed = {}  -- by name, since our position
-- A position is the id of an entry, and who made it: an id is a time, and may come again.
local author = '#' .. done .. ' ' .. number
local function at(entry)
  return entry and entry[1] .. ' ' .. entry[2][2]
end
local function since()
  local last = at(redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1])
  last = last or redis.call('XADD', log, '*', '', author) .. ' ' .. author
  if last == position then
    return {position}
  end
  local id = position:match('^%S*')
  if position == '' or at(redis.call('XRANGE', log, id, id)[1]) ~= position then
    return {last, 1, {}, {}}
  end
  local flags, current = {}, {}
  for _, entry in ipairs(redis.call('XRANGE', log, '(' .. id, '+')) do
    for i = 1, #entry[2], 2 do
      local name, text = entry[2][i], entry[2][i + 1]
      if text:sub(1, 1) == '=' and not changed[name] then
        changed[name] = true
        current[#current + 1] = name
        current[#current + 1] = redis.call('HGET', values, name)
      end
      if text:sub(1, 1) ~= '#' then
        flags[#flags + 1] = name
        flags[#flags + 1] = text:sub(2)
      end
    end
  end
  return {last, 0, flags, current}
end
for i, kind in ipairs({'hash', 'stream', 'stream', 'hash', 'string'}) do
  local there = redis.call('TYPE', KEYS[i]).ok
  if there ~= kind and there ~= 'none' then
    local hint = ' is of another program: give another name, or another database'
    return redis.error_reply(KEYS[i] .. hint)
  end
end
local news = since()
local seen = tonumber(redis.call('GET', done) or 0)
-- P5: requests with a smaller number come too late from now on.
local function note()
  redis.call('DEL', done)  -- which a full store lets through, and then the rest of a script, too
  redis.call('SET', done, number, 'EX', 600)
end
local function answer(status, detail, last)
  return {status, detail, last or news[1], news}
end
-- Give the first of the locks KEYS[6] to KEYS[last] that is not the token's.
local function not_ours(last)
  for i = 6, last do
    if redis.call('GET', KEYS[i]) ~= ARGV[3] then
      return KEYS[i]
    end
  end
end
"""
_SYNC = (
    _SINCE
    + """
if number > seen then
  note()
end
local rung = redis.call('XREVRANGE', bell, '+', '-', 'COUNT', 1)[1]
return {rung and rung[1] or '0', news}
"""
)

# P2: several names all or none. ARGV: 3 token, 4 lease in ms, 5 how many of the locks must be ours
# already, 6 after how many seconds who waits goes before others (but not before one who has other
# locks, since he may be waiting for those).
_ACQUIRE = (
    _SINCE
    + """
local token, held, unfair = ARGV[3], tonumber(ARGV[5]), tonumber(ARGV[6])
if number < seen then
  return answer('old', '')
end
note()
if number == seen then
  return answer(not_ours(#KEYS) and 'held' or 'ok', '0')
end
if news[2] == 1 then
  return answer('held', '0')
end
if not_ours(5 + held) then
  return answer('lost', not_ours(5 + held))
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local mine = redis.call('HGET', line, token)
local entry = {mine and cmsgpack.unpack(mine)[1] or now, now}  -- since, seen, names
local wanted = {}
local wait = 0
for i = 6 + held, #KEYS do
  wanted[KEYS[i]] = true
  entry[#entry + 1] = KEYS[i]
  local holder = redis.call('GET', KEYS[i])
  if holder and holder ~= token then
    wait = math.max(wait, redis.call('PTTL', KEYS[i]), 1)
  end
end
local others = redis.call('HGETALL', line)
for i = 1, #others, 2 do
  local other = cmsgpack.unpack(others[i + 1])
  if other[2] < now - 2 then
    redis.call('HDEL', line, others[i])
  elseif held == 0 and other[1] < entry[1] and other[1] < other[2] - unfair
      and other[2] > now - unfair then
    for place = 3, #other do
      if wanted[other[place]] then
        wait = math.max(wait, unfair * 1000)
      end
    end
  end
end
if wait > 0 then
  redis.call('HSET', line, token, cmsgpack.pack(entry))
  redis.call('PEXPIRE', line, 2000)
  return answer('held', tostring(wait / 1000))
end
redis.call('HDEL', line, token)
for i = 6, #KEYS do
  redis.call('SET', KEYS[i], token, 'PX', ARGV[4])
end
return answer('ok', '')
"""
)

# P3: nothing is changed unless all locks are still ours. P5: a number takes effect once.
# ARGV: 3 token, 4 length of the log; then for each change its name, kind, value and flags.
# The log's flags begin with "=" for a key that has changed, else with "!".
_COMMIT = (
    _SINCE
    + """
if number <= seen then
  return answer(number == seen and 'done' or 'old', '')
end
if #ARGV > 4 and not_ours(#KEYS) then
  return answer('lost', not_ours(#KEYS))
end
for i = 5, #ARGV, 4 do
  if ARGV[i + 1] == 'guarded' and (changed[ARGV[i]] or news[2] == 1) then
    return answer('conflict', ARGV[i])
  end
end
local has_values = false
for i = 5, #ARGV, 4 do
  has_values = has_values or ARGV[i + 2] ~= ''
end
if has_values then  -- then a full store is to refuse it
  redis.call('SET', done, number, 'EX', 600)
else
  note()
end
local entry = {'', author}
local last = news[1]
for i = 5, #ARGV, 4 do
  local name, kind, value, mark = ARGV[i], ARGV[i + 1], ARGV[i + 2], '='
  local before = redis.call('HGET', values, name)
  if value == '' and kind ~= 'force' then  -- it is to be removed
    mark = redis.call('HDEL', values, name) == 1 and '=' or ''
  elseif value == '' or before == value then
    mark = kind == 'force' and '!' or ''
  else
    redis.call('HSET', values, name, value)
  end
  if mark ~= '' then
    entry[#entry + 1] = name
    entry[#entry + 1] = mark .. ARGV[i + 3]
  end
  if #entry > 2 and (#entry == 1002 or i + 4 > #ARGV) then
    last = redis.call('XADD', log, 'MAXLEN', '~', ARGV[4], '*', unpack(entry)) .. ' ' .. author
    entry = {'', author}
  end
end
local is_freed = false
for i = 6, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[3] then
    is_freed = redis.call('DEL', KEYS[i]) == 1
  end
end
if is_freed and redis.call('EXISTS', line) == 1 then
  redis.call('XADD', bell, 'MAXLEN', 1, '*', '', '')
end
return answer('ok', '', last)
"""
)

# P2: a lease is made longer for its holder only. KEYS: locks; ARGV: token, lease in ms.
_RENEW = """
for i = 1, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[1] then
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
  end
end
"""


class Redis:
    """One server, for processes of any number of machines."""

    needs_secret = True
    largest = 512 * 2**20 - 1024  # bytes of a value

    def __init__(self, where: Any, name: str, process: str) -> None:
        self.process = process
        self._client = _client(where)
        self._waiting_client = _client(where)  # `interrupt` must not end its calls
        self._prefix = _name(f"{{{name}}}:")  # braces: one slot of a cluster
        parts = ("values", "log", "bell", "line", f"done:{process}")
        self._keys = [self._prefix + part.encode() for part in parts]
        scripts = (_SYNC, _ACQUIRE, _COMMIT)
        self._scripts = {text: self._client.register_script(text) for text in scripts}
        self._rung: Any = "0"  # the last ring of the bell that we know of
        self._run(_SYNC, (), b"", 0)
        with suppress(Exception):  # a hosted store may not say
            policy = self._client.config_get("maxmemory-policy")["maxmemory-policy"]
            if policy not in ("noeviction", b"noeviction"):
                message = "The store may drop values (maxmemory-policy is %s): set it to noeviction"
                _logger.warning(message, policy)

    @staticmethod
    def place(where: Any) -> Any:
        given = _client(where).connection_pool.connection_kwargs
        options = {"host": "localhost", "port": 6379, "db": 0, **given}
        return tuple(str(options.get(part)) for part in ("host", "port", "path", "db", "username"))

    def since(self, position: bytes, number: int = 0) -> News:
        self._rung, answer = self._run(_SYNC, (), position, number)
        news = _news(answer)
        if not position:  # they may be newer than the position: then that is told once more
            values = self._call(self._client.hgetall, self._keys[0])
            news.values.update((_key(name), data) for name, data in values.items())
        return news

    def acquire(
        self, position: bytes, names: Any, token: str, lease: float, held: Any, number: int
    ) -> Answer:
        asked = (position, number, token, int(lease * 1000), len(held), UNFAIR)
        return self._answer(self._run(_ACQUIRE, [*held, *names], *asked))

    def commit(
        self, position: bytes, token: str, locks: Any, changes: dict[str, Change], number: int
    ) -> Answer:
        asked: list[Any] = [position, number, token, LOG_LENGTH]
        for key, (kind, data, flags) in changes.items():
            asked += [_name(key), kind, data or b"", flags]
        return self._answer(self._run(_COMMIT, locks, *asked))

    def renew(self, names: Any, token: str, lease: float) -> None:
        locks = [self._lock(name) for name in names]
        asked = (len(locks), *locks, token, int(lease * 1000))
        self._call(self._waiting_client.eval, _RENEW, *asked)

    def wait(self, position: bytes, seconds: float) -> None:
        place = position.partition(b" ")[0] or "0"
        streams = {self._keys[1]: place, self._keys[2]: self._rung}
        self._call(self._waiting_client.xread, streams, 1, int(seconds * 1000))

    def interrupt(self) -> None:
        self._client.connection_pool.disconnect()

    def _run(self, script: str, locks: Any, *asked: Any) -> Any:
        keys = [*self._keys, *map(self._lock, locks)]
        return self._call(self._scripts[script], keys, asked)

    def _lock(self, name: str) -> bytes:
        return self._prefix + b"lock:" + _name(name)

    def _call(self, command: Callable[..., Any], *asked: Any) -> Any:
        """Ask once. ConnectionError if there is no answer: what was asked may have been done."""
        try:
            return command(*asked)
        except Exception as error:
            kinds = {kind.__name__ for kind in type(error).__mro__}
            is_answer = kinds & {"ResponseError", "DataError"} and "ReadOnlyError" not in kinds
            if is_answer:  # all else may be what is left of a connection that was interrupted
                raise RuntimeError(str(error)) from error
            for client in (self._client, self._waiting_client):  # the others are dead, too
                client.connection_pool.disconnect(inuse_connections=False)
            raise ConnectionError(str(error)) from error

    def _answer(self, answer: Any) -> Answer:
        status, detail, position, news = answer
        text = _key(detail.removeprefix(self._lock("")))
        detail = float(text) if status == b"held" else text
        return Answer(status.decode(), _news(news), detail, position)


def _news(answer: Any) -> News:
    position, is_all, flags, values = answer if len(answer) > 1 else (*answer, 0, (), ())
    told = [(_key(name), text) for name, text in zip(flags[::2], flags[1::2], strict=True)]
    pairs = zip(values[::2], values[1::2], strict=True)
    return News(position, bool(is_all), told, {_key(name): data for name, data in pairs})


def _client(redis: Any) -> Any:
    """Make a client that gives up in time and does not repeat of its own accord (P5, P6)."""
    if isinstance(redis, str):
        try:
            import redis as library
        except ImportError:
            import valkey as library  # type: ignore[import-not-found,no-redef,unused-ignore]
        redis = library.from_url(redis)
    pool = redis.connection_pool
    roots = [kind.__module__.partition(".")[0] for kind in type(redis).__mro__]
    package = "valkey" if "valkey" in roots else "redis"
    retry = sys.modules[f"{package}.retry"].Retry
    backoff = sys.modules[f"{package}.backoff"].NoBackoff()
    options = {
        **pool.connection_kwargs,
        "socket_timeout": PATIENCE,
        "socket_connect_timeout": PATIENCE / 2,
        "retry": retry(backoff, 0),
        "retry_on_timeout": False,
        "retry_on_error": [],
        "decode_responses": False,
    }
    make_pool = sys.modules[package].ConnectionPool
    new_pool = make_pool(connection_class=pool.connection_class, **options)
    return type(redis)(connection_pool=new_pool)


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
