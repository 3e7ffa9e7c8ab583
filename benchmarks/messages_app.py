"""A script that measures, in a real run, what lists of 10,000 messages of several kinds cost: ours and the peer's."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from itertools import count
from typing import Any

import messages
import streamlit as st
from measuring import are_written, measure, write
from streamlit_server_state import server_state as peer

from server_state import server_state as ours
from server_state import server_state_lock as our_lock

LENGTH = 10_000
numbers = count(LENGTH)


def reader(key: str) -> Callable[[], Any]:
    def read() -> Any:
        with our_lock[key]:
            return ours[key]

    return read


def measure_kind(what: str) -> None:
    make, chat = messages.MAKERS[what], messages.chat(what, LENGTH)

    def longer() -> Any:
        value = [*chat, make(next(numbers))]
        return {"chat": value, "online": {"Ada", "Bob"}} if what == messages.WITH_A_SET else value

    measure(
        f"assign {what}",
        2,
        ours=lambda: setattr(ours, "chat", longer()),
        peer=lambda: setattr(peer, "chat", longer()),
        pickle=lambda: pickle.dumps(longer()),
    )
    ours.update(chat=longer(), short=messages.chat(what, 10))
    measure(f"read {what}", 500, ours=reader("chat"), short=reader("short"))


def measure_append() -> None:
    """With pauses, as people write: whatever it needs is no longer in the processor's caches."""
    ours["chat"], plain = messages.chat("dataclasses", LENGTH), messages.chat("dataclasses", LENGTH)
    lock, new = threading.RLock(), messages.in_dataclass(LENGTH)

    def append() -> None:
        with our_lock["chat"]:
            ours["chat"].append(new)

    def append_to_plain() -> None:
        with lock:
            plain.append(new)

    measure("append", 20, pause=0.02, ours=append, plain=append_to_plain)


if not are_written():
    for what in messages.MAKERS:
        measure_kind(what)
    measure_append()
    write()
st.markdown("measured")
