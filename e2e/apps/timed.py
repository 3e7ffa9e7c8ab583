"""A timed fragment that takes longer than its interval, beside a body that shows a value."""

import time

import streamlit as st

from server_state import server_state

st.session_state.setdefault("begun", 0)
st.session_state.setdefault("ended", 0)
st.markdown(f"n is {server_state.get('n')}.")


@st.fragment(run_every=0.5)
def clock() -> None:
    st.session_state["begun"] += 1
    time.sleep(0.6)
    st.button("Tick")
    st.markdown(f"cut short: {st.session_state['begun'] - 1 - st.session_state['ended']}.")
    st.session_state["ended"] += 1


clock()


def write() -> None:
    server_state["n"] = server_state.get("n", 0) + 1


st.button("Write", on_click=write)
