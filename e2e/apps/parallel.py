"""Fragments that run side by side."""

import streamlit as st

from server_state import server_state

runs = st.session_state.runs = st.session_state.get("runs", 0) + 1


@st.fragment(parallel=True)
def show(key: str) -> None:
    st.markdown(f"{key} is {server_state.get(key)}.")


@st.fragment(parallel=True)
def count() -> None:
    if runs == 2:
        server_state.z = server_state.get("z", 0) + 1  # the run's own: it is not told of it
    st.markdown(f"z is {server_state.get('z')}.")


def write(key: str) -> None:
    server_state[key] = server_state.get(key, 0) + 1


show("x")
show("y")
count()
st.button("write x", on_click=write, args=("x",))
