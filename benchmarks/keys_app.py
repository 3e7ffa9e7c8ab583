"""Many keys that all tabs read, as often whatever their number, and a thread that writes one that nobody reads."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import bystander
import settings  # of the server that is measured
import streamlit as st

server_state = settings.server_state


def write() -> None:
    server_state["key 0"] = int(Path("next").read_text())
    Path("took").write_text("0")


def work() -> None:
    """Note the CPU time of ten seconds in which nothing is done, and of ten with 20 writes a second."""
    used = []
    for is_written in (False, True):
        before, begun = time.process_time(), time.monotonic()
        for value in range(200):
            if is_written:
                server_state["nobody's"] = value
            time.sleep(max(0.0, begun + value / 20 - time.monotonic()))
        used.append((time.process_time() - before) / (time.monotonic() - begun))
    Path("work.json").write_text(json.dumps(used))


st.button("write", on_click=write)
if st.button("work"):
    threading.Thread(target=work).start()
shown = [server_state.setdefault(f"key {number % settings.KEYS}", 0) for number in range(1000)]
st.markdown(f"value is {shown[0]}.")
bystander.own()
