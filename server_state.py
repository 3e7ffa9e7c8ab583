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
import functools
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
    Collection,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    ValuesView,
)
from contextvars import ContextVar, copy_context
from itertools import count
from typing import Any, NamedTuple

__all__ = ["KeyLock", "RerunSuppressedError", "ServerState", "ServerStateLock", "__version__"]
__all__ += ["force_rerun_bound_sessions", "no_rerun", "server_state", "server_state_lock"]
__version__ = "3.0.0"
_MISSING: Any = object()

# The words: an *entry* is a key with its value and version. A *run* of a script notes the versions
# that it reads; what a *session*'s latest runs have noted is what its page shows. A *transaction*
# is what a thread does under locks. Who got a value has it *in hand*, and may change it in place;
# when done, the entry is *suspected*: the *inspector* looks whether its *fingerprint* is another.
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
        _store.write({_name(key): value})

    def __delitem__(self, key: str) -> None:
        _found(_store.write({_name(key): _MISSING}), key)

    def __getattr__(self, key: str) -> Any:
        value = _MISSING if key.startswith("_") else _read(_name(key))
        return _found(value, key, MissingAttributeError)

    def __setattr__(self, key: str, value: Any) -> None:
        if key.startswith("_") or any(key in vars(base) for base in type(self).__mro__):
            message = f'server_state.{key} could not be read back: use server_state["{key}"] = ...'
            raise AttributeError(message)
        _store.write({_name(key): value})

    def __delattr__(self, key: str) -> None:
        _found(_store.write({_name(key): _MISSING}), key, MissingAttributeError)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, (str, int)):
            return False
        name = _name(key)
        is_here = _read(name, is_shown=False) is not _MISSING
        return is_here or _store.found(name) is not _MISSING

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
            value = _store.write({_name(key): default}, only_new=True)
        return default if value is _MISSING else value

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        """Remove the key and give its value, or `default`; KeyError if there is neither."""
        value = _store.write({_name(key): _MISSING})
        if value is _MISSING and default is not _MISSING:
            return default
        return _found(value, key)

    def update(self, other: Any = (), /, **more: Any) -> None:
        """Set several keys as one change."""
        _store.write({_name(key): value for key, value in dict(other, **more).items()})

    def clear(self) -> None:
        """Remove all keys as one change."""
        _store.write(dict.fromkeys(_present, _MISSING))


class MissingAttributeError(AttributeError, KeyError):
    """What `server_state.name` raises: a KeyError too, as `streamlit-server-state` has it."""

    __str__ = Exception.__str__


def _found(value: Any, key: object, error: type[Exception] = KeyError) -> Any:
    if value is _MISSING:
        value = _store.found(_name(key))
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
        transaction = _local.transaction
        if not _store.acquire(self, blocking, timeout):
            return False
        transaction.depth += len(self._names)
        transaction.names.update(self._names)
        _transactions.add(transaction)
        for name in self._names:
            entry = _present.get(name)
            if entry is not None:
                _inspector.look_before_change(entry)
        return True

    def release(self, *error: object) -> None:
        """Release the lock, and tell others after the outermost. RuntimeError if it is not ours."""
        if not self._lock._is_owned():
            hint = "acquire() it first"
            raise RuntimeError(f"The lock of {self._names} is not held by this thread: {hint}.")
        transaction = _local.transaction
        left = max(0, transaction.depth - len(self._names))  # `acquire` may have been interrupted
        try:
            if left == 0:
                transaction.end()
        finally:
            transaction.depth = left
            self._lock.release()

    __enter__ = acquire
    __exit__ = release

    def locked(self) -> bool:
        """Tell whether a thread of this process, be it this one, holds it, or one of several."""
        # Before Python 3.14 a re-entrant lock says so nowhere else.
        return any("unlocked" not in repr(_locks[name]._lock) for name in self._names)


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
        return KeyLock(tuple(names), _InOrder([_lock(one)._lock for one in names]))

    def __getattr__(self, name: str) -> KeyLock:
        if name.startswith("_"):
            hint = f'use server_state_lock["{name}"]'
            raise AttributeError(f"server_state_lock.{name} is no lock: {hint}.")
        return self[name]

    # A Mapping's own `in` and `get` would make the lock.
    def __contains__(self, name: object) -> bool:
        return isinstance(name, (str, int)) and _name(name) in _locks

    def get(self, name: str, default: Any = None) -> Any:
        """Give the lock if it was asked for before, else `default`."""
        return _locks.get(_name(name), default)

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

    def _is_owned(self) -> bool:
        return all(lock._is_owned() for lock in self.locks)

    def release(self) -> None:
        for lock in self.locks:
            lock.release()


class _Transaction:
    """What a thread does from its first lock to the release of its last one."""

    def __init__(self) -> None:
        self.depth = 0  # how many locks are held, each as often as it was taken
        self.names: set[str] = set()  # of the locks that were taken, some of them released by now
        self.handed: set[_Entry] = set()  # whose values it has in hand, and may change in place
        self.changed: set[_Entry] = set()  # what it has assigned, to be told at its end

    def has(self, entry: _Entry) -> bool:
        """Whether it has taken the entry's lock, or its value."""
        return entry.key in self.names or entry in self.handed

    def in_hand(self) -> set[_Entry]:
        """Give the entries whose values it may have changed in place, read or not."""
        for name in self.names:
            entry = _present.get(name)
            if entry is not None and entry.fingerprint.may_change:
                self.handed.add(entry)
        return self.handed

    def end(self) -> None:
        """Hand on what was assigned and what was in hand; the locks are still held."""
        try:
            if _inspector.overdue and _quiet.get() is None:
                _inspector.look_at_overdue(self)
            _store.commit(self)
        finally:
            self.names.clear()
            self.handed.clear()
            self.changed.clear()
            _transactions.discard(self)


class _Local(threading.local):
    """Each thread's transaction, which is gone when the thread is."""

    def __init__(self) -> None:
        self.transaction = _Transaction()
        self.thread = _Thread(self.transaction)


class _Thread:
    """Is let go of in the thread itself, when that ends: nobody else refers to it."""

    def __init__(self, transaction: _Transaction) -> None:
        self.transaction = transaction

    def __del__(self) -> None:
        """Release what the thread still holds, and have it looked at and told."""
        mine = self.transaction
        if not mine.names or sys.is_finalizing():  # at Python's end nobody lets go of locks
            return
        _transactions.discard(mine)
        for name in mine.names:
            lock = _locks[name]._lock
            while lock._is_owned():
                lock.release()
        _inspector.suspect(mine.in_hand(), _Cause(), True, mine.changed)


# --- Suppressing and forcing ---
class RerunSuppressedError(RuntimeError):
    """A rerun was forced inside `with no_rerun:`."""


class _Quiet(NamedTuple):
    """The `with no_rerun:` that a context is in: what it has in hand, and how deep it is."""

    handed: set[_Entry]
    depth: int


class _NoRerun:
    """`with no_rerun:` changes state without telling anybody. Nestable.

    It holds for the current thread or asyncio task, and for tasks that are started in it. What was
    changed in place before is told where the block first reads it; at the end of the block, what
    it had in hand is taken for told, even if another run has changed it meanwhile without a lock.
    """

    def __enter__(self) -> None:
        quiet = _quiet.get() or _Quiet(set(), 0)
        _quiet.set(quiet._replace(depth=quiet.depth + 1))

    def __exit__(self, *error: object) -> None:
        quiet = _quiet.get()
        if quiet is None:
            return
        if quiet.depth > 1:
            _quiet.set(quiet._replace(depth=quiet.depth - 1))
            return
        _quiet.set(None)
        for entry in quiet.handed:
            _inspector.take_for_told(entry)


def force_rerun_bound_sessions(key: str) -> None:
    """Rerun all that show a key, this run too once it has ended, although no change was seen.

    While a lock is held, they are told at its release. RerunSuppressedError inside `no_rerun`.
    From any thread.
    """
    key = _name(key)
    if _quiet.get() is not None:
        hint = "move the call out of that block"
        raise RerunSuppressedError(f'A rerun for "{key}" is forced inside no_rerun: {hint}.')
    entry = _entry(key)
    change, run, _ = _change_here()
    if run is not None:
        run.outdate(entry)
    _store.force(entry)
    transaction = _local.transaction
    with _master:
        _publish([entry], change._replace(how="forced"), run, transaction)
    if transaction.depth == 0:
        _notify([entry])


# --- Values ---
class _Change(NamedTuple):
    """How an entry came to have another version."""

    how: str = "assigned"
    by: str = "a thread"
    depth: int = 0  # in a chain of reruns that cause each other
    in_place: int = 0  # how many of the chain's latest links were changes in place


_BY_A_THREAD = _Change()


class _Entry:
    """One key: its value, and the version that readers compare with the one that they noted.

    Assigned under a lock, it has version 8 at once, and is told as 7 until the release: who noted 7
    is not yet rerun, and who reads in the middle notes 8 and will not be.
    """

    def __init__(self, key: str | None) -> None:
        self.key: Any = key  # None: the set of keys
        self.value: Any = _MISSING
        self.fingerprint = _NOTHING
        self.version = 0
        self.told = 0  # the version that readers are rerun for
        self.noted = -1  # the version that a run has read; -1: a look before a change came since
        self.change = _BY_A_THREAD

    def spoil(self, before: _Fingerprint, after: _Fingerprint) -> bool:
        """Have the next look find a change, if there was one, whatever it finds by then.

        Under the master lock.
        """
        if after.content == before.content or self.fingerprint.content != before.content:
            return False
        self.fingerprint = self.fingerprint._replace(content=object())  # which no value has
        return True

    def name(self) -> str:
        return "the set of keys" if self.key is None else f'server_state["{self.key}"]'


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
_transactions: set[_Transaction] = set()  # that hold a lock; each changed by its thread only
# Weak, so that they go with Streamlit's session, and the run's context.
_sessions: weakref.WeakKeyDictionary[Any, _Session] = weakref.WeakKeyDictionary()
_running: weakref.WeakSet[_Run] = weakref.WeakSet()

_local = _Local()
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
        _hand(entry, ctx, run)
        value = entry.value  # one that took its place before is in nobody's hand
    return value


def _hand(entry: _Entry, ctx: Any, run: _Run | None) -> None:
    """Note who may change a value in place from now on.

    Under a lock the transaction may, whatever the value is; in `no_rerun` the block may. Else a run
    may, if it is a container, or what is left of one that is over; nobody follows other threads.
    """
    quiet = _quiet.get()
    transaction = _local.transaction
    if transaction.depth > 0 and entry not in transaction.handed:
        transaction.handed.add(entry)
        _inspector.look_before_change(entry)
    if quiet is not None:
        if entry not in quiet.handed:
            quiet.handed.add(entry)
            _inspector.tell_by_now(entry, run)
        if run is None:
            return
    if issubclass(type(entry.value), _CONTAINERS):
        if run is not None:
            run.handed.add(entry)
        elif transaction.depth == 0 and ctx is not None:  # a run that is over, or was superseded
            _inspector.suspect([entry], _Cause(), is_locked=False)


def _assign(new: Mapping[str, Any], only_new: bool = False) -> Any:
    """Set keys, or remove those that are _MISSING, as one change; give what the last one held."""
    change, run, _ = _change_here()
    quiet = _quiet.get()
    transaction = _local.transaction
    items = [_Item(_entry(key), value, _fingerprint(value)) for key, value in new.items()]
    for entry, _, after in items:
        if entry.fingerprint.may_change and quiet is not None:
            _hand(entry, None, run)
        elif entry.fingerprint.may_change and entry.fingerprint.content == after.content:
            _inspector.look_before(entry, run)
    replaced: list[Any] = []
    with _master:
        changed = _replace(items, replaced, only_new)
        if quiet is not None:
            changed = []
        elif run is not None:
            run.assign(changed)
        _publish(changed, change, run, transaction)
    if transaction.depth == 0:
        _notify(changed)
    for entry, *_ in items:  # the app still has in hand what it assigns, or is given
        if entry.fingerprint.may_change:
            _hand(entry, None, run)
    return replaced[-1] if replaced else _MISSING


class _Item(NamedTuple):
    """What an entry is to hold."""

    entry: _Entry
    value: Any
    fingerprint: _Fingerprint


def _replace(items: Iterable[_Item], replaced: list[Any], only_new: bool = False) -> list[_Entry]:
    """Set values, and give the entries that have changed. Under the master lock.

    `replaced` gets what was there before, last the value of the last one; it is to be let go of
    after the lock's release.
    """
    changed: list[_Entry] = []
    for entry, value, fingerprint in items:
        before = entry.value
        replaced += (entry.fingerprint, before)
        if value is before is _MISSING or (only_new and before is not _MISSING):
            continue
        if entry.fingerprint.content != fingerprint.content:
            changed.append(entry)
        entry.fingerprint = fingerprint  # before the value, for _note
        entry.value = value
        if value is _MISSING:
            del _present[entry.key]
        else:
            _present[entry.key] = entry
        if value is _MISSING or before is _MISSING:
            changed.append(_key_set)
    return changed


def _publish(
    changed: Collection[_Entry],
    change: _Change,
    run: _Run | None,
    transaction: _Transaction | None = None,
) -> None:
    """Give entries new versions, which the run that made them knows. Under the master lock.

    They are told from now on, or from the end of a transaction that holds locks.
    """
    is_later = transaction is not None and transaction.depth > 0
    for entry in changed:
        before = entry.version
        entry.version = next(_versions)
        entry.change = change
        if not is_later:
            entry.told = entry.version
        if run is not None:
            run.know(entry, before)
    if transaction is not None and is_later:
        transaction.changed.update(changed)


def _tell(changed: Collection[_Entry]) -> None:
    """Have the readers of older versions rerun."""
    with _master:
        for entry in changed:
            entry.told = entry.version
    _notify(changed)


def _notify(changed: Collection[_Entry]) -> None:
    if changed and _scheduler is not None:
        _scheduler.notify(changed)


# --- What counts as a change ---
class _Fingerprint(NamedTuple):
    """What a value was when it was last assigned or looked at."""

    content: Any
    kept: Any = None  # what must stay alive so that an id is of one object only
    may_change: bool = True  # in place, and looking at it would tell


_FINGERPRINT_LIMIT = 64 * 2**20  # bytes of a value that are looked at
_NOTHING = _Fingerprint(_MISSING, may_change=False)
_key_set = _Entry(None)  # changes when a key comes or goes
_TakeApart = Callable[[Any], Any]  # gives what stands for an object in a pickle
_SCALARS = frozenset([type(None), bool, int, float, complex, str, bytes])
_CONTAINERS = (list, dict, set, bytearray, deque, tuple)
# What the standard library's other modules define is data.
_SERVICES = set("_io _thread asyncio concurrent ftplib http imaplib io logging mmap".split())
_SERVICES |= set("multiprocessing queue selectors smtplib socket socketserver sqlite3".split())
_SERVICES |= set("ssl subprocess tempfile threading weakref".split())
_TABLES = set("numpy pandas polars pyarrow".split())  # data, and all that they are made of


def _fingerprint(value: Any) -> _Fingerprint:
    """Look at a value. Never an error: what cannot be looked at is compared by identity."""
    if value is _MISSING:
        return _NOTHING
    cls = type(value)
    if type(cls) is type and cls in _SCALARS:  # other metaclasses may not be hashable
        return _Fingerprint((cls, value if value == value else "nan"), None, False)
    is_too_large = False
    for has_memo in (False, True):  # without it, what is shared is written for each reference
        try:
            return _Pickler(has_memo).fingerprint(value)
        except OverflowError:
            is_too_large = has_memo
        except KeyboardInterrupt:
            raise
        except BaseException:  # Polars panics with such, scripts exit with it
            is_too_large = False  # it cannot be pickled, or another thread is changing it
    return _Fingerprint(id(value), value, not is_too_large)


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

    Objects become a call of `int` with their class's name and their parts. The first pass has no
    memo: it is quick, and does not see which parts are one object; cycles, and parts that are
    shared much, look endless to it. Then the second pass has one: it numbers the app's objects
    where it meets them, and opens them one after the other, however they are linked.
    """

    def __init__(self, has_memo: bool) -> None:
        self.digest = _Digest()
        super().__init__(self.digest, 5, buffer_callback=self.digest.write_buffer)
        self.fast = not has_memo
        self.memo = {id(int): (0, int)}  # so `int` is written as a number, not by its name
        self.reducers: dict[int, _TakeApart] = {}  # by the ids of classes
        self.kept: list[Any] = []
        self.numbered: list[Any] = []  # objects, each with what its reducer gives

    def fingerprint(self, value: Any) -> _Fingerprint:
        self.dump(value)
        for obj, reduce in self.numbered:  # which grows meanwhile
            self.dump(reduce(obj)[1:])
        return _Fingerprint(self.digest.hash.digest(), self.kept)

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
        names = {_class_name(base) for base in cls.__mro__}
        read = next((read for name, read in _VALUES.items() if name in names), None)
        if read is not None:
            return _by_value(cls, read)
        if not _is_data(cls):
            return by_identity
        reduce = _by_attributes(cls, _by_parts(cls, by_identity))
        if self.fast or _root(cls) in sys.stdlib_module_names:
            return reduce
        return _by_number(self.numbered, reduce)


def _is_data(cls: type) -> bool:
    """Whether objects of a class are compared by content; all others are by identity.

    An installed package's are data if their class says when two are equal, or is a collection.
    """
    if any(_root(base) in _SERVICES for base in cls.__mro__):
        return False
    file = str(getattr(sys.modules.get(str(cls.__module__)), "__file__", None))
    is_installed = "site-packages" in file or "dist-packages" in file
    if not is_installed or _root(cls) in _TABLES or issubclass(cls, Collection):
        return True
    return getattr(cls, "__eq__", None) is not object.__eq__


def _attributes(cls: type) -> _TakeApart | None:
    """Give what reads all that a plain object holds; None where pickle must be asked."""
    members = [vars(base) for base in cls.__mro__[:-1]]
    special = {"__new__", "__reduce_ex__", "__reduce__", "__getstate__"}
    if _caches(cls) or any(special & one.keys() for one in members):
        return None
    kind = types.MemberDescriptorType
    with_slots = [one for one in members if "__slots__" in one]
    slots = [name for one in with_slots for name, slot in one.items() if type(slot) is kind]
    if cls.__dictoffset__ == 0:
        return operator.attrgetter(*slots) if slots else None
    return None if slots else operator.attrgetter("__dict__")


def _caches(cls: type) -> set[str]:
    """Give the names of attributes that are worked out when they are first used."""
    members = [item for base in cls.__mro__ for item in vars(base).items()]
    return {name for name, member in members if isinstance(member, functools.cached_property)}


def _root(cls: type) -> str:
    return str(cls.__module__).partition(".")[0]


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _by_name(cls: type) -> Any:
    return int, (_class_name(cls),)


def _by_identity(kept: list[Any]) -> _TakeApart:
    def reduce(obj: Any) -> Any:
        kept.append(obj)
        return int, (id(obj),)

    return reduce


def _by_number(numbered: list[Any], reduce: _TakeApart) -> _TakeApart:
    numbers: dict[int, int] = {}

    def number(obj: Any) -> Any:
        if id(obj) not in numbers:
            numbers[id(obj)] = len(numbered)
            numbered.append((obj, reduce))
        return int, (numbers[id(obj)],)

    return number


def _by_value(cls: type, read: _TakeApart) -> _TakeApart:
    name = _class_name(cls)
    return lambda obj: (int, (name,), read(obj))  # as its state, where a cycle does no harm


def _by_attributes(cls: type, otherwise: _TakeApart) -> _TakeApart:
    name = _class_name(cls)
    read = _attributes(cls)
    if read is None:
        return otherwise

    def reduce(obj: Any) -> Any:
        try:
            return int, (name,), read(obj)
        except AttributeError:  # a slot that is not set
            return otherwise(obj)

    return reduce


def _by_parts(cls: type, by_identity: _TakeApart) -> _TakeApart:
    name = _class_name(cls)
    caches = _caches(cls)
    is_array = name == "numpy.ndarray"
    has_caches = _root(cls) == "pandas" and hasattr(cls, "__array__")

    def reduce(obj: Any) -> Any:
        try:
            if is_array and not obj.flags.c_contiguous:
                obj = obj.copy()  # the same content in another memory order
            elif has_caches:
                obj = obj[:]  # pandas pickles what an object has worked out when it was read from
            parts = obj.__reduce_ex__(5)
        except Exception:  # a `__getattr__` like a dict's own may be in pickle's way
            parts = (int, (), dict(obj)) if issubclass(cls, dict) else None
        if not isinstance(parts, tuple):
            return by_identity(obj)
        _, args, *more = parts
        if caches and more and isinstance(more[0], dict):
            more[0] = {key: value for key, value in more[0].items() if key not in caches}
        return int, (name, *args), *more[:3]

    return reduce


# How to read what pickle takes apart slowly or not always, by the class that it is or comes from.
_VALUES: dict[str, _TakeApart] = {
    "enum.Enum": operator.attrgetter("_value_"),
    "decimal.Decimal": str,
    "datetime.datetime": lambda obj: repr(obj.__reduce_ex__(5)[1]),
    "_io.BytesIO": operator.methodcaller("getvalue"),
    "_io.StringIO": operator.methodcaller("getvalue"),
}


# --- Changes in place ---
_PAUSE = 0.005  # seconds between a change in place and the look that finds it, at least
_RETRY = 0.2  # seconds until it looks whether a lock that stood in its way is gone
_PATIENCE = 1.0  # seconds for which holders may delay the look; then a release looks first
_IN_PLACE_CHAIN = 3  # links of a chain of changes in place alone that are told


class _Suspect(NamedTuple):
    """Who may have changed a value in place, and is done."""

    author: _Run | _Cause  # of a thread that is nobody's, why it does what it does
    is_locked: bool
    since: float


class _Inspector:
    """Finds changes made in place, in a thread of its own: no script, page or event loop waits.

    Who was handed a value may be changing it; who is done with it suspects it, to be looked at.
    """

    def __init__(self) -> None:
        self.suspected: dict[_Entry, list[_Suspect]] = {}
        self.assigned: set[_Entry] = set()  # by who is suspected, to be told with what is found
        self.overdue: set[_Entry] = set()  # suspected, and held at every look for a second
        self.half_done: set[_Entry] = set()  # read by a run while another thread had it in hand
        self.wake = threading.Event()
        self.is_running = False

    def suspect(
        self,
        entries: Iterable[_Entry],
        author: _Run | _Cause,
        is_locked: bool,
        assigned: Iterable[_Entry] = (),
    ) -> None:
        """Note whose values may have been changed in place; to be looked at soon."""
        suspect = _Suspect(author, is_locked, time.monotonic())
        with _master:
            for entry in entries:
                self.suspected.setdefault(entry, []).append(suspect)
                if isinstance(author, _Run):
                    entry.noted = entry.version  # its page may show what it has in hand
            self.assigned.update(assigned)
        self.start()

    def read_half_done(self, read: Iterable[_Entry]) -> None:
        """Have remembered what a run may show while another thread is changing it."""
        others = self.others()
        held = [entry for entry in read if any(one.has(entry) for one in others)]
        if held:
            with _master:
                self.half_done.update(held)
            self.start()

    def start(self) -> None:
        """Have a look soon."""
        with _master:
            is_first = not self.is_running
            self.is_running = True
        if not self.wake.is_set():  # else it waits for itself, where the collector comes in between
            self.wake.set()
        if not is_first:
            return
        try:
            threading.Thread(target=self.run, name="server_state", daemon=True).start()
        except RuntimeError:  # there are too many; the next suspicion tries again
            with _master:
                self.is_running = False
            _guarded(self.look)

    def run(self) -> None:
        """Look whenever something is suspected, for at most a fifth of the time."""
        while True:
            self.wake.wait(_RETRY if self.suspected else None)
            time.sleep(_PAUSE)
            self.wake.clear()
            before = time.monotonic()
            _guarded(self.look)
            time.sleep(4 * (time.monotonic() - before))

    def look(self) -> None:
        """Look once at what was read half-done or suspected, and tell what has changed together."""
        with _master:
            assigned, self.assigned = self.assigned, set()
            half_done, self.half_done = self.half_done, set()
            suspected = list(self.suspected)
        for entry in half_done:
            self.remember(entry)
        found = [entry for entry in suspected if self.look_at(entry)]
        _tell(assigned.union(found))
        late = time.monotonic() - _PATIENCE
        with _master:
            self.overdue = {
                one for one, (first, *_) in self.suspected.items() if first.since < late
            }

    def look_at(
        self, entry: _Entry, me: Collection[_Run | _Cause] = (), is_last_chance: bool = False
    ) -> bool:
        """Look at a value and publish what has changed, or remember it while it is held by others.

        Give whether there is a change to tell. The inspector looks at what is suspected; a thread
        looks with `me`, who may have changed it too: at its release, for a `no_rerun`, or as the
        last who can, before it hides the change. Authors are all who may have made it: one too many
        costs a rerun, since only a single one is spared.
        """
        with _master:
            suspects = self.suspected.get(entry, [])
            authors = self.authors(entry).union(me)
            if not authors:
                return False
            seen = len(suspects)
            value = entry.value
            before = entry.fingerprint
        after = _fingerprint(value)
        with _master:
            authors |= self.authors(entry)
            if not is_last_chance and self.is_held(entry):  # its release has it looked at
                entry.spoil(before, after)
                if len(suspects) > 1 and self.suspected.get(entry) is suspects:  # one for all
                    author = suspects[0].author if len(authors) == 1 else _cause(authors)
                    is_locked = any(suspect.is_locked for suspect in suspects)
                    self.suspected[entry] = [_Suspect(author, is_locked, suspects[0].since)]
                return False
            if self.suspected.get(entry) is suspects:  # and what came meanwhile stays suspected
                del self.suspected[entry]
                if suspects[seen:]:
                    self.suspected[entry] = suspects[seen:]
            if entry.fingerprint is not before or after.content == before.content:
                return False
            entry.fingerprint = after
            if any(entry in one.handed for one in self.others()):
                authors.add(_Cause())
        is_locked = any(suspect.is_locked for suspect in suspects) or _local.transaction.depth > 0
        return self.publish(entry, value, authors, is_locked)

    def authors(self, entry: _Entry) -> set[_Run | _Cause]:
        """Give who may have changed a value, or is known to be able to. Under the master lock."""
        authors = {suspect.author for suspect in self.suspected.get(entry, [])}
        return authors | {run for run in _running if entry in run.handed}

    def is_held(self, entry: _Entry) -> bool:
        """Whether another thread may be changing a value just now. Under the master lock.

        Who holds its own lock may, for as long as it takes. Who has it in hand under another lock
        may, too, but delays the look only until it is overdue: that lock may be held for ever.
        """
        lock = _locks.get(entry.key)
        if lock is not None and lock.locked() and not lock._lock._is_owned():
            return True
        return self.is_in_hand(entry) and entry not in self.overdue

    def is_in_hand(self, entry: _Entry) -> bool:
        """Whether another thread has taken its lock or its value. Under the master lock."""
        return any(one.has(entry) for one in self.others())

    def others(self) -> set[_Transaction]:
        """Give the transactions of other threads."""
        return _transactions - {_local.transaction}

    def look_at_overdue(self, mine: _Transaction) -> None:
        """Look at what a lock guards that was held at every look; to be told with a transaction."""
        _, run, cause = _change_here()
        for entry in list(self.overdue):
            if entry.key in mine.names:
                self.look_at(entry, [run or cause])

    def look_before(self, entry: _Entry, me: _Run | None) -> None:
        """Look at what others may have changed in place, before an equal value hides that.

        (Another run appends 3 to [1, 2]; this one assigns [1, 2, 3], which is then no change.)
        """
        with _master:
            in_hand = any(entry in run.handed for run in _running if run is not me)
            is_suspect = in_hand or self.is_in_hand(entry) or entry in self.suspected
        if is_suspect and self.look_at(entry, [me or _Cause()], is_last_chance=True):
            _notify([entry])

    def look_before_change(self, entry: _Entry) -> None:
        """Look at a container that others have changed and shown, before it is changed back.

        (A tab adds a job to a queue and shows it; a worker takes it out at once.) Nothing is told
        here: the next look does. A run does not wait for this.
        """
        if entry.noted != entry.version:
            return
        with _master:
            has_authors = bool(self.authors(entry))
        if has_authors and _here()[1] is None and issubclass(type(entry.value), _CONTAINERS):
            entry.noted = -1
            self.remember(entry)

    def remember(self, entry: _Entry) -> None:
        """Look at a value, but leave it to the next look to tell that it was another one."""
        with _master:
            before, value = entry.fingerprint, entry.value
        after = _fingerprint(value)
        with _master:
            is_expected = not entry.spoil(before, after) or self.authors(entry)
            if is_expected or self.is_in_hand(entry):
                return
        self.suspect([entry], _Cause(), is_locked=True)  # another look has come in between

    def tell_by_now(self, entry: _Entry, me: _Run | None) -> None:
        """Tell what was changed before a `no_rerun`."""
        if self.look_at(entry, [me or _Cause()]):
            _notify([entry])

    def take_for_told(self, entry: _Entry) -> None:
        """Take what was changed in a `no_rerun` for told, unless others may have changed it too."""
        while True:
            before, value = entry.fingerprint, entry.value  # no old ones are let go of under a lock
            after = _fingerprint(value)
            with _master:
                if entry in self.suspected or self.is_held(entry):
                    return
                if entry.fingerprint is before and entry.value is value:
                    entry.fingerprint = after
                    break  # else it may have been looked at before our change
        if after.content != before.content:
            _store.offer(entry, value, _Change("changed in place"), is_told=False)

    def publish(
        self, entry: _Entry, value: Any, authors: set[_Run | _Cause], is_locked: bool
    ) -> bool:
        """Publish a change in place, and give whether it is to be told.

        Its author is not told, if there can be only one. Nobody is told of more than a few links of
        a chain, or of what only runs that we asked for have changed without a lock.
        """
        author, *others = authors
        run = author if isinstance(author, _Run) and not others else None
        cause = _cause(authors)
        by = run.session.name if run else "several" if others else "a thread"
        change = _Change("changed in place", by, cause.depth + 1, cause.in_place + 1)
        is_told = cause.in_place < _IN_PLACE_CHAIN and (is_locked or not cause.is_ours)
        if not is_told:
            _warn_of_chain(entry, "not told any more")
        if not _store.offer(entry, value, change, is_told):
            return False
        if is_told:
            with _master:
                _publish([entry], change, run, _local.transaction)
        return is_told


_inspector = _Inspector()


# --- Readers ---
# A run draws a value and then assigns it: its page is old. So the entry is *outdated* there, which
# has the page rerun once; that run's cause says what is *redrawn*, and that is not done again.

# By fragment, None for the body of the script: the version of each entry when it was first read;
_Notes = dict[str | None, dict[_Entry, int]]
_Stale = dict[str | None, list[_Entry]]  # and the entries that have another one by now.


def _add_notes(notes: _Notes, more: _Notes) -> None:
    """Add what was read, with the older version where both have one."""
    for fragment, versions in more.items():
        # The run's own dict where there is none yet: what it comes to know later counts here, too.
        mine = notes.setdefault(fragment, versions)
        for entry, version in versions.items():
            mine[entry] = min(version, mine.get(entry, version))


class _Cause(NamedTuple):
    """Why a run is made; as it stands here, because a user did something."""

    depth: int = 0  # in a chain of reruns that cause each other
    in_place: int = 0
    is_ours: bool = False  # nobody else has asked for it
    redrawn: frozenset[_Entry] = frozenset()  # what it is only for, of the session's own changes


def _cause(authors: Iterable[_Run | _Cause]) -> _Cause:
    """Give what may be said of all causes: a chain that is no longer than any, ours if all are."""
    causes = [one.cause if isinstance(one, _Run) else one for one in authors]
    depth = min(cause.depth for cause in causes)
    in_place = min(cause.in_place for cause in causes)
    return _Cause(depth, in_place, all(cause.is_ours for cause in causes))


class _Run:
    """One run of a session's script, or of fragments in it."""

    def __init__(self, session: _Session, ctx: Any, thread_id: int | None) -> None:
        self.session = session
        self.requests = ctx.script_requests
        self.fragments: list[str] = list(ctx.fragment_ids_this_run or ())
        self.thread_id = thread_id  # of no other thread until it is over
        self.is_over = False
        self.is_whole = False  # it has ended for good, and not to begin anew at once
        self.is_shown = False  # in place of what was shown before it
        self.cause = _Cause()
        self.change = _BY_A_THREAD  # what is noted of its assignments
        self.readers: _Notes = {}  # from `replace` on, the session's, too
        self.cut_short: _Notes = {}  # what was read by runs of its runner just before it
        self.messages = 0  # that it has sent to the page
        self.messages_before: dict[_Entry, int] = {}  # the first read of an entry that can be shown
        self.outdated: set[_Entry] = set()  # shown, and then assigned
        self.handed: set[_Entry] = set()  # containers, which may be changed in place without a lock

    def note(self, entry: _Entry, fragment: str | None, is_shown: bool) -> None:
        if fragment is None and self.fragments:
            fragment = self.fragments[0]  # read in a helper thread of it
        notes = self.readers.get(fragment)
        if notes is None:
            notes = self.readers.setdefault(fragment, {})
        version = entry.noted = entry.version
        if entry not in notes:
            notes.setdefault(entry, version)
            if entry.fingerprint.may_change:
                _inspector.read_half_done([entry])
        if is_shown:
            self.messages_before.setdefault(entry, self.messages)

    def assign(self, entries: Iterable[_Entry]) -> None:
        """Note what this run assigns although something was drawn since it was read."""
        for entry in entries:
            if self.messages_before.get(entry, self.messages) != self.messages:
                self.outdate(entry)

    def outdate(self, entry: _Entry) -> None:
        """Have this run's own page drawn again, if it shows the entry: once for each of them."""
        is_read = any(entry in notes for notes in list(self.readers.values()))
        if is_read and entry not in self.cause.redrawn:
            self.outdated.add(entry)

    def know(self, entry: _Entry, before: int) -> None:
        """Note a change that this run has made itself.

        Once the run is over, these notes are the session's: so also a late look spares its page.
        """
        if entry not in self.outdated:
            for notes in list(self.readers.values()):
                if notes.get(entry) == before:  # else it has missed an earlier change, too
                    notes[entry] = entry.version


class _Session:
    """What one browser session shows."""

    def __init__(self, app: Any) -> None:
        self.app: weakref.ref[Any] = weakref.ref(app)  # Streamlit's own object for it
        self.name = f"session {app.id}"
        self.readers: _Notes = {}  # of the runs that it shows
        self.outdated: set[_Entry] = set()  # what they have assigned after they had drawn it
        self.redrawn: frozenset[_Entry] = frozenset()  # and what was so when they were asked for
        self.is_ours = False  # whether we asked for any run that it shows
        self.has_missed = False  # whether messages to the page were lost
        self.is_patchwork = False  # whether runs that did not finish have drawn on it
        self.connection: weakref.ref[Any] | None = None
        self.cause: _Cause | None = None  # of the run that we ask for
        self.requests: Any = None  # to the runner that makes it, once there is one
        self.run: _Run | None = None  # of whose runner's end we have not yet heard
        self.asked_at = self.ended_at = 0.0  # when we asked for a run, and when one ended

    def replace(self, run: _Run) -> None:
        """Show what a whole run has read, in place of what was shown before."""
        run.is_shown = True
        if run.fragments:
            _add_notes(self.readers, run.cut_short)
            run.cut_short = {}
            for fragment in (*run.fragments, *run.readers):
                self.readers.pop(fragment, None)
            self.outdated = {entry for entry in self.outdated if self.shows_older(entry)}
            if not self.outdated:
                self.redrawn = frozenset()
            self.add(run)
            self.outdated |= run.outdated
            self.redrawn |= run.cause.redrawn
        else:
            self.readers = run.readers
            self.outdated = run.outdated
            self.redrawn = run.cause.redrawn
            self.is_ours = run.cause.is_ours
            self.has_missed = False
            self.is_patchwork = False

    def add(self, run: _Run) -> None:
        """Show what a run has read beside what was shown before: how much of it, nobody says."""
        _add_notes(self.readers, run.cut_short)
        _add_notes(self.readers, run.readers)
        self.is_ours |= run.cause.is_ours

    def shows_older(self, entry: _Entry) -> bool:
        """Whether something here shows an older version, told or not yet told."""
        notes = list(self.readers.values())
        return any(one.get(entry, entry.version) < entry.version for one in notes)

    def shows_any(self, entries: set[_Entry]) -> bool:
        return any(not notes.keys().isdisjoint(entries) for notes in list(self.readers.values()))

    def stale(self) -> _Stale:
        """Give the readers that show something old, each with the entries."""
        if self.has_missed:
            return {None: []}
        stale: _Stale = {}
        for fragment, notes in list(self.readers.items()):
            old = [entry for entry, version in list(notes.items()) if version < entry.told]
            if old:
                stale[fragment] = old
        return stale

    def plan(self, stale: _Stale, requests: Any) -> None:
        """Note what the run that we ask for next is made for.

        While its runner is not there (None), the next run of the session is taken for it.
        """
        entries = [entry for old in stale.values() for entry in old]
        depth = max((entry.change.depth for entry in entries), default=0)
        in_place = min((entry.change.in_place for entry in entries), default=0)
        redrawn: frozenset[_Entry] = frozenset()
        if entries and self.outdated.issuperset(entries):
            redrawn = self.redrawn.union(entries)
        self.requests = requests
        self.asked_at = time.monotonic()
        self.cause = _Cause(depth, in_place, True, redrawn)
        if _logger.isEnabledFor(logging.DEBUG):
            page = "its page" if None in stale else f"fragment {next(iter(stale))}"
            why = [f"{one.name()} {one.change.how} by {one.change.by:.16}" for one in entries]
            why = why or ["what a dead connection lost"]
            _logger.debug("%.16s is rerun, %s: %s", self.name, page, ", ".join(why))


# --- The scheduler ---
_SOON = 0.001  # seconds from a change to the look for its readers: the writer goes on first
_SWEEP = 1.0  # seconds between looks for tabs that have come back
_TURN = 0.0003  # seconds for the event loop to send what was drawn, before the next rerun
_LOOK = 0.004  # seconds between looks whether the process is idle, or has sent what was drawn
_SENDS = 1.0  # seconds in which Streamlit sends what a run has drawn, if anybody is there
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
        self.changed: set[_Entry] = set()  # since the last look for readers
        self.next_sweep = 0.0
        self.due: dict[_Session, float] = {}  # when to look at which sessions
        self.running: weakref.WeakSet[_Session] = weakref.WeakSet()  # by reruns of ours
        self.last_start = self.cpu = 0.0  # when a rerun was started last, and the CPU time then
        self.put_off_at: float | None = None

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function on the event loop, after Streamlit's own receiver of the same event."""
        with contextlib.suppress(RuntimeError):  # the server has stopped
            self.loop.call_soon_threadsafe(self.loop.call_soon, _guarded, function, *args)

    def notify(self, changed: Collection[_Entry] = ()) -> None:
        """Look soon for sessions that show an older version of something. From any thread."""
        self.changed.update(changed)
        if not self.is_notified:
            self.is_notified = True
            self.call(self.loop.call_later, _SOON, self.look)

    def look(self) -> None:
        """Look for sessions that show an older version of what has changed; all once a second."""
        self.is_notified = False  # first: who adds to what has changed from now on, calls again
        changed: set[_Entry] = set()
        while self.changed:  # any thread may add to it
            changed.add(self.changed.pop())
        now = time.monotonic()
        is_sweep = now >= self.next_sweep
        if is_sweep:
            self.next_sweep = now + _SWEEP
        with _master:
            sessions = list(_sessions.values())
        for session in sessions:
            if is_sweep:
                _guarded(self.look_for_reconnection, session)
            if is_sweep or session.shows_any(changed):
                self.look_at(session)
        self.step()

    def look_at(self, session: _Session) -> None:
        if session not in self.due and session.stale():
            self.due[session] = time.monotonic()

    def look_for_reconnection(self, session: _Session) -> None:
        """A tab that comes back may have missed what a run of ours drew into a dead connection."""
        app = session.app()
        info = app and self.runtime._session_mgr.get_session_info(app.id)
        if info is None:
            return
        if session.connection is not None and session.connection() is not info and session.is_ours:
            session.has_missed = bool(session.readers)
        session.connection = weakref.ref(info)

    def step(self) -> None:
        """Look at the sessions that are due, and come back for the others."""
        now = time.monotonic()
        if now >= self.next_sweep:
            self.look()
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
        elapsed = time.monotonic() - self.last_start
        is_idle = elapsed >= _LOOK and time.process_time() - self.cpu < elapsed / 2
        return len(self.running) < 2 or is_idle or elapsed > _AT_LEAST

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
        if session.run is not None:  # its runner has ended just now, and we are about to hear of it
            return None
        if not self.runtime.is_active_session(app.id):
            return None
        is_new = time.monotonic() < session.ended_at + _SENDS
        if app._browser_queue._queue and is_new:  # it would be dropped when the next run begins
            return _LOOK
        wait = self.wait_of_chain(session, stale)
        if wait > 0:
            return wait
        fragment = None if None in stale else next(iter(stale))
        if fragment is not None and not app._fragment_storage.contains(fragment):
            if not session.is_patchwork:
                del session.readers[fragment]
                return 0.0
            fragment = None  # the page may show it still
        session.plan(stale, None)
        runner = _guarded(_request_rerun, app, fragment)
        if runner is False:  # it is ignored; the next sweep tries again
            session.cause = None
            return None
        is_over = runner is not None and runner._requests._state.name == "STOP"
        if runner is None or (is_over and session.cause):  # an error; or it has read nothing
            session.has_missed = False
            session.cause = None
            session.readers = {f: notes for f, notes in session.readers.items() if f not in stale}
            return None
        with _master:
            session.requests = runner._requests
        self.note_start(session)
        return None

    def note_start(self, session: _Session) -> None:
        self.last_start = time.monotonic()
        self.cpu = time.process_time()
        self.running.add(session)
        if self.put_off_at is None and _put_garbage_off():  # once for many runs
            self.put_off_at = self.last_start

    def wait_of_chain(self, session: _Session, stale: _Stale) -> float:
        """Give the seconds that a chain of reruns has to wait, the more the longer it is."""
        chain = [one for old in stale.values() for one in old if one.change.depth > _CHAIN]
        for entry in chain:
            _warn_of_chain(entry, "slowed down")
        longest = max((entry.change.depth for entry in chain), default=_CHAIN)
        return session.asked_at + min(1.0, 0.05 * (longest - _CHAIN)) - time.monotonic()

    def run_ended(self, run: _Run) -> None:
        """Hear that a whole run has ended, of which Streamlit has heard before us.

        It has taken note, unless the runner is not the session's any more: it was superseded, or
        has ended, too.
        """
        app = run.session.app()
        runner = None if app is None else app._scriptrunner
        if runner is not None and runner._requests is run.requests:
            run.session.replace(run)
        elif run.messages > 0 or run.cut_short:
            run.session.add(run)
            run.session.is_patchwork = True

    def runner_ended(self, run: _Run, client_state: Any) -> None:
        """Hear that the runner has ended that made a run last.

        If Streamlit has kept its client state, what that run drew is shown, also where we have
        heard of the run's end only now.
        """
        session = run.session
        app = session.app()
        if app is None:
            return
        if run is session.run:
            session.run = None
            self.running.discard(session)
        session.ended_at = time.monotonic()
        is_kept = client_state is None or app._client_state is client_state
        if run.is_whole and is_kept and not run.is_shown:
            session.replace(run)
        self.look_at(session)
        self.step_in(_TURN)


_scheduler: _Scheduler | None = None
_warned: set[tuple[str | None, str]] = set()
_logger = logging.getLogger("server_state")


def _warn_of_chain(entry: _Entry, what: str) -> None:
    if (entry.key, what) not in _warned:
        _warned.add((entry.key, what))
        message = "Changes of %s cause each other, and are %s: make them in callbacks or in %s."
        _logger.warning(message, entry.name(), what, "no_rerun")


# --- Streamlit: every reach into it ---
# A *runner* is a thread that makes one run, or several that were asked for meanwhile: for each of
# them it sends SCRIPT_STARTED, and SCRIPT_ or FRAGMENT_STOPPED; at its own end SHUTDOWN. We hear of
# these in its thread; Streamlit takes note on the event loop, at the latest in its next turn. What
# we call behind that (`_Scheduler.call`) finds it done: after SHUTDOWN, `_scriptrunner` is None. If
# a successor has its place, what the run drew is dropped. `session.run` is set from the start of a
# run that we know until we have heard of the end of its runner.
_off = False  # where it lacks something that we need
_NEEDS_OF_SESSION = """id request_rerun _client_state.CopyFrom _client_state.widget_states
    _event_loop.call_soon_threadsafe _fragment_storage.contains _browser_queue._queue
    _scriptrunner.on_event.connect _scriptrunner.request_rerun
    _scriptrunner._requests._state.name _scriptrunner._requests._rerun_data.fragment_id_queue
    _scriptrunner._requests._rerun_data.widget_states _scriptrunner._script_thread"""
_NEEDS_OF_CONTEXT = """fragment_ids_this_run page_script_hash query_string script_requests
    _has_script_started"""
_SCRIPTRUNNER = "streamlit.runtime.scriptrunner"
_FRAGMENTS = "streamlit.runtime.scriptrunner_utils.script_run_context"


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
    module = sys.modules.get(_SCRIPTRUNNER)
    get = getattr(module, "get_script_run_ctx", None)  # None while another thread imports it
    return None if get is None else get(suppress_warning=True)


def _here() -> tuple[Any, _Run | None]:
    """Give Streamlit's context of this thread, and the run that it belongs to."""
    ctx = None if _off else _context()
    if ctx is None:
        return None, None
    run = ctx.__dict__.get("_server_state")
    if run is None:
        run = _guarded(_begin, ctx, None, True)
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
    module = sys.modules.get(_FRAGMENTS)
    try:
        return module.ThreadState.get()  # type: ignore[union-attr]
    except (AttributeError, RuntimeError):  # an older release; a helper thread, which has none
        return None


def _change_here() -> tuple[_Change, _Run | None, _Cause]:
    """Give what is to be noted of a change that this thread makes, whose own it is, and its cause.

    What helper threads of a run change is nobody's own, but goes on with its chain.
    """
    _, run = _here()
    if run is None:
        return _BY_A_THREAD, None, _Cause()
    is_own = run.thread_id == threading.get_ident()
    is_own = is_own or getattr(_thread_state(), "is_parallel_worker", False)
    return run.change, run if is_own else None, run.cause


def _begin(ctx: Any, before: _Run | None, is_late: bool = False) -> _Run | None:
    """Note that a run has begun. None if it is no session's, or one that was superseded.

    `is_late`: it has begun some time ago, and uses the state only now.
    """
    global _off
    try:
        cls: Any = sys.modules["streamlit.runtime"].Runtime
        runtime: Any = cls.instance() if cls.exists() else None
        if not issubclass(type(runtime), cls):
            return None  # `AppTest` puts a mock in its place
        info = runtime._session_mgr.get_session_info(ctx.session_id)
        runner = info and info.session._scriptrunner
        if runner is None or runner._requests is not ctx.script_requests:
            return None
        if is_late and runner._requests._state.name == "STOP":
            return None  # it has ended, and we would not hear of that; or it is to stop at once
        if _scheduler is None:
            _look_up(runtime, info.session, ctx)
    except (AttributeError, KeyError) as error:
        if _scheduler is not None:
            raise  # it is this session's alone
        _off = True  # we stay a dictionary with locks
        message = "server_state reruns no session: Streamlit lacks something (%s). %s"
        _logger.warning(message, error, "Copy a newer server_state.py.")
        return None
    return _begin_run(_session(runtime, info.session), ctx, runner, before, is_late)


def _look_up(runtime: Any, session: Any, ctx: Any) -> None:
    """Look up all that is needed of Streamlit, once: AttributeError or KeyError, which name it."""
    operator.attrgetter("is_active_session")(runtime)
    operator.attrgetter(*_NEEDS_OF_SESSION.split())(session)
    operator.attrgetter(*_NEEDS_OF_CONTEXT.split())(ctx)
    if "current_fragment_id" not in ctx.__dict__:
        operator.attrgetter("ThreadState.get")(sys.modules[_FRAGMENTS])


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


def _begin_run(
    session: _Session, ctx: Any, runner: Any, before: _Run | None, is_late: bool
) -> _Run | None:
    app: Any = session.app()
    # The request may be a later one by now: that counts as a user's, too.
    states = runner._requests._rerun_data.widget_states
    is_joined = session.cause is not None and states != app._client_state.widget_states
    with _master:
        known: _Run | None = ctx.__dict__.get("_server_state")
        if known is not None:
            return known  # another of the run's threads was faster
        run = ctx._server_state = session.run = _Run(session, ctx, runner._script_thread.ident)
        if before is not None and not before.is_whole:
            run.cut_short = before.cut_short
            if before.messages > 0:
                _add_notes(run.cut_short, before.readers)
        _running.add(run)
        # Ours, if the runner is the one that we asked, or the first one since (and none yet known).
        if session.cause is not None and session.requests in (None, run.requests):
            run.cause = session.cause
            if is_joined:  # by what a user did, before it began
                run.cause = run.cause._replace(is_ours=False, redrawn=frozenset())
        elif before is not None and run.requests._rerun_data.widget_states is None:
            run.cause = before.cause  # by `st.rerun()`: what a browser asks for has widget states
        session.cause = None
        run.change = _Change("assigned", session.name, run.cause.depth + 1)
    runner.on_event.connect(_on_event, weak=False)
    if is_late and runner._requests._state.name == "STOP":  # it may have ended before that
        run.is_over, session.run = True, None
        return None
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
            run.is_whole = True
        _scheduler.call(_scheduler.runner_ended, run, details.get("client_state"))
    elif "STOPPED" in event.name:
        _guarded(_end_run, run)
        run.is_whole = event.name != "SCRIPT_STOPPED_FOR_RERUN"
        if run.is_whole:
            _scheduler.call(_scheduler.run_ended, run)
        if event.name == "FRAGMENT_STOPPED_WITH_SUCCESS":
            _guarded(_rerun_between_fragments, run, ctx, sender)


def _end_run(run: _Run) -> None:
    """Close what a run leaves: locks that it did not release, and containers it has in hand."""
    for name in list(_local.transaction.names):
        while _locks[name]._lock._is_owned():
            _guarded(_locks[name].release)
    if run.handed:
        _inspector.suspect(list(run.handed), run, is_locked=False)
    read = {entry for notes in list(run.readers.values()) for entry in list(notes)}
    _inspector.read_half_done([entry for entry in read if entry.fingerprint.may_change])
    run.is_over = True
    with _master:
        _running.discard(run)


def _rerun_between_fragments(run: _Run, ctx: Any, runner: Any) -> None:
    """Rerun the rest of the page, where timed fragments leave no time when nothing is under way.

    If the next request waits already, the runner goes on with that, and the session is not at rest
    in between. Ours is joined to it: of a page and a fragment, Streamlit makes one run of the page.
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
    if fragment is None:  # else Streamlit draws the page into the container of the last fragment
        for variable in copy_context():
            if variable.name.endswith("dg_stack"):
                variable.set(variable.get()[:1])
    run.session.plan(stale, requests)
    kind = sys.modules[_SCRIPTRUNNER].RerunData
    names = ("query_string", "page_script_hash", "cached_message_hashes", "context_info")
    known = kind.__dataclass_fields__  # older releases have fewer
    kept = {name: getattr(ctx, name) for name in names if name in known and hasattr(ctx, name)}
    runner.request_rerun(kind(fragment_id=fragment, **kept))


def _request_rerun(app: Any, fragment: str | None) -> Any:
    """Have Streamlit rerun a session that is at rest, on the same page; False if it does not."""
    state = type(app._client_state)()
    state.CopyFrom(app._client_state)
    state.fragment_id = fragment or ""
    with contextlib.suppress(RuntimeError):  # it may be that no thread can be started
        app.request_rerun(state)
    runner = app._scriptrunner
    if runner is None:
        return False
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


# --- The place of a store for several processes ---
class _Alone:
    """This process alone. A store's class takes its place: `_store` is then an object of that.

    Nothing more is asked of it. It is asked by any thread, never under the master lock, and what
    it raises is the caller's; then nothing of the change was made. To do what it is asked it may
    use what reads and writes (`_entry`, `_present`, `_key_set`, `_assign`, `_replace`, `_publish`,
    `_notify`, `_fingerprint`, `_MISSING`, under `_master` where they say so), what tells who asks
    (`_change_here`, `_local.transaction`, `_quiet`, `_Change`, `_IN_PLACE_CHAIN`), and
    `_request_rerun`, and know what is `_inspector.suspected`. A fork's child says
    `_inspector.is_running = False`: it has no such thread.
    """

    def acquire(self, lock: KeyLock, blocking: bool, timeout: float) -> bool:
        """Take `lock._lock`, and `lock._names` elsewhere; see all that holders before changed."""
        return bool(lock._lock.acquire(blocking, timeout))

    def commit(self, transaction: _Transaction) -> None:
        """Tell what was `changed`, and have looked at what was `in_hand`; keep all or nothing.

        It is asked while the locks are held, which are released whatever it raises. To keep
        nothing is to put back what the entries held: they have their new values already.
        """
        quiet = _quiet.get()
        in_hand = transaction.in_hand()
        if quiet is not None:  # its end looks; but what is suspected already is another's to tell
            _, run, _ = _change_here()
            with _master:
                quiet.handed.update(e for e in in_hand if not _inspector.authors(e) - {run})
        if quiet is None and in_hand:
            _, run, cause = _change_here()
            _inspector.suspect(in_hand, run or cause, True, transaction.changed)
        elif transaction.changed:
            _tell(transaction.changed)

    def write(self, new: Mapping[str, Any], only_new: bool = False) -> Any:
        """Set keys, or remove those that are _MISSING, as one; give what the last one held.

        `only_new`: set the key only if it has no value.
        """
        return _assign(new, only_new)

    def offer(self, entry: _Entry, value: Any, change: _Change, is_told: bool) -> bool:
        """Keep a change in place that is no transaction's; False if it came too late. No error."""
        return True

    def force(self, entry: _Entry) -> None:
        """Have readers rerun elsewhere."""

    def found(self, key: str) -> Any:
        """Give the value of a key that has none here, if there is one after all, or _MISSING."""
        return _MISSING


_store: Any = _Alone()


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
