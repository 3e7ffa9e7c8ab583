"""`worker.py`, and what the benchmark times in it."""

from __future__ import annotations

import importlib
import os
import pickle
import time
from typing import Any

import worker
from server_state import server_state, server_state_lock

by_hand: dict[str, Any] = {}


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


if __name__ == "__main__":
    functions = {name: value for name, value in globals().items() if callable(value)}
    vars(worker).update(functions)
    worker.serve()
