# SPDX-License-Identifier: MIT
"""Several server processes share one `server_state`, through Redis or Valkey: copy this file too.

    from server_state import server_state, server_state_lock
    from server_state_store import connect

    connect("redis://localhost:6379/0", name="my-app", secret=st.secrets["state_secret"])
    server_state.setdefault("count", 0)  # and all else as before

Reads are answered by this process. A change is committed to the store before it is seen here; the
other processes hear of it at once. A lock keeps out all processes, by a lease that is renewed.
While the store is away, reads give the last known values, writes and locks raise ConnectionError.
All of it may be used from any thread. Needs `redis` or `valkey`, and `server_state.py`.
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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

if "_server_state_1" not in sys.modules:  # vendored in a package, it may have any name
    import server_state  # noqa: F401

__all__ = ["LockLostError", "connect"]
_logger = logging.getLogger("server_state")
_home: Any = sys.modules["_server_state_1"]  # where `server_state.py` keeps its state
_MISSING = _home._MISSING

LEASE = 10.0  # seconds for which a lock is held without a word from its holder
RENEW = 3.0  # seconds between such words
PATIENCE = 1.5  # seconds for an answer of the store; it is asked twice
DEADLINE = 4.5  # seconds after which a write gives up, whatever it waits for
BELL = 0.5  # seconds for which we listen, before we ask of our own accord
PAUSE = 0.008  # seconds without listening after a commit of our own, which brings all news
LOST = 1.0  # seconds for which a tab's browser may wait with its first request
RETRY = 0.25  # seconds between two tries while the store is away
PIECE = 50  # values that are loaded at once at the start
LOG_LENGTH = 1000  # commits that the log keeps, about; who missed more loads everything

# --- What runs in the store ---
# KEYS: 1 the values, 2 the log of changed names, 3 the bell for waiting lockers, 4 whether any
# waits, 5 the number of this process's last commit; then the locks.
# ARGV[1]: our position in the log.
_SINCE = """
local values, log, bell, waiting, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local position = ARGV[1]
local changed = {}  -- by name, since our position
-- P1, P6: everything since a position: the names and their current values. Or that everything is
-- to be loaded, for a position that is unknown: at the start, after a flush, a trim, or in a store
-- that went back in time.
local function since()
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  if not last then
    last = {redis.call('XADD', log, '*', '', '')}
  end
  if last[1] == position then
    return {position, 0, {}, {}}
  end
  if position == '' or #redis.call('XRANGE', log, position, position) == 0 then
    return {last[1], 1, {}, {}}
  end
  local entries = redis.call('XRANGE', log, '(' .. position, '+')
  local flags, current = {}, {}
  for _, entry in ipairs(entries) do
    for i = 1, #entry[2], 2 do
      local name = entry[2][i]
      if entry[2][i + 1] ~= '' and not changed[name] then
        changed[name] = true
        current[#current + 1] = name
        current[#current + 1] = redis.call('HGET', values, name)
      end
      flags[#flags + 1] = name
      flags[#flags + 1] = entry[2][i + 1]
    end
  end
  return {last[1], 0, flags, current}
end
local news = since()
"""
# P5: ARGV[2] is a number after an outage: commits that are still under way come too late.
_SYNC = (
    _SINCE
    + """
if ARGV[2] ~= '' then
  redis.call('HSET', done, 'number', ARGV[2], 'removed', '')
  redis.call('EXPIRE', done, 600)
end
local last = redis.call('XREVRANGE', bell, '+', '-', 'COUNT', 1)[1]
return {last and last[1] or '0', news}
"""
)

# P2: several names all or none. A name that is ours already is kept: the answer to the first
# request may have been lost; how many of the first must be ours, in a transaction that has gone on.
# ARGV: position, token, lease in ms, that number.
_ACQUIRE = (
    _SINCE
    + """
for i = 6, 5 + ARGV[4] do
  if redis.call('GET', KEYS[i]) ~= ARGV[2] then
    return {'lost', KEYS[i], news}
  end
end
local wait = 0
for i = 6, #KEYS do
  local holder = redis.call('GET', KEYS[i])
  if holder and holder ~= ARGV[2] then
    wait = math.max(wait, redis.call('PTTL', KEYS[i]), 1)
  end
end
if wait > 0 then
  redis.call('SET', waiting, 1, 'PX', 2000)
  return {'held', wait, news}
end
for i = 6, #KEYS do
  redis.call('SET', KEYS[i], ARGV[2], 'PX', ARGV[3])
end
return {'ok', 0, news}
"""
)

# P3: nothing is changed unless all locks are still ours. P5: a number takes effect once.
# ARGV: position, token, number, length of the log; then for each change its name, kind, value and
# flags. Kinds: set, new (only if there is none), in place (only if nobody changed it since our
# position), same (as `set`, but nothing if nobody changed it: it is what we know), force (tells
# readers), delete.
_COMMIT = (
    _SINCE
    + """
if tonumber(redis.call('HGET', done, 'number') or 0) >= tonumber(ARGV[3]) then
  return {'done', redis.call('HGET', done, 'removed') or '', news}
end
for i = 6, #KEYS do
  if #ARGV > 4 and redis.call('GET', KEYS[i]) ~= ARGV[2] then
    return {'lost', KEYS[i], news}
  end
end
for i = 5, #ARGV, 4 do
  if ARGV[i + 1] == 'in place' and (changed[ARGV[i]] or news[2] == 1) then
    return {'conflict', ARGV[i], news}
  end
end
local entry = {}
local removed = ''
local last = news[1]
for i = 5, #ARGV, 4 do
  local name, kind, value, flags = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local is_done = true
  if kind == 'delete' then
    if #ARGV == 8 and #KEYS == 5 then
      removed = redis.call('HGET', values, name) or ''  -- for `pop`
    end
    is_done = redis.call('HDEL', values, name) == 1
  elseif kind == 'new' then
    is_done = redis.call('HSETNX', values, name, value) == 1
  elseif kind == 'same' and not changed[name] and news[2] == 0 then
    is_done = false
  elseif kind ~= 'force' then
    redis.call('HSET', values, name, value)
  end
  if is_done then
    entry[#entry + 1] = name
    entry[#entry + 1] = flags
  end
  if #entry > 0 and (#entry == 1000 or i + 4 > #ARGV) then
    last = redis.call('XADD', log, 'MAXLEN', '~', ARGV[4], '*', unpack(entry))
    entry = {}
  end
end
redis.call('HSET', done, 'number', ARGV[3], 'removed', removed)
redis.call('EXPIRE', done, 600)
local is_free = false
for i = 6, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[2] then
    redis.call('DEL', KEYS[i])
    is_free = true
  end
end
if is_free and redis.call('EXISTS', waiting) == 1 then
  redis.call('XADD', bell, 'MAXLEN', 1, '*', '', '')
end
return {'ok', last, news}
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


class LockLostError(RuntimeError):
    """What was changed under a lock was dropped: the lock's lease had run out.

    Nothing of it was seen by other processes, and this one shows again what the store has.
    """


# A saved file makes Streamlit import this one anew; what is raised stays the same class.
LockLostError = vars(_home).setdefault("_LockLostError", LockLostError)  # type: ignore[misc]


def connect(redis: Any, *, name: str, secret: str | bytes, local: Iterable[str] = ()) -> None:
    """Share `server_state` with all processes that connect with the same name and secret.

    `redis` is a URL, or a client of redis-py or valkey-py. Values are signed with `secret`. Keys
    in `local` stay in this process. To be called before the first key is set; the same call once
    more (a script that is rerun) does nothing. From any thread. RuntimeError for another call, or
    one that comes late; ConnectionError if the store does not answer.
    """
    if isinstance(local, str):
        local = {local}
    if not name or not secret:
        raise ValueError("connect() needs a name for the application, and a secret to sign with.")
    key = secret.encode() if isinstance(secret, str) else bytes(secret)
    with _home.__dict__.setdefault("_connecting", threading.RLock()):
        settings = (_address(redis), name, key, frozenset(local))
        if _home._store is not None:
            if _home._store.settings != settings:
                hint = "call it once, with the same arguments in every script"
                raise RuntimeError(f"connect() was called before, with other arguments: {hint}.")
            return
        if _home._present:
            keys = ", ".join(list(_home._present)[:5])
            hint = "connect() belongs above the first use of server_state"
            raise RuntimeError(f"server_state has keys already ({keys}): {hint}.")
        store = _Store(_client(redis), settings)
        _home._store = store  # values may be of modules that connect, too, or set keys
        try:
            store.load()
        except BaseException as error:
            _home._store = None
            if not isinstance(error, ConnectionError):
                raise
            hint = "is it running, and is the address right?"
            message = f"connect() cannot reach the store ({store.away}): {hint}"
            raise ConnectionError(message) from None
        threading.Thread(target=store.listen, name="server_state_store", daemon=True).start()
        threading.Thread(target=store.renew, name="server_state_lease", daemon=True).start()


def _address(redis: Any) -> Any:
    if isinstance(redis, str):
        return redis
    options = redis.connection_pool.connection_kwargs
    return tuple(str(options.get(option)) for option in ("host", "port", "path", "db", "username"))


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


# --- Values as they travel ---
def _signature(settings: Any, key: str, data: bytes) -> bytes:
    _, name, secret, _ = settings
    head = f"{len(name)} {len(key)} {name}{key}".encode("utf-8", "surrogatepass")
    signature = hmac.new(secret, head, "sha256")
    signature.update(data)
    return signature.digest()


class _FinderOfMain(pickle.Pickler):
    """Says what is defined in the main script, which other processes cannot import."""

    def reducer_override(self, obj: Any) -> Any:
        named = obj if isinstance(obj, (type, types.FunctionType)) else type(obj)
        if named.__module__ == "__main__":
            raise TypeError(f"{named.__qualname__} is defined in the main script")
        return NotImplemented


def _pickled(key: str, value: Any) -> bytes:
    """TypeError, which names the key and says what to do, for what cannot travel (P8)."""
    try:
        data = pickle.dumps(value, 5)
        if b"__main__" in data:
            _FinderOfMain(io.BytesIO(), 5).dump(value)
    except Exception as error:
        ways = (
            f'keep it in this process with connect(..., local={{"{key}"}}), '
            "or make it of classes that stand in a module of their own"
        )
        message = f'server_state["{key}"] cannot be sent to other processes ({error}): {ways}.'
        raise TypeError(message) from error
    return data


def _go_on_alone() -> None:
    """A forked child has a copy of the state, as without a store."""
    _home._store = None


os.register_at_fork(after_in_child=_go_on_alone)
_id = secrets.token_hex(8)  # of this process
_numbers = count(1)


class _Hold:
    """What a thread's transaction holds in the store."""

    def __init__(self) -> None:
        self.token = f"{_id} {next(_numbers)}"
        self.names: set[str] = set()  # of locks
        self.assigned: dict[str, bool] = {}  # keys, and whether readers are told
        self.in_place: dict[str, bool] = {}  # the same, found at the end of a `no_rerun`
        # What it had in hand when another process's value took its place.
        self.replaced: list[tuple[str, Any, Any]] = []

    def assign(self, key: str, is_told: bool) -> None:
        self.assigned[key] = self.assigned.get(key, False) or is_told


class _Flags(NamedTuple):
    """What readers elsewhere are to know of a change."""

    is_told: bool = True
    depth: int = 0
    in_place: int = 0
    is_forced: bool = False  # told although nothing is seen to have changed

    @classmethod
    def read(cls, text: bytes) -> _Flags:
        try:
            is_told, depth, in_place, is_forced = map(int, text.split())
        except ValueError:  # somebody else wrote there
            return cls()
        return cls(bool(is_told), depth, in_place, bool(is_forced))

    def text(self) -> str:
        return f"{int(self.is_told)} {self.depth} {self.in_place} {int(self.is_forced)}"

    def after(self, before: _Flags | None) -> _Flags:
        """Give the flags of two changes in one; what is told to nobody counts for nothing."""
        if before is None or not before.is_told:
            return self
        if not self.is_told:
            return before
        depth = max(self.depth, before.depth)
        in_place = min(self.in_place, before.in_place)
        return _Flags(True, depth, in_place, self.is_forced or before.is_forced)


class _Change(NamedTuple):
    kind: str  # see _COMMIT
    data: bytes | None  # as pickled
    flags: _Flags


_News = tuple[bytes | None, _Flags]  # a signed value, or None for a key that is gone


# --- The store ---
class _Turn:
    """The lock that is held around "round trip and apply": position and values move together.

    The locks of `server_state.py` are taken before it, but for the master lock, which may be taken
    under it. It is re-entrant because one function of the store calls another. What is replaced
    under it is let go of after its release: a `__del__` of the app's may take locks.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self.replaced: list[Any] = []

    def acquire(self, timeout: float = -1) -> bool:
        if not self._lock.acquire(timeout=timeout):
            return False
        self._depth += 1
        return True

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        replaced: list[Any] = []
        self._depth -= 1
        if self._depth == 0:
            replaced, self.replaced = self.replaced, replaced
        self._lock.release()


class _Store:
    """What `server_state.py` calls where there are several processes."""

    def __init__(self, client: Any, settings: Any) -> None:
        self.client = client
        self.settings = settings
        self.local: frozenset[str] = settings[3]
        self.prefix = f"{{{settings[1]}}}:"  # braces: one slot of a cluster
        self.turn_lock = _Turn()
        self.position = b""
        self.known: dict[str, bytes] = {}  # each key's signed value, as the store has it
        # Signed values that could not be made, or b"", and why not.
        self.refused: dict[str, tuple[bytes, str]] = {}
        self.deferred: dict[str, _News] = {}  # until a lock here is free
        self.received: dict[str, int] = {}  # by key: the id of the value that came from elsewhere
        self.holds: weakref.WeakKeyDictionary[Any, _Hold] = weakref.WeakKeyDictionary()
        self.away: Exception | None = None
        self.rings = 0
        self.bell = threading.Condition()
        self.without_run: weakref.WeakSet[Any] = weakref.WeakSet()  # sessions, when last looked
        self.next_look = 0.0
        self.scripts = {
            text: client.register_script(text) for text in (_SYNC, _ACQUIRE, _COMMIT, _RENEW)
        }
        parts = ("values", "log", "bell", "waiting", f"done:{_id}")
        self.keys = [_name(self.prefix + part) for part in parts]

    # Round trips.
    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have the position and the values for ourselves; ConnectionError while it is away."""
        until = time.monotonic() + DEADLINE
        while not self.turn_lock.acquire(timeout=0.1):
            if self.away is not None or time.monotonic() > until:
                raise self.error()
        try:
            if self.away is not None:
                raise self.error()
            yield
        finally:
            self.turn_lock.__exit__()

    def error(self) -> ConnectionError:
        reason = self.away or f"busy for {DEADLINE} s"
        hint = "a change that was under way may or may not have been made; try again later"
        return ConnectionError(f"The store of server_state does not answer ({reason}): {hint}.")

    def ask(self, script: str, locks: Iterable[str], *arguments: Any) -> Any:
        """Run a script in the store; it is asked again once, which every script here allows."""
        keys = [*self.keys, *map(self.lock_key, locks)]
        return self.call(self.scripts[script], keys, (self.position, *arguments))

    def call(self, command: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return command(*arguments)
        except Exception as error:
            _logger.debug("the store is asked again: %s", error)
        try:
            self.client.connection_pool.disconnect(inuse_connections=False)  # the others are dead
            return command(*arguments)
        except Exception as error:
            kinds = {kind.__name__ for kind in type(error).__mro__}
            if kinds.isdisjoint(("OSError", "ConnectionError", "TimeoutError")):
                raise ConnectionError(f"The store of server_state refuses: {error}.") from error
            self.away = error
            raise self.error() from error

    def lock_key(self, name: str) -> bytes:
        return _name(f"{self.prefix}lock:{name}")

    def load(self) -> None:
        with self.turn():
            _, news = self.ask(_SYNC, (), "")
            self.take(news)
        try:
            policy = self.client.config_get("maxmemory-policy").get("maxmemory-policy")
        except Exception:
            return  # a hosted store may not say
        if policy not in ("noeviction", b"noeviction"):
            message = "The store of server_state may drop values (maxmemory-policy is %s): %s"
            _logger.warning(message, policy, "set it to noeviction.")

    def listen(self) -> None:
        """Hear of other processes' changes: the log and the bell only say that there is news."""
        _, log, bell, *_ = self.keys
        rung = "0"
        said = -60.0  # when we last said that it is away
        while True:
            before = self.position
            try:
                self.client.xread({log: before, bell: rung}, block=int(BELL * 1000))
            except Exception as error:
                _logger.debug("listening to the store failed: %s", error)
                time.sleep(RETRY)
            if self.position != before:  # a commit of ours has brought what there was
                time.sleep(PAUSE)
            else:
                try:
                    with self.turn_lock:
                        number = "" if self.away is None else next(_numbers)
                        rung, news = self.ask(_SYNC, (), number)
                        self.away = None
                        self.take(news)
                except Exception as error:
                    if time.monotonic() > said + 60:
                        said = time.monotonic()
                        _logger.warning("%s", error)
                    time.sleep(RETRY)
            self.ring()
            self.look_for_lost_tabs()

    def look_for_lost_tabs(self) -> None:
        """Run the page of a tab whose process has died: its browser asks for no run here."""
        if time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + LOST
        before, self.without_run = self.without_run, weakref.WeakSet()
        try:
            runtime: Any = sys.modules["streamlit.runtime"]
            for info in runtime.get_instance()._session_mgr.list_active_sessions():
                app = info.session
                if app._scriptrunner is None and app._client_state.ByteSize() == 0:
                    self.without_run.add(app)
                    if app in before:
                        app._event_loop.call_soon_threadsafe(_run_page, app)
        except Exception as error:  # no Streamlit here, or one that lacks something
            _logger.debug("tabs of other processes are not looked for: %s", error)

    def ring(self) -> None:
        with self.bell:
            self.rings += 1
            self.bell.notify_all()

    def renew(self) -> None:
        while True:
            time.sleep(RENEW)
            with _home._master:
                holds = list(self.holds.values())
            for hold in holds:
                keys = [self.lock_key(name) for name in list(hold.names)]
                if keys:
                    try:
                        self.scripts[_RENEW](keys, [hold.token, int(LEASE * 1000)])
                    except Exception as error:
                        _logger.debug("a lease was not renewed: %s", error)

    # What comes from other processes.
    def take(self, news: Any, own: Iterable[str] = (), acquired: Iterable[str] = ()) -> None:
        """Take over what has changed in the store, but for what we have just committed."""
        position, is_all, flags, current = news
        told: dict[str, _Flags] = {}
        for name, text in _pairs(flags):
            if text:  # else it only marks where the log begins
                told[_key(name)] = _Flags.read(text).after(told.get(_key(name)))
        values = {_key(name): data for name, data in _pairs(current)}
        if is_all:
            position, values = self.load_all()
        for key in own:
            values.pop(key, None)
        self.apply({key: (data, told.get(key, _Flags())) for key, data in values.items()}, acquired)
        self.position = position

    def load_all(self) -> tuple[bytes, dict[str, bytes | None]]:
        """Load everything, in pieces; give the position, and what is not known here."""
        self.position = b""
        self.deferred.clear()
        values: dict[str, bytes | None] = {}
        is_all = 1
        while is_all:
            _, (self.position, *_) = self.ask(_SYNC, (), "")
            names = self.call(self.client.hkeys, self.keys[0])
            for first in range(0, len(names), PIECE):
                some = names[first : first + PIECE]
                read = self.call(self.client.hmget, self.keys[0], some)
                values.update(zip(map(_key, some), read, strict=True))
            _, (position, is_all, _, current) = self.ask(_SYNC, (), "")
        values.update((_key(name), data) for name, data in _pairs(current))
        gone = {*self.known, *self.refused} - values.keys()
        values = {key: data for key, data in values.items() if data != self.known.get(key)}
        values.update(dict.fromkeys(gone))
        return position, values

    def apply(self, values: dict[str, _News], acquired: Iterable[str] = ()) -> None:
        """Set what came from the store; a key that is locked here waits for its release."""
        open_ones = self.transactions()
        locked = {name for t in open_ones for name in list(t.names)} - set(acquired)
        new = {}
        told: dict[Any, _Flags] = {}
        for key, (data, flags) in values.items():
            if key in self.local:
                continue
            if key in locked:
                _, before = self.deferred.get(key, (None, None))
                self.deferred[key] = (data, flags.after(before))
                continue
            self.deferred.pop(key, None)
            if flags.is_told:
                told[_home._entry(key)] = flags
            if data is None or data != self.known.get(key):  # else the object is as good
                new[key] = self.opened(key, data)
        self.note_replaced(open_ones, new)
        self.turn_lock.replaced += [_home._entry(key).value for key in new]
        _, changed = _home._replace(new, _home._fingerprints(new))
        for key, value in new.items():
            self.received.pop(key, None)
            if value is not _MISSING:
                self.received[key] = id(value)
        told = {e: flags for e, flags in told.items() if flags.is_forced or e in changed}
        if told:
            entries = [*told, *(entry for entry in changed if entry.key is None)]  # the set of keys
            depth = max(flags.depth for flags in told.values())
            in_place = min(flags.in_place for flags in told.values())
            _home._publish(dict.fromkeys(entries), None, depth, in_place)
            _home._notify()

    def take_deferred(self, keys: Iterable[str]) -> None:
        waiting = {key: self.deferred[key] for key in keys if key in self.deferred}
        self.apply(waiting, acquired=waiting)

    def note_replaced(self, open_ones: list[Any], new: Mapping[str, Any]) -> None:
        for transaction in open_ones:
            for entry in list(transaction.handed):
                if entry.key in new:
                    state = (entry.key, entry.value, entry.fingerprint)
                    self.hold(transaction).replaced.append(state)

    def hold(self, transaction: Any) -> _Hold:
        with _home._master:
            return self.holds.setdefault(transaction, _Hold())

    def transactions(self) -> list[Any]:
        with _home._master:
            # One that is being committed has no depth any more, but its names.
            return [one for one in _home._transactions if one.depth > 0 or one.names]

    def opened(self, key: str, data: bytes | None) -> Any:
        """Give a value; _MISSING if it is none, or if it is not to be trusted (P7)."""
        self.refused.pop(key, None)
        self.known.pop(key, None)
        if data is None:
            return _MISSING
        signature, pickled = data[:32], data[32:]
        if not hmac.compare_digest(signature, _signature(self.settings, key, pickled)):
            self.refused[key] = (
                b"",
                "it is not signed with this application's secret for this key",
            )
        else:
            try:
                value = pickle.loads(pickled)
                self.known[key] = data
                return value
            except BaseException as error:  # a module that it needs may even call sys.exit()
                self.refused[key] = (data, f"{type(error).__name__}: {error}")
        message = 'The store\'s value of server_state["%s"] is refused: %s'
        _logger.error(message, key, self.refused[key][1])
        return _MISSING

    def put_back(self, keys: Iterable[str]) -> None:
        """Have keys show again what the store was last known to have."""
        told = _Flags(is_forced=True)
        values = {key: self.deferred.get(key, (self.known.get(key), told)) for key in keys}
        for key in values:
            self.known.pop(key, None)  # the object that we have is not as good
        self.apply(values, acquired=values)

    # What `server_state.py` asks for.
    def found(self, key: object) -> Any:
        """Give the value of a key that has none here; ValueError if it is not to be trusted.

        A class that could not be imported when the value came may be there now.
        """
        name = str(key)
        data, reason = self.refused.get(name, (b"", ""))
        if data:
            with self.turn_lock:
                self.apply({name: (data, _Flags())})
            return _home._entry(name).value
        if reason:
            hint = "assign it anew, or remove it, if that is what you want"
            raise ValueError(
                f'server_state["{key}"] has no value that can be used, {reason}: {hint}.'
            )
        return _MISSING

    def acquire(self, lock: Any, blocking: bool, timeout: float) -> bool:
        """Take a lock of this process, and the same names in the store.

        While others hold the store's, ours is let go of: its holder may have to take it again.
        """
        names = [name for name in lock._names if name not in self.local]
        until = time.monotonic() + timeout if timeout >= 0 else None
        while True:
            left = -1 if until is None else max(0.0, until - time.monotonic())
            if not lock._lock.acquire(blocking, left if blocking else -1):
                return False
            rings = self.rings
            try:
                wait = self.take_names(names)
            except BaseException:
                lock._lock.release()
                raise
            if wait == 0:
                return True
            lock._lock.release()
            if not blocking or (until is not None and time.monotonic() >= until):
                return False
            if until is not None:
                wait = min(wait, until - time.monotonic())
            with self.bell:
                if self.rings == rings:
                    self.bell.wait(max(0.0, wait))

    def take_names(self, names: list[str]) -> float:
        """Give 0 when we have them, else the seconds after which it is worth another try."""
        transaction = _home._local.transaction
        hold = self.hold(transaction)
        held = sorted(hold.names)
        names = [name for name in names if name not in hold.names]
        if not names:
            return 0.0
        with self.turn():
            lease = int(LEASE * 1000)
            answer = self.ask(_ACQUIRE, [*held, *names], hold.token, lease, len(held))
            status, detail, news = answer
            if status == b"lost":
                self.take(news)
                raise self.lost(detail)
            is_ours = status == b"ok"
            self.take(news, acquired=names if is_ours else ())
            if is_ours:
                self.take_deferred(names)
                hold.names.update(names)
        return 0.0 if is_ours else min(BELL, detail / 1000)

    def lost(self, lock: bytes) -> LockLostError:
        name = _key(lock)[len(self.prefix) + len("lock:") :]
        hint = "all that was changed under it is dropped; hold it for less long"
        return LockLostError(f'The lock "{name}" ran out while it was held: {hint}.')

    def write(self, new: Mapping[str, Any], only_new: bool) -> Any:
        """Commit an assignment or a removal, then make it; under a lock, its release commits."""
        shared = {key: value for key, value in new.items() if key not in self.local}
        pickled = {
            key: None if value is _MISSING else _pickled(key, value)
            for key, value in shared.items()
        }
        transaction = _home._local.transaction
        is_told = _home._quiet.get() is None
        if transaction.depth > 0 or not shared:
            for key in shared:
                self.hold(transaction).assign(key, is_told)
            return _home._assign(new, only_new)
        run = _home._author()
        flags = _Flags(is_told, run.cause.depth + 1 if run else 0)
        changes = {}
        with self.turn():
            for key, data in pickled.items():
                kind = "delete" if data is None else "new" if only_new else "set"
                if kind == "set" and self.is_known(key, data, shared[key]):
                    kind = "same"
                changes[key] = _Change(kind, data, flags)

            def change_here() -> Any:
                for key in shared:
                    if only_new:
                        self.found(key)
                return _home._assign(new, only_new)

            return self.send(changes, None, change_here)

    def is_known(self, key: str, data: bytes | None, value: Any) -> bool:
        """Whether an equal value is what the store was last known to have."""
        known = self.known.get(key, b"")[32:]
        if key in self.deferred:
            return False
        if data == known:
            return True
        before = _home._entry(key).fingerprint
        if not known or _is_identity(before):
            return False
        return bool(_home._fingerprint(value).content == before.content)

    def send(
        self,
        changes: dict[str, _Change],
        hold: _Hold | None = None,
        change_here: Callable[[], Any] = lambda: None,
    ) -> Any:
        """Commit changes, and take over what others changed; between what was before and after
        it, make the change here, and give what that gives.
        """
        arguments: list[Any] = [hold.token if hold else "", next(_numbers), LOG_LENGTH]
        signed = {}
        for key, change in changes.items():
            signed[key] = b""
            if change.data is not None:
                signed[key] = _signature(self.settings, key, change.data) + change.data
            arguments += [_name(key), change.kind, signed[key], change.flags.text()]
        status, detail, news = self.ask(_COMMIT, hold.names if hold else (), *arguments)
        if status == b"lost":
            self.take(news)
            raise self.lost(detail)
        if status == b"conflict":
            self.take(news)
            hint = "a change in place without the key's own lock is dropped"
            raise LockLostError(f'server_state["{_key(detail)}"] was assigned elsewhere: {hint}.')
        is_first = status == b"ok"  # else an earlier request was heard, and its answer lost
        # What `setdefault` and `pop` give is the store's; a forced key has no value of ours.
        is_decided_there = ("new", "delete") if hold is None else ()
        decided = {key for key, change in changes.items() if change.kind in is_decided_there}
        forced = {key for key, change in changes.items() if change.kind == "force"}
        if is_first:
            self.take(news, own=changes.keys() - decided - forced, acquired=decided)
            self.take_deferred(decided)
            self.position = detail
        elif decided:
            self.take(news, acquired=decided)
            if detail:
                self.apply({key: (detail, _Flags(False)) for key in decided}, acquired=decided)
        changed = {_key(name) for name, _ in _pairs(news[2])}
        for key, change in changes.items():
            if change.kind == "force" or (change.kind == "new" and self.has(key)):
                continue
            self.deferred.pop(key, None)
            if change.kind == "same" and key not in changed and not news[1]:
                continue
            self.received.pop(key, None)
            self.refused.pop(key, None)
            self.known.pop(key, None)
            if change.data is not None:
                self.known[key] = signed[key]
        given = change_here()
        if not is_first:
            self.take(news)
        return given

    def has(self, key: str) -> bool:
        return key in self.known or key in self.deferred or key in self.refused

    def commit(self, transaction: Any) -> None:
        """Commit all that was changed under locks as one, and let go of them in the store.

        If that fails, this process shows again what the store has, and the error is raised.
        """
        with self.turn_lock:
            hold = self.hold(transaction)
            touched = {entry.key for entry in transaction.changed if entry.key is not None}
            touched |= hold.assigned.keys() | hold.in_place.keys()
            try:
                found = self.look(transaction)
                touched = (touched | {entry.key for entry in found}) - self.local
                self.look_at_replaced(hold)
                changes = self.changes(transaction, hold, touched)
                if changes or hold.names:
                    with self.turn():
                        self.send(changes, hold)
            except Exception as error:
                names = set(transaction.names)
                transaction.__init__()
                self.put_back(touched)
                self.take_deferred(names)
                if not touched and isinstance(error, ConnectionError):
                    return  # the lease will end by itself
                self.let_go(hold)
                raise
            finally:
                self.holds.pop(transaction, None)
                self.ring()
            for entry, fingerprint in found.items():
                entry.fingerprint = fingerprint
                if entry not in transaction.changed and entry.key in changes:
                    self.publish_in_place(entry, changes[entry.key].flags)
            self.take_deferred(transaction.names)

    def look(self, transaction: Any) -> dict[Any, Any]:
        """Find what was changed in place: entries, with their new fingerprints."""
        others = [other for other in self.transactions() if other is not transaction]
        names = [name for name in transaction.names if name in _home._present]
        entries = {_home._present[name] for name in names} | set(transaction.handed)
        found = {}
        for entry in entries:
            if entry.key in self.local or any(entry.key in other.names for other in others):
                continue
            if entry.fingerprint.may_change:
                fingerprint = _home._fingerprint(entry.value)
                if fingerprint.content != entry.fingerprint.content:
                    found[entry] = fingerprint
        return found

    def look_at_replaced(self, hold: _Hold) -> None:
        for key, value, fingerprint in hold.replaced:
            if _home._fingerprint(value).content != fingerprint.content:
                hint = "take the key's own lock to change it in place"
                message = f'server_state["{key}"] was assigned elsewhere while it was changed here'
                raise LockLostError(f"{message}: {hint}.")

    def changes(self, transaction: Any, hold: _Hold, touched: set[str]) -> dict[str, _Change]:
        run = _home._author()
        depth = run.cause.depth + 1 if run else 0
        in_place = run.cause.in_place + 1 if run else 0
        is_quiet = _home._quiet.get() is not None
        changed = {entry.key for entry in transaction.changed}
        changes = {}
        for key in sorted(touched):
            if key in changed or key in hold.assigned or key in hold.in_place:
                is_told = not is_quiet and (key in changed or self.is_told_of(key, hold))
                flags = _Flags(is_told, depth)
            else:
                is_told = not is_quiet and in_place <= _home._IN_PLACE_CHAIN
                flags = _Flags(is_told, depth, in_place)
            is_own = key in hold.assigned or key in transaction.names
            entry = _home._present.get(key)
            if entry is None and key in hold.assigned:
                changes[key] = _Change("delete", None, flags)
                continue
            if entry is None:
                changes[key] = _Change("force", None, flags._replace(is_forced=True))
                continue
            data = _pickled(key, entry.value)
            if data != self.known.get(key, b"")[32:] or key in self.deferred:
                changes[key] = _Change("set" if is_own else "in place", data, flags)
            elif key in hold.assigned and key not in changed:
                changes[key] = _Change("same", data, flags)
            elif flags.is_told and key in changed:
                changes[key] = _Change("force", None, flags._replace(is_forced=True))
        return changes

    def is_told_of(self, key: str, hold: _Hold) -> bool:
        """Whether an assignment that this process took for equal is told to the others."""
        is_told = hold.in_place.get(key, False) or hold.assigned.get(key, False)
        return is_told and _is_identity(_home._entry(key).fingerprint)

    def publish_in_place(self, entry: Any, flags: _Flags) -> None:
        """Tell readers here, but not the author where there can be only one."""
        if not flags.is_told:
            if flags.in_place > _home._IN_PLACE_CHAIN:
                _home._warn_of_chain(entry, "not told any more")
            return
        run = _home._author()
        with _home._master:
            authors = {run} | {other for other in _home._running if entry in other.handed}
        _home._publish([entry], run if len(authors) == 1 else None, flags.depth, flags.in_place)
        _home._notify()

    def let_go(self, hold: _Hold) -> None:
        if hold.names and self.away is None:
            try:
                with self.turn():
                    self.send({}, hold)
            except ConnectionError:
                pass  # the leases will end by themselves

    def offer(
        self, entry: Any, value: Any, depth: int = 0, in_place: int = 0, is_told: bool = True
    ) -> bool:
        """Commit a change in place that no lock guarded; False if it was dropped (P4)."""
        key = entry.key
        if key in self.local:
            return True
        transaction = _home._local.transaction
        if transaction.depth > 0:  # at the end of a `no_rerun` in it
            self.hold(transaction).in_place[key] = is_told
            return True
        message = 'A change in place of server_state["%s"] was dropped: %s. Take its lock for that.'
        with self.turn_lock:
            if entry.value is not value:
                is_from_elsewhere = self.received.get(key) == id(entry.value)
                if is_from_elsewhere:
                    _logger.warning(message, key, "another process had assigned it")
                return not is_from_elsewhere
            try:
                change = _Change("in place", _pickled(key, value), _Flags(is_told, depth, in_place))
                with self.turn():
                    self.send({key: change})
                return True
            except (ConnectionError, LockLostError, TypeError) as error:
                _logger.warning(message, key, error)
                if entry.value is value:
                    self.put_back([key])
                return False

    def force(self, entry: Any) -> None:
        """Have readers in all processes rerun; under a lock, its release does it."""
        if _home._local.transaction.depth == 0 and entry.key not in self.local:
            run = _home._author()
            flags = _Flags(True, run.cause.depth + 1 if run else 0, is_forced=True)
            with self.turn():
                self.send({entry.key: _Change("force", None, flags)})


def _run_page(app: Any) -> None:
    """Run a session that has never run; to be called on its event loop."""
    if app._scriptrunner is None:  # else its browser has asked meanwhile
        _home._request_rerun(app, None)


def _is_identity(fingerprint: Any) -> bool:
    return type(fingerprint.content) is int


def _pairs(flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _name(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _key(name: bytes) -> str:
    try:
        return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # none of ours
        return name.decode("utf-8", "replace")
