"""A timed fragment that takes longer than its interval, beside a body that shows a value."""

import time

import streamlit as st

from server_state import server_state

st.markdown(f"n is {server_state.get('n')}.")


@st.fragment(run_every=0.5)
def clock() -> None:
    time.sleep(0.6)
    st.markdown("tick")
    st.button("Tick")


clock()


def write() -> None:
    server_state["n"] = "written"


st.button("Write", on_click=write)
