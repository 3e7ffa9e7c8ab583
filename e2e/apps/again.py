"""A page that runs again by itself whenever the shared value is another."""

import streamlit as st

from server_state import server_state


def write() -> None:
    server_state["n"] += 1


n = server_state.setdefault("n", 0)
if st.session_state.get("seen") != n:
    st.session_state["seen"] = n
    st.rerun()
st.markdown(f"n is {n}.")
st.button("Write", on_click=write)
