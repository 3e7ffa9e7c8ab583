"""A value that all tabs show, a button that writes it, and one that has a thread write on and on."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import bystander
import settings  # of the server that is measured
import streamlit as st
import tally

server_state = settings.server_state


def write() -> None:
    value = int(Path("next").read_text())
    begun = time.perf_counter()
    server_state["value"] = value
    took = time.perf_counter() - begun
    Path("took").write_text(str(took))


def work(times: int, pause: float) -> None:
    threads, written = [], {}
    cpu, started = time.process_time(), time.time()
    for value in range(1000, 1000 + times):
        if time.time() - started > 1.2 * times * pause:
            break  # the peer blocks the writer for longer than the pause
        time.sleep(pause)
        written[value] = time.time()
        server_state["value"] = value
        threads.append(threading.active_count())
    time.sleep(3)
    cpu = time.process_time() - cpu
    Path("work.json").write_text(json.dumps([max(threads), cpu, tally.started, tally.ended, written]))


tally.started += 1
if "value" not in server_state:
    server_state["value"] = 0
if st.button("write"):
    write()
if st.button("work"):
    tally.started = tally.ended = 0
    threading.Thread(target=work, args=(settings.TIMES, settings.PAUSE)).start()
shown = server_state["value"]
time.sleep(settings.SLEEP)
busy_since = time.thread_time()
while time.thread_time() < busy_since + settings.CPU:
    pass
st.markdown(f"value is {shown}.")
bystander.own()
tally.ended += 1
