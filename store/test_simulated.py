"""Processes that share a store, one step at a time, in any order, from a seed: no package needed.

SEED=123 python -m unittest test_simulated runs one schedule; SEEDS=5000:25000 many, on all cores (CORES=1: on one).
Each process has copies of both files of its own; the store is a dictionary; clock, locks and network are the world's.
"""

from __future__ import annotations

import collections
import contextvars
import gc
import logging
import multiprocessing
import os
import pickle
import random
import secrets
import sys
import threading
import time
import types
import unittest
import unittest.mock
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import dict_engine

HERE = Path(__file__).resolve().parent
SERVER_STATE = compile((HERE.parent / "server_state.py").read_text(), "server_state.py", "exec")
STORE = compile((HERE / "server_state_store.py").read_text(), "server_state_store.py", "exec")
FILES = SERVER_STATE.co_filename, STORE.co_filename
PATIENCE = 1.5  # seconds until a request that is not answered fails
WATCH = 0.5  # seconds between looks of the one who interrupts a request
GIVE_UP = 5.0  # seconds after which a call gives up


class Killed(BaseException):
    """Ends the threads of a process that was killed."""


# --- Threads that run one at a time, when they are let on ---
class Worker(threading.Thread):
    """A real thread, used for one simulated thread after the other: making one takes longer than a schedule's step."""

    idle: list[Worker] = []

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.go = threading.Lock()
        self.go.acquire()
        self.task: Task | None = None
        self.start()

    def run(self) -> None:
        while True:
            self.go.acquire()
            task = self.task
            assert task is not None
            task.main()
            world, self.task = task.world, None
            world.tasks.remove(task)
            del task
            Worker.idle.append(self)
            world.hand_on()
            del world


class Task:
    """A simulated thread of a process."""

    def __init__(self, process: Process, function: Callable[[], None], is_daemon: bool = False) -> None:
        self.process, self.world, self.function, self.is_daemon = process, process.world, function, is_daemon
        self.ready: Callable[[], bool] | None = None
        self.until: float | None = 0.0  # when it is let on at the latest; None: never
        self.is_over = False
        self.local: dict[str, Any] = {}
        self.worker: Any = Worker.idle.pop() if Worker.idle else Worker()
        self.worker.task = self
        self.world.tasks.append(self)

    def main(self) -> None:
        sys.settrace(self.trace if self.world.interrupts else None)
        try:
            contextvars.Context().run(self.function)
        except Killed:
            pass
        except BaseException as error:
            if not self.process.is_dead:  # else it may be what came of `Killed`
                self.world.wrong.append(f"{self.process.name}: {error!r}")
            if os.environ.get("SEED"):
                import traceback

                traceback.print_exc()
        finally:
            sys.settrace(None)
        self.is_over = True
        self.local.clear()

    def trace(self, frame: Any, event: str, _: Any) -> Any:
        """Let others on, perhaps, at any line of the two files, in one of five calls."""
        if event == "call":
            is_ours = frame.f_code.co_filename in FILES
            return self.trace if is_ours and self.world.random.random() < 0.2 else None
        if event == "line" and self.world.current and self.world.random.random() < self.world.interrupts:
            self.world.pause()
        return self.trace

    def can_go(self) -> bool:
        process, now = self.process, self.world.now
        if process.is_dead:
            return True
        if process.still_until > now:
            return False
        if self.until is not None and self.until <= now:
            return True
        return self.ready is not None and self.ready()


class Lock:
    """A re-entrant lock between simulated threads."""

    def __init__(self, world: World) -> None:
        self.world, self.depth = world, 0
        self.owner: Any = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = self.world.current
        until = None if timeout < 0 else self.world.now + timeout
        while self.owner not in (None, me):
            if not blocking or (until is not None and self.world.now >= until):
                return False
            if me is None:  # the driver
                self.world.go_on(100_000, lambda: self.owner is None)
            else:
                self.world.pause(lambda: self.owner is None, until)
        self.owner, self.depth = me, self.depth + 1
        return True

    def release(self) -> None:
        if not self._is_owned():
            if self.world.current is not None and self.world.current.process.is_dead:
                raise Killed
            raise RuntimeError
        self.depth -= 1
        self.owner = self.owner if self.depth else None

    def _is_owned(self) -> bool:
        return self.owner is self.world.current

    def __repr__(self) -> str:
        return "<locked>" if self.depth else "<unlocked>"  # as Python's own

    __enter__ = acquire

    def __exit__(self, *error: object) -> None:
        self.release()


class Event:
    """One that simulated threads wait for."""

    def __init__(self, world: World) -> None:
        self.world, self.is_set = world, False

    def set(self) -> None:
        self.is_set = True

    def wait(self, timeout: float) -> None:
        self.world.pause(lambda: self.is_set, self.world.now + timeout)


class Local:
    """What `threading.local` is to simulated threads."""

    def __init__(self, world: World, begin: Callable[[Any], None]) -> None:
        object.__setattr__(self, "world", world)
        object.__setattr__(self, "begin", begin)

    def __getattr__(self, name: str) -> Any:
        local = self.of_thread()
        if name not in local:
            self.begin(self)
        return local[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self.of_thread()[name] = value

    def of_thread(self) -> dict[str, Any]:
        current = self.world.current
        return self.world.local if current is None else current.local  # type: ignore[no-any-return]


class Asking:
    """A value that uses the state when a process reads it from the store, as does a module that is imported for it."""

    reader: tuple[Task, Callable[[int], None]] | None = None  # who reads just now, and what it does then

    def __init__(self, serial: int) -> None:
        self.serial = serial

    def __setstate__(self, state: dict[str, int]) -> None:
        self.serial = state["serial"]
        task, asks = Asking.reader or (None, None)
        # (What is left of an earlier world is over.)
        if task is not None and task is task.world.current and not task.process.is_dead and asks is not None:
            asks(self.serial)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Asking) and other.serial == self.serial

    def __hash__(self) -> int:
        return hash(self.serial)

    def __repr__(self) -> str:
        return f"Asking({self.serial})"


# --- Processes and the network ---
class Process:
    """Copies of both files, as a server process has them."""

    def __init__(self, world: World, name: str, parent: Process | None = None) -> None:
        self.world, self.name = world, name
        self.is_dead, self.still_until, self.is_cut_off, self.is_connected = False, 0.0, False, False
        self.home = self.loaded("_server_state_1", SERVER_STATE)
        sys.modules["_server_state_1"] = self.home
        self.home._local = Local(world, self.home._Local.__init__)
        self.home._master._lock = Lock(world)
        self.file = self.loaded("server_state_store", STORE)
        self.home._connecting = Lock(world)
        self.state, self.locks = self.home.server_state, self.home.server_state_lock
        self.asks: Callable[[int], None] = lambda serial: None
        opened = self.file._Store.opened

        def opens(store: Any, key: str) -> Any:
            before, Asking.reader = Asking.reader, (world.current, self.asks)
            try:
                return opened(store, key)
            finally:
                Asking.reader = before

        self.file._Store.opened = opens
        self.wire: Wire | None = None
        self.stills = 0  # how often it stood still
        self.slow = 0.0  # seconds for which it waited in vain, of a store that is not known to be away
        self.warnings: list[str] = []
        self.fence = 0  # requests with a smaller number were under way during an outage
        self.failures = 0  # calls that raised, and changes in place that were dropped
        self.waiting: dict[Any, tuple[float, int]] = {}  # threads that wait for a lock, and since when
        # What was assigned under locks and is not yet committed.
        self.pending: collections.Counter[Any] = collections.Counter()
        self.seen: dict[str, int] = {}  # by key: the newest change that a read has shown
        self.open_on: list[set[str]] = []  # keys of the transactions that are under way
        self.left: set[Any] = set()  # changes of a list that one transaction has left to another one
        if parent is not None:  # a fork: a copy of its state, and its threads are gone
            for key, value in pickle.loads(pickle.dumps(parent.state.to_dict())).items():
                self.home._assign({key: value})
            self.home._store_of_parent = parent.home._store

    def loaded(self, name: str, code: types.CodeType) -> Any:
        module: Any = types.ModuleType(name)
        with self.world.imports():
            exec(code, vars(module))
        world = self.world
        module.time = types.SimpleNamespace(monotonic=lambda: world.now, process_time=lambda: 0.0, sleep=world.sleep)
        module.threading = types.SimpleNamespace(
            RLock=lambda: Lock(world),
            Event=lambda: Event(world),
            get_ident=lambda: id(world.current),
            current_thread=lambda: world.current,
            Thread=lambda **what: types.SimpleNamespace(start=lambda: None),
        )
        module._logger = types.SimpleNamespace(
            **dict.fromkeys(("debug", "error"), lambda *args: None), warning=self.note_warning
        )
        module.gc = types.SimpleNamespace(collect=int, isenabled=lambda: False, enable=int, disable=int)
        module.secrets = types.SimpleNamespace(token_hex=lambda size=8: f"id {next(world.serial)}")
        return module

    def note_warning(self, text: str, *args: Any) -> None:
        self.failures += "dropped" in text
        self.warnings.append(text % args)

    @property
    def store(self) -> Any:
        return self.home._store

    def pending_of_store(self) -> Any:
        return {key for _, hold in self.store.open() for key in hold.mine}

    def connect(self) -> None:
        self.file.SQLite = Wire
        self.wire = None
        try:
            self.file.connect(self, name="app", local={"local"})
        except ConnectionError:
            self.world.pause(None, self.world.now + 1)
            return self.connect()
        self.is_connected = True
        leave = self.store.leave

        def note(entry: Any, hold: Any, flags: Any) -> Any:
            if (answer := leave(entry, hold, flags)) and entry.key == "silent":
                self.left.update(entry.value)
            return answer

        self.store.leave = note
        self.world.start(self, self.listen, is_daemon=True)
        self.world.start(self, self.renew, is_daemon=True)
        self.world.start(self, self.inspect, is_daemon=True)
        return None

    def listen(self) -> None:
        world, store = self.world, self.store
        while True:
            world.pause(
                lambda: world.store.log[-1].position != store.position or store.away is not None,
                world.now + world.random.choice((0.02, 0.5, 0.5)),
            )
            if world.random.random() < 0.3:
                world.sleep(world.random.choice((0.005, 0.3)))
            was_away, next_number = store.away is not None, store.numbers.__reduce__()[1][0]
            try:
                store.hear()
                if was_away:
                    self.fence = next_number
            except ConnectionError:
                world.sleep(0.25)
            store.ring()

    def renew(self) -> None:
        self.store.renew()

    def inspect(self) -> None:
        wake = self.home._inspector.wake
        while True:
            self.world.pause(wake.is_set)
            self.world.pause(None, self.world.now + 0.005)
            wake.clear()
            self.home._inspector.look()
            if self.home._inspector.suspected:
                self.world.sleep(1.0)
                wake.set()


class Wire:
    """The way between a process and the store: requests are lost, late, doubled, and so are answers."""

    needs_secret, largest = False, 2**30

    def __init__(self, where: Process, name: str, process: str) -> None:
        self.owner, self.world, self.process = where, where.world, process
        self.engine = dict_engine.DictEngine(self.world.store, name, process)
        where.wire = self

    @staticmethod
    def place(where: Process) -> Any:
        return where.name

    def since(self, *asked: Any) -> Any:
        return self.call(self.engine.since, asked)

    def acquire(self, *asked: Any) -> Any:
        return self.call(self.engine.acquire, asked)

    def commit(self, *asked: Any) -> Any:
        return self.call(lambda *asked: self.world.commit(self, asked), asked)

    def renew(self, *asked: Any) -> Any:
        return self.call(self.engine.renew, asked)

    def call(self, operation: Callable[..., Any], asked: tuple[Any, ...]) -> Any:
        world = self.world
        world.pause()
        fate = world.fate(self.owner)
        if fate in ("lost", "late"):
            if fate == "late":
                world.delay(operation, asked)
            self.give_up()
            raise TimeoutError("the request is lost")
        answer = operation(*asked)
        if fate == "twice":
            world.delay(operation, asked)
        if fate == "answer lost":
            self.give_up()
            raise TimeoutError("the answer is lost")
        world.pause()
        return answer

    def give_up(self) -> None:
        """Wait for an answer in vain, or until we are interrupted."""
        begun, left = self.world.now, max(0.0, self.owner.store.limit - self.world.now)
        self.world.sleep(min(PATIENCE, left + WATCH))
        if self.owner.store.away is None:
            self.owner.slow += self.world.now - begun


# --- The world ---
class World:
    """Some processes, a store, a clock, and what must be true of them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 100.0
        self.wrong: list[str] = []
        self.tasks: list[Task] = []
        self.serial = iter(range(1, 10**9))
        self.back = threading.Lock()
        self.back.acquire()
        self.steps, self.end = 0, 0.0
        self.is_done: Callable[[], bool] = lambda: False
        self.current: Any = None
        self.local: dict[str, Any] = {}  # of no simulated thread
        self.store = dict_engine.DictStore(lambda: self.now, self.random.choice((5, 1000)))
        self.late: list[tuple[float, Callable[..., Any], tuple[Any, ...]]] = []  # requests, and when they arrive
        self.processes: list[Process] = []
        self.bad_network = self.random.choice((0.0, 0.0, 0.02, 0.1))
        self.interrupts = self.random.choice((0.0,) * 17 + (0.005, 0.05, 0.5))  # of each line
        self.is_down, self.down_since = False, 0.0
        self.saved: Any = None
        self.is_noted = True
        self.went_back = 0  # how often the store went back in time
        self.history: dict[str, list[Any]] = {}  # by key: the values that it had in the store
        self.made: dict[Any, int] = {}  # how often each value was committed
        self.removed: dict[Any, list[Process]] = {}  # jobs, and which processes took them out
        self.importing = False

    @contextmanager
    def imports(self) -> Iterator[None]:
        """Random names that are made when a file is imported are the same in a fork; what is registered is kept."""
        real, register = secrets, getattr(os, "register_at_fork", None)
        sys.modules["secrets"] = types.SimpleNamespace(token_hex=lambda size=8: "of the import")  # type: ignore[assignment]
        os.register_at_fork = lambda **hooks: None  # type: ignore[assignment,unused-ignore]
        try:
            yield
        finally:
            sys.modules["secrets"] = real
            if register is None:
                del os.register_at_fork
            else:
                os.register_at_fork = register

    # The schedule.
    def start(self, process: Process, function: Callable[[], None], is_daemon: bool = False) -> Task:
        return Task(process, function, is_daemon)

    def pause(self, ready: Callable[[], bool] | None = None, until: float | None = None) -> None:
        """Let others on; to be called by a simulated thread."""
        task = self.current
        task.ready = ready
        task.until = self.now if ready is None and until is None else until
        self.hand_on(task)
        if task.process.is_dead:
            raise Killed

    def hand_on(self, task: Task | None = None) -> None:
        """Let the next thread on, and come back when it is the turn of this one."""
        following = self.choose()
        if following is task and task is not None:
            return
        self.current = following
        (self.back if following is None else following.worker.go).release()
        if task is not None:
            task.worker.go.acquire()

    def sleep(self, seconds: float) -> None:
        self.pause(None, self.now + seconds)

    def choose(self) -> Task | None:
        """Choose who goes on; None when the driver is to have its turn."""
        while self.steps > 0 and not self.is_done() and self.now <= self.end:
            self.steps -= 1
            if self.late and not self.is_down:
                self.deliver(self.now)
            able = [task for task in self.tasks if task.can_go()]
            if able:
                self.now += 0.0001
                return self.random.choice(able)
            times = [task.until for task in self.tasks if task.until is not None and task.until > self.now]
            times += [at for at, *_ in self.late if at > self.now]
            times += [process.still_until for process in self.processes if process.still_until > self.now]
            if not times:
                self.end = -1.0
                return None
            self.now = min(times)
        return None

    def delay(self, operation: Callable[..., Any], asked: tuple[Any, ...]) -> None:
        self.late.append((self.now + self.random.choice((0.001, 0.1, 3.0, 12.0)), operation, asked))

    def deliver(self, now: float) -> None:
        """Bring late requests to the store."""
        for one in [one for one in self.late if one[0] <= now]:
            self.late.remove(one)
            one[1](*one[2])

    def go_on(self, steps: int, is_done: Callable[[], bool] = lambda: False, seconds: float = 1e9) -> None:
        """Let the threads on for so many steps, or until something is so, or a time is over."""
        self.steps, self.is_done, self.end = steps, is_done, self.now + seconds
        following = self.choose()
        if following is not None:
            self.current = following
            following.worker.go.release()
            self.back.acquire()
            self.current = None
        if self.steps == 0 and steps > 1000:
            raise AssertionError("it never comes to rest")

    def close(self) -> None:
        for process in self.processes:
            process.is_dead = True
        self.go_on(1_000_000, lambda: not self.tasks)

    # Faults.
    def fate(self, process: Process) -> str:
        if self.is_down or process.is_cut_off:
            return self.random.choice(("lost", "lost", "late"))
        if self.random.random() < self.bad_network:
            return self.random.choice(("lost", "late", "answer lost", "twice"))
        return "well"

    # What is noted of the store.
    def commit(self, wire: Wire, asked: tuple[Any, ...]) -> Any:
        before = dict(self.store.values)
        answer = wire.engine.commit(*asked)
        if not self.is_noted:
            return answer
        if answer.status == "ok" and asked[3] and asked[-1] < wire.owner.fence and not self.went_back:
            self.wrong.append(f"P5: {wire.owner.name} was back, and then {asked[3]} of before was made")
        changed = {key: self.read(data) for key, data in self.store.values.items() if before.get(key) != data}
        for key, value in changed.items():
            self.note(wire.owner, key, self.read(before.get(key)), value)
        home = wire.owner.home  # what another transaction has in hand comes with the last of them
        entry = home._present.get("silent")
        is_shared = any(entry in one.handed and "q" not in one.names for one in home._transactions)
        is_shared = is_shared or ("silent", changed.get("q")) in wire.owner.left
        if "q" in changed and not is_shared and changed.get("silent", [None])[-1] != ("silent", changed["q"]):
            self.wrong.append(f"P3: q={changed['q']} comes without its other half")
        for key in before.keys() - self.store.values.keys():
            self.note(wire.owner, key, self.read(before[key]), None)
        return answer

    def read(self, data: bytes | None) -> Any:
        before, Asking.reader = Asking.reader, None  # no task reads it, but whoever checks
        try:
            return None if data is None else pickle.loads(data[32:])
        finally:
            Asking.reader = before

    def note(self, process: Process, key: str, before: Any, after: Any) -> None:
        self.history.setdefault(key, []).append(after)
        if key.startswith("n") and (before or (0,))[0] + 1 != after[0]:
            self.wrong.append(f"P2: {key} goes from {before} to {after}")
        if key in ("log", "loose", "silent", "hum"):
            added = after[len(before or []) :]
            if (before or []) != after[: len(before or [])]:
                self.wrong.append(f"P3/P4: {key} goes from {before} to {after}")
            for one in added:
                self.count(one)
            if key == "loose" and any((*one[:2], 3 - one[2]) not in added for one in added):
                self.wrong.append(f"P3: {key} goes from {before} to {after}: half-done")
        elif after is not None:
            self.count((key, after[0] if key == "renewed" else after))
        if key == "once" and None not in (before, after):
            self.wrong.append(f"P4: {key} goes from {before} to {after}")
        if key.startswith("job") and before is not None:
            if after is not None:
                self.wrong.append(f"P4: {key} goes from {before} to {after}")
            self.removed.setdefault(before, []).append(process)

    def count(self, one: Any) -> None:
        self.made[one] = self.made.get(one, 0) + 1
        if self.made[one] > 1 + self.went_back and one[0] != "s":
            self.wrong.append(f"P5: {one} was committed {self.made[one]} times")

    def goes_back(self) -> None:
        self.went_back += 1
        for key in {*self.history, *self.store.values}:
            self.history.setdefault(key, []).append(self.read(self.store.values.get(key)))
        for process in self.processes:
            process.seen.clear()


@contextmanager
def lock_held(lock: Any) -> Iterator[None]:
    try:
        yield
    finally:
        lock.release()


class Simulation:
    """What the processes do, and what goes wrong."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.random = self.world.random
        self.serial = iter(range(1, 10**9))
        self.outcomes: list[tuple[str, Any, Process]] = []  # "done", "dropped", "unknown"; what; and who
        self.popped: dict[Any, str] = {}
        self.together: list[int] = []

    def run(self) -> None:
        world, choose = self.world, self.random
        for number in range(choose.randrange(2, 5)):
            self.begin_process(f"p{number}")
        world.go_on(100_000, lambda: all(process.is_connected for process in world.processes), 60)
        for _ in range(choose.randrange(3, 30)):
            self.happen(choose.random())
            world.go_on(choose.choice((1, 5, 20, 60)))
        world.is_down = False
        world.bad_network = 0.0
        for process in world.processes:
            process.is_cut_off, process.still_until = False, 0.0
        world.go_on(100_000, lambda: all(task.is_daemon for task in world.tasks), 200)
        stuck = [task for task in world.tasks if not task.is_daemon]
        if stuck and os.environ.get("SEED"):
            for task in stuck:
                print(
                    task.process.name, task.until, task.ready, world.now, task.process.is_dead, task.process.still_until
                )
                import traceback

                traceback.print_stack(sys._current_frames()[task.worker.ident], limit=-9)
        assert not stuck, f"{len(stuck)} threads never end"
        world.deliver(float("inf"))
        gc.collect(0)  # what threads that are gone have left
        world.go_on(100_000, seconds=3)
        world.go_on(100_000, lambda: not self.held(), 15)  # longer than a lease
        self.check()

    def begin_process(self, name: str, parent: Process | None = None) -> None:
        process = Process(self.world, name, parent)
        process.asks = lambda serial: self.ask(process, serial)
        self.world.processes.append(process)
        self.world.start(process, process.connect)

    def happen(self, what: float) -> None:
        world, choose = self.world, self.random
        living = [process for process in world.processes if not process.is_dead]
        process = choose.choice(living)
        if what < 0.75:
            if process.is_connected:
                world.start(process, self.thread_of(process))
        elif what < 0.78 and len(living) > 1:
            process.is_dead = True
            process.pending.clear()
        elif what < 0.81:
            process.stills += 1
            process.still_until = world.now + choose.choice((0.5, 4.0, 11.0, 30.0))
        elif what < 0.84 and len(living) < 4:
            is_fork = choose.random() < 0.7 and process.is_connected
            self.begin_process(f"p{len(world.processes)}", process if is_fork else None)
        elif what < 0.87:
            process.is_cut_off = not process.is_cut_off
        elif what < 0.89:
            if world.is_down:
                self.check_waiting()
            world.is_down = not world.is_down
            world.down_since = world.now
        elif what < 0.91:
            world.store.trim(1)
        elif what < 0.93:
            world.saved = world.store.saved()
        elif what < 0.95 and world.saved is not None:
            world.store.restore(world.saved)
            world.goes_back()
        elif what < 0.955:
            world.store.clear()
            world.goes_back()

    def thread_of(self, process: Process) -> Callable[[], None]:
        def work() -> None:
            for _ in range(self.random.randrange(1, 6)):
                self.act(process)
                self.look(process)
                self.world.sleep(self.random.choice((0.0, 0.01, 0.5, 4.0)))

        return work

    # What a thread does.
    def act(self, process: Process) -> None:
        kinds = "increment increment append append pair pairs write write update other loose job job take once nested"
        kinds += " asking quiet several delete leave force both hum hum same slow append_later together renew"
        kind = self.random.choice(kinds.split())
        begun, still = self.world.now, process.stills
        try:
            getattr(self, f"do_{kind}")(process)
        except KeyError:
            if not self.world.went_back:  # what was there a moment ago
                raise
        except (ConnectionError, process.file.LockLostError) as error:
            process.seen.clear()
            process.failures += 1
            is_lock_free = kind in ("write", "update", "once", "pair", "delete", "force")
            if isinstance(error, ConnectionError) and is_lock_free and still == process.stills:
                took = self.world.now - begun
                if took > GIVE_UP:
                    self.world.wrong.append(f"P6: {kind} gave up after {took:.1f} s")

    @contextmanager
    def noted(self, process: Process, *made: Any, keys: tuple[str, ...] = ()) -> Iterator[set[str]]:
        """Note what comes of a change: that it was made, that it was not, or that nobody can tell."""
        for one in made:
            process.pending[one] += 1
        touched = set(keys)
        process.open_on.append(touched)
        outcome = "unknown"
        try:
            yield touched
            outcome = "done"
        except process.file.LockLostError:
            outcome = "dropped"
            raise
        finally:
            process.open_on = [keys for keys in process.open_on if keys is not touched]
            for one in made:
                process.pending[one] -= 1
                self.outcomes.append((outcome, one, process))

    def wait(self) -> None:
        """Be interrupted, perhaps for long."""
        for _ in range(self.random.randrange(3)):
            self.world.sleep(self.random.choice((0.0, 0.0, 0.002, 0.02, 1.0)))

    @contextmanager
    def lock(self, process: Process, *names: str) -> Iterator[None]:
        lock = process.locks[names if len(names) > 1 else names[0]]
        me = self.world.current
        process.waiting[me] = (self.world.now, process.stills)
        try:
            lock.acquire()
        finally:
            del process.waiting[me]
        with lock_held(lock):
            yield

    def check_waiting(self) -> None:
        """The store was away: by now who waits for a lock has been told so."""
        for process in self.world.processes:
            for since, stills in process.waiting.values():
                waited = self.world.now - max(since, self.world.down_since)
                if waited > GIVE_UP + PATIENCE and stills == process.stills and not process.is_dead:
                    self.world.wrong.append(f"P6: {process.name} waits for a lock for {waited:.1f} s")

    def do_increment(self, process: Process) -> None:
        key = self.random.choice(("n0", "n1"))
        self.increment(process, key, (key,))

    def do_several(self, process: Process) -> None:
        key = self.random.choice(("n0", "n1"))
        self.increment(process, key, ("n0", "n1"))

    def do_nested(self, process: Process) -> None:
        with self.lock(process, "n0"):
            self.wait()
            self.increment(process, "n1", ("n1",), is_nested=True)

    def increment(self, process: Process, key: str, names: tuple[str, ...], is_nested: bool = False) -> None:
        serial = next(self.serial)
        lock = process.locks[names if len(names) > 1 else names[0]]
        if self.random.random() < 0.2:
            if not lock.acquire(timeout=self.random.choice((0, 0.5, 3.0))):
                return
        else:
            lock.acquire()
        state, made = process.state, []
        outcome, is_whole = "unknown", False
        try:
            value = (state.get(key, (0,))[0] + 1, serial)
            made.append((key, value))
            process.pending[key, value] += 1
            self.wait()
            state[key] = value
            self.wait()
            if self.random.random() < 0.3:
                value = (value[0], -serial)
                made.append((key, value))
                process.pending[key, value] += 1
                state[key] = value
                self.wait()
            if state.get(key) != value:
                self.world.wrong.append(f"P2: the holder of {key} assigned {value} and reads {state.get(key)}")
            is_whole = True
        finally:
            try:
                lock.release()
                outcome = "done" if is_whole and not is_nested else "unknown"
            except process.file.LockLostError:
                outcome = "dropped"
                raise
            finally:
                if not is_nested:
                    for one in made:
                        process.pending[one] -= 1
                if made:
                    for one in made[:-1]:
                        self.outcomes.append(("dropped", one, process))
                    self.outcomes.append((outcome, made[-1], process))

    def do_append(self, process: Process) -> None:
        one = ("log", next(self.serial))
        with self.noted(process, one):
            self.append(process, one)

    def append(self, process: Process, one: Any) -> None:
        with self.lock(process, "log"):
            if self.random.random() < 0.5:
                process.state.setdefault("log", [])
            elif "log" not in process.state:
                process.state["log"] = []
            self.wait()
            process.state["log"].append(one)
            self.wait()

    def do_append_later(self, process: Process) -> None:
        """Read under another key's lock, then take the key's own one and append."""
        one = ("log", next(self.serial))
        with self.noted(process, one), self.lock(process, "l1"):
            process.state.get("log")
            self.wait()
            self.append(process, one)

    def do_together(self, process: Process) -> None:
        """Assign two keys under nested locks: if the second cannot be taken, nothing is made."""
        serial = next(self.serial)
        self.together.append(serial)
        with self.noted(process, ("t1", serial), ("t2", serial)), self.lock(process, "t1"):
            process.state["t1"] = serial
            self.wait()
            with self.lock(process, "t2"):
                process.state["t2"] = serial
                self.wait()

    def do_loose(self, process: Process) -> None:
        """Append twice under another key's lock."""
        one = next(self.serial)
        process.state.setdefault("loose", [])
        with (
            self.noted(process, ("loose", one, 1), ("loose", one, 2)),
            self.lock(process, self.random.choice(("l1", "l2"))),
        ):
            self.wait()
            if "loose" not in process.state:
                return  # the store went back
            loose = process.state["loose"]
            loose.append(("loose", one, 1))
            self.wait()
            loose.append(("loose", one, 2))
            self.wait()

    def do_quiet(self, process: Process) -> None:
        """Append to one key and assign another one, which tells nobody."""
        serial = next(self.serial)

        def change() -> None:
            process.state["q"] = serial
            if "silent" in process.state:
                process.state["silent"].append(("silent", serial))
            else:
                process.state["silent"] = [("silent", serial)]

        with self.noted(process, ("q", serial), keys=("q",)):
            if self.random.random() < 0.5:
                with process.home.no_rerun, self.lock(process, "q"):
                    change()
                    self.wait()
            else:
                with self.lock(process, "q"):
                    with process.home.no_rerun:
                        change()
                    self.wait()

    def do_hum(self, process: Process) -> None:
        """Append without any lock: a newer value is not overwritten, and it may be dropped."""
        with process.home.no_rerun:
            process.state.setdefault("hum", []).append(("hum", next(self.serial)))
            self.wait()

    def do_renew(self, process: Process) -> None:
        """Append to a list, and assign another one, perhaps quietly."""
        serial = next(self.serial)
        with self.noted(process, ("renewed", serial)), self.lock(process, "renewed"):
            process.state.setdefault("renewed", [0]).append(serial)
            self.wait()
            with process.home.no_rerun if self.random.random() < 0.5 else nullcontext():
                process.state["renewed"] = [serial]
            self.wait()

    def do_same(self, process: Process) -> None:
        """Assign what is shown: if that is confirmed it is there, though a transaction has yet to commit the same."""
        shown = process.state.get("s")
        if shown is not None:
            with self.noted(process, ("s", shown)):
                process.state["s"] = shown

    def do_slow(self, process: Process) -> None:
        serial = next(self.serial)
        with self.noted(process, ("s", serial)), self.lock(process, "slow"):
            process.state["s"] = serial
            self.wait()

    def do_write(self, process: Process) -> None:
        key, serial = self.random.choice("xy"), next(self.serial)
        with self.noted(process, (key, serial)):
            process.state[key] = serial

    def do_both(self, process: Process) -> None:
        """Assign a key under its own lock, and another one besides."""
        serial = next(self.serial)
        with self.noted(process, ("x", serial), ("y", serial)), self.lock(process, "x"):
            process.state["x"] = serial
            self.wait()
            process.state["y"] = serial

    def do_other(self, process: Process) -> None:
        """Assign under another key's lock."""
        key, serial = self.random.choice("xy"), next(self.serial)
        with self.noted(process, (key, serial)), self.lock(process, "z"):
            self.wait()
            begun, stills, slow = self.world.now, process.stills, process.slow
            process.state[key] = serial
            # It asks for nothing, but for its turn: that comes when what others ask was answered, which takes
            # as long as it takes where each request has to be asked twice (`slow`).
            took = self.world.now - begun - (process.slow - slow)
            if took > GIVE_UP and stills == process.stills:
                self.world.wrong.append(f"P6: an assignment under a lock takes {took:.1f} s")
            # Its holder decides; and may have come and gone while we are interrupted.
            is_locked = self.world.interrupts or any(key in one.names for one in process.home._transactions)
            if process.state.get(key) != serial and not is_locked:
                self.world.wrong.append(f"P3: {process.name} assigned {key}={serial} and does not show it")
            self.wait()

    def do_update(self, process: Process) -> None:
        serial = next(self.serial)
        with self.noted(process, ("x", serial), ("y", serial)):
            process.state.update(x=serial, y=serial)

    def do_delete(self, process: Process) -> None:
        key = self.random.choice("xy")
        process.state.pop(key, None)

    def do_force(self, process: Process) -> None:
        if "x" in process.state:
            process.home.force_rerun_bound_sessions("x")

    def do_pair(self, process: Process) -> None:
        serial = next(self.serial)
        with self.noted(process, ("pair 1", serial), ("pair 2", serial)):
            process.state.update({"pair 1": serial, "pair 2": serial})

    def do_pairs(self, process: Process) -> None:
        serial, names = next(self.serial), self.random.choice((("pair 1",), ("pair 1", "pair 2"), ("pair",)))
        keys = ("pair 1", "pair 2")
        with self.noted(process, *((key, serial) for key in keys)) as touched, self.lock(process, *names):
            self.wait()
            self.look(process)  # of others' pairs, nothing is seen half-done by a holder
            touched.update(keys)
            process.state["pair 1"] = serial
            self.wait()
            process.state["pair 2"] = serial
            self.wait()

    def do_job(self, process: Process) -> None:
        """Put a job where there is none."""
        key, serial = self.random.choice(("job 1", "job 2")), next(self.serial)
        names = self.random.choice((None, "z", key))
        process.pending[key, serial] += 1
        given, outcome = None, "unknown"
        try:
            if names is None:
                given = process.state.setdefault(key, serial)
            else:
                with self.lock(process, names):
                    given = process.state.setdefault(key, serial)
                    self.wait()
            outcome = "done" if given == serial else "dropped"
        except process.file.LockLostError:
            outcome = "dropped"
            raise
        finally:
            process.pending[key, serial] -= 1
            self.outcomes.append((outcome, (key, serial), process))
        self.check_given(key, given, process.pending)

    def do_take(self, process: Process) -> None:
        """Take a job out."""
        key, names = self.random.choice(("job 1", "job 2")), self.random.choice((None, "z", "w"))
        if self.random.random() < 0.2:
            names = key
        job, outcome = None, "unknown"
        try:
            if names is None:
                job = process.state.pop(key, None)
            else:
                with self.lock(process, names):
                    job = process.state.pop(key, None)
                    self.wait()
            outcome = "done"
        except process.file.LockLostError:
            outcome = "dropped"
            raise
        finally:
            if job is not None and outcome == "done":
                if job in self.popped and not self.world.went_back:
                    self.world.wrong.append(f"P4: {job} was popped twice")
                self.popped[job] = process.name
            if outcome == "unknown":
                self.popped[process] = "perhaps one"

    def do_once(self, process: Process) -> None:
        serial = next(self.serial)
        if self.random.random() < 0.2:
            process.state.pop("once", None)
            return
        self.check_given("once", process.state.setdefault("once", serial), process.pending)

    def do_asking(self, process: Process) -> None:
        """Assign what uses the state when it is read."""
        value = Asking(next(self.serial))
        with self.noted(process, ("asks", value)):
            process.state["asks"] = value

    def ask(self, process: Process, serial: int) -> None:
        """Use the state, as a value that is just being read."""
        with suppress(ConnectionError, process.file.LockLostError):
            if serial % 3 == 2 or process.store.here()[0]:  # what it changed would come with the transaction
                process.state.to_dict()
            elif serial % 3 == 1:
                self.do_update(process)
            else:
                self.do_once(process)

    def check_given(self, key: str, given: Any, pending: Any) -> None:
        """What `setdefault` gives was in the store, or is shown here because a transaction has assigned it."""
        if self.world.current.process.is_dead:
            return  # nobody is told any more, and what it had in mind is forgotten
        if given not in self.world.history.get(key, ()) and (key, given) not in pending:
            self.world.wrong.append(f"P4: setdefault of {key} gives {given}, which it never was")

    def do_leave(self, process: Process) -> None:
        """End a thread with a lock that is held."""
        process.locks["left"].acquire(timeout=1)
        serial = next(self.serial)
        process.pending["y", serial] += 1
        process.state["y"] = serial
        raise Killed

    # What must be true.
    def look(self, process: Process) -> None:
        """Read everything, as a tab does."""
        if process.is_dead:
            raise Killed
        for entry in list(process.home._present.values()):
            entry.noted = entry.version  # a run has read it: who takes its lock is to look
        state, history = process.state.to_dict(), self.world.history
        for key in ("x", "y", "n0", "n1", "pair 1", "pair 2", "once", "job 1", "job 2", "s"):
            value = state.get(key)
            if process.pending[key, value] > 0:
                continue
            known = history.get(key, [])
            places = [place for place, one in enumerate(known) if one == value]
            if value is not None and not places:
                self.world.wrong.append(f"P3: {process.name} shows {key}={value}, which it never was")
            if value is not None and places:
                seen = process.seen.get(key, -1)
                if places[-1] < seen:
                    self.world.wrong.append(f"P1: {process.name} reads {key} backwards: {value}")
                # A store that goes back has a value again that it had: it may be the earlier one still.
                process.seen[key] = min((place for place in places if place >= seen), default=places[-1])
        is_open = any(not keys.isdisjoint(("pair 1", "pair 2")) for keys in process.open_on)
        if not is_open and state.get("pair 1") != state.get("pair 2"):
            self.world.wrong.append(f"P3: {process.name} shows a torn pair")

    def check(self) -> None:
        world = self.world
        assert not world.wrong, world.wrong
        final = {key: world.read(data) for key, data in world.store.values.items()}
        for process in world.processes:
            if not process.is_dead:
                state = process.state.to_dict()
                assert state == final, f"P1: {process.name} ends with {state}, the store with {final}"
        for outcome, one, process in self.outcomes:
            count = world.made.get(one, 0)
            is_sure = one[0] != "loose" or not (process.failures or process.is_dead or world.went_back)
            if outcome == "done" and is_sure:
                assert count > 0, f"P3: {one} of {process.name} was acknowledged, and never made"
            if outcome == "dropped" and not world.went_back and one[0] != "s":  # others may assign the same
                assert count == 0, f"P3: {one} of {process.name} was dropped, and made"
        if not world.went_back:
            for serial in self.together:
                torn = world.made.get(("t1", serial), 0) != world.made.get(("t2", serial), 0)
                assert not torn, f"P3: {serial} was made by half"
        assert not self.held(), f"P2: {self.held()} are held for ever"
        if not world.went_back:
            for job, takers in world.removed.items():
                is_known = job in self.popped or any(t.is_dead or t in self.popped for t in takers)
                assert is_known, f"P4: {job} is gone, and nobody was given it"

    def held(self) -> list[str]:
        locks, now = self.world.store.locks, self.world.now
        return [name for name, (_, until) in locks.items() if until > now and name != "left"]


def simulate(seed: int) -> str | None:
    """Run a seed, and tell what is wrong."""
    before = sys.modules.get("_server_state_1")
    simulation = Simulation(seed)
    try:
        simulation.run()
    except BaseException as error:
        return f"SEED={seed}: {error!r}"[:2000]
    finally:
        simulation.world.close()
        if before is not None:
            sys.modules["_server_state_1"] = before
    return None


def simulate_quietly(seed: int) -> str | None:
    gc.disable()
    logging.disable(logging.CRITICAL)
    if seed % 50 == 0:
        gc.collect()
    with unittest.mock.patch.object(sys, "unraisablehook", lambda _: None):  # of threads that were killed
        return simulate(seed)


class Directed(unittest.TestCase):
    """What was once found, step by step."""

    def setUp(self) -> None:
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        before = sys.modules.get("_server_state_1")
        self.world = World(0)
        self.world.bad_network = 0.0
        self.world.store.log_length, self.world.is_noted = 1000, False
        self.addCleanup(lambda: sys.modules.update({"_server_state_1": before}) if before else None)
        self.addCleanup(self.world.close)

    def processes(self, count: int, **values: Any) -> list[Process]:
        """Begin some, which all have these values."""
        made = [Process(self.world, f"p{number}") for number in range(count)]
        self.world.processes += made
        for process in made:
            self.do(process, process.connect)
        if values:
            self.put(made[0], **values)
            self.settle()
        return made

    def begin(self, process: Process, function: Callable[[], Any]) -> list[Any]:
        """Have a thread of a process do something; give where its result or error will be."""
        result: list[Any] = []

        def work() -> None:
            sys.modules["_server_state_1"] = process.home
            try:
                result.append(function())
            except Exception as error:
                result.append(error)

        self.world.start(process, work)
        return result

    def do(self, process: Process, function: Callable[[], Any]) -> Any:
        result = self.begin(process, function)
        self.world.go_on(100_000, lambda: bool(result), 60)
        if result and isinstance(result[0], Exception):
            raise result[0]
        return result[0]

    def settle(self, seconds: float = 2.0) -> None:
        self.world.go_on(100_000, seconds=seconds)

    def put(self, process: Process, **values: Any) -> None:
        self.do(process, lambda: process.state.update(values))

    def test_P6_what_is_asked_after_everything_was_loaded_has_a_limit(self) -> None:
        (one,) = self.processes(1)

        def load() -> None:
            with one.store.turn():
                one.store.take(one.file.News(b"", True, [], {}))
                self.assertLess(one.store.until, self.world.now + GIVE_UP)

        self.do(one, load)

    def test_P6_the_listener_asks_after_the_turn_in_which_the_store_went_away(self) -> None:
        """A value that is read there may have found it out, and whose turn it is asks once more."""
        (one,) = self.processes(1)
        asked, since = [], one.store.engine.since

        def counted(*args: Any) -> Any:
            asked.append(args)
            return since(*args)

        def work() -> None:
            with one.store.turn():
                one.store.away = "it was lost"
                one.store.engine.since = counted
                self.world.sleep(2.0)
                self.assertEqual(asked, [])

        self.do(one, work)
        self.settle()
        self.assertEqual((one.store.away, bool(asked)), (None, True))

    def test_P1_what_is_compared_by_identity_travels_when_it_is_assigned_again(self) -> None:
        one, two = self.processes(2)
        package = types.ModuleType("of_a_package")
        package.__file__ = "/lib/site-packages/of_a_package.py"
        exec("class Graph: pass", vars(package))
        sys.modules["of_a_package"] = package
        self.addCleanup(sys.modules.pop, "of_a_package")
        graph = package.Graph()
        graph.edges = []
        before = one.home._fingerprint(graph).content
        self.put(one, graphs=[graph])
        graph.edges.append("a")
        self.assertEqual(one.home._fingerprint(graph).content, before)
        self.put(one, graphs=one.state["graphs"])
        self.settle()
        self.assertEqual(self.do(two, lambda: two.state["graphs"][0].edges), ["a"])
        with self.subTest("and when it is changed under its lock, in the process that wrote it"):

            def change() -> None:
                with one.locks["graphs"]:
                    one.state["graphs"][0].edges.append("b")

            self.do(one, change)
            self.settle()
            self.assertEqual(self.do(two, lambda: two.state["graphs"][0].edges), ["a", "b"])

    def test_P1_P4_a_value_that_cannot_be_read_here_is_replaced_by_nobody(self) -> None:
        one, two = self.processes(2)
        module = types.ModuleType("of_an_app")
        exec("class Room: pass", vars(module))
        sys.modules["of_an_app"] = module
        self.addCleanup(sys.modules.pop, "of_an_app", None)
        self.put(one, room=module.Room(), other=1)
        del module.Room
        self.settle()
        self.assertEqual(self.do(two, lambda: two.state["other"]), 1)

        def add() -> None:
            with two.locks["room"]:
                two.state["room"] += 1

        for what in (
            lambda: two.state["room"],
            lambda: two.state.get("room", "default"),
            lambda: two.state.setdefault("room", {}),
            lambda: two.state.pop("room", None),
            add,
        ):
            for _ in range(2):  # the second try does not forget the reason
                with self.assertRaisesRegex(ValueError, '"room".*of_an_app.Room'):
                    self.do(two, what)
        self.settle()
        self.assertIsInstance(self.do(one, lambda: one.state["room"]), object)
        with self.subTest("nobody is rerun for a read that fails, or reads would go on for ever"):
            before = two.home._entry("room").version
            with self.assertRaises(ValueError):
                self.do(two, lambda: two.state["room"])
            self.assertEqual(two.home._entry("room").version, before)
        with self.subTest("nor does an assignment that fails make it a key without a value"):
            with self.assertRaises(TypeError):
                self.do(two, lambda: two.state.update(room=lambda: None))
            with self.assertRaises(ValueError):
                self.do(two, lambda: two.state["room"])
        with self.subTest("and is there when its class is"):
            exec("class Room: pass", vars(module))
            self.assertIs(type(self.do(two, lambda: two.state.get("room"))), module.Room)
        with self.subTest("it may be assigned anew"):
            del module.Room
            self.do(two, lambda: two.state.update(room="new"))
            self.settle()
            self.assertEqual(self.do(one, lambda: one.state["room"]), "new")

    def test_P7_a_forged_value_is_an_error_that_names_its_key(self) -> None:
        one, two = self.processes(2)
        self.put(one, x=1, y=2)
        self.world.store.values["x"] = b"0" * 32 + pickle.dumps("forged")
        self.world.store.trim(0)
        self.world.store.log = [dict_engine.Record(b"another", [], frozenset())]
        self.settle()
        for process in (one, two):
            with self.assertRaisesRegex(ValueError, '"x".*not signed'):
                self.do(process, lambda process=process: process.state["x"])  # type: ignore[misc]
            self.assertEqual(self.do(process, lambda process=process: process.state["y"]), 2)  # type: ignore[misc]

    def test_P8_a_class_of_the_script_travels_by_name(self) -> None:
        one, two = self.processes(2)
        before = sys.modules["__main__"]
        self.addCleanup(sys.modules.__setitem__, "__main__", before)

        def run_script() -> Any:
            script = sys.modules["__main__"] = types.ModuleType("__main__")
            exec("class Room:\n    def __init__(self): self.users = []", vars(script))
            return script

        first = run_script()
        room = first.Room()
        second = run_script()
        room.users.append("Ada")  # of a class that is not any more the one in the script
        self.put(one, room=room)
        self.settle()
        self.assertIs(type(self.do(two, lambda: two.state["room"])), second.Room)
        self.assertEqual(self.do(two, lambda: two.state["room"].users), ["Ada"])
        with self.subTest("a script that has not yet come to the class"):
            sys.modules["__main__"] = types.ModuleType("__main__")
            room.users.append("Ben")
            self.put(one, room=room)
            self.settle()
            self.assertEqual(self.do(two, lambda: two.state["room"].users), ["Ada", "Ben"])
        with self.subTest("a class of a page, which is a module of its own"):
            page = types.ModuleType("__main__")
            exec("class Seat: pass\ndef read(state): return state['seat']", vars(page))
            self.put(one, seat=page.Seat())
            self.settle()
            self.assertIs(type(self.do(two, lambda: page.read(two.state))), page.Seat)
        with self.subTest("what is made within a function has no name"):
            exec("def make():\n    class Local: pass\n    return Local()", vars(sys.modules["__main__"]))
            local = sys.modules["__main__"].make()
            with self.assertRaisesRegex(TypeError, '"x"'):
                self.put(one, x=local)

    def test_P1_a_start_that_takes_long_says_how_far_it_is(self) -> None:
        (one,) = self.processes(1)
        module = types.ModuleType("of_an_app")
        vars(module)["world"] = self.world
        exec("class Slow:\n    def __setstate__(self, state): world.now += 0.6", vars(module))
        sys.modules["of_an_app"] = module
        self.addCleanup(sys.modules.pop, "of_an_app", None)
        slow = module.Slow()
        slow.size = 1
        self.put(one, **{f"slow {number}": slow for number in range(6)})
        two = Process(self.world, "two")
        self.world.processes.append(two)
        self.do(two, two.connect)
        self.assertEqual(len(two.warnings), 2)
        self.assertIn("4 are left", two.warnings[0])

    def test_P3_a_lock_request_that_arrives_more_than_a_lease_late(self) -> None:
        one, two = self.processes(2, x=0)
        taken: list[Any] = []
        engine: Any = one.wire and one.wire.engine
        acquire = engine.acquire

        def noted(*asked: Any) -> Any:
            taken.append(asked)
            return acquire(*asked)

        engine.acquire = noted
        goes_on: list[int] = []

        def hold() -> None:
            with one.locks["x"]:
                one.state["x"] = "old holder's"
                self.world.pause(lambda: bool(goes_on))

        result = self.begin(one, hold)
        self.world.go_on(1000, lambda: "x" in one.pending_of_store(), 5)
        one.still_until = self.world.now + 30

        def take() -> None:
            with two.locks["x"]:
                two.state["x"] = "newer"

        self.do(two, take)
        acquire(*taken[0])  # a copy of the request, which the network has kept
        goes_on.append(1)
        one.still_until = 0.0
        self.world.go_on(100_000, lambda: bool(result), 60)
        self.assertIsInstance(result[0], one.file.LockLostError)
        self.settle()
        self.assertEqual([process.state.to_dict() for process in (one, two)], [{"x": "newer"}] * 2)

    def test_P4_pop_in_a_process_whose_position_is_unknown(self) -> None:
        one, two = self.processes(2, job="a job")
        two.still_until = self.world.now + 5
        self.put(one, x=1)
        self.world.store.trim(1)
        self.put(one, x=2)
        self.world.store.trim(1)
        two.still_until = 0.0
        self.assertEqual(self.do(two, lambda: two.state.pop("job")), "a job")
        self.settle()
        self.assertNotIn("job", one.state)

    def test_P4_under_the_keys_own_lock_the_holders_list_wins(self) -> None:
        one, two = self.processes(2, log=["old"])
        goes_on: list[int] = []

        def append() -> None:
            with one.locks["log"]:
                one.state["log"].append("a")
                self.world.pause(lambda: bool(goes_on))
                one.state["log"].append("b")

        result = self.begin(one, append)
        self.world.go_on(1000, lambda: "log" in self.world.store.locks, 5)
        self.settle(0.1)
        self.put(two, log=["new"])
        self.settle()
        goes_on.append(1)
        self.world.go_on(1000, lambda: bool(result), 5)
        self.settle()
        self.assertEqual([process.state["log"] for process in (one, two)], [["old", "a", "b"]] * 2)

    def test_P1_a_lock_holder_sees_an_assignment_of_several_keys_whole(self) -> None:
        one, two = self.processes(2, a=0, b=0)
        seen: list[Any] = []

        def look() -> None:
            with one.locks["a"]:
                self.world.pause(lambda: one.state["b"] == 1)
                seen.append((one.state["a"], one.state["b"]))

        self.begin(one, look)
        self.settle(0.1)
        self.put(two, a=1, b=1)
        self.world.go_on(1000, lambda: bool(seen), 5)
        self.assertEqual(seen, [(1, 1)])

    def test_P1_what_is_changed_while_another_transaction_that_has_it_in_hand_commits(self) -> None:
        one, two = self.processes(2, log=["a"], q=0)

        def commits() -> None:
            with one.locks["q"]:
                one.state["log"]
                one.state["q"] = 1

        def slowly(*what: Any) -> None:
            one.store.send = send
            looked.append(1)
            self.world.sleep(1)
            send(*what)

        def appends() -> None:
            with one.home.no_rerun:
                one.state["log"].append("b")

        looked: list[int] = []
        send, one.store.send = one.store.send, slowly
        self.begin(one, commits)
        self.world.go_on(1000, lambda: bool(looked), 5)
        self.do(one, appends)
        self.settle()
        for process in (one, two):
            self.assertEqual(process.state["log"], ["a", "b"])

    def reads_log(self, process: Process) -> tuple[list[Any], list[int]]:
        """Have a thread read "log" under another lock; it ends when something is in what is given second."""
        goes_on: list[int] = []

        def reads() -> None:
            with process.locks["other"]:
                process.state["log"]
                self.world.pause(lambda: bool(goes_on))

        result = self.begin(process, reads)
        self.settle(0.1)
        return result, goes_on

    def test_P3_two_transactions_do_not_leave_a_change_to_each_other(self) -> None:
        """Both have it in hand, under locks none of which is its own: it comes with the commit of the last."""
        one, _ = self.processes(2, log=["a"], q=0)

        def commits() -> None:
            with one.locks["q"]:
                one.state["log"].append("b")
                one.state["q"] = 1
                self.world.pause(lambda: bool(asked))  # the other one's commit is under way

        def slowly(*request: Any) -> Any:
            asked.append(list(request[3]))
            self.world.sleep(0.05)
            return commit(*request)

        asked: list[list[str]] = []
        _, goes_on = self.reads_log(one)
        wire: Any = one.wire
        commit, wire.commit = wire.commit, slowly
        done = self.begin(one, commits)
        self.settle(0.1)
        goes_on.append(1)
        self.world.go_on(10_000, lambda: bool(done), 10)
        self.assertEqual([sorted(keys) for keys in asked], [[], ["log", "q"]])

    def test_P3_who_has_it_in_hand_last_is_told_that_it_is_lost(self) -> None:
        """A change that was left to a transaction, and overwritten from elsewhere."""
        one, two = self.processes(2, log=["a"])

        def appends() -> None:
            with one.locks["q"]:
                one.state["log"].append("b")

        result, goes_on = self.reads_log(one)
        self.do(one, appends)
        self.put(two, log=["new"])
        self.world.go_on(1000, lambda: one.home._entry("log").value == ["new"], 5)
        goes_on.append(1)
        self.settle()
        self.assertIsInstance(result[0], one.file.LockLostError)
        self.assertEqual(one.state["log"], ["new"])

    def test_P4_an_assignment_hides_what_was_changed_in_place_before_it(self) -> None:
        """It is looked at while it is replaced, and not kept for it."""
        for how in ("assigns quietly", "removes quietly", "assigns the value of before", "without a lock"):
            with self.subTest(how):
                one, two = self.processes(2, log=["a"])
                entry, state = one.home._entry("log"), one.state

                def locked(how: str = how, one: Process = one, state: Any = state) -> None:
                    with one.locks["log"]:
                        state["log"]
                    with one.locks["log"]:
                        state["log"].append("b")
                        with nullcontext() if how == "assigns the value of before" else one.home.no_rerun:
                            if how == "removes quietly":
                                state.pop("log")
                            else:
                                state["log"] = ["a"]

                def unlocked(one: Process = one, state: Any = state, entry: Any = entry) -> None:
                    state["log"].append("b")
                    one.home._inspector.suspect([entry], one.home._Cause(), False)
                    state["log"] = ["a"]

                self.do(one, unlocked if how == "without a lock" else locked)
                self.settle()
                for process in (one, two):
                    self.assertEqual(process.state.get("log"), None if how == "removes quietly" else ["a"])
                self.assertEqual(one.warnings, [])

    def test_P3_what_is_assigned_quietly_and_then_changed_is_still_an_assignment(self) -> None:
        """It wins over what another process has assigned meanwhile."""
        one, two = self.processes(2, log=["a"])
        goes_on: list[int] = []

        def assigns() -> None:
            with one.locks["q"]:
                with one.home.no_rerun:
                    one.state["log"] = value = ["new"]
                    value.append("b")
                self.world.pause(lambda: bool(goes_on))

        result = self.begin(one, assigns)
        self.settle(0.1)
        self.put(two, log=["two"])
        goes_on.append(1)
        self.settle()
        self.assertEqual(result, [None])
        self.assertEqual(two.state["log"], ["new", "b"])

    def test_P4_a_value_of_the_script_that_is_only_read_after_a_rerun_is_not_committed(self) -> None:
        one, two = self.processes(2)
        main, goes_on = sys.modules["__main__"], []  # type: ignore[var-annotated]
        self.addCleanup(vars(main).pop, "OfTheScript", None)

        def run() -> Any:
            exec("class OfTheScript: pass", vars(main))
            return main.OfTheScript()

        first = run()
        first.place = 1
        self.put(one, room=first)
        self.settle()
        second = run()
        second.place = 2

        def reads() -> None:
            with one.locks["room"]:
                vars(one.state["room"])
                self.world.pause(lambda: bool(goes_on))
                sys.modules["_server_state_1"] = one.home

        result = self.begin(one, reads)
        self.settle(0.1)
        self.put(two, room=second)
        goes_on.append(1)
        self.settle()
        self.assertEqual(result, [None])
        for process in (one, two):
            self.assertEqual(process.state["room"].place, 2)

    def test_P4_what_a_transaction_has_assigned_is_not_what_took_its_place(self) -> None:
        """That was changed in place by a run, and is found at the transaction's end."""
        one, two = self.processes(2, log=["a"])

        def assigns() -> None:
            with one.locks["log"]:
                one.state["log"] = ["mine"]
                self.world.sleep(4)

        def takes_its_place() -> None:
            one.state["log"] = ["other"]
            one.state["log"].append("b")
            one.home._inspector.suspect([one.home._entry("log")], one.home._Cause(), False)

        self.begin(one, assigns)
        self.settle(0.1)
        self.do(one, takes_its_place)
        self.settle(10)
        for process in (one, two):
            self.assertEqual(process.state["log"], ["mine"])

    def test_P1_a_loud_change_and_a_quiet_one_are_left_to_the_same(self) -> None:
        one, two = self.processes(2, log=["a"])
        goes_on: list[int] = []

        def reads() -> None:
            with one.home.no_rerun, one.locks["other"]:
                one.state["log"]
                self.world.pause(lambda: bool(goes_on))

        def appends(context: Any) -> None:
            with context, one.locks["q"]:
                one.state["log"].append("b")

        self.begin(one, reads)
        self.settle(0.1)
        for context in (nullcontext(), one.home.no_rerun):
            self.do(one, lambda context=context: appends(context))  # type: ignore[misc]
        before = two.home._entry("log").told
        goes_on.append(1)
        self.settle()
        self.assertEqual(two.state["log"], ["a", "b", "b"])
        self.assertGreater(two.home._entry("log").told, before)

    def test_P4_what_was_only_read_is_unchanged_though_it_has_other_bytes_here(self) -> None:
        one, two = self.processes(2)
        names = [" and ".join(("this", "that")) for _ in range(2)]  # two objects, which are one where it is read
        self.put(one, key=[types.SimpleNamespace(**{name: 1}) for name in names])
        self.settle()
        data = self.world.store.values["key"]

        def reads() -> None:
            with two.locks["key"]:
                two.state["key"]

        self.do(two, reads)
        self.settle()
        self.assertNotEqual(two.file._pickled("key", two.state["key"]), data[32:])
        self.assertEqual(self.world.store.values["key"], data)

    def test_P3_what_was_left_to_the_lock_s_holder_is_in_its_hand(self) -> None:
        """Though it has not read it, and another process has assigned it meanwhile."""
        one, two = self.processes(2, log=["a"], q=0)
        goes_on: list[int] = []

        def holds() -> None:
            with one.locks["log"]:
                self.world.pause(lambda: bool(goes_on))

        def appends() -> None:
            with one.locks["q"]:
                one.state["log"].append("b")
                one.state["q"] = 1

        result = self.begin(one, holds)
        self.settle(0.1)
        self.do(one, appends)
        self.put(two, log=["new"])
        self.settle(0.5)
        goes_on.append(1)
        self.settle()
        self.assertEqual(result, [None])
        for process in (one, two):
            self.assertEqual(process.state["log"], ["a", "b"])

    def test_P3_nothing_of_what_failed_comes_with_who_has_only_read_it(self) -> None:
        one, two = self.processes(2, log=["a"], q=0)
        fails: list[int] = []

        def appends() -> None:
            with one.locks["q"]:
                one.state["log"].append("b")
                one.state["q"] = 1
                self.world.pause(lambda: bool(fails))

        _, goes_on = self.reads_log(one)
        result = self.begin(one, appends)
        self.settle(0.1)
        del self.world.store.locks["q"]
        fails.append(1)
        self.settle(0.5)
        goes_on.append(1)
        self.settle()
        self.assertIsInstance(result[0], one.file.LockLostError)
        for process in (one, two):
            self.assertEqual((process.state["log"], process.state["q"]), (["a"], 0))

    def test_P3_a_change_that_was_looked_at_before_its_lock_ran_out(self) -> None:
        """Another thread takes the lock, and has what the store has."""
        (one,) = self.processes(1, log=["a"])
        goes_on: list[int] = []

        def appends() -> None:
            with one.locks["other"]:
                with one.locks["log"]:
                    one.state["log"].append("b")
                self.world.pause(lambda: bool(goes_on))

        def appends_too() -> None:
            with one.locks["log"]:
                one.state["log"].append("c")

        result = self.begin(one, appends)
        self.settle(0.1)
        entry = one.home._entry("log")
        entry.fingerprint = one.home._fingerprint(entry.value)
        del self.world.store.locks["log"]
        self.do(one, appends_too)
        goes_on.append(1)
        self.settle()
        self.assertIsInstance(result[0], one.file.LockLostError)
        self.assertEqual(one.state["log"], ["a", "c"])

    def test_P6_a_store_that_goes_back_to_just_after_a_commit_of_an_unknown_position(self) -> None:
        """All was loaded after that commit, and what came between is to be forgotten again."""
        one, two = self.processes(2)
        hear, two.store.hear = two.store.hear, lambda: None
        self.put(one, x=1)
        self.world.store.trim(1)
        self.put(one, x=2)
        self.world.store.trim(1)
        asked: list[int] = []
        goes_on: list[int] = []

        def slowly(*what: Any) -> Any:
            asked.append(1)
            self.world.pause(lambda: bool(goes_on))
            return since(*what)

        wire: Any = two.wire
        since, wire.since = wire.since, slowly
        result = self.begin(two, lambda: two.state.update(y=1))
        self.world.go_on(1000, lambda: bool(asked), 5)
        saved = self.world.store.saved()
        self.put(one, y=2, z=1)
        goes_on.append(1)
        self.world.go_on(1000, lambda: bool(result), 5)
        self.assertEqual(two.state.to_dict(), {"x": 2, "y": 2, "z": 1})
        self.world.store.restore(saved)
        two.store.hear = hear
        self.settle()
        self.assertEqual(two.state.to_dict(), {"x": 2, "y": 1})

    def test_P6_what_was_replaced_while_its_release_waited_is_lost_with_an_error(self) -> None:
        one, two = self.processes(2, log=["a"])
        goes_on: list[int] = []

        def appends() -> None:
            with one.locks["other"]:
                one.state["log"].append("b")
                self.world.pause(lambda: bool(goes_on))

        def slowly(*request: Any) -> Any:
            wire.commit = commit
            self.world.sleep(6)
            return commit(*request)

        result = self.begin(one, appends)
        self.settle(0.1)
        wire: Any = one.wire
        commit, wire.commit = wire.commit, slowly
        self.begin(one, lambda: one.state.update(x=1))
        self.settle(0.1)
        self.put(two, log=["new"])
        goes_on.append(1)
        self.settle(10)
        self.assertIsInstance(result[0], ConnectionError)
        self.assertEqual(one.state["log"], ["new"])

    def test_P8_who_reads_what_another_makes_just_now_is_not_to_blame(self) -> None:
        """The holder of its lock has put in what cannot travel, and takes it out again."""
        one, two = self.processes(2, log=["a"], q=0)
        goes_on: list[int] = []

        def holds() -> None:
            with one.locks["log"]:
                one.state["log"].append(threading.Lock())
                self.world.pause(lambda: bool(goes_on))
                one.state["log"][-1] = "b"

        def reads() -> None:
            with one.locks["q"]:
                one.state["q"] = len(one.state["log"])

        result = self.begin(one, holds)
        self.settle(0.1)
        self.do(one, reads)
        goes_on.append(1)
        self.settle()
        self.assertEqual(result, [None])
        self.assertEqual(two.state.to_dict(), {"log": ["a", "b"], "q": 2})
        self.assertEqual(one.warnings, [])

    def test_P8_a_change_under_the_lock_to_what_cannot_travel(self) -> None:
        one, two = self.processes(2, log=["a"], q=0)

        def appends() -> None:
            with one.locks["log"]:
                one.state["q"] = 1
                one.state["log"].append(threading.Lock())

        with self.assertRaisesRegex(TypeError, "log"):
            self.do(one, appends)
        self.settle()
        for process in (one, two):
            self.assertEqual(process.state.to_dict(), {"log": ["a"], "q": 0})

    def test_P4_a_key_that_was_not_there_to_be_taken_is_no_conflict(self) -> None:
        one, two = self.processes(2)
        goes_on: list[int] = []

        def takes() -> None:
            with one.locks["q"]:
                self.assertIsNone(one.state.pop("job", None))
                one.state["q"] = 1
                self.world.pause(lambda: bool(goes_on))

        result = self.begin(one, takes)
        self.settle(0.1)
        self.put(two, job="a job")
        goes_on.append(1)
        self.settle()
        self.assertEqual(result, [None])
        self.assertEqual(one.state.to_dict(), {"job": "a job", "q": 1})

    def test_P8_what_is_added_to_while_it_is_pickled_is_pickled_again(self) -> None:
        one, two = self.processes(2)

        class Grows(dict[str, int]):
            def __reduce__(self) -> Any:
                if not self:
                    self["a"] = 1
                    raise RuntimeError("dictionary changed size during iteration")
                return dict, (dict(self),)

        self.put(one, key=Grows())
        self.settle()
        self.assertEqual(two.state["key"], {"a": 1})

    def test_P10_what_lacked_its_class_is_there_once_the_script_has_run(self) -> None:
        """Though nobody asks for it by its name."""
        one, *_ = self.processes(1)
        main = sys.modules["__main__"]
        self.addCleanup(vars(main).pop, "OfTheScript", None)
        exec("class OfTheScript: pass", vars(main))

        def puts() -> None:
            sys.modules["_server_state_1"] = one.home
            one.state["room"] = main.OfTheScript()

        self.do(one, puts)
        del main.OfTheScript
        (two,) = self.processes(1)
        self.assertEqual(list(two.state), [])
        self.settle()
        self.assertEqual(list(two.state), [])
        exec("class OfTheScript: pass", vars(main))
        self.settle()
        self.assertEqual(list(two.state), ["room"])
        self.assertEqual((two.store.missing, two.store.refused), ({}, {}))

    def test_P4_what_was_decided_is_guarded_though_it_is_forced(self) -> None:
        one, two = self.processes(2, job="a job")
        goes_on: list[int] = []

        def takes_and_puts_back() -> None:
            with one.locks["q"]:
                one.state["job"] = one.state.pop("job")
                one.home.force_rerun_bound_sessions("job")
                self.world.pause(lambda: bool(goes_on))

        result = self.begin(one, takes_and_puts_back)
        self.settle(0.1)
        one.store.hear = lambda: None  # it is late
        self.assertEqual(self.do(two, lambda: two.state.pop("job")), "a job")
        goes_on.append(1)
        self.settle()
        self.assertIsInstance(result[0], one.file.LockLostError)
        self.assertNotIn("job", self.world.store.values)

    def test_P1_a_forced_rerun_of_what_the_store_has_already(self) -> None:
        one, two = self.processes(2, key="a")
        goes_on: list[int] = []

        def forces() -> None:
            with one.locks["q"]:
                self.world.pause(lambda: bool(goes_on))
                one.state["key"] = "b"
                one.home.force_rerun_bound_sessions("key")

        def assigns_quietly() -> None:
            with two.home.no_rerun:
                two.state["key"] = "b"

        self.begin(one, forces)
        self.settle(0.1)
        hear, one.store.hear = one.store.hear, lambda: None  # it is late
        self.do(two, assigns_quietly)
        before = two.home._entry("key").told
        goes_on.append(1)
        self.settle(0.5)
        one.store.hear = hear
        self.settle()
        self.assertGreater(two.home._entry("key").told, before)

    def test_P1_what_is_left_to_a_thread_that_ends_with_its_lock(self) -> None:
        for names in ("other", "log"):
            with self.subTest(lock=names):
                one, two = self.processes(2, log=["a"])

                def leaves(one: Process = one, names: str = names) -> None:
                    one.locks[names].acquire()
                    one.state["log"]
                    self.world.sleep(4)

                def appends(one: Process = one) -> None:
                    one.state["log"].append("b")
                    one.home._inspector.suspect([one.home._entry("log")], one.home._Cause(), False)

                self.begin(one, leaves)
                self.settle(0.1)
                self.do(one, appends)
                self.settle(5)
                gc.collect()
                self.settle(15)
                for process in (one, two):
                    self.assertEqual(process.state["log"], ["a", "b"])
                self.assertEqual(one.store.left, {})

    def test_P4_what_was_committed_before_it_was_overwritten_is_no_loss(self) -> None:
        """Neither the inspector, which looks later, nor a transaction that has only read it, may say so."""
        one, two = self.processes(2, log=["a"])

        def appends() -> None:
            with one.locks["log"]:
                one.state["log"].append("b")

        looks = one.home._inspector.look_at
        one.home._inspector.look_at = lambda *what: False
        result, goes_on = self.reads_log(one)
        self.do(one, appends)
        entry = one.home._entry("log")
        value = entry.value
        self.put(two, log=["new"])
        self.world.go_on(1000, lambda: entry.value == ["new"], 5)
        one.home._inspector.look_at = looks
        change = one.home._Change("changed in place")
        before = entry.version
        self.do(one, lambda: one.store.offer(entry, value, change, True))
        goes_on.append(1)
        self.settle()
        self.assertEqual(result, [None])
        self.assertEqual(one.warnings, [])
        self.assertEqual(entry.version, before, "a needless rerun")

    def test_P2_a_thread_that_has_failed_before_it_dies_with_a_lock(self) -> None:
        """No error keeps what it holds until the collector comes."""
        one, two = self.processes(2)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for why in ("overwritten", "not to be pickled"):
            with self.subTest(why):
                self.put(one, job=[1])
                self.settle()
                goes_on: list[int] = []

                def dies(why: str = why, goes_on: list[int] = goes_on) -> None:
                    with suppress(TypeError, one.file.LockLostError), one.locks["q"]:
                        if why == "overwritten":
                            one.state.pop("job")
                        else:
                            one.state["job"].append(lambda: None)
                        self.world.pause(lambda: bool(goes_on))
                    one.locks[why].acquire()
                    one.state["y"] = 1

                done = self.begin(one, dies)
                self.settle(0.1)
                if why == "overwritten":
                    self.put(two, job=[2])
                    self.settle(0.1)
                goes_on.append(1)
                self.settle()
                self.assertEqual(done, [None])
                self.assertEqual(one.store.open(), [])

    def wire(self, process: Process) -> Any:
        return process.wire

    def room_module(self, read: Callable[[], Any]) -> Any:
        """Give a module with a class whose objects do something when they are read."""
        module = types.ModuleType("of_an_app")
        vars(module)["read"] = lambda: None
        exec("class Room:\n  def __init__(self): self.x = 1\n  def __setstate__(self, state): read()", vars(module))
        sys.modules["of_an_app"] = module
        self.addCleanup(sys.modules.pop, "of_an_app", None)
        vars(module)["read"] = read
        return module

    def test_P1_a_value_that_sets_a_key_when_it_is_read(self) -> None:
        one, two = self.processes(2)
        module = self.room_module(lambda: two.state.setdefault("config", 1))
        self.put(one, a=module.Room(), b=1, c=1)
        self.settle()
        self.assertEqual(set(two.state), {"a", "b", "c", "config"})
        self.assertEqual(two.store.pending, {})
        self.assertEqual(two.warnings, [])

    def test_P10_a_value_that_asks_for_keys_when_it_is_read(self) -> None:
        """As does a module that is imported for its class: `server_state.setdefault("count", 0)` at its top."""

        def if_missing(state: Any) -> None:
            for key in ("before", "later", "new"):
                if key not in state:
                    state[key] = 0

        def defaults(state: Any) -> None:
            for key in ("before", "later", "new"):
                state.setdefault(key, 0)

        def locks(state: Any) -> None:
            with self.world.processes[-1].locks["before"]:
                state["before"] = state.get("before", 0) + 0

        for asks in (if_missing, defaults, locks):
            with self.subTest(asks.__name__):
                (one,) = self.processes(1)
                states: list[Any] = []
                module = self.room_module(lambda asks=asks, states=states: list(map(asks, states)))  # type: ignore[misc]
                for key, value in {"before": 7, "room": module.Room(), "later": 8}.items():
                    self.put(one, **{key: value})
                two = Process(self.world, "two")
                self.world.processes.append(two)
                states.append(two.state)
                self.do(two, two.connect)
                self.settle()
                for process in (one, two):
                    self.assertEqual([process.state[key] for key in ("before", "later")], [7, 8])
                    self.assertIsInstance(process.state["room"], module.Room)
                self.assertEqual(two.store.pending, {})
                one.is_dead = two.is_dead = True
                self.settle()

    def test_P1_a_change_that_another_process_takes_back_before_it_was_looked_at(self) -> None:
        """A job is put in here, a tab shows it, and a worker elsewhere takes it out at once."""
        one, two = self.processes(2, jobs=[])
        look, one.home._inspector.look = one.home._inspector.look, lambda: None

        def put(process: Process, change: Callable[[list[str]], Any]) -> None:
            with process.locks["jobs"]:
                change(process.state["jobs"])

        self.do(one, lambda: put(one, lambda jobs: jobs.append("job")))
        entry = one.home._entry("jobs")
        shown = entry.version
        self.do(two, lambda: put(two, lambda jobs: jobs.pop()))
        self.settle()
        self.assertEqual(one.state["jobs"], [])
        one.home._inspector.look = look
        one.home._inspector.wake.set()
        self.settle()
        self.assertGreater(entry.told, shown)

    def test_P3_what_a_thread_reads_that_never_ends_its_transaction(self) -> None:
        """It holds a lock for ever, as a leader does: others' changes are left to it for some time only."""
        one, two = self.processes(2, chat=[])

        def lead() -> None:
            with one.locks["leader"]:
                while True:
                    one.state.get("chat")
                    self.world.sleep(1.0)

        def say(text: str) -> None:
            with one.locks["room"]:
                one.state["chat"].append(text)

        self.begin(one, lead)
        self.settle(0.1)
        self.do(one, lambda: say("early"))
        self.settle(2)
        self.assertEqual(two.state["chat"], [], "it may yet change it, too")
        self.settle(70)
        self.assertEqual(two.state["chat"], ["early"])
        self.do(one, lambda: say("late"))
        self.settle()
        self.assertEqual(two.state["chat"], ["early", "late"])

    def test_P6_what_a_long_transaction_keeps_of_what_others_replace(self) -> None:
        """Not each of the values, but what tells whether it has changed one."""
        one, two = self.processes(2, prices=[0], q=0)
        for changed in ("first", "latest", None):
            with self.subTest(changed):
                goes_on: list[int] = []

                def watch(changed: Any = changed, goes_on: list[int] = goes_on) -> None:
                    with one.locks["watch"]:
                        first = one.state["prices"]
                        for number in range(5):
                            self.world.pause(lambda number=number: len(goes_on) > number)  # type: ignore[misc]
                            latest = one.state["prices"]
                        goes_on.append(len(one.store.open()[0][1].replaced))
                        self.world.pause(lambda: len(goes_on) > 8)
                        if changed is not None:
                            (first if changed == "first" else latest).append("by the watcher")
                        one.state["q"] = 1

                result = self.begin(one, watch)
                for number in range(5):
                    self.put(two, prices=[number])
                    self.settle(1)
                    goes_on.append(number)
                    self.settle(0.1)
                self.put(two, prices=["last"])
                self.settle(1)
                goes_on += [6, 7, 8]
                self.settle()
                self.assertLess(goes_on[5], 3)
                if changed is None:
                    self.assertEqual(result, [None])
                else:
                    self.assertIsInstance(result[0], one.file.LockLostError)

    def test_P2_a_lock_that_a_value_asks_for_when_it_is_read(self) -> None:
        """It is not waited for, under the mutex; nor does it become part of a transaction that is beginning or over."""
        for when, name in (("acquire", "other"), ("acquire", "q"), ("release", "other"), ("hear", "other")):
            with self.subTest(when, name=name):
                one, two = self.processes(2, q=0)

                def locks(one: Process = one, name: str = name) -> None:
                    if self.world.current.process is one:
                        with one.locks[name]:
                            one.state["config"] = 1

                module = self.room_module(locks)
                goes_on: list[int] = []

                def increments(one: Process = one, when: str = when, goes_on: list[int] = goes_on) -> None:
                    if when == "acquire":
                        self.world.pause(lambda: bool(goes_on))
                    with one.locks["q"]:
                        before = one.state["q"]
                        self.world.pause(lambda: bool(goes_on))
                        self.assertIn("q", self.world.store.locks)
                        one.state["q"] = before + 1

                def holds(one: Process = one, goes_on: list[int] = goes_on) -> None:
                    with one.locks["other"]:
                        self.world.pause(lambda: bool(goes_on))
                        one.state["z"] = 1

                if when == "hear":
                    done = self.begin(one, holds)
                else:
                    one.store.hear = lambda: None
                    done = self.begin(one, increments)
                self.settle(0.1)
                self.put(two, room=module.Room())
                self.settle(0.1)
                goes_on.append(1)
                self.settle()
                self.assertEqual((done, one.store.open()), ([None], []))
                self.assertEqual([n for n, (_, until) in self.world.store.locks.items() if until > self.world.now], [])
                self.assertEqual(self.do(two, lambda two=two: two.state["q"]), int(when != "hear"))  # type: ignore[misc]
                with self.subTest("it is read where nothing is held"):
                    self.assertEqual(type(self.do(one, lambda one=one: one.state["room"])).__name__, "Room")  # type: ignore[misc]
                    self.settle()
                    self.assertEqual(two.state["config"], 1)
                self.do(two, lambda two=two: two.state.clear())  # type: ignore[misc]
                one.is_dead = two.is_dead = True
                self.settle()

    def test_P2_a_lock_that_a_value_asks_for_when_it_is_sent(self) -> None:
        """It is had already: the release that sends the value is its own."""
        one, two = self.processes(2)
        module = types.ModuleType("of_an_app")
        vars(module)["locks"] = one.locks
        exec("class Room:\n  def __getstate__(self):\n    with locks['room']: return {'x': self.x}", vars(module))
        sys.modules["of_an_app"] = module
        self.addCleanup(sys.modules.pop, "of_an_app", None)

        def assigns() -> None:
            with one.locks["room"]:
                room = module.Room()
                room.x = 1
                one.state["room"] = room
                one.state["room"].x = 2

        self.do(one, assigns)
        self.settle()
        self.assertEqual(self.do(two, lambda: two.state["room"].x), 2)

    def test_P1_news_that_take_longer_than_an_answer_may(self) -> None:
        """A large value, and a link that is slow: who has not got it in time asks for it in peace."""
        one, two = self.processes(2, x=0)
        since = self.wire(two).since

        def slowly(position: bytes, *more: Any) -> Any:
            if position != self.world.store.log[-1].position:
                for _ in range(100):
                    self.world.sleep(0.1)
                    if self.world.now > two.store.limit:
                        raise TimeoutError("interrupted")
            return since(position, *more)

        self.wire(two).since = slowly
        self.put(one, x="large")
        self.settle(60)
        self.assertEqual((two.state["x"], two.store.away), ("large", None))

    def test_P1_a_value_that_sets_a_key_when_a_release_reads_it(self) -> None:
        """Its transaction has been committed: what is set then does not come with it any more."""
        one, two = self.processes(2, q=0)
        module = self.room_module(lambda: one.state.setdefault("config", 1))
        one.store.hear = lambda: None
        goes_on: list[int] = []

        def increments() -> None:
            with one.locks["q"]:
                self.world.pause(lambda: bool(goes_on))
                one.state["q"] = 1

        done = self.begin(one, increments)
        self.settle(0.1)
        self.put(two, room=module.Room())
        goes_on.append(1)
        self.settle()
        self.assertEqual(done, [None])
        for process in (one, two):
            self.assertEqual((process.state["config"], process.state["q"]), (1, 1))

    def test_P1_a_value_that_assigns_a_key_that_came_with_it(self) -> None:
        for key in ("a", "room", "z"):
            with self.subTest(key):
                one, two = self.processes(2, a=0, room=0, z=0)
                module = self.room_module(lambda key=key, two=two: two.state.update({key: "by two"}))  # type: ignore[misc]
                self.put(one, a=1, room=module.Room(), z=1)
                self.settle()
                states = [process.state.to_dict() for process in (one, two)]
                self.assertEqual(states[0][key], "by two")
                for other in ("a", "z"):
                    self.assertEqual(states[0][other], states[1][other])
                self.assertEqual(states[1][key], "by two")
                self.assertTrue(two.store.is_shown(key))
                one.is_dead = two.is_dead = True
                self.settle()

    def test_P3_what_lacked_its_class_is_in_hand_once_it_is_read(self) -> None:
        (one,) = self.processes(1, q=0)
        module = self.room_module(lambda: None)
        exec("class Room:\n  def __init__(self): self.log = []", vars(module))
        room = module.Room
        self.put(one, room=room())
        del module.Room
        two = Process(self.world, "two")
        self.world.processes.append(two)
        self.do(two, two.connect)

        def appends() -> None:
            module.Room = room
            with two.locks["chat"]:
                two.state["room"].log.append("hello")
                two.state["q"] = 1

        self.do(two, appends)
        self.settle()
        for process in (one, two):
            self.assertEqual((process.state["room"].log, process.state["q"]), (["hello"], 1))

    def test_P3_what_setdefault_gives_that_came_just_now_is_in_hand(self) -> None:
        one, two = self.processes(2, q=0)
        read = one.home._read

        def reads(*what: Any) -> Any:
            value = read(*what)
            if what[0] == "log":
                one.home._read = read
                self.world.pause(lambda: "log" in one.home._present)
            return value

        def appends() -> None:
            with one.locks["other"]:
                one.home._read = reads
                one.state.setdefault("log", None).append("b")
                one.state["q"] = 1

        done = self.begin(one, appends)
        self.settle(0.1)
        self.put(two, log=[])
        self.world.go_on(10_000, lambda: bool(done), 10)
        self.settle()
        for process in (one, two):
            self.assertEqual(process.state.to_dict(), {"log": ["b"], "q": 1})

    def test_P6_a_del_that_uses_the_state_in_the_middle_of_a_request(self) -> None:
        """The collector may run one at any moment; it gets an error, and the request goes on."""
        (one,) = self.processes(1, x=0)
        commit = self.wire(one).commit
        errors: list[Exception] = []

        def collects(*asked: Any) -> Any:
            self.wire(one).commit = commit
            try:
                one.state["gone"] = 1
            except RuntimeError as error:
                errors.append(error)
            return commit(*asked)

        self.wire(one).commit = collects
        self.put(one, x=1)
        self.assertRegex(str(errors[0]), "__del__")
        self.settle()
        self.assertEqual(one.state.to_dict(), {"x": 1})

    def test_P8_a_value_that_panics_when_it_is_pickled(self) -> None:
        class Panic(BaseException):
            pass

        class Frame:
            def __reduce__(self) -> Any:
                raise Panic

        (one,) = self.processes(1)
        with self.assertRaises(TypeError):
            self.put(one, frame=Frame())

    def test_P8_what_is_of_our_own_travels_too(self) -> None:
        one, two = self.processes(2)
        self.put(one, error=one.home.RerunSuppressedError("why"))
        self.settle()
        self.assertEqual(self.do(two, lambda: two.state["error"].args), ("why",))

    def test_P1_what_another_process_told_comes_with_the_news_of_our_own_commit(self) -> None:
        one, two = self.processes(2, forced=1, changed=1)
        self.wire(one).wait = lambda *request: self.world.sleep(1000)
        self.settle()
        told: list[str] = []
        notify = one.home._notify

        def note(entries: list[Any]) -> None:
            told.extend(entry.key for entry in entries)
            notify(entries)

        one.home._notify = note
        with self.subTest("forced, and written again here"):
            self.do(two, lambda: two.home.force_rerun_bound_sessions("forced"))
            self.put(one, forced=1)
            self.assertIn("forced", told)
        for is_quiet_there in (False, True):
            with self.subTest("changed, and overwritten here, in quiet", is_quiet_there=is_quiet_there):
                told.clear()

                def change(process: Process, value: int, is_quiet: bool = True) -> None:
                    with process.home.no_rerun if is_quiet else nullcontext():
                        process.state["changed"] = value

                self.do(two, lambda: change(two, 2 + 2 * is_quiet_there, is_quiet_there))  # noqa: B023
                self.do(one, lambda: change(one, 3 + 2 * is_quiet_there))  # noqa: B023
                self.assertEqual("changed" in told, not is_quiet_there)

    def test_P1_an_assignment_beside_a_force_of_what_another_process_has_changed(self) -> None:
        """It is what this process knows the store to have, but not what the store has."""
        one, two = self.processes(2, k="X")
        one.store.hear = lambda: None  # it is busy
        goes_on: list[int] = []

        def change() -> None:
            with one.locks["o"]:
                one.state["k"] = "X"
                one.home.force_rerun_bound_sessions("k")
                self.world.pause(lambda: bool(goes_on))

        self.begin(one, change)
        self.settle(0.1)
        self.put(two, k="Z")
        goes_on.append(1)
        self.settle()
        self.assertEqual([process.state["k"] for process in (one, two)], ["X", "X"])

    def test_P1_a_change_in_place_beside_an_assignment_of_the_same_object(self) -> None:
        one, two = self.processes(2, d={})
        wire = self.wire(one)
        commit = wire.commit

        def slowly(*request: Any) -> Any:
            wire.commit = commit
            one.state["d"]["b"] = 1  # what was pickled has it not, and what is assigned then has it
            return commit(*request)

        def assigns() -> None:
            value = one.state["d"]
            value["a"] = 1
            one.state["d"] = value

        wire.commit = slowly
        self.do(one, assigns)
        self.settle()
        self.assertEqual(two.state["d"], {"a": 1, "b": 1})

    def test_P4_what_is_assigned_here_since_is_no_loss(self) -> None:
        one, _ = self.processes(2)

        def assigns() -> None:
            one.state["flag"] = True
            one.state["flag"] = True
            one.state["flag"] = False
            value: list[int] = []
            one.state["other"] = value
            one.state["other"] = value
            with one.locks["other"]:
                one.state["other"] = 2
                self.world.sleep(1)

        self.do(one, assigns)
        self.settle()
        self.assertEqual(one.warnings, [])

    def test_P3_what_was_looked_at_and_left_is_not_dropped_without_an_error(self) -> None:
        """Its fingerprint is of what it was changed to; another process's value takes its place."""
        one, two = self.processes(2, d=[], y=0)
        goes_on: list[int] = []

        def changes() -> None:
            with one.locks["t"]:
                one.state["d"].append("ours")
                one.state["y"] = 1
                self.world.pause(lambda: bool(goes_on))

        result = self.begin(one, changes)
        self.settle(0.1)
        entry = one.home._entry("d")
        entry.fingerprint = one.home._fingerprint(entry.value)
        change = one.home._Change("changed in place")
        self.assertTrue(self.do(one, lambda: one.store.offer(entry, entry.value, change, True)))
        self.put(two, d=["other's"])
        self.settle(0.5)
        goes_on.append(1)
        self.settle()
        self.assertIsInstance(result[0], one.file.LockLostError)
        self.assertEqual([process.state.to_dict() for process in (one, two)], [{"d": ["other's"], "y": 0}] * 2)

    def test_P1_what_was_left_to_a_quiet_transaction_is_told(self) -> None:
        one, two = self.processes(2)
        for is_quiet in (False, True):
            with self.subTest(is_quiet=is_quiet):
                self.put(one, d=[])
                self.settle()
                goes_on: list[int] = []

                def reads(is_quiet: bool = is_quiet, goes_on: list[int] = goes_on) -> None:
                    with one.home.no_rerun if is_quiet else nullcontext(), one.locks["b"]:
                        len(one.state["d"])
                        self.world.pause(lambda: bool(goes_on))

                def appends() -> None:
                    with one.locks["a"]:
                        one.state["d"].append(1)

                self.begin(one, reads)
                self.settle(0.1)
                before = [process.home._entry("d").version for process in (one, two)]
                self.do(one, appends)
                self.settle(0.1)
                goes_on.append(1)
                self.settle()
                self.assertEqual(two.state["d"], [1])
                after = [process.home._entry("d").version for process in (one, two)]
                for place in range(2):
                    self.assertGreater(after[place], before[place])

    def test_P6_a_store_that_goes_away_while_the_listener_waits_for_its_turn(self) -> None:
        """It asks beside the turn then: a call that comes next is not to wait for a second answer."""
        (one,) = self.processes(1)
        self.wire(one).wait = lambda *request: self.world.sleep(1000)
        self.settle()
        goes_on: list[int] = []

        def waits() -> None:
            with one.store.mutex:
                self.world.pause(lambda: bool(goes_on))

        self.begin(one, waits)
        self.settle(0.1)
        heard = self.begin(one, one.store.hear)
        self.settle(0.1)
        one.store.away = "it is away"
        self.wire(one).since = None
        goes_on.append(1)
        self.settle(0.1)
        self.assertRegex(str(heard), "it is away")

    def test_P6_a_change_in_place_while_the_store_is_known_to_be_away_asks_it_not(self) -> None:
        """Each would wait for seconds, and keep the turn from who finds out that it is back."""
        (one,) = self.processes(1, log=["a"])
        entry = one.home._entry("log")
        entry.value.append("b")
        one.store.away = "it is away"
        self.wire(one).commit = None
        self.do(one, lambda: one.store.offer(entry, entry.value, one.home._Change("changed in place"), True))
        self.assertRegex(one.warnings[0], "it is away")
        self.assertEqual(one.state["log"], ["a"])

    def test_P6_a_load_may_take_longer_than_a_call(self) -> None:
        (one,) = self.processes(1, x=1)
        since = self.wire(one).since

        def slowly(position: bytes, *rest: Any) -> Any:
            if not position:
                self.world.sleep(60)
                if self.world.now > one.store.limit:
                    raise TimeoutError("it was interrupted")
            return since(position, *rest)

        self.wire(one).since = slowly
        one.store.position = b"of a store that was emptied"
        self.settle(100)
        self.assertEqual(one.store.position, self.world.store.log[-1].position)

    def test_P4_a_thread_that_dies_with_a_lock_leaves_a_key_as_it_was_before(self) -> None:
        """Nobody has shown it anew when a change of the old value is offered."""
        one, two = self.processes(2, log=["a"])

        def dies() -> None:
            one.locks["log"].acquire()
            one.state["log"]
            self.world.sleep(4)

        died = self.begin(one, dies)
        self.settle(0.1)
        self.put(two, log=["new"])
        self.settle()
        entry = one.home._entry("log")
        entry.value.append("b")
        one.store.hear = lambda: None
        self.world.go_on(100_000, lambda: bool(died), 60)
        gc.collect()
        self.do(one, lambda: one.store.offer(entry, entry.value, one.home._Change("changed in place"), True))
        for process in (one, two):
            self.assertEqual(process.state["log"], ["new"])

    def take_in_hand(self, is_first: bool) -> tuple[Any, list[Process]]:
        """A thread reads a list while another process's takes its place, appends, and assigns another key."""
        one, two = self.processes(2, log=["a"], q=0)
        begun: list[int] = []
        appended: list[int] = []
        hand, change, entry = one.home._hand, one.home._Change, one.home._entry("log")

        def handed(*what: Any) -> None:
            """It was read, and is not yet in hand."""
            one.home._hand = hand
            self.world.pause(lambda: entry.value == ["a", "b"])
            hand(*what)

        def changed(*what: Any) -> Any:
            """It is about to be replaced."""
            if what[:2] == ("changed", "another process") and not begun:
                begun.append(1)
                self.world.pause(lambda: bool(appended))
            return change(*what)

        def appends() -> None:
            with one.locks["other"]:
                self.world.pause(lambda: is_first or bool(begun))
                one.state["log"].append("c")
                appended.append(1)
                self.world.sleep(1)
                one.state["q"] = 1

        one.home._hand = handed if is_first else hand
        result = self.begin(one, appends)
        self.settle(0.1)
        one.home._Change = change if is_first else changed
        self.put(two, log=["a", "b"])
        self.world.go_on(100_000, lambda: bool(result), 60)
        self.settle()
        return result[0], [one, two]

    def test_P3_what_is_read_just_before_another_process_s_value_takes_its_place(self) -> None:
        result, processes = self.take_in_hand(is_first=True)
        self.assertIsNone(result)
        for process in processes:
            self.assertEqual(process.state.to_dict(), {"log": ["a", "b", "c"], "q": 1})

    def test_P3_what_is_changed_just_before_another_process_s_value_takes_its_place(self) -> None:
        result, processes = self.take_in_hand(is_first=False)
        self.assertIsInstance(result, processes[0].file.LockLostError)
        for process in processes:
            self.assertEqual(process.state.to_dict(), {"log": ["a", "b"], "q": 0})

    def test_P1_what_was_left_and_has_come_says_nothing_of_the_next_change(self) -> None:
        one, two = self.processes(2, log=["a"])

        def appends() -> None:
            with one.locks["q"]:
                one.state["log"].append("b")

        def assigns_quietly() -> None:
            with one.home.no_rerun:
                one.state["log"] = ["c"]

        _, goes_on = self.reads_log(one)
        self.do(one, appends)
        one.store.hear = lambda: None
        goes_on.append(1)
        self.settle(0.2)
        before = two.home._entry("log").told
        self.do(one, assigns_quietly)
        self.settle()
        self.assertEqual(two.state["log"], ["c"])
        self.assertEqual(two.home._entry("log").told, before)

    def test_P2_values_are_let_go_of_after_the_outermost_turn(self) -> None:
        (one,) = self.processes(1)
        gone: list[bool] = []

        class Old:
            def __del__(self) -> None:
                gone.append(mutex._is_owned())

        mutex = one.store.mutex

        def work() -> None:
            with one.store.turn(), one.store.turn():
                one.store.let_go.append(Old())

        self.do(one, work)
        self.assertEqual(gone, [False])

    def test_P4_a_value_that_cannot_be_read_is_not_taken_away_unseen(self) -> None:
        one, two = self.processes(2)
        module = self.room_module(lambda: None)
        self.put(one, key=1)
        self.settle()
        goes_on: list[int] = []

        def holds() -> None:
            with one.locks["other"]:
                one.state["key"] = 2
                self.world.pause(lambda: bool(goes_on))

        self.begin(one, holds)
        self.settle(0.1)
        self.put(two, key=module.Room())
        del module.Room
        self.settle(0.5)
        with self.assertRaises(ValueError):
            self.do(one, lambda: one.state.pop("key"))
        self.assertIn("key", self.world.store.values)

    def test_P9_a_key_that_is_removed_leaves_nothing(self) -> None:
        one, two = self.processes(2)
        for remover in (one, two):
            self.put(one, job="a job")
            self.settle()
            self.assertEqual(self.do(remover, lambda remover=remover: remover.state.pop("job")), "a job")  # type: ignore[misc]
            self.settle()
            for process in (one, two):
                store = process.store
                left = (store.left, store.shown, store.committed, store.pending, store.refused)
                self.assertFalse(any("job" in part for part in left), left)

    def test_P2_who_renews_leases_goes_on_whatever_happens(self) -> None:
        (one,) = self.processes(1)
        one.store.open = lambda: [][0]
        self.do(one, one.store.renew_all)

    def test_P2_a_fork_has_no_inspector_yet(self) -> None:
        (one,) = self.processes(1)
        one.home._inspector.is_running = True
        one.file._go_on_alone()
        self.assertFalse(one.home._inspector.is_running)

    def test_P6_connect_where_no_thread_can_be_started(self) -> None:
        one = Process(self.world, "one")
        self.world.processes.append(one)
        real = one.file.threading.Thread
        one.file.threading.Thread = lambda **what: [][0]
        with self.assertRaises(IndexError):
            self.do(one, one.connect)
        self.assertIs(type(one.home._store), one.home._Alone)
        one.file.threading.Thread = real
        self.do(one, one.connect)
        self.assertTrue(one.is_connected)

    def test_P8_a_module_that_is_being_imported_is_not_waited_for(self) -> None:
        (one,) = self.processes(1)
        module = types.ModuleType("half_imported")
        sys.modules["half_imported"] = module
        self.addCleanup(sys.modules.pop, "half_imported")
        module.__spec__ = types.SimpleNamespace(_initializing=True)  # type: ignore[assignment]
        with unittest.mock.patch("builtins.__import__", side_effect=AssertionError("it would wait for its lock")):
            self.assertIs(next(one.file._modules("half_imported")), module)

    def test_P2_the_children_of_one_process_are_two(self) -> None:
        (parent,) = self.processes(1)
        self.put(parent, n=0)
        children = [Process(self.world, f"child {number}", parent) for number in range(2)]
        self.world.processes += children
        for child in children:
            self.assertEqual(child.state["n"], 0)
            self.do(child, child.connect)
        one, two = children
        self.assertNotEqual(one.store.engine.process, two.store.engine.process)
        self.put(one, n=1)
        self.settle()
        self.assertEqual([process.state["n"] for process in (parent, two)], [1, 1])


class Simulated(unittest.TestCase):
    def test_P1_to_P6_any_schedule(self) -> None:
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        if "SEEDS" in os.environ:
            first, end = map(int, os.environ["SEEDS"].split(":"))
            Worker.idle.clear()  # a fork has no threads but one
            with multiprocessing.Pool(int(os.environ.get("CORES", 0)) or None) as pool:
                wrong = [text for text in pool.imap_unordered(simulate_quietly, range(first, end), 50) if text]
            self.assertEqual(wrong, [])
            return
        seeds = [int(os.environ["SEED"])] if "SEED" in os.environ else range(3000)
        until = time.monotonic() + 5
        for done, seed in enumerate(seeds):
            self.assertIsNone(simulate(seed))
            if time.monotonic() > until and done > 100:
                break


if __name__ == "__main__":
    unittest.main()
