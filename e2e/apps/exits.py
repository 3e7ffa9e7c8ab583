"""A script that exits Python after it has shown what it shares, with a lock in hand."""

import logging
import sys

import streamlit as st

from server_state import server_state, server_state_lock

logging.basicConfig(format="%(message)s")
logging.getLogger("server_state").setLevel(logging.DEBUG)


def write() -> None:
    with server_state_lock["x"]:
        server_state["x"] += 1


server_state.setdefault("x", 0)
st.button("write", on_click=write)
st.markdown(f"x is {server_state['x']}.")
if st.button("exit") or "exits" in st.session_state:
    st.session_state["exits"] = True
    server_state_lock["left"].acquire()
    sys.exit()
st.markdown(f"left is {server_state_lock['left'].locked()}.")
