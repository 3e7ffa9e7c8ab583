"""`worker.py`, and what the benchmark times in it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import pickle
import sqlite3
import time
from typing import Any

import worker
from server_state import server_state, server_state_lock

by_hand: dict[str, Any] = {}


@dataclasses.dataclass
class Message:
    author: str
    text: str
    sent: float


def open_by_hand(url: str) -> None:
    client = importlib.import_module(os.environ.get("CLIENT", "redis")).from_url(url)
    by_hand.update(client=client, lock=client.lock("lock by hand", timeout=10))
    client.set("count by hand", pickle.dumps(0))


def time_reads(times: int) -> float:
    begun = time.perf_counter()
    for _ in range(times):
        server_state["n"]
    return (time.perf_counter() - begun) / times


def time_writes(times: int) -> float:
    begun = time.perf_counter()
    for value in range(times):
        server_state["x"] = value
    return (time.perf_counter() - begun) / times


def time_increments(times: int) -> float:
    begun = time.perf_counter()
    for _ in range(times):
        with server_state_lock["n"]:
            server_state["n"] += 1
    return (time.perf_counter() - begun) / times


def time_increments_by_hand(times: int) -> float:
    """What one would write with the client alone: a lock that others wait for, and a word to who listens."""
    client, lock = by_hand["client"], by_hand["lock"]
    begun = time.perf_counter()
    for _ in range(times):
        with lock:
            client.set("count by hand", pickle.dumps(pickle.loads(client.get("count by hand")) + 1))
            client.publish("changes by hand", "count")
    return (time.perf_counter() - begun) / times


def time_two_scripts(times: int) -> float:
    """The least that two round trips take."""
    script = by_hand["client"].register_script("return 1")
    begun = time.perf_counter()
    for _ in range(times):
        script()
        script()
    return (time.perf_counter() - begun) / times


def time_writes_by_hand(times: int) -> float:
    client = by_hand["client"]
    begun = time.perf_counter()
    for value in range(times):
        client.set("x by hand", pickle.dumps(value))
        client.publish("changes by hand", "x")
    return (time.perf_counter() - begun) / times


# Beside SQLite: the package `diskcache`, and what one would write by hand.
def open_files(folder: str) -> None:
    cache = importlib.import_module("diskcache").Cache(folder)
    cache["n"] = 0
    sql = sqlite3.connect(f"{folder}/by_hand.db", isolation_level=None)
    sql.execute("PRAGMA journal_mode = WAL")
    sql.execute("PRAGMA synchronous = NORMAL")
    sql.execute("CREATE TABLE state (key PRIMARY KEY, data)")
    by_hand.update(cache=cache, sql=sql, texts=[os.urandom(512).hex() for _ in range(100)])


def time_increments_of_diskcache(times: int) -> float:
    cache = by_hand["cache"]
    begun = time.perf_counter()
    for _ in range(times):
        with cache.transact():
            cache["n"] = cache["n"] + 1
    return (time.perf_counter() - begun) / times


def time_texts(times: int) -> float:
    texts = by_hand["texts"]
    begun = time.perf_counter()
    for number in range(times):
        server_state["text"] = texts[number % 100]
    return (time.perf_counter() - begun) / times


def time_texts_of_diskcache(times: int) -> float:
    cache, texts = by_hand["cache"], by_hand["texts"]
    begun = time.perf_counter()
    for number in range(times):
        cache.set("text", texts[number % 100])
    return (time.perf_counter() - begun) / times


def make_chat(length: int) -> None:
    server_state["chat"] = [Message(f"user {n % 7}", f"message {n}", float(n)) for n in range(length)]
    by_hand["chat"] = list(server_state["chat"])


def time_appends(times: int) -> float:
    """Time for how long the writer is held up, not the look that comes after it in another thread."""
    seconds = 0.0
    for number in range(times):
        while worker.home._inspector.suspected:
            time.sleep(0.001)
        begun = time.perf_counter()
        with server_state_lock["chat"]:
            server_state["chat"].append(Message("new", f"message {number}", 0.0))
        seconds += time.perf_counter() - begun
    return seconds / times


def time_appends_by_hand(times: int) -> float:
    sql, chat = by_hand["sql"], by_hand["chat"]
    begun = time.perf_counter()
    for number in range(times):
        sql.execute("BEGIN IMMEDIATE")
        chat.append(Message("new", f"message {number}", 0.0))
        sql.execute("INSERT OR REPLACE INTO state VALUES ('chat', ?)", (pickle.dumps(chat, 5),))
        sql.execute("COMMIT")
    return (time.perf_counter() - begun) / times


def fill(keys: int, size: int) -> None:
    for first in range(0, keys, 500):
        server_state.update({f"key {number}": os.urandom(size) for number in range(first, first + 500)})


def time_start(url: str, name: str, secret: str) -> float:
    begun = time.perf_counter()
    worker.join(url, name, secret)
    seconds = time.perf_counter() - begun
    assert len(server_state) >= 10_000
    return seconds


def time_start_by_hand(url: str, name: str) -> float:
    """Read everything that the store has, as one that knows where it stands."""
    begun = time.perf_counter()
    if "://" in url:
        client = importlib.import_module(os.environ.get("CLIENT", "redis")).from_url(url)
        rows = client.hgetall(f"{{{name}}}:values").items()
    else:
        with contextlib.closing(sqlite3.connect(url)) as sql:
            rows = sql.execute("SELECT key, data FROM state").fetchall()
    values = {key.decode(): pickle.loads(data[32:]) for key, data in rows}
    seconds = time.perf_counter() - begun
    assert len(values) >= 10_000
    return seconds


if __name__ == "__main__":
    functions = {name: value for name, value in globals().items() if callable(value)}
    vars(worker).update(functions)
    worker.serve()
