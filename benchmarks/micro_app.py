"""A script that measures single calls, in a real run: ours, the peer's, `st.session_state` and a dict with a lock."""

from __future__ import annotations

import hashlib
import pickle
import threading
import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, cycle
from typing import Any

import messages
import numpy as np
import pandas as pd
import streamlit as st
from measuring import ROUNDS, are_written, hold, measure, write
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit_server_state import server_state as peer
from streamlit_server_state import server_state_lock as peer_lock

import server_state as module
from server_state import server_state as ours
from server_state import server_state_lock as our_lock

INSIDES: dict[str, Any] = module.force_rerun_bound_sessions.__globals__
numbers = count(10_000)


def writes(row: str, make: Callable[[], Any], calls: int = 5) -> None:
    """Time assignments of values that are made beforehand."""
    values = {name: iter([make() for _ in range(calls * (ROUNDS + 1))]) for name in ("ours", "peer")}
    measure(
        row,
        calls,
        ours=lambda: ours.__setitem__("written", next(values["ours"])),
        peer=lambda: peer.__setitem__("written", next(values["peer"])),
    )


class Thinnest:
    """What any lock costs that is written in Python and notes who holds it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.holders: dict[int, set[str]] = {}

    def __enter__(self) -> None:
        self.lock.acquire()
        self.holders.setdefault(threading.get_ident(), set()).add("name")

    def __exit__(self, *error: object) -> None:
        del self.holders[threading.get_ident()]
        self.lock.release()


class Model:
    """What is not looked into."""

    def __init__(self) -> None:
        nothing: tuple[int, ...] = ()
        self.parts = [[threading.Lock(), (i for i in nothing), lambda: 0] for _ in range(10)]


def measure_chat(length: int) -> None:
    chat = messages.chat("dicts of text", length)

    def append(state: Any) -> Callable[[], None]:
        return lambda: state.__setitem__("chat", [*chat, messages.dict_of_text(next(numbers))])

    def thinnest_look() -> bytes:
        digest = hashlib.sha256()
        pickle.Pickler(types.SimpleNamespace(write=digest.update), 5).dump(chat)
        return digest.digest()

    calls = max(5, 20_000 // length)
    measure(f"append to {length}", calls, ours=append(ours), peer=append(peer))
    measure(
        f"look at {length}",
        calls,
        look=lambda: INSIDES["_fingerprint"](ours["chat"]),
        held=hold(our_lock["chat"]),
        thinnest_look=thinnest_look,
        peer_write=append(peer),
    )


def measure_growth() -> None:
    for size in (10, 100, 1000, 10_000, 100_000):
        lists = cycle([[f"item {i}" for i in range(size)] for _ in range(2)])
        measure(f"grow size {size}", max(2, 10_000 // size), ours=partial(assign_next, lists))
    for keys in (1, 10, 100, 1000):
        ours.update({f"key {i}": i for i in range(keys)})
        measure(f"grow keys {keys}", 2, ours=ours.to_dict)
        names = tuple(f"name {i}" for i in range(keys))
        measure(f"grow locks {keys}", 10, ours=hold(our_lock[names]))


def assign_next(values: Iterator[Any]) -> None:
    ours["big"] = next(values)


if not are_written():
    st.session_state["read"] = ours["read"] = peer["read"] = 1
    plain: dict[str, Any] = {"read": 1}
    plain_lock, bare = threading.RLock(), threading.RLock()

    def locked_read() -> Any:
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
    measure(
        "write an int",
        2000,
        ours=lambda: ours.__setitem__("int", next(numbers)),
        peer=lambda: peer.__setitem__("int", next(numbers)),
        session_state=lambda: st.session_state.__setitem__("int", next(numbers)),
        dict_and_lock=lambda: plain.__setitem__("int", next(numbers)),
    )

    measure(
        "lock",
        5000,
        ours=hold(our_lock["made up"]),
        bare=hold(bare),
        peer=hold(peer_lock["made up"]),
        thinnest_lock=hold(Thinnest()),
    )
    measure(
        "where am I",
        5000,
        ours=lambda: INSIDES["_here"](),
        streamlit=lambda: get_script_run_ctx(suppress_warning=True),
    )

    for length in (10, 1000, 10_000):
        measure_chat(length)

    frame = pd.DataFrame({"number": range(100_000), "text": [f"text {i}" for i in range(100_000)]})

    def changed_frame() -> Any:
        copy = frame.copy()
        copy.loc[70_000, "number"] = time.perf_counter_ns()
        return copy

    def changed_array() -> Any:
        array = np.zeros(1_000_000)
        array[700_000] = time.perf_counter()
        return array

    writes("frame", changed_frame, calls=2)
    writes("array", changed_array, calls=2)

    writes("opaque", Model)
    one = cycle([np.zeros(2**27), np.zeros(2**27)])
    measure("1 GB array", ours=partial(assign_next, one))
    many = cycle([[np.zeros(2**17) for _ in range(1000)] for _ in range(2)])
    data = bytes(INSIDES["_FINGERPRINT_LIMIT"])
    measure(
        "1 GB in a thousand",
        ours=partial(assign_next, many),
        limit=lambda: hashlib.sha256(data).digest(),
    )
    del one, many
    ours["big"] = None

    measure_growth()
    write()
st.markdown("measured")
