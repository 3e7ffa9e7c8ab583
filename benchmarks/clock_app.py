"""A fragment that reads a long chat, again each second; the number of threads is noted ten times a second."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import bystander
import messages
import settings  # of the server that is measured
import streamlit as st

server_state = settings.server_state


def count_threads() -> None:
    with Path("threads").open("a") as file:
        while True:
            time.sleep(0.1)
            print(threading.active_count(), file=file, flush=True)


@st.fragment(run_every=1)
def latest() -> None:
    chat = server_state["chat"]
    st.markdown(f"{len(chat)} messages, the last at {chat[-1]['at']}")
    st.button("by the clock")


if "chat" not in server_state:
    server_state["chat"] = messages.chat("dicts with an aware `datetime`", 10_000)
    threading.Thread(target=count_threads, daemon=True).start()
latest()
bystander.own()
