"""A value that all tabs show, a button that writes it once, and one that has a thread write on and on."""

import threading
import time

import streamlit as st

from server_state import server_state

server_state.setdefault("value", 0)


def work(times: int, pause: float) -> None:
    at = time.monotonic()
    for value in range(1, times + 1):
        at += pause
        time.sleep(max(0.0, at - time.monotonic()))
        server_state["value"] = f"{threading.get_ident()} {value}"


def write() -> None:
    server_state["value"] = time.time_ns()


st.button("write", on_click=write)
if st.button("work"):
    threading.Thread(target=work, args=(100, 0.1)).start()
st.markdown(f"value is {server_state['value']}.")
