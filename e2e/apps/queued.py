"""Three fragments: while the slow one runs, what is asked of the others waits, and becomes one run."""

import time

import streamlit as st

from server_state import server_state

st.button("write x", on_click=lambda: server_state.update(x=server_state.get("x", 0) + 1))
st.button("write y", on_click=lambda: server_state.update(y=server_state.get("y", 0) + 1))


@st.fragment
def show(key: str) -> None:
    st.write(f"{key} is {server_state.get(key)}.")
    st.button(f"touch {key}")


@st.fragment
def work() -> None:
    if st.button("work"):
        st.write("works")
        time.sleep(0.7)
        st.write("worked")


show("x")
show("y")
work()
