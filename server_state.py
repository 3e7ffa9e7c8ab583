# SPDX-License-Identifier: MIT
"""State shared by all browser sessions of one Streamlit server: copy this file beside your app.

    from server_state import server_state, server_state_lock

    def add_one():
        with server_state_lock["count"]:
            server_state["count"] += 1

    server_state.setdefault("count", 0)
    st.button("+1", on_click=add_one)
    st.metric("Count", server_state["count"])

`server_state` is one dictionary for the whole server. A session that shows a value is rerun when
it changes, and only then: fragments alone where only fragments show it, and never in the middle of
a run. `server_state_lock[key]` keeps others away from a key, and makes all that is changed in its
`with` block one change. All of it may be used from any thread.
Origin: the project "server_state", whose README tells more.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import logging
import operator
import pickle
import sys
import threading
import time
import types
import weakref
from collections import deque
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    ValuesView,
)
from contextvars import ContextVar
from itertools import count
from typing import Any, NamedTuple

__all__ = ["KeyLock", "RerunSuppressedError", "ServerState", "ServerStateLock", "__version__"]
__all__ += ["force_rerun_bound_sessions", "no_rerun", "server_state", "server_state_lock"]
__version__ = "2.0.0"
_MISSING: Any = object()

# The words: an *entry* is a key with its value and version. A *run* of a script notes the versions
# that it reads; what a *session*'s latest runs have noted is what its page shows. A *transaction*
# is what a thread does under locks. Who got a value has it *in hand*, and may change it in place;
# when done, it *names* the entry, and the *inspector* looks whether the *fingerprint* has changed.
# A change gives the entry a new version; the *scheduler* reruns the sessions that show an old one.


# --- The mapping ---
class ServerState(MutableMapping[str, Any]):
    """A dictionary that all sessions share, with attribute access too.

    Each single call but `popitem` is atomic. All may come from any thread. Values are shared,
    never copied.
    """

    def __getitem__(self, key: str) -> Any:
        return _found(_read(_name(key)), key)

    def __setitem__(self, key: str, value: Any) -> None:
        _write({_name(key): value})

    def __delitem__(self, key: str) -> None:
        _found(_write({_name(key): _MISSING}), key)

    def __getattr__(self, key: str) -> Any:
        value = _MISSING if key.startswith("_") else _read(_name(key))
        return _found(value, key, MissingAttributeError)

    def __setattr__(self, key: str, value: Any) -> None:
        if key.startswith("_") or any(key in vars(base) for base in type(self).__mro__):
            message = f'server_state.{key} could not be read back: use server_state["{key}"] = ...'
            raise AttributeError(message)
        _write({_name(key): value})

    def __delattr__(self, key: str) -> None:
        _found(_write({_name(key): _MISSING}), key, MissingAttributeError)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, (str, int)) and _read(_name(key), is_shown=False) is not _MISSING

    def __iter__(self) -> Iterator[str]:
        _note(_key_set)
        return iter(list(_present))

    def __len__(self) -> int:
        _note(_key_set)
        return len(_present)

    def __repr__(self) -> str:
        return f"ServerState({self.to_dict()!r})"

    def to_dict(self) -> dict[str, Any]:
        """Give a snapshot as a new dict; the values themselves are not copied."""
        _note(_key_set)
        for entry in list(_present.values()):
            _note(entry)
        with _master:
            return {key: entry.value for key, entry in _present.items()}

    # A Mapping's own views look each value up later, when its key may be gone.
    def values(self) -> ValuesView[Any]:
        return self.to_dict().values()

    def items(self) -> ItemsView[str, Any]:
        return self.to_dict().items()

    # MutableMapping's own setdefault, pop, update and clear are not atomic.
    def setdefault(self, key: str, default: Any = None) -> Any:
        """Give the value; if there is none, set it to `default` first."""
        value = _read(_name(key))
        if value is _MISSING:
            value = _write({_name(key): default}, only_new=True)
        return default if value is _MISSING else value

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        """Remove the key and give its value, or `default`; KeyError if there is neither."""
        value = _write({_name(key): _MISSING})
        if value is _MISSING and default is not _MISSING:
            return default
        return _found(value, key)

    def update(self, other: Any = (), /, **more: Any) -> None:
        """Set several keys as one change."""
        _write({_name(key): value for key, value in dict(other, **more).items()})

    def clear(self) -> None:
        """Remove all keys as one change."""
        _write(dict.fromkeys(_present, _MISSING))


class MissingAttributeError(AttributeError, KeyError):
    """What `server_state.name` raises: a KeyError too, as `streamlit-server-state` has it."""

    __str__ = Exception.__str__


def _found(value: Any, key: object, error: type[Exception] = KeyError) -> Any:
    if value is _MISSING and _store is not None:
        value = _store.found(key)  # it may have a value that cannot be unpickled here
    if value is _MISSING:
        hint = f'Initialise it: server_state.setdefault("{key}", ...)'
        raise error(f'server_state has no key "{key}". {hint}')
    return value


def _name(key: object) -> str:
    if type(key) is str:
        return key
    if isinstance(key, str):
        return str.__str__(key)  # a subclass may hash as it likes
    if isinstance(key, int):
        return str(key)
    kind = type(key).__name__
    raise TypeError(f"A key or lock of server_state is a str, not {kind}: use str(...) first.")


# --- Locks and transactions ---
class KeyLock:
    """A re-entrant lock. What a thread changes while it holds one is one change for the others.

    They are told when the thread releases its outermost lock. It may be used from any thread.
    """

    def __init__(self, names: tuple[str, ...], lock: Any) -> None:
        self._names = names
        self._lock = lock

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock within `timeout` seconds (-1: no limit), and tell whether we have it."""
        if _store is None:
            is_ours: bool = self._lock.acquire(blocking, timeout)
        else:
            is_ours = _store.acquire(self, blocking, timeout)
        if not is_ours:
            return False
        transaction = _local.transaction
        transaction.depth += 1
        transaction.names.update(self._names)
        return True

    def release(self, *error: object) -> None:
        """Release the lock, and tell others after the outermost. RuntimeError if it is not ours."""
        try:
            self._lock.release()
        except RuntimeError:
            message = f"The lock of {self._names} is not held by this thread: acquire() it first."
            raise RuntimeError(message) from None
        transaction = _local.transaction
        if transaction.depth > 0:  # else a run left the lock behind, and its end has told
            transaction.depth -= 1
            if transaction.depth == 0:
                transaction.end()

    __enter__ = acquire
    __exit__ = release


class ServerStateLock(Mapping[str, KeyLock]):
    """The locks: `server_state_lock["name"]`, `.name`, or several in one fixed order, `["a", "b"]`.

    A lock is made when it is first asked for, and stays the same. From any thread.
    """

    def __getitem__(self, name: str | tuple[str, ...]) -> KeyLock:
        if not isinstance(name, tuple):
            return _lock(_name(name))
        names = sorted({_name(one) for one in name})
        if not names:
            raise TypeError('server_state_lock[()] is no lock: use server_state_lock["a", "b"].')
        if len(names) == 1:
            return _lock(names[0])
        return KeyLock(tuple(names), _InOrder([_lock(one)._lock for one in names]))

    def __getattr__(self, name: str) -> KeyLock:
        if name.startswith("_"):
            hint = f'use server_state_lock["{name}"]'
            raise AttributeError(f"server_state_lock.{name} is no lock: {hint}.")
        return self[name]

    def __contains__(self, name: object) -> bool:  # a Mapping's own would make the lock
        return isinstance(name, (str, int)) and _name(name) in _locks

    def __iter__(self) -> Iterator[str]:
        return iter(list(_locks))

    def __len__(self) -> int:
        return len(_locks)


def _lock(name: str) -> KeyLock:
    lock = _locks.get(name)
    if lock is None:
        with _master:
            lock = _locks.setdefault(name, KeyLock((name,), threading.RLock()))
    return lock


class _InOrder:
    """Several locks as one: all of them are taken, in the order that they stand in, or none."""

    def __init__(self, locks: list[Any]) -> None:
        self.locks = locks

    def acquire(self, blocking: bool, timeout: float) -> bool:
        until = time.monotonic() + timeout
        for number, lock in enumerate(self.locks):
            left = max(0.0, until - time.monotonic()) if timeout > 0 else timeout
            if not lock.acquire(blocking, left):
                for taken in self.locks[:number]:
                    taken.release()
                return False
        return True

    def release(self) -> None:
        if not all(lock._is_owned() for lock in self.locks):
            raise RuntimeError
        for lock in self.locks:
            lock.release()


class _Transaction:
    """What a thread does from its first lock to the release of its last one; no lock, no names."""

    def __init__(self) -> None:
        self.depth = 0  # how many locks are held
        self.names: set[str] = set()
        self.handed: set[_Entry] = set()  # whose values it has in hand, and may change in place
        # What it has assigned. Entries refer to this very set weakly, and their new versions are
        # held back while it is there: to let go of it is to tell, also when the thread dies.
        self.changed: set[_Entry] = set()

    def may_change(self, entry: _Entry) -> bool:
        """Whether it may be changing a value in place just now."""
        return entry.key in self.names or entry in self.handed

    def end(self) -> None:
        """Tell others what was assigned, and have the inspector look at what was in hand."""
        if _store is not None:
            _store.commit(self)
        handed = self.handed
        for name in tuple(self.names):
            entry = _present.get(name)
            if entry is not None and entry.fingerprint.may_change:
                handed.add(entry)
        quiet = _quiet.get()
        if quiet is not None:
            for entry in handed - quiet.handed.keys():  # the end of `no_rerun` looks at them
                quiet.handed[entry] = None if entry in _inspector.named else entry.fingerprint
        elif handed and _store is None:
            _inspector.name(handed, _author(), is_locked=True, hold=self.changed)
        self.handed.clear()
        self.names.clear()
        if self.changed:
            with _master:
                for entry in self.changed:
                    entry.let_go(self.changed)
            self.changed = set()
            _notify()


class _Local(threading.local):
    """Each thread's transaction, which is gone when the thread is."""

    def __init__(self) -> None:
        self.transaction = _Transaction()
        with _master:
            _transactions.add(self.transaction)


# --- Suppressing and forcing ---
class RerunSuppressedError(RuntimeError):
    """A rerun was forced inside `with no_rerun:`."""


class _NoRerun:
    """`with no_rerun:` changes state without telling anybody. Nestable.

    It holds for the current thread or asyncio task, and for tasks that are started in it. What can
    be changed in place is looked at twice: where it is first read, and at the end of the block.
    """

    def __enter__(self) -> None:
        quiet = _quiet.get() or _Quiet({}, time.monotonic(), 0)
        _quiet.set(quiet._replace(depth=quiet.depth + 1))

    def __exit__(self, *error: object) -> None:
        quiet = _quiet.get()
        if quiet is None:
            return
        if quiet.depth > 1:
            _quiet.set(quiet._replace(depth=quiet.depth - 1))
            return
        _quiet.set(None)
        for entry, before in quiet.handed.items():
            _inspector.end_quiet(entry, before, quiet.since)


class _Quiet(NamedTuple):
    """What was handed in the `with no_rerun:` that a context is in, and what was told before of it.

    None where others may have changed it too, so that it is to be told.
    """

    handed: dict[_Entry, _Fingerprint | None]
    since: float
    depth: int  # of nested blocks


def force_rerun_bound_sessions(key: str) -> None:
    """Rerun all that show a key, this run too once it has ended, although no change was seen.

    While a lock is held, they are told at its release. RerunSuppressedError inside `no_rerun`;
    KeyError for a key that nobody has set, read or locked. From any thread.
    """
    key = _name(key)
    if _quiet.get() is not None:
        hint = "move the call out of that block"
        raise RerunSuppressedError(f'A rerun for "{key}" is forced inside no_rerun: {hint}.')
    entry = _entries.get(key)
    if entry is None:
        if key in _locks:
            return  # without a reader
        hint = "check the name, or set it first"
        raise KeyError(f'Nobody has set, read or locked "{key}" in server_state: {hint}.')
    run = _author()
    if run is not None:
        run.redraw(entry)
    if _store is not None:
        _store.force(entry)
    _tell([entry], run)


# --- The store ---
class _Entry:
    """One key: its value, and the version that readers compare with the one that they noted."""

    def __init__(self, key: str | None) -> None:
        self.key = key
        self.value: Any = _MISSING
        self.fingerprint = _NOTHING
        self.version = 0
        self.depth = 0  # of the latest change in a chain of reruns that cause each other
        self.in_place = 0  # how many of the chain's latest links were changes in place
        # While the transaction's set is there that this refers to, readers may know the version
        # `told` only, not yet `version`.
        self.hold: weakref.ref[set[_Entry]] | None = None
        self.told = 0

    def latest(self) -> int:
        """Give the latest version that may be told."""
        hold = self.hold
        is_held = hold is not None and hold() is not None
        return self.told if is_held else self.version

    def let_go(self, changed: set[_Entry]) -> None:
        """Tell what one transaction has done, although a later one holds back what it did."""
        if self.hold is not None and self.hold() is not changed:
            self.told = self.version - 1


class _Master:
    """The master lock guards the next group, for microseconds; no other lock is taken under it.

    No code of the app's runs under it, and nothing of Streamlit's: what is replaced is let go of
    after the release, and the garbage collector, which may run an app's `__del__`, is put off.
    It is re-entrant so that one function of this group can call another.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._collects = False

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1:
            self._collects = gc.isenabled()
            gc.disable()

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if self._depth == 0 and self._collects:
            gc.enable()
        self._lock.release()


_master = _Master()
_present: dict[str, _Entry] = {}  # the keys that have a value
_entries: weakref.WeakValueDictionary[str, _Entry] = weakref.WeakValueDictionary()  # or a reader
_locks: dict[str, KeyLock] = {}
_versions = count(1)
# Weak, so that they go with Streamlit's session, the run's context, and the thread.
_sessions: weakref.WeakKeyDictionary[Any, _Session] = weakref.WeakKeyDictionary()
_running: weakref.WeakSet[_Run] = weakref.WeakSet()
_transactions: weakref.WeakSet[_Transaction] = weakref.WeakSet()  # each changed by its thread only

_local = _Local()
_store: Any = None  # for several processes: joined by `redis_store/`, it commits what changes here
_quiet: ContextVar[_Quiet | None] = ContextVar("quiet", default=None)


def _entry(key: str) -> _Entry:
    entry = _present.get(key)
    if entry is None:
        with _master:
            entry = _entries.get(key)
            if entry is None:
                entry = _entries[key] = _Entry(key)
    return entry


def _read(key: str, is_shown: bool = True) -> Any:
    """Give a key's value, or _MISSING, and note who has read it."""
    return _note(_entry(key), is_shown)


def _note(entry: _Entry, is_shown: bool = True) -> Any:
    """Note that this run reads an entry, and who may change its value in place; give the value.

    It needs no lock: the version is noted before the value is taken, and set after it.
    """
    ctx, run = _here()
    if run is not None and ctx._has_script_started:  # what a callback reads is not shown
        run.note(entry, _fragment(ctx), is_shown)
    value = entry.value
    if entry.fingerprint.may_change:
        _hand(entry, run)
    return value


def _hand(entry: _Entry, run: _Run | None) -> None:
    """Note who may change a value in place from now on: any value under a lock, else containers."""
    quiet = _quiet.get()
    if quiet is not None:
        if entry not in quiet.handed:
            quiet.handed[entry] = _inspector.begin_quiet(entry, run)
        return
    transaction = _local.transaction
    if transaction.depth > 0:
        transaction.handed.add(entry)
    if issubclass(type(entry.value), _CONTAINERS):
        if run is not None:
            run.handed.add(entry)
        elif transaction.depth == 0 and _context() is not None:  # a run that was superseded
            _inspector.name([entry], None, is_locked=False)


def _write(new: Mapping[str, Any], only_new: bool = False) -> Any:
    """Set keys, or remove those that are _MISSING, as one change; give what the last one held."""
    if _store is not None:
        return _store.write(new, only_new)  # commits it, and then calls _assign
    return _assign(new, only_new)


def _assign(new: Mapping[str, Any], only_new: bool = False) -> Any:
    run = _author()
    quiet = _quiet.get()
    entries = [_entry(key) for key in new]
    fingerprints = _fingerprints(new)
    found: list[_Entry] = []
    for entry in entries:
        if not entry.fingerprint.may_change:
            continue
        # What others have changed in place, and this would hide.
        is_equal = entry.fingerprint.content == fingerprints[entry.key].content
        if (is_equal or quiet is not None) and _inspector.finds_change(entry, run):
            found.append(entry)
    before, changed = _replace(new, fingerprints, only_new)
    for entry in entries:  # the app still has in hand what it assigns
        if not entry.fingerprint.may_change:
            continue
        if quiet is None:
            _hand(entry, run)
        else:
            quiet.handed[entry] = entry.fingerprint
    if quiet is not None:
        changed = []
    elif run is not None:
        run.assign(changed)
    if changed or found:
        _tell([*changed, *found], run)
    return before


def _fingerprints(new: Mapping[str, Any]) -> dict[str | None, _Fingerprint]:
    return {key: _fingerprint(value) for key, value in new.items()}


def _replace(
    new: Mapping[str, Any], fingerprints: dict[str | None, _Fingerprint], only_new: bool = False
) -> tuple[Any, list[_Entry]]:
    """Give what the last key held before, and the entries that have changed."""
    before = _MISSING
    replaced: list[Any] = []  # kept alive until the master lock is released
    changed: list[_Entry] = []
    with _master:
        for key, value in new.items():
            entry = _entry(key)
            before = entry.value
            if value is before is _MISSING or (only_new and before is not _MISSING):
                continue
            replaced += (before, entry.fingerprint)
            if entry.fingerprint.content != fingerprints[key].content:
                changed.append(entry)
            entry.fingerprint = fingerprints[key]  # before the value, for _note
            entry.value = value
            if value is _MISSING:
                del _present[key]
            else:
                _present[key] = entry
            if value is _MISSING or before is _MISSING:
                changed.append(_key_set)
    return before, changed


def _tell(changed: Iterable[_Entry], run: _Run | None) -> None:
    """Publish what a thread has changed; under a lock, nobody is told before the release."""
    transaction = _local.transaction
    if transaction.depth > 0:
        transaction.changed.update(changed)
        _publish(changed, run, hold=weakref.ref(transaction.changed))
    else:
        _publish(changed, run)
        _notify()


# --- What counts as a change ---
class _Fingerprint(NamedTuple):
    """What a value was when it was last assigned or looked at."""

    content: Any
    structure: Any  # with objects of the app's classes by identity
    kept: Any = None  # what must stay alive so that an id is of one object only
    may_change: bool = True  # in place, and looking at it would tell


_FINGERPRINT_LIMIT = 64 * 2**20  # bytes of a value that are looked at
_NOTHING = _Fingerprint(_MISSING, _MISSING, may_change=False)
_key_set = _Entry(None)  # changes when a key comes or goes
_TakeApart = Callable[[Any], Any]  # gives what stands for an object in a pickle
_SCALARS = frozenset([type(None), bool, int, float, complex, str, bytes])
_CONTAINERS = (list, dict, set, bytearray, deque, tuple)
# Objects of these modules are data; those of other installed ones are compared by identity.
_DATA = set("abc array builtins collections contextlib copyreg dataclasses datetime".split())
_DATA |= set("decimal enum fractions ipaddress pathlib random types typing uuid zoneinfo".split())
_DATA |= set("numpy pandas polars pyarrow".split())
_SERVICES = sys.stdlib_module_names - _DATA  # threads, queues, files, sockets, loggers


def _fingerprint(value: Any) -> _Fingerprint:
    """Look at a value. Never an error: what cannot be looked at is compared by identity."""
    if value is _MISSING:
        return _NOTHING
    cls = type(value)
    if type(cls) is type and cls in _SCALARS:  # other metaclasses may not be hashable
        content = (cls, value if value == value else "nan")
        return _Fingerprint(content, content, None, False)
    is_too_large = False
    for has_memo in (False, True):  # too large without it may only be much shared
        try:
            return _Pickler(has_memo).fingerprint(value)
        except OverflowError:
            is_too_large = has_memo
        except KeyboardInterrupt:
            raise
        except BaseException:  # Polars panics with such, scripts exit with it
            is_too_large = False  # it cannot be pickled, or another thread is changing it
    return _Fingerprint(id(value), id(value), value, not is_too_large)


class _Digest:
    """The file that a pickler writes to."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.remaining = _FINGERPRINT_LIMIT

    def write(self, data: Any) -> None:
        self.remaining -= len(data)
        if self.remaining < 0:
            raise OverflowError
        self.hash.update(data)

    def write_buffer(self, buffer: pickle.PickleBuffer) -> None:
        data = buffer.raw()
        self.write(b"%d " % len(data))
        self.write(data)


class _Pickler(pickle.Pickler):
    """A pickler that only looks, in C where it can: nothing that it writes is ever read.

    Objects become a call of `int` with their class's name and their parts. Without a memo it does
    not see which parts are one object, and takes cycles and much shared parts for endless.
    """

    def __init__(self, has_memo: bool) -> None:
        self.digest = _Digest()
        super().__init__(self.digest, 5, buffer_callback=self.digest.write_buffer)
        self.fast = not has_memo
        self.memo = {id(int): (0, int)}  # so `int` is written as a number, not by its name
        self.reducers: dict[int, _TakeApart] = {}  # by the ids of classes
        self.states: dict[int, _TakeApart] = {}
        self.kept: list[Any] = []
        self.own: list[Any] = []  # objects of the app's classes, as they are first met
        self.numbers: dict[int, int] = {}  # their places in that list, by their ids

    def fingerprint(self, value: Any) -> _Fingerprint:
        self.dump(value)
        # So far the digest has the containers only, and of the app's objects which ones they are.
        structure = (self.digest.hash.digest(), hash(tuple(map(id, self.own))))
        opened = 0
        while opened < len(self.own):
            objects = self.own[opened:]
            opened = len(self.own)
            self.dump([self.states[id(type(obj))](obj) for obj in objects])
        content = self.digest.hash.digest()
        return _Fingerprint(content, structure, (self.kept, self.own))

    def reducer_override(self, obj: Any) -> Any:
        cls = type(obj)
        reducer = self.reducers.get(id(cls))
        if reducer is None:
            reducer = self.reducers[id(cls)] = self.reducer(cls)
        return reducer(obj)

    def reducer(self, cls: type) -> _TakeApart:
        """Choose how objects of a class are taken apart, or that they are not."""
        if issubclass(cls, type):
            return _by_name  # each run of a script makes its classes anew
        by_identity = _by_identity(self.kept)  # closures without `self`, which would be a cycle
        if cls is types.FunctionType or cls is types.MethodType:
            return by_identity
        pickles = ("__reduce_ex__", "__reduce__")
        maker = next(b for b in cls.__mro__ if not vars(b).keys().isdisjoint(pickles))
        read = next((read for base, read in _IMMUTABLE if base == _class_name(maker)), None)
        if read is not None:
            return _by_value(cls, read)
        if maker is not object or _root(cls) in _DATA:
            is_data = _root(maker) in _DATA or issubclass(cls, tuple)
            return _by_parts(cls, by_identity) if is_data else by_identity
        is_service = _is_installed(cls) or any(_root(base) in _SERVICES for base in cls.__mro__)
        if is_service and not hasattr(cls, "__dataclass_fields__"):
            return by_identity
        self.states[id(cls)] = _state(cls, by_identity)
        return _by_number(self.own, self.numbers)


def _root(cls: type) -> str:
    return str(cls.__module__).partition(".")[0]


def _is_installed(cls: type) -> bool:
    file = getattr(sys.modules.get(str(cls.__module__)), "__file__", None)
    return "site-packages" in str(file) or "dist-packages" in str(file)


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _by_name(cls: type) -> Any:
    return int, (_class_name(cls),)


def _by_identity(kept: list[Any]) -> _TakeApart:
    def reduce(obj: Any) -> Any:
        kept.append(obj)
        return int, (id(obj),)

    return reduce


def _by_number(own: list[Any], numbers: dict[int, int]) -> _TakeApart:
    def reduce(obj: Any) -> Any:
        number = numbers.setdefault(id(obj), len(own))
        if number == len(own):
            own.append(obj)
        return int, (number,)

    return reduce


def _by_value(cls: type, read: _TakeApart) -> _TakeApart:
    name = _class_name(cls)
    return lambda obj: (int, (name, read(obj)))


def _by_parts(cls: type, by_identity: _TakeApart) -> _TakeApart:
    name = _class_name(cls)
    is_array = name == "numpy.ndarray"
    has_caches = _root(cls) == "pandas" and hasattr(cls, "__array__")

    def reduce(obj: Any) -> Any:
        try:
            if is_array and not obj.flags.c_contiguous:
                obj = obj.copy()  # the same content in another memory order
            elif has_caches:
                obj = obj[:]  # pandas pickles what an object has worked out when it was read from
            parts = obj.__reduce_ex__(5)
        except Exception:
            parts = None
        if not isinstance(parts, tuple):
            return by_identity(obj)
        _, args, *more = parts
        return int, (name, *args), *more[:3]

    return reduce


def _state(cls: type, by_identity: _TakeApart) -> _TakeApart:
    """Make a function that gives the parts of a plain object, as pickle sees them."""
    name = _class_name(cls)
    own_state = getattr(cls, "__getstate__", None)
    has_own_state = own_state is not getattr(object, "__getstate__", None)
    slots = [
        slot
        for base in cls.__mro__
        for slot, descriptor in vars(base).items()
        if type(descriptor) is types.MemberDescriptorType
    ]
    get_slots = operator.attrgetter(*(slots or ["__class__"]))
    has_dict = cls.__dictoffset__ != 0
    content = next((read for base, read in _BUILT_IN if issubclass(cls, base)), None)

    def state(obj: Any) -> Any:
        try:
            if has_own_state:
                return name, obj.__getstate__()
            if content is None and not slots:
                return name, obj.__dict__
            if content is None and not has_dict:
                return name, get_slots(obj)
        except AttributeError:
            pass  # a slot that is not set
        except Exception:
            return by_identity(obj)[1]
        try:
            values = [getattr(obj, slot, None) for slot in slots]
            return name, getattr(obj, "__dict__", None), values, content and content(obj)
        except Exception:
            return by_identity(obj)[1]

    return state


# How to read what pickle takes apart slowly, by the class that says how.
_IMMUTABLE: list[tuple[str, _TakeApart]] = [
    ("enum.Enum", operator.attrgetter("_value_")),
    ("decimal.Decimal", str),
    ("datetime.datetime", lambda obj: repr(obj.__reduce_ex__(5)[1])),
]
_BUILT_IN: list[tuple[type, _TakeApart]] = [
    (dict, dict),
    (list, list),
    (tuple, list),
    (str, str.__repr__),
    (bytes, bytes.__repr__),
    (int, int.__repr__),
    (float, float.__repr__),
]


# --- The inspector ---
_PAUSE = 0.005  # seconds between a change in place and the look that finds it, at least
_RETRY = 1.0  # seconds until it looks whether a lock that stood in its way is gone
_PATIENCE = 1.0  # seconds after a release that it lets other holders delay the look
_IN_PLACE_CHAIN = 3  # links of a chain of changes in place alone that are told


class _Suspect(NamedTuple):
    """Who may have changed a value in place, and is done."""

    run: _Run | None  # None: a thread
    is_locked: bool  # else objects of the app's own classes are left out
    since: float


class _Inspector:
    """Finds changes made in place, in a thread of its own: no script, page or event loop waits.

    Who was handed a value may be changing it; who is done with it names it, to be looked at.
    """

    def __init__(self) -> None:
        self.named: dict[_Entry, list[_Suspect]] = {}
        self.holds: list[Any] = []  # keep what was assigned beside it, until the next look
        self.wake = threading.Event()
        self.is_running = False

    def name(
        self,
        entries: Iterable[_Entry],
        run: _Run | None,
        is_locked: bool,
        hold: set[_Entry] | None = None,
    ) -> None:
        """Note whose values may have been changed in place; to be looked at soon."""
        suspect = _Suspect(run, is_locked, time.monotonic())
        with _master:
            for entry in entries:
                self.named.setdefault(entry, []).append(suspect)
            self.holds.append(hold)
            is_first = not self.is_running
            self.is_running = True
        self.wake.set()
        if not is_first:
            return
        try:
            threading.Thread(target=self.run, name="server_state", daemon=True).start()
        except RuntimeError:  # there are too many; the next to name something tries again
            self.is_running = False
            _guarded(self.look)

    def run(self) -> None:
        """Look whenever something is named, for at most a fifth of the time."""
        while True:
            self.wake.wait(_RETRY if self.named else None)
            time.sleep(_PAUSE)
            self.wake.clear()
            before = time.monotonic()
            _guarded(self.look)
            time.sleep(4 * (time.monotonic() - before))

    def look(self) -> None:
        """Look once at each value that was named, and tell what has changed together."""
        with _master:
            holds, self.holds = self.holds, []
            named = list(self.named)
        for entry in named:
            self.look_at(entry)
        holds.clear()
        _notify()

    def look_at(self, entry: _Entry) -> None:
        """Look at a value, and publish it if it has changed, unless somebody may be changing it."""
        with _master:
            suspects = list(self.named[entry])
            value = entry.value
            before = entry.fingerprint
        is_patient = time.monotonic() < suspects[0].since + _PATIENCE
        if is_patient and self.is_held(entry):
            return  # its release has it looked at
        after = _fingerprint(value)
        is_changed = after.content != before.content
        is_locked = any(suspect.is_locked for suspect in suspects)
        # A change in objects of the app alone is told once assigned, or seen under a lock.
        is_left_out = is_changed and after.structure == before.structure and not is_locked
        with _master:
            if is_patient and self.is_held(entry):
                return  # it was taken while we looked
            later = self.named.pop(entry)[len(suspects) :]
            if later:
                self.named[entry] = later
            if is_left_out or entry.fingerprint is not before:
                return  # it was assigned meanwhile
            entry.fingerprint = after
            authors = {suspect.run for suspect in (*suspects, *later)} | self.holders(entry)
            if self.is_held(entry):  # we were out of patience
                authors.add(None)
        if is_changed:
            self.publish(entry, authors, value)

    def begin_quiet(self, entry: _Entry, me: _Run | None) -> _Fingerprint | None:
        """Tell what this thread has changed before a `no_rerun`, and give what is told by then.

        None where others may have changed it too: a look is to come that tells all of it.
        """
        before = entry.fingerprint
        after = _fingerprint(entry.value)
        if after.content == before.content:
            return before
        with _master:
            is_named = entry in self.named or entry.fingerprint is not before
            if is_named or self.is_held(entry) or self.holders(entry) - {me}:
                return None
            entry.fingerprint = after
        if _store is None or _store.offer(entry, entry.value):
            _tell([entry], me)
        return after

    def end_quiet(self, entry: _Entry, before: _Fingerprint | None, since: float) -> None:
        """Take for told what was changed in a `no_rerun`, unless others may have changed it too."""
        value = entry.value
        after = _fingerprint(value)
        with _master:
            is_named = any(suspect.since >= since for suspect in self.named.get(entry, ()))
            if entry.fingerprint is not before or is_named or self.is_held(entry):
                return
            entry.fingerprint = after
        if _store is not None and after.content != before.content:
            _store.offer(entry, value, is_told=False)

    def holders(self, entry: _Entry) -> set[_Run | None]:
        """Give the runs that have a container in hand just now."""
        with _master:
            return {run for run in _running if entry in run.handed}

    def is_held(self, entry: _Entry) -> bool:
        """Whether a transaction of another thread may be changing a value just now."""
        mine = _local.transaction
        with _master:
            return any(one.may_change(entry) for one in _transactions if one is not mine)

    def finds_change(self, entry: _Entry, me: _Run | None) -> bool:
        """Look at once at a value that is about to be replaced, if others may have changed it."""
        quiet = _quiet.get()
        if quiet is not None and quiet.handed.get(entry) is entry.fingerprint:
            return False  # what has changed in this block is our own change
        before = entry.fingerprint
        is_suspect = entry in self.named or bool(self.holders(entry) - {me})
        return is_suspect and _fingerprint(entry.value).content != before.content

    def publish(self, entry: _Entry, authors: set[_Run | None], value: Any) -> None:
        """Publish a change in place: its author is not told, if there can be only one."""
        run = next(iter(authors)) if len(authors) == 1 else None
        depth = min(author.cause.depth + 1 if author else 0 for author in authors)
        in_place = min(author.cause.in_place + 1 if author else 0 for author in authors)
        is_told = in_place <= _IN_PLACE_CHAIN
        if not is_told:
            _warn_of_chain(entry, "not told any more")
        if _store is not None and not _store.offer(entry, value, depth, in_place, is_told):
            return
        if is_told:
            _publish([entry], run, depth, in_place)


_inspector = _Inspector()


# --- Readers and publishing ---
# By fragment, None for the body of the script: the version of each entry when it was first read;
_Notes = dict[str | None, dict[_Entry, int]]
_Stale = dict[str | None, list[_Entry]]  # and the entries that have another one by now.


class _Cause(NamedTuple):
    """Why a run is made; as it stands here, because a user did something."""

    depth: int = 0  # in a chain of reruns that cause each other
    in_place: int = 0
    is_ours: bool = False
    # What the session has assigned itself, where nothing else is to be drawn again. It counts once.
    redrawn: frozenset[_Entry] = frozenset()


class _Run:
    """One run of a session's script, or of fragments in it."""

    def __init__(self, session: _Session, ctx: Any, thread_id: int | None) -> None:
        self.session = session
        self.begun = next(_versions)
        self.requests = ctx.script_requests
        self.fragments: list[str] = list(ctx.fragment_ids_this_run or ())
        self.thread_id = thread_id  # of no other thread until it is over
        self.is_over = False
        self.cause = _Cause()
        self.pending = [self]  # and earlier runs of its runner, until they are committed
        self.readers: _Notes = {}
        self.messages = 0  # that it has sent to the page
        self.messages_before: dict[_Entry, int] = {}  # the first read of an entry that can be shown
        self.redraws: set[_Entry] = set()  # shown, and then assigned
        self.handed: set[_Entry] = set()  # containers, which may be changed in place without a lock

    def keep_drawn_fragments(self) -> bool:
        """Stop for a rerun: its successor draws everything again, but for earlier fragments."""
        self.fragments = [fragment for fragment in self.fragments if fragment in self.readers]
        if not self.fragments:
            with contextlib.suppress(ValueError):
                self.pending.remove(self)
        return bool(self.fragments)

    def take_pending(self) -> list[_Run]:
        """Give the runs that are over with this one, and not yet committed, the first one first.

        Mostly that is this run alone; when its runner was replaced, earlier ends went unheard.
        """
        if self not in self.pending:
            return []
        until = self.pending.index(self) + 1
        taken = self.pending[:until]
        del self.pending[:until]
        return taken

    def note(self, entry: _Entry, fragment: str | None, is_shown: bool) -> None:
        if fragment is None and self.fragments:
            fragment = self.fragments[0]  # read in a helper thread of it
        notes = self.readers.get(fragment)
        if notes is None:
            notes = self.readers.setdefault(fragment, {})
        notes.setdefault(entry, entry.version)
        if is_shown:
            self.messages_before.setdefault(entry, self.messages)

    def assign(self, entries: Iterable[_Entry]) -> None:
        """Note what this run assigns although something was drawn since it was read."""
        for entry in entries:
            if self.messages_before.get(entry, self.messages) != self.messages:
                self.redraw(entry)

    def redraw(self, entry: _Entry) -> None:
        """Have this run's own page drawn again, if it shows the entry: once for each of them."""
        is_read = any(entry in notes for notes in list(self.readers.values()))
        if is_read and entry not in self.cause.redrawn:
            self.redraws.add(entry)

    def know(self, entry: _Entry, before: int) -> None:
        """Note a change that this run has made itself.

        Once it is committed, these notes are the session's: so also a late look spares its page.
        """
        if entry not in self.redraws:
            for notes in list(self.readers.values()):
                if notes.get(entry) == before:  # else it has missed an earlier change, too
                    notes[entry] = entry.version


class _Session:
    """What one browser session shows. It is changed on the event loop only."""

    def __init__(self, app: Any) -> None:
        self.app: weakref.ref[Any] = weakref.ref(app)  # Streamlit's own object for it
        self.readers: _Notes = {}  # of the runs that it shows
        self.redraws: set[_Entry] = set()  # what they have assigned after they had drawn it
        self.redrawn: frozenset[_Entry] = frozenset()  # and what was so when they were asked for
        self.drawn = 0  # when the full run that it shows had begun
        self.is_ours = False  # whether we asked for any run that it shows
        self.is_doubtful = False  # whether messages to the page were lost
        self.connection: weakref.ref[Any] | None = None
        self.cause: _Cause | None = None  # of the run that we ask for
        self.requests: Any = None  # to the runner that makes it, once there is one
        self.run: _Run | None = None  # of whose end we have not yet heard
        self.not_before: float | None = None  # when a chain of reruns may go on

    def commit(self, run: _Run) -> None:
        """Take over what a run has read in place of what was read before."""
        if run.fragments:
            for fragment in run.fragments:
                self.readers.pop(fragment, None)
            self.redraws = {entry for entry in self.redraws if self.shows_older(entry)}
            if not self.redraws:
                self.redrawn = frozenset()
            self.readers.update(run.readers)
            self.redraws |= run.redraws
            self.redrawn |= run.cause.redrawn
            self.is_ours |= run.cause.is_ours
        else:
            self.readers = run.readers
            self.redraws = run.redraws
            self.redrawn = run.cause.redrawn
            self.is_ours = run.cause.is_ours
            self.is_doubtful = False
            self.drawn = run.begun

    def shows_older(self, entry: _Entry) -> bool:
        """Whether something here shows an older version, told or not yet told."""
        notes = list(self.readers.values())
        return any(one.get(entry, entry.version) < entry.version for one in notes)

    def binds(self, run: _Run) -> bool:
        """Whether this session will be stale when anything changes that a run has read."""
        return all(
            notes.keys() <= self.readers.get(fragment, {}).keys()
            for fragment, notes in run.readers.items()
        )

    def stale(self) -> _Stale:
        """Give the readers that show something old, each with the entries."""
        if self.is_doubtful:
            return {None: []}
        stale: _Stale = {}
        for fragment, notes in list(self.readers.items()):
            old = [entry for entry, version in list(notes.items()) if version < entry.latest()]
            if old:
                stale[fragment] = old
        return stale

    def plan(self, stale: _Stale, requests: Any) -> None:
        """Note what the run that we ask for next is made for.

        While its runner is not there (None), the next run of the session is taken for it.
        """
        entries = [entry for old in stale.values() for entry in old]
        depth = max((entry.depth for entry in entries), default=0)
        in_place = min((entry.in_place for entry in entries), default=0)
        redrawn: frozenset[_Entry] = frozenset()
        if entries and self.redraws.issuperset(entries):
            redrawn = self.redrawn.union(entries)
        self.requests = requests
        self.cause = _Cause(depth, in_place, True, redrawn)


def _publish(
    changed: Iterable[_Entry],
    run: _Run | None,
    depth: int | None = None,
    in_place: int = 0,
    hold: weakref.ref[set[_Entry]] | None = None,
) -> None:
    """Give entries new versions: who has noted older ones is rerun, but the author's run is not."""
    if depth is None:
        maker = run or _here()[1]  # a run's helper thread goes on with its chain
        depth = maker.cause.depth + 1 if maker else 0
    with _master:
        for entry in changed:
            entry.told = entry.latest()
            entry.hold = hold
            entry.depth = depth
            entry.in_place = in_place
            before = entry.version
            entry.version = next(_versions)
            if run is not None:
                run.know(entry, before)


def _notify() -> None:
    if _scheduler is not None:
        _scheduler.notify()


# --- The scheduler ---
_SOON = 0.001  # seconds from a change to the look for its readers: the writer goes on first
_SWEEP = 1.0  # seconds between looks for tabs that have come back
_TURN = 0.0005  # seconds for the event loop to send what was drawn, before the next rerun
_LOOK = 0.004  # seconds between looks whether the process is idle, while reruns are under way
_BESIDE = 3  # reruns that are started beside others when it is
_AT_LEAST = 0.03  # seconds until the next rerun is started beside others, at the latest
_CHAIN = 20  # links of a chain of reruns that come at full speed
_COLLECT = 5.0  # seconds for which the collection of garbage is put off, at most


class _Scheduler:
    """Starts reruns one by one, on Streamlit's event loop; only there is a session spoken to."""

    def __init__(self, runtime: Any, loop: Any) -> None:
        self.runtime = runtime
        self.loop = loop
        self.timer: Any = None
        self.is_notified = False
        self.next_sweep = 0.0
        self.due: dict[_Session, float] = {}  # when to look at which sessions
        self.running: weakref.WeakSet[_Session] = weakref.WeakSet()  # by reruns of ours
        self.last_start = self.measured_at = self.cpu = 0.0
        self.spare = 0  # reruns that may be started beside others
        self.put_off_at: float | None = None

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function on the event loop, after Streamlit's own receiver of the same event."""
        with contextlib.suppress(RuntimeError):  # the server has stopped
            self.loop.call_soon_threadsafe(self.loop.call_soon, _guarded, function, *args)

    def notify(self) -> None:
        """Look soon for sessions that show something old. From any thread."""
        if not self.is_notified:
            self.is_notified = True
            self.call(self.loop.call_later, _SOON, self.sweep)

    def sweep(self) -> None:
        """Look for sessions that show something old, now and once a second."""
        self.is_notified = False
        with _master:
            sessions = list(_sessions.values())
        now = time.monotonic()
        for session in sessions:
            _guarded(self.look_for_reconnection, session)
            if session not in self.due and session.stale():
                self.due[session] = now
        self.next_sweep = now + _SWEEP if sessions else float("inf")
        self.step()

    def look_for_reconnection(self, session: _Session) -> None:
        """A tab that comes back may have missed what a run of ours drew into a dead connection."""
        app = session.app()
        info = app and self.runtime._session_mgr.get_session_info(app.id)
        if info is None:
            return
        if session.connection is not None and session.connection() is not info and session.is_ours:
            session.is_doubtful = bool(session.readers)
        session.connection = weakref.ref(info)

    def step(self) -> None:
        """Look at the sessions that are due, and come back for the others."""
        now = time.monotonic()
        if now >= self.next_sweep:
            self.sweep()
            return
        least = _TURN
        for session in [session for session, at in self.due.items() if at <= now]:
            if not self.has_room():
                least = _LOOK  # unless a run ends before
                break
            del self.due[session]
            wait = _guarded(self.rerun, session)
            if wait is not None:
                self.due[session] = now + wait
        until = _COLLECT if self.due or self.running else _SWEEP
        if self.put_off_at is not None and now > self.put_off_at + until:
            self.put_off_at = None
            _guarded(_collect_garbage)
        self.step_in(max(least, min([self.next_sweep, *self.due.values()]) - now))

    def step_in(self, seconds: float) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.loop.call_later(seconds, self.step)

    def has_room(self) -> bool:
        """Two reruns at a time; while the process waits more than it works, others beside."""
        now = time.monotonic()
        if len(self.running) < 2 or now - self.last_start > _AT_LEAST:
            return True
        elapsed = now - self.measured_at
        if self.spare == 0 and elapsed >= _LOOK:
            before, self.cpu = self.cpu, time.process_time()
            self.measured_at = now
            if self.cpu - before < elapsed / 2:
                self.spare = _BESIDE
        if self.spare == 0:
            return False
        self.spare -= 1
        return True

    def rerun(self, session: _Session) -> float | None:
        """Rerun a session unless there is a reason not to.

        Give the seconds until it is looked at again, or None where an event or a sweep tells when.
        """
        app = session.app()
        stale = session.stale()
        if app is None or not stale:
            return None
        if app._scriptrunner is not None:  # a rerun would interrupt it; we hear of its end
            app._scriptrunner.on_event.connect(_on_event, weak=False)
            return None
        if session.run is not None:  # it has ended, and we have not yet heard of it
            return None
        if not self.runtime.is_active_session(app.id):
            return None
        wait = self.wait_of_chain(session, stale)
        if wait > 0:
            return wait
        fragment = None if None in stale else next(iter(stale))
        if fragment is not None and not app._fragment_storage.contains(fragment):
            del session.readers[fragment]
            return 0.0
        session.plan(stale, None)
        runner = _request_rerun(app, fragment)
        if runner is None:
            session.is_doubtful = False
            session.readers = {f: notes for f, notes in session.readers.items() if f not in stale}
            return None
        with _master:
            session.requests = runner._requests
        self.note_start(session)
        return None

    def note_start(self, session: _Session) -> None:
        now = time.monotonic()
        self.last_start = self.measured_at = now
        self.cpu = time.process_time()
        self.running.add(session)
        if self.put_off_at is None and _put_garbage_off():  # once for many runs
            self.put_off_at = now

    def wait_of_chain(self, session: _Session, stale: _Stale) -> float:
        """Give the seconds that a chain of reruns has to wait, the more the longer it is."""
        chain = [entry for old in stale.values() for entry in old if entry.depth > _CHAIN]
        if not chain:
            return 0.0
        for entry in chain:
            _warn_of_chain(entry, "slowed down")
        delay = min(1.0, 0.05 * (max(entry.depth for entry in chain) - _CHAIN))
        if session.not_before is None:
            session.not_before = time.monotonic() + delay
        wait = session.not_before - time.monotonic()
        if wait <= 0:
            session.not_before = None
        return wait

    def run_ended(self, run: _Run) -> None:
        """Hear that a run has ended, as Streamlit has."""
        app = run.session.app()
        runner = None if app is None else app._scriptrunner
        if runner is not None and runner._requests is run.requests:  # else superseded, or over
            for ended in run.take_pending():
                run.session.commit(ended)

    def runner_ended(self, run: _Run, client_state: Any) -> None:
        """Hear that the runner that made a run has ended; Streamlit took note, or dropped it."""
        session = run.session
        app = session.app()
        if app is None:
            return
        if run is session.run:
            session.run = None
            self.running.discard(session)
        is_shown = client_state is None or app._client_state is client_state
        for ended in run.take_pending():
            if is_shown:
                session.commit(ended)
            elif ended.begun > session.drawn and not session.binds(ended):
                session.is_doubtful = True  # only a part of what it drew was dropped
        if session.stale():
            self.due[session] = time.monotonic()
        self.step_in(_TURN)


_scheduler: _Scheduler | None = None
_warned: set[str | None] = set()
_logger = logging.getLogger("server_state")


def _warn_of_chain(entry: _Entry, what: str) -> None:
    if entry.key not in _warned:
        _warned.add(entry.key)
        message = 'Changes of server_state["%s"] cause each other, and are %s: %s.'
        key = entry.key or "(the set of keys)"
        _logger.warning(message, key, what, "make them in callbacks or in no_rerun")


# --- Streamlit: every reach into it ---
_off = False  # where it lacks something that we need
_NEEDS_OF_CONTEXT = (
    "fragment_ids_this_run",
    "page_script_hash",
    "query_string",
    "script_requests._rerun_data.fragment_id_queue",
    "script_requests._rerun_data.widget_states",
    "script_requests._state.name",
    "_has_script_started",
)
_NEEDS_OF_SESSION = (
    "id",
    "request_rerun",
    "_client_state.CopyFrom",
    "_event_loop.call_soon_threadsafe",
    "_fragment_storage.contains",
    "_scriptrunner.on_event.connect",
    "_scriptrunner.request_rerun",
    "_scriptrunner._requests",
    "_scriptrunner._script_thread",
)


def _guarded(function: Callable[..., Any], *args: Any) -> Any:
    """Call something that reaches into Streamlit: an error is that one session's, and is logged."""
    try:
        return function(*args)
    except Exception as error:
        message = "server_state: a session may show old values until its next run."
        _logger.error(message, exc_info=error)
        return None


def _context() -> Any:
    """Give Streamlit's context of the script run that this thread belongs to, or None."""
    module = sys.modules.get("streamlit.runtime.scriptrunner")
    get = getattr(module, "get_script_run_ctx", None)  # None while another thread imports it
    return None if get is None else get(suppress_warning=True)


def _here() -> tuple[Any, _Run | None]:
    """Give Streamlit's context of this thread, and the run that it belongs to."""
    ctx = None if _off else _context()
    if ctx is None:
        return None, None
    run = ctx.__dict__.get("_server_state")
    if run is None:
        run = _guarded(_begin, ctx)
    elif run.is_over:  # a thread that it started goes on
        run = None
    return ctx, run


def _fragment(ctx: Any) -> str | None:
    """Give the fragment that is being run; None is the body of the script."""
    if "current_fragment_id" in ctx.__dict__:  # older releases
        return ctx.current_fragment_id  # type: ignore[no-any-return]
    state = _thread_state()
    return None if state is None else state.fragment_id


def _thread_state() -> Any:
    module = sys.modules.get("streamlit.runtime.scriptrunner_utils.script_run_context")
    try:
        return module.ThreadState.get()  # type: ignore[union-attr]
    except (AttributeError, RuntimeError):  # an older release; a helper thread, which has none
        return None


def _author() -> _Run | None:
    """Give the run whose own thread this is; what helper threads change is nobody's own."""
    _, run = _here()
    if run is None or run.thread_id == threading.get_ident():
        return run
    return run if getattr(_thread_state(), "is_parallel_worker", False) else None


def _begin(ctx: Any, before: _Run | None = None) -> _Run | None:
    """Note that a run has begun. None if it is no session's, or one that was superseded."""
    cls: Any = sys.modules["streamlit.runtime"].Runtime
    runtime: Any = cls.instance() if cls.exists() else None
    if not issubclass(type(runtime), cls):
        return None  # `AppTest` puts a mock in its place
    if _scheduler is None and not _has_all(runtime, ctx):
        return None
    info = runtime._session_mgr.get_session_info(ctx.session_id)
    runner = info and info.session._scriptrunner
    if runner is None or runner._requests is not ctx.script_requests:
        return None
    return _begin_run(_session(runtime, info.session), ctx, runner, before)


def _has_all(runtime: Any, ctx: Any) -> bool:
    """Look up all that is needed of Streamlit, once. Without it we stay a dictionary with locks."""
    global _off
    try:
        info = runtime._session_mgr.get_session_info(ctx.session_id)
        if info is None or info.session._scriptrunner is None:
            return True  # a session that is about to go
        operator.attrgetter(*_NEEDS_OF_SESSION)(info.session)
        operator.attrgetter(*_NEEDS_OF_CONTEXT)(ctx)
        operator.attrgetter("is_active_session")(runtime)
        operator.attrgetter("get_option", "set_option")(sys.modules["streamlit.config"])
        operator.attrgetter("RerunData")(sys.modules["streamlit.runtime.scriptrunner"])
        if "current_fragment_id" not in ctx.__dict__:
            name = "streamlit.runtime.scriptrunner_utils.script_run_context"
            operator.attrgetter("ThreadState.get")(sys.modules[name])
    except (AttributeError, KeyError) as error:
        _off = True
        message = "server_state reruns no session: Streamlit lacks something (%s). %s"
        _logger.warning(message, error, "Copy a newer server_state.py.")
    return not _off


def _session(runtime: Any, app: Any) -> _Session:
    global _scheduler
    with _master:
        if _scheduler is None or _scheduler.loop is not app._event_loop:
            _scheduler = _Scheduler(runtime, app._event_loop)
        session = _sessions.get(app)
        if session is not None:
            return session
        session = _sessions[app] = _Session(app)
    _scheduler.notify()
    return session


def _begin_run(session: _Session, ctx: Any, runner: Any, before: _Run | None) -> _Run:
    with _master:
        known: _Run | None = ctx.__dict__.get("_server_state")
        if known is not None:
            return known  # another of the run's threads was faster
        run = ctx._server_state = session.run = _Run(session, ctx, runner._script_thread.ident)
        if before is not None:
            run.pending = before.pending
            run.pending.append(run)
        _running.add(run)
        if session.cause is not None and session.requests in (None, run.requests):
            run.cause = session.cause
        elif before is not None and run.requests._rerun_data.widget_states is None:
            run.cause = before.cause  # by `st.rerun()`: what a browser asks for has widget states
        session.cause = None
    runner.on_event.connect(_on_event, weak=False)
    return run


def _on_event(sender: Any, event: Any, **details: Any) -> None:
    """Hear of a script runner's progress, in its own thread."""
    ctx = _context()
    run = getattr(ctx, "_server_state", None)
    if event.name == "ENQUEUE_FORWARD_MSG":
        if run is not None:
            run.messages += 1
        return
    if event.name == "SCRIPT_STARTED" and ctx is not None:
        ctx._server_state = None  # the context is one for all runs of a runner
        _guarded(_begin, ctx, run)
        return
    if run is None:
        _, run = _here()
    if run is None or _scheduler is None:
        return
    if event.name == "SHUTDOWN":
        if not run.is_over:  # the script has called `sys.exit()`
            _guarded(_end_run, run)
        _scheduler.call(_scheduler.runner_ended, run, details.get("client_state"))
    elif "STOPPED" in event.name:
        _guarded(_end_run, run)
        if event.name != "SCRIPT_STOPPED_FOR_RERUN" or run.keep_drawn_fragments():
            _scheduler.call(_scheduler.run_ended, run)
        if event.name == "FRAGMENT_STOPPED_WITH_SUCCESS":
            _guarded(_rerun_between_fragments, run, ctx, sender)


def _end_run(run: _Run) -> None:
    """Close what a run leaves: locks that it did not release, and containers it has in hand."""
    for name in list(_local.transaction.names):
        while _locks[name]._lock._is_owned():
            _guarded(_locks[name].release)
    if run.handed:
        _inspector.name(run.handed.copy(), run, is_locked=False)
    run.is_over = True
    with _master:
        _running.discard(run)


def _rerun_between_fragments(run: _Run, ctx: Any, runner: Any) -> None:
    """Rerun the rest of the page, where timed fragments leave no time when nothing is under way.

    The next one waits already; a request made here is joined to it.
    """
    stale = {f: old for f, old in run.session.stale().items() if f not in run.fragments}
    requests = runner._requests
    if not stale or requests._state.name != "RERUN" or _scheduler is None:
        return
    if not requests._rerun_data.fragment_id_queue:
        return  # all of the page is to be drawn anyway, or another one
    if _scheduler.wait_of_chain(run.session, stale) > 0:
        return
    fragment = None if None in stale else next(iter(stale))
    run.session.plan(stale, requests)
    kind = sys.modules["streamlit.runtime.scriptrunner"].RerunData
    names = ("query_string", "page_script_hash", "cached_message_hashes", "context_info")
    known = kind.__dataclass_fields__  # older releases have fewer
    kept = {name: getattr(ctx, name) for name in names if name in known and hasattr(ctx, name)}
    runner.request_rerun(kind(fragment_id=fragment, **kept))


def _request_rerun(app: Any, fragment: str | None) -> Any:
    """Have Streamlit rerun a session that is at rest, on the same page; None if it does not."""
    state = type(app._client_state)()
    state.CopyFrom(app._client_state)
    state.fragment_id = fragment or ""
    app.request_rerun(state)
    runner = app._scriptrunner
    if runner is not None:
        runner.on_event.connect(_on_event, weak=False)
    return runner


def _put_garbage_off() -> bool:
    """Keep Streamlit from collecting garbage after each run, which stops everything for 50 ms."""
    config = sys.modules["streamlit.config"]
    if not config.get_option("runner.postScriptGC"):
        return False
    config.set_option("runner.postScriptGC", False)
    return True


def _collect_garbage() -> None:
    sys.modules["streamlit.config"].set_option("runner.postScriptGC", True)
    gc.collect()


# --- The instances ---
server_state = ServerState()
server_state_lock = ServerStateLock()
no_rerun = _NoRerun()

# Streamlit removes all local modules when any local file is saved, a module may be reloaded, and
# imported under two names. So the first copy runs once more, as a module of its own that has no
# file and is left alone; it holds the state, and every copy only gives out its names.
_HOME = "_server_state_1"
if __name__ != _HOME:
    if _HOME not in sys.modules:
        _home = types.ModuleType(_HOME)
        exec(sys._getframe().f_code, vars(_home))
        sys.modules.setdefault(_HOME, _home)
    _names = vars(sys.modules[_HOME])
    globals().update({name: _names[name] for name in __all__ if name in _names})
