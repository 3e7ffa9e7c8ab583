"""A fragment within a fragment, each with a key of its own."""

import streamlit as st

from server_state import server_state


@st.fragment
def inner() -> None:
    st.markdown(f"inner shows {server_state.get('x')}.")


@st.fragment
def outer() -> None:
    st.markdown(f"outer shows {server_state.get('y')}.")
    inner()


def write(key: str) -> None:
    server_state[key] = server_state.get(key, 0) + 1


outer()
for key in "xy":
    st.button(f"write {key}", on_click=write, args=(key,))
