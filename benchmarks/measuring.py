"""Timing of single calls inside a real script run. Copied beside the apps that are measured."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 7
results: dict[str, dict[str, list[float]]] = {}  # seconds of one call in each round, by row and by name


def measure(row: str, calls: int = 1, pause: float = 0.0, **work: Callable[[], Any]) -> None:
    """Time each work in turn, for some rounds: the mean of calls in a row, or the median of calls with pauses."""
    for round_ in range(ROUNDS + 1):  # the first is for warming up
        for name, function in work.items():
            seconds = one_by_one(function, calls, pause) if pause else in_a_row(function, calls)
            if round_:
                results.setdefault(row, {}).setdefault(name, []).append(seconds)


def in_a_row(function: Callable[[], Any], calls: int) -> float:
    begun = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - begun) / calls


def one_by_one(function: Callable[[], Any], calls: int, pause: float) -> float:
    times = []
    for _ in range(calls):
        time.sleep(pause)
        begun = time.perf_counter()
        function()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def hold(lock: Any) -> Callable[[], None]:
    """Make a function that takes a lock and releases it."""

    def held() -> None:
        with lock:
            pass

    return held


def are_written() -> bool:
    return os.path.exists(os.environ["RESULTS"])


def write() -> None:
    with open(os.environ["RESULTS"], "w") as file:
        json.dump(results, file)
