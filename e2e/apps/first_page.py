"""One of two pages that show a value, and write it."""

import streamlit as st

from server_state import server_state


def write() -> None:
    server_state["x"] = server_state.get("x", 0) + 1


st.markdown(f"x is {server_state.get('x', 0)}. query is {st.query_params.get('q')}.")
st.button("write", on_click=write)
