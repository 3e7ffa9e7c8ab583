"""A thread that writes 50 times a second for 10 s, and a script that takes 0.3 s."""

import threading
import time

import streamlit as st

from server_state import server_state


def work() -> None:
    for tick in range(500):
        time.sleep(0.02)
        server_state["tick"] = tick


if st.button("start"):
    threading.Thread(target=work).start()
runs = st.session_state.runs = st.session_state.get("runs", 0) + 1
ends = st.session_state.get("ends", 0)
st.markdown(f"cut short are {runs - 1 - ends}. ended are {ends}. tick is {server_state.get('tick')}.")
time.sleep(0.3)
st.markdown("done")
st.session_state.ends = ends + 1
