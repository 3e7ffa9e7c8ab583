"""A counter that is counted under its lock, in a script that takes its time."""

import time

import streamlit as st

from server_state import server_state, server_state_lock

with server_state_lock["n"]:
    server_state.setdefault("n", 0)
    if st.button("+1"):
        server_state["n"] += 1
st.markdown(f"n is {server_state['n']}.")
time.sleep(0.1)
