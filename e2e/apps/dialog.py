"""A dialog that shows a value."""

import streamlit as st

from server_state import server_state


@st.dialog("Details")
def details() -> None:
    st.markdown(f"the dialog shows {server_state.get('x')}.")


def write() -> None:
    server_state.x = server_state.get("x", 0) + 1


if st.button("open"):
    details()
st.button("write", on_click=write)
