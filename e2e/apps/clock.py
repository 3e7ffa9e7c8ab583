"""A value in the body, and in a fragment that runs by the clock."""

import streamlit as st

from server_state import server_state, server_state_lock


def write() -> None:
    with server_state_lock["x"]:
        server_state["x"] = server_state.get("x", 0) + 1


st.button("write", on_click=write)
st.markdown(f"x is {server_state.get('x', 0)}.")


@st.fragment(run_every=0.2)
def clock() -> None:
    st.session_state.ticks = st.session_state.get("ticks", 0) + 1
    st.markdown(f"ticks are {st.session_state.ticks}, the clock shows {server_state.get('x')}.")


clock()
