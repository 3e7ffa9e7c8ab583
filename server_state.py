# SPDX-License-Identifier: MIT
"""State shared by all browser sessions of one Streamlit server: copy this file beside your app.

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

import contextlib
import gc
import hashlib
import pickle
import sys
import threading
import time
import types
import weakref
from collections import deque
from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from contextvars import ContextVar
from typing import Any

__all__ = ["KeyLock", "RerunSuppressedError", "ServerState", "ServerStateLock", "__version__"]
__all__ += ["force_rerun_bound_sessions", "no_rerun", "server_state", "server_state_lock"]
__version__ = "1.0.0"
LOOK_LIMIT = 64 * 2**20  # bytes of a value that are looked at; a larger one is compared by identity
_MISSING: Any = object()
_OLD = (-1, 0)  # a version that no key has
# The master lock guards the next group and what sessions have read, for microseconds: under it none of the app's code
# runs (what is replaced is let go of after the release), nothing of Streamlit's, and no other lock is taken. It is
# re-entrant because the garbage collector may run an app's `__del__`, which may come back here, at any moment.
_master = threading.RLock()
_values: dict[str, Any] = {}
_looks: dict[str, tuple[Any, ...]] = {}  # what each value was when it was last assigned or checked
_versions: dict[str | None, tuple[int, int]] = {}  # a number, and a link in a chain of reruns; None: the set of keys
_locks: dict[str, KeyLock] = {}
_clock = iter(range(1, sys.maxsize))

# Weak collections put removals off while they are iterated: the garbage collector may come at any moment.
_sessions: weakref.WeakKeyDictionary[Any, _Session] = weakref.WeakKeyDictionary()
_unlooked: weakref.WeakSet[_Run] = weakref.WeakSet()  # those that may have changed containers in place
_transactions: dict[int, _Transaction] = {}  # each thread makes, uses and removes its own, so that it needs no lock
_suppressed: ContextVar[tuple[set[str | None], ...]] = ContextVar("no_rerun", default=())  # what was read in `no_rerun`
_looking = threading.Lock()  # one look back at a time


class ServerState(MutableMapping[str, Any]):
    """A dictionary, with attribute access too, that all sessions share. Each single call is atomic, from any thread."""

    def __getitem__(self, key: str) -> Any:
        return self._found(self._read(key if type(key) is str else _name(key)), key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._write({key if type(key) is str else _name(key): value})

    def __delitem__(self, key: str) -> None:
        self._found(self._write({_name(key): _MISSING}), key)

    def __getattr__(self, key: str) -> Any:
        return self._found(_MISSING if key.startswith("_") else self._read(_name(key)), key, AttributeError)

    def __setattr__(self, key: str, value: Any) -> None:
        if key.startswith("_") or any(key in vars(base) for base in type(self).__mro__):
            raise AttributeError(f'server_state.{key} could not be read back: use server_state["{key}"] = ... instead.')
        self._write({_name(key): value})

    def __delattr__(self, key: str) -> None:
        self._found(self._write({_name(key): _MISSING}), key, AttributeError)

    def __contains__(self, key: object) -> bool:
        return self._read(key if type(key) is str else _name(key)) is not _MISSING

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict(_only_keys=True))

    def __len__(self) -> int:
        return len(self.to_dict(_only_keys=True))

    def __repr__(self) -> str:
        return f"ServerState({self.to_dict()!r})"

    def to_dict(self, *, _only_keys: bool = False) -> dict[str, Any]:
        """Give a snapshot as a new dict; the values themselves are not copied."""
        here = _here()
        with _master:
            for key in (None, *(() if _only_keys else _values)):
                self._read(key, here)
            return _values.copy()

    def values(self) -> ValuesView[Any]:  # a Mapping's own views look each value up later, when its key may be gone
        return self.to_dict().values()

    def items(self) -> ItemsView[str, Any]:
        return self.to_dict().items()

    def setdefault(self, key: str, default: Any = None) -> Any:  # this and the next are not atomic in MutableMapping
        """Give the value; if there is none, set it to `default` first."""
        value = self._read(_name(key))
        if value is _MISSING:
            value = self._write({_name(key): default}, only_new=True)
        return default if value is _MISSING else value

    def pop(self, key: str, *default: Any) -> Any:
        """Remove the key and give its value, or `default`; KeyError if there is neither."""
        value = self._write({_name(key): _MISSING})
        return default[0] if default and value is _MISSING else self._found(value, key)

    def popitem(self) -> tuple[str, Any]:
        """Remove the key that was added last and give it with its value; KeyError if there is none."""
        while keys := list(_values):
            if (value := self._write({keys[-1]: _MISSING})) is not _MISSING:
                return keys[-1], value
        raise KeyError("server_state is empty: look at len(server_state) before popitem().")

    def update(self, other: Any = (), /, **more: Any) -> None:
        """Set several keys as one change."""
        self._write({_name(key): value for key, value in dict(other, **more).items()})

    def clear(self) -> None:
        """Remove all keys as one change."""
        self._write(None)

    def _read(self, key: str | None, here: tuple[Any, ...] | None = None) -> Any:
        """Give a value, and note that it is read: by whom, and where to look for changes made in place."""
        run, fragment, shows, _ = here or _here()
        with _master:
            value = _values.get(key, _MISSING)  # type: ignore[arg-type]
            if shows:
                if (seen := run.seen.get(fragment)) is None:
                    seen = run.session.readers[fragment] = run.seen[fragment] = {}
                version = _versions.get(key)
                if seen.setdefault(key, version) is not version:
                    seen[key] = _OLD
            if run and key in _looks and _looks[key][_KEPT] is not None and issubclass(type(value), _CONTAINERS):
                run.containers.add(key)
                _unlooked.add(run)
        if _transactions and threading.get_ident() in _transactions:
            _transactions[threading.get_ident()].add(key)
        if _suppressed.get():
            _suppressed.get()[0].add(key)
        return value

    def _write(self, new: Mapping[str, Any] | None, only_new: bool = False) -> Any:
        """Set keys, or remove those that are _MISSING (all for None), as one change; give what the last one held."""
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
                    changed += (key, None) if old is None else (key,) if old[_WHOLE] != looks[key][_WHOLE] else ()
        if changed and not _suppressed.get():
            _publish(changed)
        return replaced[-1]

    def _found(self, value: Any, key: object, error: type[Exception] = KeyError) -> Any:
        if value is _MISSING:
            raise error(f'server_state has no key "{key}". Initialise it: server_state.setdefault("{key}", ...)')
        return value


def _name(key: object) -> str:
    if isinstance(key, (str, int)):
        return str.__str__(key) if isinstance(key, str) else str(key)
    raise TypeError(f"A key or lock of server_state is named by a str, not {type(key).__name__}: use str(...) first.")


# --- What counts as a change ---
_SCALARS = frozenset([type(None), bool, int, float, complex, str, bytes])
_CONTAINERS = (list, dict, set, bytearray, deque, tuple)
# Objects of these modules are data. Those of the rest of the standard library (threads, queues, files, sockets,
# loggers) and functions are compared by identity; so is what has pickle methods of its own and comes from elsewhere.
_DATA = set("abc array builtins collections contextlib dataclasses datetime decimal enum fractions ipaddress".split())
_DATA |= set("numpy pandas pathlib polars pyarrow random re types typing uuid zoneinfo".split())
_OPAQUE = sys.stdlib_module_names - _DATA
# What a value looks like; with objects of the app's classes by identity; and what must be kept for an id to be unique.
_WHOLE, _PLAIN, _KEPT = range(3)


def _look(value: Any) -> tuple[Any, ...]:
    """Look at a value. Never an error: what cannot be looked at is compared by identity."""
    if type(type(value)) is type and type(value) in _SCALARS:  # not every class can be hashed
        token = (type(value), value if value == value else "nan")
        return token, token, None
    for eye, memo in ((_Eye, False), (_SetEye, False), (_SetEye, True), (_SetEye, True)):
        try:
            whole = eye(value, memo, own_classes=True)
            plain = eye(value, memo, own_classes=False) if "own" in whole.kinds.values() else whole
            return whole.digest, plain.digest, (whole.kept, plain.kept)
        except Exception as error:
            if not isinstance(error, (RuntimeError, ValueError)):  # a set, a cycle, or changed meanwhile by a thread
                break
    return ("is", id(value)), ("is", id(value)), value


class _Eye(pickle.Pickler):
    """A pickler that only looks. Without a memo it does not see which parts are one object; for cycles it needs one."""

    def __init__(self, value: Any, memo: bool, own_classes: bool) -> None:
        digest, room, sets = hashlib.sha256(), LOOK_LIMIT, type(self) is _SetEye

        def write(data: Any) -> None:  # no method, so that all this is in no cycle and is let go of at once
            nonlocal room
            room -= len(data)
            if room < 0:
                raise OverflowError
            if type(data) is memoryview:
                digest.update(b"%d " % len(data))
            elif not sets and (b"\x8f" in data or b"\x91" in data):
                raise ValueError("the opcode of a set, or other data")
            digest.update(data)

        super().__init__(types.SimpleNamespace(write=write), 5, buffer_callback=lambda buffer: write(buffer.raw()))
        self.fast, self.own_classes = not memo, own_classes  # whether to look into objects of the app's own classes
        self.kinds: dict[int, str] = {}  # by the ids of classes
        self.kept: list[Any] = []
        self.dump(value)
        self.digest = digest.digest()

    def reducer_override(self, obj: Any) -> Any:
        if obj is int:
            return NotImplemented  # the callable in all that we make up
        if issubclass(type(obj), type):
            return int, ("class", obj.__module__, obj.__qualname__)  # by name: each run of a script makes its own anew
        kind = self.kinds.get(id(type(obj))) or self.kind(type(obj))
        if kind == "data" or (kind == "own" and self.own_classes):
            with contextlib.suppress(Exception):
                if isinstance(parts := obj.__reduce_ex__(5), tuple):
                    return parts
        self.kept.append(obj)
        return int, ("is", id(obj))

    def kind(self, cls: type) -> str:  # "data" that pickle can take apart, the app's "own" such, or "opaque"
        roots = [base.__module__.partition(".")[0] for base in cls.__mro__]
        makers = ["__reduce_ex__" in vars(base) or "__reduce__" in vars(base) for base in cls.__mro__]
        opaque = roots[makers.index(True)] not in _DATA or cls is types.MethodType or _OPAQUE.intersection(roots)
        return self.kinds.setdefault(id(cls), "opaque" if opaque else "data" if roots[0] in _DATA else "own")


class _SetEye(_Eye):  # the same, a little slower, for sets, whose order does not count
    def persistent_id(self, obj: Any) -> Any:
        if type(obj) is not set and type(obj) is not frozenset:
            return None
        return type(obj).__name__, *sorted(obj, key=lambda item: (hash(item), type(item) is int and item))  # -1 and -2


def _check(keys: Iterable[Any], part: int = _WHOLE, locked: bool = False) -> list[str | None]:
    """Compare a part of the looks of values (not `locked`: but what others lock), and give what is to be told."""
    changed: list[str | None] = []
    for key in list(keys):
        new: Any = None
        value = old = None  # the last ones are let go of here, not under the lock
        with _master:
            value, old = _values.get(key), _looks.get(key)
        if old is None or old[_KEPT] is None or (new := _look(value))[part] == old[part]:
            continue
        with _master:
            others = (held for thread, held in list(_transactions.items()) if thread != threading.get_ident())
            if _looks.get(key) is old and (locked or not any(key in held for held in others)):
                _looks[key] = new
                changed.append(key)
    return [] if _suppressed.get() else changed


# --- The locks ---
class _Transaction(set[str | None]):  # the keys that a thread's locks name, or that it reads while it holds them
    depth = 1  # how many it holds
    changed: tuple[str | None, ...] = ()  # what it assigned or removed


class KeyLock:
    """A re-entrant lock. What a thread changes while it holds one is told to others when it releases its last one."""

    def __init__(self, names: tuple[str, ...], locks: list[Any]) -> None:
        self._names, self._rlocks = names, locks

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; wait as long as it takes, or at most `timeout` seconds for each. Tell whether we have it."""
        for lock in self._rlocks:
            if not lock.acquire(blocking, timeout):
                for taken in self._rlocks[: self._rlocks.index(lock)]:
                    taken.release()
                return False
        thread = threading.get_ident()
        if (mine := _transactions.get(thread)) is None:
            _transactions[thread] = _Transaction(self._names)
        else:
            mine.depth += 1
            mine.update(self._names)
        return True

    def release(self, *error: object) -> None:
        """Release the lock, and if it was the thread's last, tell others what changed. RuntimeError if not held."""
        for lock in self._rlocks:
            if not lock._is_owned():
                raise RuntimeError(f"The lock of {self._names} is not this thread's: acquire() it before release().")
        mine = _transactions[thread := threading.get_ident()]
        try:
            if mine.depth == 1 and not _looks.keys().isdisjoint(mine):
                mine.changed += (*_check(mine, locked=True),)
        finally:
            if mine.depth == 1:
                del _transactions[thread]
            else:
                mine.depth -= 1
            for lock in self._rlocks:
                lock.release()
        if mine.changed and thread not in _transactions:
            _publish([*mine.changed])

    __enter__, __exit__ = acquire, release


class ServerStateLock:
    """The locks: `server_state_lock["name"]`, `.name`, or several in one fixed order, `["a", "b"]`. From any thread."""

    def __getitem__(self, name: str | tuple[str, ...]) -> KeyLock:
        names = tuple(sorted({_name(n) for n in (name if isinstance(name, tuple) else (name,))}))
        if not names:
            raise TypeError('server_state_lock[()] names no lock: write server_state_lock["a", "b"].')
        with _master:
            locks = [_locks.get(n) or _locks.setdefault(n, KeyLock((n,), [threading.RLock()])) for n in names]
        return locks[0] if len(locks) == 1 else KeyLock(names, [lock._rlocks[0] for lock in locks])

    def __getattr__(self, name: str) -> KeyLock:
        if name.startswith("_"):
            raise AttributeError(f'server_state_lock.{name} is no lock: write server_state_lock["{name}"].')
        return self[name]


# --- Who reads what ---
class _Run:  # one run of a session's script, or of fragments in it
    def __init__(self, session: _Session, link: int, ctx: Any, thread: Any) -> None:
        self.session, self.app, self.link = session, session.app, link  # its place in a chain; 0: a user began it
        self.cursors, self.requests, self.thread = ctx.cursors, ctx.script_requests, weakref.ref(thread)
        self.state: Any = None  # Streamlit's of the client, once it has ended
        self.seen: dict[str | None, dict[str | None, Any]] = {}  # versions when first read, by reader, by key
        self.containers: set[str | None] = set()  # read, and perhaps changed in place without a lock

    def look_back(self) -> None:
        """Find what was changed in place without a lock. In a thread of its own: no page, loop or click waits."""
        with _looking:
            changed = _check(self.containers, _PLAIN)
            with _master:
                _unlooked.discard(self)
                doubtful = {key for other in _unlooked for key in other.containers}  # it may have been another run
        _publish(changed, self, told=doubtful)


class _Session:  # what one browser session shows
    def __init__(self, app: Any) -> None:
        self.app: weakref.ref[Any] = weakref.ref(app)  # Streamlit's own object for it
        self.readers: dict[str | None, dict[str | None, Any]] = {}  # what each has seen; None is the script itself
        self.run: Any = None  # the latest that we know of
        self.ended: list[_Run] = []  # those of which Streamlit has not yet taken note
        self.link, self.waits = 0, False  # of the run that we are starting, and whether it has to wait

    def stale(self) -> dict[str | None, list[str | None]]:
        """Which readers show which keys as they were."""
        with _master:
            old = {f: [key for key, v in seen.items() if v != _versions.get(key)] for f, seen in self.readers.items()}
        return {fragment: keys for fragment, keys in old.items() if keys}

    def forget(self, fragments: list[str | None]) -> None:  # all of the script's, if none is given
        with _master:
            self.readers = {f: seen for f, seen in self.readers.items() if fragments and f not in fragments}


# --- How a change travels to the readers ---
class RerunSuppressedError(RuntimeError):
    """A rerun was forced inside `with no_rerun:`."""


class _NoRerun:
    """`with no_rerun:` changes state without telling anybody. Nestable; for the current thread or task only."""

    def __enter__(self) -> None:
        before = _suppressed.get()
        _suppressed.set((*before, before[0] if before else set()))

    def __exit__(self, *error: object) -> None:
        *before, keys = _suppressed.get()
        _suppressed.set(tuple(before))
        _check(keys)


def force_rerun_bound_sessions(key: str) -> None:
    """Rerun all readers of a key but the run that calls this, although nothing was seen to change.

    RerunSuppressedError inside `no_rerun`; KeyError for a key that nobody has set, read or locked.
    """
    key = _name(key)
    if _suppressed.get():
        raise RerunSuppressedError(f'A rerun for "{key}" is forced inside no_rerun: move the call out of that block.')
    with _master:
        is_read = any(key in seen for session in list(_sessions.values()) for seen in session.readers.values())
        if not is_read and key not in _values and key not in _locks:
            raise KeyError(f'Nobody has set, read or locked "{key}" in server_state: check the name, or set it first.')
    _publish([key], forced=True)


def _publish(keys: list[str | None], run: Any = None, told: Iterable[str | None] = (), forced: bool = False) -> None:
    """Give keys new versions: who has read older ones is rerun, but the run that makes the change only if `told` so."""
    if _transactions and not forced and (mine := _transactions.get(threading.get_ident())) is not None:
        mine.changed += (*keys,)  # until the release
        return
    if run is None:
        run, _, _, state = _here()
        if run and run.thread() is not threading.current_thread() and not getattr(state, "is_parallel_worker", False):
            run = None
    with _master:
        for key in keys:
            before = _versions.pop(key, None)
            if forced or key is None or key in _values:
                _versions[key] = (next(_clock), run.link + 1 if run else 0)
            for seen in run.seen.values() if run and key not in told else ():
                if seen.get(key, _OLD) == before:  # else it has missed an earlier change, too
                    seen[key] = _versions.get(key)
    if keys and _reruns and not _reruns.news:
        _reruns.news = True
        with contextlib.suppress(RuntimeError):  # the server has stopped
            _reruns.loop.call_soon_threadsafe(_reruns.loop.call_later, 0.001, _reruns.step)  # the writer first


# --- Streamlit: every reach into it ---
_CHAIN = 20  # links of a chain of reruns that come at full speed
_CHAINED = 'Changes of server_state["%s"] cause each other, and are slowed down: make them in callbacks or no_rerun.'
_warned: set[str | None] = set()
_reruns: _Reruns | None = None
_off = False


class _Reruns:  # starts the reruns one by one, on Streamlit's event loop; only there is a session spoken to
    def __init__(self, runtime: Any, loop: Any) -> None:
        self.runtime, self.loop, self.timer, self.news, self.collect_at = runtime, loop, None, False, 0.0
        self.stale: dict[_Session, float] = {}  # who shows something old, or did a moment ago, and when to look again

    def step(self, *ended: _Session) -> None:
        """Look at one session that shows something old, or whose run has ended, and come back for the others."""
        now = time.monotonic()
        if self.timer is not None:
            self.timer.cancel()
        if self.news:
            self.news = False
            with _master:
                sessions = list(_sessions.values())
            self.stale = self.stale | {s: now for s in sessions if s not in self.stale and s.stale()}
        for session in [*ended, *(session for session, at in self.stale.items() if at <= now)][:1]:
            self.stale.pop(session, None)
            if delay := self.rerun(session):
                self.stale[session] = now + delay
        if self.collect_at and (not self.stale or now > self.collect_at):  # 0 where Streamlit collects garbage
            self.collect_at = 0.0
            sys.modules["streamlit.config"].set_option("runner.postScriptGC", True)
            gc.collect()
        if self.stale:  # the next at 0.4 ms at the earliest: the loop needs turns to send what the runs draw
            self.timer = self.loop.call_later(max(0.0004, min(self.stale.values()) - now), self.step)

    def rerun(self, session: _Session) -> float:
        """Rerun a session if nothing is in the way; give the seconds until it is looked at again, 0 for never."""
        try:
            if (app := session.app()) is None or _off:
                return 0
            runner, run = app._scriptrunner, session.run
            for ended in list(session.ended):
                is_noted = ended.state is None or app._client_state is ended.state
                if is_noted or runner is None or runner._requests is not ended.requests:
                    session.ended.remove(ended)
                    for seen in () if is_noted else list(ended.seen.values()):  # Streamlit has dropped what it drew
                        seen.update(dict.fromkeys(seen, _OLD))
            if runner is not None:  # a rerun would interrupt it; we hear of its end
                return 0.01 if session.ended else 0.2
            if not (stale := session.stale()) or not self.runtime.is_active_session(app.id):
                return 0.2 if stale else 0
            state = type(app._client_state)()
            state.CopyFrom(app._client_state)
            if run.state is not None and run.state.page_script_hash != state.page_script_hash:
                session.forget([])  # a run that never used `server_state` went to another page
                return 0
            links = {key: _versions.get(key, _versions.get(None, _OLD))[1] for keys in stale.values() for key in keys}
            session.link, session.waits = max(links.values()), not session.waits
            if session.link > _CHAIN and session.waits:
                for key in {key for key in links if links[key] > _CHAIN} - _warned:
                    _warned.add(key)
                    sys.modules["logging"].getLogger("server_state").warning(_CHAINED, key)
                return min(1.0, 0.05 * (session.link - _CHAIN))
            fragment = None if None in stale else next(iter(stale))
            state.fragment_id, session.waits = fragment or "", False
            if fragment is None or app._fragment_storage.contains(fragment):
                app.request_rerun(state)
            if app._scriptrunner is None:  # there is no such fragment any more
                session.forget([fragment])
                return 0.001
            app._scriptrunner.on_event.connect(_on_event, weak=False)
            if sys.modules["streamlit.config"].get_option("runner.postScriptGC"):
                sys.modules["streamlit.config"].set_option("runner.postScriptGC", False)
                self.collect_at = time.monotonic() + 5  # seconds at most
            return 0.2
        except Exception as error:
            _without_reruns(error)
            return 0


def _on_event(sender: Any, event: Any, **details: Any) -> None:
    """Hear of a script runner's progress, in its own thread."""
    try:
        run = None if event.name == "ENQUEUE_FORWARD_MSG" else _here()[0]
        if run and _reruns and event.name == "SHUTDOWN":
            run.state = details["client_state"]
            run.session.ended.append(run)
            _reruns.loop.call_soon_threadsafe(_reruns.step, run.session)
        elif run and run.containers and "STOPPED" in event.name:  # what is left is cleaning up, or another run
            threading.Thread(target=run.look_back, name="server_state", daemon=True).start()
    except Exception as error:
        _without_reruns(error)


def _run_of(ctx: Any) -> _Run | None:
    """Give the run that a context is of, and at its first sight note that it has begun. None for no session's."""
    global _reruns
    known: _Run | None = ctx.__dict__.get("_server_state")
    if known and known.thread() is not threading.current_thread():
        return known
    cls: Any = sys.modules["streamlit.runtime"].Runtime
    runtime: Any = cls.instance() if cls.exists() else None
    if not issubclass(type(runtime), cls):
        return None  # `AppTest` puts a mock in its place
    app: Any = getattr(runtime._session_mgr.get_session_info(ctx.session_id), "session", None)
    runner = app and app._scriptrunner
    if not runner or runner._requests is not ctx.script_requests:
        return known  # superseded
    if _reruns is None or _reruns.loop is not app._event_loop:
        _reruns = _Reruns(runtime, app._event_loop)
    with _master:
        if ctx.__dict__.get("_server_state") is known:  # else another thread was faster
            session = _sessions.setdefault(app, _Session(app))
            session.forget(ctx.fragment_ids_this_run)
            ctx._server_state = session.run = _Run(session, session.link, ctx, runner._script_thread)
            session.link = 0
    if known is None:
        runner.on_event.connect(_on_event, weak=False)
    return ctx.__dict__["_server_state"]  # type: ignore[no-any-return]


def _here() -> tuple[_Run | None, str | None, bool, Any]:
    """Tell the run and fragment of this thread, whether what it reads is shown, and what else Streamlit notes of it."""
    try:  # what a callback or a superseded run reads is not shown
        scripts: Any = None if _off else sys.modules.get("streamlit.runtime.scriptrunner")
        if ctx := scripts and scripts.get_script_run_ctx(suppress_warning=True):
            run: _Run | None = ctx.__dict__.get("_server_state")
            if run is None or run.cursors is not ctx.cursors:
                run = _run_of(ctx)
            runner: Any = run and (app := run.app()) and app._scriptrunner
            shows = ctx._has_script_started and runner and runner._requests is ctx.script_requests
            if "current_fragment_id" in ctx.__dict__:  # older releases
                return run, ctx.current_fragment_id, shows, None
            try:
                state = sys.modules["streamlit.runtime.scriptrunner_utils.script_run_context"].ThreadState.get()
            except RuntimeError:  # an attached helper thread has none
                return run, None, shows, None
            return run, state.fragment_id, shows, state
    except Exception as error:
        _without_reruns(error)
    return None, None, False, None


def _without_reruns(error: Exception) -> None:  # where Streamlit is not as we know it, stay a dictionary with locks
    global _off
    log: Any = sys.modules["logging"].getLogger("server_state")  # Streamlit has imported it; we need it seldom
    if not isinstance(error, (AttributeError, ImportError, KeyError, TypeError)):
        log.error("server_state could not rerun a session: it shows old values until its next run.", exc_info=error)
    elif not _off:
        _off = True
        log.warning("server_state reruns no other session: Streamlit lacks something (%s). Get a newer file.", error)


server_state, server_state_lock, no_rerun = ServerState(), ServerStateLock(), _NoRerun()

# Streamlit removes all local modules when any local file is saved, and an app may import this one under two names. The
# first copy's names live on in a module without a file; every later copy only gives them out.
_first = types.ModuleType("_server_state_1")
vars(_first).update({name: globals()[name] for name in __all__})
globals().update({name: vars(sys.modules.setdefault(_first.__name__, _first))[name] for name in __all__})
