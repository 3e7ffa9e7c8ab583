# SPDX-License-Identifier: MIT
"""State shared by all browser sessions of one Streamlit server: copy this file beside your app.

    import streamlit as st
    from server_state import server_state, server_state_lock

    with server_state_lock["count"]:
        server_state.setdefault("count", 0)
        if st.button("+1"):
            server_state["count"] += 1
    st.metric("Count", server_state["count"])

`server_state` is one dictionary for the whole server. A session that shows a value is rerun when another one changes
it, and only then: fragments alone where only fragments show it, and never in the middle of a run.
`server_state_lock[key]` keeps others away from a key, and makes all that is changed in its `with` block one change.
All of it may be used from any thread. Origin: the project "server_state", whose README tells more.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import itertools
import logging
import pickle
import sys
import threading
import time
import types
import weakref
from collections import deque
from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from contextvars import ContextVar
from typing import Any, NamedTuple

__all__ = ["KeyLock", "RerunSuppressedError", "ServerState", "ServerStateLock", "__version__"]
__all__ += ["force_rerun_bound_sessions", "no_rerun", "server_state", "server_state_lock"]
__version__ = "1.0.0"

LOOK_LIMIT = 64 * 2**20  # bytes of a value that are looked at; a larger one is compared by identity

_log = logging.getLogger("server_state")
_MISSING: Any = object()

# The master lock guards what stands below it and what sessions have read, for microseconds: under it none of the app's
# code runs (what is replaced is let go of after the release), nothing of Streamlit's, and no other lock is taken. It is
# re-entrant because the garbage collector may run an app's `__del__`, which may come back here, at any moment.
_master = threading.RLock()
_values: dict[str, Any] = {}
_looks: dict[str, _Look] = {}  # what each value was when it was last assigned or checked
_versions: dict[str | None, int] = {}  # of what was published; None stands for the set of keys
_published: dict[str | None, int] = {}  # since somebody last looked for readers; the link in a chain of reruns
_locks: dict[str, KeyLock] = {}
_clock = itertools.count(1)


class ServerState(MutableMapping[str, Any]):
    """A dictionary, with attribute access, that all sessions of the server share.

    Each single call is atomic, from any thread; for more than one use `server_state_lock`. Values are shared, not
    copied. In a session, what reads a key, the script or the fragment being run, becomes a reader of it.
    """

    def __getitem__(self, key: str) -> Any:
        return _found(_read(_name(key)), key)

    def __setitem__(self, key: str, value: Any) -> None:
        _write({_name(key): value})

    def __delitem__(self, key: str) -> None:
        _found(_write({_name(key): _MISSING}), key)

    def __getattr__(self, key: str) -> Any:
        return _found(_MISSING if key.startswith("_") else _read(key), key, AttributeError)

    def __setattr__(self, key: str, value: Any) -> None:
        if key.startswith("_") or any(key in vars(base) for base in type(self).__mro__):
            raise AttributeError(f'server_state.{key} could not be read back: use server_state["{key}"] = ... instead.')
        _write({key: value})

    def __delattr__(self, key: str) -> None:
        _found(_write({key: _MISSING}), key, AttributeError)

    def __contains__(self, key: object) -> bool:
        return _read(_name(key)) is not _MISSING

    def __iter__(self) -> Iterator[str]:
        return iter(_read_all(only_keys=True))

    def __len__(self) -> int:
        return len(_read_all(only_keys=True))

    def __repr__(self) -> str:
        return f"ServerState({_read_all()!r})"

    def get(self, key: str, default: Any = None) -> Any:
        """Give the value, or `default` if there is none."""
        value = _read(_name(key))
        return default if value is _MISSING else value

    def to_dict(self) -> dict[str, Any]:
        """Give a snapshot as a new dict; the values themselves are not copied."""
        return _read_all()

    def values(self) -> ValuesView[Any]:  # a Mapping's own views look each value up later, when its key may be gone
        return _read_all().values()

    def items(self) -> ItemsView[str, Any]:
        return _read_all().items()

    def setdefault(self, key: str, default: Any = None) -> Any:  # this and the next are not atomic in MutableMapping
        """Give the value; if there is none, set it to `default` first."""
        value = _read(_name(key))
        if value is _MISSING:
            value = _write({_name(key): default}, only_new=True)
        return default if value is _MISSING else value

    def pop(self, key: str, *default: Any) -> Any:
        """Remove the key and give its value, or `default`; KeyError if there is neither."""
        value = _write({_name(key): _MISSING})
        return default[0] if default and value is _MISSING else _found(value, key)

    def popitem(self) -> tuple[str, Any]:
        """Remove the key that was added last and give it with its value; KeyError if there is none."""
        while keys := list(_values):
            if (value := _write({keys[-1]: _MISSING})) is not _MISSING:
                return keys[-1], value
        raise KeyError("server_state is empty: look at len(server_state) before popitem().")

    def update(self, other: Any = (), /, **more: Any) -> None:
        """Set several keys as one change."""
        _write({_name(key): value for key, value in dict(other, **more).items()})

    def clear(self) -> None:
        """Remove all keys as one change."""
        _write(None)


def _found(value: Any, key: object, error: type[Exception] = KeyError) -> Any:
    if value is _MISSING:
        raise error(f'server_state has no key "{key}". Initialise it: server_state.setdefault("{key}", ...)')
    return value


def _name(key: object) -> str:
    if isinstance(key, (str, int)):
        return str.__str__(key) if isinstance(key, str) else str(key)
    raise TypeError(f"A key or lock of server_state is named by a str, not {type(key).__name__}: use str(...) first.")


def _read(key: str | None, here: _Here | None = None) -> Any:
    """Give a value, and note that it is read: by whom, and where to look for changes made in place."""
    here = here or _here()
    with _master:
        value = _values.get(key, _MISSING)  # type: ignore[arg-type]
        if here is not None and here.shows:
            here.run.session.readers[here.fragment] = here.run
            seen, version = here.run.seen.setdefault(here.fragment, {}), _versions.get(key, 0)
            if seen.setdefault(key, version) != version:
                seen[key] = -1  # no version is: it shows an old one, even if the key is removed again
        if here is not None and issubclass(type(value), _CONTAINERS):
            here.run.containers.add(key)
            _unlooked.add(here.run)
    if _transactions and threading.get_ident() in _transactions:
        _transactions[threading.get_ident()].keys.add(key)
    if _is_suppressed():
        _suppressed.get()[1].add(key)
    return value


def _read_all(only_keys: bool = False) -> dict[str, Any]:
    here = _here()
    with _master:
        for key in (None, *(() if only_keys else _values)):
            _read(key, here)
        return _values.copy()


def _write(new: Mapping[str, Any] | None, only_new: bool = False) -> Any:
    """Set keys, or remove those whose value is _MISSING (all for None), as one change; give what the last one held."""
    looks = {key: _look(value) for key, value in (new or {}).items()}
    replaced: list[Any] = [_MISSING]  # kept alive until the master lock is released
    changed: list[str | None] = []
    with _master:
        for key, value in (dict.fromkeys(_values, _MISSING) if new is None else new).items():
            old = _looks.get(key)
            replaced += (old, _values.get(key, _MISSING))
            if value is _MISSING and old is not None:
                del _values[key], _looks[key]
                changed += (key, None)
            elif value is not _MISSING and not (only_new and old is not None):
                _values[key], _looks[key] = value, looks[key]
                changed += (key, None) if old is None else (key,) if old.whole != looks[key].whole else ()
    if not _is_suppressed():
        _publish(changed)
    return replaced[-1]


# --- What counts as a change ---
_SCALARS = (type(None), bool, int, float, complex, str, bytes)
_CONTAINERS = (list, dict, set, bytearray, deque, tuple)
# Objects of these modules are data. Those of the rest of the standard library (threads, queues, files, sockets,
# loggers) and functions are compared by identity; so is what has pickle methods of its own and comes from elsewhere.
_DATA = set("abc array builtins collections contextlib dataclasses datetime decimal enum fractions ipaddress".split())
_DATA |= set("numpy pandas pathlib polars pyarrow random re types typing uuid zoneinfo".split())
_OPAQUE = sys.stdlib_module_names - _DATA
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType)


class _Look(NamedTuple):
    """What a value looks like; equal looks are equal values."""

    whole: Any
    plain: Any  # the same with objects of the app's own classes by identity
    kept: Any = None  # what was compared by identity: as long as it is kept, its id is its own


def _look(value: Any) -> _Look:
    """Look at a value. Never an error: what cannot be looked at is compared by identity."""
    if type(value) in _SCALARS:
        token = (type(value), value if value == value else "nan")
        return _Look(token, token)
    whole = _see(value, own_classes=True)
    plain = _see(value, own_classes=False) if whole and "own" in whole.kinds.values() else whole
    if whole is None or plain is None:
        return _Look(("is", id(value)), ("is", id(value)), value)
    # Taken out of the eyes, which are in cycles and live until the next collection.
    return _Look(whole.hash.digest(), plain.hash.digest(), [vars(eye).pop("kept", None) for eye in (whole, plain)])


def _see(value: Any, own_classes: bool) -> _Eye | None:
    for eye in (_Eye, _Eye, _Eye, _FlatEye, _FlatEye):
        try:
            return eye(value, own_classes)
        except (RuntimeError, ValueError):
            continue  # changed meanwhile by another thread, too deep, a cycle, a set: try again, and flat at last
        except Exception:
            break
    return None


class _Eye(pickle.Pickler):
    """A pickler that looks at a value instead of keeping it, and stops at what is not data.

    It has no memo ("fast"), so that equal values look equal however often the same object stands in them.
    """

    def __init__(self, value: Any, own_classes: bool) -> None:
        super().__init__(self, 5, buffer_callback=lambda buffer: self.write(buffer.raw()))
        self.fast = True
        self.own_classes = own_classes  # whether to look into objects of the app's own classes
        self.kinds: dict[type, str] = {}
        self.kept: list[Any] = []
        self.hash, self.room, self.set_opcodes = hashlib.sha256(), LOOK_LIMIT, False
        self.see(value)

    def see(self, value: Any) -> None:
        self.dump(value)
        if self.set_opcodes and _may_hold_set(value):
            raise ValueError

    def write(self, data: Any) -> None:
        self.room -= len(data)
        if self.room < 0:
            raise OverflowError
        self.set_opcodes |= type(data) is bytes and (b"\x8f" in data or b"\x91" in data)  # or other data
        self.hash.update(b"%d " % len(data) if type(data) is memoryview else b"")
        self.hash.update(data)

    def reducer_override(self, obj: Any) -> Any:
        cls = type(obj)
        if obj is int:
            return NotImplemented  # the callable in all that we make up
        if issubclass(cls, type):
            return int, ("class", obj.__module__, obj.__qualname__)  # by name: each run of a script makes its own anew
        kind = self.kinds.get(cls) or self.kinds.setdefault(cls, _kind(cls))
        if kind == "data" or (kind == "own" and self.own_classes):
            with contextlib.suppress(Exception):
                parts = obj.__reduce_ex__(5)
                if isinstance(parts, tuple):
                    return parts
        self.kept.append(obj)
        return int, ("is", id(obj))


class _FlatEye(_Eye):
    """The same for sets, cycles and any depth, but slower: one object at a time, those inside it by their number."""

    def see(self, value: Any) -> None:
        self.numbers, self.queue = {id(value): 0}, [value]
        for top in self.queue:  # which grows meanwhile
            self.top = top
            if type(top) in (set, frozenset):
                looks = [_look(item) for item in top]
                self.kept += looks
                self.top = (type(top).__name__, *sorted(repr(look.whole) for look in looks))
            self.dump(self.top)
        self.kept += self.queue  # what `__reduce_ex__` made would be gone, and its id another's
        self.queue, self.top = [], None

    def persistent_id(self, obj: Any) -> Any:
        if type(obj) in _SCALARS or obj is self.top:
            return None
        if id(obj) not in self.numbers:
            self.numbers[id(obj)] = len(self.numbers)
            self.queue.append(obj)
        return self.numbers[id(obj)]


def _may_hold_set(value: Any) -> bool:
    """Whether there is a set in a value without cycles; quick for lists, tuples and dicts of scalars."""
    level = [value]
    while kinds := set(map(type, level)).difference(_SCALARS):
        if not kinds <= {list, tuple, dict}:
            return True
        level = gc.get_referents(*(item for item in level if type(item) in kinds))
    return False


def _kind(cls: type) -> str:
    """Whether objects of a class are "data" that pickle can take apart, the app's "own" such, or "opaque"."""
    roots = {base: base.__module__.partition(".")[0] for base in cls.__mro__}
    made_by = next(base for base in roots if "__reduce_ex__" in vars(base) or "__reduce__" in vars(base))
    if roots[made_by] not in _DATA or issubclass(cls, _FUNCTIONS) or _OPAQUE.intersection(roots.values()):
        return "opaque"
    return "data" if roots[cls] in _DATA else "own"


def _check(keys: Iterable[str | None], whole: bool = True, locked: bool = False) -> list[str | None]:
    """Compare values with what they were, take note of what they are, and give the keys of those that changed.

    Unless `whole`, objects of the app's own classes are left out; unless `locked`, what others hold under a lock.
    """
    changed: list[str | None] = []
    me = threading.get_ident()
    for key in keys:
        value = old = new = None  # the last ones are let go of here, not under the lock
        with _master:
            value, old = _values.get(key), _looks.get(key)  # type: ignore[arg-type]
        if key is None or old is None or type(value) in _SCALARS:
            continue
        new = _look(value)
        with _master:
            if _looks.get(key) is not old:
                continue  # assigned meanwhile
            if not locked and any(thread != me and key in t.keys for thread, t in list(_transactions.items())):
                continue  # its release will look
            if new.whole != old.whole if whole else new.plain != old.plain:
                _looks[key] = new
                changed.append(key)
    return changed


# --- The locks ---
# What threads have touched that hold locks: how deep they are in them, the keys named by locks or read (perhaps changed
# in place), and those assigned or removed. Each thread makes, uses and removes its own, so it needs no lock.
_transactions: dict[int, Any] = {}


class KeyLock:
    """A re-entrant lock from `server_state_lock`, to be used in a `with` block, or acquired and released by one thread.

    What its holder changes is told to others when the thread releases the last of its locks.
    """

    def __init__(self, names: tuple[str, ...], locks: list[Any]) -> None:
        self._names, self._rlocks = names, locks

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; wait as long as it takes, or at most `timeout` seconds. Tell whether we have it now."""
        until = time.monotonic() + timeout
        for count, lock in enumerate(self._rlocks):
            if not lock.acquire(blocking, max(0.0, until - time.monotonic()) if timeout > 0 else timeout):
                for taken in self._rlocks[:count]:
                    taken.release()
                return False
        mine = _transactions.get(threading.get_ident()) or types.SimpleNamespace(depth=0, keys=set(), changed=[])
        _transactions[threading.get_ident()] = mine
        mine.depth += 1
        mine.keys.update(self._names)
        return True

    def release(self) -> None:
        """Release the lock, and if it was the thread's last, tell others what changed. RuntimeError if not held."""
        if not all(lock._is_owned() for lock in self._rlocks):
            raise RuntimeError(f"The lock of {self._names} is not held by this thread: acquire() it before release().")
        mine = _transactions[threading.get_ident()]
        mine.depth -= 1
        try:
            if not mine.depth:
                changed = _check(mine.keys, locked=True)
                mine.changed += () if _is_suppressed() else changed
        finally:
            if not mine.depth:
                del _transactions[threading.get_ident()]
            for lock in reversed(self._rlocks):
                lock.release()
        if not mine.depth:
            _publish(mine.changed)

    __enter__ = acquire

    def __exit__(self, *error: object) -> None:
        self.release()


class ServerStateLock:
    """The locks: `server_state_lock["key"]`, `server_state_lock.key`, or several, `server_state_lock["a", "b"]`.

    The same name always gives the same lock, whether or not there is such a key. Several are taken in one fixed order.
    """

    def __getitem__(self, name: str | tuple[str, ...]) -> KeyLock:
        if not isinstance(name, tuple):
            name = _name(name)
            with _master:
                return _locks.get(name) or _locks.setdefault(name, KeyLock((name,), [threading.RLock()]))
        names = sorted(set(map(_name, name)))
        if not names:
            raise TypeError('server_state_lock[()] names no lock: write server_state_lock["a", "b"].')
        return self[names[0]] if len(names) == 1 else KeyLock(tuple(names), [r for n in names for r in self[n]._rlocks])

    def __getattr__(self, name: str) -> KeyLock:
        if name.startswith("_"):
            raise AttributeError(f'server_state_lock.{name} is no lock: write server_state_lock["{name}"].')
        return self[name]


# --- Who reads what ---
class _Run:
    """One run of a session's script, or of fragments in it."""

    def __init__(self, session: _Session, link: int) -> None:
        self.session, self.link = session, link  # its place in a chain of reruns; 0 where a user began it
        self.seen: dict[str | None, dict[str | None, int]] = {}  # versions when first read, by reader, by key
        self.containers: set[str | None] = set()  # read, and perhaps changed in place without a lock


class _Session:
    """What one browser session shows. The readers in it, its script and fragments, are guarded by the master lock."""

    def __init__(self, app: Any) -> None:
        self.app: weakref.ref[Any] = weakref.ref(app)  # Streamlit's own object for it
        self.readers: dict[str | None, _Run] = {}  # the latest run of each, by fragment id; None is the script itself
        self.links: dict[str | None, int] = {}  # of the changes that it is to be rerun for
        self.watch: _Watch | None = None
        self.client_state: Any = None  # as the last run that we know of left it
        self.starting: int | None = None  # the link of the run that we are starting
        self.wait_until = 0.0  # seconds of time.monotonic()

    def stale(self) -> list[str | None]:
        """Which readers show something old."""
        with _master:
            seen = [(fragment, run.seen[fragment].items()) for fragment, run in self.readers.items()]
            return [fragment for fragment, items in seen if any(v != _versions.get(key, 0) for key, v in items)]

    def forget(self, fragments: Iterable[str | None] = ()) -> None:
        """Forget what these fragments, or else all of the script, have read."""
        with _master:
            for fragment in list(fragments) or list(self.readers):
                self.readers.pop(fragment, None)


class _Here(NamedTuple):
    """Where a thread is."""

    run: _Run
    fragment: str | None
    shows: bool  # what is read is shown: not so in a widget's callback, or when the run has been superseded
    own: bool  # it is the run's own thread, not a helper


# The callback of a WeakKeyDictionary takes no lock, and puts the removal off while the dictionary is iterated: the
# garbage collector may call it at any moment, within our own critical section too.
_sessions: weakref.WeakKeyDictionary[Any, _Session] = weakref.WeakKeyDictionary()


# --- How a change travels to the readers ---
class RerunSuppressedError(RuntimeError):
    """A rerun was forced inside `with no_rerun:`."""


# How deep in `no_rerun` we are, and what was read there: perhaps changed in place.
_suppressed: ContextVar[tuple[int, set[str | None]]] = ContextVar("server_state.no_rerun")


class _NoRerun:
    """`with no_rerun:` changes state without telling anybody. Nestable; for the current thread or task only."""

    def __enter__(self) -> None:
        depth, keys = _suppressed.get((0, set()))
        _suppressed.set((depth + 1, keys))

    def __exit__(self, *error: object) -> None:
        depth, keys = _suppressed.get()
        _suppressed.set((depth - 1, keys if depth > 1 else set()))
        if depth == 1:
            _check(keys)


def _is_suppressed() -> bool:
    return _suppressed.get((0, None))[0] > 0


def force_rerun_bound_sessions(key: str) -> None:
    """Rerun all readers of a key but the run that calls this, although nothing was seen to change.

    RerunSuppressedError inside `no_rerun`; KeyError for a key that nobody has set, read or locked.
    """
    key, here = _name(key), _here()
    if _is_suppressed():
        raise RerunSuppressedError(f'A rerun for "{key}" is forced inside no_rerun: move the call out of that block.')
    with _master:
        runs = [(run, run.seen[f]) for s in list(_sessions.values()) for f, run in s.readers.items()]
        readers = [(run, seen) for run, seen in runs if key in seen]
        if not readers and key not in _values and key not in _locks:
            raise KeyError(f'Nobody has set, read or locked "{key}" in server_state: check the name, or set it first.')
        for run, seen in readers:
            seen[key] = seen[key] if here and here.own and run is here.run else -1  # which no version is
        _published[key] = here.run.link + 1 if here and here.own else 0
    _wake()


def _publish(keys: list[str | None], run: _Run | None = None, but_run: bool = True) -> None:
    """Give keys new versions: who has read older ones is rerun, but not the run that makes the change."""
    if not keys:
        return
    if threading.get_ident() in _transactions:
        _transactions[threading.get_ident()].changed += keys  # until the release
        return
    here = None if run else _here()
    run = here.run if here and here.own else run
    with _master:
        for key in dict.fromkeys(keys):
            before, version = _versions.pop(key, 0), 0  # 0 is the version of a key that is not there
            if key is None or key in _values:
                version = _versions[key] = next(_clock)
            for seen in run.seen.values() if run and but_run else ():
                if seen.get(key) == before:  # else it has missed an earlier change, too
                    seen[key] = version
            if _reruns is not None:
                _published[key] = run.link + 1 if run else 0
    _wake()


def _wake() -> None:
    if _reruns is not None:
        _reruns.wake()


_looking = threading.Lock()  # one look at a time
_unlooked: weakref.WeakSet[_Run] = weakref.WeakSet()  # runs that may have changed containers in place


def _look_after(run: _Run) -> None:
    """Find what a run changed in place without a lock. In a thread of its own: no page, loop or click waits for it."""
    with _looking:
        changed = _check(list(run.containers), whole=False)
        with _master:
            _unlooked.discard(run)
            doubtful = {key for other in _unlooked for key in other.containers}  # it may have been another run
    _publish([key for key in changed if key not in doubtful], run)
    _publish([key for key in changed if key in doubtful], run, but_run=False)


# --- Streamlit: every reach into it ---
_STARTED = 0.0007  # seconds until the next run is started: the loop needs a turn to send what this one draws
_CHAIN = 20  # links of a chain of reruns that come at full speed
_CHAIN_WARNING = """Reruns that were started by a change of server_state["%s"] keep changing it, so they are now
delayed, up to a second each. Change it only when a user did something, or inside `with no_rerun:`."""
_warned: set[str | None] = set()
_reruns: _Reruns | None = None
_off = False


class _Reruns:
    """Starts the reruns, one by one, in a task on Streamlit's event loop; only there is a session spoken to."""

    def __init__(self, runtime: Any, loop: Any) -> None:
        self.runtime, self.loop, self.task, self.timer = runtime, loop, None, None
        self.due, self.latest = False, time.monotonic()
        self.held: dict[_Watch, threading.Event] = {}  # runs of ours that have drawn, and wait with their cleaning up

    def wake(self) -> None:
        """Have the task look around. From any thread."""
        if not self.due:
            self.due = True
            with contextlib.suppress(RuntimeError):  # the server has stopped
                self.loop.call_soon_threadsafe(self.begin)

    def begin(self) -> None:
        if self.task is None or self.task.done():
            if self.timer is not None:
                self.timer.cancel()
            self.task = self.loop.create_task(self.work())

    async def work(self) -> None:
        """Rerun who shows something old, then let those runs clean up one by one, until there is nothing to do."""
        delays = [1.0]
        while delays or self.due:
            self.due, self.latest, delays = False, time.monotonic(), []
            with _master:
                published, sessions = _published.copy(), list(_sessions.values())
                _published.clear()
            for session in sessions:
                with _master:
                    seen = [run.seen[fragment] for fragment, run in session.readers.items()] if published else []
                    session.links.update(
                        (key, published[key]) for keys in seen for key in published.keys() & keys.keys()
                    )
                if session.links:
                    delays.append(self.rerun(session))
                    await asyncio.sleep(_STARTED if delays[-1] == _STARTED else 0)
            for watch in [watch for watch in list(self.held) if watch.is_wanted()]:
                self.held.pop(watch, threading.Event()).set()
            if self.held and _STARTED not in delays:
                watch, self.latest = next(iter(self.held)), time.monotonic()
                self.held.pop(watch, threading.Event()).set()
                while not watch.over and time.monotonic() - self.latest < 0.5:
                    await asyncio.sleep(0.003)
            delays = [delay for delay in delays if delay] + [0.003] * bool(self.held)
            if min(delays, default=0) > 0.1 and not self.due:  # not in the task, which is to be there for a new change
                self.timer = self.loop.call_later(min(delays), self.begin)
                return
            await asyncio.sleep(min(delays, default=0))

    def rerun(self, session: _Session) -> float:
        """Rerun a session if it shows something old and nothing is in the way; give the seconds until the next look."""
        try:
            app, stale, link = session.app(), session.stale(), max(session.links.values())
            if app is None or not stale:
                session.links, session.wait_until = {}, 0.0
                return 0
            if app._scriptrunner is not None:  # a rerun would interrupt it; we hear of its end
                return 0.01 if _watch(session, app._scriptrunner, self).over else 0.2
            if not self.runtime.is_active_session(app.id):
                return 0.2
            known, state = session.client_state, app._client_state
            if known is not state and known is not None and known.page_script_hash != state.page_script_hash:
                session.forget()  # a run that never used `server_state` went to another page
                return 0
            if link > _CHAIN:
                for key in session.links.keys() - _warned:
                    _warned.add(key)
                    _log.warning(_CHAIN_WARNING, key)
                session.wait_until = session.wait_until or time.monotonic() + min(1.0, 0.05 * (link - _CHAIN))
                if time.monotonic() < session.wait_until:
                    return 0.05
            if None not in stale:
                if not app._fragment_storage.contains(stale[0]):
                    session.forget(stale[:1])
                    return 0.001
                state = type(state)()
                state.CopyFrom(app._client_state)
                state.fragment_id = stale[0]
            session.wait_until, session.starting = 0.0, link
            try:
                app.request_rerun(state)
                if app._scriptrunner is None:  # Streamlit ignored it: the fragment is gone by now
                    session.forget(stale[:1])
                    return 0.001
                _watch(session, app._scriptrunner, self).begin([] if None in stale else stale[:1], first=True)
            finally:
                session.starting = None
            return _STARTED
        except Exception as error:
            _without_reruns(error)
            return 0


class _Watch:
    """What we know of a script runner, which makes one or more runs in a thread of its own."""

    def __init__(self, session: _Session, runner: Any, reruns: _Reruns) -> None:
        self.session, self.runner, self.reruns = session, weakref.ref(runner), reruns
        self.link = session.starting  # in a chain; None where it is not we who started it
        self.run: _Run | None = None
        self.over = False

    def begin(self, fragments: Iterable[str | None], first: bool = False) -> _Run:
        """Note that a run begins, of these fragments or of all; with `first`, unless that has been noted already."""
        with _master:
            if self.run is None or not first:
                if self.session.watch is self:  # else it has been superseded, and is still executing
                    self.session.forget(fragments)
                self.run = _Run(self.session, self.link or 0)
            return self.run

    def on_event(self, sender: Any, event: Any, **details: Any) -> None:
        """Hear of the runner's progress, in its own thread."""
        try:
            if event.name == "SCRIPT_STARTED":
                self.begin(details.get("fragment_ids_this_run") or ())
            elif event.name == "SHUTDOWN":  # the session's own callback on the loop comes just before ours, or after
                if self.session.watch is self:
                    self.session.client_state = details.get("client_state")
                self.over = True
                self.reruns.wake()
            elif "STOPPED" in event.name:  # a run is over: what is left is cleaning up, or another run
                if self.run is not None and self.run.containers:
                    threading.Thread(target=_look_after, args=(self.run,), name="server_state", daemon=True).start()
                if self.link is not None and event.name.endswith("SUCCESS"):
                    self.hold()
        except Exception as error:
            _without_reruns(error)

    def hold(self) -> None:
        """Wait with Streamlit's collection of garbage until all have drawn; not where a user's click would wait too."""
        option: Any = sys.modules["streamlit.config"].get_option
        if option("runner.postScriptGC") and option("runner.fastReruns"):
            turn = self.reruns.held[self] = threading.Event()
            self.reruns.wake()
            while not turn.wait(1) and time.monotonic() - self.reruns.latest < 1:
                pass  # the task is alive
            self.reruns.held.pop(self, None)

    def is_wanted(self) -> bool:
        """Whether somebody asked something of a held runner, or started another in its place."""
        try:
            app, runner = self.session.app(), self.runner()
            if app is None or runner is None or app._scriptrunner is not runner:
                return True
            return bool(runner._requests._state.name != "CONTINUE")
        except Exception as error:
            _without_reruns(error)
            return True


def _watch(session: _Session, runner: Any, reruns: _Reruns) -> _Watch:
    """Hear of a runner's progress from now on."""
    with _master:
        if session.watch is not None and session.watch.runner() is runner:
            return session.watch
        watch = session.watch = _Watch(session, runner, reruns)
    runner.on_event.connect(watch.on_event, weak=False)
    return watch


def _here() -> _Here | None:
    """In which run this thread is, and where; None outside a session. Never imports Streamlit, nor raises."""
    global _reruns
    try:
        scripts: Any = sys.modules.get("streamlit.runtime.scriptrunner")
        ctx = None if scripts is None or _off else scripts.get_script_run_ctx(suppress_warning=True)
        if ctx is None:
            return None
        watch: _Watch | None = ctx.__dict__.get("_server_state")
        if watch is None:
            cls: Any = sys.modules["streamlit.runtime"].Runtime
            runtime: Any = cls.instance() if cls.exists() else None
            if not issubclass(type(runtime), cls):
                return None  # `AppTest` puts a mock in its place
            app: Any = getattr(runtime._session_mgr.get_session_info(ctx.session_id), "session", None)
            runner = app and app._scriptrunner
            if runner is None or runner._requests is not ctx.script_requests:
                return None  # superseded
            with _master:
                if _reruns is None or _reruns.loop is not app._event_loop:
                    _reruns = _Reruns(runtime, app._event_loop)
                session = _sessions.setdefault(app, _Session(app))
            watch = ctx._server_state = _watch(session, runner, _reruns)
        run = watch.run or watch.begin(ctx.fragment_ids_this_run or (), first=True)
        app, runner = watch.session.app(), watch.runner()
        shows = ctx._has_script_started and runner is not None and app is not None and app._scriptrunner is runner
        own = runner is not None and runner._script_thread is threading.current_thread()
        if hasattr(ctx, "current_fragment_id"):  # older releases
            return _Here(run, ctx.current_fragment_id, shows, own)
        module: Any = sys.modules["streamlit.runtime.scriptrunner_utils.script_run_context"]
        try:
            state = module.ThreadState.get()
        except RuntimeError:  # an attached helper thread
            return _Here(run, None, shows, own)
        return _Here(run, state.fragment_id, shows, own or getattr(state, "is_parallel_worker", False))
    except Exception as error:
        _without_reruns(error)
        return None


def _without_reruns(error: Exception) -> None:
    """Something of Streamlit's is not as we know it: stay a dictionary with locks."""
    global _off
    if not isinstance(error, (AttributeError, ImportError, KeyError, TypeError)):
        _log.error("server_state could not rerun a session.", exc_info=error)
    elif not _off:
        _off = True
        _log.warning("server_state reruns no other sessions: this release of Streamlit lacks something (%s).", error)


server_state, server_state_lock, no_rerun = ServerState(), ServerStateLock(), _NoRerun()

# Streamlit removes all local modules when any local file is saved, and an app may import this one under two names. The
# first copy's names live on in a module without a file; every later copy only gives them out.
_first = types.ModuleType("_server_state_1")
vars(_first).update({name: globals()[name] for name in __all__})
globals().update({name: vars(sys.modules.setdefault(_first.__name__, _first))[name] for name in __all__})
