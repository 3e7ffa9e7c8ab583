"""An app that writes what it reads on every run."""

import streamlit as st

from server_state import server_state

server_state["x"] = server_state.get("x", 0) + 1
st.session_state.clicks = st.session_state.get("clicks", 0) + st.button("click")
st.markdown(f"x is {server_state['x']}. clicks are {st.session_state.clicks}.")
