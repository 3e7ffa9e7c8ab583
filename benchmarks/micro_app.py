"""A script that measures single calls, in a real run: ours, the peer's, `st.session_state` and a dict with a lock."""

import hashlib
import json
import os
import pickle
import statistics
import threading
import time
import types

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit_server_state import server_state as peer
from streamlit_server_state import server_state_lock as peer_lock

import server_state as module
from server_state import server_state as ours
from server_state import server_state_lock as our_lock

ROUNDS = 7
results: dict[str, dict[str, list[float]]] = {}


def measure(row: str, calls: int = 1, **work) -> None:
    """Time each work in turn, for some rounds; note the microseconds of one call in each round."""
    for round_ in range(ROUNDS + 1):  # the first is for warming up
        for name, function in work.items():
            begun = time.perf_counter()
            for _ in range(calls):
                function()
            if round_:
                results.setdefault(row, {}).setdefault(name, []).append((time.perf_counter() - begun) / calls * 1e6)


def writes(row: str, make, calls: int = 5) -> None:
    """Time assignments of values that are made beforehand."""
    values = {name: iter([make() for _ in range(calls * (ROUNDS + 1))]) for name in ("ours", "peer")}
    measure(
        row,
        calls,
        ours=lambda: ours.__setitem__("written", next(values["ours"])),
        peer=lambda: peer.__setitem__("written", next(values["peer"])),
    )


if not os.path.exists(os.environ["RESULTS"]):
    st.session_state["read"] = ours["read"] = peer["read"] = 1
    plain, plain_lock, bare = {"read": 1}, threading.RLock(), threading.RLock()

    def locked_read():
        with plain_lock:
            return plain["read"]

    measure(
        "read",
        2000,
        ours=lambda: ours["read"],
        peer=lambda: peer["read"],
        session_state=lambda: st.session_state["read"],
        dict_and_lock=locked_read,
    )
    measure(
        "contains",
        2000,
        ours=lambda: "read" in ours,
        peer=lambda: "read" in peer,
        session_state=lambda: "read" in st.session_state,
    )
    numbers = iter(range(10**9))
    measure(
        "write an int",
        2000,
        ours=lambda: ours.__setitem__("int", next(numbers)),
        peer=lambda: peer.__setitem__("int", next(numbers)),
        session_state=lambda: st.session_state.__setitem__("int", next(numbers)),
        dict_and_lock=lambda: plain.__setitem__("int", next(numbers)),
    )

    def hold(lock):
        def held():
            with lock:
                pass

        return held

    class Thinnest:
        """What any lock costs that is written in Python and notes who holds it."""

        def __init__(self):
            self.lock, self.holders = threading.RLock(), {}

        def __enter__(self):
            self.lock.acquire()
            self.holders.setdefault(threading.get_ident(), set()).add("name")

        def __exit__(self, *error):
            del self.holders[threading.get_ident()]
            self.lock.release()

    measure(
        "lock",
        5000,
        ours=hold(our_lock["made up"]),
        bare=hold(bare),
        peer=hold(peer_lock["made up"]),
        thinnest=hold(Thinnest()),
    )
    measure(
        "where am I",
        5000,
        ours=lambda: module.force_rerun_bound_sessions.__globals__["_here"](),
        streamlit=lambda: get_script_run_ctx(suppress_warning=True),
    )

    for length in (10, 1000, 10_000):
        chat = [{"user": f"user {i % 7}", "text": f"message number {i}, of the usual length"} for i in range(length)]

        def append(state, chat=chat):
            state["chat"] = [*chat, {"user": "me", "text": f"message number {next(numbers)}, of the usual length"}]

        def thinnest_look(chat=chat):
            digest = hashlib.sha256()
            pickle.Pickler(types.SimpleNamespace(write=digest.update), 5).dump(chat)
            return digest.digest()

        calls = max(5, 20_000 // length)
        measure(
            f"append to {length}",
            calls,
            ours=lambda append=append: append(ours),
            peer=lambda append=append: append(peer),
        )
        measure(
            f"look at {length}",
            calls,
            end_of_run=lambda: module.force_rerun_bound_sessions.__globals__["_fingerprint"](ours["chat"]),
            release=hold(our_lock["chat"]),
            thinnest=thinnest_look,
            peer_write=lambda append=append: append(peer),
        )

    frame = pd.DataFrame({"number": range(100_000), "text": [f"text {i}" for i in range(100_000)]})

    def changed_frame():
        copy = frame.copy()
        copy.loc[70_000, "number"] = time.perf_counter_ns()
        return copy

    def changed_array():
        array = np.zeros(1_000_000)
        array[700_000] = time.perf_counter()
        return array

    writes("frame", changed_frame, calls=2)
    writes("array", changed_array, calls=2)

    class Model:
        def __init__(self):
            self.parts = [[threading.Lock(), (i for i in ()), lambda: 0] for _ in range(10)]

    writes("opaque", Model)
    big = [np.zeros(2**27), np.zeros(2**27)]
    turn = iter(range(10**9))
    measure("1 GB array", ours=lambda: ours.__setitem__("big", big[next(turn) % 2]))
    many = [[np.zeros(2**17) for _ in range(1000)] for _ in range(2)]
    data = bytes(module.force_rerun_bound_sessions.__globals__["FINGERPRINT_LIMIT"])
    measure(
        "1 GB in a thousand",
        ours=lambda: ours.__setitem__("big", many[next(turn) % 2]),
        limit=lambda: hashlib.sha256(data).digest(),
    )
    del big, many
    ours["big"] = None

    # How costs grow.
    for size in (10, 100, 1000, 10_000, 100_000):
        value = [[f"item {i}" for i in range(size)] for _ in range(2)]
        measure(
            f"grow size {size}", max(2, 10_000 // size), ours=lambda value=value: ours.update(x=value[next(turn) % 2])
        )
    for keys in (1, 10, 100, 1000):
        ours.update({f"key {i}": i for i in range(keys)})
        measure(f"grow keys {keys}", 2, ours=lambda: ours.to_dict())
        names = tuple(f"name {i}" for i in range(keys))
        measure(f"grow locks {keys}", 10, ours=hold(our_lock[names]))
    with open(os.environ["RESULTS"], "w") as file:
        json.dump(
            {row: {k: [statistics.median(v), min(v), max(v)] for k, v in r.items()} for row, r in results.items()}, file
        )
st.markdown("measured")
