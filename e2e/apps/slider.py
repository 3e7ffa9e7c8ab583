"""A slider that all share, as the peer's own example has it."""

import streamlit as st

from server_state import server_state

server_state.setdefault("level", 50)
server_state.level = st.slider("Level", 0, 100, value=server_state.level)
st.markdown(f"level is {server_state.level}.")
