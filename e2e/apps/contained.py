"""A slow fragment in a container, below what the body shows."""

import time

import streamlit as st

from server_state import server_state, server_state_lock


def add() -> None:
    with server_state_lock["n"]:
        server_state["n"] += 1


@st.fragment
def slow() -> None:
    st.button("in the fragment")
    time.sleep(0.5)


server_state.setdefault("n", 0)
st.button("add", on_click=add)
st.markdown(f"n is {server_state['n']}.")
with st.container():
    slow()
