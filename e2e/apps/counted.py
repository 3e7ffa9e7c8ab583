"""A page that says how often its session ran, and lets a user write. `?lines=` makes it long."""

import streamlit as st

from server_state import no_rerun, server_state, server_state_lock

runs = st.session_state.runs = st.session_state.get("runs", 0) + 1
with no_rerun:
    server_state.setdefault("runs", {})[st.session_state.setdefault("name", str(id(st.session_state)))] = runs


def write() -> None:
    with server_state_lock["x"]:
        server_state["x"] = server_state.get("x", 0) + 1


st.button("write", on_click=write)
st.markdown(f"x is {server_state.get('x', 0)}.")
st.markdown(f"runs are {runs}.")
for line in range(int(st.query_params.get("lines", 0))):
    st.text(f"line {line}")
