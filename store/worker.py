"""A process of the tests: does what it is told over its pipes, each thread one thing after the other."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pickle
import queue
import sys
import threading
import time
from typing import Any

import server_state as module
import server_state_store
from server_state import force_rerun_bound_sessions, no_rerun, server_state, server_state_lock
from travelling import Message  # noqa: F401 - unpickled in arguments

home: Any = sys.modules["_server_state_1"]
stops: list[bool] = []
published: list[tuple[Any, ...]] = []  # keys that were published together, and what they then were
logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(threadName)s %(message)s")


class OfMain:
    """Nobody can import this but this process; the others have one of the same name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def say(self) -> str:
        return f"{self.name} is here"


def of_main() -> str:
    return "called"


def join(url: str, name: str, secret: str, local: tuple[str, ...] = ()) -> None:
    client = os.environ.get("CLIENT", "redis")
    is_plain = client == "redis" or "://" not in url
    store = url if is_plain else importlib.import_module(client).from_url(url)
    server_state_store.connect(store, name=name, secret=secret, local=local)


def join_with_a_client(url: str, name: str, secret: str, client: str, options: dict[str, Any]) -> None:
    store = importlib.import_module(client).from_url(url, **options)
    server_state_store.connect(store, name=name, secret=secret)


def listen_for_changes() -> None:
    """Note what readers are notified of from now on: each time, a session that shows one of the keys is rerun."""
    notify = home._notify

    def note(changed: Any) -> None:
        if group := tuple(sorted((entry.key, repr(entry.value)) for entry in changed if entry.key is not None)):
            published.append(group)
        notify(changed)

    home._notify = note


def changes() -> list[tuple[Any, ...]]:
    return list(published)


def take(*names: str) -> bool:
    return server_state_lock[names].acquire()


def take_within(seconds: float, *names: str) -> bool:
    return server_state_lock[names].acquire(timeout=seconds)


def take_now(*names: str) -> bool:
    return server_state_lock[names].acquire(blocking=False)


def release(*names: str) -> None:
    server_state_lock[names].release()


def append(key: str, value: Any) -> None:
    server_state[key].append(value)


def append_locked(key: str, value: Any) -> None:
    with server_state_lock[key]:
        server_state[key].append(value)


def add_in_place(lock: str, times: int) -> None:
    for _ in range(times):
        with server_state_lock[lock]:
            server_state["d"]["n"] += 1
            time.sleep(0.002)  # what an app does there
        time.sleep(0.002)


def append_quietly(key: str, value: Any) -> None:
    with no_rerun:
        server_state[key].append(value)


def put(key: str, value: Any) -> None:
    server_state[key] = value


def put_many(key: str, values: list[Any]) -> None:
    for value in values:
        server_state[key] = value


def put_locked(key: str, value: Any) -> None:
    with server_state_lock[key]:
        server_state[key] = value


def put_quietly(key: str, value: Any) -> None:
    with no_rerun:
        server_state[key] = value


def put_of_main(key: str, name: str) -> None:
    server_state[key] = OfMain(name)


def say_of_main(key: str) -> str:
    said: str = server_state[key].say()
    return said


def rename_of_main(key: str, name: str) -> None:
    with server_state_lock[key]:
        server_state[key].name = name


def put_function_of_main(key: str) -> None:
    server_state[key] = of_main


def call(key: str) -> Any:
    return server_state[key]()


def have_the_store_take(size: int) -> None:
    home._store.engine.largest = size


def put_lambda(key: str) -> None:
    server_state[key] = lambda: None


def append_lambda_locked(key: str, other: str) -> None:
    with server_state_lock[key]:
        server_state[other] = "changed"
        server_state[key].append(lambda: None)


def force(key: str) -> None:
    force_rerun_bound_sessions(key)


def increment(key: str, times: int) -> None:
    for _ in range(times):
        with server_state_lock[key]:
            server_state[key] = server_state.get(key, 0) + 1


def increment_nested(outer: str, key: str, times: int) -> None:
    for _ in range(times):
        with server_state_lock[outer], server_state_lock[key]:
            server_state[key] = server_state.get(key, 0) + 1
            with server_state_lock[key]:
                pass


def increment_pair(times: int) -> int:
    """Change two keys under the lock of one of them; tell how often they were torn under it."""
    torn = 0
    for _ in range(times):
        with server_state_lock["left"]:
            torn += server_state.get("left") != server_state.get("right")
            server_state["left"] = server_state.get("left", 0) + 1
            server_state["right"] = server_state.get("right", 0) + 1
    return torn


def increment_pair_and_say(times: int, ballast: str) -> None:
    """Change two keys and more, and say on the standard error what is then known to be done."""
    for _ in range(times):
        with server_state_lock["left"]:
            number = server_state["left"] + 1
            server_state.update(left=number, right=number, ballast=f"{number} {ballast}")
        os.write(2, b"said %d\n" % number)


def increments_and_reads(key: str, seconds: float) -> tuple[int, int, list[int]]:
    """Count up and read by turns; give how often that was done, and unsure, and what was read."""
    done = unsure = 0
    reads = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            increment(key, 1)
            done += 1
            os.write(2, b"counted\n")
        except server_state_store.LockLostError:
            pass
        except ConnectionError:
            unsure += 1
        reads.append(server_state.get(key, 0))
    return done, unsure, reads


def look_at_pair(seconds: float) -> tuple[int, int, int]:
    """Look at two keys for so long; tell how often, how often they were torn, and how many values there were."""
    torn = looks = 0
    seen = set()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        state = server_state.to_dict()
        torn += state.get("left") != state.get("right")
        seen.add(state.get("left"))
        looks += 1
    return looks, torn, len(seen)


def setdefault_and_append(key: str, values: list[Any]) -> None:
    server_state.setdefault(key, [])
    for value in values:
        append_locked(key, value)


def read(key: str) -> Any:
    return server_state[key]


def is_present(key: str) -> bool:
    return key in server_state


def is_same(key: str, number: int) -> bool:
    return id(server_state[key]) == number


def identity(key: str) -> int:
    return id(server_state[key])


def take_and_release(seconds: float, *names: str) -> None:
    if server_state_lock[names].acquire(timeout=5):
        time.sleep(seconds)
        server_state_lock[names].release()


def limit_files(size: int | None) -> None:
    """Have files of this process not grow past a size."""
    import resource

    limit = resource.RLIM_INFINITY if size is None else size
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def become_nobody() -> None:
    import sqlite3  # noqa: F401 - it may stand where nobody may read

    os.setgid(65534)
    os.setuid(65534)


def change_folder(path: str) -> None:
    os.chdir(path)


def count_in_children(url: str, name: str, secret: str, key: str, children: int, times: int) -> list[int]:
    """Fork, and have each child connect and count up; give the statuses with which they end."""
    pids = []
    for _ in range(children):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                assert key in server_state
                join(url, name, secret)
                increment(key, times)
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def take_again_and_again(seconds: float, name: str) -> int:
    """Hold a lock nearly all the time; tell how often it was taken."""
    times = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until and not stops:
        with server_state_lock[name]:
            times += 1
            time.sleep(0.01)
    return times


def stop_taking() -> None:
    stops.append(True)


def hide_travelling() -> None:
    """Behave like a process that was started with an older version of the app."""
    sys.modules["travelling"] = None  # type: ignore[assignment]


def threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate())


def ledger(operation: str, pause: float = 0.0) -> None:
    """Note an operation in a list and count it, as one change of two keys."""
    with server_state_lock["ledger", "count"]:
        server_state["count"] = server_state.get("count", 0) + 1
        if pause:
            time.sleep(pause)
        server_state["ledger"] = [*server_state.get("ledger", []), operation]


def ledger_in_place(operation: str) -> None:
    with server_state_lock["count"], server_state_lock["ledger"]:  # in the order of `ledger`
        server_state.setdefault("ledger", []).append(operation)
        server_state["count"] = server_state.get("count", 0) + 1


def import_anew() -> tuple[bool, bool]:
    """Import both files anew, as Streamlit does when a file was saved; tell whether it is one state, and one error."""
    for name in ("server_state", "server_state_store"):
        del sys.modules[name]
    new_module = importlib.import_module("server_state")
    new_store = importlib.import_module("server_state_store")
    is_one_error = new_store.LockLostError is server_state_store.LockLostError
    globals()["server_state_store"] = new_store
    return new_module.server_state is module.server_state, is_one_error


def name_of_error_of_lost_lock(name: str) -> str:
    """Release a lock, with an `except` that names the class as it is imported now."""
    try:
        server_state_lock[name].release()
    except server_state_store.LockLostError:
        return "LockLostError"
    except Exception as error:
        return f"another: {type(error)}"
    return "no error"


def serve() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answering = threading.Lock()
    lines: dict[str, queue.SimpleQueue[Any]] = {}

    def answer(number: int, is_error: bool, value: Any) -> None:
        try:
            data = pickle.dumps((number, is_error, value))
            pickle.loads(data)
        except Exception:
            data = pickle.dumps((number, True, RuntimeError(f"{type(value).__name__}: {value}")))
        with answering, contextlib.suppress(BrokenPipeError):
            answers.write(data)
            answers.flush()

    def work(line: queue.SimpleQueue[Any]) -> None:
        while True:
            number, what, args = line.get()
            try:
                function = globals().get(what) or getattr(server_state, what)
                answer(number, False, function(*args))
            except BaseException as error:
                answer(number, True, error)

    while True:
        try:
            number, thread, what, args = pickle.load(sys.stdin.buffer)
        except EOFError:
            os._exit(0)
        if thread not in lines:
            lines[thread] = queue.SimpleQueue()
            threading.Thread(target=work, args=(lines[thread],), name=thread, daemon=True).start()
        lines[thread].put((number, what, args))


if __name__ == "__main__":
    serve()
