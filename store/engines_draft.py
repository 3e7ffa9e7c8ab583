"""The two engines, until they stand in `server_state_store.py`."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from dict_engine import Answer, Change, News

_logger = logging.getLogger("server_state")
LEASE = 10.0  # seconds for which a lock is held without a word from its holder
_Names = Collection[str]  # of locks
PATIENCE = 1.5  # seconds for an answer of the store; it is asked twice
LOG_LENGTH = 1000  # changes that the log keeps, about; who missed more loads everything
UNFAIR = 1.0  # seconds after which whoever waits for a lock goes before those who come later
PIECE = 50  # values that are loaded at once


def _name(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _key(name: bytes) -> str:
    try:
        return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # none of ours
        return name.decode("utf-8", "replace")


# --- SQLite ---
_APPLICATION, _FORMAT = 0x73657276, 1  # the file's application_id and user_version
_TICK = 0.01  # seconds between two looks for what other processes did
_SCHEMA = f"""
BEGIN IMMEDIATE;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_FORMAT};
CREATE TABLE IF NOT EXISTS state (app, key, data, PRIMARY KEY (app, key));
-- What has changed, or was forced. A position is that of one entry, and never comes twice.
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
PRAGMA journal_size_limit = 1048576;
SELECT 1 FROM log; -- makes the write-ahead log
"""
# A position is known if that very entry is there. Before the first one there was nothing.
_IS_KNOWN = """
SELECT 1 FROM log WHERE app = :app AND number = max(:number, 1)
AND (position = :position OR :number = 0)
"""
_ENTRIES = """
SELECT key, is_changed, flags FROM log WHERE app = :app AND number > :number ORDER BY number
"""
_TELL = "INSERT INTO log VALUES (:app, :entry, :position, :key, :is_changed, :flags)"
_SET = """
INSERT INTO state VALUES (:app, :key, :data) ON CONFLICT (app, key) DO UPDATE SET data = :data
"""
_REMOVE = "DELETE FROM state WHERE app = :app AND key = :key"
# A lease that lies further ahead than a lease can is from before the machine was started.
_IS_OURS = """
SELECT 1 FROM locks WHERE app = :app AND name = :name AND token = :token
AND until BETWEEN :now AND :now + :lease
"""
# Who has waited for longer than UNFAIR goes before others; but not before those who have other
# locks, since these may be what is waited for.
_OTHERS = """
SELECT until - :now FROM locks WHERE app = :app AND name = :name AND token <> :token
AND until BETWEEN :now AND :now + :lease
UNION ALL SELECT :unfair FROM line WHERE app = :app AND name = :name AND token <> :token
AND NOT :has_more AND since < :now - :unfair AND seen > :now - 2
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


class _SQLite:
    """One file on a disk of this machine, for any number of its processes."""

    needs_secret = False  # whoever can write the file can write the app
    largest = 999_000_000  # bytes of a value

    def __init__(self, where: Any, name: str, process: str) -> None:
        self._path = self.place(where)
        self.process = process
        names = {"app": _name(name), "process": _name(process)}
        self._ours = {**names, "lease": LEASE, "unfair": UNFAIR}
        self._mutex = threading.Lock()  # guards the connection, for as long as one request takes
        self._connection: Any = None
        self._files: list[int] = []
        self._size = 0
        self._is_good = False
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL, 0o600))
            self._remove_log()
        with self._file(is_new=True):
            self._run("DELETE FROM locks WHERE until NOT BETWEEN :now AND :now + 600")

    @staticmethod
    def place(where: Any) -> str:
        """Give the same for all ways to write a place."""
        return str(os.path.realpath(where))

    # The file.
    def _open(self, is_new: bool) -> sqlite3.Connection:
        """Open the file, if it is one of ours; another program's is not touched."""
        uri = Path(self._path).as_uri()
        is_empty = os.path.getsize(self._path) == 0
        with closing(sqlite3.connect(f"{uri}?immutable=1", uri=True)) as look:
            (application,) = look.execute("PRAGMA application_id").fetchone()
            (version,) = look.execute("PRAGMA user_version").fetchone()
        if application != _APPLICATION and not (is_new and is_empty):
            hint = "give another path, or put a copy of ours back"
            raise RuntimeError(f"{self._path} is empty, or another program's: {hint}.")
        if version > _FORMAT:
            hint = "copy that version's server_state_store.py, or give another path"
            raise RuntimeError(f"{self._path} was written by a newer version: {hint}.")
        connection = sqlite3.connect(
            f"{uri}?mode=rw", PATIENCE, uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            if is_new:
                connection.executescript(_SCHEMA)
            connection.executescript(_SETTINGS)
        except BaseException:
            connection.close()
            raise
        return connection

    def _find_files(self) -> list[int]:
        """Say which two files there are: the database, and its write-ahead log."""
        files = []
        for end in ("", "-wal"):
            with suppress(FileNotFoundError):
                files.append(os.stat(self._path + end).st_ino)
        return files

    def _remove_log(self) -> None:
        """Remove what another file of this name has left: it must not get into this one."""
        for end in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.remove(self._path + end)

    def _reopen(self, is_new: bool) -> None:
        """Open the file that is there now. Until then the old one is kept, and its inodes with it."""
        files = self._find_files()
        if files[:1] != self._files[:1] and files[1:] == self._files[1:]:
            self._remove_log()
        connection = self._open(is_new)
        self.close()
        self._connection = connection
        self._files = self._find_files()
        self._heard = None  # what the bell said last
        self._is_good = True

    @contextmanager
    def _file(self, is_new: bool = False) -> Iterator[None]:
        """Have the file as it is now. TimeoutError while another program keeps it."""
        with self._mutex:
            try:
                size = os.path.getsize(self._path)
                is_same = self._files == self._find_files() and size >= self._size
                if not (self._is_good and is_same):  # it was replaced, or truncated
                    self._reopen(is_new)
                self._size = size
                yield
            except sqlite3.Error as error:
                if str(error) in ("database is locked", "interrupted"):
                    raise TimeoutError(f"{self._path}: {error}") from error
                self._is_good = False
                raise RuntimeError(f"{self._path}: {error}") from error

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
        for place, value in values.items():
            if isinstance(value, str):
                values[place] = _name(value)
        values = {"now": time.monotonic(), **self._ours, **values}
        rows: list[Any] = self._connection.execute(statement, values).fetchall()
        return rows

    # The operations.
    def since(self, position: bytes, number: int = 0) -> News:
        with self._request("BEGIN IMMEDIATE" if number else "BEGIN"):
            news = self._news(position)
            if number:
                self._note(number)
            if news.is_all:
                rows = self._run("SELECT key, data FROM state WHERE app = :app")
                news = news._replace(values={_key(name): data for name, data in rows})
            return news

    def acquire(
        self,
        position: bytes,
        names: _Names,
        token: str,
        lease: float,
        held: _Names,
        number: int,
    ) -> Answer:
        with self._request():
            news = self._news(position)
            seen = self._seen()
            if number < seen:
                return _answer(news, "old")
            self._note(number)
            lost = self._lost(held, token)
            if number == seen:
                is_held = bool(lost or self._lost(names, token))
                return _answer(news, "held", 0.0) if is_held else _answer(news, "ok")
            if lost:
                return _answer(news, "lost", lost[0])
            waits = [0.0]
            for name in names:
                rows = self._run(_OTHERS, name=name, token=token, has_more=bool(held))
                waits += [seconds for (seconds,) in rows]
            is_free = max(waits) == 0
            for name in names:
                self._run(_TAKE if is_free else _LINE_UP, name=name, token=token, seconds=lease)
            if not is_free:
                return _answer(news, "held", max(waits))
            self._run(_LEAVE_LINE, token=token)
            return _answer(news, "ok")

    def commit(
        self,
        position: bytes,
        token: str,
        locks: _Names,
        changes: dict[str, Change],
        number: int,
    ) -> Answer:
        _check_sizes(changes, self.largest)
        with self._request():
            news = self._news(position)
            seen = self._seen()
            if number <= seen:
                return _answer(news, "done" if number == seen else "old")
            lost = self._lost(locks, token)
            if lost and changes:
                return _answer(news, "lost", lost[0])
            for key, change in changes.items():
                if change.kind == "guarded" and (news.is_all or key in news.values):
                    return _answer(news, "conflict", key)
            self._note(number)
            for name in locks:
                self._run(_FREE, name=name, token=token)
            end = self._change(news.position, changes, number)
            return Answer("ok", "", end, news)

    def renew(self, names: _Names, token: str, lease: float) -> None:
        with self._request():
            for name in names:
                self._run(_RENEW_LOCK, name=name, token=token, seconds=lease)

    def wait(self, position: bytes, seconds: float) -> None:
        with self._file():
            pass  # it is looked for but once: that costs as much as all the looks into it
        until = time.monotonic() + seconds
        while True:
            with self._mutex:
                heard = self._connection.execute("PRAGMA data_version").fetchone()
            is_quiet = heard == self._heard
            if not is_quiet or time.monotonic() > until:
                break
            time.sleep(_TICK)
        self._heard = heard
        if is_quiet and os.path.getsize(f"{self._path}-wal") > 2**20:
            with self._file():
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def interrupt(self) -> None:
        with suppress(AttributeError, sqlite3.Error):  # there is none, or one that is closed
            self._connection.interrupt()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    # What a request is made of.
    def _news(self, position: bytes) -> News:
        newest = "SELECT position FROM log WHERE app = :app ORDER BY number DESC LIMIT 1"
        current = _first(self._run(newest), b"0")
        number = _number(position)
        if current == position:
            return News(position, False, [], {})
        if not self._run(_IS_KNOWN, number=number, position=position):
            return News(current, True, [], {})
        rows = self._run(_ENTRIES, number=number)
        flags = [(_key(name), text) for name, _, text in rows]
        changed = {name for name, is_changed, _ in rows if is_changed}
        return News(current, False, flags, {_key(name): self._held(name) for name in changed})

    def _held(self, name: bytes) -> Any:
        return _first(self._run("SELECT data FROM state WHERE app = :app AND key = :key", key=name))

    def _seen(self) -> int:
        return int(_first(self._run("SELECT token FROM locks WHERE app = :process"), 0))

    def _note(self, number: int) -> None:
        """Have requests with a smaller number come too late from now on (P5)."""
        note = "INSERT OR REPLACE INTO locks VALUES (:process, '', :number, :now + 600)"
        self._run(note, number=number)

    def _lost(self, names: _Names, token: str) -> list[str]:
        return [name for name in names if not self._run(_IS_OURS, name=name, token=token)]

    def _change(self, position: bytes, changes: dict[str, Change], number: int) -> bytes:
        """Make changes, and give the position after them."""
        entry = _number(position)
        for key, (kind, data, flags) in changes.items():
            is_changed = kind != "force"
            if is_changed and self._held(_name(key)) == data:
                continue
            if is_changed:
                self._run(_REMOVE if data is None else _SET, key=key, data=data)
            entry += 1
            position = f"{entry} {self.process} {number}".encode()
            values = {"key": key, "is_changed": is_changed, "flags": flags}
            self._run(_TELL, entry=entry, position=position, **values)
        if entry % 64 < len(changes):  # now and then
            self._run("DELETE FROM log WHERE app = :app AND number <= :old", old=entry - LOG_LENGTH)
        return position


def _answer(news: News, status: str, detail: str | float = "") -> Answer:
    return Answer(status, detail, news.position, news)


def _first(rows: list[Any], default: Any = None) -> Any:
    return rows[0][0] if rows else default


def _number(position: bytes) -> int:
    """Give an entry's number in the log of SQLite; 0 is before the first one."""
    number = position.partition(b" ")[0]
    return int(number) if number.isdigit() else -1


def _check_sizes(changes: dict[str, Change], largest: int) -> None:
    for key, change in changes.items():
        if change.data is not None and len(change.data) > largest:
            hint = f"the store takes {largest:,}; keep it in a file, or in parts"
            raise ValueError(f'server_state["{key}"] has {len(change.data):,} bytes: {hint}.')


# --- Redis and Valkey ---
# KEYS: 1 the values, 2 the log of changed names, 3 the bell for waiting lockers, 4 who waits,
# 5 the number of this process's last request; then the locks.
# ARGV: 1 our position in the log, 2 the request's number.
_SINCE = """
local values, log, bell, line, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local position, number = ARGV[1], tonumber(ARGV[2])
local changed = {}  -- by name, since our position
local function since()
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  last = last and last[1] or redis.call('XADD', log, '*', '', '')
  if last == position then
    return {position, 0, {}, {}}
  end
  if position == '' or #redis.call('XRANGE', log, position, position) == 0 then
    return {last, 1, {}, {}}
  end
  local flags, current = {}, {}
  for _, entry in ipairs(redis.call('XRANGE', log, '(' .. position, '+')) do
    for i = 1, #entry[2], 2 do
      local name, text = entry[2][i], entry[2][i + 1]
      if text:sub(1, 1) == '=' and not changed[name] then
        changed[name] = true
        current[#current + 1] = name
        current[#current + 1] = redis.call('HGET', values, name)
      end
      if text ~= '' then  -- else it only marks where the log begins
        flags[#flags + 1] = name
        flags[#flags + 1] = text:sub(2)
      end
    end
  end
  return {last, 0, flags, current}
end
local news = since()
local seen = tonumber(redis.call('GET', done) or 0)
-- P5: requests with a smaller number come too late from now on.
local function note()
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
if number > 0 then
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
  elseif held == 0 and other[1] < entry[1] and other[1] < now - unfair then
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
  if ARGV[i + 1]:sub(1, 7) == 'guarded' and (changed[ARGV[i]] or news[2] == 1) then
    return answer('conflict', ARGV[i])
  end
end
note()
local entry = {}
local last = news[1]
for i = 5, #ARGV, 4 do
  local name, kind, value, mark = ARGV[i], ARGV[i + 1], ARGV[i + 2], '='
  local before = redis.call('HGET', values, name)
  if kind == 'force' then
    mark = '!'
  elseif kind:sub(-7) == 'removal' then
    mark = redis.call('HDEL', values, name) == 1 and '=' or ''
  elseif before == value then
    mark = ''
  else
    redis.call('HSET', values, name, value)
  end
  if mark ~= '' then
    entry[#entry + 1] = name
    entry[#entry + 1] = mark .. ARGV[i + 3]
  end
  if #entry > 0 and (#entry == 1000 or i + 4 > #ARGV) then
    last = redis.call('XADD', log, 'MAXLEN', '~', ARGV[4], '*', unpack(entry))
    entry = {}
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


class _Redis:
    """One server, for processes of any number of machines."""

    needs_secret = True
    largest = 512 * 2**20 - 1024  # bytes of a value

    def __init__(self, where: Any, name: str, process: str) -> None:
        self._client = _client(where)
        self._waiting_client = _client(where)  # `interrupt` must not end its calls
        self.process = process
        self._prefix = _name(f"{{{name}}}:")  # braces: one slot of a cluster
        parts = ("values", "log", "bell", "line", f"done:{process}")
        self._keys = [self._prefix + part.encode() for part in parts]
        self._scripts = {
            text: self._client.register_script(text) for text in (_SYNC, _ACQUIRE, _COMMIT, _RENEW)
        }
        self._rung: Any = "0"  # the last ring of the bell that we know of

    @staticmethod
    def place(where: Any) -> Any:
        """Give the same for all ways to write a place."""
        given = _client(where).connection_pool.connection_kwargs
        options = {"host": "localhost", "port": 6379, "db": 0, **given}
        return tuple(str(options.get(part)) for part in ("host", "port", "path", "db", "username"))

    def since(self, position: bytes, number: int = 0) -> News:
        news = self._sync(position, number)
        if not position:
            self._warn_of_eviction()
        while news.is_all:  # in pieces, and then what has changed meanwhile
            found: dict[str, bytes | None] = {}
            names = self._call(self._client.hkeys, self._keys[0])
            said = time.monotonic()
            for first in range(0, len(names), PIECE):
                if time.monotonic() > said + 1:
                    said = time.monotonic()
                    _logger.info("%d of %d values of the store are loaded.", first, len(names))
                some = names[first : first + PIECE]
                data = self._call(self._client.hmget, self._keys[0], some)
                found.update(zip(map(_key, some), data, strict=True))
            news = self._sync(news.position)
            if not news.is_all:
                found.update(news.values)
                for key in [key for key, data in found.items() if data is None]:
                    del found[key]
                return News(news.position, True, [], found)
        return news

    def acquire(
        self,
        position: bytes,
        names: _Names,
        token: str,
        lease: float,
        held: _Names,
        number: int,
    ) -> Answer:
        arguments = (position, number, token, int(lease * 1000), len(held), UNFAIR)
        return self._answer(self._run(_ACQUIRE, [*held, *names], *arguments))

    def commit(
        self,
        position: bytes,
        token: str,
        locks: _Names,
        changes: dict[str, Change],
        number: int,
    ) -> Answer:
        _check_sizes(changes, self.largest)
        arguments: list[Any] = [position, number, token, LOG_LENGTH]
        for key, change in changes.items():
            kind = change.kind
            if change.data is None and kind != "force":
                kind += " removal"
            arguments += [_name(key), kind, change.data or b"", change.flags]
        return self._answer(self._run(_COMMIT, locks, *arguments))

    def renew(self, names: _Names, token: str, lease: float) -> None:
        arguments = [token, int(lease * 1000)]
        locks = [self._lock(name) for name in names]
        self._call(self._scripts[_RENEW], locks, arguments, self._waiting_client)

    def wait(self, position: bytes, seconds: float) -> None:
        streams = {self._keys[1]: position or "0", self._keys[2]: self._rung}
        self._call(self._waiting_client.xread, streams, 1, int(seconds * 1000))

    def interrupt(self) -> None:
        self._client.connection_pool.disconnect()

    def close(self) -> None:
        self._client.close()
        self._waiting_client.close()

    def _sync(self, position: bytes, number: int = 0) -> News:
        self._rung, news = self._run(_SYNC, (), position, number)
        return _news(news)

    def _run(self, script: str, locks: _Names, *arguments: Any) -> Any:
        return self._call(self._scripts[script], [*self._keys, *map(self._lock, locks)], arguments)

    def _lock(self, name: str) -> bytes:
        return self._prefix + b"lock:" + _name(name)

    def _call(self, command: Callable[..., Any], *arguments: Any) -> Any:
        """Ask once. ConnectionError if there is no answer: what was asked may have been done."""
        try:
            return command(*arguments)
        except Exception as error:
            kinds = {kind.__name__ for kind in type(error).__mro__}
            if not kinds.isdisjoint(("OSError", "ConnectionError", "TimeoutError")):
                for client in (self._client, self._waiting_client):  # the others are dead, too
                    client.connection_pool.disconnect(inuse_connections=False)
                raise ConnectionError(str(error)) from error
            if "WRONGTYPE" in str(error):
                expected = ("hash", "stream", "stream", "hash", "string")
                found = {key: self._client.type(key).decode() for key in self._keys}
                ours = dict(zip(self._keys, expected, strict=True))
                others = [key for key in self._keys if found[key] not in (ours[key], "none")]
                hint = "give another name, or another database"
                raise RuntimeError(f"{others} is another program's: {hint}.") from error
            raise

    def _warn_of_eviction(self) -> None:
        try:
            policy = self._client.config_get("maxmemory-policy").get("maxmemory-policy")
        except Exception:
            return  # a hosted store may not say
        if policy not in ("noeviction", b"noeviction"):
            message = "The store of server_state may drop values (maxmemory-policy is %s): %s"
            _logger.warning(message, policy, "set it to noeviction.")

    def _answer(self, answer: Any) -> Answer:
        status, detail, position, news = answer
        if status == b"lost":
            detail = detail.removeprefix(self._lock(""))
        detail = float(detail) if status == b"held" else _key(detail)
        return Answer(status.decode(), detail, position, _news(news))


def _news(answer: Any) -> News:
    position, is_all, flags, current = answer
    told = [(_key(name), text) for name, text in _pairs(flags)]
    return News(position, bool(is_all), told, {_key(name): data for name, data in _pairs(current)})


def _pairs(flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)


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
